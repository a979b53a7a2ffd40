"""Plain data: numbers, strings, arrays, and dicts, lists and tuples of these."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

State: TypeAlias = dict[str, Any]


def to_plain(value: Any) -> Any:
    """
    :param value: numbers, strings, arrays, and dicts, lists and tuples of such
    :return: a copy in which numpy's numbers are arrays of shape ()
    :raises TypeError: if there is something else in it
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return np.array(value)
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: to_plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_plain(part) for part in value)
    raise TypeError(f"{type(value).__name__} is no plain data")


def from_plain(value: Any) -> Any:
    """
    :param value: what :func:`plain` gave
    :return: a copy of what it got
    """
    if isinstance(value, np.ndarray):
        return value[()] if value.ndim == 0 else value.copy()
    if isinstance(value, dict):
        return {key: from_plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(part) for part in value)
    return value


def equal_bits(one: Any, other: Any) -> bool:
    """
    :param one: plain data
    :param other: plain data; a list may have been a tuple, which some formats cannot tell apart
    :return: whether they are equal in every bit
    """
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal_bits(part, other[key]) for key, part in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal_bits, one, other))
    return type(one) is type(other) and (one == other or one != one)


def pack_actions(actions: Sequence[Any]) -> State:
    """
    :param actions: of many steps
    :return: the same as one array, where they are numbers or arrays of one kind
    """
    if actions and {type(action) for action in actions} in ({int}, {float}):
        return {"actions": to_plain(np.array(actions)), "python_numbers": True}
    kinds = {(action.dtype, action.shape) if isinstance(action, (np.ndarray, np.generic)) else None for action in actions}
    values = to_plain(np.stack(actions)) if len(kinds) == 1 and None not in kinds else to_plain(list(actions))
    return {"actions": values, "python_numbers": False}


def unpack_actions(state: State) -> list[Any]:
    """
    :param state: what :func:`packed` gave
    :return: the actions
    """
    values = state["actions"]
    return list(values.tolist() if state["python_numbers"] else [from_plain(value) for value in values])
