"""Sets of indices, compared with Python's sets."""

import numpy as np

from sb3_dqn_ext.replay.index_set import IndexSet


def test_an_index_set_equals_a_python_set() -> None:
    rng = np.random.default_rng(0)
    ours: IndexSet = IndexSet(60)
    theirs: set[int] = set()
    for _ in range(1000):
        indices = rng.permutation(60)[:3]
        if rng.random() < 0.5:
            ours.add(indices)
            theirs |= set(indices.tolist())
        else:
            ours.discard(indices)
            theirs -= set(indices.tolist())
        assert sorted(ours.array.tolist()) == sorted(theirs)
