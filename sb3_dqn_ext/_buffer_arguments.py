"""Checks of the arguments of a model's replay buffer, and of a replay buffer that was loaded or assigned."""

import warnings
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.utils import get_device

from sb3_dqn_ext._missing import MissingAttribute
from sb3_dqn_ext._validation import check_keys, parameters_of
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.buffer import DEFAULT_SETTINGS
from sb3_dqn_ext.replay.frame_ring import FrameRing

__all__ = [
    "buffer_settings",
    "check_buffer_kwargs",
    "check_replay_buffer",
    "move_frames_to_device",
    "prepare_replay_buffer",
    "update_buffer_arguments",
]

OF_THE_MODEL = {"n_steps", "gamma", "action_masks"}
"""The arguments of DQNReplayBuffer that follow from arguments of the model."""
DQN_BUFFER_ARGUMENTS = set(parameters_of(DQNReplayBuffer)) - set(parameters_of(ReplayBuffer)) - OF_THE_MODEL


def check_buffer_kwargs(buffer_class: type[ReplayBuffer], kwargs: Mapping[str, Any]) -> None:
    """
    Check the names of the arguments of a replay buffer.

    :param buffer_class: the class of the replay buffer
    :param kwargs: ``replay_buffer_kwargs``
    :raises ArgumentError: if an argument does not exist, or is one of DQNReplayBuffer and the class is another one
    """
    known = set(parameters_of(buffer_class))
    if issubclass(buffer_class, DQNReplayBuffer):
        given_by_us = set(parameters_of(ReplayBuffer)) - {"handle_timeout_termination", "device"} | OF_THE_MODEL
        check_keys("replay_buffer_kwargs", kwargs, known - given_by_us)
        return
    for key in DQN_BUFFER_ARGUMENTS & set(kwargs) - known:
        raise ArgumentError(
            f"replay_buffer_kwargs[{key!r}]={kwargs[key]!r} is an argument of DQNReplayBuffer "
            f"and has no effect on replay_buffer_class={buffer_class.__name__}."
        )


def buffer_settings(buffer: ReplayBuffer) -> dict[str, Any]:
    """
    Return the settings on which the batches of a replay buffer depend.

    :param buffer: a replay buffer; one of SB3 has the default settings of DQNReplayBuffer
    :return: setting -> value
    """
    settings = buffer.settings() if isinstance(buffer, DQNReplayBuffer) else DEFAULT_SETTINGS
    return {
        **settings,
        "n_envs": buffer.n_envs,
        "observation_space": buffer.observation_space,
        "action_space": buffer.action_space,
        "n_step_returns": isinstance(buffer, DQNReplayBuffer | NStepReplayBuffer),
    }


def check_replay_buffer(model: Any, wanted: Mapping[str, Any]) -> None:
    """
    Check that a replay buffer that was loaded or assigned fits the arguments of the model.

    :param model: a DQNExt
    :param wanted: :func:`buffer_settings` of a replay buffer that is made from the model's arguments
    :raises ArgumentError: if the settings differ
    """
    found = buffer_settings(model.replay_buffer)
    if model.n_steps == 1:
        wanted = {**wanted, "n_step_returns": found["n_step_returns"]}  # both kinds are equal for one step
    differ = [f"{name}={found[name]!r} in the place of {value!r}" for name, value in wanted.items() if found[name] != value]
    if model.n_epochs is not None and not isinstance(model.replay_buffer, DQNReplayBuffer):
        differ.append(f"no support for n_epochs={model.n_epochs}")
    if differ:
        raise ArgumentError(
            f"the replay buffer, a {type(model.replay_buffer).__name__}, does not fit the model: it has {', '.join(differ)}. "
            "Make the model with the arguments of this replay buffer, or begin with an empty one."
        )


def prepare_replay_buffer(model: Any) -> None:
    """
    Check the arguments of the replay buffer. If it is a DQNReplayBuffer and the model has none yet, make it. SB3 makes replay
    buffers of other classes later.

    A loaded model that lacks these arguments gets a stand-in, with which it can predict and not train.

    :param model: a DQNExt; this function sets ``replay_buffer_class`` and ``replay_buffer``
    :raises ArgumentError: if an argument has a wrong value
    """
    missing = [one for one in (model.replay_buffer_class, model.replay_buffer_kwargs) if isinstance(one, MissingAttribute)]
    if missing:
        model.replay_buffer_class = model.replay_buffer_class or DQNReplayBuffer
        if model.replay_buffer is None:
            model.replay_buffer = missing[0]  # predictions need no replay buffer
        return
    buffer_class = model.replay_buffer_class or DQNReplayBuffer
    check_buffer_kwargs(buffer_class, model.replay_buffer_kwargs)
    if not issubclass(buffer_class, DQNReplayBuffer):
        return  # SB3 makes it
    model.replay_buffer_class = buffer_class
    if model.replay_buffer is None:
        kwargs: dict[str, Any] = {"action_masks": True} if model.policy_kwargs.get("action_masks") else {}
        kwargs |= model.replay_buffer_kwargs
        kwargs.pop("device", None)
        model.replay_buffer = buffer_class(
            model.buffer_size,
            model.observation_space,
            model.action_space,
            device=model.device,
            n_envs=model.n_envs,
            optimize_memory_usage=model.optimize_memory_usage,
            n_steps=model.n_steps,
            gamma=model.gamma,
            **kwargs,
        )
        move_frames_to_device(model)
        if model.actors is not None and model.n_steps > 1:
            model.replay_buffer.set_lookahead(model.n_steps - 1)


def move_frames_to_device(model: Any, warn: bool = True) -> None:
    """
    Move the frames of the replay buffer to the model's device, if ``replay_buffer_kwargs`` have it as ``device``.

    :param model: a DQNExt
    :param warn: whether there is a warning if the networks are on another device
    :raises ArgumentError: if torch has no such device, or the buffer does not store frames
    """
    kwargs, buffer = model.replay_buffer_kwargs, model.replay_buffer
    name = kwargs.get("device") if isinstance(kwargs, Mapping) else None
    if name is None or not isinstance(buffer, DQNReplayBuffer):
        return
    try:
        device = get_device(name)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ArgumentError(f"replay_buffer_kwargs['device']={name!r} is no device of torch: {reason}.") from error
    if not isinstance(buffer.observation_ring, FrameRing):
        raise ArgumentError(f"replay_buffer_kwargs['device']={name!r} is where frames are stored: it needs storage='frames'.")
    # get_device returns the CPU if no GPU is there
    on_cpu = str(name) in ("auto", "cpu") and device.type == "cpu"
    is_same = device.type == model.device.type and device.index in (None, model.device.index or 0)
    if on_cpu:
        buffer.observation_ring.move_to(None)
    elif is_same and device.type != "cpu":
        buffer.store_frames_on(model.device)
    elif warn:
        # for example, a model that was trained on another machine
        message = f"replay_buffer_kwargs['device']={name!r} has no effect: the networks are on {str(model.device)!r}."
        warnings.warn(message, stacklevel=6)


def update_buffer_arguments(model: Any) -> None:
    """
    Set ``n_steps`` and ``gamma`` of the replay buffer to those of the model, which a user may have changed.

    :param model: a DQNExt
    """
    buffer = model.replay_buffer
    if isinstance(buffer, DQNReplayBuffer):
        buffer.set_multistep(model.n_steps, model.gamma)
    elif isinstance(buffer, NStepReplayBuffer) and model.replay_buffer_class is not type(buffer):
        buffer.n_steps, buffer.gamma = model.n_steps, model.gamma
