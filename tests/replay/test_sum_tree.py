"""The sum tree of priorities, compared with plain lists."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_dqn_ext.replay.sum_tree import SumTree

CHANGES = st.tuples(
    st.lists(st.integers(0, 99), min_size=1, max_size=8), st.integers(0, 5), st.sampled_from(["priorities", "copies"])
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(size=st.integers(1, 100), changes=st.lists(CHANGES, max_size=8), priority=st.integers(0, 5))
def test_the_tree_equals_a_list_of_all_copies(size: int, changes: list[Any], priority: int) -> None:
    tree = SumTree(size)
    priorities, copies = np.full(size, priority), np.ones(size, dtype=np.int64)
    tree[np.arange(size)] = float(priority)
    for positions, number, what in changes:
        indices = np.array(positions) % size
        numbers = (number + np.arange(len(indices))) % 6  # 0 to 5; the last value of a repeated index counts
        if what == "priorities":
            tree[indices] = numbers.astype(float)
            priorities[indices] = numbers
        else:
            tree.set_copies(indices, numbers + 1)
            copies[indices] = numbers + 1
        shares = priorities * copies  # integers, so that their sums are exact
        assert tree.total == shares.sum()
        if tree.total:
            assert tree.min_priority == priorities[priorities > 0].min()
            for offset in (0.0, 0.5):
                found = tree.find(np.arange(shares.sum()) + offset)
                np.testing.assert_array_equal(found, np.repeat(np.arange(size), shares))


@pytest.mark.parametrize("seed", range(10))
def test_no_index_with_priority_0_is_found_by_rounding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 3000))
    priorities = 10.0 ** rng.uniform(-12, 12, size=size) * (rng.random(size) < 0.3)
    priorities[rng.integers(size)] = 1.0
    tree = SumTree(size)
    tree[np.arange(size)] = priorities
    ends = np.cumsum(priorities)
    points = np.concatenate([ends, np.nextafter(ends, 0), [0.0, tree.total, 2 * tree.total]])
    assert (priorities[tree.find(points)] > 0).all()


def refresh(tree: SumTree) -> None:
    """Make the tree compute the sums of its changed blocks."""
    assert tree.total >= 0


def test_the_sums_do_not_drift_over_a_hundred_thousand_updates() -> None:
    rng = np.random.default_rng(0)
    size, expected = 500, np.zeros(500)
    tree = SumTree(size)
    indices, values = rng.integers(size, size=(100_000, 1)), 10.0 ** rng.uniform(-8, 8, size=(100_000, 1))
    for i in range(100_000):
        tree[indices[i]] = values[i]
        refresh(tree)
        expected[indices[i]] = values[i]
    assert tree.total == pytest.approx(math.fsum(expected), rel=1e-14)
    assert tree.min_priority == expected[expected > 0].min()
    tree[np.arange(1, size)] = 0.0
    assert tree.total == expected[0]
