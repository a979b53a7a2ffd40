"""DQNExt with actors: its arguments, and what SB3's users expect of a model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_dqn_ext import ArgumentError, DQNExt
from sb3_dqn_ext.actors.collection import make_setup
from sb3_dqn_ext.actors.env_recipe import make_recipe
from sb3_dqn_ext.callbacks import DiagnosticsCallback, StopTrainingOnMeanReturn
from sb3_dqn_ext.errors import UnsupportedError
from sb3_dqn_ext.vec_env import make_fast_vec_env
from sb3_dqn_ext.zoo.config import check_config
from tests.actors.envs import LENGTH, SerialEnv, reward_of
from tests.actors.helpers import SMALL, make_model, own_indices, time_limit


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    with time_limit():
        yield


def serial() -> gym.Env[Any, Any]:
    return gym.make("serial/Serial-v0")


def without_spec() -> gym.Env[Any, Any]:
    return SerialEnv()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no mapping": ({"actors": 2}, r"actors=2 must be None, or a mapping of arguments such as \{'engine'"),
    "no number": ({"actors": {}}, "actors misses: n_actors"),
    "unknown": ({"actors": {"n_actors": 1, "n_env": 2}}, "actors has no argument 'n_env'.*n_actors"),
    "engine": ({"actors": {"n_actors": 1, "engine": "rays"}}, r"actors\['engine'\]='rays' is not known.*Did you mean 'ray'"),
    "none": ({"actors": {"n_actors": 0}}, r"actors\['n_actors'\]=0 must be a whole number in \[1, inf\]"),
    "small block": (
        {"actors": {"n_actors": 1, "envs_per_actor": 8, "block_size": 4}},
        r"actors\['block_size'\]=4 must be a whole number in \[8, 100000\]",
    ),
    "ratio": ({"actors": {"n_actors": 1, "samples_per_insert": "4"}}, r"actors\['samples_per_insert'\]='4' must be"),
    "engine_kwargs": ({"actors": {"n_actors": 1, "engine_kwargs": {"address": "auto"}}}, "'address'; it takes none"),
    "td_lambda": ({"replay_buffer_kwargs": {"td_lambda": 0.5}}, r"td_lambda'\]=0.5 needs the steps of each episode in one"),
    "monte_carlo": ({"replay_buffer_kwargs": {"monte_carlo": 0.5}}, r"monte_carlo'\]=0.5 needs the steps"),
    "keep_episodes": ({"replay_buffer_kwargs": {"keep_episodes": 5}}, r"keep_episodes'\]=5 needs the steps"),
    "n_epochs": ({"n_epochs": 2}, "n_epochs=2 replays all stored transitions"),
    "step_while_learning": ({"step_while_learning": True}, "step_while_learning=True has no effect"),
    "unit": ({"exploration_kwargs": {"schedule": 0.1, "unit": "actions"}}, r"exploration_kwargs\['unit'\]='actions' counts"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_at_construction(name: str) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(ArgumentError, match=message):
        DQNExt("MlpPolicy", serial(), **{"actors": {"n_actors": 1}, **SMALL, **arguments})


WRONG_ENVS: dict[str, tuple[Callable[[], Any], str]] = {
    "VecNormalize": (
        lambda: VecNormalize(DummyVecEnv([serial])),
        "actors do not combine with VecNormalize: its running mean and variance would differ between the actors",
    ),
    "several": (lambda: DummyVecEnv([serial, serial]), "actors make their own environments, 2 environments are given"),
    "processes": (lambda: SubprocVecEnv([serial]), "actors step environments in their own processes, and the given SubprocV"),
    "VecMonitor": (lambda: VecMonitor(DummyVecEnv([serial])), "actors cannot put VecMonitor around their environments"),
    "no spec": (without_spec, "actors cannot make the environment again: .* has no spec"),
}


@pytest.mark.parametrize("method", ["predict", "_sample_action", "_store_transition"])
def test_methods_of_a_subclass_that_actors_would_skip_are_refused(method: str) -> None:
    changed = type("Changed", (DQNExt,), {method: lambda self, *args: None})
    with pytest.raises(UnsupportedError, match=rf"{method}\(\), which Changed overrides"):
        changed("MlpPolicy", "CartPole-v1", actors={"n_actors": 1})


def test_the_method_of_a_subclass_after_each_step_is_called() -> None:
    class Counting(DQNExt):
        n_calls = 0

        def _on_step(self) -> None:
            super()._on_step()
            self.n_calls += 1

    model = Counting("MlpPolicy", serial(), actors={"n_actors": 1, "envs_per_actor": 2, "block_size": 20}, **SMALL)
    model.learn(200)
    assert model.n_calls == 100


@pytest.mark.parametrize("name", WRONG_ENVS)
def test_environments_that_actors_cannot_make_are_refused(name: str) -> None:
    make, message = WRONG_ENVS[name]
    env = make()
    with pytest.raises(ArgumentError, match=message):
        DQNExt("MlpPolicy", env, actors={"n_actors": 1}, **SMALL)
    env.close()


def test_gradient_steps_beside_a_ratio_give_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"gradient_steps has no effect beside actors\['samples_per_insert'\]=2"):
        make_model(actors={"samples_per_insert": 2}, gradient_steps=4)


def test_a_configuration_with_wrong_actors_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("CartPole-v1:\n  policy: MlpPolicy\n  actors: {n_actors: 0}\n")
    with pytest.raises(ArgumentError, match=r"line 3: actors\['n_actors'\]=0 must be"):
        check_config(path)
    path.write_text("CartPole-v1:\n  policy: MlpPolicy\n  actors: {engine: processes, n_actors: 2}\n")
    check_config(path)


def test_the_environments_of_actors_have_the_wrappers_of_the_given_one() -> None:
    given = VecFrameStack(DummyVecEnv([lambda: Monitor(gym.make("serial/Frames-v0"))]), 3, channels_order="first")
    env: Any = make_recipe(given).make(2, seed=0)
    assert env.observation_space == given.observation_space
    assert env.num_envs == 2
    assert env.reset().shape == (2, 48, 16)
    fast: Any = make_recipe(make_fast_vec_env("CartPole-v1", 1)).make(4, seed=0)
    assert fast.vectorization_mode == "vector_entry_point"
    single: Any = make_recipe(DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"))])).make(4, seed=0)
    assert single.vectorization_mode == "sync"
    for each in (env, fast, single):
        each.close()


def test_environments_of_other_seeds_begin_differently() -> None:
    recipe = make_recipe(DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"))]))
    envs: list[Any] = [recipe.make(2, seed) for seed in (3, 3, 5)]
    first, again, other = (env.reset() for env in envs)
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).any()
    assert not np.isclose(first[0], first[1]).any()


class Record(KVWriter):
    """An output of a logger that keeps all values."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.rows.append(dict(key_values))

    def close(self) -> None:
        pass


def test_throughput_ages_queue_and_ratio_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_dqn_ext.actors.pool.STATISTICS_S", 0.2)
    model = make_model(actors={"samples_per_insert": 2, "weights_interval": 10})
    record = Record()
    model.set_logger(Logger(None, [record]))
    model.learn(3_000)
    names = {name for row in record.rows for name in row if name.startswith("actors/")}
    assert names == {
        *(f"actors/{name}_{actor}" for name in ("steps_per_second", "waiting") for actor in (0, 1)),
        *(f"actors/{name}" for name in ("weights_age", "learner_waiting", "queue", "restarts", "samples_per_insert")),
    }
    last = {name: value for row in record.rows for name, value in row.items()}
    assert last["actors/samples_per_insert"] == pytest.approx(2, abs=0.02)
    assert 0 < last["actors/weights_age"] < 100  # at most 2 + 1 blocks of 2 actors, with a gradient step for 8 transitions
    assert 0 <= last["actors/queue"] <= 4


def test_callbacks_see_the_steps_of_actors(tmp_path: Path) -> None:
    class Watch(BaseCallback):
        n_checked = 0

        def _on_step(self) -> bool:
            """Check that the local variables are those of SB3's collect_rollouts."""
            names = self.locals
            assert names["self"] is self.model
            obs, new_obs = self.model._last_obs, names["new_obs"]
            serials, after = np.asarray(obs)[:, 2], new_obs[:, 2]
            assert ((after == serials + 1) | (names["dones"] & (after == serials + 2))).all()
            assert names["rewards"].tolist() == [reward_of(int(serial)) for serial in serials]
            finals = [info["terminal_observation"][2] for info in names["infos"] if "terminal_observation" in info]
            assert finals == (serials + 1)[names["dones"]].tolist()
            self.n_checked += len(serials)
            return True

    model = make_model(
        actors={"envs_per_actor": 3, "block_size": 30},
        exploration="epsilon_ladder",
        exploration_kwargs={"schedule": 0.4, "alpha": 7.0},
        check_finite=True,
        train_freq=1,
    )
    record, watch = Record(), Watch()
    model.set_logger(Logger(None, [record]))
    evaluation = EvalCallback(DummyVecEnv([lambda: Monitor(serial())]), eval_freq=50, verbose=0)
    model.learn(600, [watch, StopTrainingOnMeanReturn(1e9, 10), DiagnosticsCallback(every=200, calibration=False), evaluation])
    assert watch.n_checked == 600
    logged = {name: value for row in record.rows for name, value in row.items()}
    assert logged["exploration/epsilon_0"] == pytest.approx(0.4)
    assert logged["exploration/epsilon_1"] == pytest.approx(0.4**8)
    assert logged["rollout/exploration_rate"] == pytest.approx((0.4 + 0.4**8) / 2)
    assert model.ep_info_buffer is not None
    assert {episode["l"] for episode in model.ep_info_buffer} == {LENGTH}


def test_episodes_are_written_to_the_monitor_file_once(tmp_path: Path) -> None:
    env = make_fast_vec_env("serial/Serial-v0", 1, monitor_dir=str(tmp_path))
    model = DQNExt("MlpPolicy", env, actors={"n_actors": 2, "block_size": 20}, **SMALL)
    model.learn(700)
    buffer: Any = model.replay_buffer
    results = load_results(str(tmp_path))
    assert len(results) == buffer.dones.sum()
    assert set(results["l"]) == {7}
    assert (np.diff(results["t"]) >= 0).all()
    env.close()


def test_a_model_with_actors_is_saved_loaded_and_evaluated(tmp_path: Path) -> None:
    actors = {"n_actors": 1, "envs_per_actor": 2, "block_size": 20}
    model = DQNExt("MlpPolicy", "CartPole-v1", actors=actors, **SMALL)
    model.learn(300)
    assert model.get_env() is model.env
    assert model.n_envs == 2
    scores = evaluate_policy(model, model.get_env(), n_eval_episodes=2)  # type: ignore[arg-type]
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=gym.make("CartPole-v1"), device="cpu")
    assert loaded.actors == actors
    observation = np.zeros((1, 4), np.float32)
    assert loaded.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]
    loaded.learn(100, reset_num_timesteps=False)
    loaded.set_env(gym.make("CartPole-v1"))
    loaded.learn(100, reset_num_timesteps=False)
    assert loaded.num_timesteps == 304 + 104 + 104  # a rollout has 4 steps of 2 environments
    assert len(own_indices(loaded)) == 208
    without = DQNExt.load(tmp_path / "model", device="cpu")
    assert without.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]
    assert np.isfinite(scores).all()


def test_warm_up_actions_are_random_and_seeds_make_runs_differ() -> None:
    setups = [make_setup(make_model(seed=seed)) for seed in (0, 1)]
    assert setups[0].rows == setups[1].rows == 20
    model = make_model(learning_starts=300, exploration="none")
    model.learn(250)
    buffer: Any = model.replay_buffer
    assert 0.3 < buffer.actions[:250].mean() < 0.7
