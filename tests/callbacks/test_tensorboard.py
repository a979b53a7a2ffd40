"""Logs of TensorBoardCallback, which TensorBoard's own code reads."""

import random
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    DiagnosticsCallback,
    ExactCheckpointCallback,
    StopTrainingOnEpisode,
    SummaryCallback,
    TensorBoardCallback,
)
from sb3_dqn_ext.callbacks.charts import CHARTS, chart_layout
from sb3_dqn_ext.callbacks.configuration import describe_env, flatten, model_arguments, to_logged_value
from sb3_dqn_ext.plot.run_files import scalars
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.internals import n_updates_of
from tests.parity import Records, assert_same, assert_same_model, short_cartpole

ALGORITHMS: list[type[Any]] = [DQNExt, DQN, QRDQN]
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.__name__)


def model_of(algorithm: type[Any], n_envs: int = 1, **arguments: Any) -> Any:
    """Make a small model, with episodes of at most 20 steps."""
    network = {"net_arch": [16]} | ({"n_quantiles": 5} if algorithm is QRDQN else {})
    defaults = {"learning_starts": 40, "batch_size": 8, "policy_kwargs": network, "seed": 0, "device": "cpu"}
    env = DummyVecEnv([lambda: Monitor(short_cartpole())] * n_envs)
    return algorithm("MlpPolicy", env, **{"buffer_size": 500, "train_freq": 4} | defaults | arguments)


@contextmanager
def logged(model: Any, folder: Path) -> Iterator[Records]:
    """Let a model log to TensorBoard within the block, and record the other values."""
    records, board = Records(), TensorBoardOutputFormat(str(folder))
    model.set_logger(Logger(str(folder), [records, board]))
    yield records
    board.close()


def train(model: Any, folder: Path, steps: int = 300, *callbacks: BaseCallback) -> Any:
    """Train a model that logs to TensorBoard."""
    with logged(model, folder):
        model.learn(steps, callback=[TensorBoardCallback(), *callbacks], log_interval=1)
    return model


class Killed(Exception):
    pass


class Kill(BaseCallback):
    """
    :param at: the step at which the run ends
    """

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at:
            raise Killed
        return True


class Board(NamedTuple):
    """The log of a run, as TensorBoard reads it."""

    events: Any
    columns: list[Any]
    """the session of HParams"""
    rows: dict[str, Any]
    """the rows of HParams, by run"""

    def tags(self, run: str) -> list[str]:
        """Return the tags of numbers."""
        return list(self.events.PluginRunToTagToContent("scalars")[run])

    def texts(self, run: str, name: str) -> list[str]:
        """Return all texts of a tag, by step."""
        texts = [event.tensor_proto.string_val[0] for event in self.events.Tensors(run, f"run/{name}/text_summary")]
        return [text.decode() for text in texts]

    def charts(self, run: str) -> dict[str, dict[str, list[str]]]:
        """The layout of Custom Scalars: the last one is shown."""
        from tensorboard.plugins.custom_scalar import layout_pb2

        event = self.events.Tensors(run, "custom_scalars__config__")[-1]
        groups = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
        return {group.title: {chart.title: list(chart.multiline.tag) for chart in group.chart} for group in groups}


def read(folder: Path) -> Board:
    """
    :param folder: the folder of the logs
    """
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    events = EventMultiplexer(size_guidance={"tensors": 0, "scalars": 0})
    events.AddRunsFromDirectory(str(folder))
    events.Reload()
    request, provider = RequestContext(), MultiplexerDataProvider(events, str(folder))
    context = backend_context.Context(TBContext(data_provider=provider, logdir=str(folder)))
    found = context.hparams_metadata(request, "")
    table = context.experiment_from_metadata(request, "", True, found, context.hparams_from_data_provider(request, "", None))
    asked = api_pb2.ListSessionGroupsRequest(
        slice_size=100,
        include_metrics=True,
        allowed_statuses=range(4),
        col_params=[api_pb2.ColParams(metric=info.name) for info in table.metric_infos],
    )
    rows = list_session_groups.Handler(request, context, "", asked).run().session_groups
    return Board(events, list(table.hparam_infos), {row.sessions[0].name: row for row in rows})


def scores(row: Any) -> dict[str, float]:
    """
    :param row: a row of HParams
    """
    return {value.name.tag: value.value for value in row.metric_values}


# -- training --------------------------------------------------------------------------------------------------------------


@each_algorithm
def test_training_does_not_change_by_a_bit(algorithm: type[Any], tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], [TensorBoardCallback(), SummaryCallback(verbose=0)]):
        model = model_of(algorithm)
        with logged(model, tmp_path / str(len(callbacks))) as records:
            model.learn(300, callback=callbacks, log_interval=1)
        generators = [random.random(), np.random.rand(), th.rand(1), int(model.action_space.sample())]
        ends.append((model, records.rows, generators))
    (plain_model, *others), (model, *same) = ends
    assert n_updates_of(model) > 0
    assert_same_model(model, plain_model)
    assert_same(same, others, "logged and drawn")


def test_without_tensorboard_nothing_happens_and_the_logger_is_as_before(tmp_path: Path) -> None:
    model = model_of(DQNExt)
    formats: list[Any] = [Records()]
    model.set_logger(Logger(None, formats))
    callback = TensorBoardCallback()
    for _ in range(2):
        model.learn(100, callback=callback)
        assert len(formats) == 1
    assert callback.training_returns == []
    assert not list(tmp_path.iterdir())


# -- custom scalars --------------------------------------------------------------------------------------------------------


def test_a_chart_is_there_as_soon_as_something_is_logged_for_it() -> None:
    assert chart_layout([]) == {}
    assert chart_layout(["rollout/ep_rew_mean"]) == {
        "learning": {"mean return": ["rollout/ep_rew_mean$", "eval/mean_reward$"]}
    }
    assert chart_layout(["eval/mean_reward", "errors/age_2_of_4", "mine/values/mean", "values/mean_of_mine"]) == {
        "learning": {"mean return": ["rollout/ep_rew_mean$", "eval/mean_reward$"]},
        "errors": {"from the newest to the oldest transitions": [r"errors/age_\d+_of_\d+$"]},
    }


def test_the_charts_of_a_run_are_those_of_what_it_logged(tmp_path: Path) -> None:
    train(model_of(DQNExt), tmp_path / "plain")
    evaluated = EvalCallback(DummyVecEnv([lambda: Monitor(short_cartpole())]), eval_freq=50, verbose=0)
    train(model_of(DQNExt), tmp_path / "evaluation_returns", 300, evaluated)
    board = read(tmp_path)
    assert board.charts("plain") == {
        "learning": {"mean return": ["rollout/ep_rew_mean$", "eval/mean_reward$"]}
        | {"episode length": ["rollout/ep_len_mean$", "eval/mean_ep_length$"]},
        "errors": {"loss": ["train/loss$"]},
        "exploration": {"exploration rate": ["rollout/exploration_rate$", "exploration/exploratory$"]},
        "speed": {"environment steps per second": ["time/fps$"]},
    }
    # equal charts of several runs are one; TensorBoard compares them
    assert board.charts("evaluation_returns") == board.charts("plain")


# SB3 logs it for goals that are reached, and boltzmann alone has a temperature
NOT_IN_ONE_RUN = {"rollout/success_rate", "eval/success_rate", "rollout/temperature"}


def test_no_chart_waits_for_what_nobody_logs(tmp_path: Path) -> None:
    diagnostics = DiagnosticsCallback(every=60, calibration={"every": 60, "n_episodes": 2})
    evaluation = EvalCallback(DummyVecEnv([lambda: Monitor(short_cartpole())]), eval_freq=50, verbose=0)
    chosen = {"exploration": "epsilon_ladder", "replay_buffer_kwargs": {"sampler": "prioritized"}}
    model = model_of(DQNExt, n_envs=2, **chosen)
    with logged(model, tmp_path / "run"):
        model.learn(400, callback=[diagnostics, evaluation], log_interval=1)
    board = read(tmp_path)
    tags = board.tags("run")
    patterns = {pattern for charts in CHARTS.values() for patterns in charts.values() for pattern in patterns}
    assert {pattern for pattern in patterns if not any(re.fullmatch(pattern, tag) for tag in tags)} == NOT_IN_ONE_RUN
    assert [*board.charts("run")] == [*CHARTS]


# -- HParams ---------------------------------------------------------------------------------------------------------------


def test_runs_are_compared_by_what_differs_and_by_their_scores(tmp_path: Path) -> None:
    evaluations = EvalCallback(
        DummyVecEnv([lambda: Monitor(short_cartpole())]), eval_freq=50, verbose=0, log_path=str(tmp_path / "evaluations")
    )
    schedule = {"name": "exponential", "start": 1.0, "end": 0.1, "rate": 0.01}
    first = train(model_of(DQN, learning_rate=2e-3), tmp_path / "logs" / "a")
    train(model_of(DQNExt, exploration_kwargs={"schedule": schedule}), tmp_path / "logs" / "b", 300, evaluations)
    train(model_of(QRDQN), tmp_path / "logs" / "c", 200)
    board = read(tmp_path / "logs")

    differing = [column.name for column in board.columns if column.differs]
    assert [column.name for column in board.columns][: len(differing)] == differing
    assert {"algorithm", "learning_rate", "total_timesteps"} <= set(differing)
    assert {"seed", "gamma", "batch_size", "env", "n_envs"}.isdisjoint(differing)
    assert "exploration_kwargs.schedule.rate" in {column.name for column in board.columns}

    assert [*board.rows] == ["a", "b", "c"]
    assert [row.hparams["algorithm"].string_value for row in board.rows.values()] == ["DQN", "DQNExt", "QRDQN"]
    assert board.rows["a"].hparams["learning_rate"].number_value == 2e-3
    assert board.rows["b"].hparams["exploration_kwargs.schedule.rate"].number_value == 0.01
    assert board.rows["c"].hparams["total_timesteps"].number_value == 200

    of_evaluations = np.load(tmp_path / "evaluations" / "evaluations.npz")["results"].mean(axis=1)
    of_b = scores(board.rows["b"])
    assert of_b["achieved/best_return"] == pytest.approx(of_evaluations.max())
    assert of_b["achieved/final_return"] == pytest.approx(of_evaluations[-1])
    returns = first.get_env().envs[0].get_episode_rewards()
    assert len(returns) < 100
    of_a = scores(board.rows["a"])
    assert of_a["achieved/final_return"] == of_a["achieved/best_return"] == pytest.approx(np.mean(returns))


def test_the_best_training_episodes_are_those_of_a_whole_window(tmp_path: Path) -> None:
    model = train(model_of(DQN, stats_window_size=3), tmp_path / "run")
    returns = model.get_env().envs[0].get_episode_rewards()
    means = np.convolve(returns, np.ones(3) / 3, mode="valid")  # of each three that follow one another
    found = scores(read(tmp_path).rows["run"])
    assert found["achieved/best_return"] == pytest.approx(means.max())
    assert found["achieved/final_return"] == pytest.approx(means[-1])
    assert means.max() > means[-1]


def test_scores_of_a_run_of_many_short_episodes_are_a_hundred(tmp_path: Path) -> None:
    model = model_of(DQN, learning_starts=10_000)
    with logged(model, tmp_path / "run"):
        model.learn(5000, callback=TensorBoardCallback(), log_interval=1)
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    logged_at = [event.step for event in board.Scalars("rollout/ep_rew_mean")]
    written_at = [event.step for event in board.Scalars("achieved/final_return")]
    assert len(logged_at) > 200
    assert written_at[0] == logged_at[0]
    assert all(later - earlier >= 50 for earlier, later in pairwise(written_at[:-1]))
    assert 70 < len(written_at) < 102
    assert written_at[-1] == 5000


def test_a_run_that_was_killed_has_its_row_and_its_scores_so_far(tmp_path: Path) -> None:
    with suppress(Killed):
        train(model_of(DQN), tmp_path / "run", 300, Kill(250))
    (row,) = read(tmp_path).rows.values()
    assert row.sessions[0].status == 0  # not known
    assert scores(row)["achieved/final_return"] > 0


# -- text ------------------------------------------------------------------------------------------------------------------


@each_algorithm
def test_the_text_tab_shows_the_arguments_and_the_command(algorithm: type[Any], tmp_path: Path) -> None:
    train(model_of(algorithm, gamma=0.97, train_freq=(1, "episode")), tmp_path / "run", 60)
    board = read(tmp_path)
    (arguments,), (command,), (versions,) = (board.texts("run", name) for name in ("arguments", "command", "versions"))
    rows = dict(re.findall(r"^\| (\S+) \| `(.*)` \|$", arguments, re.MULTILINE))
    assert rows["algorithm"] == algorithm.__name__
    assert rows["policy"] == "MlpPolicy"
    assert rows["env"] == "CartPole-v1"
    assert "TimeLimit" in rows["environment"]
    assert rows["gamma"] == "0.97"
    assert rows["train_freq"] == "[1, 'episode']"
    assert rows["total_timesteps"] == "60"
    assert rows["policy_kwargs"].startswith("{'net_arch': [16]")
    assert ("target_policy" in rows) == (algorithm is DQNExt)
    assert command == "    " + shlex.join(sys.orig_argv)
    assert th.__version__ in versions


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, 0.5),
        (np.float32(0.5), 0.5),
        ((64, 64), [64, 64]),
        ({"a": {"b": th.nn.Tanh}}, {"a": {"b": "torch.nn.modules.activation.Tanh"}}),
        (LinearSchedule(1.0, 0.1, 0.5), "LinearSchedule(start=1.0, end=0.1, end_fraction=0.5)"),
        (short_cartpole, "tests.parity.short_cartpole"),
        (Records(), "tests.parity.Records"),
    ],
    ids=["number", "numpy", "tuple", "class", "schedule", "function", "object"],
)
def test_arguments_are_converted_to_plain_data(value: Any, expected: Any) -> None:
    assert to_logged_value(value) == expected
    assert type(to_logged_value(value)) is type(expected)


def test_a_table_holds_numbers_and_texts_only() -> None:
    assert flatten({"a": 1, "b": True, "c": None, "d": float("inf"), "e": {"f": {"g": 0.5}}, "h": "i"}) == {
        "a": 1,
        "b": "true",
        "c": "null",
        "d": "Infinity",
        "e": '{"f": {"g": 0.5}}',
        "e.f": '{"g": 0.5}',
        "e.f.g": 0.5,
        "h": "i",
    }


def test_a_replay_buffer_is_named_if_it_is_not_the_default() -> None:
    assert model_arguments(model_of(DQNExt))["replay_buffer_class"] is None
    assert model_arguments(model_of(DQN))["replay_buffer_class"] is None
    buffer_class = model_arguments(model_of(DQN, replay_buffer_class=DQNReplayBuffer))["replay_buffer_class"]
    assert buffer_class == "sb3_dqn_ext.replay.buffer.DQNReplayBuffer"
    buffer_class = model_arguments(model_of(DQNExt, replay_buffer_class=ReplayBuffer))["replay_buffer_class"]
    assert buffer_class == "stable_baselines3.common.buffers.ReplayBuffer"


def test_the_environment_is_described_with_its_wrappers() -> None:
    name, wrapped = describe_env(VecNormalize(make_vec_env("MountainCar-v0", 2)))
    assert name == "MountainCar-v0"
    assert re.match(r"VecNormalize of DummyVecEnv of <Monitor<.*<MountainCarEnv<MountainCar-v0>>+$", wrapped)


# -- resumed runs ----------------------------------------------------------------------------------------------------------


def test_a_resumed_run_is_one_row_with_the_scores_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_dqn_ext.callbacks.tensorboard.N_SCORES", 5)  # one each 60 steps

    def made(logs: str) -> Any:
        return model_of(DQNExt, stats_window_size=3, tensorboard_log=str(tmp_path / logs))

    def learned(model: Any, checkpoints: str, *others: BaseCallback) -> None:
        exact = ExactCheckpointCallback(every=150, path=tmp_path / checkpoints)
        try:
            model.learn(300, callback=[TensorBoardCallback(), exact, *others], log_interval=1)
        finally:
            model.logger.close()

    learned(made("whole"), "a")
    with suppress(Killed):
        learned(made("parts"), "b", Kill(190))
    learned(made("parts").resume(tmp_path / "b"), "b")

    expected, board = read(tmp_path / "whole"), read(tmp_path / "parts")
    assert [*board.rows] == [*expected.rows] == ["DQNExt_1"]
    (session,) = board.rows["DQNExt_1"].sessions
    assert session.status == 1  # a success
    parts, at_once = (scalars(tmp_path / name / "DQNExt_1") for name in ("parts", "whole"))
    best, final = "achieved/best_return", "achieved/final_return"
    for tag in (best, final):
        np.testing.assert_array_equal(parts[tag], at_once[tag])
    assert parts[best].values[parts[best].steps <= 150][-1] == parts[best].values[-1] > max(parts[final].values[-4:]), (
        "the best is from before the interruption"
    )
    assert board.charts("DQNExt_1") == expected.charts("DQNExt_1")
    assert len(board.texts("DQNExt_1", "command")) == 2  # each with its own command


def test_a_second_run_begins_anew(tmp_path: Path) -> None:
    callback = TensorBoardCallback()
    model = model_of(DQN, stats_window_size=2)
    for name in ("a", "b"):
        with logged(model, tmp_path / name):
            model.learn(200, callback=[callback, StopTrainingOnEpisode(min_return=1e9)], log_interval=1)
        returns = model.get_env().envs[0].get_episode_rewards()
        assert callback.training_returns[1] <= max(returns[-20:]), "of this run"
    assert read(tmp_path).charts("b") == read(tmp_path).charts("a")
