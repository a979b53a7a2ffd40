"""Actions and visited states."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    ExplorationCallback,
    ReplayHealthCallback,
)
from sb3_dqn_ext.callbacks.diagnostics import base, exploration
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.callbacks.diagnostics.helpers import At, build, ours, poles, visits_of
from tests.internals import last_observations_of
from tests.parity import learn


@pytest.mark.filterwarnings("ignore:gradient_steps=1 for 400 transitions")
@pytest.mark.parametrize(("epsilon", "low", "high"), [(0.0, 0.0, 0.0), (1.0, 0.3, 0.7)])
def test_exploratory_is_what_is_not_greedy(
    algorithm: Any, epsilon: float, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploration, "COMPARISON_INTERVAL", 5)
    eps = {"exploration_initial_eps": epsilon, "exploration_final_eps": epsilon}
    model = build(algorithm, poles(4), learning_starts=0, buffer_size=2_000, train_freq=100, **eps)
    found = ours(learn(model, 4 * 5 * 20 + 40, callback=ExplorationCallback(4 * 5 * 20)).rows)
    assert low <= found["exploration/exploratory"] <= high
    assert found["exploration/epsilon"] == epsilon


def test_actions_are_counted_since_the_last_measurement(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "HISTOGRAM_PERIOD", 1)  # at each measurement
    counts: list[Any] = []
    model = build(algorithm, poles(2))

    def inspect(model: Any) -> None:
        buffer = model.replay_buffer
        counts.append(buffer.actions[buffer.pos - 25 : buffer.pos].ravel().copy())  # those after the look at 50

    found = ours(learn(model, 110, callback=[ExplorationCallback(50), At(100, inspect)]).rows)
    assert found["exploration/action_1"] == pytest.approx(counts[0].mean())
    assert found["exploration/action_0"] + found["exploration/action_1"] == pytest.approx(1)
    assert sorted(found["exploration/actions"].tolist()) == sorted(counts[0].tolist())


def test_all_steps_of_a_vector_entry_point_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploration, "COMPARISON_INTERVAL", 0)  # each step
    monkeypatch.setattr(base, "HISTOGRAM_PERIOD", 1)  # at each measurement
    # of each call and environment: the action, whether it is another than the greedy one, an end
    seen: list[list[tuple[int, bool, bool]]] = []
    n_calls_before: dict[int, int] = {}  # number of calls before

    class Noting(BaseCallback):
        def _on_step(self) -> bool:
            n_calls_before.setdefault(self.num_timesteps // 100, len(seen))
            model: Any = self.model
            with th.no_grad():
                differ = model.q_net(th.as_tensor(last_observations_of(model))).argmax(dim=1).numpy() != self.locals["actions"]
            seen.append(list(zip(self.locals["actions"], differ, self.locals["dones"], strict=True)))
            return True

    env = make_fast_vec_env("CartPole-v1", n_envs=3, seed=3)
    assert env.vectorization_mode == "vector_entry_point"
    found = ours(learn(build(DQNExt, env), 320, callback=[ExplorationCallback(100), ReplayHealthCallback(100), Noting()]).rows)
    before = n_calls_before[3]
    ends = [end for row in seen[before - 40 : before] for _, _, end in row]  # of the 40 rows that are stored
    assert 0 < sum(ends) < len(ends)
    assert found["replay/size"] == len(ends)
    assert found["replay/fill"] == 1
    assert found["replay/terminal_stored"] == pytest.approx(np.mean(ends))
    assert found["replay/reward_mean"] == 1
    assert found["replay/rewards"].shape == (len(ends),)
    new = [action for row in seen[n_calls_before[2] : before] for action, _, _ in row]
    assert sorted(found["exploration/actions"].tolist()) == sorted(new)
    # those that were compared are stored after it
    compared = [other for row in seen[n_calls_before[2] + 1 : before + 1] for _, other, _ in row]
    assert found["exploration/exploratory"] == pytest.approx(np.mean(compared))


def test_a_ladder_has_an_epsilon_for_each_environment() -> None:
    kwargs: dict[str, Any] = {"exploration": "epsilon_ladder", "exploration_kwargs": {"schedule": 0.4}}
    found = ours(learn(build(DQNExt, poles(3), **kwargs), 90, callback=ExplorationCallback(60)).rows)
    assert [found[f"exploration/epsilon_{i}"] for i in range(3)] == pytest.approx([0.4, 0.4**4.5, 0.4**8])


def test_a_temperature_is_no_epsilon() -> None:
    found = ours(learn(build(DQNExt, exploration="boltzmann"), 90, callback=ExplorationCallback(60)).rows)
    assert found["exploration/temperature"] == 1
    assert "exploration/epsilon" not in found


def test_visited_states_are_drawn_where_they_lie(algorithm: Any) -> None:
    callback = ExplorationCallback(100, cells=30)
    env = DummyVecEnv([lambda: Monitor(gym.make("MountainCar-v0", max_episode_steps=30))] * 2)
    model = build(algorithm, env, buffer_size=2000)
    found = ours(learn(model, 230, callback=callback).rows)
    counts, low, high = visits_of(callback)
    assert counts.sum() == 198, "all that was stored before the measurement at 200"
    np.testing.assert_allclose(low, [-1.2, -0.07])
    np.testing.assert_allclose(high, [0.6, 0.07])
    stored = model.replay_buffer.observations[:99].reshape(-1, 2).astype(np.float64)
    expected = np.histogram2d(stored[:, 0], stored[:, 1], bins=30, range=[(low[i], high[i]) for i in range(2)])[0]
    np.testing.assert_array_equal(counts, expected)
    picture = found["exploration/visited"].image
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_other_observations_have_no_map(algorithm: Any) -> None:
    assert "exploration/visited" not in ours(learn(build(algorithm), 90, callback=ExplorationCallback(60)).rows)
