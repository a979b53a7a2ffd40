"""
All that a training run depends on beside its environments, as nested plain data, arrays and tensors.

It is taken between two rollouts: what was stepped is stored, and what was to be learned from it is learned.
"""

import os
import warnings
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat, configure
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_dqn_ext._validation import parameters_of
from sb3_dqn_ext.callback_tree import RUN_ATTRIBUTES, all_callbacks
from sb3_dqn_ext.checkpoint.envs.states import environments_state, restore_environments, rewind_monitor_files
from sb3_dqn_ext.checkpoint.replay import replay_buffer_state, restore_replay_buffer
from sb3_dqn_ext.rng import get_rng_state, set_rng_state
from sb3_dqn_ext.serialization.names import qualified_name
from sb3_dqn_ext.serialization.tree import is_plain

__all__ = ["callback_states", "make_resumed_logger", "restore_run", "restore_training", "training_state"]

State = dict[str, Any]

# what SB3's algorithms and DQNExt count and remember in the course of a run
RUN_ATTRIBUTES = (
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
# what all callbacks have; one that has no more, such as a list of others, remembers nothing
BASE_CALLBACK_ATTRIBUTES = {"n_calls", "num_timesteps", "verbose"}
LOGGER_ATTRIBUTES = ("name_to_value", "name_to_count", "name_to_excluded")


def callback_states(callback: MaybeCallback) -> list[State]:
    """
    :param callback: the callback of a run
    :return: the state of each callback of it
    """
    return [_own_state(one) for one in all_callbacks(callback)]


def training_state(model: Any, callback: BaseCallback | None) -> State:
    """
    :param model: a DQNExt between two rollouts
    :param callback: the callback of its run; None if that has ended
    :return: its state
    """
    logger = getattr(model, "_logger", None)  # there is none before the first run
    return {
        "attributes": {name: getattr(model, name) for name in RUN_ATTRIBUTES},
        "parameters": model.get_parameters(),
        "memory": replay_buffer_state(model.replay_buffer),
        "generators": get_rng_state(model),
        "logged": {name: dict(getattr(logger, name)) for name in LOGGER_ATTRIBUTES} if logger else {},
        "tensorboard": os.path.basename(str(logger.dir)) if logger and _tensorboards(logger) else None,
        "callbacks": model.run_state.callback_states if callback is None else callback_states(callback),
    }


def restore_training(model: Any, state: State) -> None:
    """
    Give a model, made by the same arguments, the state of another, but for that of its run.

    :param model: a DQNExt
    :param state: what :func:`training_state` gave
    """
    for name, value in state["attributes"].items():
        setattr(model, name, value)
    model.set_parameters(state["parameters"])
    restore_replay_buffer(model.replay_buffer, state["memory"])


def make_resumed_logger(model: Any, state: State) -> Logger | None:
    """
    :param model: a DQNExt that goes on with a run
    :param state: what :func:`training_state` gave
    :return: what logs to the run's own folder of TensorBoard: SB3 takes the newest, which may be another's by now. None where
        there is no such folder, or the user logs elsewhere
    """
    name = state["tensorboard"]
    if name is None or model.tensorboard_log is None or model._custom_logger:
        return None
    folder = os.path.join(model.tensorboard_log, os.path.basename(name))
    formats = ["stdout", "tensorboard"] if model.verbose >= 1 else ["tensorboard"]
    return configure(folder, formats) if os.path.isdir(folder) else None


def restore_run(model: Any, callback: BaseCallback, tree: State) -> None:
    """
    Give a run that is about to begin its first rollout the state of another: what it draws, logs, records and remembers.

    :param model: a DQNExt that has taken over the rest
    :param callback: of the run, made as the other one was
    :param tree: of its checkpoint
    """
    state = tree["training"]
    rewind_monitor_files(model.env, tree["environments"])
    for tensorboard in _tensorboards(model.logger):
        _hide_points_after(tensorboard, model.num_timesteps)
    for name, values in state["logged"].items():
        getattr(model.logger, name).clear()
        getattr(model.logger, name).update(values)
    left = list(state["callbacks"])
    for one in all_callbacks(callback):
        place = next((i for i, own in enumerate(left) if own["class"] == qualified_name(type(one))), None)
        if place is not None:
            _restore_own_state(one, left.pop(place))
    for own in (own for own in left if own["attributes"].keys() - BASE_CALLBACK_ATTRIBUTES):
        warnings.warn(f"A {own['class']} was part of the run and is not now: what it remembered is left out.", stacklevel=2)
    if model._total_timesteps == state["attributes"]["_total_timesteps"]:
        model.exploration_rate = state["attributes"]["exploration_rate"]
    set_rng_state(state["generators"], model)


def _tensorboards(logger: Logger) -> list[TensorBoardOutputFormat]:
    return [output for output in logger.output_formats if isinstance(output, TensorBoardOutputFormat)]


def _hide_points_after(tensorboard: TensorBoardOutputFormat, step: int) -> None:
    """TensorBoard drops what was logged before a new session for its step and later. It takes the first for no new one."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # SB3 goes without it, too

    writer: Any = tensorboard.writer
    for _ in range(2):
        writer.file_writer.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))


def _own_state(callback: BaseCallback) -> State:
    """
    What it remembers: neither what it was told when it was made, which it is told again, nor what is no plain data, such as
    environments and other callbacks.
    """
    told = RUN_ATTRIBUTES | set(parameters_of(type(callback)))
    own = {name: value for name, value in vars(callback).items() if name not in told and is_plain(value)}
    state: State = {"class": qualified_name(type(callback)), "attributes": own}
    if hasattr(callback, "eval_env"):
        state["environments"] = environments_state(callback.eval_env)
    return state


def _restore_own_state(callback: Any, own: State) -> None:
    vars(callback).update(own["attributes"])
    if "environments" in own:
        for problem in restore_environments(callback.eval_env, own["environments"]):
            warnings.warn(f"{type(callback).__name__}: {problem} It begins a new episode.", stacklevel=2)
        rewind_monitor_files(callback.eval_env, own["environments"])
