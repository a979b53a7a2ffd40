"""The behaviour of DQNExt that SB3's DQN does not have."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from scipy.stats import binom, chisquare
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import DISABLED, Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.schedules import LinearSchedule
from sb3_dqn_ext.algorithm.target_policies import DoubleTarget, GreedyTarget
from tests.internals import drawn_batch, n_updates_of
from tests.parity import assert_same, learn, several_cartpoles, short_cartpole

SMALL: dict[str, Any] = {
    "learning_rate": 1e-2,
    "buffer_size": 200,
    "learning_starts": 20,
    "batch_size": 16,
    "policy_kwargs": {"net_arch": [16]},
    "seed": 1,
    "device": "cpu",
}


def make(**kwargs: Any) -> DQNExt:
    return DQNExt("MlpPolicy", kwargs.pop("env", None) or short_cartpole(), **(SMALL | kwargs))


# exploration


def explorers(model: DQNExt, epsilon: float, steps: int) -> np.ndarray[Any, Any]:
    """Count the environments that explored at each step, (steps,); the greedy action differs from every random one."""
    assert isinstance(model.env, VecEnv)
    greedy = 7
    policy: Any = model.policy
    policy.predict = lambda obs, *_: (np.full(len(obs), greedy), None)
    model.exploration_rate = epsilon
    obs = np.zeros((model.n_envs, 4), dtype=np.float32)
    return np.array([np.sum(model.predict(obs)[0] != greedy) for _ in range(steps)])


def test_the_number_of_environments_that_explore_is_binomial() -> None:
    n_envs, epsilon, steps = 4, 0.3, 4000
    counts = np.bincount(explorers(make(env=several_cartpoles(n_envs)), epsilon, steps), minlength=n_envs + 1)
    assert chisquare(counts, binom.pmf(range(n_envs + 1), n_envs, epsilon) * steps).pvalue > 1e-3


def test_with_a_shared_epsilon_draw_all_environments_explore_or_none() -> None:
    model = make(env=several_cartpoles(4), exploration_kwargs={"epsilon_draw": "shared"})
    counts = explorers(model, 0.3, 2000)
    assert set(counts) == {0, 4}
    assert np.mean(counts == 4) == pytest.approx(0.3, abs=0.04)


def test_without_exploration_every_action_is_the_policys_own() -> None:
    model = make(exploration="none")
    observations = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    records = learn(model, 200)
    assert_same(model.predict(observations)[0], model.predict(observations, deterministic=True)[0], "actions")
    assert {row["rollout/exploration_rate"] for row in records.rows} == {0.0}


class Rates(BaseCallback):
    """A callback that records the exploration rate of each action."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def _on_step(self) -> bool:
        self.rates.append(self.model.exploration_rate)  # type: ignore[attr-defined]
        return True


@pytest.mark.parametrize("of_class", [True, False], ids=["of a subclass", "assigned to the model"])
def test_training_acts_by_a_predict_of_ones_own(of_class: bool) -> None:
    def left(*args: Any, **kwargs: Any) -> Any:
        return np.zeros(1, dtype=np.int64), None

    class Left(DQNExt):
        predict = left

    model = (Left if of_class else DQNExt)("MlpPolicy", short_cartpole(), learning_starts=20, seed=0, device="cpu")
    if not of_class:
        model.predict = left  # type: ignore[method-assign]
    learn(model, 120)
    assert model.replay_buffer is not None
    actions = model.replay_buffer.actions[:120].ravel()
    assert set(actions[:20].tolist()) == {0, 1}
    assert set(actions[20:].tolist()) == {0}


@pytest.mark.parametrize("n_envs", [1, 4])
def test_a_schedule_of_our_own_sets_the_rate_in_environment_steps(n_envs: int) -> None:
    schedule = {"name": "exponential", "start": 0.9, "end": 0.1, "rate": 0.01}
    model = make(env=several_cartpoles(n_envs), train_freq=1, exploration_kwargs={"schedule": schedule})
    rates = Rates()
    model.learn(200, callback=rates)
    expected = [0.1 + 0.8 * math.exp(-0.01 * step) for step in range(0, 200, n_envs)]
    np.testing.assert_allclose(rates.rates, expected, rtol=1e-12)
    # the schedule continues when the run is continued
    rates.rates.clear()
    model.learn(40, callback=rates, reset_num_timesteps=False)
    np.testing.assert_allclose(rates.rates[0], 0.1 + 0.8 * math.exp(-2.0), rtol=1e-12)


def test_a_schedule_object_gives_the_bits_of_sb3s_exploration_arguments() -> None:
    # SB3's rate is 0 before its first step; the random warm-up hides that
    ours = make(exploration_kwargs={"schedule": LinearSchedule(0.9, 0.1, 0.5)})
    records = [learn(ours, 300).rows]
    theirs = DQN(
        "MlpPolicy",
        short_cartpole(),
        exploration_initial_eps=0.9,
        exploration_final_eps=0.1,
        exploration_fraction=0.5,
        **SMALL,
    )
    records.append(learn(theirs, 300).rows)
    assert_same(records[0], records[1], "logged")


def test_the_algorithms_own_generator_is_saved(tmp_path: Path) -> None:
    model = make(env=several_cartpoles(4))
    learn(model, 100)
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=several_cartpoles(4))
    draws = []
    for each in (model, loaded):
        np.random.seed(0)  # the first environment's random numbers
        draws.append(explorers(each, 0.5, 50))
    np.testing.assert_array_equal(draws[0], draws[1])


def test_the_same_seed_gives_the_same_run_with_several_environments() -> None:
    models = []
    for _ in range(2):
        models.append(make(env=several_cartpoles(4)))
        learn(models[-1], 400)
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")


# targets


def table(values: list[list[float]]) -> Any:
    """A Q-function that ignores its observation."""
    return lambda obs: th.tensor(values)


def test_greedy_follows_the_target_network_and_double_the_online_network() -> None:
    rewards = th.tensor([0.5, -0.5])
    nothing = th.zeros(2)
    batch = Batch(nothing, nothing, rewards, nothing, nothing, nothing, None, np.zeros(2, dtype=np.int64))
    online, target = table([[1.0, 3.0, 2.0], [5.0, 4.0, 0.0]]), table([[9.0, 8.0, 7.0], [0.0, 0.0, 1.0]])
    for policy, pi in ((GreedyTarget(), [[1.0, 0, 0], [0, 0, 1]]), (DoubleTarget(), [[0.0, 1, 0], [1, 0, 0]])):
        pi_t, r_t = policy(batch, online, target, target(None))
        assert_same(pi_t, th.tensor(pi), "pi")
        assert_same(r_t, rewards, "rewards")


@pytest.mark.parametrize("target_policy", ["greedy", "double"])
@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_the_loss_of_a_batch_equals_a_loop_over_its_transitions(target_policy: str, loss: str) -> None:
    model = make(target_policy=target_policy, policy_kwargs={"net_arch": [16], "loss": loss}, n_steps=2, gamma=0.9)
    learn(model, 200)
    with th.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(th.randn_like(parameter))  # for both parts of the Huber loss, and another argmax
    batch = drawn_batch(model, 64)
    assert isinstance(batch.observations, th.Tensor)
    assert isinstance(batch.next_observations, th.Tensor)
    differ = 0
    errors = model.updater.loss(batch)[0].tolist()
    for i in range(64):
        q = model.q_net(batch.observations[i : i + 1])[0].tolist()
        q_next = model.q_net(batch.next_observations[i : i + 1])[0].tolist()
        q_next_target = model.q_net_target(batch.next_observations[i : i + 1])[0].tolist()
        best, best_online = q_next_target.index(max(q_next_target)), q_next.index(max(q_next))
        differ += best != best_online
        bootstrap = q_next_target[best if target_policy == "greedy" else best_online]
        error = abs(q[int(batch.actions[i])] - (float(batch.rewards[i]) + float(batch.discounts[i]) * bootstrap))
        expected = error**2 if loss == "mse" else (0.5 * error**2 if error < 1 else error - 0.5)
        assert errors[i] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert differ > 0, "greedy and double would agree on all of the batch"


@pytest.mark.parametrize(("interval", "tau"), [(1, 0.1), (3, 0.5), (4, 1.0)])
def test_the_target_network_can_be_updated_every_few_gradient_steps(interval: int, tau: float) -> None:
    model = make(tau=tau, target_update_interval=interval, target_update_unit="gradient_steps", learning_starts=1000)
    learn(model, 100)
    assert_same(model.q_net_target.state_dict(), model.q_net.state_dict(), "no gradient step, no change")
    expected = [parameter.clone() for parameter in model.q_net_target.parameters()]
    for step in range(1, 9):
        model.train(gradient_steps=1, batch_size=16)
        if step % interval == 0:
            for mine, online in zip(expected, model.q_net.parameters(), strict=True):
                mine.copy_((1 - tau) * mine + tau * online.detach())
        for mine, theirs in zip(expected, model.q_net_target.parameters(), strict=True):
            th.testing.assert_close(theirs.detach(), mine.detach(), rtol=1e-6, atol=1e-7)


def test_one_call_with_many_gradient_steps_equals_many_calls_with_one() -> None:
    models = [make(tau=0.1, target_update_interval=2, target_update_unit="gradient_steps") for _ in range(2)]
    for model in models:
        model.set_random_seed(5)
        learn(model, 60)
    for model, steps in zip(models, ([6], [1] * 6), strict=True):
        np.random.seed(0)
        for n in steps:
            model.train(gradient_steps=n, batch_size=16)
    assert n_updates_of(models[0]) == n_updates_of(models[1])
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")


def test_without_a_target_network_targets_come_from_the_network_itself(tmp_path: Path) -> None:
    model = make(target_network=False)
    learn(model, 200)
    assert model.q_net_target is model.q_net
    batch = drawn_batch(model, 32)
    with th.no_grad():
        target = batch.rewards + batch.discounts * model.q_net(batch.next_observations).max(dim=1).values
        q = model.q_net(batch.observations)[th.arange(32), batch.actions]
    expected = th.nn.functional.smooth_l1_loss(q, target, reduction="none")
    th.testing.assert_close(model.updater.loss(batch)[0].detach(), expected)
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert loaded.q_net_target is loaded.q_net
    assert_same(loaded.get_parameters(), model.get_parameters(), "parameters")


# saving and loading


EVERYTHING: dict[str, Any] = {
    "target_policy": "double",
    "exploration_kwargs": {"epsilon_draw": "shared", "schedule": {"name": "constant", "val": 0.2}},
    "target_update_unit": "gradient_steps",
    "target_update_interval": 5,
    "tau": 0.3,
    "n_steps": 3,
    "optimize_memory_usage": True,
    "replay_buffer_kwargs": {"terminal_copies": 3, "terminal_on": "done"},
    "policy_kwargs": {
        "net_arch": [16],
        "head": "multi_head",
        "head_arch": [8],
        "loss": "mse",
        "activation_fn": "tanh",
        "optimizer_class": "rmsprop",
        "optimizer_kwargs": {"alpha": 0.9},
    },
}


def test_every_choice_survives_saving_and_loading_and_trains_on_alike(tmp_path: Path) -> None:
    model = make(**EVERYTHING)
    learn(model, 200)
    model.save(tmp_path / "model")
    loaded = [DQNExt.load(tmp_path / "model", env=short_cartpole()) for _ in range(2)]
    for name, value in EVERYTHING.items():
        assert getattr(loaded[0], name) == value, name
    observations = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    for other in loaded:
        assert_same(other.get_parameters(), model.get_parameters(), "parameters")
        assert_same(
            other.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0], "actions"
        )
    for other in loaded:
        other.set_random_seed(3)
        learn(other, 150, reset_num_timesteps=False)
    assert_same(loaded[0].get_parameters(), loaded[1].get_parameters(), "parameters after more training")
    assert n_updates_of(loaded[0]) > n_updates_of(model)


def test_arguments_can_be_changed_at_load_by_their_names(tmp_path: Path) -> None:
    make().save(tmp_path / "model")
    loaded = DQNExt.load(
        tmp_path / "model",
        env=short_cartpole(),
        target_policy="double",
        exploration_kwargs={"schedule": 0.25},
        replay_buffer_kwargs={"terminal_copies": 7},
    )
    learn(loaded, 60)
    assert isinstance(loaded.updater.loss.target_policy, DoubleTarget)
    assert loaded.exploration_rate == 0.25
    assert loaded.replay_buffer is not None
    assert loaded.replay_buffer.sampler.terminal_copies == 7  # type: ignore[attr-defined]


# the log


class Keys(BaseCallback):
    """A callback that lists the keys of the log after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[set[str]] = []

    def _on_step(self) -> bool:
        self.keys.append(set(self.logger.name_to_value))
        return True


def test_a_log_without_an_output_is_cleared_as_by_sb3() -> None:
    keys = []
    for kind in (DQNExt, DQN):
        callback = Keys()
        model = kind("MlpPolicy", short_cartpole(), **SMALL)
        model.learn(200, callback=callback, log_interval=1)
        assert not model.logger.output_formats
        keys.append(callback.keys)
    assert keys[0] == keys[1]
    assert keys[0].count(set()) > 2


def test_a_logger_of_your_own_without_an_output_gets_all_values() -> None:
    recorded: list[str] = []

    class Mine(Logger):
        def record(self, key: str, value: Any, exclude: Any = None) -> None:
            recorded.append(key)

    by_class, by_method = make(), make()
    by_class.set_logger(Mine(folder=None, output_formats=[]))
    by_class.learn(100, log_interval=1)
    by_method.set_logger(Logger(folder=None, output_formats=[]))
    n_recorded = recorded.count("rollout/ep_rew_mean")
    assert n_recorded > 2
    by_method.logger.record = lambda key, value, exclude=None: recorded.append(key)  # type: ignore[method-assign]
    by_method.learn(100, log_interval=1)
    assert recorded.count("rollout/ep_rew_mean") == 2 * n_recorded


def test_a_logger_whose_class_is_patched_gets_all_values(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[str] = []
    monkeypatch.setattr(Logger, "record", lambda logger, key, value, exclude=None: recorded.append(key))
    make().learn(100, log_interval=1)
    assert "rollout/ep_rew_mean" in recorded


def test_a_logger_that_is_turned_off_keeps_the_values_as_with_sb3() -> None:
    keys = []
    for kind in (DQNExt, DQN):
        model = kind("MlpPolicy", short_cartpole(), **SMALL)
        model.set_logger(Logger(folder=None, output_formats=[]))
        model.logger.set_level(DISABLED)
        model.learn(100, log_interval=1)
        keys.append(set(model.logger.name_to_value))
    assert keys[0] == keys[1]
    assert "rollout/ep_rew_mean" in keys[0]
