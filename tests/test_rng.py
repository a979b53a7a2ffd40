"""The state of all generators of random numbers."""

import random
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.rng import get_rng_state, rng_preserved, set_rng_state
from sb3_dqn_ext.serialization.tree import pack, unpack
from tests.internals import generator_of
from tests.parity import short_cartpole


def drawn(model: Any) -> list[float]:
    """A number of each generator."""
    own = [generator_of(model).random()] if hasattr(model, "_generator") else []
    spaces = [model.action_space.sample(), *model.observation_space.sample()]
    return [float(number) for number in (random.random(), np.random.rand(), np.random.randn(), th.rand(1), *own, *spaces)]


def fail_after(numbers: list[float]) -> None:
    raise RuntimeError(f"inside, with {numbers}")


def made(kind: type[DQN]) -> Any:
    return kind("MlpPolicy", short_cartpole(), seed=0, device="cpu", buffer_size=50)


@pytest.mark.parametrize("kind", [DQN, DQNExt])
def test_what_is_drawn_in_a_block_leaves_no_trace(kind: type[DQN]) -> None:
    model = made(kind)
    drawn(model)  # numpy keeps the second of two normal numbers
    before = get_rng_state(model)
    with rng_preserved(model):
        first = drawn(model)
    with pytest.raises(RuntimeError, match="inside"), rng_preserved(model):
        fail_after(drawn(model))
    assert drawn(model) == first != drawn(model)
    set_rng_state(unpack(*pack(before)), model)
    assert drawn(model) == first


def test_a_space_that_has_drawn_nothing_draws_anew() -> None:
    model = made(DQNExt)
    model.observation_space._np_random = None
    with rng_preserved(model):
        drawn(model)
    assert model.observation_space._np_random is None


def test_the_legacy_state_of_numpy_is_restored() -> None:
    model = made(DQNExt)
    drawn(model)
    state = get_rng_state(model) | {"numpy": np.random.get_state()}  # as in checkpoints of schema 1
    first = drawn(model)
    set_rng_state(state, model)
    assert drawn(model) == first


def test_generators_of_models_are_left_alone_unless_they_are_named() -> None:
    model = made(DQNExt)
    with rng_preserved():
        first = generator_of(model).random()
    assert generator_of(model).random() != first
    assert get_rng_state().keys() == {"python", "numpy", "torch", "cuda"}
