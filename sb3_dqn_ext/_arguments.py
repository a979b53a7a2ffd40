"""What the arguments of DQNExt can be, and the errors and warnings for what they cannot."""

import functools
import inspect
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import Schedule, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_dqn_ext._missing import MissingAttribute
from sb3_dqn_ext._validation import check_keys, check_number, check_type, check_verbose, choose, parameters_of
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer

__all__ = [
    "NUMBER_LIMITS",
    "DQNKwargs",
    "check_arguments",
    "check_batch_size",
    "check_combinations",
    "check_early_arguments",
    "check_environment",
    "parse_train_freq",
    "possibly_unstorable_arguments",
    "sb3_errors_translated",
]


class DQNKwargs(TypedDict, total=False):
    """The arguments of SB3's DQN behind ``policy`` and ``env``."""

    learning_rate: float | Schedule
    buffer_size: int
    learning_starts: int
    batch_size: int
    tau: float
    gamma: float
    train_freq: int | tuple[int, str]
    gradient_steps: int
    replay_buffer_class: type[ReplayBuffer] | None
    replay_buffer_kwargs: dict[str, Any] | None
    optimize_memory_usage: bool
    n_steps: int
    target_update_interval: int
    exploration_fraction: float
    exploration_initial_eps: float
    exploration_final_eps: float
    max_grad_norm: float
    stats_window_size: int
    tensorboard_log: str | None
    policy_kwargs: dict[str, Any] | None
    verbose: int
    seed: int | None
    device: th.device | str
    _init_setup_model: bool


# lowest and highest value, and whether it must be a whole number
NUMBER_LIMITS: dict[str, tuple[float, float, bool]] = {
    "buffer_size": (1, math.inf, True),
    "learning_starts": (0, math.inf, False),
    "batch_size": (1, math.inf, True),
    "tau": (0, 1, False),
    "gamma": (0, 1, False),
    "gradient_steps": (-1, math.inf, True),
    "n_steps": (1, math.inf, True),
    "target_update_interval": (1, math.inf, False),
    "exploration_fraction": (0, 1, False),
    "exploration_initial_eps": (0, 1, False),
    "exploration_final_eps": (0, 1, False),
}
# SB3 refuses nested ones in words of its own
OBSERVATION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Dict, spaces.Tuple)
MAX_SEED = 2**32 - 1  # numpy's
EXPLORATION_ARGUMENTS = ("exploration_fraction", "exploration_initial_eps", "exploration_final_eps")
TARGET_ARGUMENTS = ("tau", "target_update_interval", "target_update_unit")
JAX_ENV_PACKAGES = {"brax", "craftax", "gymnax", "jumanji", "jaxmarl", "mujoco_playground", "navix", "pgx", "xminigrid"}
"""packages with environments that are functions for jax"""


def check_early_arguments(given: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """
    Check what SB3's constructor reads before it calls ``_setup_model``.

    :param given: the arguments of SB3's DQN, by name
    :param names: the policies that have a name
    :raises ArgumentError: if one of them cannot work
    """
    policy, env = given.get("policy"), given.get("env")
    if (isinstance(env, str) and env in names) or isinstance(policy, gym.Env | VecEnv):
        raise ArgumentError(f"policy={policy!r} and env={env!r} are in the wrong order: DQNExt(policy, env).")
    if not isinstance(policy, str | functools.partial) and not (isinstance(policy, type) and issubclass(policy, nn.Module)):
        raise ArgumentError(f"policy={policy!r} must be a class of policies, or one of: {', '.join(sorted(names))}.")
    check_type("_init_setup_model", given.get("_init_setup_model", True), bool, "True or False")
    if env is None and given.get("_init_setup_model", True):
        check_environment(env)
    check_verbose(given.get("verbose", 0))
    device = given.get("device", "auto")
    try:
        get_device(device)
    # torch raises several, and numpy one at the comparison with "auto"
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        hint = " Did you mean 'cuda'?" if isinstance(device, str) and "gpu" in device.lower() else ""
        reason = str(error).partition("\n")[0]
        raise ArgumentError(
            f"device={device!r} must be 'auto', 'cpu', 'cuda' or another of torch's: {reason}.{hint}"
        ) from error
    if (memory := given.get("replay_buffer_kwargs")) is not None:
        check_type("replay_buffer_kwargs", memory, Mapping, "a mapping of arguments")


@contextmanager
def sb3_errors_translated() -> Iterator[None]:
    """
    Raise the errors of this library in the place of those by which SB3 refuses arguments.

    :raises ArgumentError: in the place of a ``ValueError``
    :raises UnsupportedError: in the place of the errors for spaces and networks that do not fit
    """
    try:
        yield
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    except (AssertionError, NotImplementedError) as error:
        raise UnsupportedError(str(error)) from error


def check_environment(env: Any) -> None:
    """
    :param env: what the user gave as an environment
    :raises ArgumentError: if it is none
    :raises UnsupportedError: if no policy can read its observations
    """
    if isinstance(env, VecEnv):
        return
    if isinstance(env, gym.Env):
        space = getattr(env, "observation_space", None)
        if not all(
            isinstance(part, OBSERVATION_SPACES) for part in (space.values() if isinstance(space, spaces.Dict) else [space])
        ):
            raise UnsupportedError(
                f"{space} observation space is not supported: it can be a Box, Discrete, MultiDiscrete or MultiBinary, or a "
                "Dict of these; see gymnasium.wrappers.FlattenObservation and TransformObservation."
            )
        return
    hint = "it can be a gymnasium.Env or a VecEnv of SB3"
    if env is None:
        hint += ", or an id; only DQNExt.load() makes a model without one, which can predict"
    elif isinstance(env, str):
        hint += f"; write gymnasium.make({env!r})"
    elif isinstance(env, type):
        hint += f"; this is a class: write {env.__name__}()"
    elif isinstance(env, gym.vector.VectorEnv):
        hint += "; for gymnasium's vector environments write sb3_dqn_ext.vec_env.make_fast_vec_env(id, n_envs)"
    elif packages := {kind.__module__.partition(".")[0] for kind in type(env).__mro__} & JAX_ENV_PACKAGES:
        hint += (
            f"; this is a pair of functions for jax, of {packages.pop()}, with the state of the environment as an argument: "
            "keep the state in a gymnasium.Env, or in a VecEnv of SB3, and return arrays of numpy"
        )
    elif hasattr(env, "reset") and hasattr(env, "step"):
        return  # an environment of OpenAI's gym: SB3 converts it, or raises an error that names what it needs
    elif callable(env) or isinstance(env, list | tuple):
        hint += "; for functions that make environments write DummyVecEnv([function, ...])"
    raise ArgumentError(f"env={env!r} is no environment: {hint}.")


def check_arguments(model: Any) -> None:
    """
    :param model: a DQNExt, whose attributes carry the names of its arguments
    :raises ArgumentError: if one of them cannot be, whatever the others are
    """
    actions = model.action_space
    if isinstance(actions, spaces.Discrete) and actions.start != 0:
        raise UnsupportedError(
            f"the action space {actions} must begin at 0, as the actions of a network do: "
            f"wrap the environment in gymnasium.wrappers.TransformAction, which adds {actions.start}."
        )
    observations = model.observation_space
    for part in observations.spaces.values() if isinstance(observations, spaces.Dict) else [observations]:
        _check_observations(part, model.policy_class)
    for name, (low, high, integer) in NUMBER_LIMITS.items():
        check_number(name, getattr(model, name), low, high, integer)
    for name in ("target_policy_kwargs", "exploration_kwargs", "replay_buffer_kwargs", "policy_kwargs"):
        check_type(name, getattr(model, name), Mapping | MissingAttribute, "a mapping of arguments")
    for name in ("target_network", "optimize_memory_usage", "check_finite"):
        check_type(name, getattr(model, name), bool, "True or False")
    for name in ("n_epochs", "minibatch_size"):
        if getattr(model, name) is not None:
            check_number(name, getattr(model, name), low=1, integer=True)
    if model.seed is not None:
        check_number("seed", model.seed, 0, MAX_SEED, integer=True)
    if model._stats_window_size is not None:
        check_number("stats_window_size", model._stats_window_size, 0, integer=True)
    check_type("tensorboard_log", model.tensorboard_log, str | os.PathLike | None, "a folder, or None")
    _check_learning_rate(model.learning_rate)
    _check_max_grad_norm(model.max_grad_norm)
    _check_replay_buffer_class(model.replay_buffer_class)
    choose("target_update_unit", model.target_update_unit, {"env_steps": 0, "gradient_steps": 0})
    network = set(parameters_of(model.policy_class)) - {"observation_space", "action_space", "lr_schedule"}
    name = getattr(model.policy_class, "__name__", "the policy")
    check_keys(f"policy_kwargs of {name}", model.policy_kwargs, network)


def _check_learning_rate(rate: Any) -> None:
    """:raises ArgumentError: if it is no number and no schedule"""
    function = (
        "a function of the remaining progress, which falls from 1 to 0: lambda progress_remaining: 1e-3 * progress_remaining"
    )
    if isinstance(rate, type) or (callable(rate) and len(_required(rate)) > 1):
        raise ArgumentError(f"learning_rate={rate!r} must be a number, or {function}.")
    if not callable(rate):
        try:
            check_number("learning_rate", rate, low=0)
        except ArgumentError as error:
            raise ArgumentError(f"{error} It can also be {function}.") from None


def _required(function: Any) -> list[inspect.Parameter]:
    """The positional parameters of a function that have no default; none where they cannot be known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one for one in parameters if one.kind in positional and one.default is one.empty]


def _check_max_grad_norm(norm: Any) -> None:
    """:raises ArgumentError: if it is no number above 0"""
    if isinstance(norm, float | np.floating) and norm == math.inf:
        return
    try:
        check_number("max_grad_norm", norm, low=0)
        good = norm > 0
    except ArgumentError:
        good = False
    if not good:
        raise ArgumentError(f"max_grad_norm={norm!r} must be a number above 0; for no clipping write float('inf').")


def _check_replay_buffer_class(kind: Any) -> None:
    """:raises ArgumentError: if it is no class whose objects store transitions"""
    if (
        kind is None
        or isinstance(kind, MissingAttribute)
        or (isinstance(kind, type) and callable(getattr(kind, "add", None)) and hasattr(kind, "sample"))
    ):
        return
    raise ArgumentError(
        f"replay_buffer_class={kind!r} must be None or a class of replay buffers, for example ReplayBuffer of "
        "stable_baselines3.common.buffers or DQNReplayBuffer of sb3_dqn_ext.replay: the class itself, not its name."
    )


def _check_observations(space: spaces.Space[Any], policy_class: Any) -> None:
    is_matrix = isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1
    if is_matrix or (isinstance(space, spaces.Box) and not space.shape):
        raise UnsupportedError(
            f"observations {space} of shape {space.shape} cannot be read by a network: wrap the environment in "
            "gymnasium.wrappers.FlattenObservation."
        )
    starts_elsewhere = isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start)
    kind = getattr(policy_class, "func", policy_class)  # a policy that is bound to arguments
    if starts_elsewhere and not issubclass(kind, MlpPolicy):
        raise UnsupportedError(
            f"{kind.__name__} cannot read the observation space {space}, which does not start at 0: take a policy of "
            "sb3_dqn_ext, for example policy='MlpPolicy'."
        )


def parse_train_freq(given: Any) -> TrainFreq:
    """
    :param given: a number of steps, or a pair of a number and a unit; YAML has lists in place of tuples
    :return: the same as SB3's ``TrainFreq``
    :raises ArgumentError: if it is none of these
    """
    if isinstance(given, TrainFreq):
        return given
    pair = given if isinstance(given, list | tuple) else (given, "step")
    if len(pair) != 2:
        raise ArgumentError(f"train_freq={given!r} must be a number of steps, or (number, 'step') or (number, 'episode').")
    check_number("train_freq", pair[0], low=1, integer=True)
    units = {unit.value: unit for unit in TrainFrequencyUnit}
    unit = choose("the unit of train_freq", pair[1], units, {"steps": "step", "env_steps": "step", "episodes": "episode"})
    return TrainFreq(int(pair[0]), unit)


def check_combinations(model: Any, given: set[str]) -> None:
    """
    Warn of arguments that have no effect beside others.

    :param model: a DQNExt
    :param given: the arguments that the user named, whatever their values
    :raises ArgumentError: if one of them contradicts another
    """
    own_schedule, memory = "schedule" in model.exploration_kwargs, model.replay_buffer_kwargs
    ignored = EXPLORATION_ARGUMENTS if model.exploration in ("none", "boltzmann") or own_schedule else ()
    if model.exploration == "none" and own_schedule:
        raise ArgumentError("exploration_kwargs['schedule'] has no effect beside exploration='none'; leave one out.")
    for name in [name for name in ignored if name in given]:
        if own_schedule:
            # both say how epsilon falls, and only one can be meant
            raise ArgumentError(f"{name} has no effect beside exploration_kwargs['schedule']; leave one out.")
        # blocks of hyperparameters that are shared in a YAML hold them for epsilon_greedy
        warnings.warn(f"{name} has no effect beside exploration={model.exploration!r}.", stacklevel=3)
    if model.n_epochs is not None:
        _check_epochs(model, given)
    for name in given.intersection(TARGET_ARGUMENTS) if not model.target_network else ():
        warnings.warn(f"{name} has no effect beside target_network=False.", stacklevel=3)
    if memory.get("monte_carlo", 0) == 1 and model.n_steps > 1:
        warnings.warn(f"n_steps={model.n_steps} has no effect beside monte_carlo=1.", stacklevel=3)
    if "terminal_on" in memory and memory.get("terminal_copies", 1) == 1:
        warnings.warn("replay_buffer_kwargs['terminal_on'] has no effect beside terminal_copies=1.", stacklevel=3)


def _check_epochs(model: Any, given: set[str]) -> None:
    """
    :raises ArgumentError: if there is an argument beside which a training cannot go through all that is stored
    """
    kind = type(model.replay_buffer).__name__
    if not isinstance(model.replay_buffer, DQNReplayBuffer):
        raise ArgumentError(
            f"n_epochs={model.n_epochs} needs sampler='uniform' of DQNReplayBuffer, not replay_buffer_class={kind}."
        )
    if type(model.replay_buffer).sample is not DQNReplayBuffer.sample:
        raise ArgumentError(f"n_epochs={model.n_epochs} draws nothing, so that sample() of {kind} would never be called.")
    if "gradient_steps" in given:
        warnings.warn("gradient_steps has no effect beside n_epochs.", stacklevel=4)  # as above
    if model.minibatch_size is not None:
        raise ArgumentError("minibatch_size has no effect beside n_epochs, whose batches have batch_size; leave one out.")
    model.replay_buffer.sampler.check_epochs(model.n_epochs)
    if getattr(model.policy, "batch_norm", False):
        raise ArgumentError(f"n_epochs={model.n_epochs} needs batch_norm=False: the last batch may be a single transition.")


def check_batch_size(model: Any) -> None:
    """
    Not for a model that is loaded: to predict, it may well be loaded with a memory of one transition.

    :param model: a DQNExt
    :raises ArgumentError: if no batch of its size can be drawn, or learned from
    """
    if model.batch_size > model.buffer_size:
        raise ArgumentError(
            f"batch_size={model.batch_size} can never be stored; it can be up to buffer_size={model.buffer_size}."
        )
    size, name = model.batch_size, "batch_size"
    if model.minibatch_size is not None:
        if model.batch_size % model.minibatch_size:
            raise ArgumentError(
                f"minibatch_size={model.minibatch_size} must divide batch_size={model.batch_size} without a rest."
            )
        size, name = model.minibatch_size, "minibatch_size"
    if size == 1 and getattr(model.policy, "batch_norm", False):
        raise ArgumentError(f"{name}=1 leaves batch_norm=True nothing to normalise by; it can be from 2 on.")
    if isinstance(model.replay_buffer, DQNReplayBuffer):
        model.replay_buffer.sampler.check(model.batch_size)


FREE_FORM_ARGUMENTS = (
    *("policy_class", "policy_kwargs", "learning_rate", "replay_buffer_class", "replay_buffer_kwargs"),
    *("exploration_kwargs", "target_policy_kwargs"),
)
"""attributes in which a user may give what a file cannot hold"""


def _is_plain(value: Any, known: set[Any]) -> bool:
    """:param known: classes that a file can name"""
    if isinstance(value, Mapping):
        return all(_is_plain(item, known) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(item, known) for item in value)
    return value is None or isinstance(value, bool | int | float | str) or (isinstance(value, type) and value in known)


def possibly_unstorable_arguments(model: Any, others: Iterable[str]) -> dict[str, Any]:
    """
    Find arguments that a file may be unable to hold, without the imports that it takes to be sure.

    :param model: a DQNExt
    :param others: the names of arguments of its own class
    :return: the arguments
    """
    names, known = {*FREE_FORM_ARGUMENTS, *others}, {*model.policy_aliases.values(), DQNReplayBuffer}
    return {name: value for name, value in vars(model).items() if name in names and not _is_plain(value, known)}
