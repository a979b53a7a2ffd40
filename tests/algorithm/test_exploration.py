"""Explorations: their distributions, numbers computed by hand, and their state in the course of a run."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scipy.stats import chisquare
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.exploration import (
    EXPLORATIONS,
    SYNONYMS,
    Boltzmann,
    EpsilonGreedy,
    EpsilonLadder,
    ExplorationContext,
    EzGreedy,
    draw_per_env,
    sample_actions,
    softmax,
)
from sb3_dqn_ext.algorithm.schedules import ConstantSchedule, MultiplicativeSchedule, PerActionSchedule
from sb3_dqn_ext.errors import ArgumentError
from tests.internals import exploration_of, exploration_state_of, n_updates_of, set_exploration
from tests.parity import assert_same, assert_same_model, learn, several_cartpoles, short_cartpole

SMALL: dict[str, Any] = {
    "learning_rate": 1e-2,
    "buffer_size": 400,
    "learning_starts": 20,
    "batch_size": 16,
    "policy_kwargs": {"net_arch": [16]},
    "seed": 1,
    "device": "cpu",
}
GREEDY = 9
"""An action that is never drawn at random."""
Array = np.ndarray[Any, Any]


def make(**kwargs: Any) -> DQNExt:
    return DQNExt("MlpPolicy", kwargs.pop("env", None) or short_cartpole(), **(SMALL | kwargs))


def assert_same_bits(*arguments: dict[str, Any]) -> None:
    """Check that models with different arguments end with the same bits."""
    models = []
    for kwargs in arguments:
        models.append(make(**kwargs))
        learn(models[-1], 300)
    assert n_updates_of(models[0]) > 0
    assert_same_model(*models)


def contexts(n_envs: int, rate: float, values: Array | None = None, n_actions: int = 4) -> Callable[[], ExplorationContext]:
    """Return a function that makes the inputs of an exploration, with one state and seeded generators."""
    np.random.seed(0)
    generator, actions = np.random.default_rng(1), np.random.default_rng(2)
    state: dict[str, Array] = {}

    def given_q_values() -> Array:
        assert values is not None
        return values

    return lambda: ExplorationContext(
        n_envs,
        rate,
        greedy_actions=lambda: np.full(n_envs, GREEDY),
        q_values=given_q_values,
        random_action=lambda env: actions.integers(n_actions),
        generator=generator,
        state=state,
    )


# the random numbers that are compared with epsilon


def test_the_first_random_number_is_from_numpy_and_the_others_are_from_the_algorithm() -> None:
    np.random.seed(3)
    draws = draw_per_env(4, np.random.default_rng(5))
    np.random.seed(3)
    assert draws[0] == np.random.rand()
    np.testing.assert_array_equal(draws[1:], np.random.default_rng(5).random(3))


@pytest.mark.parametrize("exploration", [EpsilonGreedy(), EzGreedy(), EpsilonLadder(), Boltzmann()])
def test_a_step_draws_one_number_from_numpys_global_generator_with_every_exploration(exploration: Any) -> None:
    next_context = contexts(3, 0.5, np.zeros((3, 4)))
    for _ in range(10):
        exploration(next_context())
    after = np.random.rand()
    np.random.seed(0)
    assert after == np.random.rand(11)[-1]


# ez_greedy


def test_durations_are_zeta_distributed() -> None:
    next_context = contexts(1, 1.0)
    explore = EzGreedy(mu=2, max_duration=20)
    durations = []
    for _ in range(5000):
        explore(now := next_context())
        durations.append(int(now.state["remaining"][0]) + 1)
        now.state["remaining"][:] = 0
    counts = np.bincount(durations, minlength=21)[1:]
    zeta = math.pi**2 / 6
    probabilities = [1 / (zeta * k**2) for k in range(1, 20)]
    probabilities.append(1 - sum(probabilities))  # all longer ones are cut to 20
    assert chisquare(counts, np.array(probabilities) * 5000).pvalue > 1e-3


def test_repeated_actions_are_uniform_and_repeated_for_their_duration() -> None:
    next_context, explore = contexts(1, 0.2), EzGreedy()
    actions, remaining = [], []
    for _ in range(6000):
        actions.append(int(explore(now := next_context())[0]))
        remaining.append(int(now.state["remaining"][0]))
    starts = []
    for i, left in enumerate(remaining):
        if actions[i] != GREEDY and (i == 0 or remaining[i - 1] == 0):
            starts.append(i)
            assert set(actions[i : i + left + 1]) == {actions[i]}
            assert remaining[i : i + left + 1] == list(range(left, -1, -1))[: len(remaining) - i]
    idle = sum(i == 0 or remaining[i - 1] == 0 for i in range(len(remaining)))
    assert len(starts) / idle == pytest.approx(0.2, abs=0.02)
    assert chisquare(np.bincount([actions[i] for i in starts], minlength=4)).pvalue > 1e-3


def test_with_durations_of_1_ez_greedy_has_the_bits_of_epsilon_greedy() -> None:
    assert_same_bits(
        {"exploration": "ez_greedy", "exploration_kwargs": {"max_duration": 1, "schedule": 0.3}},
        {"exploration_kwargs": {"schedule": 0.3}},
    )


def test_each_environment_repeats_its_own_action() -> None:
    next_context, explore = contexts(3, 0.0), EzGreedy()
    now = next_context()
    now.state["remaining"], now.state["kept"] = np.array([2, 0, 1]), np.array([3, 1, 2])
    taken = [explore(next_context()).tolist() for _ in range(3)]
    assert taken == [[3, GREEDY, 2], [3, GREEDY, GREEDY], [GREEDY, GREEDY, GREEDY]]


class Watch(BaseCallback):
    """A callback that records the actions of each step and the remaining repetitions."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[Array] = []
        self.dones: list[Array] = []
        self.remaining: list[Array] = []

    def _on_step(self) -> bool:
        model: Any = self.model
        self.actions.append(self.locals["actions"].copy())
        self.dones.append(self.locals["dones"].copy())
        self.remaining.append(exploration_state_of(model)["remaining"].copy())
        return True


@pytest.mark.filterwarnings("ignore:gradient_steps=0")
@pytest.mark.parametrize("n_envs", [1, 3])
def test_repetition_of_an_action_ends_with_the_episode(n_envs: int) -> None:
    model = make(
        env=several_cartpoles(n_envs),
        learning_starts=0,
        gradient_steps=0,
        exploration="ez_greedy",
        exploration_kwargs={"mu": 1.2, "schedule": 0.5},
    )
    watch = Watch()
    model.learn(300 * n_envs, callback=watch)
    cut = 0
    for now, after in itertools.pairwise(range(len(watch.actions))):
        for env in range(n_envs):
            left, done = watch.remaining[now][env], watch.dones[now][env]
            if left and not done:
                assert watch.actions[after][env] == watch.actions[now][env]
                assert watch.remaining[after][env] == left - 1
            # a new repetition is at least one action long; at most one of ten thousand is as long as the rest of a long one
            cut += bool(left and done and watch.remaining[after][env] != left - 1)
    assert cut > 5


def test_a_reset_ends_all_repetitions_and_continued_training_continues_them() -> None:
    model = make(learning_starts=0, exploration="ez_greedy", exploration_kwargs={"schedule": 0.0})
    model.learn(10)
    for reset, remaining in ((False, 90), (True, 0)):
        exploration_state_of(model)["remaining"][:] = 100
        watch = Watch()
        model.learn(10, callback=watch, reset_num_timesteps=reset)
        cut = any(done[0] for done in watch.dones)
        assert watch.remaining[0][0] == (99 if remaining else 0)
        assert cut or watch.remaining[-1][0] == remaining


def test_repeated_actions_are_saved_and_loaded(tmp_path: Path) -> None:
    model = make(
        env=several_cartpoles(4), learning_starts=0, exploration="ez_greedy", exploration_kwargs={"mu": 1.1, "schedule": 0.5}
    )
    learn(model, 200)
    exploration_state_of(model)["remaining"][1:3] = 5
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=several_cartpoles(4), force_reset=False)
    assert_same(exploration_state_of(loaded), exploration_state_of(model), "state of the exploration")
    chosen = []
    for each in (model, loaded):
        np.random.seed(0)
        each.action_space.seed(0)
        chosen.append(np.array([each._sample_action(0, n_envs=4)[0] for _ in range(50)]))
    np.testing.assert_array_equal(chosen[0], chosen[1])
    again = DQNExt.load(tmp_path / "model", env=several_cartpoles(4))
    again.learn(0, reset_num_timesteps=False)
    assert exploration_state_of(again) == {}, "the environments were reset"


@pytest.mark.parametrize("n_observations", [None, 1, 2, 4, 7])
def test_predictions_of_the_user_do_not_change_the_repetitions_in_training(n_observations: int | None) -> None:
    model = make(env=several_cartpoles(4), exploration="ez_greedy", exploration_kwargs={"mu": 1.1, "schedule": 0.5})
    learn(model, 200)
    before = {key: numbers.copy() for key, numbers in exploration_state_of(model).items()}
    observations = np.zeros((4,) if n_observations is None else (n_observations, 4), dtype=np.float32)
    for _ in range(20):
        actions = model.predict(observations)[0]
        assert actions.shape == (() if n_observations is None else (n_observations,))
    assert_same(exploration_state_of(model), before, "state of the exploration")


# epsilon_ladder


def test_the_epsilons_of_the_ladder_are_those_of_ape_x() -> None:
    # alpha = 7, N = 8: the exponents are 1, 2, ..., 8
    np.testing.assert_allclose(EpsilonLadder().epsilons(0.4, 8), [0.4**k for k in range(1, 9)])
    np.testing.assert_allclose(EpsilonLadder(alpha=1).epsilons(0.5, 3), [0.5, 0.5**1.5, 0.25])
    np.testing.assert_array_equal(EpsilonLadder().epsilons(0.0, 3), np.zeros(3))
    np.testing.assert_array_equal(EpsilonLadder().epsilons(1.0, 3), np.ones(3))


def test_one_environment_has_epsilon_itself_and_the_bits_of_epsilon_greedy() -> None:
    kwargs = {"exploration_kwargs": {"schedule": 0.3}}
    assert_same_bits(kwargs | {"exploration": "epsilon_ladder"}, kwargs)


def test_each_environment_explores_at_its_own_rate() -> None:
    next_context, explore = contexts(4, 0.5), EpsilonLadder(alpha=3)
    explored = np.mean([explore(next_context()) != GREEDY for _ in range(6000)], axis=0)
    np.testing.assert_allclose(explored, [0.5, 0.25, 0.125, 0.0625], atol=0.02)


# boltzmann


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_actions_are_distributed_as_the_softmax_of_the_values(temperature: float) -> None:
    values = np.array([[0.0, 1.0, 0.5], [3.0, 3.0, 2.0]], dtype=np.float32)
    next_context, n = contexts(2, temperature, values), 5000
    actions = np.array([Boltzmann()(next_context()) for _ in range(n)])
    for env in range(2):
        weights = [math.exp(value / temperature) for value in values[env]]
        expected = [n * weight / sum(weights) for weight in weights]
        assert chisquare(np.bincount(actions[:, env], minlength=3), expected).pvalue > 1e-3


def test_softmax_is_right_at_any_scale() -> None:
    np.testing.assert_allclose(softmax(np.array([[0.0, math.log(3)]]), 1.0), [[0.25, 0.75]])
    np.testing.assert_allclose(softmax(np.array([[0.0, math.log(3)]]), 0.5), [[0.1, 0.9]])
    np.testing.assert_array_equal(softmax(np.array([[1e30, -1e30], [2.0, 2.0]]), 0.0), [[1, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(softmax(np.array([[1.0, 2.0]], dtype=np.float32), 1e30), [[0.5, 0.5]])


def test_the_sampled_action_is_the_one_whose_interval_contains_the_uniform_number() -> None:
    probabilities = np.array([[0.25, 0.0, 0.75]])
    for draw, action in ((0.0, 0), (0.2499, 0), (0.25, 2), (0.9999, 2)):
        assert sample_actions(probabilities, np.array([draw])) == [action]
    assert sample_actions(np.array([[0.1, 0.9 - 1e-12]]), np.array([1 - 1e-16])) == [1], "the sum is short of 1"


def test_boltzmann_uses_the_q_values_of_the_network_and_computes_them_once() -> None:
    model = make(exploration="boltzmann", exploration_kwargs={"temperature": 0.7})
    q_net = model.q_net
    calls = []
    q_net.register_forward_hook(lambda *args: calls.append(1))
    observation = np.array([0.1, 0.2, -0.1, 0.3], dtype=np.float32)
    weights = [math.exp(value / 0.7) for value in q_net(th.tensor(observation)[None])[0].tolist()]
    calls.clear()
    n = 2000
    actions = [int(model.predict(observation)[0]) for _ in range(n)]
    assert len(calls) == n
    expected = [n * weight / sum(weights) for weight in weights]
    assert chisquare(np.bincount(actions, minlength=2), expected).pvalue > 1e-3
    greedy = {int(model.predict(observation, deterministic=True)[0]) for _ in range(20)}
    assert greedy == {int(np.argmax(weights))}


def test_the_first_boltzmann_action_has_the_scheduled_temperature() -> None:
    schedule = {"name": "linear", "start": 2.0, "end": 1.0}
    model = make(exploration="boltzmann", exploration_kwargs={"temperature": schedule})
    assert model.exploration_rate == 2.0
    learn(model, 100)
    assert model.exploration_rate == pytest.approx(1.0)
    assert make(exploration="boltzmann").exploration_rate == 1.0


def test_at_temperature_0_boltzmann_is_greedy() -> None:
    model = make(exploration="boltzmann", exploration_kwargs={"temperature": 0})
    observations = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    assert_same(model.predict(observations)[0], model.predict(observations, deterministic=True)[0], "actions")


# all of them

KWARGS: dict[str, dict[str, Any]] = {"boltzmann": {"temperature": 0.5}, "none": {}}
ALL_EXPLORATIONS = pytest.mark.parametrize("exploration", EXPLORATIONS)


def kwargs_of(exploration: str) -> dict[str, Any]:
    return KWARGS.get(exploration, {"schedule": 0.5})


@ALL_EXPLORATIONS
@pytest.mark.parametrize("n_envs", [1, 3])
def test_every_exploration_trains_and_continues_after_loading(exploration: str, n_envs: int, tmp_path: Path) -> None:
    model = make(env=several_cartpoles(n_envs), exploration=exploration, exploration_kwargs=kwargs_of(exploration))
    learn(model, 120)
    model.save(tmp_path / "model")
    loaded = [DQNExt.load(tmp_path / "model", env=several_cartpoles(n_envs)) for _ in range(2)]
    for each in loaded:
        assert each.exploration_rate == model.exploration_rate
        each.set_random_seed(3)
        learn(each, 120, reset_num_timesteps=False)
    assert_same_model(*loaded)
    assert n_updates_of(loaded[0]) > n_updates_of(model) > 0


@ALL_EXPLORATIONS
def test_every_exploration_returns_one_action_per_observation(exploration: str) -> None:
    model = make(exploration=exploration, exploration_kwargs=kwargs_of(exploration))
    single = model.predict(np.zeros(4, dtype=np.float32))[0]
    several = model.predict(np.zeros((5, 4), dtype=np.float32))[0]
    assert (single.shape, several.shape) == ((), (5,))
    assert single.dtype == several.dtype == np.int64


@pytest.mark.filterwarnings("ignore:gradient_steps=0")
@ALL_EXPLORATIONS
def test_the_exploration_is_not_called_in_the_warm_up(exploration: str) -> None:
    model = make(exploration=exploration, exploration_kwargs=kwargs_of(exploration), learning_starts=50, gradient_steps=0)
    steps: list[int] = []
    forward: Any = exploration_of(model)

    class Counted(type(forward)):  # type: ignore[misc]
        def __call__(self, context: ExplorationContext) -> Array:
            steps.append(model.num_timesteps)
            actions: Array = forward(context)
            return actions

    set_exploration(model, Counted())
    model.learn(80)
    assert steps == list(range(50, 80))


@pytest.mark.parametrize(
    ("exploration", "kwargs", "key", "value"),
    [
        ("epsilon_greedy", {"schedule": 0.3}, "rollout/exploration_rate", 0.3),
        ("ez_greedy", {"schedule": 0.3}, "rollout/exploration_rate", 0.3),
        # 0.5, 0.25, 0.125, 0.0625
        ("epsilon_ladder", {"schedule": 0.5, "alpha": 3}, "rollout/exploration_rate", 0.234375),
        ("boltzmann", {"temperature": 0.3}, "rollout/temperature", 0.3),
        ("none", {}, "rollout/exploration_rate", 0.0),
    ],
)
def test_the_log_shows_how_much_is_explored(exploration: str, kwargs: dict[str, Any], key: str, value: float) -> None:
    model = make(env=several_cartpoles(4), exploration=exploration, exploration_kwargs=kwargs)
    # if two episodes end at the same step, the second log has no new values
    rows = [row for row in learn(model, 200).rows if "train/n_updates" in row]
    assert [row[key] for row in rows] == [pytest.approx(value)] * len(rows)
    assert rows
    other = {"rollout/exploration_rate", "rollout/temperature"} - {key}
    assert not any(other & set(row) for row in rows)


# schedules


@pytest.mark.parametrize(
    ("n_envs", "learning_starts", "step", "actions"),
    [(1, 0, 0, 0), (1, 0, 7, 7), (1, 20, 20, 0), (1, 20, 21, 1), (4, 0, 8, 2), (4, 10, 12, 0), (4, 10, 16, 1), (4, 10, 8, 0)],
)
def test_a_schedule_per_action_counts_what_each_environment_has_chosen(
    n_envs: int, learning_starts: int, step: int, actions: int
) -> None:
    halves = MultiplicativeSchedule(1.0, 0.0, 0.5)
    assert PerActionSchedule(halves, learning_starts, n_envs).value(step, 1000) == 0.5**actions


class Rates(BaseCallback):
    """A callback that records the exploration rate of each action."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def _on_step(self) -> bool:
        self.rates.append(self.model.exploration_rate)  # type: ignore[attr-defined]
        return True


@pytest.mark.parametrize(("n_envs", "warm_up"), [(1, 20), (4, 5)])  # in vector steps
def test_epsilon_is_multiplied_at_every_action_of_each_environment(n_envs: int, warm_up: int) -> None:
    schedule = {"name": "multiplicative", "start": 1.0, "end": 0.01, "factor": 0.9}
    kwargs = {"schedule": schedule, "unit": "actions"}
    model = make(env=several_cartpoles(n_envs), learning_starts=20, exploration_kwargs=kwargs)
    rates = Rates()
    model.learn(40 * n_envs, callback=rates)
    assert rates.rates[:warm_up] == [1.0] * warm_up
    np.testing.assert_allclose(rates.rates[warm_up:], [max(0.01, 0.9**k) for k in range(40 - warm_up)])


def test_a_line_over_actions_ends_with_the_run() -> None:
    kwargs = {"schedule": {"name": "linear", "start": 1.0, "end": 0.0}, "unit": "actions"}
    model = make(learning_starts=50, train_freq=1, exploration_kwargs=kwargs)
    rates = Rates()
    model.learn(150, callback=rates)
    np.testing.assert_allclose(rates.rates[50:], 1 - np.arange(100) / 100, atol=1e-12)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_without_a_warm_up_the_exploration_chooses_the_first_action(n_envs: int) -> None:
    schedule = {"name": "multiplicative", "start": 0.9, "end": 0.01, "factor": 0.9}
    kwargs = {"schedule": schedule, "unit": "actions", "warm_up": False}
    model = make(env=several_cartpoles(n_envs), learning_starts=10 * n_envs, exploration_kwargs=kwargs)
    rates = Rates()
    model.learn(20 * n_envs, callback=rates)
    np.testing.assert_allclose(rates.rates, [0.9 * 0.9**k for k in range(20)])
    assert n_updates_of(model) > 0


def test_without_a_warm_up_and_without_exploration_the_first_actions_are_greedy() -> None:
    model = make(learning_starts=40, exploration="none", exploration_kwargs={"warm_up": False})
    model.learn(28)
    assert n_updates_of(model) == 0
    buffer: Any = model.replay_buffer
    greedy = model.policy.predict(buffer.observations[:28, 0], deterministic=True)[0]
    np.testing.assert_array_equal(buffer.actions[:28, 0, 0], greedy)


# arguments


@pytest.mark.parametrize(
    ("exploration", "kwargs", "message"),
    [
        ("ez_greedy", {"mu": 1}, r"mu=1 must be greater than 1"),
        ("ez_greedy", {"mu": "2"}, r"mu='2' must be a finite number"),
        ("ez_greedy", {"max_duration": 0}, r"max_duration=0 must be a whole number in \[1, inf\]"),
        (
            "ez_greedy",
            {"epsilon_draw": "shared"},
            r"no argument 'epsilon_draw'.* exploration='epsilon_greedy', exploration_kwargs=.*'epsilon_draw'",
        ),
        ("epsilon_ladder", {"alpha": -1}, r"alpha=-1 must be a finite number in \[0, inf\]"),
        ("boltzmann", {"schedule": 0.1}, r"exploration_kwargs has no argument 'schedule'.*temperature, unit"),
        ("boltzmann", {"temperature": -1}, r"exploration_kwargs\['temperature'\] at step 0=-1.0 must be .*\[0, inf\]"),
        ("boltzmann", {"temperature": "hot"}, r"'hot' must be a schedule, a number, or a mapping"),
        ("epsilon_greedy", {"temperature": 0.1}, r"no argument 'temperature'.* exploration='boltzmann', "),
        ("epsilon_greedy", {"schedul": 0.1}, r"'schedul'.*Did you mean 'schedule'"),
        ("epsilon_greedy", {"schedule": 2}, r"exploration_kwargs\['schedule'\] at step 0=2.0 must be .*\[0, 1\]"),
        (
            "epsilon_greedy",
            {"schedule": {"name": "linear", "start": 1, "end": -1}},
            r"\['schedule'\] at step 1000000000=-1.0 must be",
        ),
        (
            "epsilon_greedy",
            {"schedule": {"name": "piecewise", "points": [[0, 1.0], [10, 1.5], [20, 0.1]]}},
            r"\['schedule'\] at step 10=1.5 must be .*\[0, 1\]",
        ),
        ("epsilon_greedy", {"schedule": 0.1, "unit": "action"}, r"unit='action'.*Did you mean 'actions'"),
        (
            "epsilon_greedy",
            {"unit": "actions"},
            r"\['unit'\]='actions' has no effect without exploration_kwargs\['schedule'\]",
        ),
        ("none", {"epsilon_draw": "shared"}, r"exploration_kwargs has no argument 'epsilon_draw'"),
        ("none", {"warm_up": 0}, r"exploration_kwargs\['warm_up'\]=0 must be True or False"),
    ],
)
def test_an_invalid_argument_raises_an_error(exploration: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(exploration=exploration, exploration_kwargs=kwargs)


@pytest.mark.parametrize("name", ["exploration_fraction", "exploration_initial_eps", "exploration_final_eps"])
def test_boltzmann_has_no_epsilon(name: str) -> None:
    with pytest.warns(UserWarning, match=f"{name} has no effect beside exploration='boltzmann'"):
        make(exploration="boltzmann", **{name: 0.5})


@pytest.mark.parametrize(
    ("name", "meant"),
    [("softmax", "boltzmann"), ("apex", "epsilon_ladder"), ("Ape-X", "epsilon_ladder"), ("eps_greedy", "epsilon_greedy")],
)
def test_an_error_suggests_the_exploration_for_a_synonym(name: str, meant: str) -> None:
    with pytest.raises(ArgumentError, match=f"Did you mean '{meant}'"):
        make(exploration=name)


def test_every_synonym_means_an_exploration() -> None:
    assert set(SYNONYMS.values()) <= set(EXPLORATIONS)
    assert not set(SYNONYMS) & set(EXPLORATIONS)


class UserSchedule(ConstantSchedule):
    def value(self, step: int, total_steps: int) -> float:
        return 1 - step / total_steps


def test_a_schedule_of_a_user_is_used_unchanged() -> None:
    model = make(exploration_kwargs={"schedule": UserSchedule(0.5)})
    learn(model, 100)
    assert model.exploration_rate == pytest.approx(0.0)


# training by episodes


class Fixed(gym.Env[Any, Any]):
    """An environment whose episodes have a fixed length."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int) -> None:
        self.length, self.steps = length, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self.steps = 0
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.ones(2, dtype=np.float32), 1.0, self.steps == self.length, False, {}


def fixed(*lengths: int) -> VecEnv:
    return DummyVecEnv([partial(Fixed, length) for length in lengths])


class Rollouts(BaseCallback):
    """A callback that counts rollouts, and the gradient steps between them."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.events: list[str] = []
        self.updates: list[int] = []
        self.stop_at = stop_at

    def _on_rollout_start(self) -> None:
        self.events.append("start")
        self.updates.append(n_updates_of(self.model))

    def _on_step(self) -> bool:
        self.events.append("step")
        assert self.locals["dones"].shape == (self.training_env.num_envs,)
        return self.num_timesteps != self.stop_at

    def _on_rollout_end(self) -> None:
        self.events.append("end")

    def steps(self) -> list[int]:
        """The number of vector steps of each rollout."""
        words = " ".join(self.events).split("start")
        return [word.count("step") for word in words[1:]]


@pytest.mark.parametrize(
    ("lengths", "k", "steps"),
    [
        # episodes end at steps 3, 6, 9, ... of the one and at 5, 10, 15, ... of the other environment
        ((3, 5), 1, [3, 2, 1, 3, 1]),
        ((3, 5), 2, [5, 4, 3]),
        # both end at the same step: two episodes are counted instead of one
        ((4, 4), 1, [4, 4]),
        ((4, 4), 3, [8, 8]),
        ((2,), 3, [6, 6]),
    ],
)
def test_episodes_are_counted_over_all_environments(lengths: tuple[int, ...], k: int, steps: list[int]) -> None:
    rollouts = Rollouts()
    model = make(env=fixed(*lengths), train_freq=(k, "episode"), gradient_steps=-1, learning_starts=0)
    model.learn(sum(steps) * len(lengths), callback=rollouts)
    assert rollouts.steps() == steps
    assert rollouts.events.count("end") == len(steps)
    # as many gradient steps as environment steps collected
    expected = np.cumsum(steps) * len(lengths)
    assert rollouts.updates == [0, *expected[:-1].tolist()]
    assert n_updates_of(model) == expected[-1]


def test_a_callback_can_stop_within_an_episode() -> None:
    rollouts = Rollouts(stop_at=8)
    model = make(env=fixed(30, 30), train_freq=(1, "episode"))
    model.learn(200, callback=rollouts)
    assert model.num_timesteps == 8
    assert rollouts.events == ["start", "step", "step", "step", "step"]


def test_a_list_from_yaml_is_a_train_freq() -> None:
    for given, meant in (
        ([2, "episode"], TrainFreq(2, TrainFrequencyUnit.EPISODE)),
        ([3, "step"], TrainFreq(3, TrainFrequencyUnit.STEP)),
        (3, TrainFreq(3, TrainFrequencyUnit.STEP)),
    ):
        assert_same(make(env=fixed(3, 5), train_freq=given).train_freq, meant, "train_freq")


def test_training_by_episodes_continues_after_loading(tmp_path: Path) -> None:
    model = make(env=several_cartpoles(3), train_freq=[2, "episode"])
    model.learn(200)
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=several_cartpoles(3))
    loaded.learn(200, reset_num_timesteps=False)
    assert n_updates_of(loaded) > n_updates_of(model) > 0


@pytest.mark.parametrize(
    ("train_freq", "message"),
    [
        (0, r"train_freq=0 must be a whole number in \[1, inf\]"),
        ("4", r"train_freq='4' must be a whole number"),
        ([1.5, "step"], r"train_freq=1.5 must be a whole number"),
        ([1, "episodes"], r"the unit of train_freq='episodes'.*Did you mean 'episode'"),
        ([1], r"train_freq=\[1\] must be a number of steps, or"),
        ((1, "step", 2), r"train_freq=\(1, 'step', 2\) must be"),
    ],
)
def test_an_invalid_train_freq_raises_an_error(train_freq: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(train_freq=train_freq)
