"""Checks of the arguments of DQNExt, with errors for wrong values and warnings for values without effect."""

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
from sb3_dqn_ext.algorithm.action_masks import ACTION_MASK
from sb3_dqn_ext.algorithm.auxiliary_losses import LargeMarginLoss
from sb3_dqn_ext.algorithm.exploration import NoExploration
from sb3_dqn_ext.algorithm.fitted_actions import fit_taken
from sb3_dqn_ext.algorithm.target_policies import GreedyTarget
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.networks.norms import needs_batches
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.frame_ring import FrameRing
from sb3_dqn_ext.replay.observations import ObservationRing, spaces_by_key

__all__ = [
    "NUMBER_LIMITS",
    "DQNKwargs",
    "check_arguments",
    "check_batch_size",
    "check_combinations",
    "check_early_arguments",
    "check_environment",
    "check_normalization",
    "parse_train_freq",
    "possibly_unstorable_arguments",
    "sb3_errors_translated",
]


class DQNKwargs(TypedDict, total=False):
    """The arguments of SB3's DQN after ``policy`` and ``env``."""

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


# argument -> lowest value, highest value, whether it must be a whole number
NUMBER_LIMITS: dict[str, tuple[float, float, bool]] = {
    "buffer_size": (1, math.inf, True),
    "learning_starts": (0, math.inf, False),
    "batch_size": (1, math.inf, True),
    "tau": (0, 1, False),
    "gamma": (0, 1, False),
    "gradient_steps": (-1, math.inf, True),
    "pretraining_updates": (0, math.inf, True),
    "n_steps": (1, math.inf, True),
    "target_update_interval": (1, math.inf, False),
    "exploration_fraction": (0, 1, False),
    "exploration_initial_eps": (0, 1, False),
    "exploration_final_eps": (0, 1, False),
}
# for nested Dict and Tuple spaces, SB3 has its own error
OBSERVATION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Dict, spaces.Tuple)
MAX_SEED = 2**32 - 1  # the largest seed of numpy.random.seed
EXPLORATION_ARGUMENTS = ("exploration_fraction", "exploration_initial_eps", "exploration_final_eps")
TARGET_DEFAULTS = {"tau": 1.0, "target_update_interval": 10_000, "target_update_unit": "env_steps"}
JAX_ENV_PACKAGES = {"brax", "craftax", "gymnax", "jumanji", "jaxmarl", "mujoco_playground", "navix", "pgx", "xminigrid"}
"""packages whose environments are functions for jax"""
MAX_TRANSITIONS_PER_GRADIENT_STEP = 100
"""more transitions per gradient step give a warning"""
MAX_GRADIENT_STEPS_PER_TRANSITION = 10
"""more gradient steps per transition give a warning"""


def check_early_arguments(given: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """
    Check the arguments that SB3's constructor reads before it calls ``_setup_model``.

    :param given: the arguments of SB3's DQN, by name
    :param names: the names of policies
    :raises ArgumentError: if one of the arguments has a wrong value
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
    # torch raises several kinds of errors, and comparing an array with "auto" raises a ValueError
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        hint = " Did you mean 'cuda'?" if isinstance(device, str) and "gpu" in device.lower() else ""
        reason = str(error).partition("\n")[0]
        raise ArgumentError(
            f"device={device!r} must be 'auto', 'cpu', 'cuda' or another device of torch: {reason}.{hint}"
        ) from error
    if (buffer_kwargs := given.get("replay_buffer_kwargs")) is not None:
        check_type("replay_buffer_kwargs", buffer_kwargs, Mapping, "a mapping of arguments")


@contextmanager
def sb3_errors_translated() -> Iterator[None]:
    """
    Translate the errors by which SB3 refuses arguments to errors of this library: a context manager.

    :raises ArgumentError: in place of a ``ValueError``
    :raises UnsupportedError: in place of an ``AssertionError`` or ``NotImplementedError`` for unsupported spaces and networks
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
    Check that a user's value is an environment.

    :param env: the value
    :raises ArgumentError: if it is not an environment; the message contains what to write instead
    :raises UnsupportedError: if no policy supports its observation space
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
            f"; an environment of {packages.pop()} consists of functions for jax that take its state as an argument: write a "
            "gymnasium.Env or a VecEnv of SB3 that contains the state and returns arrays of numpy"
        )
    elif hasattr(env, "reset") and hasattr(env, "step"):
        return  # an environment of OpenAI's gym: SB3 converts it, or raises an error that names the missing package
    elif callable(env) or isinstance(env, list | tuple):
        hint += "; for functions that make environments write DummyVecEnv([function, ...])"
    raise ArgumentError(f"env={env!r} is not an environment: {hint}.")


def check_arguments(model: Any) -> None:
    """
    Check the values of all arguments, each on its own.

    :param model: a DQNExt, whose attributes have the names of its arguments
    :raises ArgumentError: if an argument has a wrong value
    :raises UnsupportedError: if a space is not supported
    """
    actions = model.action_space
    if isinstance(actions, spaces.Discrete) and actions.start != 0:
        raise UnsupportedError(
            f"the action space {actions} must begin at 0, since actions are indices of network outputs: "
            f"wrap the environment in gymnasium.wrappers.TransformAction, which adds {actions.start}."
        )
    observations = model.observation_space
    if isinstance(observations, spaces.Dict) and not observations.spaces:
        raise UnsupportedError(f"the observation space {observations} has no parts, so that there is nothing to learn from.")
    for part in observations.spaces.values() if isinstance(observations, spaces.Dict) else [observations]:
        _check_observations(part, model.policy_class)
    for name, (low, high, integer) in NUMBER_LIMITS.items():
        check_number(name, getattr(model, name), low, high, integer)
    for name in ("target_policy_kwargs", "exploration_kwargs", "replay_buffer_kwargs", "policy_kwargs"):
        check_type(name, getattr(model, name), Mapping | MissingAttribute, "a mapping of arguments")
    for name in ("target_network", "optimize_memory_usage", "step_while_learning", "check_finite"):
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
    """
    Check a learning rate.

    :param rate: a number, or a function of the remaining progress
    :raises ArgumentError: if it is neither
    """
    function = (
        "a function of the remaining progress, which falls from 1 to 0: lambda progress_remaining: 1e-3 * progress_remaining"
    )
    if isinstance(rate, type) or (callable(rate) and len(_required_parameters(rate)) > 1):
        raise ArgumentError(f"learning_rate={rate!r} must be a number, or {function}.")
    if not callable(rate):
        try:
            check_number("learning_rate", rate, low=0)
        except ArgumentError as error:
            raise ArgumentError(f"{error} It can also be {function}.") from None


def _required_parameters(function: Any) -> list[inspect.Parameter]:
    """Return the positional parameters of a function that have no default; none if it has no signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one for one in parameters if one.kind in positional and one.default is one.empty]


def _check_max_grad_norm(norm: Any) -> None:
    """
    Check the largest norm of the gradient.

    :param norm: a number greater than 0, which may be infinite
    :raises ArgumentError: if it has another value
    """
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
    """
    Check a class of replay buffers.

    :param kind: a class with ``add`` and ``sample``, None, or Missing in a loaded model
    :raises ArgumentError: if it is another object
    """
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
    """
    Check that a policy supports an observation space. The caller checks each part of a Dict space by its own call.

    :param space: the space, or a part of a Dict space
    :param policy_class: the class of the model's policy
    :raises UnsupportedError: if the space has no vector shape that a network takes, or the policy needs it to start at 0
    """
    is_matrix = isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1
    if is_matrix or (isinstance(space, spaces.Box) and not space.shape):
        raise UnsupportedError(
            f"observations {space} of shape {space.shape} are not supported by a network: wrap the environment in "
            "gymnasium.wrappers.FlattenObservation."
        )
    if 0 in (space.shape or ()):
        raise UnsupportedError(
            f"observations {space} of shape {space.shape} contain no number: leave them out of a Dict, or see "
            "gymnasium.wrappers.TransformObservation."
        )
    starts_elsewhere = isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start)
    kind = getattr(policy_class, "func", policy_class)  # the class of a functools.partial
    if starts_elsewhere and not issubclass(kind, MlpPolicy):
        raise UnsupportedError(
            f"{kind.__name__} does not support the observation space {space}, which does not start at 0: use a policy of "
            "sb3_dqn_ext, for example policy='MlpPolicy'."
        )


def parse_train_freq(given: Any) -> TrainFreq:
    """
    Convert the argument ``train_freq`` to SB3's ``TrainFreq``.

    :param given: a number of steps, or a tuple or list of a number and a unit, ``"step"`` or ``"episode"``
    :return: the number and the unit
    :raises ArgumentError: if it has another form
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
    Check the combination of arguments of a new model, and warn of arguments without effect and of unusual ratios.

    :param model: a DQNExt
    :param given: the names of the arguments that the user gave
    :raises ArgumentError: if one of them contradicts another
    """
    own_schedule, buffer_kwargs = "schedule" in model.exploration_kwargs, model.replay_buffer_kwargs
    exploration = model.choices.exploration
    ignored = EXPLORATION_ARGUMENTS if exploration.default_rate is not None or own_schedule else ()
    if isinstance(exploration, NoExploration) and own_schedule:
        raise ArgumentError("exploration_kwargs['schedule'] has no effect beside exploration='none'; leave one out.")
    for name in [name for name in ignored if name in given]:
        if own_schedule:
            # two schedules for epsilon: one of them is a mistake
            raise ArgumentError(f"{name} has no effect beside exploration_kwargs['schedule']; leave one out.")
        # a warning only: hyperparameters that are shared in a YAML file may be for epsilon_greedy
        warnings.warn(f"{name} has no effect beside exploration={model.exploration!r}.", stacklevel=3)
    bounded_gamma = getattr(getattr(model.policy, "return_model", None), "gamma", None)
    if bounded_gamma is not None and bounded_gamma < model.gamma:
        raise ArgumentError(
            f"returns_kwargs['gamma']={bounded_gamma!r} is below gamma={model.gamma!r}, whose returns would be clipped."
        )
    if model.n_epochs is not None:
        _check_epochs(model, given)
    td_lambda = buffer_kwargs.get("td_lambda")
    # with fitted_actions="all", the target network predicts the other actions
    is_target_read = model.target_network and (td_lambda is None or model.updater.loss.fit is not fit_taken)
    for name, default in TARGET_DEFAULTS.items() if not is_target_read else ():
        # a default value that is given replaces that of a configuration, as in trials of -optimize
        if name in given and getattr(model, name) != default:
            other = f"td_lambda={td_lambda!r}" if model.target_network else "target_network=False"
            warnings.warn(f"{name} has no effect beside {other}.", stacklevel=3)
    if buffer_kwargs.get("monte_carlo", 0) == 1 and model.n_steps > 1:
        warnings.warn(f"n_steps={model.n_steps} has no effect beside monte_carlo=1.", stacklevel=3)
    if td_lambda is not None and type(model.choices.target_policy) is not GreedyTarget:
        raise ArgumentError(
            f"target_policy={model.target_policy!r} has no effect beside td_lambda={td_lambda!r}, "
            "whose returns contain values of the greedy policy; leave one out."
        )
    if "terminal_on" in buffer_kwargs and buffer_kwargs.get("terminal_copies", 1) == 1:
        warnings.warn("replay_buffer_kwargs['terminal_on'] has no effect beside terminal_copies=1.", stacklevel=3)
    _check_demonstrations(model)
    _check_update_ratio(model)


def _check_demonstrations(model: Any) -> None:
    """
    Check the arguments that need demonstrations, and read these.

    :param model: a DQNExt
    :raises ArgumentError: if there are none, or pre-training could not learn from them
    """
    buffer, loss = model.replay_buffer, getattr(model.policy, "auxiliary", None)
    has_demonstrations = isinstance(buffer, DQNReplayBuffer) and buffer.demonstrations is not None
    needs = "replay_buffer_kwargs={'demonstrations': ...}, which is not given"
    if isinstance(loss, LargeMarginLoss) and not has_demonstrations:
        raise ArgumentError(f"auxiliary_loss={model.policy.auxiliary_loss!r} is a loss of demonstrations and needs {needs}.")
    if model.pretraining_updates == 0:
        return
    if not has_demonstrations:
        raise ArgumentError(f"pretraining_updates={model.pretraining_updates} needs {needs}.")
    if model.target_network and model.target_update_unit == "env_steps":
        raise ArgumentError(
            f"pretraining_updates={model.pretraining_updates} needs target_update_unit='gradient_steps': without steps of the "
            "environment, the target network would not be updated."
        )
    if model.n_epochs is not None:
        raise ArgumentError(f"pretraining_updates={model.pretraining_updates} has no meaning beside n_epochs; leave one out.")


def check_step_while_learning(model: Any, own_train: Any) -> None:
    """
    Check that a model can be trained between the beginning and the end of a step, if ``step_while_learning`` is set.

    :param model: a DQNExt
    :param own_train: the method ``train`` of DQNExt
    :raises UnsupportedError: if the training or the step is one method of a subclass, which cannot be divided
    """
    if not model.step_while_learning:
        return
    if type(model).train is not own_train or "train" in vars(model):
        raise UnsupportedError(
            f"step_while_learning=True postpones train(), which {type(model).__name__} overrides: leave it out, or override "
            "updater_class."
        )
    for layer in layers_of(model.env):
        if type(layer).step is not VecEnv.step:
            raise UnsupportedError(
                f"step_while_learning=True calls step_async() and step_wait(), and {type(layer).__name__} overrides step(): "
                "leave it out, or override step_wait()."
            )


def _check_update_ratio(model: Any) -> None:
    """
    Warn if a model makes very few or very many gradient steps per transition.

    The ratio is gradient_steps / (train_freq * n_envs), and 1 for ``gradient_steps=-1``. It is not known in advance, and not
    checked, for ``train_freq`` in episodes and with ``n_epochs``. With ``minibatch_size``, a batch makes several gradient
    steps, but is no reason to overfit: its minibatches replay no more transitions than the batch.

    :param model: a DQNExt
    """
    frequency, unit = model.train_freq
    gradient_steps = model.gradient_steps
    if unit is TrainFrequencyUnit.EPISODE or model.n_epochs is not None or gradient_steps < 0:
        return
    transitions = frequency * model.n_envs
    ratio = f"gradient_steps={gradient_steps} for {transitions} transitions (train_freq={frequency}, n_envs={model.n_envs}) is"
    per_batch = model.batch_size // (model.minibatch_size or model.batch_size)
    if gradient_steps * per_batch * MAX_TRANSITIONS_PER_GRADIENT_STEP < transitions:
        warnings.warn(
            f"{ratio} fewer than one gradient step per {MAX_TRANSITIONS_PER_GRADIENT_STEP} transitions, so the model learns "
            "little from them. Lower train_freq or raise gradient_steps; gradient_steps=-1 makes one per transition.",
            stacklevel=4,
        )
    elif gradient_steps > MAX_GRADIENT_STEPS_PER_TRANSITION * transitions:
        warnings.warn(
            f"{ratio} more than {MAX_GRADIENT_STEPS_PER_TRANSITION} gradient steps per transition, with which the networks "
            "easily overfit to few transitions. Raise train_freq or lower gradient_steps.",
            stacklevel=4,
        )


def _check_epochs(model: Any, given: set[str]) -> None:
    """
    Check that a model can train with ``n_epochs``. The caller has checked that ``n_epochs`` is given.

    A warning is issued if ``gradient_steps`` is in ``given``, because it has no effect.

    :param model: a DQNExt
    :param given: the names of the arguments that the user gave
    :raises ArgumentError: if the replay buffer, the sampler, ``minibatch_size`` or batch normalisation does not work together
        with ``n_epochs``
    """
    kind = type(model.replay_buffer).__name__
    if not isinstance(model.replay_buffer, DQNReplayBuffer):
        raise ArgumentError(
            f"n_epochs={model.n_epochs} needs sampler='uniform' of DQNReplayBuffer, not replay_buffer_class={kind}."
        )
    if type(model.replay_buffer).sample is not DQNReplayBuffer.sample:
        raise ArgumentError(f"n_epochs={model.n_epochs} draws no random batches, so sample() of {kind} would never be called.")
    if "gradient_steps" in given:
        warnings.warn("gradient_steps has no effect beside n_epochs.", stacklevel=4)
    if model.minibatch_size is not None:
        raise ArgumentError("minibatch_size has no effect beside n_epochs, whose batches have batch_size; leave one out.")
    model.replay_buffer.sampler.check_epochs(model.n_epochs)
    if needs_batches(model.q_net):
        raise ArgumentError(
            f"n_epochs={model.n_epochs} needs a network without batch normalisation: the last batch may be one transition."
        )


def check_batch_size(model: Any) -> None:
    """
    Check that the replay buffer can supply batches of ``batch_size`` transitions, and that the network can be trained on them.

    This function is not called for loaded models, which may have a replay buffer of size 1 if they only predict.

    :param model: a DQNExt
    :raises ArgumentError: if ``batch_size`` is greater than ``buffer_size``, not a multiple of ``minibatch_size``, or not
        supported by the sampler; or if batch normalisation would get a single transition
    """
    if model.batch_size > model.buffer_size:
        raise ArgumentError(f"batch_size={model.batch_size} must not be greater than buffer_size={model.buffer_size}.")
    size, name = model.batch_size, "batch_size"
    if model.minibatch_size is not None:
        if model.batch_size % model.minibatch_size:
            raise ArgumentError(
                f"minibatch_size={model.minibatch_size} must divide batch_size={model.batch_size} without remainder."
            )
        size, name = model.minibatch_size, "minibatch_size"
    if size == 1 and needs_batches(model.q_net):
        raise ArgumentError(f"{name}=1 is too small for batch normalisation, which needs at least 2 transitions.")
    if isinstance(model.replay_buffer, DQNReplayBuffer):
        model.replay_buffer.sampler.check(model.batch_size)


def _stores_frames_of(ring: ObservationRing | FrameRing, keys: list[str]) -> bool:
    return isinstance(ring, FrameRing) and not ring.required.isdisjoint(keys)


def check_normalization(model: Any) -> None:
    """
    :raises ArgumentError: if VecNormalize rescales action masks, or rewards while the replay buffer stores returns, or if a
        wrapper around it changes the observations, which are stored as they are before VecNormalize; or if it normalizes
        observations that are stored as frames
    """
    normalize = model.get_vec_normalize_env()
    if normalize is not None and _shapes(normalize.observation_space) != _shapes(model.observation_space):
        layers = layers_of(model.env)
        outside = [type(layer).__name__ for layer in layers[layers.index(normalize) + 1 :]]
        raise ArgumentError(
            f"{' and '.join(outside)} around VecNormalize changes the shape of observations; put VecNormalize outside: "
            f"VecNormalize({outside[0]}(...)). In the zoo, normalize does not combine with frame_stack: stack by env_wrapper, "
            "with gymnasium.wrappers.FrameStackObservation and FlattenObservation."
        )
    if isinstance(model.replay_buffer, DQNReplayBuffer):
        model.replay_buffer.check_normalization(normalize)
        ring = model.replay_buffer.observation_ring
        if normalize is not None and normalize.norm_obs and _stores_frames_of(ring, normalize.norm_obs_keys or [""]):
            raise ArgumentError(
                "storage='frames' does not combine with a VecNormalize that normalizes observations: SB3 computes the final "
                "ones of episodes back, with rounding, and they are no stacks then. Use norm_obs=False or storage='plain'."
            )
    if normalize is not None and getattr(model.policy, "action_masks", False) and normalize.norm_obs:
        others = [key for key in model.observation_space.spaces if key != ACTION_MASK]
        if ACTION_MASK in normalize.norm_obs_keys:
            raise ArgumentError(f"VecNormalize would rescale the part {ACTION_MASK!r}: use norm_obs_keys={others}.")


def _shapes(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return the shapes of observations by their keys."""
    return {key: part.shape for key, part in spaces_by_key(space).items()}


FREE_FORM_ARGUMENTS = (
    *("policy_class", "policy_kwargs", "learning_rate", "replay_buffer_class", "replay_buffer_kwargs"),
    *("exploration", "exploration_kwargs", "target_policy", "target_policy_kwargs"),
)
"""attributes whose values may be objects that cannot be saved in a file"""


def _is_storable(value: Any, known: set[Any]) -> bool:
    """
    Return whether a value can certainly be saved in a file.

    :param value: the value of an attribute
    :param known: classes that a file can name
    """
    if isinstance(value, Mapping):
        return all(_is_storable(item, known) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_storable(item, known) for item in value)
    return value is None or isinstance(value, bool | int | float | str) or (isinstance(value, type) and value in known)


def possibly_unstorable_arguments(model: Any, others: Iterable[str]) -> dict[str, Any]:
    """
    Find arguments that may be impossible to save in a file. The final check needs slow imports.

    :param model: a DQNExt
    :param others: the names of the arguments of a subclass of DQNExt
    :return: argument name -> value
    """
    names, known = {*FREE_FORM_ARGUMENTS, *others}, {*model.policy_aliases.values(), DQNReplayBuffer}
    return {name: value for name, value in vars(model).items() if name in names and not _is_storable(value, known)}
