"""Batches of transitions."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch.utils._pytree import tree_leaves

from sb3_dqn_ext.algorithm.batches import Batch, move_batch
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.parity import assert_same


def batch_of(observations: Any, **fields: Any) -> Batch:
    numbers: dict[str, Any] = {
        "actions": th.arange(5),
        "rewards": th.linspace(-1, 1, 5),
        "discounts": th.linspace(0, 1, 5, dtype=th.float64),
        "next_observations": None,
        "weights": None,
        "demonstrations": th.tensor([True, False, True, True, False]),
        "indices": np.arange(5),
    }
    return Batch(observations=observations, **numbers | fields)


IMAGES = th.arange(5 * 3 * 7, dtype=th.uint8).reshape(5, 3, 7)


@pytest.mark.parametrize(
    "batch",
    [
        batch_of(IMAGES, next_observations=IMAGES.flip(0)),
        batch_of(IMAGES.movedim(1, 2), weights=th.rand(5)),
        batch_of({"screen": IMAGES, "vector": th.rand(5, 3)}, next_observations={"screen": IMAGES, "vector": th.rand(5, 3)}),
        batch_of(th.zeros(5, 0)),
    ],
    ids=["images", "another order in memory", "Dict", "without numbers"],
)
def test_a_moved_batch_has_the_same_numbers_in_one_block(batch: Batch) -> None:
    moved = move_batch(batch, th.device("cpu"))
    for name, ours, theirs in zip(Batch._fields, moved, batch, strict=True):
        assert_same(ours, theirs, name)
    leaves = [leaf for leaf in tree_leaves(tuple(moved)) if isinstance(leaf, th.Tensor)]
    assert len({leaf.untyped_storage().data_ptr() for leaf in leaves}) == 1
    assert all(leaf.is_contiguous() for leaf in leaves)


def test_a_buffer_for_another_device_reads_batches_there() -> None:
    space = spaces.Dict(screen=spaces.Box(0, 255, (2, 3, 4), np.uint8), vector=spaces.Box(-1, 1, (3,), np.float64))
    buffer = DQNReplayBuffer(10, space, spaces.Discrete(2), device="meta", sampler="prioritized")
    obs = {key: np.zeros((1, *part.shape), part.dtype) for key, part in space.spaces.items() if part.shape is not None}
    for _ in range(4):
        buffer.add(obs, obs, np.array([1]), np.array([0.5]), np.array([False]), [{}])
    batch = buffer.sample_batch(6)
    leaves = tree_leaves(tuple(batch[:-1]))
    tensors = [leaf for leaf in leaves if leaf is not None]
    assert {leaf.device.type for leaf in tensors} == {"meta"}
    observations: Any = batch.observations
    assert (observations["screen"].shape, observations["screen"].dtype) == ((6, 2, 3, 4), th.uint8)
    assert (observations["vector"].shape, observations["vector"].dtype) == ((6, 3), th.float64)
