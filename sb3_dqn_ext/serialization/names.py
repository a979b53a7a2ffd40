"""Classes and functions by their dotted names."""

import importlib
from typing import Any

__all__ = ["import_name", "qualified_name"]


def qualified_name(value: Any) -> str:
    """Return the dotted name of a class or function, such as ``torch.nn.modules.activation.Tanh``."""
    return f"{value.__module__}.{value.__qualname__}"


def import_name(name: str) -> Any:
    """
    Import an object by its dotted name.

    :param name: the dotted name of an object at the top level of a module or inside a class
    :return: the object
    :raises ImportError: if there is no such module
    :raises AttributeError: if the module or class has no such attribute
    """
    module_name, _, own_name = name.rpartition(".")
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if "." not in module_name or not error.name or error.name != module_name:
            raise
        found = import_name(module_name)  # a class, perhaps
    return getattr(found, own_name)
