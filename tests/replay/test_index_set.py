"""Sets of indices against sets of Python."""

import numpy as np

from sb3_dqn_ext.replay.index_set import IndexSet


def test_a_set_of_cells_keeps_what_a_python_set_keeps() -> None:
    rng = np.random.default_rng(0)
    ours: IndexSet = IndexSet(60)
    theirs: set[int] = set()
    for _ in range(1000):
        cells = rng.permutation(60)[:3]
        if rng.random() < 0.5:
            ours.add(cells)
            theirs |= set(cells.tolist())
        else:
            ours.discard(cells)
            theirs -= set(cells.tolist())
        assert sorted(ours.array.tolist()) == sorted(theirs)
