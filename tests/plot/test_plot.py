"""Tests of the figures of a real run, and of their numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.plot import (
    Curve,
    bootstrap_interval,
    evaluations,
    interquartile_mean,
    plot_run,
    plot_scores,
    plot_seeds,
    rolling_mean,
    training_episodes,
)


def is_picture(figure: Figure, path: Path) -> bool:
    figure.savefig(path)
    pixels = imread(path)
    return len(np.unique(pixels.reshape(-1, 4), axis=0)) > 10


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    env = make_vec_env("CartPole-v1", n_envs=2, seed=0, monitor_dir=str(folder))
    evaluate = EvalCallback(make_vec_env("CartPole-v1"), eval_freq=100, n_eval_episodes=3, log_path=str(folder), verbose=0)
    DQNExt("MlpPolicy", env, learning_starts=50, device="cpu").learn(600, callback=evaluate)
    env.close()
    return folder


def test_a_run_has_the_numbers_of_its_files(run_folder: Path) -> None:
    lines = [line for path in run_folder.glob("*.monitor.csv") for line in path.read_text().splitlines()[2:]]
    by_end = sorted((float(line.split(",")[2]), float(line.split(",")[0]), int(line.split(",")[1])) for line in lines)
    curve = training_episodes(run_folder)
    assert sorted(curve.returns[:, 0]) == sorted(episode[1] for episode in by_end)
    assert curve.steps[-1] == sum(episode[2] for episode in by_end)
    evaluated = evaluations(run_folder)
    assert evaluated.steps.tolist() == [200, 400, 600]
    assert evaluated.returns.shape == (3, 3)


def test_a_run_becomes_a_picture(run_folder: Path, tmp_path: Path) -> None:
    assert is_picture(plot_run(run_folder), tmp_path / "run.png")


def test_several_seeds_become_a_picture_with_their_interquartile_means(tmp_path: Path) -> None:
    steps = np.array([10, 20])
    returns = np.array([[0.0, 5.0], [1.0, 5.0], [3.0, 6.0], [100.0, 7.0]])
    figure = plot_seeds({"ours": Curve(steps, returns), "theirs": Curve(steps, returns + 1)}, "title")
    assert is_picture(figure, tmp_path / "seeds.png")
    drawn = figure.axes[0].get_lines()[0].get_ydata()
    np.testing.assert_allclose(np.asarray(drawn), [2.0, 5.5])  # the mean of the middle two of four


def test_a_rolling_mean_equals_a_loop() -> None:
    values = np.random.default_rng(0).normal(size=50)
    expected = [values[max(0, i - 6) : i + 1].mean() for i in range(50)]
    np.testing.assert_allclose(rolling_mean(values, 7), expected)


def test_the_bootstrap_interval_contains_the_true_value_as_often_as_its_confidence_level() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(size=(20, 1)))
        hits.append(low[0] <= 0 <= high[0])
    assert 0.88 <= np.mean(hits) <= 0.99
    assert interquartile_mean(np.array([1.0, 2.0, 3.0, 1000.0])) == 2.5


def test_the_bootstrap_interval_is_that_of_a_loop_over_draws() -> None:
    rng = np.random.default_rng(1)
    returns = rng.normal(size=(9, 3)).cumsum(axis=0)
    means = []
    for _ in range(4000):
        ordered = np.sort(returns[rng.integers(9, size=9)], axis=0)
        means.append(ordered[2:-2].mean(axis=0))  # a quarter of nine, rounded down, from each end
    expected = np.quantile(means, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(bootstrap_interval(returns), expected, atol=0.15)
    np.testing.assert_allclose(bootstrap_interval(returns, 0.5), np.quantile(means, [0.25, 0.75], axis=0), atol=0.15)


def test_a_single_run_is_drawn_without_an_interval() -> None:
    curves = {"one": Curve(np.arange(3), np.ones((1, 3))), "many": Curve(np.arange(3), np.eye(4)[:, :3])}
    (axes,) = plot_seeds(curves, "title").axes
    assert len(axes.get_lines()) == 2
    assert len(axes.collections) == 1
    legend: Any = axes.get_legend()
    assert legend.get_title().get_text() == "interquartile mean of 1 to 4 seeds, 95 % interval"


def test_bars_of_scores_are_interquartile_means_with_a_point_for_each_run(tmp_path: Path) -> None:
    scores = {"ours": np.array([100.0, 0.0, 3.0, 1.0]), "theirs, of which there is one only": np.array([-7.0])}
    figure = plot_scores(scores, "title")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [2.0, -7.0]  # type: ignore[attr-defined]
    assert len({bar.get_hatch() for bar in axes.patches}) == 2
    points = [np.asarray(line.get_xdata()).tolist() for line in axes.get_lines() if line.get_marker() == "o"]
    assert points == [[100.0, 0.0, 3.0, 1.0], [-7.0]]
    interval: Any = axes.containers[1]
    ends = interval[2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(ends, np.ravel(bootstrap_interval(scores["ours"][:, None])))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ours (4)", "theirs, of which there is one only (1)"]
    assert is_picture(figure, tmp_path / "scores.png")
