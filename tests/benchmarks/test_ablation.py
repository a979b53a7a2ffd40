"""Tests of the figure of what each part adds, on rows whose differences are computed by hand."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.ablation import draw_ablation, effects
from sb3_dqn_ext.sweep import Spec, read_spec

SPEC = """
envs: [CartPole-v1]
seeds: 0-3
hyperparameters: {n_timesteps: 10}
variants: {default: {}, without double: {}, with noise: {}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    (tmp_path / "spec.yml").write_text(SPEC)
    return read_spec(tmp_path / "spec.yml")


def rows(scores: dict[str, list[float]]) -> list[dict[str, str]]:
    return [
        {"env": "CartPole-v1", "variant": variant, "seed": str(seed), "score": str(score)}
        for variant, numbers in scores.items()
        for seed, score in enumerate(numbers)
    ]


def test_an_effect_is_the_score_with_the_part_less_the_one_without_it(spec: Spec) -> None:
    # interquartile means of four numbers: the mean of the two in the middle
    measured = rows({"default": [5, 7, 9, 100], "without double": [2, 2, 2, 2], "with noise": [3, 5, 5, 5]})
    double, noise = effects(spec, measured)
    assert double[:3] == ("double", True, 8 - 2)
    assert noise[:3] == ("noise", False, 5 - 8)
    assert double.low <= double.difference <= double.high
    assert list(effects(spec, [])) == []


def test_bars_are_in_the_order_of_the_effects(spec: Spec) -> None:
    figure = draw_ablation([(spec, rows({"default": [8] * 4, "without double": [2] * 4, "with noise": [5] * 4}))])
    (axes,) = figure.axes
    bars: list[Any] = list(axes.patches)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["noise", "double"]
    assert [bar.get_width() for bar in bars] == [-3, 6]
