"""The attributes of a user's objects, which a compiled function holds as constants."""

import pickle
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from torch import nn

__all__ = ["TracedState"]

_LIBRARIES = ("sb3_dqn_ext.", "torch.", "stable_baselines3.")


def _attributes(traced: object) -> dict[str, Any]:
    """
    Return the attributes of an object. For a torch module, ``training`` and all private attributes are left out, with which
    torch keeps modules, parameters, buffers and hooks.
    """
    own = vars(traced)
    if not isinstance(traced, nn.Module):
        return dict(own)
    return {name: value for name, value in own.items() if not name.startswith("_") and name != "training"}


def _pack_attributes(traced: object) -> dict[str, bytes | int]:
    """Return a comparable value for each attribute: its pickle, or the id of an attribute that cannot be pickled."""
    packed: dict[str, bytes | int] = {}
    for name, value in _attributes(traced).items():
        try:
            packed[name] = pickle.dumps(value)
        except Exception:
            packed[name] = id(value)
    return packed


def _module_of(traced: object) -> str:
    """Return the name of the module in which a function, or the class of another object, is defined."""
    # not a function's __module__, which functools.wraps replaces
    return str(traced.__globals__["__name__"] if isinstance(traced, FunctionType) else type(traced).__module__)


class TracedState:
    """
    The attributes of objects whose methods are traced. The traced function holds their values, and does not run the methods
    again: it is wrong once an attribute has another value.

    A change inside of an attribute that cannot be pickled, or of an attribute of the class, is not noticed.

    :param objects: the objects; those of this package and of torch never change
    """

    def __init__(self, objects: Iterable[object]) -> None:
        with_attributes = (one for one in objects if hasattr(one, "__dict__"))
        self._objects = [one for one in with_attributes if not _module_of(one).startswith(_LIBRARIES)]
        self._before = [_pack_attributes(one) for one in self._objects]

    def changed(self) -> str | None:
        """Return the name of the class of an object that has changed; None if there is none."""
        for one, before in zip(self._objects, self._before, strict=True):
            if _pack_attributes(one) != before:
                return type(one).__name__
        return None

    def restore(self) -> None:
        """Restore the attributes that the objects had before, except for those that cannot be pickled."""
        for one, before in zip(self._objects, self._before, strict=True):
            now = _pack_attributes(one)
            for name in now.keys() - before.keys():
                del vars(one)[name]
            vars(one).update(
                {name: pickle.loads(old) for name, old in before.items() if old != now.get(name) and isinstance(old, bytes)}
            )
