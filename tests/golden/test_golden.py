"""
Tests that other seeds learn as well as those that are recorded, and that two faults would be detected. They take 18 minutes of
processor time: ``make test-golden``.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.golden.curves import N_RUNS, Golden, golden_curves, lowest_mean, train
from tests.golden.faults import Hyperparameters, with_wrong_sign, without_learning
from tests.paths import ROOT

CURVES = golden_curves()
OTHER_SEEDS = range(10, 10 + N_RUNS)


def recorded(curve: Golden) -> float:
    """The bound for a mean of three runs; the record belongs to the hyperparameters of today."""
    assert len(curve.returns) == 10, "the hyperparameters have changed: python -m tests.golden.record"
    return lowest_mean(curve.returns)


def test_the_bound_is_three_standard_errors_of_a_mean_of_three_below_the_recorded_mean() -> None:
    # mean 4; deviations -3, -1, 4: variance (9 + 1 + 16) / 2 = 13
    assert lowest_mean(np.array([1.0, 3.0, 8.0])) == pytest.approx(4 - 3 * np.sqrt(13) / np.sqrt(3))


@pytest.mark.slow
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_other_seeds_learn_as_well_as_the_recorded_ones(
    curve: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    bound, returns = recorded(curve), train(curve.task, OTHER_SEEDS, tmp_path)
    assert returns.mean() >= bound, f"{returns} beside {curve.returns}"


@pytest.mark.slow
@pytest.mark.parametrize("fault", [without_learning, with_wrong_sign], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_a_fault_is_below_the_bound(
    curve: Golden,
    fault: Callable[[Hyperparameters], Hyperparameters],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)  # where the runs find the module of the fault
    faulty = replace(curve.task, hyperparameters=fault(curve.task.hyperparameters))
    bound, returns = recorded(curve), train(faulty, OTHER_SEEDS[:1], tmp_path)
    assert returns.mean() < bound, f"{returns} beside {curve.returns}"
