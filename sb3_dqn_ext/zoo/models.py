"""Which classes of the user's own the files of models may name in a command of the zoo, and what ``--trust`` changes."""

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

import sb3_dqn_ext.saved_model as saved_model
from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.run_folder.user_classes import import_model_classes, import_run_classes
from sb3_dqn_ext.zoo.config import ALGO

_OTHERWISE = "say `python -m sb3_dqn_ext.zoo enjoy ... --trust`, or record_video or train in the place of enjoy"

_trusted = False
"""whether the command was given with --trust"""


def wrap_get_model_path(get_model_path: Callable[..., Any]) -> Callable[..., Any]:
    """
    Extend the zoo's function that `enjoy` and `record_video` call before they make an environment and load the model.

    :param get_model_path: the zoo's function
    :return: the same function; if the model is a DQNExt, its file may afterwards name the classes of its run
    """

    @functools.wraps(get_model_path)
    def found(exp_id: int, folder: str, algo: str, *args: Any, **kwargs: Any) -> Any:
        names = get_model_path(exp_id, folder, algo, *args, **kwargs)
        if algo == ALGO:
            _let_models_name_classes_of(os.path.dirname(names[1]))
        return names

    return found


def allow_classes_of_pretrained_model(path: str, hyperparameters: dict[str, Any]) -> None:
    """
    Let the model of `train -i` name the classes of the run that it comes from, and those of the new run.

    :param path: the file of the model
    :param hyperparameters: the hyperparameters of the new run, as ``run.json`` has them
    """
    saved_model.allow_classes(import_model_classes(hyperparameters, "Give the command where Python finds it."))
    _let_models_name_classes_of(os.path.dirname(path))


def _let_models_name_classes_of(run_folder: str) -> None:
    saved_model.allow_classes(import_run_classes(run_folder, _trusted, _OTHERWISE))


def take_trust_option(arguments: list[str]) -> list[str]:
    """
    Take ``--trust`` out of a command line. If it was there, models are loaded with ``trust=True`` from now on.

    :param arguments: the arguments of a command of the zoo that loads models
    :return: the arguments that the zoo itself takes
    """
    if "--trust" not in arguments:
        return arguments
    global _trusted
    _trusted = True
    importlib.import_module("rl_zoo3.utils").ALGOS[ALGO] = _Trusting
    return [argument for argument in arguments if argument != "--trust"]


class _Trusting(DQNExt):
    """The class by which the zoo makes and loads models after ``--trust``. The models themselves are DQNExt."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return DQNExt(*args, **kwargs)

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        return DQNExt.load(*args, **{**kwargs, "trust": True})
