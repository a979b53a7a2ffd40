"""
Every target policy, return model and head finds the solution of a small decision process that is known exactly.

The transitions of the process are random; some terminate, some are truncated by a time limit. The solutions are computed by
value iteration, for soft policies by soft value iteration, whose temperature is (1 - alpha) times theirs (Vieillard et al.,
2020, https://arxiv.org/abs/2007.14430, theorem 1). The replay buffer contains every outcome once, and every batch contains all
of them. Therefore, the Q-values converge to the solution, except for the approximation error of a return model.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import Logger

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.schedules import LinearSchedule
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.networks.heads import HEADS

Array = np.ndarray[Any, Any]

N_STATES, N_ACTIONS, N_OUTCOMES, GAMMA = 5, 3, 4, 0.6
ALPHA, TEMPERATURE = 0.5, 0.8

POLICY_KWARGS: dict[str, dict[str, Any]] = {"munchausen": {"alpha": ALPHA, "temperature": TEMPERATURE, "clip": -1000}}
RETURNS_KWARGS: dict[str, dict[str, Any]] = {
    "categorical": {"n_atoms": 41, "v_min": -4, "v_max": 10},
    "hl_gauss": {"n_bins": 40, "v_min": -4, "v_max": 10},
    "quantile": {"n_quantiles": 32, "kappa": 0},  # with kappa > 0 the fixed point is not the mean
    "implicit_quantile": {"n_quantiles": 16, "n_target_quantiles": 32, "embedding_dim": 16, "kappa": 0},
}
# for Q-values between -1 and 6. The mean of quantiles converges to that of the returns as their number grows.
TOLERANCES = {"expected": 0.03, "categorical": 0.05, "hl_gauss": 0.05, "quantile": 0.1}
WIDEST = 0.25
LINEAR = {"expected", "categorical", "hl_gauss", "quantile"}
"""The return models that need no hidden layer for one-hot states."""


class Process(gym.Env[Any, Any]):
    """An environment with the spaces of the process; it is not stepped."""

    observation_space = spaces.Discrete(N_STATES)
    action_space = spaces.Discrete(N_ACTIONS)


# (S, A, outcomes), each outcome as likely as the others
_random = np.random.default_rng(4)
REWARDS = _random.uniform(-1, 3, (N_STATES, N_ACTIONS, N_OUTCOMES))
NEXT_STATES = _random.integers(N_STATES, size=(N_STATES, N_ACTIONS, N_OUTCOMES))
TERMINATED = _random.random((N_STATES, N_ACTIONS, N_OUTCOMES)) < 0.1
TRUNCATED = ~TERMINATED & (_random.random((N_STATES, N_ACTIONS, N_OUTCOMES)) < 0.4)


def solution(temperature: float = 0.0, ended: Array = TERMINATED) -> Array:
    """Compute the (S, A) optimal Q-values; with a temperature, those of the entropy-regularized process."""
    q = np.zeros((N_STATES, N_ACTIONS))
    for _ in range(200):
        if temperature:
            best = q.max(axis=1)
            values = best + temperature * np.log(np.exp((q - best[:, None]) / temperature).sum(axis=1))
        else:
            values = q.max(axis=1)
        q = (REWARDS + GAMMA * ~ended * values[NEXT_STATES]).mean(axis=2)
    return q


def munchausen_solution() -> Array:
    """Compute the (S, A) soft solution plus the scaled log-policy that is added to the rewards."""
    soft = solution((1 - ALPHA) * TEMPERATURE)
    weights = np.exp(soft / ((1 - ALPHA) * TEMPERATURE))
    log_pi: Array = np.log(weights / weights.sum(axis=1, keepdims=True))
    return soft + ALPHA * TEMPERATURE * log_pi


SOLUTIONS = {"munchausen": munchausen_solution()}


def fill(model: DQNExt) -> None:
    """Store every outcome of every action in every state once, and make every batch contain all of them."""
    replay_buffer: Any = model.replay_buffer
    outcomes = list(itertools.product(range(N_STATES), range(N_ACTIONS), range(N_OUTCOMES)))
    for outcome in outcomes:
        replay_buffer.add(
            np.array([outcome[0]]),
            np.array([NEXT_STATES[outcome]]),
            np.array([outcome[1]]),
            np.array([REWARDS[outcome]]),
            np.array([TERMINATED[outcome] or TRUNCATED[outcome]]),
            [{"TimeLimit.truncated": bool(TRUNCATED[outcome])}],
        )
    replay_buffer.sampler.sample = lambda *_: (np.arange(len(outcomes)), None)


def train(target_policy: str, returns: str, head: str, seed: int = 0, n_updates: int = 500) -> Array:
    """Train a model and return its (S, A) Q-values."""
    linear = returns in LINEAR
    policy_kwargs: dict[str, Any] = {"net_arch": [] if linear else [64]}
    policy_kwargs |= {"head": head, "head_arch": [] if head == "shared" else [32] if linear else [64]}
    policy_kwargs |= {"returns": returns, "returns_kwargs": RETURNS_KWARGS.get(returns, {})}
    model = DQNExt(
        "MlpPolicy",
        Process(),
        learning_rate=LinearSchedule(0.05, 0.0005) if linear else LinearSchedule(0.01, 0.0001),
        buffer_size=N_STATES * N_ACTIONS * N_OUTCOMES,
        gamma=GAMMA,
        target_policy=target_policy,
        target_policy_kwargs=POLICY_KWARGS.get(target_policy, {}),
        target_update_unit="gradient_steps",
        target_update_interval=25,
        policy_kwargs=policy_kwargs | ({"loss": "mse"} if returns == "expected" else {}),
        seed=seed,
        device="cpu",
    )
    fill(model)
    model.set_logger(Logger(folder=None, output_formats=[]))
    for update in range(0, n_updates, 25):
        model._current_progress_remaining = 1 - update / n_updates
        model.train(gradient_steps=25, batch_size=1)
    with th.no_grad():
        q: Array = model.q_net(th.arange(N_STATES)).numpy()
    return q


def assert_solved(target_policy: str, returns: str, head: str) -> None:
    learned, expected = train(target_policy, returns, head), SOLUTIONS.get(target_policy, solution())
    assert np.abs(learned - expected).max() < TOLERANCES.get(returns, WIDEST)


Combination = tuple[str, str, str]
ALL: list[Combination] = list(itertools.product(TARGET_POLICIES, RETURN_MODELS, HEADS))


def pairs(combination: Combination) -> set[tuple[str, str]]:
    return set(itertools.combinations(combination, 2))


def pairwise(combinations: list[Combination]) -> Iterator[Combination]:
    """Generate a few combinations that contain every pair of choices; each is the one with most new pairs."""
    missing = set().union(*map(pairs, combinations))
    while missing:
        best = max(combinations, key=lambda combination: len(pairs(combination) & missing))
        missing -= pairs(best)
        yield best


FEW = list(pairwise(ALL))


@pytest.mark.parametrize("combination", FEW, ids="-".join)
def test_every_pair_of_choices_finds_the_solution(combination: Combination) -> None:
    assert_solved(*combination)


@pytest.mark.slow
@pytest.mark.parametrize("combination", [each for each in ALL if each not in FEW], ids="-".join)
def test_every_other_combination_finds_the_solution(combination: Combination) -> None:
    assert_solved(*combination)


def test_the_tolerance_distinguishes_the_solutions() -> None:
    solutions = {
        "greedy": solution(),
        "munchausen": munchausen_solution(),
        "without the log-policy": solution((1 - ALPHA) * TEMPERATURE),
        "soft": solution(TEMPERATURE),
        "no bootstrap at time limits": solution(ended=TERMINATED | TRUNCATED),
        "bootstrap after terminations": solution(ended=np.zeros_like(TERMINATED)),
    }
    for one, other in itertools.combinations(solutions, 2):
        assert np.abs(solutions[one] - solutions[other]).max() > WIDEST, (one, other)
    assert all(q.min() > -1 and q.max() < 6 for q in solutions.values())
