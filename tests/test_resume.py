"""A run that was interrupted goes on in another process, and ends as one that was not: bit for bit."""

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback, StopTrainingOnMeanReturn
from sb3_dqn_ext.checkpoint.files import CheckpointError, checkpoints
from sb3_dqn_ext.choices import ArgumentError
from tests.interrupted_runs import CASES, WHOLE, callbacks, ended, interrupt, make
from tests.parity import assert_same, learn
from tests.processes import output, python

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs lie, each interrupted in this process and resumed in another, the same for all of them."""
    folder = tmp_path_factory.mktemp("runs")
    for name in CASES:
        interrupt(name, folder / name)
    output(python("-m", "tests.interrupted_runs", str(folder), *CASES, cwd=ROOT))
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(name: str, resumed: Path, tmp_path: Path) -> None:
    model = make(name)
    records = learn(model, WHOLE, callback=callbacks(name, tmp_path))
    whole = ended(model, records.rows)
    found = th.load(resumed / name / "ended.pt", weights_only=False)
    rows, rows_of_the_rest = whole.pop("rows"), found.pop("rows")
    assert_same(found, whole, name)
    assert_same(rows_of_the_rest, rows[len(rows) - len(rows_of_the_rest) :], "logged")
    assert (0 < len(rows_of_the_rest) < len(rows)) or name in ("MountainCar", "Acrobot", "images")  # no episode ends


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    ends = []
    for more in ([], [ExactCheckpointCallback(50, tmp_path)]):
        model = make("everything")
        ends.append(ended(model, learn(model, WHOLE, callback=more).rows))
    assert_same(ends[1], ends[0], "with checkpoints")


def test_the_newest_checkpoints_stay_and_are_taken_up(tmp_path: Path) -> None:
    learn(make("CartPole"), WHOLE, callback=ExactCheckpointCallback(40, tmp_path, keep=3))
    steps = [int(path.stem.rpartition("_")[2]) for path in checkpoints(tmp_path)]
    assert steps == [200, 240, 280]
    assert make("CartPole").resume(tmp_path).num_timesteps == 280
    older = make("CartPole").resume(checkpoints(tmp_path)[0])
    assert older.num_timesteps == 200
    learn(older, 260, callback=ExactCheckpointCallback(40, tmp_path, keep=3))
    assert [int(path.stem.rpartition("_")[2]) for path in checkpoints(tmp_path)] == [200, 240]


def test_a_checkpoint_by_hand_after_a_run_is_gone_on_with(tmp_path: Path) -> None:
    model = make("four at once")
    learn(model, 200, callback=ExactCheckpointCallback(10**6, tmp_path))
    model.save_checkpoint(tmp_path)
    learn(model, 320 - model.num_timesteps, reset_num_timesteps=False)
    again = make("four at once").resume(tmp_path)
    learn(again, 320, callback=ExactCheckpointCallback(10**6, tmp_path))
    assert_same(again.get_parameters(), model.get_parameters(), "parameters")


def test_the_first_checkpoint_holds_all_rows_and_the_next_only_what_is_new(tmp_path: Path) -> None:
    model = make("CartPole")
    learn(model, 120, callback=ExactCheckpointCallback(10**6, tmp_path))
    model.save_checkpoint(tmp_path, keep=9)
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("segment_*")}
    learn(model, 20, reset_num_timesteps=False)
    model.save_checkpoint(tmp_path, keep=9)
    then = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("segment_*")}
    assert first.items() < then.items()
    (new,) = (tmp_path / name for name in set(then) - set(first))
    assert new.stat().st_size < sum((tmp_path / name).stat().st_size for name in first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy_kwargs": {"net_arch": [17]}}, "is of a model with parameters"),
        ({"buffer_size": 131}, r"memory DQNReplayBuffer of 130 rows, and this one has DQNReplayBuffer of 131 rows"),
        ({"env": "Acrobot-v1"}, "is of a model with observation space"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_model_is_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    learn(make("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
    defaults: dict[str, Any] = {"env": "CartPole-v1", "buffer_size": 130, "policy_kwargs": {"net_arch": [16]}, "device": "cpu"}
    other = DQNExt("MlpPolicy", **defaults | arguments)
    with pytest.raises(CheckpointError, match=message):
        other.resume(tmp_path)


def test_what_is_saved_already_is_not_lost_to_another_run(tmp_path: Path) -> None:
    learn(make("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="holds checkpoints of another run: resume from it, or name another folder"):
        learn(make("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".lock"} == {
        name: content for name, content in before.items() if not name.endswith(".lock")
    }


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint that is good"):
        make("CartPole").resume(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"every": 0, "path": "p"}, "every=0"), ({"every": 1, "path": "p", "keep": 0}, "keep=0")],
)
def test_a_number_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ExactCheckpointCallback(**arguments)


class Dice(gym.ObservationWrapper[Any, Any, Any]):
    """CartPole, and a number that nobody can foresee."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)

    def observation(self, observation: Any) -> Any:
        return np.append(observation, np.float32(os.urandom(1)[0])).astype(np.float32)


def test_an_environment_that_cannot_be_restored_is_named_and_begins_a_new_episode(tmp_path: Path) -> None:
    def model() -> DQNExt:
        return DQNExt("MlpPolicy", Dice(), learning_starts=10, seed=0, device="cpu")

    learn(model(), 40, callback=ExactCheckpointCallback(32, tmp_path))
    again = model()
    with pytest.warns(UserWarning, match=r"Environment 0: .* It begins a new episode\.") as warned:
        again.resume(tmp_path)
    assert len(warned) == 1
    assert again._last_obs is not None
    assert abs(np.asarray(again._last_obs)[0, :4]).max() < 0.06, "as after a reset"
    learn(again, 80, callback=ExactCheckpointCallback(32, tmp_path))
    assert again.num_timesteps == 80


class Counter(BaseCallback):
    """
    Remembers how often it was called.

    :param first: what it counts from
    """

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.count = first

    def _on_step(self) -> bool:
        self.count += 1
        return True


def test_each_callback_finds_what_it_remembered_wherever_it_stands(tmp_path: Path) -> None:
    learn(make("CartPole"), 44, callback=[Counter(), Counter(100), ExactCheckpointCallback(40, tmp_path)])
    counters = [Counter(), Counter()]
    again = make("CartPole").resume(tmp_path)
    learn(again, 60, callback=[StopTrainingOnMeanReturn(400, 3), ExactCheckpointCallback(40, tmp_path), *counters])
    assert [counter.count for counter in counters] == [60, 160]


def test_a_callback_that_is_missing_is_named(tmp_path: Path) -> None:
    learn(make("CartPole"), 44, callback=[Counter(), ExactCheckpointCallback(40, tmp_path)])
    again = make("CartPole").resume(tmp_path)
    with pytest.warns(UserWarning, match=r"A tests\.test_resume\.Counter was part of the run and is not now"):
        learn(again, 60, callback=ExactCheckpointCallback(40, tmp_path))


def test_a_model_without_environments_is_told_to_get_some(tmp_path: Path) -> None:
    make("CartPole").save(tmp_path / "model")
    model = DQNExt.load(tmp_path / "model")
    for call in (model.resume, model.save_checkpoint):
        with pytest.raises(ArgumentError, match=r"set_env\(env\)"):
            call(tmp_path)
