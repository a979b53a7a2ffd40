"""The states of all random generators: those of the process, and those of a model."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

__all__ = ["get_rng_state", "rng_preserved", "set_rng_state"]

State = dict[str, Any]


def get_rng_state(model: Any = None) -> State:
    """
    Return the states of the global generators of Python, numpy and torch, and of CUDA if it is used.

    :param model: a model whose own generators are included: those of the algorithm and of its spaces; None (default): none
    :return: the states, as plain data, arrays and tensors
    """
    state: State = {
        "python": random.getstate(),
        # the legacy tuple takes three times as long
        "numpy": np.random.get_state(legacy=False),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if th.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }
    if model is None:
        return state
    own = getattr(model, "_generator", None)  # models of other libraries have none
    return state | {
        "algorithm": None if own is None else own.bit_generator.state,
        "spaces": [_space_state(space) for space in _spaces(model)],
    }


def set_rng_state(state: State, model: Any = None) -> None:
    """
    Set the states of the global generators.

    :param state: the result of :func:`get_rng_state`
    :param model: a model whose own generators are set, too; the state must include them
    """
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    th.set_rng_state(state["torch"])
    if state["cuda"]:
        th.cuda.set_rng_state_all(state["cuda"])
    if model is None:
        return
    if state["algorithm"] is not None:
        model._generator.bit_generator.state = state["algorithm"]
    for space, space_state in zip(_spaces(model), state["spaces"], strict=True):
        _set_space_state(space, space_state)


@contextmanager
def rng_preserved(model: Any = None) -> Iterator[None]:
    """
    Restore the states of all generators at the end of the block.

    :param model: a model whose own generators are restored, too; None (default): none
    """
    state = get_rng_state(model)
    try:
        yield
    finally:
        set_rng_state(state, model)


def _spaces(model: Any) -> list[spaces.Space[Any]]:
    return [model.action_space, model.observation_space]


def _space_state(space: spaces.Space[Any]) -> Any:
    """Return the state of the generator of a space; None if it has not been created yet, before its first draw."""
    return None if space._np_random is None else space._np_random.bit_generator.state


def _set_space_state(space: Any, state: Any) -> None:
    if state is None:
        space._np_random = None
    else:
        space.np_random.bit_generator.state = state
