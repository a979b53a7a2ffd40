"""Models in files: saved, loaded, and continued from checkpoints."""

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
from sb3_dqn_ext.checkpoint.session import resume
from sb3_dqn_ext.checkpoint.session import save as save_checkpoint
from sb3_dqn_ext.checkpoint.training import make_resumed_logger, restore_run
from sb3_dqn_ext.errors import ModelFileError

__all__ = [
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
    Find what a file cannot hold, and warn of it before a long run.

    :param attributes: attributes of a model
    :return: the names of those that the file will not hold
    """
    lost = saved_model.unstorable_attributes(attributes)
    if lost:
        warnings.warn(saved_model.unstorable_warning(lost), stacklevel=3)
    return set(lost)


def save(model: Any, path: Any, exclude: Iterable[str] | None, include: Iterable[str] | None, known: Collection[str]) -> None:
    """
    :param model: a DQNExt
    :param path: a file, or its name
    :param exclude: attributes to leave out beside those that are always left out
    :param include: attributes to store though they are among these
    :param known: attributes that cannot be stored, of which a warning was given
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
    saved_model.save(path, attributes, model.get_parameters(), tensors, set(known), optional)


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
    :param path: a file, or its name
    :param custom_objects: attributes in the place of those in the file
    :param given: attributes to change once the model is loaded
    :param trust: whether classes and functions that the file names are imported
    :param names: the names of state dictionaries and tensors that the file has, None if they are not known
    :param needed: the attributes that a model needs
    :param make: makes the model of an archive and its attributes
    :return: the model
    :raises ModelFileError: if the file cannot be read, or needs what is not given
    """
    opened = saved_model.open_model(path, custom_objects, given, trust, names, needed)
    stored = opened.attributes.get("replay_buffer")
    if isinstance(stored, saved_model.StoredBuffer):
        opened.attributes["replay_buffer"] = None  # it is made, then filled
    try:
        with contextlib.nullcontext() if trust else saved_model.Budget(opened.budget):
            model = make(opened.archive, opened.attributes)
            if isinstance(stored, saved_model.StoredBuffer):
                _fill_replay_buffer(model, stored)
            return model
    except (ValueError, Warning):
        raise
    # the file describes no model, or its parameters are those of another
    except Exception as error:
        name = saved_model.display_name(path)
        raise ModelFileError(f"{name} cannot be made a model again: {error!r}"[:2000]) from error


def _fill_replay_buffer(model: Any, stored: saved_model.StoredBuffer) -> None:
    if model.replay_buffer is not None and not isinstance(model.replay_buffer, MissingAttribute):
        why = saved_model.restore_buffer(model.replay_buffer, stored)
        if why:
            model.replay_buffer = MissingAttribute("replay_buffer", why, None, trust_helps=False)


def make_envs_resumable(env: VecEnv, callbacks: Iterable[BaseCallback]) -> None:
    """
    Prepare the environments of a run for its checkpoints, if it writes any.

    :param env: the training environments
    :param callbacks: the callbacks of the run, some of which have environments for evaluation
    """
    callbacks = list(callbacks)
    if any(isinstance(one, ExactCheckpointCallback) for one in callbacks):
        for one in (env, *(callback.eval_env for callback in callbacks if hasattr(callback, "eval_env"))):
            ignore_interrupts_in_workers(make_resumable(one))
