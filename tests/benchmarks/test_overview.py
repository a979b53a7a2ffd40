"""Test the figure of the README: its curves and bars are those of the published tables."""

import numpy as np
import pytest

from benchmarks.overview import WORKLOADS, draw_overview
from benchmarks.speed.workloads import BY_NAME, LABELS
from tests.pages import table_rows
from tests.paths import ROOT

RESULTS = ROOT / "docs" / "results"


def test_the_bars_have_the_numbers_of_the_table() -> None:
    _, speed = draw_overview(RESULTS).axes
    drawn = [text.get_text() for text in speed.texts]
    compiled = [row for row in table_rows(RESULTS / "speed.md", "workload | DQNExt") if row[1] == LABELS["ours"]]
    for peer in ("sb3", "sbx"):
        for name in reversed(WORKLOADS):
            (ratio,) = [row[5] for row in compiled if row[0] == BY_NAME[name].title and row[2] == LABELS[peer]]
            assert float(drawn.pop(0)) == pytest.approx(float(ratio.split()[0]), abs=0.055), (name, peer)
    compared = {row[0] for row in compiled if row[2] == LABELS["sbx"]}
    assert compared == {BY_NAME[name].title for name in WORKLOADS}, "no comparison is left out"


def test_the_curves_have_the_evaluations_of_all_seeds() -> None:
    learning, _ = draw_overview(RESULTS).axes
    assert learning.get_title() == "CartPole-v1, 10 seeds"
    ours, theirs = learning.lines
    assert [line.get_label() for line in (ours, theirs)] == ["DQNExt", "SB3 DQN"]
    assert float(np.asarray(ours.get_xdata())[-1]) == 50_000
    assert float(np.asarray(ours.get_ydata())[-1]) > float(np.asarray(theirs.get_ydata())[-1])
