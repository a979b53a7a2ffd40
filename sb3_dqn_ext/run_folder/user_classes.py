"""
Classes of the user's own that the configuration of a run names.

The file of a model is not trusted to import classes. ``run.json`` in the folder of a run names the classes of its
configuration: they are imported from where Python finds modules, and must be of the right kind. `resume` makes the run with
them again; for `enjoy`, `record_video`, `train -i` and the report, the file of a model may then name them.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium as gym
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import nn, optim

from sb3_dqn_ext._validation import resolve_class
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.run_folder.run_file import RunFile

BASE_CLASSES: dict[str, type] = {
    "policy": BasePolicy,
    "env_wrapper": gym.Wrapper,
    "vec_env_wrapper": VecEnv,
    "callback": BaseCallback,
    "activation_fn": nn.Module,
    "optimizer_class": optim.Optimizer,
    "features_extractor_class": nn.Module,
    "replay_buffer_class": ReplayBuffer,
}
NETWORK_HYPERPARAMETERS = ("policy", *run_file.NETWORK_CLASS_ARGUMENTS)

ClassesByName = dict[str, type]
"""classes by their dotted names"""


def find_class_names(hyperparameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """
    Find the names of classes in hyperparameters.

    :param hyperparameters: the hyperparameters of a run, as ``run.json`` has them
    :return: the dotted names, each behind the hyperparameter that holds it
    """
    for place in ("env_wrapper", "vec_env_wrapper", "callback"):
        value = hyperparameters.get(place)
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            yield from ((place, name) for name in (one if isinstance(one, dict) else [one]))
    if hyperparameters.get("replay_buffer_class") is not None:
        yield "replay_buffer_class", hyperparameters["replay_buffer_class"]
    network = hyperparameters.get("policy_kwargs")
    singles = {**(network if isinstance(network, dict) else {}), "policy": hyperparameters.get("policy")}
    for place in NETWORK_HYPERPARAMETERS:
        if "." in str(singles.get(place)):  # others are short names of ours
            yield place, str(singles[place])


def import_classes(names: Iterable[tuple[str, str]], hint: str) -> ClassesByName:
    """
    Import classes by their names.

    :param names: dotted names, each behind the hyperparameter that holds it
    :param hint: what the user can do if one is not found
    :return: the classes
    :raises ArgumentError: if one cannot be imported, or is of another kind than the hyperparameter takes
    """
    try:
        found: list[tuple[str, str, type]] = [(place, name, resolve_class(place, name, {})) for place, name in names]
    except (ImportError, TypeError, ValueError) as error:
        raise ArgumentError(f"{str(error).rstrip('.')}. {hint}") from error
    for place, name, kind in found:
        if not issubclass(kind, BASE_CLASSES[place]):
            raise ArgumentError(f"{place}={name!r} is no {BASE_CLASSES[place].__name__}, and is called with --trust only.")
    return {name: kind for _, name, kind in found}


def module_not_found_hint(run: RunFile, otherwise: str = "say --trust") -> str:
    """
    :param run: a run
    :param otherwise: what the user can write to trust the run
    :return: what the user can do if a module is not found
    """
    return f"Give the command in {run.directory}, where the run was started, or {otherwise}."


def import_model_classes(hyperparameters: dict[str, Any], hint: str) -> ClassesByName:
    """
    Import the classes of the user's own that a model is made of.

    :param hyperparameters: the hyperparameters of a run, as ``run.json`` has them
    :param hint: what the user can do if a class is not found
    :return: the classes
    :raises ArgumentError: if a class of its networks cannot be imported, or is of another kind
    """
    names = list(find_class_names(hyperparameters))
    found = import_classes([name for name in names if name[0] in NETWORK_HYPERPARAMETERS], hint)
    with contextlib.suppress(ArgumentError):  # training needs it, predictions do not
        found |= import_classes([name for name in names if name[0] == "replay_buffer_class"], hint)
    return found | {f"{kind.__module__}.{kind.__qualname__}": kind for kind in found.values()}


def import_run_classes(folder: str, trust: bool, otherwise: str) -> ClassesByName:
    """
    Import the classes of the user's own that the model of a run is made of.

    :param folder: the folder of a run
    :param trust: whether to import modules from the directory where the run was started, too
    :param otherwise: see :func:`hint_of`
    :return: the classes; none if the folder has no ``run.json``
    :raises ArgumentError: if a class of its networks cannot be imported, or is of another kind
    """
    if not os.path.isfile(os.path.join(folder, run_file.FILE_NAME)):
        return {}
    run = run_file.read(folder)
    if trust and run.directory not in sys.path:
        sys.path.insert(0, run.directory)
    for module in run.arguments.get("gym_packages") or []:
        with contextlib.suppress(ImportError):  # the environment, if it is needed, is then not found with an error of its own
            importlib.import_module(module)
    return import_model_classes(run.hyperparameters, module_not_found_hint(run, otherwise))
