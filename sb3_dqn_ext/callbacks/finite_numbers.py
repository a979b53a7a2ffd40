"""Which numbers would be nan or infinite where they are stored."""

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

__all__ = ["FLOAT32", "SAFE_NUMBER", "SMALL_SIZE", "describe_non_finite", "first_items", "is_finite", "storage_dtypes"]

Array = npt.NDArray[Any]

MAX_ITEMS = 3  # entries and parameters that a message names
SMALL_SIZE = 16  # so many numbers are looked at in Python sooner than in numpy
SAFE_NUMBER = 6e4  # every type of floating-point numbers holds it
FLOAT32 = np.dtype(np.float32)  # in which rewards are remembered


@functools.cache
def largest_number(stored_as: np.dtype[Any]) -> float:
    """The largest number of a type of floating-point numbers."""
    return float(np.finfo(stored_as).max)


def is_finite(numbers: Array, stored_as: np.dtype[Any]) -> bool:
    """
    :param numbers: of any shape and type
    :param stored_as: the type in which they will be stored
    :return: False if one of them would be nan or infinite there, or could be, and has to be looked at
    """
    if numbers.dtype.kind != "f":
        return True
    if numbers.size <= SMALL_SIZE:
        return math.hypot(*numbers.ravel().tolist()) <= largest_number(stored_as)
    # The square of the norm is one call, and no number from 1 on is larger than it.
    return bool(np.vdot(numbers, numbers) <= largest_number(stored_as))


def describe_non_finite(
    numbers: Array, stored_as: np.dtype[Any], what: str, dones: Array | None = None, first_env: int = 0
) -> str | None:
    """
    :param numbers: (n_envs, ...) floating-point numbers
    :param stored_as: the type in which they will be stored
    :param what: they are, in words
    :param dones: (n_envs,) whether they are the first of an episode
    :param first_env: the environment of the first of them
    :return: which of them would be nan or infinite, in words; None if none would be
    """
    places = np.argwhere(~(np.abs(numbers) <= largest_number(stored_as)))  # (k, dimensions)
    if not len(places):
        return None
    envs = np.unique(places[:, 0]).tolist()
    entries = [
        f"{[*place]} = {numbers[env][tuple(place)]:g}" if place else f"{numbers[env]:g}"
        for env, *place in places.tolist()
        if env == envs[0]
    ]
    new = ", the first of a new episode," if dones is not None and dones[envs[0]] else ""
    others = f" (nor that of environments {first_items([str(first_env + env) for env in envs[1:]])})" if envs[1:] else ""
    return f"the {what} of environment {first_env + envs[0]}{new} is no finite {stored_as}{others}: {first_items(entries)}"


def first_items(items: list[str]) -> str:
    """
    :param items: to list
    :return: some of them, and how many more there are
    """
    more = f" and {len(items) - MAX_ITEMS} more" if len(items) > MAX_ITEMS else ""
    return ", ".join(items[:MAX_ITEMS]) + more


def storage_dtypes(space: spaces.Space[Any]) -> dict[str | None, np.dtype[Any]]:
    """
    :param space: of observations
    :return: the type in which each part of them is stored, if it is one of floating-point numbers, else float32, which
        networks are told
    """
    boxes = space.spaces if isinstance(space, spaces.Dict) else {None: space}
    return {key: box.dtype if box.dtype is not None and box.dtype.kind == "f" else FLOAT32 for key, box in boxes.items()}
