"""Checkpoints of a model: saving, and resuming a run so that it continues as if it had not been interrupted."""

import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_dqn_ext.checkpoint.envs import make_resumable
from sb3_dqn_ext.checkpoint.envs.states import check_layers, current_observations, environments_state, restore_or_reset
from sb3_dqn_ext.checkpoint.folder import (
    Checkpoint,
    Segments,
    all_manifests,
    find_latest_checkpoint,
    read_checkpoint,
    remove_later_checkpoints,
    write_checkpoint,
)
from sb3_dqn_ext.checkpoint.replay import (
    check_storable,
    describe_buffer,
    read_rows,
    stored_row_range,
)
from sb3_dqn_ext.checkpoint.training import restore_training, training_state
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.truncation import truncate_open_episodes
from sb3_dqn_ext.storage.lock import Lock

__all__ = ["SavedRows", "locked_folder", "resume", "save_checkpoint"]

Folder = str | os.PathLike[str]


class SavedRows(NamedTuple):
    """The rows of the replay buffer of a run that the checkpoints in a folder hold."""

    run: str
    """The unique id of the run, which is a part of the keys of its segments."""
    bounds: tuple[int, ...]
    """The first rows of the stored segments in ascending order, and the end of the last segment."""
    step: int
    """The step of the last checkpoint."""


def save_checkpoint(model: Any, folder: Folder, keep: int, callback: BaseCallback | None) -> Path:
    """
    Write a checkpoint of a model, its environments and its run.

    :param model: a DQNExt between two rollouts
    :param folder: the folder of its checkpoints
    :param keep: the number of checkpoints to keep
    :param callback: the callback of the run; None if no run is active
    :return: the manifest
    :raises CheckpointError: if the folder contains checkpoints of another run, or cannot be written to
    """
    _check_env(model)
    absolute_path, step = os.path.abspath(folder), int(model.num_timesteps)
    with locked_folder(model, folder):
        saved: SavedRows | None = model.run_state.saved_rows.get(absolute_path)
        if saved is not None and saved.step > step:
            raise CheckpointError(
                f"{folder} contains a checkpoint of this model at the later step {saved.step}: choose another folder."
            )
        if saved is not None:
            remove_later_checkpoints(absolute_path, saved.step)  # the model was resumed from an earlier checkpoint
        saved = _extended(saved, model.replay_buffer, step)
        tree = {
            "model_description": _describe_model(model),
            "saved_rows": {"run": saved.run, "bounds": list(saved.bounds)},
            "training": training_state(model, callback),
            "environments": environments_state(model.env),
        }
        path = write_checkpoint(absolute_path, step, tree, _segments(saved, model.replay_buffer), keep)
    model.run_state.saved_rows[absolute_path] = saved
    return path


@contextmanager
def locked_folder(model: Any, folder: Folder) -> Iterator[None]:
    """
    Lock a folder of checkpoints for a model, for the duration of the block.

    :param model: a DQNExt
    :param folder: the folder of its checkpoints
    :raises CheckpointError: if another process or thread holds the lock, or the folder contains checkpoints of another run
    :raises ArgumentError: if the replay buffer of the model cannot be stored
    """
    check_storable(model.replay_buffer)
    absolute_path = os.path.abspath(folder)
    with Lock.if_not_held(absolute_path):
        if absolute_path not in model.run_state.saved_rows and all_manifests(absolute_path):
            raise CheckpointError(f"{folder} contains checkpoints of another run: resume from it, or choose another folder.")
        yield


def resume(model: Any, path: Folder) -> list[str]:
    """
    Restore a model and its environments from a checkpoint, so that ``learn`` continues the run.

    :param model: a DQNExt with environments, made with the arguments of the model that was saved
    :param path: a folder of checkpoints, of which the latest valid one is read, or the manifest of a checkpoint
    :return: messages about environments that could not be restored and begin new episodes
    :raises CheckpointError: if there is no valid checkpoint, or the model was made with other arguments
    """
    _check_env(model)
    checkpoint = _find_checkpoint(path)
    description = _describe_model(model)
    for what, value in checkpoint.tree["model_description"].items():
        if value != description[what]:
            raise CheckpointError(
                f"{checkpoint.path} is of a model with {what} {value}, and this one has {description[what]}."
            )
    make_resumable(model.env)
    stored_envs, envs = (
        _environment_names(states) for states in (checkpoint.tree["environments"], environments_state(model.env))
    )
    if stored_envs != envs:
        raise CheckpointError(f"{checkpoint.path} is of a model with the environments {stored_envs}, and this one has {envs}.")
    check_layers(model.env, checkpoint.tree["environments"])
    training, saved = checkpoint.tree["training"], checkpoint.tree["saved_rows"]
    parts = zip(checkpoint.segments.get("rows", ()), saved["bounds"], strict=False)
    restore_training(model, training, ((first, part.load()) for part, first in parts))
    problems = restore_or_reset(model.env, checkpoint.tree["environments"])
    if problems:
        _begin_episodes(model, list(problems))
    rows = SavedRows(saved["run"], tuple(saved["bounds"]), checkpoint.step)
    model.run_state.saved_rows = {os.path.abspath(checkpoint.path.parent): rows}
    model.run_state.resumed = checkpoint.tree
    return [f"Environment {i}: {problem}" for i, problem in problems.items()]


def _environment_names(states: list[dict[str, Any]]) -> list[str]:
    """List the names of the environments that have a stored state."""
    return [state["env"] for state in states if "env" in state]


def _begin_episodes(model: Any, envs: list[int]) -> None:
    """Adapt a model to environments that could not be restored and have begun new episodes."""
    model._last_obs = current_observations(model.env)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    for numbers in model._exploration_state.values():
        numbers[envs] = 0
    truncate_open_episodes(model.replay_buffer, np.isin(np.arange(model.n_envs), envs))


def _check_env(model: Any) -> None:
    if model.env is None:
        raise ArgumentError("a checkpoint contains the environments of the model: call set_env(env) first.")


def _find_checkpoint(path: Folder) -> Checkpoint:
    path = Path(path)
    if path.is_file():
        return read_checkpoint(path)
    found = find_latest_checkpoint(path)
    for error in found.skipped.values():
        warnings.warn(f"A later checkpoint is skipped: {error}", stacklevel=4)
    if found.checkpoint is None:
        raise CheckpointError(f"{path} contains no valid checkpoint.")
    return found.checkpoint


def _describe_model(model: Any) -> dict[str, Any]:
    """Return the properties that must be equal in the model that resumes."""
    return {
        "class": type(model).__name__,
        "observation space": str(model.observation_space),
        "action space": str(model.action_space),
        "number of environments": model.n_envs,
        "replay buffer": describe_buffer(model.replay_buffer),
        "parameters": {name: list(tensor.shape) for name, tensor in model.policy.state_dict().items()},
        "compile": str(model.compile),
    }


def _fresh(buffer: Any, step: int) -> SavedRows:
    """Begin a new run of which no rows are stored."""
    return SavedRows(uuid.uuid4().hex[:12], (stored_row_range(buffer)[0],), step)


def _extended(saved: SavedRows | None, buffer: Any, step: int) -> SavedRows:
    """Add a segment of the rows that were added since the last checkpoint, and drop overwritten segments."""
    first, end = stored_row_range(buffer)
    if saved is None or end < saved.bounds[-1]:  # the replay buffer was emptied
        saved = _fresh(buffer, step)
    bounds = [*saved.bounds, *([end] if end > saved.bounds[-1] else [])]
    while len(bounds) > 1 and bounds[1] <= first:
        del bounds[0]  # overwritten
    return SavedRows(saved.run, tuple(bounds), step)


def _segments(saved: SavedRows, buffer: Any) -> Segments:
    """Return the segments of the rows. Rows are only copied for segments that are not stored yet."""
    if not isinstance(buffer, DQNReplayBuffer):  # its rows cannot be numbered: it does not count overwritten ones
        first, end = stored_row_range(buffer)
        return {"rows": [(f"{saved.run}-at-{saved.step:012d}", partial(read_rows, buffer, first, end))]}
    return {
        "rows": [
            (f"{saved.run}-{first:012d}-{end:012d}", partial(read_rows, buffer, first, end))
            for first, end in zip(saved.bounds, saved.bounds[1:], strict=False)
        ]
    }
