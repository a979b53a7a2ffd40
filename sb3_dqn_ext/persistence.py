"""Saving and loading of models, and resuming from checkpoints."""

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecEnv

import sb3_dqn_ext.saved_model as saved_model
from sb3_dqn_ext._missing import MissingAttribute
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback
from sb3_dqn_ext.checkpoint.envs import make_resumable
from sb3_dqn_ext.checkpoint.envs.resumable_envs import ignore_interrupts_in_workers
from sb3_dqn_ext.checkpoint.session import resume, save_checkpoint
from sb3_dqn_ext.checkpoint.training import check_choice_states, make_resumed_logger, restore_run
from sb3_dqn_ext.errors import ModelFileError

__all__ = [
    "check_choice_states",
    "find_unstorable",
    "load",
    "make_envs_resumable",
    "make_resumed_logger",
    "restore_run",
    "resume",
    "save",
    "save_checkpoint",
]

T = TypeVar("T")


def find_unstorable(attributes: Mapping[str, Any]) -> set[str]:
    """
    Find the attributes that cannot be saved, and warn of them before a long run.

    :param attributes: the attributes of a model
    :return: the names of the attributes that a file cannot hold
    """
    lost = saved_model.unstorable_attributes(attributes)
    if lost:
        warnings.warn(saved_model.unstorable_warning(lost), stacklevel=3)
    return set(lost)


def save(model: Any, path: Any, exclude: Iterable[str] | None, include: Iterable[str] | None, warned: Collection[str]) -> None:
    """
    Save a model to a file. In place of an attribute that cannot be saved, the file contains the reason, and a warning names
    it.

    :param model: a DQNExt
    :param path: a file name, or a file object
    :param exclude: attributes to leave out, in addition to those that are left out by default
    :param include: attributes to save although they are left out by default
    :param warned: attributes that cannot be saved, of which the user was warned already
    """
    parameters, variables = model._get_torch_save_params()
    usually_left_out, included = {*model._excluded_save_params()}, {*(include or ())}
    left_out = {*(exclude or ()), *usually_left_out, *saved_model.DERIVED} - included
    left_out |= {name.partition(".")[0] for name in [*parameters, *variables]}
    attributes = {name: value for name, value in vars(model).items() if name not in left_out}
    if attributes.get("replay_buffer") is not None:
        attributes["replay_buffer"] = saved_model.store_buffer(attributes["replay_buffer"])
    tensors = {name: recursive_getattr(model, name) for name in variables}
    optional = (included & usually_left_out) - {"replay_buffer"}
    saved_model.save_model(path, attributes, model.get_parameters(), tensors, set(warned), optional)


def load(
    path: Any,
    custom_objects: dict[str, Any] | None,
    given: dict[str, Any],
    trust: bool,
    names: Any,
    needed: set[str],
    make: Callable[[Any, dict[str, Any]], T],
) -> T:
    """
    Load a model from a file.

    :param path: a file name, or a file object
    :param custom_objects: attributes that replace those in the file
    :param given: attributes to set after the model is loaded
    :param trust: whether classes and functions are imported that the file names
    :param names: the names of the state dictionaries and tensors in the file; None if they are not known
    :param needed: the attributes that every model needs
    :param make: a function of an archive and attributes that returns the model
    :return: the model
    :raises ModelFileError: if the file cannot be read, or an attribute is missing that must be passed
    """
    opened = saved_model.open_model(path, custom_objects, given, trust, names, needed)
    stored = opened.attributes.get("replay_buffer")
    if isinstance(stored, saved_model.StoredBuffer):
        opened.attributes["replay_buffer"] = None  # the model makes an empty one, which is filled below
    try:
        with contextlib.nullcontext() if trust else saved_model.Budget(opened.budget):
            model = make(opened.archive, opened.attributes)
            if isinstance(stored, saved_model.StoredBuffer):
                _fill_replay_buffer(model, stored)
            return model
    except (ValueError, Warning):
        raise
    # the file does not describe a model, or its parameters are those of another model
    except Exception as error:
        name = saved_model.display_name(path)
        raise ModelFileError(f"{name} cannot be made a model again: {error!r}"[:2000]) from error


def _fill_replay_buffer(model: Any, stored: saved_model.StoredBuffer) -> None:
    if model.replay_buffer is not None and not isinstance(model.replay_buffer, MissingAttribute):
        reason = saved_model.restore_buffer(model.replay_buffer, stored)
        if reason:
            model.replay_buffer = MissingAttribute("replay_buffer", reason, None, trust_helps=False)


def make_envs_resumable(env: VecEnv, callbacks: Iterable[BaseCallback]) -> None:
    """
    Prepare the environments of a run for checkpoints, if one of its callbacks writes checkpoints.

    :param env: the training environments
    :param callbacks: the callbacks of the run; their evaluation environments are prepared, too
    """
    callbacks = list(callbacks)
    if any(isinstance(one, ExactCheckpointCallback) for one in callbacks):
        for one in (env, *(callback.eval_env for callback in callbacks if hasattr(callback, "eval_env"))):
            ignore_interrupts_in_workers(make_resumable(one))
