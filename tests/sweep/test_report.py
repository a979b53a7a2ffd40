"""The aggregates of a sweep, compared with rliable 1.2.0, which cannot be installed beside pandas 3."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from sb3_dqn_ext.sweep.report import (
    describe_rows,
    difference_interval,
    improvement_interval,
    improvement_probability,
    iqm,
    median,
    stratified_interval,
)
from sb3_dqn_ext.sweep.results import COLUMNS
from sb3_dqn_ext.sweep.spec import Evaluation, Spec, Task

# scores of 5 seeds in 2 environments
A = np.array([[1.0, 20.0], [2.0, 25.0], [4.0, 22.0], [3.0, 31.0], [9.0, 28.0]])
B = np.array([[0.0, 21.0], [2.0, 18.0], [1.5, 24.0], [3.5, 19.0], [2.5, 17.0]])


def test_aggregates_are_those_of_rliable() -> None:
    # metrics.aggregate_iqm and metrics.probability_of_improvement of rliable
    assert iqm(A.ravel()) == pytest.approx(13.833333333333334)
    assert iqm(B.ravel()) == pytest.approx(10.333333333333334)
    assert improvement_interval([*A.T], [*B.T], np.random.default_rng(0))[0] == pytest.approx(0.79)
    # library.get_interval_estimates with 50,000 resamples; ours has 9,999
    assert stratified_interval([*A.T], iqm, np.random.default_rng(0)) == pytest.approx((11.66666667, 16.83333333), abs=0.35)
    assert stratified_interval([*B.T], iqm, np.random.default_rng(0)) == pytest.approx((9.58333333, 11.75), abs=0.2)


def test_ties_count_half_in_the_probability_of_improvement() -> None:
    assert improvement_probability(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == (0.5 + 1 + 1 + 1) / 4


def test_the_interval_of_a_difference_is_above_zero_only_if_scores_are_apart() -> None:
    rng = np.random.default_rng(0)
    low, high = difference_interval(rng.normal(10, 1, 5), rng.normal(0, 1, 5))
    assert 7 < low < 10 < high < 13
    low, high = difference_interval(rng.normal(0, 1, 5), rng.normal(0, 1, 5))
    assert low < 0 < high
    assert difference_interval(np.array([1.0]), np.array([3.0])) == (-2, -2)


def row(variant: str, seed: int, **cells: str) -> dict[str, str]:
    return dict.fromkeys(COLUMNS, "") | {"env": "a", "variant": variant, "seed": str(seed), "n": "", "text": "x"} | cells


def test_measured_columns_have_medians_and_differences_and_cells_may_be_empty() -> None:
    tasks = tuple(Task("a", variant, seed, "dqn", {}, Evaluation(), 1) for variant in ("one", "two") for seed in range(3))
    spec = Spec(Path("spec.yml"), "A title", Path("spec.csv"), tasks)
    rows = [row("one", seed, n=n) for seed, n in enumerate(("1000", "1200.5", ""))]
    rows += [row("two", seed, n=n, score="5", steps="10") for seed, n in enumerate(("7", "inf", "inf"))]
    title, command, scores, measured = describe_rows(spec, rows).split("\n\n")
    assert (title, command) == ("# A title", "`python -m sb3_dqn_ext.sweep spec.yml`")
    assert scores.splitlines()[2:] == ["| a | two | 3 | 5.00 | 5.00 to 5.00 | 5.00 to 5.00 | 10 |  |  |"]
    one, two = measured.splitlines()[2:]
    assert one == "| a | n | one | 2 | 1,100.25 (1,000 to 1,200.5) |  |  |"
    assert two == "| a | n | two | 3 | inf (7 to inf) | inf | -1,193.5 to inf |"


def test_the_interval_of_a_difference_of_medians_is_that_of_scipy() -> None:
    first, second = np.array([11.0, 13.0, 15.0, 16.0]), np.array([10.0, 12.0, 14.0, 20.0])
    theirs = bootstrap(
        (first, second),
        lambda a, b, axis=-1: np.median(a, axis=axis) - np.median(b, axis=axis),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert difference_interval(first, second, median) == pytest.approx(tuple(theirs))
