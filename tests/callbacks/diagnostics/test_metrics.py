"""Metrics, compared with numbers that were computed by hand, by loops or by other libraries."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from scipy import stats

from sb3_dqn_ext.callbacks.diagnostics.metrics import (
    action_gap,
    age_group_means,
    calibration_metrics,
    changed_share,
    discounted_returns,
    dormant_share,
    effective_rank,
    effective_sample_size,
    error_metrics,
    largest_weight,
    parameter_distance,
    unit_scores,
    value_metrics,
)
from sb3_dqn_ext.callbacks.diagnostics.visits import count_visits

Q = np.array([[1.0, 3.0, 2.0], [-1.0, -4.0, 0.0]])


def test_values_are_summed_up() -> None:
    assert value_metrics(Q) == {"mean": 1.5, "min": -4.0, "max": 3.0, "spread": (2 + 4) / 2}


def test_the_action_gap_is_between_the_best_two() -> None:
    assert action_gap(Q) == (1 + 1) / 2
    assert action_gap(np.array([[5.0, 5.0]])) == 0
    q = np.random.default_rng(0).normal(size=(40, 9))
    assert action_gap(q) == pytest.approx(np.mean([sorted(of_state)[-1] - sorted(of_state)[-2] for of_state in q]))


def test_churn_is_the_share_that_changed() -> None:
    assert changed_share(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 0])) == 0.5


def test_the_distance_is_over_all_parameters_at_once() -> None:
    assert parameter_distance([th.zeros(2), th.ones(1, 2)], [th.tensor([3.0, 0.0]), th.tensor([[1.0, 5.0]])]) == pytest.approx(
        5.0
    )


def test_errors_are_summed_up() -> None:
    errors = np.array([1.0, -3.0, 0.0, 2.0])
    found = error_metrics(errors)
    assert found["mean"] == 0
    assert found["std"] == pytest.approx(math.sqrt(14 / 4))
    assert (found["abs_mean"], found["abs_max"]) == (1.5, 3)
    assert found["abs_p95"] == pytest.approx(2 + 0.85)  # between the third and the fourth of four


def test_sizes_are_split_by_age() -> None:
    sizes, ages = np.array([1.0, 2.0, 3.0, 10.0]), np.array([0, 24, 25, 99])
    assert age_group_means(sizes, ages, span=100, n_parts=4) == [1.5, 3.0, None, 10.0]


@pytest.mark.parametrize(("weights", "size"), [([1, 1, 1, 1], 4.0), ([1, 0, 0], 1.0), ([3, 1], 16 / 10)], ids=str)
def test_the_effective_sample_size_is_that_of_kish(weights: list[float], size: float) -> None:
    assert effective_sample_size(np.array(weights, dtype=float)) == pytest.approx(size)


def test_the_largest_weight_is_that_of_the_paper() -> None:
    priorities, copies = np.array([1.0, 2.0, 5.0]), np.ones(3)
    probabilities = priorities / 8
    assert largest_weight(priorities, copies, 0.5) == pytest.approx(max((1 / (3 * p)) ** 0.5 for p in probabilities))
    # two copies of the last: as if it were there twice
    probabilities = np.array([1.0, 2.0, 5.0, 5.0]) / 13
    doubled = largest_weight(priorities, np.array([1.0, 1.0, 2.0]), 0.5)
    assert doubled == pytest.approx(max((1 / (4 * p)) ** 0.5 for p in probabilities))


def test_units_are_dormant_that_say_little_beside_their_layer() -> None:
    said = th.tensor([[4.0, 0.0, -1.0], [4.0, 0.1, 1.0]])  # means of sizes 4, 0.05, 1
    scores = unit_scores(said)
    np.testing.assert_allclose(scores, np.array([4, 0.05, 1]) / (5.05 / 3), rtol=1e-6)
    assert dormant_share([scores], 0.025) == 0
    assert dormant_share([scores], 0.03) == pytest.approx(1 / 3)
    assert dormant_share([scores, np.array([0.0])], 0.03) == 0.5


def test_a_channel_is_a_unit() -> None:
    images = th.zeros(2, 3, 4, 4)
    images[:, 0] = 1
    images[0, 1, 2, 2] = 32
    np.testing.assert_allclose(unit_scores(images), [1.5, 1.5, 0])


def test_a_layer_that_is_silent_is_dormant_as_a_whole() -> None:
    assert dormant_share([unit_scores(th.zeros(5, 4))], 0.025) == 1


@pytest.mark.parametrize(
    ("values", "rank"), [([1, 1, 1], 3), ([99, 1, 0], 1), ([98, 1.5, 0.5], 2), ([0, 0, 0], 0), ([5, 0, 0], 1)], ids=str
)
def test_the_feature_rank_counts_what_holds_99_percent(values: list[float], rank: int) -> None:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in (8, 5))
    assert effective_rank(th.from_numpy(left @ np.diag(values) @ right.T), 0.01) == rank


def test_returns_are_discounted_up_to_the_last_value() -> None:
    rewards, last = np.array([1.0, -2.0, 4.0]), 10.0
    expected = [sum(0.5**k * r for k, r in enumerate(rewards[t:])) + 0.5 ** (3 - t) * last for t in range(3)]
    np.testing.assert_allclose(discounted_returns(rewards, 0.5, last), expected)


def test_calibration_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=203)
    realised = 0.7 * predicted + 2 + rng.normal(size=203)
    found = calibration_metrics(predicted, realised)
    line = stats.linregress(predicted, realised)
    assert found["slope"] == pytest.approx(line.slope)
    assert found["correlation"] == pytest.approx(line.rvalue)
    assert found["bias"] == pytest.approx(np.mean(predicted) - np.mean(realised))
    pairs = sorted(zip(realised, predicted, strict=True))
    lowest = [p - r for r, p in pairs[:41]]
    highest = [p - r for r, p in pairs[-40:]]
    assert found["error_1_of_5"] == pytest.approx(np.mean(lowest))
    assert found["error_5_of_5"] == pytest.approx(np.mean(highest))


def test_what_is_the_same_everywhere_has_no_slope() -> None:
    rising = np.arange(3.0)
    assert calibration_metrics(np.ones(3), rising).keys() == {"predicted", "realised", "bias"}
    assert "slope" not in calibration_metrics(1000 + rising * 1e-5, rising), "which is the rounding of a network"
    flat = calibration_metrics(rising, np.ones(3))
    assert flat["slope"] == 0
    assert "correlation" not in flat


def bins(points: Any, low: Any, high: Any, n: int) -> Any:
    return np.histogram2d(points[:, 0], points[:, 1], bins=n, range=[(low[i], high[i]) for i in range(2)])[0]


def test_the_grid_counts_as_numpy_does_and_grows_without_losing_a_point() -> None:
    rng = np.random.default_rng(1)
    counts, low, high = np.zeros((8, 8), dtype=np.int64), np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    seen = np.empty((0, 2))
    for spread in (0.5, 1.0, 30.0, 7.0):
        points = rng.uniform(-spread, spread / 2, size=(200, 2))
        seen = np.concatenate([seen, points])
        counts, low, high = count_visits(counts, low, high, points)
        np.testing.assert_array_equal(counts, bins(seen, low, high, 8))
    assert (low <= seen.min(axis=0)).all()
    assert (high >= seen.max(axis=0)).all()
    assert (high - low < 4 * (seen.max(axis=0) - seen.min(axis=0))).all(), "no larger than need be"


def test_points_that_are_not_finite_are_left_out() -> None:
    counts, low, high = np.zeros((4, 4), dtype=np.int64), np.zeros(2), np.ones(2)
    counts, low, high = count_visits(counts, low, high, np.array([[np.nan, 0.5], [0.5, np.inf], [1.0, 1.0]]))
    assert counts.sum() == counts[3, 3] == 1
