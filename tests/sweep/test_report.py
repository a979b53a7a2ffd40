"""The aggregates of a sweep, compared with rliable 1.2.0, which cannot be installed beside pandas 3."""

import numpy as np
import pytest

from sb3_dqn_ext.sweep.report import (
    difference_interval,
    improvement_interval,
    improvement_probability,
    iqm,
    stratified_interval,
)

# scores of 5 seeds in 2 environments
A = np.array([[1.0, 20.0], [2.0, 25.0], [4.0, 22.0], [3.0, 31.0], [9.0, 28.0]])
B = np.array([[0.0, 21.0], [2.0, 18.0], [1.5, 24.0], [3.5, 19.0], [2.5, 17.0]])


def test_aggregates_are_those_of_rliable() -> None:
    # metrics.aggregate_iqm and metrics.probability_of_improvement of rliable
    assert iqm(A.ravel()) == pytest.approx(13.833333333333334)
    assert iqm(B.ravel()) == pytest.approx(10.333333333333334)
    assert improvement_interval([*A.T], [*B.T], np.random.default_rng(0))[0] == pytest.approx(0.79)
    # library.get_interval_estimates with 50,000 resamples; ours has 2,000
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
