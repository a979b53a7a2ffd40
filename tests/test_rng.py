"""The states of all random generators."""

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
    """Draw a number from each generator."""
    own = [generator_of(model).random()] if hasattr(model, "_generator") else []
    spaces = [model.action_space.sample(), *model.observation_space.sample()]
    return [float(number) for number in (random.random(), np.random.rand(), np.random.randn(), th.rand(1), *own, *spaces)]


def fail_after(numbers: list[float]) -> None:
    raise RuntimeError(f"inside, with {numbers}")


def make_model(kind: type[DQN]) -> Any:
    return kind("MlpPolicy", short_cartpole(), seed=0, device="cpu", buffer_size=50)


@pytest.mark.parametrize("kind", [DQN, DQNExt])
def test_generators_are_restored_at_the_end_of_a_block(kind: type[DQN]) -> None:
    model = make_model(kind)
    drawn(model)  # numpy caches the second of two normal numbers
    before = get_rng_state(model)
    with rng_preserved(model):
        first = drawn(model)
    with pytest.raises(RuntimeError, match="inside"), rng_preserved(model):
        fail_after(drawn(model))
    assert drawn(model) == first != drawn(model)
    set_rng_state(unpack(*pack(before)), model)
    assert drawn(model) == first


def test_a_space_without_a_generator_has_none_afterwards() -> None:
    model = make_model(DQNExt)
    model.observation_space._np_random = None
    with rng_preserved(model):
        drawn(model)
    assert model.observation_space._np_random is None


def test_the_legacy_state_of_numpy_is_restored() -> None:
    model = make_model(DQNExt)
    drawn(model)
    state = get_rng_state(model) | {"numpy": np.random.get_state()}  # as in checkpoints of schema 1
    first = drawn(model)
    set_rng_state(state, model)
    assert drawn(model) == first


def test_generators_of_models_change_only_if_a_model_is_passed() -> None:
    model = make_model(DQNExt)
    with rng_preserved():
        first = generator_of(model).random()
    assert generator_of(model).random() != first
    assert get_rng_state().keys() == {"python", "numpy", "torch", "cuda"}
