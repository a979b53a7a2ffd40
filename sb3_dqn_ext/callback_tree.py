"""The callbacks that a callback holds."""

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback

__all__ = ["RUN_ATTRIBUTES", "all_callbacks"]

RUN_ATTRIBUTES = {"model", "training_env", "parent", "locals", "globals"}
"""the attributes that a callback gets from its run"""


def all_callbacks(callback: MaybeCallback) -> Iterator[BaseCallback]:
    """
    :param callback: what ``learn`` takes
    :return: the callbacks, and those that they hold, each once
    """
    return iter(dict.fromkeys(_with_held(callback)))


def _with_held(callback: Any) -> Iterator[BaseCallback]:
    if isinstance(callback, list):
        for one in callback:
            yield from _with_held(one)
    elif isinstance(callback, BaseCallback):
        yield callback
        for name, value in vars(callback).items():
            if name not in RUN_ATTRIBUTES:
                yield from _with_held(value)
