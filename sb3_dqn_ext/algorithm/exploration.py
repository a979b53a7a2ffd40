"""Exploration: the choice of the next action of each environment. Shapes: N environments, A actions."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext._validation import OpenChoice, check_number, check_type, choose, parameters_of, unknown_key_error
from sb3_dqn_ext.algorithm.schedule_specs import check_range, make_schedule
from sb3_dqn_ext.algorithm.schedules import PerActionSchedule, Schedule
from sb3_dqn_ext.algorithm.stateful import Stateful
from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "EPSILON_DRAWS",
    "EXPLORATION",
    "EXPLORATIONS",
    "SCHEDULED",
    "SYNONYMS",
    "Boltzmann",
    "EpsilonGreedy",
    "EpsilonLadder",
    "Exploration",
    "ExplorationContext",
    "EzGreedy",
    "NoExploration",
    "make_exploration",
    "make_exploration_schedule",
]

Actions = npt.NDArray[Any]
Values = npt.NDArray[np.floating[Any]]


class ExplorationContext(NamedTuple):
    """The input of an exploration. It evaluates the network at most once: by ``greedy_actions`` or by ``q_values``."""

    n_envs: int
    """N, the number of environments."""
    rate: float
    """The scheduled number: epsilon, or a temperature."""
    greedy_actions: Callable[[], Actions]
    """A function that returns the (N,) greedy actions of the policy."""
    q_values: Callable[[], Values]
    """A function that returns the (N, A) Q-values."""
    random_action: Callable[..., Any]
    """A function that returns one random action. With action masks, its argument is the index of the environment."""
    generator: np.random.Generator
    """The algorithm's generator of random numbers."""
    state: dict[str, npt.NDArray[np.int64]]
    """
    Arrays of (N,) numbers that the exploration keeps between steps. The numbers of an environment become 0 when its episode
    ends.
    """
    legal_actions: npt.NDArray[np.bool_] | None = None
    """(N, A) whether each action is legal; None without action masks. Illegal actions have the lowest Q-values."""


class Exploration(Stateful):
    """
    A way to choose one action for each environment.

    A subclass overrides :meth:`__call__`. Its arguments are given as ``exploration_kwargs``. The state of each environment
    belongs in ``context.state``: it becomes 0 when an episode ends, is part of checkpoints, and is empty in ``predict()``. The
    state of the exploration as a whole is kept in attributes, see :class:`~sb3_dqn_ext.algorithm.stateful.Stateful`.
    """

    schedule_key: ClassVar[str] = "schedule"
    """The key of ``exploration_kwargs`` that contains the schedule of ``rate``: ``"schedule"`` or ``"temperature"``."""
    default_rate: ClassVar[float | None] = None
    """The rate if that key is missing; None: SB3's ``exploration_*`` arguments define it."""

    def __call__(self, context: ExplorationContext) -> Actions:
        """
        Choose the next actions.

        :param context: the input
        :return: (N,) actions
        """
        raise NotImplementedError

    def log_entry(self, rate: float, n_envs: int) -> tuple[str, float]:
        """
        Return the name and the value that are logged for a rate.

        :param rate: the present value of the schedule
        :param n_envs: N
        :return: the name, the value
        """
        return "rollout/exploration_rate", rate


def draw_per_env(n_envs: int, generator: np.random.Generator) -> list[float]:
    """
    Draw a uniform number for each environment.

    The first number is drawn from numpy's global generator, as SB3 does, so that one environment explores as with SB3. The
    others are drawn from the algorithm's own generator, so that the state of numpy's global generator stays equal to that of
    SB3's run.

    :param n_envs: N
    :param generator: the algorithm's generator
    :return: N numbers in [0, 1)
    """
    first = np.random.rand()
    return [first, *generator.random(n_envs - 1).tolist()] if n_envs > 1 else [first]  # Python's numbers are compared faster


def draw_shared(n_envs: int, generator: np.random.Generator) -> list[float]:
    """Draw one uniform number for all N environments, as SB3 does: all of them explore, or none."""
    return [np.random.rand()] * n_envs


EPSILON_DRAWS = {"per_env": draw_per_env, "shared": draw_shared}


def random_or_greedy(context: ExplorationContext, explorers: Collection[int]) -> Actions:
    """
    Choose random actions for the environments that explore, and greedy actions for the others.

    :param context: the input of the exploration
    :param explorers: the indices of the environments that explore
    :return: (N,) actions
    """
    if len(explorers) == context.n_envs:
        return np.array([context.random_action(env) for env in range(context.n_envs)])
    actions = context.greedy_actions()
    for env in explorers:
        actions[env] = context.random_action(env)
    return actions


@dataclass(frozen=True)
class EpsilonGreedy(Exploration):
    """
    Epsilon-greedy exploration: a random action with probability epsilon, otherwise the greedy action (Mnih et al., 2015,
    https://www.nature.com/articles/nature14236).

    :param epsilon_draw: the uniform random number that is compared with epsilon. ``"per_env"``: each environment has its own;
        ``"shared"``: all environments share one, as with SB3
    :raises ArgumentError: if there is no such ``epsilon_draw``
    """

    epsilon_draw: str = "per_env"

    def __post_init__(self) -> None:
        choose("epsilon_draw", self.epsilon_draw, EPSILON_DRAWS)

    def __call__(self, context: ExplorationContext) -> Actions:
        draws = EPSILON_DRAWS[self.epsilon_draw](context.n_envs, context.generator)
        return random_or_greedy(context, [env for env, draw in enumerate(draws) if draw < context.rate])


@dataclass(frozen=True)
class EzGreedy(Exploration):
    """
    Temporally extended epsilon-greedy exploration (Dabney et al., 2021, https://arxiv.org/abs/2006.01782).

    With probability epsilon, a random action is chosen and repeated for n steps, or until the episode ends or the action is no
    longer legal. The duration n has a zeta distribution, ``P(n = k) ~ k**-mu``. Therefore, the share of random actions is
    greater than epsilon. With ``max_duration=1`` it is epsilon-greedy.

    :param mu: the exponent of the zeta distribution, greater than 1; a smaller one gives longer durations
    :param max_duration: the maximum of n; longer durations are cut to it
    :raises ArgumentError: if an argument is out of its range
    """

    mu: float = 2.0
    max_duration: int = 10_000

    def __post_init__(self) -> None:
        check_number("mu", self.mu, low=1)
        if self.mu == 1:
            raise ArgumentError("mu=1 must be greater than 1: the sum of 1 / k diverges, so there is no such distribution.")
        check_number("max_duration", self.max_duration, low=1, integer=True)

    def __call__(self, context: ExplorationContext) -> Actions:
        remaining = context.state.setdefault("remaining", np.zeros(context.n_envs, np.int64))
        repeated = context.state.setdefault("kept", np.zeros(context.n_envs, np.int64))
        if context.legal_actions is not None:
            remaining[~context.legal_actions[np.arange(context.n_envs), repeated]] = 0
        for env, draw in enumerate(draw_per_env(context.n_envs, context.generator)):
            if remaining[env] == 0 and draw < context.rate:
                remaining[env] = min(context.generator.zipf(self.mu), self.max_duration)
                repeated[env] = context.random_action(env)
        running = remaining > 0
        remaining[running] -= 1
        return repeated.copy() if running.all() else np.where(running, repeated, context.greedy_actions())


@dataclass(frozen=True)
class EpsilonLadder(Exploration):
    """
    Epsilon-greedy with a different epsilon for each environment, as the actors of Ape-X (Horgan et al., 2018,
    https://arxiv.org/abs/1803.00933)::

        epsilon_i = epsilon**(1 + alpha * i / (N - 1)),  i = 0 ... N - 1

    The paper has a constant epsilon of 0.4: ``schedule=0.4``. A single environment has epsilon itself.

    :param alpha: the exponent of the ladder, not negative: the last environment has ``epsilon**(1 + alpha)``
    :raises ArgumentError: if ``alpha`` is out of its range
    """

    alpha: float = 7.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0)

    def epsilons(self, epsilon: float, n_envs: int) -> npt.NDArray[np.float64]:
        """Return the (N,) epsilons of the environments."""
        return np.power(epsilon, 1 + self.alpha * np.arange(n_envs) / max(n_envs - 1, 1))

    def __call__(self, context: ExplorationContext) -> Actions:
        draws = np.array(draw_per_env(context.n_envs, context.generator))
        return random_or_greedy(context, np.flatnonzero(draws < self.epsilons(context.rate, context.n_envs)))

    def log_entry(self, rate: float, n_envs: int) -> tuple[str, float]:
        return "rollout/exploration_rate", float(self.epsilons(rate, n_envs).mean())


@dataclass(frozen=True)
class Boltzmann(Exploration):
    """
    Boltzmann exploration: action a has probability ``softmax(q / temperature)[a]`` (Sutton and Barto, 2018,
    http://incompleteideas.net/book/the-book-2nd.html, section 2.8).

    ``exploration_kwargs["temperature"]`` is a number (default: 1) or a schedule, in the unit of the returns. With a
    temperature near 0 the actions are greedy.
    """

    schedule_key: ClassVar[str] = "temperature"
    default_rate: ClassVar[float | None] = 1.0

    def __call__(self, context: ExplorationContext) -> Actions:
        draws = np.array(draw_per_env(context.n_envs, context.generator))
        return sample_actions(softmax(context.q_values(), context.rate), draws)

    def log_entry(self, rate: float, n_envs: int) -> tuple[str, float]:
        return "rollout/temperature", rate


def softmax(values: Values, temperature: float) -> Values:
    """Return the (N, A) probabilities ``softmax(values / temperature)``, without overflow at any scale."""
    gaps = (values - values.max(axis=1, keepdims=True)).astype(np.float64)  # (N, A), 0 for the best action
    weights = np.exp(gaps / max(temperature, 1e-12))
    probabilities: Values = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def sample_actions(probabilities: Values, draws: npt.NDArray[np.float64]) -> Actions:
    """Return the (N,) actions at which the cumulative (N, A) probabilities exceed (N,) uniform numbers."""
    passed = (probabilities.cumsum(axis=1) <= draws[:, None]).sum(axis=1)
    last = probabilities.shape[1] - 1 - (probabilities[:, ::-1] > 0).argmax(axis=1)  # (N,) the last possible actions
    actions: Actions = np.minimum(passed, last)  # rounding may leave the sum of all slightly below 1
    return actions


@dataclass(frozen=True)
class NoExploration(Exploration):
    """No exploration beside that of the network, such as noisy layers: always the greedy action."""

    default_rate: ClassVar[float | None] = 0.0

    def __call__(self, context: ExplorationContext) -> Actions:
        return context.greedy_actions()

    def log_entry(self, rate: float, n_envs: int) -> tuple[str, float]:
        return "rollout/exploration_rate", 0.0


EXPLORATIONS: dict[str, Callable[..., Exploration]] = {
    "epsilon_greedy": EpsilonGreedy,
    "ez_greedy": EzGreedy,
    "epsilon_ladder": EpsilonLadder,
    "boltzmann": Boltzmann,
    "none": NoExploration,
}
SYNONYMS = {
    "eps_greedy": "epsilon_greedy",
    "egreedy": "epsilon_greedy",
    "e_greedy": "epsilon_greedy",
    "epsilon": "epsilon_greedy",
    "ezgreedy": "ez_greedy",
    "epsilon_z_greedy": "ez_greedy",
    "temporally_extended": "ez_greedy",
    "apex": "epsilon_ladder",
    "ape-x": "epsilon_ladder",
    "ladder": "epsilon_ladder",
    "softmax": "boltzmann",
    "gibbs": "boltzmann",
    "greedy": "none",
}
SCHEDULED = ("schedule", "temperature")
UNITS = {"env_steps": "environment steps", "actions": "actions"}


EXPLORATION = OpenChoice("exploration", Exploration, ("__call__",), EXPLORATIONS, SYNONYMS)


def make_exploration(exploration: object, exploration_kwargs: Mapping[str, Any]) -> Exploration:
    """
    Make an exploration.

    :param exploration: a key of ``EXPLORATIONS``, a subclass of :class:`Exploration`, an object, or a dotted name
    :param exploration_kwargs: the arguments of that exploration, those of :func:`make_exploration_schedule`, and ``warm_up``:
        whether all actions are random until ``learning_starts``, as with SB3 (default). If not, the exploration chooses from
        the first step
    :return: the exploration
    :raises ArgumentError: if there is no such name or argument, or a value is not allowed
    """
    found = EXPLORATION.find(exploration)
    own = set(parameters_of(found)) if isinstance(found, type) else set()
    if found.schedule_key not in SCHEDULED:
        allowed = " or ".join(map(repr, SCHEDULED))
        raise ArgumentError(f"exploration={exploration!r} has schedule_key={found.schedule_key!r}; it can be {allowed}.")
    general = {found.schedule_key, "unit", "warm_up"}
    check_type("exploration_kwargs['warm_up']", exploration_kwargs.get("warm_up", True), bool, "True or False")
    kwargs = {key: value for key, value in exploration_kwargs.items() if key in own or key not in general}
    for key in kwargs.keys() - own if isinstance(found, type) else ():
        raise unknown_key_error("exploration_kwargs", key, own | general)
    return EXPLORATION.build(exploration, kwargs)


def make_exploration_schedule(
    exploration: Exploration, exploration_kwargs: Mapping[str, Any], learning_starts: float, n_envs: int
) -> Schedule | None:
    """
    Make the schedule of an exploration's rate from ``exploration_kwargs``.

    :param exploration: the exploration
    :param exploration_kwargs: ``schedule`` (or ``temperature``): an argument of
        :func:`~sb3_dqn_ext.algorithm.schedule_specs.make_schedule`; ``unit``: the unit of its steps. ``"env_steps"``:
        environment steps over all environments, as SB3 counts them; ``"actions"``: actions of each environment after the
        warm-up, including greedy ones
    :param learning_starts: environment steps of the warm-up, in which every action is random; 0 without a warm-up
    :param n_envs: the number of environments
    :return: the schedule. Without the key, the exploration's constant ``default_rate``; None if it has no default either:
        SB3's ``exploration_*`` arguments then define the rate
    :raises ArgumentError: if no schedule has this name, its values are out of their range, or ``unit`` is unknown or given
        without a schedule
    """
    key = exploration.schedule_key
    unit = exploration_kwargs.get("unit", "env_steps")
    choose("unit", unit, UNITS, {"steps": "env_steps", "timesteps": "env_steps", "action": "actions"})
    if key not in exploration_kwargs:
        if "unit" in exploration_kwargs:
            raise ArgumentError(f"exploration_kwargs['unit']={unit!r} has no effect without exploration_kwargs[{key!r}].")
        return None if exploration.default_rate is None else make_schedule(exploration.default_rate)
    schedule = make_schedule(exploration_kwargs[key])
    check_range(f"exploration_kwargs[{key!r}]", schedule, 0, np.inf if key == "temperature" else 1)
    return schedule if unit == "env_steps" else PerActionSchedule(schedule, learning_starts, n_envs)
