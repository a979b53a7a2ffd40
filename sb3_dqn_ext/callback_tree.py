"""Traversal of the callbacks that a callback holds."""

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback

__all__ = ["RUN_ATTRIBUTES", "all_callbacks"]

RUN_ATTRIBUTES = {"model", "training_env", "parent", "locals", "globals"}
"""the attributes that SB3 sets in a callback when a run begins"""


def all_callbacks(callback: MaybeCallback) -> Iterator[BaseCallback]:
    """
    List callbacks and the callbacks that they hold.

    :param callback: the ``callback`` of ``learn``
    :return: each callback once
    """
    return iter(dict.fromkeys(_walk_callbacks(callback)))


def _walk_callbacks(callback: Any) -> Iterator[BaseCallback]:
    if isinstance(callback, list):
        for one in callback:
            yield from _walk_callbacks(one)
    elif isinstance(callback, BaseCallback):
        yield callback
        for name, value in vars(callback).items():
            if name not in RUN_ATTRIBUTES:
                yield from _walk_callbacks(value)
