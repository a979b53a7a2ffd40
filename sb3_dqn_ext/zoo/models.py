"""
Models of runs in the zoo's commands: the classes of the user that their files may name, the option ``--trust``, and the
arguments of their environments.
"""

import functools
import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import sb3_dqn_ext.saved_model as saved_model
from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.run_folder.user_classes import import_model_classes, import_run_classes
from sb3_dqn_ext.zoo.config import ALGO

_TRUST_COMMAND = "run `sb3-dqn-ext enjoy ... --trust` (or record-video, or train)"

_trust = False
"""whether the command has the option ``--trust``"""

_algo: str | None = None
"""the algorithm of the model that a command of the zoo loads"""


def wrap_get_model_path(get_model_path: Callable[..., Any]) -> Callable[..., Any]:
    """
    Wrap the zoo's function that ``enjoy`` and ``record_video`` call before they make an environment and load the model.

    :param get_model_path: the zoo's function
    :return: a function with the same result; if the model is a DQNExt, its file may afterwards name the classes of its run
    """

    @functools.wraps(get_model_path)
    def get_model_path_and_allow_classes(exp_id: int, folder: str, algo: str, *args: Any, **kwargs: Any) -> Any:
        global _algo
        names = get_model_path(exp_id, folder, algo, *args, **kwargs)
        _algo = algo
        if algo == ALGO:
            _allow_classes_of_run(os.path.dirname(names[1]))
        return names

    return get_model_path_and_allow_classes


def wrap_create_test_env(create_test_env: Callable[..., Any]) -> Callable[..., Any]:
    """
    Wrap the zoo's function that makes the environment of a trained model. The zoo's ``record_video`` leaves out the
    ``env_kwargs`` of the configuration, so that it would film another environment than that of the training.

    :param create_test_env: the zoo's function
    :return: a function that adds them for a DQNExt; arguments of the command line take precedence
    """
    signature = inspect.signature(create_test_env)

    @functools.wraps(create_test_env)
    def create_trained_env(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs).arguments
        configured = (call.get("hyperparams") or {}).get("env_kwargs")
        if _algo == ALGO and configured:
            call["env_kwargs"] = {**configured, **(call.get("env_kwargs") or {})}
        return create_test_env(**call)

    return create_trained_env


def allow_classes_of_pretrained_model(path: str, hyperparameters: dict[str, Any]) -> None:
    """
    Allow the file of the model of ``train -i`` to name the classes of the earlier run and of the new run.

    :param path: the file of the model
    :param hyperparameters: the hyperparameters of the new run, in the form that ``run.json`` contains
    """
    saved_model.allow_classes(import_model_classes(hyperparameters, "Run the command in a folder where Python finds it."))
    _allow_classes_of_run(os.path.dirname(path))


def _allow_classes_of_run(run_folder: str) -> None:
    saved_model.allow_classes(import_run_classes(run_folder, _trust, _TRUST_COMMAND))


def take_trust_option(arguments: list[str]) -> list[str]:
    """
    Remove ``--trust`` from a command line. If it was given, the zoo's commands load models with ``trust=True`` afterwards.

    :param arguments: the arguments of a command of the zoo that loads models
    :return: the arguments without ``--trust``
    """
    if "--trust" not in arguments:
        return arguments
    global _trust
    _trust = True
    importlib.import_module("rl_zoo3.utils").ALGOS[ALGO] = _TrustedDQNExt
    return [argument for argument in arguments if argument != "--trust"]


class _TrustedDQNExt(DQNExt):
    """A class that the zoo calls in place of ``DQNExt`` after ``--trust``; the models are instances of ``DQNExt``."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return DQNExt(*args, **kwargs)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        return DQNExt.load(*args, **{**kwargs, "trust": True})
