"""
The RL Zoo with ``--algo dqn_ext``.

Where ``sb3_dqn_ext`` is installed, the zoo's own commands know the algorithm. Where its start-up hook is turned off (by
``SB3_DQN_EXT_NO_HOOK=1``) or absent, importing this package does the same, before or after the import of ``rl_zoo3``, and
``python -m sb3_dqn_ext.zoo train ...`` runs a command of the zoo with it.
"""

import functools
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import sb3_dqn_ext
from sb3_dqn_ext.zoo.config import check_config
from sb3_dqn_ext.zoo.own_classes import ALGO, find_with_model
from sb3_dqn_ext.zoo.resume import patch
from sb3_dqn_ext.zoo.search_space import converter, sampler

if importlib.util.find_spec("_sb3_dqn_ext_hook"):  # where an installation puts it
    import _sb3_dqn_ext_hook as start_hook
else:
    from sb3_dqn_ext import _start_hook as start_hook

__all__ = ["ALGO", "default_config", "register"]


def default_config() -> str:
    """
    :return: the path of the YAML that the zoo reads for ``--algo dqn_ext`` when no ``-conf`` is given
    """
    places = [os.path.join(folder, "zoo_configs", "dqn_ext.yml") for folder in sb3_dqn_ext.__path__]
    return next(filter(os.path.isfile, places), places[0])


def register(module: ModuleType) -> None:
    """
    Make ``dqn_ext`` known to one module of the zoo: once, and only where the zoo still has the place for it.

    :param module: ``rl_zoo3.utils``, ``rl_zoo3.exp_manager`` or ``rl_zoo3.hyperparams_opt``; any other stays as it is
    """
    if module.__name__ in _REGISTRARS:
        _REGISTRARS[module.__name__](module)


def _register_algorithm(utils: ModuleType) -> None:
    if hasattr(utils, "ALGOS"):
        utils.ALGOS.setdefault(ALGO, sb3_dqn_ext.DQNExt)
    if hasattr(utils, "get_model_path") and not hasattr(utils, "finds_classes_of_dqn_ext"):
        utils.get_model_path = find_with_model(utils.get_model_path)  # type: ignore[attr-defined]
        utils.finds_classes_of_dqn_ext = True  # type: ignore[attr-defined]


def _register_search_space(hyperparams_opt: ModuleType) -> None:
    for name, of_ours in (("HYPERPARAMS_SAMPLER", sampler), ("HYPERPARAMS_CONVERTER", converter)):
        by_algo = getattr(hyperparams_opt, name, {})
        if "dqn" in by_algo:
            by_algo.setdefault(ALGO, of_ours(by_algo["dqn"]))


def _register_config(exp_manager: ModuleType) -> None:
    manager = getattr(exp_manager, "ExperimentManager", None)
    if manager is not None and hasattr(manager, "read_hyperparameters") and not hasattr(manager, "knows_dqn_ext"):
        manager.__init__ = _with_default_config(manager.__init__)
        manager.read_hyperparameters = _with_checked_config(manager.read_hyperparameters)
        patch(exp_manager)
        manager.knows_dqn_ext = True


def _with_default_config(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)
    if not {"algo", "config"} <= signature.parameters.keys():
        return init

    @functools.wraps(init)
    def with_default_config(*args: Any, **kwargs: Any) -> None:
        given = signature.bind(*args, **kwargs)
        if given.arguments["algo"] == ALGO and not given.arguments.get("config"):
            given.arguments["config"] = default_config()
        init(*given.args, **given.kwargs)

    return with_default_config


def _with_checked_config(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(read)
    def with_checked_config(manager: Any) -> Any:
        if manager.algo == ALGO and manager.config.endswith((".yml", ".yaml")):
            check_config(manager.config)
        return read(manager)

    return with_checked_config


_REGISTRARS: dict[str, Callable[[ModuleType], None]] = {
    "rl_zoo3.utils": _register_algorithm,
    "rl_zoo3.exp_manager": _register_config,
    "rl_zoo3.hyperparams_opt": _register_search_space,
}

start_hook.install()
for _name in _REGISTRARS:
    if _name in sys.modules:
        register(sys.modules[_name])
