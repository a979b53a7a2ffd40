"""A run on the disk: written from time to time, and gone on with as if it had never stopped."""

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
from sb3_dqn_ext.checkpoint.replay import check_replay_buffer, read_rows, restore_rows, restore_timeouts, stored_row_range
from sb3_dqn_ext.checkpoint.training import restore_training, training_state
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.truncation import truncate_open_episodes
from sb3_dqn_ext.storage.lock import Lock

__all__ = ["SavedRows", "locked_folder", "resume", "save_checkpoint"]

Folder = str | os.PathLike[str]


class SavedRows(NamedTuple):
    """What a model knows of its checkpoints in a folder."""

    run: str
    """a name that no other run has: the same rows of another one are others"""
    bounds: tuple[int, ...]
    """the rows at which the parts of its memory begin that lie on the disk, and the end of the last"""
    step: int
    """of the last checkpoint"""


def save_checkpoint(model: Any, folder: Folder, keep: int, callback: BaseCallback | None) -> Path:
    """
    :param model: a DQNExt between two rollouts
    :param folder: of its checkpoints
    :param keep: how many stay
    :param callback: of the run, if it is running
    :return: the manifest
    :raises CheckpointError: if the folder holds checkpoints of another run, or cannot be written to
    """
    _check_env(model)
    place, step = os.path.abspath(folder), int(model.num_timesteps)
    with locked_folder(model, folder):
        saved_rows: SavedRows | None = model.run_state.saved_rows.get(place)
        if saved is not None and saved.step > step:
            raise CheckpointError(f"{folder} holds this model at the later step {saved.step}: name another folder.")
        if saved is not None:
            remove_later_checkpoints(place, saved.step)  # what this model was before it went on from an earlier checkpoint
        saved = _grown(saved, model.replay_buffer, step)
        tree = {
            "model": _described(model),
            "saved_rows": {"run": saved.run, "bounds": list(saved.bounds)},
            "training": training_state(model, callback),
            "environments": environments_state(model.env),
        }
        path = write_checkpoint(place, step, tree, _parts(saved, model.replay_buffer), keep)
    model.run_state.saved_rows[place] = saved
    return path


@contextmanager
def locked_folder(model: Any, folder: Folder) -> Iterator[None]:
    """
    Inside of this context nobody else writes to the folder.

    :param model: a DQNExt
    :param folder: of its checkpoints
    :raises CheckpointError: if somebody else does, or it holds checkpoints of another run
    :raises ArgumentError: if the model has a replay memory that remembers more than is known
    """
    check_replay_buffer(model.replay_buffer)
    place = os.path.abspath(folder)
    with Lock.if_not_held(place):
        if place not in model.run_state.saved_rows and all_manifests(place):
            raise CheckpointError(f"{folder} holds checkpoints of another run: resume from it, or name another folder.")
        yield


def resume(model: Any, path: Folder) -> list[str]:
    """
    :param model: a DQNExt with its environments, made as the other was
    :param path: the folder of the checkpoints, to take the newest that is good, or the manifest of one
    :return: what could not be restored
    :raises CheckpointError: if there is no good checkpoint, or it is of a model that was made otherwise
    """
    _check_env(model)
    checkpoint = _found(path)
    described = _described(model)
    for what, value in checkpoint.tree["model"].items():
        if value != described[what]:
            raise CheckpointError(f"{checkpoint.path} is of a model with {what} {value}, and this one has {described[what]}.")
    make_resumable(model.env)
    were, are = (_names(states) for states in (checkpoint.tree["environments"], environments_state(model.env)))
    if were != are:
        raise CheckpointError(f"{checkpoint.path} is of a model with the environments {were}, and this one has {are}.")
    check_layers(model.env, checkpoint.tree["environments"])
    training, saved = checkpoint.tree["training"], checkpoint.tree["saved_rows"]
    restore_training(model, training)
    for part, first in zip(checkpoint.segments.get("rows", ()), saved["bounds"], strict=False):
        restore_rows(model.replay_buffer, first, part.load())
    restore_timeouts(model.replay_buffer, training["memory"])
    begun = restore_or_reset(model.env, checkpoint.tree["environments"])
    if begun:
        _begin_episodes(model, list(begun))
    rows = SavedRows(saved["run"], tuple(saved["bounds"]), checkpoint.step)
    model.run_state.saved_rows = {os.path.abspath(checkpoint.path.parent): rows}
    model.run_state.resumed = checkpoint.tree
    return [f"Environment {i}: {problem}" for i, problem in begun.items()]


def _names(states: list[dict[str, Any]]) -> list[str]:
    """Of the environments that have a state of their own."""
    return [state["env"] for state in states if "env" in state]


def _begin_episodes(model: Any, envs: list[int]) -> None:
    """Of environments that could not be restored."""
    model._last_obs = current_observations(model.env)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    for numbers in model._exploration_state.values():
        numbers[envs] = 0
    truncate_open_episodes(model.replay_buffer, np.isin(np.arange(model.n_envs), envs))


def _check_env(model: Any) -> None:
    if model.env is None:
        raise ArgumentError("a checkpoint is of a model with its environments: call set_env(env) before.")


def _found(path: Folder) -> Checkpoint:
    path = Path(path)
    if path.is_file():
        return read_checkpoint(path)
    found = find_latest_checkpoint(path)
    for why in found.skipped.values():
        warnings.warn(f"A newer checkpoint is left out: {why}", stacklevel=4)
    if found.checkpoint is None:
        raise CheckpointError(f"{path} holds no checkpoint that is good.")
    return found.checkpoint


def _described(model: Any) -> dict[str, Any]:
    """What must be the same in a model that goes on."""
    return {
        "class": type(model).__name__,
        "observation space": str(model.observation_space),
        "action space": str(model.action_space),
        "number of environments": model.n_envs,
        "memory": f"{type(model.replay_buffer).__name__} of {model.replay_buffer.buffer_size} rows",
        "parameters": {name: list(tensor.shape) for name, tensor in model.policy.state_dict().items()},
        "compile": str(model.compile),
    }


def _anew(memory: Any, step: int) -> SavedRows:
    """With nothing on the disk."""
    return SavedRows(uuid.uuid4().hex[:12], (stored_row_range(memory)[0],), step)


def _grown(saved: SavedRows | None, memory: Any, step: int) -> SavedRows:
    """With the rows that were added since."""
    first, end = stored_row_range(memory)
    if saved is None or end < saved.bounds[-1]:  # the memory was emptied, and counts anew
        saved = _anew(memory, step)
    bounds = [*saved.bounds, *([end] if end > saved.bounds[-1] else [])]
    while len(bounds) > 1 and bounds[1] <= first:
        del bounds[0]  # overwritten since
    return SavedRows(saved.run, tuple(bounds), step)


def _parts(saved: SavedRows, memory: Any) -> Segments:
    """The parts of the memory; those that lie on the disk are not taken again."""
    if not isinstance(memory, DQNReplayBuffer):  # which does not tell how many rows it has ever had
        first, end = stored_row_range(memory)
        return {"rows": [(f"{saved.run}-at-{saved.step:012d}", partial(read_rows, memory, first, end))]}
    return {
        "rows": [
            (f"{saved.run}-{first:012d}-{end:012d}", partial(read_rows, memory, first, end))
            for first, end in zip(saved.bounds, saved.bounds[1:], strict=False)
        ]
    }
