"""
The environment ids that importing ``sb3_dqn_ext`` registers for ``gym.make`` and ``gym.make_vec``.

- ``dqn_ext/CartPoleTerminalPenalty-v1``: CartPole-v1; reward -50 when the pole falls or the cart leaves the track
- ``dqn_ext/MountainCarTerminalPenalty-v0``: MountainCar-v0; reward -20 at the time limit; with ``on="done"`` also at the goal
- ``dqn_ext/CartPoleRandomStart-v0``: CartPole with 200 steps after one random action
- ``dqn_ext/CartPoleNoVel-v1``: CartPole-v1 with zeros in place of its velocities
- ``dqn_ext/Catch-v0``: a ball to catch on an image of 10 x 5 pixels
- ``dqn_ext/ConnectFour-v0``, ``dqn_ext/TicTacToe-v0``: games against a random opponent, with action masks
- ``dqn_ext/MinAtar-Breakout-v1`` (``Asterix``, ``Freeway``, ``Seaquest``, ``SpaceInvaders``): the games of MinAtar

The penalty is part of the environment's reward, so the returns of ``Monitor`` include it. ``gym.make`` takes the arguments of
gymnasium's environment and, for an id with a penalty, ``reward``, ``mode`` and, with MountainCar, ``on`` of
``TerminalPenalty``.

A worker process that SubprocVecEnv starts by ``spawn`` imports ``sb3_dqn_ext`` only if the main module does. Otherwise write
the id as ``"sb3_dqn_ext:dqn_ext/CartPoleNoVel-v1"``, which imports the package, or use ``gym.spec(id).make``.
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

# Entry points as strings, so that their modules are imported when an environment is made.
ATARI_GAMES = "sb3_dqn_ext.envs.atari_games:AtariGamesVectorEnv"
CART_POLE = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
CART_POLES = "sb3_dqn_ext.envs.cart_poles:SameStepCartPoleVectorEnv"
RANDOM_START_CART_POLES = "sb3_dqn_ext.envs.cart_poles:RandomStartCartPoleVectorEnv"
MINATAR_GAMES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}
"""The name of each game in the package ``minatar``, by its name in the ids."""
BOARD_GAMES = {"ConnectFour": "connect_four", "TicTacToe": "tictactoe"}
"""The module of each game in ``pettingzoo.classic``, by its name in the ids."""
MOUNTAIN_CAR = "gymnasium.envs.classic_control.mountain_car:MountainCarEnv"


class EntryPointWrapper(gym.Wrapper[Any, Any, Any, Any]):
    """
    A wrapper whose spec contains the id and its arguments only, without the wrappers that the entry point has added.

    ``gym.make`` and ``gym.make_vec`` therefore accept the spec with the same arguments as the id.

    :param env: the environment that the entry point has made
    """

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # a property in gym.Wrapper, an attribute in gym.Env
        return self.unwrapped.spec


@dataclass(frozen=True)
class EntryPoint:
    """
    An entry point that makes an environment of gymnasium and wraps it.

    :param env: the entry point of the environment, as a string
    :param wrap: a wrapper class or a function; called with the environment and with those arguments that it has
    """

    env: str
    wrap: Callable[..., Any]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the environment, where ``gym.make`` reads its render modes."""
        metadata: dict[str, Any] = self._env().metadata
        return metadata

    def __call__(self, **kwargs: Any) -> Any:
        """
        Make the environment.

        :param kwargs: arguments of ``env`` and of ``wrap``; each gets the arguments in its signature
        :return: the environment, or the vector environment
        :raises ArgumentError: if neither has an argument with that name
        """
        of_env, of_wrap = inspect.signature(self._env()).parameters, inspect.signature(self.wrap).parameters
        check_keys("env_kwargs", kwargs, {*of_env, *of_wrap} - {"env"})
        env = self._env()(**{key: value for key, value in kwargs.items() if key in of_env})
        made = self.wrap(env, **{key: value for key, value in kwargs.items() if key in of_wrap})
        return EntryPointWrapper(made) if isinstance(made, gym.Env) else made

    def _env(self) -> Any:
        return load_env_creator(self.env)


def no_wrapper(env: Any) -> Any:
    """
    Return an environment as it is: the ``wrap`` of an entry point without a wrapper.

    :param env: an environment
    :return: the same environment
    """
    return env


def penalty_on_termination(
    wrapper: Callable[..., Any], env: Any, reward: float, mode: str = "replace", on: str = "terminated"
) -> Any:
    """
    Wrap an environment in a wrapper that changes the reward of a step that ends in termination.

    ``gym.make`` puts the time limit around the environment that an entry point returns, so the wrapper cannot detect
    truncations.

    :param wrapper: ``TerminalPenalty`` or ``VectorTerminalPenalty``
    :param env: the environment, or the vector environment
    :param reward: see ``TerminalPenalty``
    :param mode: see ``TerminalPenalty``
    :param on: ``"terminated"``
    :return: the wrapped environment
    :raises ArgumentError: if ``on`` has another value, or ``reward`` or ``mode`` is not allowed
    """
    penalised = wrapper(env, reward, mode, on)
    if on != "terminated":
        raise ArgumentError(
            f"on={on!r} cannot be an argument of this id: gym.make puts the time limit around the penalty. Put the penalty "
            f"around the time limit: TerminalPenalty(gym.make('CartPole-v1'), reward={reward}, mode={mode!r}, on={on!r})."
        )
    return penalised


def accept_penalty_arguments(env: Any, reward: float, mode: str = "replace", on: str = "terminated") -> Any:
    """
    Check the arguments that :class:`PenaltyOfSpec` reads from the spec.

    ``gym.make`` passes them to the entry point only, so the entry point needs a function that has them.

    :param env: the environment
    :param reward: see ``TerminalPenalty``
    :param mode: see ``TerminalPenalty``
    :param on: see ``TerminalPenalty``
    :return: the same environment
    :raises ArgumentError: see ``TerminalPenalty``
    """
    TerminalPenalty(env, reward, mode, on)
    return env


class PenaltyOfSpec(TerminalPenalty):  # type: ignore[misc]  # to mypy sb3_dqn_ext.envs is Any, see pyproject.toml
    """
    A ``TerminalPenalty`` around the time limit of an environment, with the arguments in the environment's spec.

    :param env: an environment that ``gym.make`` has made from an id
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        # Only the first call has an effect: no arguments are recorded for this wrapper, so that gym.make with the spec and
        # other arguments changes the penalty, too.
        gym.utils.RecordConstructorArgs.__init__(self)
        kwargs = {} if env.unwrapped.spec is None else env.unwrapped.spec.kwargs
        super().__init__(env, **{key: kwargs[key] for key in ("reward", "mode", "on") if key in kwargs})


cart_pole_penalty = EntryPoint(CART_POLE, partial(penalty_on_termination, TerminalPenalty))
cart_poles_penalty = EntryPoint(CART_POLES, partial(penalty_on_termination, VectorTerminalPenalty))
cart_pole_no_vel = EntryPoint(CART_POLE, HiddenVelocities)
cart_poles_no_vel = EntryPoint(CART_POLES, VectorHiddenVelocities)
cart_pole_random_start = EntryPoint(CART_POLE, RandomFirstStep)
cart_poles_random_start = EntryPoint(RANDOM_START_CART_POLES, no_wrapper)
mountain_car = EntryPoint(MOUNTAIN_CAR, accept_penalty_arguments)


def _around_the_time_limit(wrapper: type[gym.Wrapper[Any, Any, Any, Any]]) -> tuple[WrapperSpec, ...]:
    return (WrapperSpec(wrapper.__name__, f"{wrapper.__module__}:{wrapper.__name__}", {}),)


# Arguments of gym.register. gymnasium refuses additional wrappers together with a vector entry point.
REGISTRATIONS: tuple[dict[str, Any], ...] = (
    {
        "id": "dqn_ext/CartPoleTerminalPenalty-v1",
        "entry_point": f"{__name__}:cart_pole_penalty",
        "vector_entry_point": f"{__name__}:cart_poles_penalty",
        "max_episode_steps": 500,
        "reward_threshold": 475.0,  # that of CartPole-v1; with the penalty, the return of a failed episode is its length - 51
        "kwargs": {"reward": -50.0},
    },
    {
        "id": "dqn_ext/MountainCarTerminalPenalty-v0",
        "entry_point": f"{__name__}:mountain_car",
        "additional_wrappers": _around_the_time_limit(PenaltyOfSpec),
        "max_episode_steps": 200,
        "reward_threshold": -110.0,  # that of MountainCar-v0; such an episode ends before the time limit
        # MountainCar terminates at its goal. A penalty of -20 there would be worse than the return of an endless episode,
        # -1 / (1 - gamma), for every gamma < 0.95.
        "kwargs": {"reward": -20.0, "on": "truncated"},
    },
    {
        # The random action is taken inside the time limit and is not one of the 200 steps. With the wrapper around the time
        # limit, as in RandomFirstStep(gym.make("CartPole-v0")), 199 steps would be left.
        "id": "dqn_ext/CartPoleRandomStart-v0",
        "entry_point": f"{__name__}:cart_pole_random_start",  # not CartPole-v0: gymnasium warns that it is out of date
        "vector_entry_point": f"{__name__}:cart_poles_random_start",
        "max_episode_steps": 200,
        "reward_threshold": 195.0,  # that of CartPole-v0
    },
    {
        "id": "dqn_ext/CartPoleNoVel-v1",
        "entry_point": f"{__name__}:cart_pole_no_vel",
        "vector_entry_point": f"{__name__}:cart_poles_no_vel",
        "max_episode_steps": 500,
        "reward_threshold": 475.0,  # that of CartPole-v1
    },
    {
        "id": "dqn_ext/Catch-v0",
        "entry_point": "sb3_dqn_ext.envs.catch:CatchEnv",
        "vector_entry_point": "sb3_dqn_ext.envs.catch:CatchVectorEnv",
        "reward_threshold": 1.0,
    },
    *(
        {
            "id": f"dqn_ext/{name}-v0",
            "entry_point": "sb3_dqn_ext.envs.two_player_games:TwoPlayerGame",
            "kwargs": {"game": f"pettingzoo.classic.{game}.{game}"},
            "disable_env_checker": True,  # it warns of observations of int8
        }
        for name, game in BOARD_GAMES.items()
    ),
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
    """Register the ids with gymnasium, except for those that are registered already."""
    for registration in REGISTRATIONS:
        if registration["id"] not in gym.registry:
            gym.register(**registration)
