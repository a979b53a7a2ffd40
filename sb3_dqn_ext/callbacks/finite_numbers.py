"""Checks for numbers that would be nan or infinite in the type in which they are stored."""

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

__all__ = ["FLOAT32", "SAFE_NUMBER", "SMALL_SIZE", "describe_non_finite", "first_items", "is_finite", "storage_dtypes"]

Array = npt.NDArray[Any]

MAX_ITEMS = 3
"""the largest number of entries or parameters that a message lists"""
SMALL_SIZE = 16
"""the largest number of values that Python checks faster than numpy"""
SAFE_NUMBER = 6e4
"""a number that is finite in every floating-point type"""
FLOAT32 = np.dtype(np.float32)
"""the type in which rewards are stored"""


@functools.cache
def largest_number(stored_as: np.dtype[Any]) -> float:
    """Return the largest number of a floating-point type."""
    return float(np.finfo(stored_as).max)


def is_finite(numbers: Array, stored_as: np.dtype[Any]) -> bool:
    """
    Check quickly whether all numbers are finite.

    :param numbers: numbers of any shape and type
    :param stored_as: the type in which they will be stored
    :return: False if a number would be nan or infinite there, or may be so that each has to be checked
    """
    if numbers.dtype.kind != "f":
        return True
    if numbers.size <= SMALL_SIZE:
        return math.hypot(*numbers.ravel().tolist()) <= largest_number(stored_as)
    # one call computes the square of the norm, which no number above 1 exceeds
    return bool(np.vdot(numbers, numbers) <= largest_number(stored_as))


def describe_non_finite(
    numbers: Array, stored_as: np.dtype[Any], what: str, dones: Array | None = None, first_env: int = 0
) -> str | None:
    """
    Describe the numbers that would be nan or infinite.

    :param numbers: (n_envs, ...) floating-point numbers
    :param stored_as: the type in which they will be stored
    :param what: the description of the numbers, such as "observation"
    :param dones: (n_envs,) whether the numbers of an environment are the first of an episode
    :param first_env: the number of the first environment
    :return: the description; None if all numbers would be finite
    """
    positions = np.argwhere(~(np.abs(numbers) <= largest_number(stored_as)))  # (k, dimensions)
    if not len(positions):
        return None
    envs = np.unique(positions[:, 0]).tolist()
    entries = [
        f"{[*position]} = {numbers[env][tuple(position)]:g}" if position else f"{numbers[env]:g}"
        for env, *position in positions.tolist()
        if env == envs[0]
    ]
    new = ", the first of a new episode," if dones is not None and dones[envs[0]] else ""
    others = f" (nor that of environments {first_items([str(first_env + env) for env in envs[1:]])})" if envs[1:] else ""
    return f"the {what} of environment {first_env + envs[0]}{new} is no finite {stored_as}{others}: {first_items(entries)}"


def first_items(items: list[str]) -> str:
    """
    List the first items.

    :param items: all items
    :return: the first items, and the number of further ones
    """
    more = f" and {len(items) - MAX_ITEMS} more" if len(items) > MAX_ITEMS else ""
    return ", ".join(items[:MAX_ITEMS]) + more


def storage_dtypes(space: spaces.Space[Any]) -> dict[str | None, np.dtype[Any]]:
    """
    Return the types in which observations are stored.

    :param space: the observation space
    :return: the type of each part, if it is a floating-point type; else float32, the type of the inputs of networks
    """
    boxes = space.spaces if isinstance(space, spaces.Dict) else {None: space}
    return {key: box.dtype if box.dtype is not None and box.dtype.kind == "f" else FLOAT32 for key, box in boxes.items()}
