"""Diagnostics without a chosen interval measure in runs of any length."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    DiagnosticsCallback,
    EpisodeVideoCallback,
    ExactCheckpointCallback,
    QValuesCallback,
    ValueCalibrationCallback,
)
from sb3_dqn_ext.callbacks.diagnostics.base import DefaultRate, Diagnostic
from tests.callbacks.diagnostics.helpers import At, build, networks_of, ours, poles, shown
from tests.parity import assert_same, assert_same_model, learn
from tests.paths import ROOT

METRICS, CALIBRATIONS, FILMS = (
    callback.default_rate for callback in (QValuesCallback, ValueCalibrationCallback, EpisodeVideoCallback)
)


class Steps(Diagnostic):
    """Records the steps at which it measures, and logs them."""

    group = "steps"

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every)
        self.steps: list[int] = []

    def _measure(self) -> None:
        self.steps.append(self.num_timesteps)
        self._record({"step": self.num_timesteps})


@pytest.mark.parametrize(
    ("rate", "total", "interval", "n_measurements"),
    [
        (METRICS, 2_000, 200, 10),
        (METRICS, 50_000, 5_000, 10),
        (METRICS, 200_000, 10_000, 20),
        (METRICS, 1_000_000, 25_000, 40),
        (METRICS, 10_000_000, 250_000, 40),
        (METRICS, 100_000_000, 250_000, 400),
        (CALIBRATIONS, 2_000, 1_000, 2),
        (CALIBRATIONS, 50_000, 25_000, 2),
        (CALIBRATIONS, 1_000_000, 125_000, 8),
        (CALIBRATIONS, 10_000_000, 1_250_000, 8),
        (FILMS, 2_000, 2_000, 1),
        (FILMS, 50_000, 50_000, 1),
        (FILMS, 1_000_000, 1_000_000, 1),
        (FILMS, 10_000_000, 2_500_000, 4),
        (METRICS, 3, 1, 3),
    ],
)
def test_the_interval_follows_from_the_length_of_the_run(
    rate: DefaultRate, total: int, interval: int, n_measurements: int
) -> None:
    assert rate.interval(total) == interval
    assert total // interval == n_measurements


@pytest.mark.parametrize("rate", [METRICS, CALIBRATIONS, FILMS])
def test_long_runs_are_never_measured_more_often_than_is_cheap(rate: DefaultRate) -> None:
    intervals = [rate.interval(total) for total in range(1, 20_000_000, 9_973)]
    assert intervals == sorted(intervals)
    long = rate.interval(rate.min_interval * rate.min_measurements)
    assert long == rate.min_interval == rate.interval(0), "the interval of a run of unknown length, too"


def test_a_run_of_2000_steps_shows_everything(algorithm: Any, tmp_path: Path) -> None:
    steps = Steps()
    model = build(algorithm, DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1", max_episode_steps=50))]))
    callback = [steps, DiagnosticsCallback(video={"folder": tmp_path, "max_steps": 8})]
    rows = learn(model, 2000, callback=callback).rows
    assert steps.steps == list(range(200, 2001, 200))
    for key in ("values/mean", "errors/mean", "replay/size", "network/weight_norm", "exploration/exploratory"):
        assert sum(key in row for row in rows) >= 9, key
    assert sum("calibration/bias" in row for row in rows) == 2
    assert all(isinstance(row["calibration/scatter"], Image) for row in rows if "calibration/bias" in row)
    assert [film.name for film in (tmp_path / "videos").iterdir()] == ["step_2000.mp4"]


def test_the_end_of_the_run_is_logged_although_no_episode_ends() -> None:
    env = DummyVecEnv([lambda: Monitor(gym.make("MountainCar-v0", max_episode_steps=1000))])
    assert [row for row in learn(build(DQN, env), 300, callback=QValuesCallback(100)).rows if "values/mean" in row] == []
    callbacks = [QValuesCallback(), ValueCalibrationCallback(max_steps=10)]
    (row,) = learn(build(DQN, env), 300, callback=callbacks).rows
    assert {"values/mean", "calibration/bias", "calibration/scatter"} <= row.keys()


def test_a_run_in_parts_counts_the_steps_of_all_parts() -> None:
    steps = Steps()
    model = build(DQN)
    learn(model, 100, callback=steps)
    assert steps.steps == list(range(10, 101, 10))
    learn(model, 100, callback=steps, reset_num_timesteps=False)
    assert steps.steps[10:] == [120, 140, 160, 180, 200]


def test_several_environments_are_measured_as_often() -> None:
    steps = Steps()
    learn(build(DQN, poles(3)), 300, callback=steps)
    assert steps.steps == list(range(30, 301, 30))


class Stop(Exception):
    """Ends a run."""


def test_a_resumed_run_logs_at_the_same_steps(tmp_path: Path) -> None:
    def callbacks(folder: Path) -> list[BaseCallback]:
        return [Steps(), DiagnosticsCallback(calibration={"n_episodes": 2}), ExactCheckpointCallback(150, folder)]

    def stop(model: Any) -> None:
        raise Stop

    whole = build(DQNExt)
    rows = shown(learn(whole, 400, callback=callbacks(tmp_path / "whole")).rows)
    with pytest.raises(Stop):
        learn(build(DQNExt), 400, callback=[*callbacks(tmp_path / "part"), At(170, stop)])
    resumed = build(DQNExt).resume(tmp_path / "part")
    rest = shown(learn(resumed, 400, callback=callbacks(tmp_path / "part")).rows)
    assert_same(rest, rows[len(rows) - len(rest) :], "logged")
    assert_same_model(resumed, whole)
    assert {row["steps/step"] for row in rest if "steps/step" in row} <= set(range(160, 401, 40))
    assert ours(rest)["calibration/bias"] == ours(rows)["calibration/bias"]
    assert 0 < len(rest) < len(rows)


def films(folder: Path) -> list[str]:
    return sorted(film.name for film in (folder / "videos").iterdir())


@pytest.mark.parametrize(
    ("every", "expected"), [(None, ["step_70.mp4"]), (40, ["step_40.mp4"])], ids=["default", "as often as chosen"]
)
def test_a_run_that_a_callback_stops_has_a_film_of_its_end(every: int | None, expected: list[str], tmp_path: Path) -> None:
    class AtStep70(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps < 70

    model = build(DQN)
    callback = DiagnosticsCallback(every=10, calibration=False, video={"every": every, "folder": tmp_path, "max_steps": 8})
    rows = learn(model, 100, callback=[callback, AtStep70()]).rows
    assert films(tmp_path) == expected
    assert ("video/return" in ours(rows)) == (every is not None)


def test_a_run_whose_last_rollout_is_longer_has_one_film_of_its_end(tmp_path: Path) -> None:
    model = build(DQN, train_freq=16)
    learn(model, 40, callback=EpisodeVideoCallback(folder=tmp_path, max_steps=8))
    assert model.num_timesteps == 48
    assert films(tmp_path) == ["step_40.mp4"]


def test_a_run_that_an_error_ends_has_no_film_of_its_end(tmp_path: Path) -> None:
    def stop(model: Any) -> None:
        raise Stop

    callback = EpisodeVideoCallback(folder=tmp_path, max_steps=8)
    with pytest.raises(Stop):
        learn(build(DQN), 100, callback=[callback, At(70, stop)])
    callback.on_training_end()  # as the RL Zoo does
    assert films(tmp_path) == []


def test_the_film_of_the_end_draws_no_number_of_training(tmp_path: Path) -> None:
    states = []
    for callback in ([], [EpisodeVideoCallback(folder=tmp_path, max_steps=8)]):
        model = build(DQN)
        learn(model, 60, callback=callback)
        states.append([parameter.detach().numpy().copy() for parameter in networks_of(model)[0].parameters()])
        states[-1].append(np.random.rand(3))
    assert_same(states[1], states[0], "weights and the next random numbers")


def test_the_page_shows_the_intervals() -> None:
    _, table = (ROOT / "docs" / "diagnostics.md").read_text().split("| steps of the run ")
    totals, _, *rows = (
        [int(cell.replace(",", "")) for cell in line.split("|")[-5:-1] if "-" not in cell] for line in table.splitlines()[:5]
    )
    assert rows == [[rate.interval(total) for total in totals] for rate in (METRICS, CALIBRATIONS, FILMS)]
