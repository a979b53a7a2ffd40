"""The registration of ``dqn_ext`` in the modules of the RL Zoo."""

import sys
from collections.abc import Callable
from types import ModuleType

from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.zoo.config import ALGO
from sb3_dqn_ext.zoo.models import wrap_create_test_env, wrap_get_model_path
from sb3_dqn_ext.zoo.search_space import make_converter, make_hyperparameter_sampler


def register(module: ModuleType) -> None:
    """
    Register ``dqn_ext`` in a module of the zoo. A second call has no effect.

    :param module: a module of the zoo; it stays unchanged if it has no table or class in which algorithms are registered
    """
    if module.__name__ in _REGISTRARS:
        _REGISTRARS[module.__name__](module)


def register_imported() -> None:
    """Register ``dqn_ext`` in the modules of the zoo that are already imported."""
    for name in _REGISTRARS:
        if name in sys.modules:
            register(sys.modules[name])


def _register_algorithm(utils: ModuleType) -> None:
    if hasattr(utils, "ALGOS"):
        utils.ALGOS.setdefault(ALGO, DQNExt)
    if hasattr(utils, "get_model_path") and not hasattr(utils, "allows_classes_of_runs"):
        vars(utils).update(
            get_model_path=wrap_get_model_path(utils.get_model_path),
            create_test_env=wrap_create_test_env(utils.create_test_env),
            allows_classes_of_runs=True,
        )


def _register_search_space(hyperparams_opt: ModuleType) -> None:
    for name, make_function in (
        ("HYPERPARAMS_SAMPLER", make_hyperparameter_sampler),
        ("HYPERPARAMS_CONVERTER", make_converter),
    ):
        functions = getattr(hyperparams_opt, name, {})
        if "dqn" in functions:
            functions.setdefault(ALGO, make_function(functions["dqn"]))


def _register_manager(module: ModuleType) -> None:
    """
    Replace the zoo's ``ExperimentManager`` in a module of the zoo by :class:`DQNExtManager`. A manager that is missing, not
    supported or replaced already is left as it is.

    The zoo's commands import the name from ``rl_zoo3.exp_manager`` and have no option for another class. ``rl_zoo3.train`` has
    its own reference to the class if it was imported earlier.

    :param module: ``rl_zoo3.exp_manager`` or ``rl_zoo3.train``
    """
    stock = getattr(module, "ExperimentManager", None)
    if stock is None:
        return
    # Not at the top: the import of the zoo takes 2.5 s and patches gymnasium. Here the zoo is already imported.
    from sb3_dqn_ext.zoo.manager import DQNExtManager, is_supported_manager

    if is_supported_manager(stock) and not issubclass(stock, DQNExtManager):
        vars(module).update(ExperimentManager=DQNExtManager)


_REGISTRARS: dict[str, Callable[[ModuleType], None]] = {
    "rl_zoo3.utils": _register_algorithm,
    "rl_zoo3.exp_manager": _register_manager,
    "rl_zoo3.train": _register_manager,
    "rl_zoo3.hyperparams_opt": _register_search_space,
}
