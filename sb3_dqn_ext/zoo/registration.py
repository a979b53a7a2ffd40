"""Makes ``dqn_ext`` known to the modules of the RL Zoo."""

import sys
from collections.abc import Callable
from types import ModuleType

from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.zoo.config import ALGO
from sb3_dqn_ext.zoo.models import wrap_get_model_path
from sb3_dqn_ext.zoo.search_space import make_converter, make_sampler


def register(module: ModuleType) -> None:
    """
    Make ``dqn_ext`` known to one module of the zoo: once, and only where the zoo still has the place for it.

    :param module: a module of the zoo; one that has no place for the algorithm stays as it is
    """
    if module.__name__ in _REGISTRARS:
        _REGISTRARS[module.__name__](module)


def register_imported() -> None:
    """Make ``dqn_ext`` known to those modules of the zoo that are already imported."""
    for name in _REGISTRARS:
        if name in sys.modules:
            register(sys.modules[name])


def _register_algorithm(utils: ModuleType) -> None:
    if hasattr(utils, "ALGOS"):
        utils.ALGOS.setdefault(ALGO, DQNExt)
    if hasattr(utils, "get_model_path") and not hasattr(utils, "allows_classes_of_runs"):
        vars(utils).update(get_model_path=wrap_get_model_path(utils.get_model_path), allows_classes_of_runs=True)


def _register_search_space(hyperparams_opt: ModuleType) -> None:
    for name, of_ours in (("HYPERPARAMS_SAMPLER", make_sampler), ("HYPERPARAMS_CONVERTER", make_converter)):
        by_algo = getattr(hyperparams_opt, name, {})
        if "dqn" in by_algo:
            by_algo.setdefault(ALGO, of_ours(by_algo["dqn"]))


def _register_manager(module: ModuleType) -> None:
    """
    Put our manager in the place of the zoo's.

    The zoo's commands take the name ``ExperimentManager`` from ``rl_zoo3.exp_manager`` and have no option for another class,
    so that this assignment cannot be avoided. ``rl_zoo3.train`` has a name of its own for it if it was imported before.
    """
    stock = getattr(module, "ExperimentManager", None)
    if stock is None:
        return
    # The module imports the zoo, which takes 2.5 s and changes gymnasium: here the zoo is imported already.
    from sb3_dqn_ext.zoo.manager import DQNExtManager

    if can_extend(stock) and not issubclass(stock, DQNExtManager):
        vars(module).update(ExperimentManager=DQNExtManager)


_REGISTRARS: dict[str, Callable[[ModuleType], None]] = {
    "rl_zoo3.utils": _register_algorithm,
    "rl_zoo3.exp_manager": _register_manager,
    "rl_zoo3.train": _register_manager,
    "rl_zoo3.hyperparams_opt": _register_search_space,
}
