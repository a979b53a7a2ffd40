"""Models with action masks never choose an illegal action, and no target contains the value of one."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from stable_baselines3.common.callbacks import CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.action_masks import ILLEGAL_VALUE, mask_values
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.exploration import EXPLORATIONS, Exploration, ExplorationContext, sample_actions
from sb3_dqn_ext.algorithm.fitted_actions import fit_all
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.schedules import LinearSchedule
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS, ExpectedReturns
from sb3_dqn_ext.callbacks import DiagnosticsCallback
from sb3_dqn_ext.envs import ActionMaskInObservation
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.numpy_forward import QValues, make_numpy_q_values
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.fast.test_compiled import assert_trained_alike, pair
from tests.internals import last_observations_of
from tests.masked_envs import MASKED, IllegalActionError, Strict, strict
from tests.parity import learn, short_cartpole
from tests.paths import ROOT
from tests.processes import output, python
from tests.test_mdp import (
    ALPHA,
    GAMMA,
    LINEAR,
    N_ACTIONS,
    N_OUTCOMES,
    N_STATES,
    NEXT_STATES,
    RETURNS_KWARGS,
    REWARDS,
    TEMPERATURE,
    TERMINATED,
    TOLERANCES,
    TRUNCATED,
    WIDEST,
)
from tests.zoo.test_commands import zoo

Array = np.ndarray[Any, Any]

SMALL: dict[str, Any] = {
    "buffer_size": 200,
    "learning_starts": 30,
    "batch_size": 8,
    "train_freq": 1,
    "seed": 0,
    "device": "cpu",
}


def dummy(place: str, n_envs: int = 3) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(strict(place))] * n_envs)


def make(env: Any, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> DQNExt:
    return DQNExt("MlpPolicy", env, policy_kwargs={"net_arch": [8]} | MASKED | (policy_kwargs or {}), **SMALL | kwargs)


# a decision process with illegal actions of huge reward


HUGE = 9.0
LEGAL = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]], bool)
MDP_REWARDS = np.where(LEGAL[:, :, None], REWARDS, HUGE)
MDP_TERMINATED = np.where(LEGAL[:, :, None], TERMINATED, True)
CLIP = -3.0


class Process(gym.Env[Any, Any]):
    """An environment with the spaces of the process; it is not stepped."""

    observation_space = spaces.Dict(state=spaces.Discrete(N_STATES), action_mask=spaces.MultiBinary(N_ACTIONS))
    action_space = spaces.Discrete(N_ACTIONS)


def solution(temperature: float = 0.0, legal: Array = LEGAL) -> Array:
    """Compute the (S, A) optimal Q-values of policies that choose among some actions, as in ``tests/test_mdp.py``."""
    q = np.zeros((N_STATES, N_ACTIONS))
    for _ in range(200):
        masked = np.where(legal, q, -np.inf)
        values = best = masked.max(axis=1)
        if temperature:
            values = best + temperature * np.log(np.exp((masked - best[:, None]) / temperature).sum(axis=1))
        q = (MDP_REWARDS + GAMMA * ~MDP_TERMINATED * values[NEXT_STATES]).mean(axis=2)
    return q


def log_policy() -> Array:
    """Compute the (S, A) scaled log-probabilities of the soft solution."""
    temperature = (1 - ALPHA) * TEMPERATURE
    soft = np.where(LEGAL, solution(temperature), -np.inf)
    weights = np.exp(soft / temperature)
    with np.errstate(divide="ignore"):
        scaled: Array = TEMPERATURE * np.log(weights / weights.sum(axis=1, keepdims=True))
    return scaled


SOLUTIONS = {
    "greedy": solution(),
    "double": solution(),
    "munchausen": solution((1 - ALPHA) * TEMPERATURE) + ALPHA * log_policy(),
}


def observation(state: int) -> dict[str, Array]:
    return {"state": np.array([state]), "action_mask": LEGAL[state][None].astype(np.int8)}


def fill(model: DQNExt) -> None:
    """Store every outcome of all actions, of illegal ones, too; every batch contains all of them."""
    replay_buffer: Any = model.replay_buffer
    outcomes = list(itertools.product(range(N_STATES), range(N_ACTIONS), range(N_OUTCOMES)))
    for outcome in outcomes:
        replay_buffer.add(
            observation(outcome[0]),
            observation(NEXT_STATES[outcome]),
            np.array([outcome[1]]),
            np.array([MDP_REWARDS[outcome]]),
            np.array([MDP_TERMINATED[outcome] or TRUNCATED[outcome]]),
            [{"TimeLimit.truncated": bool(TRUNCATED[outcome] and not MDP_TERMINATED[outcome])}],
        )
    replay_buffer.sampler.sample = lambda *_: (np.arange(len(outcomes)), None)


def assert_solved(target_policy: str, returns: str) -> None:
    linear = returns in LINEAR
    policy_kwargs = {"net_arch": [] if linear else [64], "returns": returns, "returns_kwargs": RETURNS_KWARGS.get(returns, {})}
    munchausen = {"alpha": ALPHA, "temperature": TEMPERATURE, "clip": CLIP}
    model = make(
        Process(),
        policy_kwargs | ({"loss": "mse"} if returns == "expected" else {}),
        learning_rate=LinearSchedule(0.05, 0.0005) if linear else LinearSchedule(0.01, 0.0001),
        gamma=GAMMA,
        target_policy=target_policy,
        target_policy_kwargs=munchausen if target_policy == "munchausen" else {},
        target_update_unit="gradient_steps",
        target_update_interval=25,
    )
    fill(model)
    model.set_logger(Logger(folder=None, output_formats=[]))
    for update in range(0, 500, 25):
        model._current_progress_remaining = 1 - update / 500
        model.train(gradient_steps=25, batch_size=1)
    with th.no_grad():
        q: Array = model.q_net({"state": th.arange(N_STATES), "action_mask": th.tensor(LEGAL)}).numpy()
        unmasked: Array = model.q_net({"state": th.arange(N_STATES), "action_mask": th.ones(N_STATES, N_ACTIONS)}).numpy()
    assert (q[~LEGAL] == ILLEGAL_VALUE).all()
    assert (unmasked[~LEGAL] > unmasked[LEGAL].max()).all()  # the network has learned that illegal actions are the best ones
    tolerance, expected = TOLERANCES.get(returns, WIDEST), SOLUTIONS[target_policy]
    assert np.abs(q - expected)[LEGAL].max() < tolerance
    chosen = [int(model.predict(observation(state), deterministic=True)[0][0]) for state in range(N_STATES)]
    legal = np.where(LEGAL, expected, -np.inf)
    # the best two actions of a state can be closer to each other than the tolerance
    assert (legal[np.arange(N_STATES), chosen] > legal.max(axis=1) - 2 * tolerance).all()


ALL = list(itertools.product(TARGET_POLICIES, RETURN_MODELS))
FEW = [(list(TARGET_POLICIES)[i % 3], returns) for i, returns in enumerate(RETURN_MODELS)]


@pytest.mark.parametrize(("target_policy", "returns"), FEW)
def test_every_target_policy_and_return_model_finds_the_best_legal_policy(target_policy: str, returns: str) -> None:
    assert_solved(target_policy, returns)


@pytest.mark.slow
@pytest.mark.parametrize(("target_policy", "returns"), [each for each in ALL if each not in FEW])
def test_every_other_combination_finds_the_best_legal_policy(target_policy: str, returns: str) -> None:
    assert_solved(target_policy, returns)


def test_a_policy_with_illegal_actions_would_be_another_one() -> None:
    assert np.abs(solution() - solution(legal=np.ones_like(LEGAL)))[LEGAL].max() > 4 * WIDEST
    assert log_policy()[LEGAL].min() > CLIP


# the choice of actions


@dataclass(frozen=True)
class Random(Exploration):
    """An exploration of a user."""

    def __call__(self, context: ExplorationContext) -> Array:
        return np.array([context.random_action(env) for env in range(context.n_envs)])


RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "greedy, double": ("observation", {}, {"exploration": "none", "target_policy": "double"}),
    "epsilon-greedy, n-step": ("method", {}, {"n_steps": 3, "exploration_kwargs": {"schedule": 0.5}}),
    "ez-greedy, Monte-Carlo": (
        "info",
        {},
        {
            "exploration": "ez_greedy",
            "exploration_kwargs": {"schedule": 0.5, "mu": 1.2},
            "replay_buffer_kwargs": {"monte_carlo": 0.5},
        },
    ),
    "ladder, lambda returns": (
        "observation",
        {"fitted_actions": "all"},
        {
            "exploration": "epsilon_ladder",
            "exploration_kwargs": {"schedule": 0.5, "alpha": 1},
            "replay_buffer_kwargs": {"td_lambda": 0.7},
        },
    ),
    "Boltzmann, each observation once": (
        "method",
        {},
        {"exploration": "boltzmann", "optimize_memory_usage": True, "target_policy": "munchausen"},
    ),
    "noise, quantiles, priorities": (
        "info",
        {"noisy": True, "returns": "implicit_quantile"},
        {
            "exploration": "none",
            "exploration_kwargs": {"warm_up": False},
            "replay_buffer_kwargs": {"sampler": "prioritized", "terminal_copies": 2},
        },
    ),
    "a user's": ("observation", {}, {"exploration": Random}),
}


def assert_masks_are_observations(buffer: DQNReplayBuffer) -> None:
    """Check that each stored mask belongs to its observation: the two are equal."""
    first, n_rows = buffer.replayable_rows()
    rows = (first + np.arange(n_rows)) % buffer.buffer_size
    indices = (rows[:, None] * buffer.n_envs + np.arange(buffer.n_envs)).ravel()
    if buffer.monte_carlo:
        indices = buffer.sampler.replayable()  # type: ignore[assignment]
    batch: Any = buffer.read(indices)
    for obs in (batch.observations, batch.next_observations):
        if obs is not None:
            np.testing.assert_array_equal(obs["observation"].numpy(), obs["action_mask"].numpy())
    if batch.next_observations is not None:  # none is legal after a termination, one is everywhere else
        legal = batch.next_observations["action_mask"].numpy().any(axis=1)
        assert legal[batch.discounts.numpy() > 0].all()
        assert not legal.all()
    taken = batch.observations["action_mask"].gather(1, batch.actions.unsqueeze(1))
    assert bool((taken == 1).all())


@pytest.mark.parametrize("name", RUNS)
def test_no_illegal_action_is_chosen_with_any_exploration(name: str) -> None:
    place, policy_kwargs, kwargs = RUNS[name]
    model = make(dummy(place), policy_kwargs, **kwargs)
    learn(model, 270)
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    assert_masks_are_observations(model.replay_buffer)
    obs: Any = last_observations_of(model)
    for deterministic in (True, False):
        for _ in range(10):
            actions, _ = model.predict(obs, deterministic=deterministic)
            assert obs["action_mask"][np.arange(3), actions].all()
            single, _ = model.predict({key: part[0] for key, part in obs.items()}, deterministic=deterministic)
            assert obs["action_mask"][0, single]


VEC_ENVS: dict[str, Callable[[], VecEnv]] = {
    "processes": lambda: SubprocVecEnv([lambda: strict("method")] * 2, start_method="fork"),
    "FastVecEnv, in turn": lambda: make_fast_vec_env("tests/Strict-v0", 2, vectorization_mode="sync"),
    "FastVecEnv, a wrapper": lambda: make_fast_vec_env(
        "tests/Strict-v0", 2, vectorization_mode="sync", env_kwargs={"place": "info"}
    ),
    "normalised rewards": lambda: VecNormalize(dummy("info", 2), norm_obs=False),
}


@pytest.mark.parametrize("name", VEC_ENVS)
def test_masks_belong_to_their_states_in_every_vec_env(name: str, open_envs: list[VecEnv]) -> None:
    open_envs.append(VEC_ENVS[name]())
    model = make(open_envs[-1], n_steps=2, exploration_kwargs={"schedule": 0.3})
    learn(model, 160)
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    assert_masks_are_observations(model.replay_buffer)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(EXPLORATIONS)), st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 9), st.floats(0, 1))
def test_no_exploration_chooses_an_illegal_action(name: str, seed: int, n_envs: int, n_actions: int, rate: float) -> None:
    exploration, random, space = EXPLORATIONS[name](), np.random.default_rng(seed), spaces.Discrete(n_actions, seed=seed)
    state: dict[str, Array] = {}
    for _ in range(20):
        legal = random.random((n_envs, n_actions)) < random.random()
        legal[np.arange(n_envs), random.integers(n_actions, size=n_envs)] = True
        q = (random.standard_normal((n_envs, n_actions)) * 10.0 ** random.integers(-3, 30)).astype(np.float32)
        q = mask_values(q, {"action_mask": legal})

        def random_action(env: int, legal: Array = legal) -> Any:
            return space.sample(mask=legal[env].astype(np.int8))

        def q_values(q: Array = q) -> Array:
            return q

        def greedy(q: Array = q) -> Array:
            return np.asarray(q.argmax(axis=1))

        context = ExplorationContext(n_envs, rate, greedy, q_values, random_action, random, state, legal)
        assert legal[np.arange(n_envs), exploration(context)].all()


def test_an_action_of_probability_0_is_not_drawn_where_rounding_leaves_a_gap() -> None:
    probabilities = np.array([[0.0, 0.3, 0.3, 0.3999, 0.0]])  # their sum is below 1
    assert sample_actions(probabilities, np.array([0.99999])).tolist() == [3]
    assert sample_actions(probabilities, np.array([0.0])).tolist() == [1]


# targets and losses


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TARGET_POLICIES)), st.integers(0, 2**31))
def test_target_policies_are_those_of_the_legal_actions_alone(name: str, seed: int) -> None:
    random, n_actions = th.Generator().manual_seed(seed), 5
    policy = TARGET_POLICIES[name]()
    q, q_online = (th.randn(2, 1, n_actions, generator=random, dtype=th.float64) for _ in range(2))
    legal = th.rand(2, 1, n_actions, generator=random) < 0.5
    action = int(th.randint(n_actions, (1,), generator=random))
    legal[:, :, action] = True

    def compute(keep: tuple[Array, Array]) -> tuple[th.Tensor, th.Tensor]:
        """Compute policy and rewards from the Q-values at both states, with some actions only or with masked ones."""
        before, after = keep
        index = int(np.flatnonzero(before).tolist().index(action)) if before.sum() < n_actions else action
        of_state = {"s": (q[0], q_online[0], legal[0], before), "s'": (q[1], q_online[1], legal[1], after)}

        def values(which: int, obs: Any) -> th.Tensor:
            *both, mask, kept = of_state[obs]
            return both[which].masked_fill(~mask, ILLEGAL_VALUE)[:, kept]

        tensors = th.tensor([index]), th.tensor([0.5], dtype=th.float64), th.tensor([0.9], dtype=th.float64)
        batch: Any = Batch("s", *tensors, "s'", None, None, np.empty(0, np.int64))  # type: ignore[arg-type]
        return policy(batch, lambda obs: values(1, obs), lambda obs: values(0, obs), values(0, "s'"))

    all_actions = np.ones(n_actions, bool)
    pi, rewards = compute((all_actions, all_actions))
    legal_pi, legal_rewards = compute((legal[0, 0].numpy(), legal[1, 0].numpy()))
    assert pi[:, ~legal[1, 0]].eq(0).all()
    th.testing.assert_close(pi[:, legal[1, 0]], legal_pi)
    th.testing.assert_close(rewards, legal_rewards)


def test_a_loss_of_all_actions_is_one_of_all_legal_actions() -> None:
    random = th.Generator().manual_seed(0)
    predicted, of_target_net = (th.randn(3, 4, 1, generator=random) for _ in range(2))
    actions, target, legal = th.tensor([0, 2, 3]), th.randn(3, 1, generator=random), th.tensor(LEGAL_OF_THREE)
    losses, _ = fit_all(
        ExpectedReturns("mse"),
        Prediction(predicted),
        actions,
        Prediction(target),
        lambda: Prediction(of_target_net),
        legal,
    )
    for i in range(3):
        targets = [target[i, 0] if a == actions[i] else of_target_net[i, a, 0] for a in range(4)]
        squares = [float((predicted[i, a, 0] - targets[a]) ** 2) for a in range(4) if LEGAL_OF_THREE[i][a]]
        assert float(losses[i]) == pytest.approx(np.mean(squares))


LEGAL_OF_THREE = [[True, False, True, False], [False, False, True, False], [True, True, True, True]]


# the replay buffer


def stacks() -> spaces.Dict:
    return spaces.Dict(image=spaces.Box(0, 255, (2, 4, 4), np.uint8), action_mask=spaces.MultiBinary(19))


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"optimize_memory_usage": True}, {"storage": "frames"}, {"monte_carlo": 1.0}, {"n_steps": 1, "terminal_copies": 3}],
    ids=str,
)
def test_the_mask_after_n_steps_is_the_one_of_a_record(kwargs: dict[str, Any]) -> None:
    n_envs, n_added, n_steps = 2, 50, kwargs.get("n_steps", 3)
    buffer = DQNReplayBuffer(
        40 * n_envs, stacks(), spaces.Discrete(19), "cpu", n_envs, action_masks=True, **{"n_steps": 3, "gamma": 0.5} | kwargs
    )
    random = np.random.default_rng(5)

    def fresh() -> dict[str, Array]:
        return {"image": random.integers(256, size=(n_envs, 2, 4, 4), dtype=np.uint8), "action_mask": mask()}

    def mask() -> Array:
        return random.integers(2, size=(n_envs, 19), dtype=np.int8)

    record: list[tuple[Array, Array, Array, Array]] = []  # masks before and after each step, terminated, truncated
    obs = fresh()
    for _ in range(n_added):
        new_frame = random.integers(256, size=(n_envs, 1, 4, 4), dtype=np.uint8)
        following = {"image": np.concatenate([obs["image"][:, 1:], new_frame], axis=1), "action_mask": mask()}
        terminated, truncated = random.random(n_envs) < 0.15, random.random(n_envs) < 0.15
        truncated &= ~terminated
        record.append((obs["action_mask"], following["action_mask"], terminated, truncated))
        infos = [{"TimeLimit.truncated": bool(one)} for one in truncated]
        buffer.add(obs, following, np.zeros(n_envs), np.zeros(n_envs), terminated | truncated, infos)
        begin = fresh()
        ended = terminated | truncated
        obs = {key: np.where(ended.reshape(-1, *[1] * (part.ndim - 1)), begin[key], part) for key, part in following.items()}
    indices = np.unique(buffer.all_indices())
    batch: Any = buffer.read(indices)
    assert buffer.packed_masks is not None
    n_compared = 0
    for i, index in enumerate(indices.tolist()):
        row, env = divmod(index, n_envs)
        first = row + 40 if row + 40 < n_added else row
        last = first
        while not (record[last][2] | record[last][3])[env] and last + 1 < n_added:
            if last - first + 1 == n_steps and "monte_carlo" not in kwargs:
                break
            last += 1
        np.testing.assert_array_equal(batch.observations["action_mask"][i].numpy(), record[first][0][env])
        if not record[last][2][env]:
            np.testing.assert_array_equal(batch.next_observations["action_mask"][i].numpy(), record[last][1][env])
            n_compared += 1
    assert n_compared > 20


def test_masks_are_stored_as_bits() -> None:
    model = make(dummy("observation"))
    buffer: Any = model.replay_buffer
    assert buffer.observations["action_mask"].shape == (66, 3, 2)
    assert buffer.observations["action_mask"].dtype == np.uint8


# evaluations and compiled updates


def test_evaluations_of_sb3_and_contrib_choose_legal_actions(open_envs: list[VecEnv]) -> None:
    model = make(dummy("method"), exploration="boltzmann")
    often: dict[str, Any] = {"eval_freq": 20, "n_eval_episodes": 4, "verbose": 0, "warn": False}
    callbacks = CallbackList(
        [
            EvalCallback(dummy("method", 2), **often),
            EvalCallback(Monitor(strict("info")), deterministic=False, **often),
            MaskableEvalCallback(dummy("info", 2), **often),
            MaskableEvalCallback(Monitor(Strict("method")), **often),  # without a mask in its observation
        ]
    )
    model.learn(120, callback=callbacks)
    assert all(np.isfinite(callback.last_mean_reward) for callback in callbacks.callbacks)  # type: ignore[attr-defined]


def test_diagnostics_leave_illegal_actions_out() -> None:
    model = make(make_vec_env("tests/Strict-v0", n_envs=2, env_kwargs={"place": "info"}))
    records = learn(model, 160, callback=DiagnosticsCallback(every=40, calibration={"every": 40, "n_episodes": 2}))
    logged = {name: value for row in records.rows for name, value in row.items() if isinstance(value, int | float)}
    assert {"values/mean", "values/min", "values/spread", "values/action_gap", "values/target_outputs"} <= logged.keys()
    assert any(name.startswith("calibration/") for name in logged)
    assert all(abs(value) < 1e6 for value in logged.values())


def assert_masked_as_by_torch(q_values: QValues | None, model: DQNExt, obs: Any) -> None:
    """Compare the Q-values of a faster forward pass with those of the network, and check that there are illegal actions."""
    assert q_values is not None
    with th.no_grad():
        expected = model.q_net(model.policy.obs_to_tensor(obs)[0]).numpy()
    np.testing.assert_allclose(q_values(obs), expected, rtol=1e-5, atol=1e-6)
    illegal = obs["action_mask"] == 0
    assert illegal.any()
    assert (expected[illegal] == ILLEGAL_VALUE).all()


@pytest.mark.parametrize("returns", ["expected", "quantile"])
def test_the_forward_pass_of_numpy_masks_as_that_of_torch(returns: str) -> None:
    model = make(dummy("observation"), {"returns": returns})
    assert model.env is not None
    obs: Any = model.env.reset()
    assert_masked_as_by_torch(make_numpy_q_values(model.q_net, 3), model, obs)


@pytest.mark.slow
def test_the_zoo_trains_and_plays_with_legal_actions(tmp_path: Path) -> None:
    (tmp_path / "own_games.py").write_text((ROOT / "tests" / "masked_envs.py").read_text())
    configuration = {
        "policy": "MlpPolicy",
        "n_timesteps": 300,
        "n_envs": 2,
        "env_wrapper": [{"sb3_dqn_ext.envs.ActionMaskInObservation": {"source": "method"}}],
        "learning_starts": 50,
        "policy_kwargs": {"action_masks": True, "net_arch": [8]},
    }
    (tmp_path / "own.yml").write_text(yaml.safe_dump({"tests/StrictMethod-v0": configuration}))
    game = ("--algo", "dqn_ext", "--env", "tests/StrictMethod-v0", "-f", "logs", "--gym-packages", "own_games")
    often = ("--eval-freq", "100", "--eval-episodes", "3")
    zoo("train", *game, *often, "-conf", "own.yml", "--vec-env", "subproc", cwd=tmp_path)
    enjoyed = zoo("enjoy", *game, "--no-render", "-n", "300", "--stochastic", cwd=tmp_path)
    assert "Mean reward" in enjoyed
    zoo("enjoy", *game, "--no-render", "-n", "300", "--load-best", cwd=tmp_path)
    # record_video has no --gym-packages
    code = "import runpy, own_games; runpy.run_module('rl_zoo3.record_video', run_name='__main__')"
    output(python("-c", code, *game[:-2], "-n", "60", "-o", "films", cwd=tmp_path))
    assert list(tmp_path.glob("films/*.mp4"))
    run = "logs/dqn_ext/tests-StrictMethod-v0_1"
    output(python("-m", "sb3_dqn_ext.report", run, "--episodes", "5", "--gym-packages", "own_games", cwd=tmp_path))
    assert "has played 5 episodes, each after some random actions" in (tmp_path / run / "report.html").read_text()


class Stacked(Strict):
    """The same with its mask in an image of one channel, too."""

    def __init__(self) -> None:
        super().__init__(n_actions=9)
        self.observation_space = spaces.Dict(image=spaces.Box(0, 255, (3, 3, 1), np.uint8), action_mask=spaces.MultiBinary(9))

    def _next(self, ends: bool) -> tuple[Any, dict[str, Any]]:
        observation, info = super()._next(ends)
        image = (observation["action_mask"].astype(np.uint8) * 255).reshape(3, 3, 1)
        return {"image": image, "action_mask": observation["action_mask"]}, info


@pytest.mark.slow
def test_compiled_actions_for_images_use_masks() -> None:
    network = {"encoder": "minatar", "encoder_kwargs": {"features_dim": 8}} | MASKED
    model = DQNExt("CnnPolicy", Stacked(), policy_kwargs=network, compile={"unroll": 1}, **SMALL)
    learn(model, 60)
    assert_masked_as_by_torch(model.updater.numpy_q_values, model, last_observations_of(model))


@pytest.mark.slow
def test_compiled_updates_and_actions_of_numpy_use_masks() -> None:
    eager, compiled = pair(1, env=strict("info"), policy_kwargs=MASKED, target_policy="double")
    assert_trained_alike(eager, compiled)
    assert_masked_as_by_torch(compiled.updater.numpy_q_values, compiled, last_observations_of(eager))
    learn(compiled, 60, reset_num_timesteps=False)


# errors


def test_a_model_without_masks_chooses_illegal_actions() -> None:
    model = DQNExt("MultiInputPolicy", dummy("observation"), **SMALL)
    with pytest.raises(IllegalActionError):
        model.learn(100)


class NoneLegal(Strict):
    """An environment in which no action is legal after the first step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info

    def _next(self, ends: bool) -> tuple[Any, dict[str, Any]]:
        return super()._next(ends=bool(self.mask.any()))


class TruncatedWithoutLegal(Strict):
    """An environment in whose truncated final states no action is legal."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, False, terminated, info


def test_a_state_without_a_legal_action_is_an_error_with_the_name_of_the_environment() -> None:
    gym.register("tests/NoneLegal-v0", entry_point=f"{__name__}:NoneLegal")
    try:
        model = make(DummyVecEnv([lambda: gym.make("tests/NoneLegal-v0", disable_env_checker=True)]))
        with pytest.raises(ArgumentError, match=r"no action is legal in environment 0 \(tests/NoneLegal-v0\)"):
            model.learn(100)
    finally:
        del gym.registry["tests/NoneLegal-v0"]
    with pytest.raises(ArgumentError, match="no action is legal in <NoneLegal"):
        make(ActionMaskInObservation(NoneLegal("info"), "info")).learn(100)
    with pytest.raises(ArgumentError, match=r"final observation of environment 0 .*is truncated"):
        make(TruncatedWithoutLegal()).learn(200)
    obs: Any = {"observation": np.zeros(11, np.float32), "action_mask": np.zeros(11, np.int8)}
    with pytest.raises(ArgumentError, match="no action is legal in observation 0"):
        make(strict()).predict(obs, deterministic=True)


class First(Exploration):
    """An exploration that does not look at the mask."""

    def __call__(self, context: ExplorationContext) -> Array:
        return np.zeros(context.n_envs, np.int64)


class WithoutIndex(Exploration):
    """An exploration that draws random actions of no environment in particular."""

    def __call__(self, context: ExplorationContext) -> Array:
        return np.array([context.random_action() for _ in range(context.n_envs)])


@pytest.mark.parametrize(
    ("exploration", "message"),
    [(First, "First, or a method of MlpPolicy, has chosen an illegal action"), (WithoutIndex, r"random_action\(env\)")],
)
def test_an_exploration_that_chooses_illegal_actions_is_an_error(exploration: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(dummy("observation"), exploration=exploration).learn(100)


class OtherMask(gym.ObservationWrapper[Any, Any, Any]):
    """A wrapper that changes the space of the mask."""

    def __init__(self, env: gym.Env[Any, Any], mask: spaces.Space[Any] | None) -> None:
        super().__init__(env)
        vector = spaces.Box(0, 1, (11,), np.float32)
        self.observation_space = spaces.Dict({"observation": vector} if mask is None else {"action_mask": mask})

    def observation(self, observation: Any) -> Any:
        return observation


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: cast(Any, DQNExt)("MlpPolicy", strict(), action_masks=True), r"policy_kwargs=\{'action_masks': True\}"),
        (lambda: make(short_cartpole()), "needs Dict observations with the key 'action_mask'.*ActionMaskInObservation"),
        (lambda: make(OtherMask(strict(), None)), "needs Dict observations with the key 'action_mask'"),
        (lambda: make(OtherMask(strict(), spaces.MultiBinary(3))), r"must be a MultiBinary\(11\)"),
        (lambda: make(OtherMask(strict(), spaces.MultiBinary(11))), "no part beside 'action_mask'"),
        (
            lambda: make(strict(), {"action_masks": "info"}),
            "='info' must be True or False; .*ActionMaskInObservation",
        ),
        (lambda: make(VecNormalize(dummy("observation", 1))), "norm_obs_keys"),
        (lambda: make(strict()).predict(np.zeros(11)), "has no part 'action_mask'.*ActionMaskInObservation"),
        (
            lambda: DQNExt("MlpPolicy", short_cartpole()).predict(np.zeros(4, np.float32), action_masks=np.ones(2)),
            "needs a model with policy_kwargs",
        ),
        (lambda: ActionMaskInObservation(Strict("info")), "has no method action_masks"),
        (lambda: ActionMaskInObservation(Strict("info"), "inf"), "source='inf'.*'info'"),
        (lambda: ActionMaskInObservation(Strict("method"), "info").reset(), "returns no 'action_mask' in its info"),
        (lambda: ActionMaskInObservation(strict(), "info"), "have the part 'action_mask' already"),
        (lambda: ActionMaskInObservation(Strict("info"), lambda env, info: [1, 0]).reset(), r"must have the shape \(11,\)"),
        (lambda: ActionMaskInObservation(gym.make("Pendulum-v1"), "info"), "needs a Discrete action space"),
    ],
)
def test_a_wrong_argument_is_explained(function: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        function()


def test_a_function_of_a_user_is_a_source_of_masks() -> None:
    env = ActionMaskInObservation(Strict("info"), lambda env, info: info["action_mask"] * 3)
    learn(make(env), 60)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert env.action_masks().tolist() == observation["action_mask"].astype(bool).tolist()


def test_a_model_is_saved_and_loaded_with_its_masks(tmp_path: Path) -> None:
    model = make(dummy("info"))
    learn(model, 60)
    model.save(tmp_path / "model")
    obs: Any = last_observations_of(model)
    loaded = DQNExt.load(tmp_path / "model", env=dummy("info"))
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    learn(loaded, 60, reset_num_timesteps=False)
