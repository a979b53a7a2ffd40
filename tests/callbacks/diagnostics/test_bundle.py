"""The base class of diagnostics, and DiagnosticsCallback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    DiagnosticsCallback,
    EpisodeVideoCallback,
    ExplorationCallback,
    NetworkHealthCallback,
    QValuesCallback,
    ReplayHealthCallback,
    TDErrorsCallback,
    ValueCalibrationCallback,
)
from sb3_dqn_ext.callbacks.diagnostics import base
from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.errors import ArgumentError
from tests.callbacks.diagnostics.helpers import (
    At,
    build,
    everything,
    generators,
    is_observed,
    networks_of,
    ours,
    poles,
    shown,
    states_of,
    theirs,
    visits_of,
)
from tests.parity import assert_same, assert_same_model, learn


def wrong(**arguments: Any) -> Any:
    """Return arguments of types that a type checker refuses."""
    return arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QValuesCallback(every=0), "every=0 must be a whole number"),
        (lambda: QValuesCallback(**wrong(batch_size=0.5)), r"batch_size=0\.5"),
        (lambda: ValueCalibrationCallback(n_episodes=0), "n_episodes=0"),
        (lambda: ValueCalibrationCallback(**wrong(deterministic="no")), "deterministic='no' must be True or False"),
        (lambda: EpisodeVideoCallback(skip=0), "skip=0"),
        (lambda: DiagnosticsCallback(every=0), "every=0 must be a whole number"),
        (lambda: DiagnosticsCallback(**wrong(values=3)), "values=3 must be True, False or a mapping"),
        (lambda: DiagnosticsCallback(values=None), "values=None must be True, False or a mapping"),
        (lambda: DiagnosticsCallback(errors={"evry": 3}), "errors has no argument 'evry'.* Did you mean 'every'"),
    ],
    ids=["every", "batch_size", "n_episodes", "deterministic", "skip", "every of all", "no choice", "none", "no argument"],
)
def test_a_wrong_argument_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_parts_measure_at_the_common_rate_unless_they_have_their_own() -> None:
    parts = DiagnosticsCallback(every=70, network={"every": 30}, errors={"batch_size": 8}, video=True).callbacks
    every = {type(part): part.every for part in parts if isinstance(part, Diagnostic)}
    assert [every.pop(kind) for kind in (QValuesCallback, TDErrorsCallback, ReplayHealthCallback)] == [70, 70, 70]
    assert [every.pop(kind) for kind in (NetworkHealthCallback, ExplorationCallback)] == [30, 70]
    assert every == {ValueCalibrationCallback: None, EpisodeVideoCallback: None}


def test_a_chosen_interval_longer_than_the_run_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match="EpisodeVideoCallback measures every 21 environment steps, and the run ends after 20: give it a sm"
    ):
        learn(build(DQN), 20, callback=EpisodeVideoCallback(21, folder=tmp_path))
    model = build(DQN)
    learn(model, 21, callback=QValuesCallback(21))
    learn(model, 5, callback=QValuesCallback(21), reset_num_timesteps=False)


def test_other_algorithms_are_refused() -> None:
    with pytest.raises(ArgumentError, match="QValuesCallback needs a DQN or QRDQN, not A2C"):
        A2C("MlpPolicy", "CartPole-v1", device="cpu").learn(10, callback=QValuesCallback())


def test_nothing_is_logged_while_the_replay_buffer_is_empty(algorithm: Any) -> None:
    rows = learn(build(algorithm), 20, callback=everything(every=1, calibration=False)).rows
    first = ours(rows[:1])
    assert "values/mean" in first, "once there is something"
    callback = [
        QValuesCallback(1),
        TDErrorsCallback(1),
        ReplayHealthCallback(1),
        NetworkHealthCallback(1),
        ExplorationCallback(1),
    ]
    model = build(algorithm)
    seen: list[list[str]] = []
    learn(model, 1, callback=[*callback, At(1, lambda model: seen.append(sorted(model.logger.name_to_value)))])
    assert all(not key.startswith(("values", "errors", "replay")) for key in seen[0])


def test_pictures_are_drawn_for_those_who_can_show_them(tmp_path: Path) -> None:
    """Text formats get numbers only, and TensorBoard gets histograms and pictures, too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = build(DQN, DummyVecEnv([lambda: Monitor(gym.make("MountainCar-v0", max_episode_steps=30))]))
    model.set_logger(configure(str(tmp_path), ["csv", "json", "log", "tensorboard"]))
    model.learn(200, callback=everything(), log_interval=1)
    model.logger.close()
    board = EventAccumulator(str(tmp_path)).Reload().Tags()
    assert set(board["images"]) == {"calibration/scatter", "exploration/visited"}
    assert {"values/histogram", "errors/histogram", "replay/ages", "replay/rewards", "exploration/actions"} == set(
        board["histograms"]
    )
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert "errors/age_1_of_4" in header
    assert not set(header) & {*board["images"], *board["histograms"]}
    table = (tmp_path / "log.txt").read_text()
    assert "abs_mean" in table
    assert "norm_of" not in table, "not shown: it would be many lines"
    assert [type(output).__name__ for output in model.logger.output_formats] == [
        "CSVOutputFormat",
        "JSONOutputFormat",
        "HumanOutputFormat",
        "TensorBoardOutputFormat",
    ], "none of ours is left"


class Distribution(Diagnostic):
    """A diagnostic with a histogram, which records the steps at which it is logged."""

    group = "noted"

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self.steps: list[int] = []
        self.histograms: list[int] = []

    def _measure(self) -> None:
        self.logger.name_to_value.pop("noted/histogram", None)
        self._record_histogram("histogram", np.ones(3))
        self.steps.append(self.num_timesteps)
        if "noted/histogram" in self.logger.name_to_value:
            self.histograms.append(self.num_timesteps)


@pytest.mark.parametrize(
    ("n_envs", "every", "steps"), [(1, 10, [10, 50, 90]), (3, 10, [12, 51, 90]), (16, 10, [16, 64, 112])], ids=str
)
def test_histograms_are_logged_at_each_fourth_measurement(n_envs: int, every: int, steps: list[int]) -> None:
    """With many environments, a step can be longer than the interval: histograms are logged as often."""
    distribution, model = Distribution(every), build(DQN, poles(n_envs))
    learn(model, 60, callback=distribution)
    learn(model, 60, callback=distribution, reset_num_timesteps=False)
    assert distribution.histograms == steps
    assert len(distribution.steps) > 2 * len(steps)
    learn(model, 20, callback=distribution)
    assert distribution.histograms[3:] == steps[:1], "the first measurement of another run"


def test_nothing_is_drawn_for_texts(tmp_path: Path) -> None:
    class Undrawn(ValueCalibrationCallback):
        def _draw(self, data: Any) -> Any:
            raise AssertionError

    model = build(DQN)
    model.set_logger(configure(str(tmp_path), ["csv", "json", "log"]))
    model.learn(90, callback=Undrawn(60, 1), log_interval=1)
    model.logger.close()
    assert "calibration/bias" in (tmp_path / "progress.csv").read_text()


def test_one_callback_can_be_used_for_run_after_run(algorithm: Any) -> None:
    callback = everything()
    first, again = (learn(build(algorithm), 130, callback=callback) for _ in range(2))
    assert_same(shown(again.rows), shown(first.rows), "logged")


@pytest.mark.parametrize("algorithm", [DQN, DQNExt], ids=["DQN", "DQNExt"])
def test_a_run_that_broke_off_leaves_the_next_one_alone(algorithm: Any) -> None:
    def interrupt(model: Any) -> None:
        raise KeyboardInterrupt

    ends: list[tuple[Any, Any, Any]] = []
    of_runs: list[list[BaseCallback]] = [[], [everything(network={"every": 100})]]
    for callback in of_runs:
        model = build(algorithm)
        with pytest.raises(KeyboardInterrupt):
            learn(model, 200, callback=[*callback, At(99, interrupt)])  # while gradients are observed
        rows = learn(model, 60, callback=callback, reset_num_timesteps=False).rows
        rows += learn(model, 150, callback=callback).rows
        rows += learn(model, 20).rows
        ends.append((model, theirs(rows), generators(model)))
    assert_same_model(ends[1][0], ends[0][0])
    assert_same(ends[1][1:], ends[0][1:], "logged and drawn")
    assert ours(rows)["network/gradient_norm"] > 0
    assert not is_observed(model.replay_buffer)
    assert not any(one._post_accumulate_grad_hooks for one in model.q_net.parameters())


def test_a_run_in_parts_is_one_run(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has one measurement; the states are those of the first part, and the visits those of all parts."""
    monkeypatch.setattr(base, "HISTOGRAM_PERIOD", 1)  # at each measurement
    values, visits = QValuesCallback(50), ExplorationCallback(50)
    model = build(algorithm, DummyVecEnv([lambda: Monitor(gym.make("MountainCar-v0", max_episode_steps=30))]))
    learn(model, 60, callback=[values, visits])
    states = states_of(values).copy()
    rows = learn(model, 60, callback=[values, visits], reset_num_timesteps=False).rows
    assert 0 <= ours(rows)["values/churn"] <= 1
    np.testing.assert_array_equal(states_of(values), states)
    assert visits_of(visits)[0].sum() == 99
    assert ours(rows)["exploration/actions"].shape == (50,), "ten of them are of the first part"
    other = build(algorithm)
    learn(other, 10)
    learn(other, 60, callback=values, reset_num_timesteps=False)
    assert states_of(values).shape[1:] == (4,), "another model has other states"


def test_a_callback_that_holds_them_need_not_tell_them_that_the_run_is_over() -> None:
    """SB3's EveryNTimesteps does not pass on the end of a run."""
    callback, ends = everything(), []
    of_runs: list[list[Any]] = [[None, None], [EveryNTimesteps(20, callback), callback]]
    for callbacks in of_runs:
        model = build(DQN)
        rows = [learn(model, 100, callback=one, reset_num_timesteps=False).rows for one in callbacks]
        ends.append((model, theirs(rows[0] + rows[1])))
    assert_same_model(ends[1][0], ends[0][0])
    assert_same(ends[1][1], ends[0][1], "logged")
    for of_run in rows:
        assert {"values/mean", "calibration/bias"} <= ours(of_run).keys()
    assert "_get_samples" not in vars(model.replay_buffer)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_network_that_has_diverged_is_measured_without_an_error(algorithm: Any, value: float) -> None:
    def diverge(model: Any) -> None:
        with th.no_grad():
            for parameter in networks_of(model)[0].parameters():
                parameter.fill_(value)

    model = build(algorithm, learning_starts=10**6)
    found = ours(learn(model, 90, callback=[At(50, diverge), everything(values={"every": 60})]).rows)
    assert not np.isfinite(found["values/mean"])
    assert "values/histogram" not in found
    assert not np.isfinite(found["calibration/bias"])
    assert not np.isfinite(found["network/weight_norm"])
    assert found["calibration/scatter"].image.shape == (464, 464, 3)


class Tables(th.nn.Module):
    """A Q-network without any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = th.nn.Parameter(th.zeros(4, 2))

    def forward(self, features: th.Tensor) -> th.Tensor:
        return features @ self.table


def test_a_network_without_layers_has_neither_units_nor_features() -> None:
    model = build(DQN, learning_starts=10**6)
    model.q_net.q_net, model.q_net_target.q_net = Tables(), Tables()
    found = ours(learn(model, 60, callback=NetworkHealthCallback(50)).rows)
    assert found["network/weight_norm"] == 0
    assert not {"network/dormant", "network/feature_rank"} & found.keys()


def test_evaluations_of_sb3_go_on_as_without() -> None:
    results = []
    for others in ([], [everything()]):
        env = poles()
        env.seed(3)
        evaluation = EvalCallback(env, eval_freq=50, n_eval_episodes=2, verbose=0)
        learn(build(DQN), 200, callback=[*others, evaluation])
        results.append(evaluation.last_mean_reward)
    assert results[0] == results[1]
