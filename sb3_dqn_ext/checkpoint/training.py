"""
The state of a training run, except its environments, as nested plain data, arrays and tensors.

It is read between two rollouts: all steps are stored in the replay buffer, and their gradient steps are done, or due if the
networks are trained during the next step.
"""

import os
import warnings
from collections.abc import Iterable
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat, configure
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_dqn_ext._validation import parameters_of
from sb3_dqn_ext.callback_tree import RUN_ATTRIBUTES, all_callbacks
from sb3_dqn_ext.checkpoint.envs.states import environments_state, restore_environments, rewind_monitor_files
from sb3_dqn_ext.checkpoint.replay import replay_buffer_state, restore_replay_buffer
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.rng import get_rng_state, set_rng_state
from sb3_dqn_ext.serialization.names import qualified_name
from sb3_dqn_ext.serialization.tree import NotSerializableError, is_plain, pack

__all__ = [
    "callback_states",
    "check_choice_states",
    "make_resumed_logger",
    "restore_run",
    "restore_training",
    "training_state",
]

State = dict[str, Any]

ALGORITHM_ATTRIBUTES = (
    "num_timesteps",
    "_total_timesteps",
    "_num_timesteps_at_start",
    "_current_progress_remaining",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "exploration_rate",
    "ep_info_buffer",
    "ep_success_buffer",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
    "_exploration_state",
)
"""The attributes of SB3's algorithms and of DQNExt that change during a run."""
STATEFUL_CHOICES = ("target_policy", "exploration")
"""The choices of a model whose state is part of a checkpoint."""

BASE_CALLBACK_ATTRIBUTES = {"n_calls", "num_timesteps", "verbose"}
"""The attributes of every callback. A callback with no others, such as a list of callbacks, has no state."""
LOGGER_ATTRIBUTES = ("name_to_value", "name_to_count", "name_to_excluded")
"""The attributes of a logger that hold values which are not written yet."""


def callback_states(callback: MaybeCallback) -> list[State]:
    """
    Return the states of all callbacks of a run.

    :param callback: the callback of the run, which can hold others
    :return: the states, in the order of the callbacks
    """
    return [_callback_state(each) for each in all_callbacks(callback)]


def training_state(model: Any, callback: BaseCallback | None) -> State:
    """
    Return the state of a training run, except its environments.

    :param model: a DQNExt between two rollouts
    :param callback: the callback of its run; None if the run has ended
    :return: nested plain data, arrays and tensors
    """
    logger = getattr(model, "_logger", None)  # SB3 sets it in the first run
    return {
        "attributes": {name: getattr(model, name) for name in ALGORITHM_ATTRIBUTES},
        "parameters": model.get_parameters(),
        "replay_buffer_state": replay_buffer_state(model.replay_buffer),
        "choices": _choice_states(model),
        "generators": get_rng_state(model),
        "logged": {name: dict(getattr(logger, name)) for name in LOGGER_ATTRIBUTES} if logger else {},
        "tensorboard": os.path.basename(str(logger.dir)) if logger and _tensorboard_outputs(logger) else None,
        "due_training": model.run_state.due_training,
        "callbacks": model.run_state.callback_states if callback is None else callback_states(callback),
    }


def restore_training(model: Any, state: State, rows: Iterable[tuple[int, State]]) -> None:
    """
    Restore the attributes, parameters and replay buffer of a model. :func:`restore_run` restores the rest.

    :param model: a DQNExt that was made with the same arguments
    :param state: the result of :func:`training_state`
    :param rows: the rows of the replay buffer, see :func:`~sb3_dqn_ext.checkpoint.replay.restore_replay_buffer`
    """
    for name, value in state["attributes"].items():
        setattr(model, name, value)
    model.set_parameters(state["parameters"])
    restore_replay_buffer(model.replay_buffer, state["replay_buffer_state"], rows)
    _restore_choice_states(model, state.get("choices", {}))  # older checkpoints have none
    model.run_state.due_training = state.get("due_training")


def check_choice_states(model: Any) -> None:
    """
    Check that a checkpoint can hold the states of the target policy, the exploration and the sampler of a model.

    :param model: a DQNExt
    :raises ArgumentError: if it cannot
    """
    _choice_states(model)
    if isinstance(model.replay_buffer, DQNReplayBuffer):
        _storable_state(model.replay_buffer.sampler)


def _choice_states(model: Any) -> State:
    states = {}
    for name in STATEFUL_CHOICES:
        choice = getattr(model.choices, name)
        if own := _storable_state(choice):
            states[name] = {"class": qualified_name(type(choice)), "state": own}
    return states


def _storable_state(choice: Any) -> State:
    state: State = choice.state_dict()
    try:
        pack(state)
    except NotSerializableError as error:
        raise ArgumentError(
            f"the state of {type(choice).__name__} cannot be part of a checkpoint: {error} Override state_dict and "
            "load_state_dict, which return and take over plain data, arrays and tensors."
        ) from error
    return state


def _restore_choice_states(model: Any, states: State) -> None:
    for name, own in states.items():
        choice = getattr(model.choices, name)
        if qualified_name(type(choice)) == own["class"]:
            choice.load_state_dict(own["state"])
        else:
            now = qualified_name(type(choice))
            warnings.warn(f"The {name} of the run was a {own['class']}, and is a {now} now: its state is lost.", stacklevel=4)


def make_resumed_logger(model: Any, state: State) -> Logger | None:
    """
    Make a logger that continues the TensorBoard log of a run. SB3 would use the latest folder, which can be another run's.

    :param model: a DQNExt that resumes a run
    :param state: the result of :func:`training_state`
    :return: the logger; None if the run has no TensorBoard folder, or the user has set a logger
    """
    name = state["tensorboard"]
    if name is None or model.tensorboard_log is None or model._custom_logger:
        return None
    folder = os.path.join(model.tensorboard_log, os.path.basename(name))
    formats = ["stdout", "tensorboard"] if model.verbose >= 1 else ["tensorboard"]
    return configure(folder, formats) if os.path.isdir(folder) else None


def restore_run(model: Any, callback: BaseCallback, tree: State) -> None:
    """
    Restore the random generators, logs and callbacks of a run, before the first rollout of the resumed run.

    :param model: a DQNExt that was restored by :func:`restore_training`
    :param callback: the callback of the run, made with the same arguments
    :param tree: the state in the checkpoint
    """
    state = tree["training"]
    rewind_monitor_files(model.env, tree["environments"])
    for tensorboard in _tensorboard_outputs(model.logger):
        _hide_later_points(tensorboard, model.num_timesteps)
    for name, values in state["logged"].items():
        getattr(model.logger, name).clear()
        getattr(model.logger, name).update(values)
    remaining = list(state["callbacks"])
    for each in all_callbacks(callback):
        position = next((i for i, stored in enumerate(remaining) if stored["class"] == qualified_name(type(each))), None)
        if position is not None:
            _restore_callback(each, remaining.pop(position))
    for stored in (stored for stored in remaining if stored["attributes"].keys() - BASE_CALLBACK_ATTRIBUTES):
        warnings.warn(f"A {stored['class']} was part of the run and is missing now: its state is not restored.", stacklevel=2)
    if model._total_timesteps == state["attributes"]["_total_timesteps"]:
        model.exploration_rate = state["attributes"]["exploration_rate"]
    set_rng_state(state["generators"], model)


def _tensorboard_outputs(logger: Logger) -> list[TensorBoardOutputFormat]:
    return [output for output in logger.output_formats if isinstance(output, TensorBoardOutputFormat)]


def _hide_later_points(tensorboard: TensorBoardOutputFormat, step: int) -> None:
    """
    Hide the points of a TensorBoard log that were written for later steps than a given step.

    The start of a new session is written to the log, and TensorBoard discards all earlier points from the session's first step
    on. TensorBoard ignores the first start of a session in a file, so two are written.

    :param tensorboard: the output format that writes the log
    :param step: the last step whose points are shown
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # optional, as in SB3

    writer: Any = tensorboard.writer
    for _ in range(2):
        writer.file_writer.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))


def _callback_state(callback: BaseCallback) -> State:
    """
    Return the state of a callback: its attributes of plain data, and the states of its evaluation environments.

    Constructor arguments are excluded: the script of the resumed run sets them. So are attributes that SB3 sets for each run.
    """
    excluded = RUN_ATTRIBUTES | set(parameters_of(type(callback)))
    stored = {name: value for name, value in vars(callback).items() if name not in excluded and is_plain(value)}
    state: State = {"class": qualified_name(type(callback)), "attributes": stored}
    if hasattr(callback, "eval_env"):
        state["environments"] = environments_state(callback.eval_env)
    return state


def _restore_callback(callback: Any, stored: State) -> None:
    vars(callback).update(stored["attributes"])
    if "environments" in stored:
        for problem in restore_environments(callback.eval_env, stored["environments"]):
            warnings.warn(f"{type(callback).__name__}: {problem} It begins a new episode.", stacklevel=2)
        rewind_monitor_files(callback.eval_env, stored["environments"])
