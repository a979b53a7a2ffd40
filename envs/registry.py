"""
The environments that ``gym.make`` knows once ``sb3_dqn_ext`` is imported.

- ``dqn_ext/CartPoleTerminalPenalty-v1``: CartPole-v1; reward -50 where the pole falls or the cart leaves the track
- ``dqn_ext/MountainCarTerminalPenalty-v0``: MountainCar-v0; reward -20 where time runs out; ``on="done"``: also at the goal
- ``dqn_ext/CartPoleRandomStart-v0``: CartPole with 200 steps, after a random one
- ``dqn_ext/CartPoleNoVel-v1``: CartPole-v1 with zeros in place of its velocities
- ``dqn_ext/Catch-v0``: a ball to catch on an image of 10 x 5 pixels
- ``dqn_ext/MinAtar-Breakout-v1`` (``Asterix``, ``Freeway``, ``Seaquest``, ``SpaceInvaders``): the games of MinAtar

The changed reward is the id's own: Monitor, which lies around the id, reports it. ``gym.make`` takes the arguments of the
environment of gymnasium and, for a penalty, ``reward`` and ``mode``, see TerminalPenalty.

A process that has not imported ``sb3_dqn_ext``, such as a worker that SubprocVecEnv starts by ``spawn``, finds an id as
``"sb3_dqn_ext:dqn_ext/CartPoleNoVel-v1"``, or through ``gym.spec(id).make``. Where the main module is a file that imports
``sb3_dqn_ext``, its workers import it too.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec, load_env_creator

from sb3_dqn_ext._validation import check_keys
from sb3_dqn_ext.envs.hidden_velocities import HiddenVelocities, VectorHiddenVelocities
from sb3_dqn_ext.envs.random_first_step import RandomFirstStep
from sb3_dqn_ext.envs.terminal_penalty import TerminalPenalty, VectorTerminalPenalty
from sb3_dqn_ext.errors import ArgumentError

# By name, so that they are imported when they are made.
CART_POLE = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
CART_POLES = "sb3_dqn_ext.envs.cart_poles:SameStepCartPoles"
RANDOM_START_CART_POLES = "sb3_dqn_ext.envs.cart_poles:RandomStartCartPoles"
MINATAR_GAMES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}
"""The name of each game in the package ``minatar``, by its name in the ids."""
MOUNTAIN_CAR = "gymnasium.envs.classic_control.mountain_car:MountainCarEnv"


class Whole(gym.Wrapper[Any, Any, Any, Any]):
    """
    What an entry point made, which its id and its arguments describe in full: the spec lists nothing that is inside, so that
    ``gym.make`` and ``gym.make_vec`` take it as they take the id, with other arguments too.

    :param env: what the entry point made
    """

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # a property in gym.Wrapper, an attribute in gym.Env
        return self.unwrapped.spec


@dataclass(frozen=True)
class EntryPoint:
    """
    What makes an id: an environment of gymnasium and something of ours around it. Each argument goes where it is known.

    :param env: the entry point of the environment
    :param wrap: gets the environment and the arguments that are its own
    """

    env: str
    wrap: Callable[..., Any]

    @property
    def metadata(self) -> dict[str, Any]:
        """The environment's, where ``gym.make`` looks for the ways it can be rendered."""
        metadata: dict[str, Any] = self._env().metadata
        return metadata

    def __call__(self, **kwargs: Any) -> Any:
        """
        :param kwargs: arguments of ``env`` and of ``wrap``
        :return: the environment, or the vector environment
        :raises ArgumentError: if neither has an argument of that name
        """
        of_env, of_wrap = inspect.signature(self._env()).parameters, inspect.signature(self.wrap).parameters
        check_keys("env_kwargs", kwargs, {*of_env, *of_wrap} - {"env"})
        env = self._env()(**{key: value for key, value in kwargs.items() if key in of_env})
        made = self.wrap(env, **{key: value for key, value in kwargs.items() if key in of_wrap})
        return Whole(made) if isinstance(made, gym.Env) else made

    def _env(self) -> Any:
        return load_env_creator(self.env)


def as_it_is(env: Any) -> Any:
    """
    :param env: an environment around which nothing has to be put
    :return: the environment
    """
    return env


def penalty_on_termination(
    wrapper: Callable[..., Any], env: Any, reward: float, mode: str = "replace", on: str = "terminated"
) -> Any:
    """
    ``gym.make`` puts the time limit around what an entry point returns, so a penalty in there cannot tell when time runs out.

    :param wrapper: TerminalPenalty, or its vector form
    :param env: what to wrap
    :param reward: see TerminalPenalty
    :param mode: see TerminalPenalty
    :param on: ``"terminated"``
    :raises ArgumentError: if ``on`` is another end
    """
    penalised = wrapper(env, reward, mode, on)
    if on != "terminated":
        raise ArgumentError(
            f"on={on!r} cannot be an argument of this id, as gym.make puts the time limit around the penalty. Put the penalty "
            f"around the time limit: TerminalPenalty(gym.make('CartPole-v1'), reward={reward}, mode={mode!r}, on={on!r})."
        )
    return penalised


def penalty_to_come(env: Any, reward: float, mode: str = "replace", on: str = "terminated") -> Any:
    """
    The place for the arguments of :class:`PenaltyOfSpec`, for ``gym.make`` hands them to the entry point only.

    :param env: what to return
    :param reward: see TerminalPenalty
    :param mode: see TerminalPenalty
    :param on: see TerminalPenalty
    :raises ArgumentError: see TerminalPenalty
    """
    TerminalPenalty(env, reward, mode, on)
    return env


class PenaltyOfSpec(TerminalPenalty):  # type: ignore[misc]  # to mypy sb3_dqn_ext.envs is Any, see pyproject.toml
    """
    A TerminalPenalty around the time limit, whatever that is; its arguments are those that the id was made with.

    :param env: an environment made by an id
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        # The first call counts, so the arguments stay in the spec's kwargs and nowhere else: gym.make can change them there.
        gym.utils.RecordConstructorArgs.__init__(self)
        kwargs = {} if env.unwrapped.spec is None else env.unwrapped.spec.kwargs
        super().__init__(env, **{key: kwargs[key] for key in ("reward", "mode", "on") if key in kwargs})


cart_pole_penalty = EntryPoint(CART_POLE, partial(penalty_on_termination, TerminalPenalty))
cart_poles_penalty = EntryPoint(CART_POLES, partial(penalty_on_termination, VectorTerminalPenalty))
cart_pole_no_vel = EntryPoint(CART_POLE, HiddenVelocities)
cart_poles_no_vel = EntryPoint(CART_POLES, VectorHiddenVelocities)
cart_pole_random_start = EntryPoint(CART_POLE, RandomFirstStep)
cart_poles_random_start = EntryPoint(RANDOM_START_CART_POLES, as_it_is)
mountain_car = EntryPoint(MOUNTAIN_CAR, penalty_to_come)


def _around_the_time_limit(wrapper: type[gym.Wrapper[Any, Any, Any, Any]]) -> tuple[WrapperSpec, ...]:
    return (WrapperSpec(wrapper.__name__, f"{wrapper.__module__}:{wrapper.__name__}", {}),)


# The arguments of gym.register. gymnasium takes no wrappers around the time limit together with a vector form.
REGISTRATIONS: tuple[dict[str, Any], ...] = (
    {
        "id": "dqn_ext/CartPoleTerminalPenalty-v1",
        "entry_point": f"{__name__}:cart_pole_penalty",
        "vector_entry_point": f"{__name__}:cart_poles_penalty",
        "max_episode_steps": 500,
        "reward_threshold": 475.0,  # CartPole-v1's; a pole that falls has earned 51 less than its steps
        "kwargs": {"reward": -50.0},
    },
    {
        "id": "dqn_ext/MountainCarTerminalPenalty-v0",
        "entry_point": f"{__name__}:mountain_car",
        "additional_wrappers": _around_the_time_limit(PenaltyOfSpec),
        "max_episode_steps": 200,
        "reward_threshold": -110.0,  # MountainCar-v0's; no episode that reaches it has met the limit
        # MountainCar terminates at its goal: -20 there is worse than never arriving, -1 / (1 - gamma), for every gamma < 0.95.
        "kwargs": {"reward": -20.0, "on": "truncated"},
    },
    {
        # The random action lies inside the time limit, and is none of the 200: gymnasium takes no wrapper around the limit
        # together with a vector form. Around it, as in RandomFirstStep(gym.make("CartPole-v0")), 199 steps are left.
        "id": "dqn_ext/CartPoleRandomStart-v0",
        "entry_point": f"{__name__}:cart_pole_random_start",  # not through CartPole-v0, of whose age gymnasium warns
        "vector_entry_point": f"{__name__}:cart_poles_random_start",
        "max_episode_steps": 200,
        "reward_threshold": 195.0,  # CartPole-v0's
    },
    {
        "id": "dqn_ext/CartPoleNoVel-v1",
        "entry_point": f"{__name__}:cart_pole_no_vel",
        "vector_entry_point": f"{__name__}:cart_poles_no_vel",
        "max_episode_steps": 500,
        "reward_threshold": 475.0,  # CartPole-v1's
    },
)

REGISTRATIONS += (
    {
        "id": "dqn_ext/Catch-v0",
        "entry_point": "sb3_dqn_ext.envs.catch:CatchEnv",
        "vector_entry_point": "sb3_dqn_ext.envs.catch:CatchVectorEnv",
        "reward_threshold": 1.0,
    },
    *(
        {
            "id": f"dqn_ext/MinAtar-{name}-v1",
            "entry_point": "sb3_dqn_ext.envs.minatar_games:MinAtarEnv",
            "kwargs": {"game": game},
        }
        for name, game in MINATAR_GAMES.items()
    ),
)


def register() -> None:
    """Make the ids known to gymnasium; those that it knows already stay as they are."""
    for registration in REGISTRATIONS:
        if registration["id"] not in gym.registry:
            gym.register(**registration)
