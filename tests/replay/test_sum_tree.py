"""The sum tree of priorities against plain lists."""

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
@given(size=st.integers(1, 100), changes=st.lists(CHANGES, max_size=8), whole=st.integers(0, 5))
def test_the_tree_finds_what_a_plain_list_of_all_copies_holds(size: int, changes: list[Any], whole: int) -> None:
    tree = SumTree(size)
    priorities, copies = np.full(size, whole), np.ones(size, dtype=np.int64)
    tree[np.arange(size)] = float(whole)
    for places, number, what in changes:
        cells = np.array(places) % size
        numbers = (number + np.arange(len(cells))) % 6  # 0 to 5; the last one of a cell counts
        if what == "priorities":
            tree[cells] = numbers.astype(float)
            priorities[cells] = numbers
        else:
            tree.set_copies(cells, numbers + 1)
            copies[cells] = numbers + 1
        shares = priorities * copies  # whole numbers: sums of them are exact
        assert tree.total == shares.sum()
        if tree.total:
            assert tree.min_priority == priorities[priorities > 0].min()
            for within in (0.0, 0.5):
                found = tree.find(np.arange(shares.sum()) + within)
                np.testing.assert_array_equal(found, np.repeat(np.arange(size), shares))


@pytest.mark.parametrize("seed", range(10))
def test_rounding_leads_to_no_cell_that_cannot_be_replayed(seed: int) -> None:
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
    """Compute the sums of the changed blocks."""
    assert tree.total >= 0


def test_the_sums_do_not_drift_over_a_hundred_thousand_updates() -> None:
    rng = np.random.default_rng(0)
    size, now = 500, np.zeros(500)
    tree = SumTree(size)
    cells, values = rng.integers(size, size=(100_000, 1)), 10.0 ** rng.uniform(-8, 8, size=(100_000, 1))
    for i in range(100_000):
        tree[cells[i]] = values[i]
        refresh(tree)
        now[cells[i]] = values[i]
    assert tree.total == pytest.approx(math.fsum(now), rel=1e-14)
    assert tree.min_priority == now[now > 0].min()
    tree[np.arange(1, size)] = 0.0
    assert tree.total == now[0]
