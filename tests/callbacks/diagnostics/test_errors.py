"""TD errors of stored transitions."""

from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    TDErrorsCallback,
)
from sb3_dqn_ext.callbacks.diagnostics.model_access import (
    read_transitions,
    sample_indices,
    state_preserved,
    td_errors,
    terminal_indices,
)
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.callbacks.diagnostics.helpers import At, build, networks_of, ours, poles
from tests.closed_form_env import model_with_true_values
from tests.parity import learn


def brute_force(model: Any, cells: list[int]) -> list[float]:
    """Compute the TD error of each transition, from the arrays of the buffer and single calls of the networks."""
    buffer, normalize = model.replay_buffer, model.get_vec_normalize_env()
    n = getattr(buffer, "n_steps", 1)
    online, target = networks_of(model)

    def values(net: Any, observation: Any) -> Any:
        if normalize is not None:
            spread = np.sqrt(normalize.obs_rms.var + normalize.epsilon)
            observation = np.clip((observation - normalize.obs_rms.mean) / spread, -10, 10).astype(np.float32)
        with th.no_grad():
            answer = net(th.as_tensor(observation[None]))
        return (answer.mean(dim=1) if answer.dim() == 3 else answer)[0].numpy().astype(np.float64)

    errors = []
    for cell in cells:
        row, env = divmod(cell, buffer.n_envs)
        total, discount = 0.0, 1.0
        for k in range(n):
            at = (row + k) % buffer.buffer_size
            reward = float(buffer.rewards[at, env])
            total += discount * (reward if normalize is None else reward / np.sqrt(normalize.ret_rms.var + normalize.epsilon))
            discount *= model.gamma
            newest = at == (buffer.pos - 1) % buffer.buffer_size
            if buffer.dones[at, env] or newest:
                break
        if buffer.dones[at, env] and not buffer.timeouts[at, env]:
            discount = 0.0
        next_values = values(target, buffer.next_observations[at, env])
        action = int(buffer.actions[row, env, 0])
        policy = getattr(model, "target_policy", "greedy")
        if policy == "munchausen":
            shares = np.exp(next_values / 0.5) / np.exp(next_values / 0.5).sum()
            before = values(target, buffer.observations[row, env]) / 0.5
            total += 0.9 * max(0.5 * (before[action] - np.log(np.exp(before).sum())), -1.0)
            next_value = (shares * (next_values - 0.5 * np.log(shares))).sum()
        elif policy == "double":
            next_value = next_values[values(online, buffer.next_observations[at, env]).argmax()]
        else:
            next_value = next_values.max()
        errors.append(total + discount * next_value - values(online, buffer.observations[row, env])[action])
    return errors


OUR_MEMORY = {"replay_buffer_class": DQNReplayBuffer}
C51 = {"returns": "categorical", "returns_kwargs": {"v_min": -30, "v_max": 30}}


@pytest.mark.parametrize(
    ("algorithm", "arguments"),
    [
        (DQN, {}),
        (QRDQN, {}),
        (DQNExt, {}),
        (DQNExt, {"n_steps": 3}),
        (DQN, {"n_steps": 3}),
        (DQNExt, {"policy_kwargs": {"returns": "quantile"}, "replay_buffer_kwargs": {"sampler": "prioritized"}}),
        (DQN, OUR_MEMORY),
        (DQN, OUR_MEMORY | {"replay_buffer_kwargs": {"n_steps": 3, "gamma": 0.9}}),
        (DQNExt, {"target_policy": "double"}),
        (DQNExt, {"target_policy": "munchausen", "target_policy_kwargs": {"temperature": 0.5}}),
        (DQNExt, {"policy_kwargs": C51 | {"noisy": True, "head": "dueling"}}),
        (DQN, {"env": "normalised"}),
        (DQNExt, {"env": "normalised", "n_steps": 3}),
    ],
    ids=[
        *("DQN", "QRDQN", "DQNExt", "DQNExt n steps", "DQN n steps", "quantiles", "DQN our memory", "DQN our n steps"),
        *("double", "munchausen", "categorical", "DQN normalised", "DQNExt normalised"),
    ],
)
def test_errors_are_those_of_the_arrays(algorithm: Any, arguments: dict[str, Any]) -> None:
    env = VecNormalize(poles()) if "env" in arguments else None
    model = build(algorithm, target_update_interval=50, **(arguments | {"env": env, "learning_rate": 0.03, "gamma": 0.9}))
    learn(model, 190)
    cells = sample_indices(model.replay_buffer, 40, np.random.default_rng(0))
    with state_preserved(model), th.no_grad():
        found = td_errors(model, read_transitions(model, cells)).numpy()
    np.testing.assert_allclose(found, brute_force(model, cells.tolist()), rtol=1e-4, atol=1e-4)
    assert found.std() > 0.1


def test_true_values_have_no_errors(algorithm: Any) -> None:
    model = model_with_true_values(algorithm)
    for one, other in zip(*(net.parameters() for net in networks_of(model)), strict=True):
        other.data.copy_(one.data)
    found = ours(learn(model, 120, callback=TDErrorsCallback(100)).rows)
    assert found["errors/abs_max"] < 1e-4
    assert found["errors/terminal"] < 1e-4
    assert found["errors/bootstrapped"] < 1e-4
    assert found["errors/histogram"].shape == (512,)
    assert {f"errors/age_{i}_of_4" for i in range(1, 5)} < found.keys()


@pytest.mark.parametrize("batch_size", [2, 64], ids=["rare", "among those that were drawn"])
def test_terminal_transitions_are_found_and_measured_separately(algorithm: Any, batch_size: int) -> None:
    """The transitions that end an episode have a TD error of 5, the others of 0."""
    model = build(algorithm, poles(2, limit=500), learning_starts=10**6, gamma=0.5)
    for net in networks_of(model):
        for parameter in net.parameters():
            parameter.data.zero_()
        last = [layer for layer in net.modules() if isinstance(layer, th.nn.Linear)][-1]
        last.bias.data.fill_(2.0)  # one for each step, discounted

    def make_worse(model: Any) -> None:
        buffer = model.replay_buffer
        buffer.rewards[buffer.dones > 0] = 7

    found = ours(learn(model, 170, callback=[At(90, make_worse), TDErrorsCallback(90, batch_size)]).rows)
    assert found["errors/terminal"] == pytest.approx(5, abs=1e-5)
    assert found["errors/bootstrapped"] == pytest.approx(0, abs=1e-5)
    assert found["errors/abs_max"] in (pytest.approx(0, abs=1e-5), pytest.approx(5, abs=1e-5))


def test_the_only_end_is_found_in_whichever_environment_it_is(algorithm: Any) -> None:
    model = build(algorithm, poles(8), learning_starts=10**6, buffer_size=1600)

    def leave_one(model: Any) -> None:
        buffer = model.replay_buffer
        buffer.dones[:] = buffer.timeouts[:] = 0
        buffer.dones[3, 5] = 1
        buffer.rewards[3, 5] = 1000

    found = ours(learn(model, 1200, callback=[At(960, leave_one), TDErrorsCallback(970, batch_size=64)]).rows)
    assert found["errors/terminal"] == pytest.approx(1000, abs=10)


MEMORIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "SB3, half of it": (
        DQN,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "uniform": (DQNExt, {}),
    "half of it": (DQNExt, {"optimize_memory_usage": True}),
    "prioritized, half of it": (
        DQNExt,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"sampler": "prioritized", "terminal_copies": 2}},
    ),
    "episodes": (DQNExt, {"replay_buffer_kwargs": {"keep_episodes": 3}}),
    "prioritized, episodes": (DQNExt, {"replay_buffer_kwargs": {"keep_episodes": 3, "sampler": "prioritized"}}),
    "rows, realised returns": (
        DQNExt,
        {"replay_buffer_kwargs": {"sampler": "vector_steps", "monte_carlo": 0.5}, "learning_starts": 60},
    ),
}


@pytest.mark.parametrize("steps", [90, 150], ids=["filling", "full"])
@pytest.mark.parametrize("name", MEMORIES)
def test_what_can_be_replayed_is_drawn_and_nothing_else(name: str, steps: int) -> None:
    algorithm, arguments = MEMORIES[name]
    model = build(algorithm, poles(2), **({"learning_starts": 20} | arguments))
    learn(model, steps)
    buffer, drawn = model.replay_buffer, set()
    if algorithm is DQN:
        buffer._get_samples = lambda rows, env: drawn.update((rows[:, None] * 2 + np.arange(2)).ravel().tolist())
        buffer.sample(4000)
    else:
        drawn.update(buffer.sample_batch(4000).indices.tolist())
    assert set(sample_indices(buffer, 4000, np.random.default_rng(0)).tolist()) == drawn
    buffer.dones[buffer.pos], buffer.timeouts[buffer.pos] = 1, 0  # which may be no row of these
    ends = {cell for cell in drawn if buffer.dones.flat[cell] and not buffer.timeouts.flat[cell]}
    assert set(terminal_indices(buffer).tolist()) == ends
    assert len(ends) > 0


def test_prioritized_draws_are_described_by_their_probabilities() -> None:
    model = build(
        DQNExt, replay_buffer_kwargs={"sampler": "prioritized", "terminal_copies": 3, "sampler_kwargs": {"beta": 0.5}}
    )
    seen: list[dict[str, float]] = []

    def inspect(model: Any) -> None:
        sampler = model.replay_buffer.sampler
        there, priorities, _ = sampler.priorities()
        copies = np.array([3 if ended(model.replay_buffer, index) else 1 for index in there.tolist()])
        shares = copies * priorities
        drawn = np.bincount(np.searchsorted(np.cumsum(shares) / shares.sum(), np.random.default_rng(0).random(200_000)))
        frequencies = drawn / drawn.sum()
        seen.append(
            {
                "effective_sample_size": 1 / float((frequencies**2).sum()),
                "largest_weight": float(((frequencies / copies * copies.sum()).min()) ** -model_beta(model)),
            }
        )

    found = ours(learn(model, 150, callback=[At(140, inspect), TDErrorsCallback(140)]).rows)
    assert found["errors/beta"] == pytest.approx(0.5 + 0.5 * 139 / 150)
    assert found["errors/effective_sample_size"] == pytest.approx(seen[0]["effective_sample_size"], rel=0.02)
    assert found["errors/largest_weight"] == pytest.approx(seen[0]["largest_weight"], rel=0.2)
    assert found["errors/effective_share"] == pytest.approx(found["errors/effective_sample_size"] / 120)


def model_beta(model: Any) -> float:
    return float(0.5 + 0.5 * (1 - model._current_progress_remaining))


def ended(buffer: ReplayBuffer, cell: int) -> bool:
    return bool(buffer.dones[cell, 0] and not buffer.timeouts[cell, 0])
