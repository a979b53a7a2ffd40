"""
Our configurations as modules, which the zoo's ``-conf`` takes where a path into an installed package would be long.

``-conf sb3_dqn_ext.presets.NAME`` reads ``zoo_configs/NAME.yml``, or one in a folder of it.
"""

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import yaml

import sb3_dqn_ext

__all__ = ["preset_paths"]


def preset_paths() -> dict[str, str]:
    """
    :return: the path of each configuration by its name
    """
    return {os.path.splitext(os.path.basename(path))[0]: path for path in sorted(_paths())}


def _paths() -> Iterator[str]:
    for folder in sb3_dqn_ext.__path__:
        for inner, _, files in os.walk(os.path.join(folder, "zoo_configs")):
            yield from (os.path.join(inner, file) for file in files if file.endswith(".yml"))


class Preset(ModuleType):
    """A module whose ``hyperparams`` are read when they are asked for: a new dictionary each time, as the zoo changes it."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(f"{__name__}.{name}", f"The hyperparameters in {path}.")
        self.__file__ = path

    def __getattr__(self, attribute: str) -> Any:
        if attribute != "hyperparams":
            raise AttributeError(f"module {self.__name__!r} has no attribute {attribute!r}")
        with open(str(self.__file__)) as file:
            return yaml.safe_load(file)


for _name, _path in preset_paths().items():
    sys.modules[f"{__name__}.{_name}"] = globals()[_name] = Preset(_name, _path)
