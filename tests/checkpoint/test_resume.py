"""A run that was interrupted goes on in another process, and ends as one that was not: bit for bit."""

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.her import HerReplayBuffer

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback, StopTrainingOnMeanReturn
from sb3_dqn_ext.checkpoint.folder import checkpoints
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from tests.internals import last_observations_of
from tests.interrupted_runs import CASES, WHOLE, callbacks, final_state, interrupt, make_model
from tests.parity import assert_same, learn
from tests.paths import ROOT
from tests.processes import output, python


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
    model = make_model(name)
    records = learn(model, WHOLE, callback=callbacks(name, tmp_path))
    whole = final_state(model, records.rows)
    found = th.load(resumed / name / "ended.pt", weights_only=False)
    rows, rows_of_the_rest = whole.pop("rows"), found.pop("rows")
    assert_same(found, whole, name)
    assert_same(rows_of_the_rest, rows[len(rows) - len(rows_of_the_rest) :], "logged")
    assert (0 < len(rows_of_the_rest) < len(rows)) or name in ("MountainCar", "Acrobot", "images")  # no episode ends


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    ends = []
    for more in ([], [ExactCheckpointCallback(50, tmp_path)]):
        model = make_model("everything")
        ends.append(final_state(model, learn(model, WHOLE, callback=more).rows))
    assert_same(ends[1], ends[0], "with checkpoints")


def test_the_newest_checkpoints_stay_and_are_taken_up(tmp_path: Path) -> None:
    learn(make_model("CartPole"), WHOLE, callback=ExactCheckpointCallback(40, tmp_path, keep=3))
    steps = [int(path.stem.rpartition("_")[2]) for path in checkpoints(tmp_path)]
    assert steps == [200, 240, 280]
    assert make_model("CartPole").resume(tmp_path).num_timesteps == 280
    older = make_model("CartPole").resume(checkpoints(tmp_path)[0])
    assert older.num_timesteps == 200
    learn(older, 260, callback=ExactCheckpointCallback(40, tmp_path, keep=3))
    assert [int(path.stem.rpartition("_")[2]) for path in checkpoints(tmp_path)] == [200, 240]


def test_a_checkpoint_by_hand_after_a_run_is_gone_on_with(tmp_path: Path) -> None:
    model = make_model("four at once")
    learn(model, 200, callback=ExactCheckpointCallback(10**6, tmp_path))
    model.save_checkpoint(tmp_path)
    learn(model, 320 - model.num_timesteps, reset_num_timesteps=False)
    again = make_model("four at once").resume(tmp_path)
    learn(again, 320, callback=ExactCheckpointCallback(10**6, tmp_path))
    assert_same(again.get_parameters(), model.get_parameters(), "parameters")


def test_the_first_checkpoint_holds_all_rows_and_the_next_only_what_is_new(tmp_path: Path) -> None:
    model = make_model("CartPole")
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
        (
            {"env": "dqn_ext/CartPoleTerminalPenalty-v1"},
            r"the environments \['CartPole-v1'\], and this one has \['dqn_ext/CartPoleTerminalPenalty-v1'\]",
        ),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_model_is_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
    defaults: dict[str, Any] = {"env": "CartPole-v1", "buffer_size": 130, "policy_kwargs": {"net_arch": [16]}, "device": "cpu"}
    other = DQNExt("MlpPolicy", **defaults | arguments)
    with pytest.raises(CheckpointError, match=message):
        other.resume(tmp_path)


def test_what_is_saved_already_is_not_lost_to_another_run(tmp_path: Path) -> None:
    learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="holds checkpoints of another run: resume from it, or name another folder"):
        learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".lock"} == {
        name: content for name, content in before.items() if not name.endswith(".lock")
    }


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint that is good"):
        make_model("CartPole").resume(tmp_path)


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
    assert last_observations_of(again) is not None
    assert abs(np.asarray(last_observations_of(again))[0, :4]).max() < 0.06, "as after a reset"
    learn(again, 80, callback=ExactCheckpointCallback(32, tmp_path))
    assert again.num_timesteps == 80


class Steps(gym.Env[Any, Any]):
    """
    Counts its steps, which are its rewards; no episode ends.

    :param noisy: whether it also shows a number that nobody can foresee, so that it cannot be restored
    """

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(0, 2**24, (2,), np.float32)

    def __init__(self, noisy: bool) -> None:
        self.noisy = noisy

    def _seen(self) -> Any:
        return np.array([self.n, int.from_bytes(os.urandom(3), "big") if self.noisy else 0], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.n = 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.n += 1
        return self._seen(), float(self.n), False, False, {}


BEFORE = [5, 6, 7]  # the last rows before the checkpoint at step 16 of two environments, whose rewards are 6, 7 and 8
AFTER = [8, 9]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"optimize_memory_usage": True}, {"replay_buffer_kwargs": {"handle_timeout_termination": False}}],
    ids=str,
)
def test_no_return_reaches_from_an_episode_that_was_broken_off_into_the_next(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    def model() -> DQNExt:
        envs = DummyVecEnv([lambda: Steps(noisy=False), lambda: Steps(noisy=True)])
        kwargs: dict[str, Any] = {"learning_starts": 10**6, "exploration": "ez_greedy", "seed": 0, "device": "cpu"} | arguments
        return DQNExt("MlpPolicy", envs, n_steps=3, gamma=0.5, train_freq=4, **kwargs)

    def folded(of: DQNExt, rows: list[int], env: int) -> list[tuple[float, float, float]]:
        """Rewards, discounts, and the steps counted at the next observation."""
        memory: Any = of.replay_buffer
        batch = memory.read(2 * np.array(rows) + env)
        return list(zip(batch.rewards.tolist(), batch.discounts.tolist(), batch.next_observations[:, 0].tolist(), strict=True))

    def resumed() -> DQNExt:
        again = model()
        with pytest.warns(UserWarning, match=r"Environment 1: .* It begins a new episode\."):
            return again.resume(tmp_path)

    learn(model(), 24, callback=ExactCheckpointCallback(16, tmp_path))
    again = resumed()
    learn(again, 32, callback=ExactCheckpointCallback(10**6, tmp_path))
    again.save_checkpoint(tmp_path)
    for one in again, resumed():  # what was cut off stays so
        assert folded(one, BEFORE, env=0) == [(11.5, 0.125, 8), (7 + 4 + 9 / 4, 0.125, 9), (8 + 4.5 + 10 / 4, 0.125, 10)]
        assert folded(one, BEFORE, env=1) == [(6 + 3.5 + 2, 0.125, 8), (7 + 4, 0.25, 8), (8, 0.5, 8)]
        assert folded(one, AFTER, env=0) == [(9 + 5 + 11 / 4, 0.125, 11), (10 + 5.5 + 3, 0.125, 12)]
        assert folded(one, AFTER, env=1) == [(1 + 1 + 3 / 4, 0.125, 3), (2 + 1.5 + 1, 0.125, 4)]


def test_a_realised_return_ends_where_its_episode_was_broken_off(tmp_path: Path) -> None:
    def model() -> DQNExt:
        returns = {"monte_carlo": 1.0, "keep_episodes": 2}
        kwargs: dict[str, Any] = {"learning_starts": 10**6, "gamma": 0.5, "train_freq": 4, "seed": 0, "device": "cpu"}
        return DQNExt("MlpPolicy", Steps(noisy=True), replay_buffer_kwargs=returns, **kwargs)

    learn(model(), 8, callback=ExactCheckpointCallback(4, tmp_path))
    again = model()
    with pytest.warns(UserWarning, match="It begins a new episode"):
        again.resume(tmp_path)
    learn(again, 12, callback=ExactCheckpointCallback(10**6, tmp_path))
    memory: Any = again.replay_buffer
    cells = np.sort(memory.all_indices())
    assert cells.tolist() == [0, 1, 2, 3], "the new episode has not ended"
    batch = memory.read(cells)
    assert batch.rewards.tolist() == [1 + 1 + 3 / 4 + 4 / 8, 2 + 3 / 2 + 4 / 4, 3 + 4 / 2, 4]
    assert batch.discounts.tolist() == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert batch.next_observations[:, 0].tolist() == [4, 4, 4, 4]


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
    learn(make_model("CartPole"), 44, callback=[Counter(), Counter(100), ExactCheckpointCallback(40, tmp_path)])
    counters = [Counter(), Counter()]
    again = make_model("CartPole").resume(tmp_path)
    learn(again, 60, callback=[StopTrainingOnMeanReturn(400, 3), ExactCheckpointCallback(40, tmp_path), *counters])
    assert [counter.count for counter in counters] == [60, 160]


def test_a_callback_that_is_missing_is_named(tmp_path: Path) -> None:
    learn(make_model("CartPole"), 44, callback=[Counter(), ExactCheckpointCallback(40, tmp_path)])
    again = make_model("CartPole").resume(tmp_path)
    with pytest.warns(UserWarning, match=r"A tests\.checkpoint\.test_resume\.Counter was part of the run and is not now"):
        learn(again, 60, callback=ExactCheckpointCallback(40, tmp_path))


def test_a_model_without_environments_is_told_to_get_some(tmp_path: Path) -> None:
    make_model("CartPole").save(tmp_path / "model")
    model = DQNExt.load(tmp_path / "model")
    for call in (model.resume, model.save_checkpoint):
        with pytest.raises(ArgumentError, match=r"set_env\(env\)"):
            call(tmp_path)


def test_a_replay_memory_that_remembers_more_than_is_known_is_refused_at_the_start(tmp_path: Path) -> None:
    env = BitFlippingEnv(3, continuous=False, max_steps=3)
    model = DQNExt("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, learning_starts=10, device="cpu")
    with pytest.raises(ArgumentError, match=r"replay_buffer_class=HerReplayBuffer cannot be part of a checkpoint"):
        model.learn(20, callback=ExactCheckpointCallback(5, tmp_path))
    assert model.num_timesteps == 0


def test_damaged_checkpoints_are_not_lost_to_another_run_either(tmp_path: Path) -> None:
    learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
    (manifest,) = checkpoints(tmp_path)
    manifest.write_bytes(manifest.read_bytes()[:-100])
    assert not checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="holds checkpoints of another run"):
        learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
    assert manifest.is_file()
