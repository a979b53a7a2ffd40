"""Epochs over the replay buffer, and an optimizer for each head, compared with plain PyTorch models and loops."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import Logger
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.batch_source import training_batches
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.heads import MultiHead
from sb3_dqn_ext.replay import DQNReplayBuffer, Sampler
from sb3_dqn_ext.saved_model.classes import SimpleLinearSchedule
from tests.internals import n_updates_of
from tests.parity import assert_same, learn, several_cartpoles, short_cartpole

N_EPISODES, GAMMA, LEARNING_RATE = 6, 0.9, 1e-2
BATCH_SIZE, N_EPOCHS = 8, 3


def monte_carlo(**kwargs: Any) -> DQNExt:
    """Make a model that learns from Monte-Carlo returns of the latest episodes, with an optimizer for each head."""
    arguments: dict[str, Any] = {
        "gamma": GAMMA,
        "learning_rate": LEARNING_RATE,
        "learning_starts": 0,
        "batch_size": BATCH_SIZE,
        "train_freq": (N_EPISODES, "episode"),
        "n_epochs": N_EPOCHS,
        "max_grad_norm": 1e9,
        "target_network": False,
        "replay_buffer_kwargs": {"monte_carlo": 1.0, "keep_episodes": N_EPISODES, "handle_timeout_termination": False},
        "policy_kwargs": {
            "net_arch": [10],
            "head": "multi_head",
            "head_arch": [10],
            "loss": "mse",
            "optimizer_per_head": True,
        },
        "buffer_size": 1000,
        "seed": 0,
        "device": "cpu",
    }
    return DQNExt("MlpPolicy", kwargs.pop("env", None) or short_cartpole(), **arguments | kwargs)


def buffer_of(model: DQNExt) -> DQNReplayBuffer:
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    return model.replay_buffer


class ReferenceModels:
    """One PyTorch model for each action, with a common trunk, its own head and its own Adam optimizer."""

    def __init__(self, model: DQNExt) -> None:
        net: Any = model.q_net.q_net
        trunk, heads = nn.Linear(4, 10), [nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 1)) for _ in range(2)]
        trunk.load_state_dict(net.trunk[0].state_dict())
        for head, theirs in zip(heads, net.heads, strict=True):
            head.load_state_dict(theirs.state_dict())
        self.models = [nn.Sequential(trunk, nn.ReLU(), head) for head in heads]
        self.optimizers = [th.optim.Adam(one.parameters(), lr=LEARNING_RATE) for one in self.models]

    def fit(self, action: int, observations: Any, returns: Any) -> None:
        loss = nn.functional.mse_loss(self.models[action](th.as_tensor(observations))[:, 0], th.as_tensor(returns))
        self.optimizers[action].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[action].step()

    def assert_equals(self, model: DQNExt) -> None:
        net: Any = model.q_net.q_net
        for action, one in enumerate(self.models):
            ours = [*net.trunk.parameters(), *net.heads[action].parameters()]
            for our, their in zip(ours, one.parameters(), strict=True):
                np.testing.assert_allclose(our.detach(), their.detach(), rtol=0, atol=1e-6)


def returns_by_row(buffer: DQNReplayBuffer) -> dict[int, float]:
    """Return the Monte-Carlo return of each stored step, by row."""
    returns, total = {}, 0.0
    for row in reversed(range(buffer.pos)):
        total = float(buffer.rewards[row, 0]) + GAMMA * total * (1 - float(buffer.dones[row, 0]))
        returns[row] = total
    return returns


def test_epochs_with_an_optimizer_for_each_head_train_separate_models_with_a_common_trunk() -> None:
    model = monte_carlo()
    reference = ReferenceModels(model)
    learn(model, 1)  # until the end of the sixth game
    buffer = buffer_of(model)
    returns = returns_by_row(buffer)
    rows = buffer.all_indices()
    assert sorted(rows) == sorted(returns)

    # the same shuffles: a second run records the state of numpy's generator when training begins
    again = monte_carlo()
    state: list[Any] = []
    train = again.train

    def record_and_train(gradient_steps: int, batch_size: int = 100) -> None:
        state.append(np.random.get_state())
        train(gradient_steps, batch_size)

    again.train = record_and_train  # type: ignore[method-assign]
    learn(again, 1)
    assert_same(again.get_parameters(), model.get_parameters(), "the run is reproducible")
    np.random.set_state(state[0])
    for action in range(2):
        of_action = np.array([row for row in rows if buffer.actions[row, 0, 0] == action])
        for _ in range(N_EPOCHS):
            shuffled = np.random.permutation(of_action)
            for start in range(0, len(shuffled), BATCH_SIZE):
                batch = shuffled[start : start + BATCH_SIZE]
                reference.fit(action, buffer.observations[batch, 0], np.array([returns[row] for row in batch], np.float32))  # type: ignore[index]
    reference.assert_equals(model)


def record_batches(model: DQNExt) -> list[Batch]:
    """Return a list to which every batch is added that the model draws from now on."""
    batches: list[Batch] = []
    draw = buffer_of(model).sample_batch

    def draw_and_record(*args: Any) -> Batch:
        batches.append(draw(*args))
        return batches[-1]

    buffer_of(model).sample_batch = draw_and_record  # type: ignore[method-assign, assignment]
    return batches


def test_a_batch_is_fitted_action_by_action_when_each_head_has_an_optimizer() -> None:
    model = monte_carlo(n_epochs=None, gradient_steps=4)
    reference, batches = ReferenceModels(model), record_batches(model)
    learn(model, 1)
    returns = returns_by_row(buffer_of(model))
    assert len(batches) == 4
    for batch in batches:
        for action in range(2):
            chosen = (batch.actions == action).numpy()
            if chosen.any():
                targets = np.array([returns[row] for row in batch.indices[chosen]], np.float32)
                reference.fit(action, batch.observations[chosen], targets)  # type: ignore[index]
    reference.assert_equals(model)


def test_each_head_has_its_own_running_averages_and_they_are_saved(tmp_path: Path) -> None:
    model = monte_carlo()
    learn(model, 1)
    model.save(tmp_path / "model")
    env = model.get_env()
    loaded = [DQNExt.load(tmp_path / "model", env=env) for _ in range(2)]
    states = [one.get_parameters()["policy.optimizer"]["heads"] for one in (model, *loaded)]
    assert len(states[0]) == 2
    trunk = [state["state"][0]["exp_avg"] for state in states[0]]
    assert not th.equal(trunk[0], trunk[1])
    assert_same(states[1], states[0], "optimizers")
    for one in loaded:
        one.set_random_seed(1)
        learn(one, 1, reset_num_timesteps=False)
    assert_same(loaded[0].get_parameters(), loaded[1].get_parameters(), "parameters after more training")
    assert n_updates_of(loaded[0]) > n_updates_of(model)


def test_a_learning_rate_schedule_applies_to_each_head() -> None:
    model = monte_carlo(learning_rate=SimpleLinearSchedule(1.0))
    model.set_logger(Logger(folder=None, output_formats=[]))
    model._current_progress_remaining = 0.25
    model._update_learning_rate(model.policy.optimizer)
    heads: Any = model.policy.optimizer
    assert [group["lr"] for optimizer in heads.optimizers for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("copies", [1, 4])
def test_an_epoch_contains_each_replayable_transition_once(copies: int, n_envs: int) -> None:
    model = monte_carlo(
        env=several_cartpoles(n_envs),
        replay_buffer_kwargs={"keep_episodes": N_EPISODES, "terminal_copies": copies},
        policy_kwargs={"net_arch": [8]},
    )
    seen: list[Batch] = []
    gradient_step = model.updater.gradient_step

    def remember(model: Any, optimizer: Any, batch: Batch, guard: Any) -> th.Tensor:
        seen.append(batch)
        return gradient_step(model, optimizer, batch, guard)

    model.updater.gradient_step = remember  # type: ignore[method-assign]
    learn(model, 1)
    buffer = buffer_of(model)
    ends = buffer.dones * (1 - buffer.timeouts)
    kept = Counter()  # type: ignore[var-annotated]
    for env in range(n_envs):
        last = np.flatnonzero(buffer.dones[:, env])  # no older episodes are stored
        for row in range(last[-1] + 1 if len(last) else 0):
            kept[row * n_envs + env] = copies if ends[row, env] else 1
    drawn = Counter(np.concatenate([batch.indices for batch in seen]).tolist())
    if n_envs == 1:
        assert drawn == {index: N_EPOCHS * count for index, count in kept.items()}
    else:  # with bootstrapped returns, open episodes are replayed, too
        assert {index: drawn[index] for index in kept} == {index: N_EPOCHS * count for index, count in kept.items()}
    size = sum(drawn.values()) // N_EPOCHS
    assert [len(batch.actions) for batch in seen] == ([BATCH_SIZE] * (size // BATCH_SIZE) + [size % BATCH_SIZE]) * N_EPOCHS
    assert n_updates_of(model) == len(seen)


# minibatches


@pytest.mark.parametrize("compile", [False, {"unroll": 3}], ids=str)
@pytest.mark.parametrize("sampler", ["uniform", "prioritized"])
def test_a_minibatch_is_trained_like_a_batch(compile: Any, sampler: str) -> None:
    def make(minibatch_size: int | None) -> DQNExt:
        arguments: dict[str, Any] = {"learning_starts": 20, "batch_size": 8, "seed": 0, "device": "cpu", "gradient_steps": 2}
        buffer_kwargs = {"sampler": sampler, "handle_timeout_termination": False}
        return DQNExt(
            *("MlpPolicy", short_cartpole()),
            minibatch_size=minibatch_size,
            compile=compile,
            target_update_unit="gradient_steps",
            target_update_interval=3,
            replay_buffer_kwargs=buffer_kwargs,
            **arguments,
        )

    model, batch_by_batch = make(2), make(None)
    learn(model, 20)
    parameters: dict[str, Any] = model.get_parameters()
    batch_by_batch.set_parameters(parameters)
    batches, parts, update = record_batches(model), [], model.updater.update

    def update_and_record(model_: Any, batches_: Batch, n_updates: int, guard: Any) -> th.Tensor:
        parts.extend(batches_.split(n_updates))
        return update(model_, batches_, n_updates, guard)

    model.updater.update = update_and_record  # type: ignore[method-assign, assignment]
    for _ in range(3):
        model.train(gradient_steps=2, batch_size=8)
    assert [len(batch.actions) for batch in batches] == [8] * 6
    assert n_updates_of(model) == len(parts) == 24
    for i, batch in enumerate(batches):
        assert sorted(batch.indices) == sorted(np.concatenate([part.indices for part in parts[4 * i : 4 * i + 4]]))
    batch_by_batch.updater.compiled = None
    for part in parts:
        batch_by_batch.updater.update(batch_by_batch, part, 1, None)
    for net in ("q_net", "q_net_target"):
        pairs = zip(getattr(model, net).parameters(), getattr(batch_by_batch, net).parameters(), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=0, atol=1e-6 if compile else 0)


class Backwards(Sampler):
    """A sampler of the newest rows, the newest one first."""

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Any, None]:
        return (first_row + n_rows - 1 - np.arange(batch_size)) % self.n_rows, None


@pytest.mark.parametrize(
    "replay", [{"sampler": "prioritized"}, {"sampler_kwargs": {"replace": False}}, {"sampler": Backwards}, {}], ids=str
)
def test_a_minibatch_is_a_random_part_of_a_batch(replay: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"learning_starts": 10**6, "batch_size": 16, "minibatch_size": 4, "seed": 0, "device": "cpu"}
    model = DQNExt("MlpPolicy", "CartPole-v1", replay_buffer_kwargs=replay, **arguments)
    model.learn(400)
    parts = [[np.median(part.indices) for part, _ in training_batches(model, 1, 16, lambda *_: 1)] for _ in range(400)]
    # the standard error of a mean is below 4 rows, or below 0.2 for the 16 newest ones
    spread = np.ptp(np.mean(parts, axis=0))
    assert spread < (1.5 if replay.get("sampler") is Backwards else 30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minibatch_size": 0}, "minibatch_size=0"),
        ({"minibatch_size": 3, "batch_size": 8}, "minibatch_size=3 must divide batch_size=8"),
        (
            {"minibatch_size": 1, "batch_size": 8, "policy_kwargs": {"net_arch": [8], "batch_norm": True}},
            "minibatch_size=1 is too small for batch normalisation",
        ),
        ({"minibatch_size": 4, "n_epochs": 1}, "minibatch_size has no effect beside n_epochs"),
    ],
    ids=str,
)
def test_an_invalid_minibatch_size_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        DQNExt("MlpPolicy", short_cartpole(), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_epochs": 0}, "n_epochs=0"),
        ({"n_epochs": 1.5}, "n_epochs=1.5"),
        ({"replay_buffer_kwargs": {"sampler": "prioritized"}}, "n_epochs=3 needs sampler='uniform'"),
        ({"replay_buffer_kwargs": {"sampler_kwargs": {"replace": False}}}, "'replace'.* no effect beside n_epochs"),
        ({"policy_kwargs": {"net_arch": [8], "batch_norm": True}}, "n_epochs=3 needs a network without batch normalisation"),
        ({"policy_kwargs": {"net_arch": [8], "norm": "batch"}}, "n_epochs=3 needs a network without batch normalisation"),
        ({"policy_kwargs": {"optimizer_per_head": True}}, "optimizer_per_head=True needs head='multi_head', not 'shared'"),
        (
            {"policy_kwargs": {"optimizer_per_head": True, "head": "multi_head", "head_arch": [4], "fitted_actions": "all"}},
            "optimizer_per_head=True needs fitted_actions='taken'",
        ),
    ],
    ids=str,
)
def test_a_contradiction_of_arguments_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        monte_carlo(**arguments)


def test_gradient_steps_beside_epochs_give_a_warning() -> None:
    with pytest.warns(UserWarning, match="gradient_steps has no effect beside n_epochs"):
        monte_carlo(gradient_steps=4)


def test_the_optimizers_share_all_parameters_except_the_heads() -> None:
    model = monte_carlo()
    optimizers: Any = model.policy.optimizer
    assert isinstance(model.q_net.q_net, MultiHead)
    parameters = [{id(p) for group in one.param_groups for p in group["params"]} for one in optimizers.optimizers]
    names = {id(parameter): name for name, parameter in model.q_net.named_parameters()}
    assert {names[i].split(".")[1] for i in parameters[0] & parameters[1]} == {"trunk"}
    assert {names[i].split(".")[2] for i in parameters[0] - parameters[1]} == {"0"}
    assert parameters[0] | parameters[1] == set(names)
