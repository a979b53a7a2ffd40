"""
The files of hyperparameters in ``zoo_configs`` as modules: ``-conf sb3_dqn_ext.presets.NAME`` reads ``NAME.yml``.

The name is independent of the folder in which the package is installed.
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
    Return the paths of all presets by name.

    :return: a mapping from names, such as ``"rainbow"``, to paths of YAML files
    """
    return {os.path.splitext(os.path.basename(path))[0]: path for path in sorted(_paths())}


def _paths() -> Iterator[str]:
    for folder in sb3_dqn_ext.__path__:
        for inner, _, files in os.walk(os.path.join(folder, "zoo_configs")):
            yield from (os.path.join(inner, file) for file in files if file.endswith(".yml"))


class Preset(ModuleType):
    """
    A module with an attribute ``hyperparams``, a new dictionary at each access, because the zoo changes it.

    :param name: the name of the preset
    :param path: the path of its YAML file
    """

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
