"""Target policies compared with numbers computed by hand, and with loops over the transitions."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.target_policies import SYNONYMS, TARGET_POLICIES, GreedyTarget, MunchausenTarget, scaled_log_softmax
from sb3_dqn_ext.errors import ArgumentError
from tests.internals import drawn_batch, losses_of
from tests.parity import learn, short_cartpole

ALL_POLICIES = pytest.mark.parametrize("target_policy", TARGET_POLICIES)


def batch_of(actions: list[int], rewards: list[float], discounts: list[float]) -> Batch:
    """Make a batch of transitions from observation 0 to observation 1."""
    n = len(actions)
    return Batch(
        th.zeros(n),
        th.tensor(actions),
        th.tensor(rewards),
        th.tensor(discounts),
        th.ones(n),
        th.ones(n),
        None,
        np.zeros(n, np.int64),
    )


def q_function(now: Any, after: Any) -> Any:
    """Make a Q-function with the values ``now`` at observation 0 and ``after`` at observation 1."""
    return lambda obs: th.where(obs[:, None] == 0, th.tensor(now), th.tensor(after))


NOBODY: Any = None  # the online network, which must not be called


def test_munchausen_has_the_numbers_computed_by_hand() -> None:
    # temperature 0.5. Now: exp(q / 0.5) = 1, 3 -> pi = 1/4, 3/4. After: exp(q / 0.5) = 1, 1 -> pi = 1/2, 1/2, entropy log 2.
    target = q_function([[0.0, 0.5 * math.log(3)]] * 3, [[2.0, 2.0]] * 3)
    batch = batch_of(actions=[0, 1, 0], rewards=[1.0, 1.0, 1.0], discounts=[0.9, 0.9, 0.0])
    pi, rewards = MunchausenTarget(alpha=0.8, temperature=0.5, clip=-10)(
        batch, NOBODY, target, target(batch.next_observations)
    )
    th.testing.assert_close(pi, th.full((3, 2), 0.5))
    entropy = 0.5 * math.log(2)
    expected = [
        1 + 0.8 * 0.5 * math.log(1 / 4) + 0.9 * entropy,
        1 + 0.8 * 0.5 * math.log(3 / 4) + 0.9 * entropy,
        1 + 0.8 * 0.5 * math.log(1 / 4),  # the episode ended: there is no policy after it
    ]
    th.testing.assert_close(rewards, th.tensor(expected))


def test_the_log_policy_can_be_that_of_the_online_network() -> None:
    online, target = (q_function([values], [[2.0, 2.0]]) for values in ([0.0, 0.5 * math.log(3)], [0.5 * math.log(7), 0.0]))
    batch = batch_of(actions=[0], rewards=[1.0], discounts=[0.0])
    for name, probability in (("online", 1 / 4), ("target", 7 / 8)):
        policy = MunchausenTarget(alpha=0.8, temperature=0.5, clip=-10, log_policy_net=name)
        (reward,) = policy(batch, online, target, th.tensor([[2.0, 2.0]]))[1]
        assert float(reward) == pytest.approx(1 + 0.8 * 0.5 * math.log(probability))
        assert policy.needs_online_net == (name == "online"), "targets of several updates are computed at once without it"


def test_the_log_policy_is_clipped_before_it_is_weighted() -> None:
    target = q_function([[0.0, 5.0]], [[0.0, 100.0]])  # temperature * log pi(0) is -5, but for 1e-10
    (reward,) = MunchausenTarget(alpha=0.9, temperature=0.03, clip=-1)(
        batch_of([0], [2.0], [0.9]), NOBODY, target, th.tensor([[0.0, 100.0]])
    )[1]
    assert float(reward) == pytest.approx(2 - 0.9)


def test_the_defaults_of_munchausen_are_those_of_the_paper() -> None:
    assert MunchausenTarget() == MunchausenTarget(alpha=0.9, temperature=0.03, clip=-1)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 1000),
    st.floats(0, 1),
    st.sampled_from([1e-6, 1e-3, 0.03, 1.0, 1e3]),
    st.sampled_from([1e-3, 1.0, 1e6]),
)
def test_munchausen_equals_a_loop_over_actions_at_any_scale(seed: int, alpha: float, temperature: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    now, after = scale * rng.normal(size=(2, 4, 3)).astype(np.float32)
    actions, discounts = rng.integers(3, size=4).tolist(), [0.9, 0.0, 0.5, 1.0]
    batch = batch_of(actions, [1.0] * 4, discounts)
    pi, rewards = MunchausenTarget(alpha, temperature)(batch, NOBODY, q_function(now, after), th.tensor(after))
    assert th.isfinite(pi).all()
    assert th.isfinite(rewards).all()
    for i in range(4):
        now_i, after_i = log_policy(now[i].tolist(), temperature), log_policy(after[i].tolist(), temperature)
        entropy = -sum(math.exp(log) * log for log in after_i)
        logarithm = max(temperature * now_i[actions[i]], -1.0)
        np.testing.assert_allclose(pi[i], [math.exp(log) for log in after_i], atol=1e-4)
        assert float(rewards[i]) == pytest.approx(
            1 + alpha * logarithm + discounts[i] * temperature * entropy, rel=1e-4, abs=1e-4 * max(1.0, temperature)
        )


def log_policy(q: list[float], temperature: float) -> list[float]:
    """Compute log softmax(q / temperature) in double precision, with Python's exact sum."""
    gaps = [(value - max(q)) / temperature for value in q]
    normalizer = math.log(math.fsum(math.exp(gap) for gap in gaps))
    return [gap - normalizer for gap in gaps]


def test_without_log_policy_and_with_temperature_near_0_munchausen_is_greedy() -> None:
    rng = np.random.default_rng(0)
    q = th.tensor(rng.normal(size=(100, 4)), dtype=th.float32)
    batch = batch_of([0] * 100, rng.normal(size=100).tolist(), [0.99] * 100)
    pi, rewards = MunchausenTarget(alpha=0, temperature=1e-6)(batch, NOBODY, lambda obs: q, q)
    greedy_pi, greedy_rewards = GreedyTarget()(batch, NOBODY, NOBODY, q)
    th.testing.assert_close(pi, greedy_pi)
    th.testing.assert_close(rewards, greedy_rewards, atol=1e-5, rtol=0)


def test_the_scaled_logarithm_stays_finite_where_softmax_underflows() -> None:
    q = th.tensor([[1e6, 0.0, -1e6], [3.0, 3.0, 3.0]])
    for temperature in (1e-6, 0.03, 1.0):
        scaled = scaled_log_softmax(q, temperature)
        np.testing.assert_allclose(scaled[0], [0.0, -1e6, -2e6], atol=1e-6)
        np.testing.assert_allclose(scaled[1], -temperature * math.log(3), rtol=1e-6)


@ALL_POLICIES
def test_every_target_policy_returns_probabilities_and_finite_rewards(target_policy: str) -> None:
    rng = np.random.default_rng(1)
    now, after = rng.normal(size=(2, 16, 5)).astype(np.float32)
    batch = batch_of(rng.integers(5, size=16).tolist(), rng.normal(size=16).tolist(), [0.9] * 16)
    network = q_function(now, after)
    pi, rewards = TARGET_POLICIES[target_policy]()(batch, network, network, th.tensor(after))
    assert pi.shape == (16, 5)
    assert rewards.shape == (16,)
    assert (pi >= 0).all()
    th.testing.assert_close(pi.sum(dim=1), th.ones(16))


@pytest.mark.parametrize("n_steps", [1, 3])
def test_the_munchausen_loss_of_a_batch_equals_a_loop_over_its_transitions(n_steps: int) -> None:
    alpha, temperature, clip = 0.7, 0.2, -0.5
    model = DQNExt(
        "MlpPolicy",
        short_cartpole(),
        learning_starts=20,
        n_steps=n_steps,
        target_policy="munchausen",
        target_policy_kwargs={"alpha": alpha, "temperature": temperature, "clip": clip},
        policy_kwargs={"net_arch": [16], "loss": "mse"},
        seed=0,
        device="cpu",
    )
    learn(model, 100)
    with th.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(th.randn_like(parameter))  # so that the two networks differ
    batch = drawn_batch(model, 32)
    assert isinstance(batch.observations, th.Tensor)
    assert isinstance(batch.next_observations, th.Tensor)
    errors = losses_of(model, batch).tolist()
    clipped = 0
    for i in range(32):
        q = model.q_net(batch.observations[i : i + 1])[0].tolist()
        now = log_policy(model.q_net_target(batch.observations[i : i + 1])[0].tolist(), temperature)
        q_after = model.q_net_target(batch.next_observations[i : i + 1])[0].tolist()
        after = log_policy(q_after, temperature)
        action = int(batch.actions[i])
        clipped += temperature * now[action] < clip
        soft_value = sum(math.exp(log) * (q_b - temperature * log) for q_b, log in zip(q_after, after, strict=True))
        bonus = alpha * max(temperature * now[action], clip)
        target = float(batch.rewards[i]) + bonus + float(batch.discounts[i]) * soft_value
        assert errors[i] == pytest.approx((q[action] - target) ** 2, rel=1e-3, abs=1e-4)
    assert 0 < clipped < 32


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"alpha": 1.5}, r"alpha=1.5 must be a finite number in \[0, 1\]"),
        ({"alpha": "0.9"}, r"alpha='0.9' must be"),
        ({"temperature": 0}, r"temperature=0 must be a finite number in \[1e-06, inf\]"),
        ({"clip": 1}, r"clip=1 must be a finite number in \[-inf, 0\]"),
        ({"clip": -math.inf}, r"clip=-inf must be"),
        ({"log_policy_net": "onlin"}, r"log_policy_net='onlin'.*'online'"),
    ],
)
def test_an_invalid_argument_of_munchausen_raises_an_error(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        DQNExt("MlpPolicy", "CartPole-v1", target_policy="munchausen", target_policy_kwargs=kwargs)


@pytest.mark.parametrize("name", ["mdqn", "m-dqn", "M-DQN", "munchhausen"])
def test_an_error_suggests_munchausen_for_a_synonym(name: str) -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'munchausen'"):
        DQNExt("MlpPolicy", "CartPole-v1", target_policy=name)


def test_every_synonym_means_a_target_policy() -> None:
    assert set(SYNONYMS.values()) <= set(TARGET_POLICIES)
    assert not set(SYNONYMS) & set(TARGET_POLICIES)
