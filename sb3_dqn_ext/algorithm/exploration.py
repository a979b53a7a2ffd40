"""Exploration: the choice of the next actions. Shapes: N environments, A actions."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext._validation import check_keys, check_number, check_type, choose, parameters_of
from sb3_dqn_ext.algorithm.schedule_specs import check_range, make_schedule
from sb3_dqn_ext.algorithm.schedules import PerActionSchedule, Schedule
from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "EPSILON_DRAWS",
    "EXPLORATIONS",
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
    """
    The input of an exploration. The network is evaluated at most once: by ``greedy`` or by ``values``.
    """

    n_envs: int
    """N"""
    rate: float
    """the number that is scheduled: epsilon, or a temperature"""
    greedy: Callable[[], Actions]
    """gives the (N,) actions of the policy"""
    values: Callable[[], Values]
    """gives the (N, A) Q-values"""
    random: Callable[[], Any]
    """gives one random action"""
    generator: np.random.Generator
    """the algorithm's own"""
    memory: dict[str, npt.NDArray[np.int64]]
    """(N,) numbers that are kept from one step to the next; those of an environment are 0 once its episode has ended"""


class Exploration(Protocol):
    """Chooses one action for each environment."""

    schedule_key: ClassVar[str] = "schedule"
    """the key of ``exploration_kwargs`` that has the schedule of ``rate``"""
    default_rate: ClassVar[float | None] = None
    """the rate where that key is missing, None where it is that of SB3's ``exploration_*`` arguments"""

    def __call__(self, moment: ExplorationContext) -> Actions:
        """:return: (N,) actions"""
        ...

    def log_entry(self, rate: float, n_envs: int) -> tuple[str, float]:
        """:return: the name and the value that are logged for ``rate``"""
        return "rollout/exploration_rate", rate


def draw_per_env(n_envs: int, generator: np.random.Generator) -> list[float]:
    """
    (N,) uniform numbers. The first is drawn as SB3 draws its only one, so that one environment explores as it does there;
    the others are drawn from the algorithm's own generator, so that numpy's stays in step with SB3's.
    """
    first = np.random.rand()
    return [first, *generator.random(n_envs - 1)] if n_envs > 1 else [first]


def draw_shared(n_envs: int, generator: np.random.Generator) -> list[float]:
    """(N,) times the same uniform number, as SB3 does: all environments explore, or none."""
    return [np.random.rand()] * n_envs


EPSILON_DRAWS = {"per_env": draw_per_env, "shared": draw_shared}


def random_or_greedy(moment: ExplorationContext, explorers: Collection[int]) -> Actions:
    """(N,) random actions of the environments that explore, the greedy ones of the others."""
    if len(explorers) == moment.n_envs:
        return np.array([moment.random_action() for _ in explorers])
    actions = moment.greedy_actions()
    for env in explorers:
        actions[env] = moment.random_action()
    return actions


@dataclass(frozen=True)
class EpsilonGreedy(Exploration):
    """
    A random action with probability epsilon, else the greedy one.

    :param coin: ``"per_env"``: each environment tosses a coin of its own; ``"shared"``: one coin for all, as SB3 does
    """

    epsilon_draw: str = "per_env"

    def __post_init__(self) -> None:
        choose("epsilon_draw", self.epsilon_draw, EPSILON_DRAWS)

    def __call__(self, moment: ExplorationContext) -> Actions:
        coins = EPSILON_DRAWS[self.epsilon_draw](moment.n_envs, moment.generator)
        return random_or_greedy(moment, [env for env, coin in enumerate(coins) if coin < moment.rate])


@dataclass(frozen=True)
class EzGreedy(Exploration):
    """
    Temporally extended epsilon-greedy (https://arxiv.org/abs/2006.01782): a random action, begun with probability epsilon, is
    taken for n steps, where n is k with a probability proportional to ``k**-mu``, or until the episode ends. So more than
    epsilon of all actions are random; with ``max_duration=1`` it is epsilon-greedy.

    :param mu: exponent of the zeta distribution, greater than 1; the smaller, the longer
    :param max_duration: longer durations are cut to this one
    :raises ArgumentError: if an argument is out of its range
    """

    mu: float = 2.0
    max_duration: int = 10_000

    def __post_init__(self) -> None:
        check_number("mu", self.mu, low=1)
        if self.mu == 1:
            raise ArgumentError("mu=1 must be greater than 1: the sum of 1 / k has no end, so there is no such distribution.")
        check_number("max_duration", self.max_duration, low=1, integer=True)

    def __call__(self, moment: ExplorationContext) -> Actions:
        remaining = moment.state.setdefault("remaining", np.zeros(moment.n_envs, np.int64))
        kept = moment.state.setdefault("kept", np.zeros(moment.n_envs, np.int64))
        for env, coin in enumerate(draw_per_env(moment.n_envs, moment.generator)):
            if remaining[env] == 0 and coin < moment.rate:
                remaining[env] = min(moment.generator.zipf(self.mu), self.max_duration)
                kept[env] = moment.random_action()
        running = remaining > 0
        remaining[running] -= 1
        return kept.copy() if running.all() else np.where(running, kept, moment.greedy_actions())


@dataclass(frozen=True)
class EpsilonLadder(Exploration):
    """
    An epsilon for each environment, from bold to cautious, as the actors of Ape-X (https://arxiv.org/abs/1803.00933):
    ``epsilon**(1 + alpha * i / (N - 1))`` for environment i. There, epsilon is 0.4 throughout, and so it is with
    ``schedule=0.4``. A single environment has epsilon itself.

    :param alpha: the last environment has ``epsilon**(1 + alpha)``; not negative
    :raises ArgumentError: if ``alpha`` is out of its range
    """

    alpha: float = 7.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0)

    def epsilons(self, epsilon: float, n_envs: int) -> npt.NDArray[np.float64]:
        """:return: (N,) the epsilon of each environment"""
        return np.power(epsilon, 1 + self.alpha * np.arange(n_envs) / max(n_envs - 1, 1))

    def __call__(self, moment: ExplorationContext) -> Actions:
        coins = np.array(draw_per_env(moment.n_envs, moment.generator))
        return random_or_greedy(moment, np.flatnonzero(coins < self.epsilons(moment.rate, moment.n_envs)))

    def log_entry(self, rate: float, n_envs: int) -> tuple[str, float]:
        return "rollout/exploration_rate", float(self.epsilons(rate, n_envs).mean())


@dataclass(frozen=True)
class Boltzmann(Exploration):
    """
    Action a with probability ``softmax(q / temperature)[a]`` (http://incompleteideas.net/book/the-book-2nd.html, section 2.8).

    ``exploration_kwargs["temperature"]`` is a number, 1 by default, or a schedule; it is in the unit of the returns.
    Near 0 the actions are greedy.
    """

    schedule_key: ClassVar[str] = "temperature"
    default_rate: ClassVar[float | None] = 1.0

    def __call__(self, moment: ExplorationContext) -> Actions:
        coins = np.array(draw_per_env(moment.n_envs, moment.generator))
        return sample_actions(softmax(moment.q_values(), moment.rate), coins)

    def log_entry(self, rate: float, n_envs: int) -> tuple[str, float]:
        return "rollout/temperature", rate


def softmax(values: Values, temperature: float) -> Values:
    """(N, A) numbers -> (N, A) probabilities, whatever the scale of the numbers."""
    gaps = (values - values.max(axis=1, keepdims=True)).astype(np.float64)  # (N, A), 0 for the best action
    weights = np.exp(gaps / max(temperature, 1e-12))
    probabilities: Values = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def sample_actions(probabilities: Values, coins: npt.NDArray[np.float64]) -> Actions:
    """(N, A) probabilities and (N,) uniform numbers -> (N,) actions."""
    passed = (probabilities.cumsum(axis=1) <= coins[:, None]).sum(axis=1)
    actions: Actions = np.minimum(passed, probabilities.shape[1] - 1)  # the sum of all may be just short of 1
    return actions


@dataclass(frozen=True)
class NoExploration(Exploration):
    """Always the policy's own action; what exploration there is comes from the network, e.g. noisy layers."""

    default_rate: ClassVar[float | None] = 0.0

    def __call__(self, moment: ExplorationContext) -> Actions:
        return moment.greedy_actions()

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
UNITS = {"env_steps": "environment steps", "actions": "actions"}


def make_exploration(exploration: str, exploration_kwargs: Mapping[str, Any]) -> Exploration:
    """
    :param exploration: a name of ``EXPLORATIONS``
    :param exploration_kwargs: the arguments of that exploration, those of :func:`exploration_schedule`, and ``warm_up``:
        whether actions are random until ``learning_starts``, as with SB3; if not, exploration chooses from the first one on
    :raises ArgumentError: if there is no such name or argument, or its value cannot be
    """
    kind: Any = choose("exploration", exploration, EXPLORATIONS, SYNONYMS)
    own = parameters_of(kind)
    check_keys("exploration_kwargs", exploration_kwargs, {*own, kind.schedule_key, "unit", "warm_up"})
    check_type("exploration_kwargs['warm_up']", exploration_kwargs.get("warm_up", True), bool, "True or False")
    made: Exploration = kind(**{key: value for key, value in exploration_kwargs.items() if key in own})
    return made


def make_exploration_schedule(
    exploration: Exploration, exploration_kwargs: Mapping[str, Any], learning_starts: float, n_envs: int
) -> Schedule | None:
    """
    Make the schedule of the exploration's rate, if it is in ``exploration_kwargs``.

    :param exploration: whose rate it is
    :param exploration_kwargs: ``schedule`` (or ``temperature``): what
        :func:`~sb3_dqn_ext.algorithm.schedule_specs.make_schedule` takes; ``unit``: what its steps are. ``"env_steps"``:
        environment steps, over all environments, as SB3 counts them; ``"actions"``: actions that each environment has chosen,
        greedy ones included, after the random ones of the warm-up
    :param learning_starts: environment steps of the warm-up, in which every action is random; 0 without one
    :param n_envs: number of environments
    :raises ArgumentError: if there is no such schedule, or its values cannot be
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
