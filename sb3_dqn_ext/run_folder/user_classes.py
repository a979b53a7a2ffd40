"""
Classes of the user that the configuration of a run names.

The file of a model is not trusted to import classes. ``run.json`` in the run folder contains the names of the classes in the
configuration. They are imported from Python's search path, and must be subclasses of the class that their place requires.
``resume`` builds the run with them; for ``enjoy``, ``record_video``, ``train -i`` and the report, the file of a model may then
name them.
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

from sb3_dqn_ext._validation import is_dotted, resolve_class
from sb3_dqn_ext.choices import PLACES, find_choices
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
    **{choice.argument: choice.base_class for choice in PLACES.values()},
}
NETWORK_HYPERPARAMETERS = ("policy", *run_file.NETWORK_CLASS_ARGUMENTS)
REPLAY_CHOICES = ("replay_buffer_class", "sampler")
MODEL_CHOICES = {*NETWORK_HYPERPARAMETERS, *(choice.argument for choice in PLACES.values())} - {*REPLAY_CHOICES}

ClassesByName = dict[str, type]
"""a mapping from dotted names to classes"""


def find_class_names(hyperparameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """
    Find the names of classes in hyperparameters.

    :param hyperparameters: the hyperparameters in ``run.json``
    :return: pairs of a hyperparameter and the dotted name of a class
    """
    for place in ("env_wrapper", "vec_env_wrapper", "callback"):
        value = hyperparameters.get(place)
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            yield from ((place, name) for name in (one if isinstance(one, dict) else [one]))
            for arguments in one.values() if isinstance(one, dict) else ():  # a schedule of a callback, for example
                yield from _names_of_choices({"exploration_kwargs": arguments})
    if hyperparameters.get("replay_buffer_class") is not None:
        yield "replay_buffer_class", hyperparameters["replay_buffer_class"]
    network = hyperparameters.get("policy_kwargs")
    singles = {**(network if isinstance(network, dict) else {}), "policy": hyperparameters.get("policy")}
    for place in NETWORK_HYPERPARAMETERS:
        if "." in str(singles.get(place)):  # other values are short names, such as "tanh"
            yield place, str(singles[place])
    yield from _names_of_choices(hyperparameters)


def _names_of_choices(arguments: object) -> Iterator[tuple[str, str]]:
    for _, choice, value in find_choices(arguments):
        if is_dotted(value):
            yield choice.argument, value


def import_classes(names: Iterable[tuple[str, str]], hint: str) -> ClassesByName:
    """
    Import classes by their names.

    :param names: pairs of a hyperparameter and the dotted name of a class
    :param hint: a sentence for the error if a class is not found
    :return: the classes
    :raises ArgumentError: if a class cannot be imported, or is not a subclass of the class that the hyperparameter requires
    """
    try:
        found: list[tuple[str, str, type]] = [(place, name, resolve_class(place, name, {})) for place, name in names]
    except (ImportError, TypeError, ValueError) as error:
        raise ArgumentError(f"{str(error).rstrip('.')}. {hint}") from error
    for place, name, kind in found:
        if BASE_CLASSES[place] not in kind.__mro__:  # methods with the same names are not enough
            raise ArgumentError(f"{place}={name!r} is not a {BASE_CLASSES[place].__name__}; it is called only with --trust.")
    return {name: kind for _, name, kind in found}


def module_not_found_hint(run: RunFile, alternative: str = "add --trust") -> str:
    """
    Return a hint for users whose module is not found.

    :param run: the content of ``run.json``
    :param alternative: an instruction to trust the run
    :return: one sentence
    """
    return f"Run the command in {run.directory}, where the run was started, or {alternative}."


def import_model_classes(hyperparameters: dict[str, Any], hint: str) -> ClassesByName:
    """
    Import the classes of the user that a model contains.

    :param hyperparameters: the hyperparameters in ``run.json``
    :param hint: a sentence for the error if a class is not found
    :return: the classes
    :raises ArgumentError: if a class of the networks cannot be imported, or is not a subclass of the required class
    """
    names = list(find_class_names(hyperparameters))
    found = import_classes([name for name in names if name[0] in MODEL_CHOICES], hint)
    with contextlib.suppress(ArgumentError):  # only training needs them
        found |= import_classes([name for name in names if name[0] in REPLAY_CHOICES], hint)
    return found | {f"{kind.__module__}.{kind.__qualname__}": kind for kind in found.values()}


def import_run_classes(folder: str, trust: bool, alternative: str) -> ClassesByName:
    """
    Import the classes of the user that the model of a run contains.

    :param folder: a run folder
    :param trust: whether modules are also imported from the directory where the run was started
    :param alternative: see :func:`module_not_found_hint`
    :return: the classes; empty if the folder has no ``run.json``
    :raises ArgumentError: if a class of the networks cannot be imported, or is not a subclass of the required class
    """
    if not os.path.isfile(os.path.join(folder, run_file.FILE_NAME)):
        return {}
    run = run_file.read(folder)
    if trust and run.directory not in sys.path:
        sys.path.insert(0, run.directory)
    for module in run.arguments.get("gym_packages") or []:
        with contextlib.suppress(ImportError):  # gymnasium reports an environment that is not registered
            importlib.import_module(module)
    return import_model_classes(run.hyperparameters, module_not_found_hint(run, alternative))
