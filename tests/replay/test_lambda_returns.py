"""Lambda returns, compared with loops over the stored steps, and the values from which they bootstrap."""

import warnings
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.lambda_returns import LambdaReturns
from tests.internals import n_updates_of
from tests.parity import assert_same, learn, short_cartpole

Array = npt.NDArray[Any]
GAMMA = 0.9


def make_buffer(n_rows: int, n_envs: int, td_lambda: float, **kwargs: Any) -> DQNReplayBuffer:
    space = gym.spaces.Box(-1, 1, (2,))
    return DQNReplayBuffer(
        n_rows * n_envs, space, gym.spaces.Discrete(2), "cpu", n_envs, gamma=GAMMA, td_lambda=td_lambda, **kwargs
    )


def returns_of(buffer: DQNReplayBuffer) -> LambdaReturns:
    assert buffer.lambda_returns is not None
    return buffer.lambda_returns


def read_all(buffer: DQNReplayBuffer) -> Array:
    """Return the (rows, n_envs) returns of the stored rows."""
    batch = buffer.read(np.arange(buffer.size() * buffer.n_envs))
    assert batch.next_observations is None
    assert not batch.discounts.any()
    return batch.rewards.numpy().reshape(-1, buffer.n_envs)


def double_loop(steps: list[dict[str, Array]], td_lambda: float, gamma: float = GAMMA) -> Array:
    """
    Compute the returns of (T,) steps as the mixture of all n-step returns, by the definition: sum over n of (1 - lambda) *
    lambda**(n - 1) times the n-step return, with all remaining weight on the longest one.
    """
    n_envs = len(steps[0]["rewards"])
    returns = np.zeros((len(steps), n_envs))
    for env in range(n_envs):
        for t in range(len(steps)):
            total, weight, n_step_return = 0.0, 1.0, 0.0
            for n, step in enumerate(steps[t:], start=1):
                n_step_return += gamma ** (n - 1) * step["rewards"][env]
                bootstrapped = n_step_return + gamma**n * step["values"][env] * (not step["terminated"][env])
                is_last = bool(step["terminated"][env] or step["truncated"][env]) or t + n == len(steps)
                total += weight * (1.0 if is_last else 1 - td_lambda) * bootstrapped
                weight *= td_lambda
                if is_last:
                    break
            returns[t, env] = total
    return returns


class Stream:
    """A random stream of steps that is stored in a buffer and in a list."""

    def __init__(self, buffer: DQNReplayBuffer, seed: int) -> None:
        self.buffer, self.random = buffer, np.random.default_rng(seed)
        self.steps: list[dict[str, Array]] = []
        self.observations = self.random.uniform(-1, 1, (buffer.n_envs, 2)).astype(np.float32)

    def add(self, n_steps: int) -> None:
        n_envs = self.buffer.n_envs
        for _ in range(n_steps):
            terminated, truncated = self.random.random((2, n_envs)) < 0.1
            truncated &= ~terminated
            step = {
                "rewards": self.random.normal(size=n_envs).astype(np.float32),
                "values": self.random.normal(size=n_envs).astype(np.float32),
                "terminated": terminated,
                "truncated": truncated,
            }
            next_observations = self.random.uniform(-1, 1, (n_envs, 2)).astype(np.float32)
            returns_of(self.buffer).expect(step["values"])
            infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(one)} for one in truncated]
            actions = np.zeros((n_envs, 1), dtype=np.int64)
            self.buffer.add(self.observations, next_observations, actions, step["rewards"], terminated | truncated, infos)
            ended = (terminated | truncated)[:, None]
            first = self.random.uniform(-1, 1, (n_envs, 2)).astype(np.float32)
            self.observations = np.where(ended, first, next_observations)
            self.steps.append(step)

    def expected(self, td_lambda: float) -> Array:
        """Return the (rows, n_envs) returns of the stored rows."""
        n_stored = self.buffer.size()
        by_age = double_loop(self.steps[-n_stored:], td_lambda)
        rows = (self.buffer.pos - n_stored + np.arange(n_stored)) % self.buffer.buffer_size
        by_row = np.empty_like(by_age)
        by_row[rows] = by_age
        return by_row


def test_returns_computed_by_hand() -> None:
    buffer = make_buffer(4, 1, 0.5)
    for reward, value, terminated in [(1.0, 10.0, False), (2.0, 20.0, False), (3.0, 30.0, True), (4.0, 40.0, False)]:
        returns_of(buffer).expect(np.array([value]))
        zeros = np.zeros((1, 2), dtype=np.float32)
        buffer.add(zeros, zeros, np.zeros(1), np.array([reward]), np.array([terminated]), [{}])
    # the newest one: 4 + 0.9 * 40; the terminal one: 3; then 2 + 0.9 * (0.5 * 20 + 0.5 * 3) and 1 + 0.9 * (0.5 * 10 + ...)
    second = 2 + 0.9 * (10 + 1.5)
    np.testing.assert_allclose(read_all(buffer)[:, 0], [1 + 0.9 * (5 + 0.5 * second), second, 3, 40], rtol=1e-6)


@pytest.mark.parametrize("td_lambda", [0.0, 0.65, 1.0])
@pytest.mark.parametrize("n_envs", [1, 5])
def test_returns_equal_those_of_a_double_loop_at_any_time(td_lambda: float, n_envs: int) -> None:
    for seed in range(10):
        stream = Stream(make_buffer(150, n_envs, td_lambda), seed)
        for n_steps in stream.random.integers(1, 90, size=8).tolist():
            stream.add(n_steps)
            np.testing.assert_allclose(read_all(stream.buffer), stream.expected(td_lambda), rtol=1e-6, atol=1e-6)


def test_returns_that_are_swept_in_parts_have_the_bits_of_one_sweep() -> None:
    stream = Stream(make_buffer(300, 2, 0.95), 0)
    for _ in range(100):
        stream.add(7)
        in_parts = read_all(stream.buffer).copy()
    returns_of(stream.buffer).invalidate()
    np.testing.assert_array_equal(read_all(stream.buffer), in_parts)


def test_a_sweep_ends_where_no_return_changes() -> None:
    stream = Stream(make_buffer(10_000, 1, 0.5), 0)
    stream.add(10_000)
    read_all(stream.buffer)
    stream.add(1)
    returns_of(stream.buffer)._returns[:9_000] = np.nan  # rows far behind the newest one, which is row 0
    assert np.isfinite(read_all(stream.buffer)[0]).all()
    assert np.isnan(read_all(stream.buffer)[1:9_000]).all()


def test_another_gamma_applies_to_stored_steps() -> None:
    stream = Stream(make_buffer(50, 2, 0.65), 0)
    stream.add(50)
    read_all(stream.buffer)
    stream.buffer.set_multistep(1, 0.5)
    np.testing.assert_allclose(read_all(stream.buffer), double_loop(stream.steps, 0.65, 0.5), rtol=1e-6, atol=1e-6)


def test_n_steps_that_are_set_later_raise_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"n_steps=3 and td_lambda=0.65 define"):
        make_buffer(50, 2, 0.65).set_multistep(3, GAMMA)


def test_an_episode_that_is_reset_in_the_middle_bootstraps_from_its_last_value() -> None:
    stream = Stream(make_buffer(50, 2, 0.65), 0)
    stream.add(10)
    stream.observations = -stream.observations  # the observations of other episodes
    stream.steps[-1]["truncated"] = ~stream.steps[-1]["terminated"]
    stream.add(10)
    np.testing.assert_allclose(read_all(stream.buffer), stream.expected(0.65), rtol=1e-6, atol=1e-6)


# values at the time of acting


def two_cartpoles() -> VecEnv:
    return DummyVecEnv([lambda: short_cartpole(9)] * 2)


def model_of(env: Any, **kwargs: Any) -> DQNExt:
    defaults: dict[str, Any] = {
        "buffer_size": 64,
        "train_freq": 16,
        "n_epochs": 1,
        "batch_size": 8,
        "learning_starts": 0,
        "learning_rate": 1e-2,
        "target_network": False,
        "replay_buffer_kwargs": {"td_lambda": 0.65},
        "policy_kwargs": {"net_arch": [8]},
        "seed": 0,
        "device": "cpu",
    }
    return DQNExt("MlpPolicy", env, **defaults | kwargs)


def buffer_of(model: DQNExt) -> Any:
    return model.replay_buffer


@pytest.mark.parametrize("normalize", [False, True])
def test_the_stored_values_are_those_of_the_network_when_it_acts(normalize: bool) -> None:
    env: Any = two_cartpoles()
    model = model_of(VecNormalize(env, norm_reward=False, training=False) if normalize else env)
    learn(model, 32)  # one rollout, whose values are those of the initial network
    untrained, buffer = model_of(two_cartpoles()), buffer_of(model)
    with th.no_grad():
        values = untrained.q_net(th.as_tensor(buffer.next_observations[:16])).max(dim=2).values.numpy()
    is_bootstrapped = (buffer.dones[:16] == 0) | (buffer.timeouts[:16] == 1)
    assert (buffer.timeouts[:16] == 1).any()  # the values of final observations, not of the next episodes' first ones
    stored = buffer.lambda_returns.next_values[:16]
    np.testing.assert_allclose(stored[is_bootstrapped], values[is_bootstrapped], rtol=1e-5)


@pytest.mark.parametrize(
    "exploration", [{"exploration_final_eps": 0.0, "exploration_initial_eps": 0.0}, {"exploration": "boltzmann"}], ids=str
)
def test_the_network_is_evaluated_once_for_each_step(exploration: dict[str, Any]) -> None:
    model = model_of(two_cartpoles(), **exploration)
    calls: list[int] = []
    model.q_net.register_forward_hook(lambda *_: calls.append(1))
    learn(model, 32)
    n_truncated = int((buffer_of(model).timeouts[:16].sum(axis=1) > 0).sum())
    # the first observation of the rollout, 16 steps, the final observations, and the forward pass of each update; the targets
    # need none
    assert len(calls) == 1 + 16 + n_truncated + n_updates_of(model)


@pytest.mark.parametrize("exploration", ["epsilon_greedy", "boltzmann"])
def test_actions_are_those_without_stored_values(exploration: str) -> None:
    actions = []
    for kwargs in ({"td_lambda": 0.65}, {}):
        model = model_of(two_cartpoles(), exploration=exploration, replay_buffer_kwargs=kwargs, learning_rate=0.0)
        learn(model, 64)
        actions.append(buffer_of(model).actions)
    assert_same(actions[0], actions[1], "actions")


@pytest.mark.parametrize("resets", [False, True])
def test_greedy_actions_are_those_of_the_observations_also_after_a_reset_by_a_callback(resets: bool) -> None:
    model = model_of(two_cartpoles(), exploration_final_eps=0.0, exploration_initial_eps=0.0)
    env: Any = model.env

    def reset_every_third_step(local_variables: dict[str, Any], _: dict[str, Any]) -> bool:
        if resets and local_variables["self"].num_timesteps % 6 == 0:
            model._last_obs = env.reset()
        return True

    with th.no_grad():
        model.q_net.q_net[-1].bias.zero_()  # type: ignore[operator]  # greedy actions depend on the observations
    untrained = deepcopy(model.q_net)
    learn(model, 32, callback=reset_every_third_step)
    buffer = buffer_of(model)
    assert bool((buffer.timeouts[2] == 1).all()) == resets
    with th.no_grad():
        greedy = untrained(th.as_tensor(buffer.observations[:16]).flatten(0, 1)).argmax(dim=1)
    assert len(greedy.unique()) == 2
    np.testing.assert_array_equal(buffer.actions[:16].reshape(-1), greedy)


def test_a_network_learns_the_returns() -> None:
    model = model_of(two_cartpoles(), n_epochs=300, policy_kwargs={"net_arch": [64], "loss": "mse"}, batch_size=32)
    learn(model, 32)
    buffer = buffer_of(model)
    batch = buffer.read(np.arange(32))
    with th.no_grad():
        predicted = model.q_net(batch.observations).gather(1, batch.actions[:, None])[:, 0]
    before = model_of(two_cartpoles(), policy_kwargs={"net_arch": [64]})
    with th.no_grad():
        untrained = before.q_net(batch.observations).gather(1, batch.actions[:, None])[:, 0]
    assert (predicted - batch.rewards).square().mean() < 0.1 * (untrained - batch.rewards).square().mean()


# arguments


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_steps": 3}, "n_steps=3 and td_lambda=0.65 define two returns"),
        ({"replay_buffer_kwargs": {"td_lambda": 0.65, "monte_carlo": 0.5}}, "monte_carlo=0.5 and td_lambda=0.65"),
        ({"replay_buffer_kwargs": {"td_lambda": 1.5}}, "td_lambda=1.5"),
        ({"replay_buffer_kwargs": {"td_lambda": "high"}}, "td_lambda='high'"),
        ({"replay_buffer_kwargs": {"lambda": 0.65}}, "td_lambda"),
        ({"target_policy": "double"}, "target_policy='double' has no effect beside td_lambda=0.65"),
        ({"target_policy": "munchausen"}, "target_policy='munchausen' has no effect beside td_lambda=0.65"),
    ],
)
def test_a_wrong_argument_raises_an_error(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        model_of(two_cartpoles(), **kwargs)


def test_arguments_of_a_target_network_that_is_never_read_lead_to_a_warning() -> None:
    with pytest.warns(UserWarning, match="tau has no effect beside td_lambda=0.65"):
        model_of(two_cartpoles(), target_network=True, tau=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model_of(two_cartpoles(), target_network=True, tau=0.5, policy_kwargs={"net_arch": [8], "fitted_actions": "all"})


def test_normalized_rewards_raise_an_error() -> None:
    env = VecNormalize(DummyVecEnv([short_cartpole]))
    with pytest.raises(ArgumentError, match="td_lambda stores returns, which VecNormalize cannot rescale"):
        model_of(env)
    env.norm_reward = False
    model = model_of(env)
    env.norm_reward = True
    with pytest.raises(ArgumentError, match="td_lambda stores returns, which VecNormalize cannot rescale"):
        model.learn(32)


def test_an_algorithm_that_stores_no_values_raises_an_error() -> None:
    kwargs = {"td_lambda": 0.65, "gamma": 0.99}
    model = DQN("MlpPolicy", short_cartpole(), replay_buffer_class=DQNReplayBuffer, replay_buffer_kwargs=kwargs, device="cpu")
    with pytest.raises(UnsupportedError, match=r"td_lambda=0.65 needs the values .* DQNExt"):
        model.learn(10)
