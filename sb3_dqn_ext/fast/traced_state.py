"""The attributes of a user's objects, which a compiled function holds as constants."""

import pickle
from collections.abc import Iterable
from typing import Any

from torch import nn

__all__ = ["TracedState"]

_LIBRARIES = ("sb3_dqn_ext.", "torch.", "stable_baselines3.")


def _attributes(traced: object) -> dict[str, Any]:
    """
    Return the attributes of an object. For a torch module, ``training`` and all private attributes are left out, with which
    torch keeps modules, parameters, buffers and hooks.
    """
    own = getattr(traced, "__dict__", {})
    if not isinstance(traced, nn.Module):
        return dict(own)
    return {name: value for name, value in own.items() if not name.startswith("_") and name != "training"}


def _packed(traced: object) -> bytes | None:
    try:
        return pickle.dumps(_attributes(traced))
    except Exception:  # of an attribute that cannot be pickled
        return None


class TracedState:
    """
    The attributes of objects whose methods are traced. The traced function holds their values, and does not run the methods
    again: it is wrong once an attribute has another value.

    :param objects: the objects; those of this package and of torch never change
    """

    def __init__(self, objects: Iterable[object]) -> None:
        self._objects = [one for one in objects if not type(one).__module__.startswith(_LIBRARIES)]
        self._before = [_packed(one) for one in self._objects]

    def changed(self) -> str | None:
        """:return: the name of the class of an object that has changed; None if there is none"""
        for one, before in zip(self._objects, self._before, strict=True):
            if _packed(one) != before:
                return type(one).__name__
        return None

    def restore(self) -> None:
        """Give the objects the attributes that they had before."""
        for one, before in zip(self._objects, self._before, strict=True):
            if before is not None and _packed(one) != before:
                old = pickle.loads(before)
                for name in _attributes(one).keys() - old.keys():
                    del vars(one)[name]
                vars(one).update(old)
