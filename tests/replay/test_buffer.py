"""The replay memory against lists and loops, and inside stock algorithms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import QRDQN
from scipy.stats import chisquare
from stable_baselines3 import DQN

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.index_set import IndexSet
from tests.parity import assert_same, assert_same_memory, dict_cartpole, learn, several_cartpoles, short_cartpole

BOX = spaces.Box(-np.inf, np.inf, (1,), np.float64)
DICT = spaces.Dict(name=BOX, twice=BOX)
ACTIONS = spaces.Discrete(5)
ROWS = 24


class Step(NamedTuple):
    """One transition; ``name`` is its observation, ``after`` the one that follows."""

    name: float
    after: float
    action: int
    reward: float
    terminated: bool
    truncated: bool


def scripted(n_steps: int, n_envs: int, seed: int = 0) -> list[list[Step]]:
    """Episodes of random lengths that end by termination or at a time limit; no two observations are equal."""
    rng = np.random.default_rng(seed)
    fresh = iter(np.arange(1.0, 10.0 * n_steps * n_envs))
    now = [next(fresh) for _ in range(n_envs)]
    script = []
    for _ in range(n_steps):
        row = []
        for env in range(n_envs):
            end = rng.random()
            step = Step(now[env], next(fresh), int(rng.integers(5)), float(rng.normal()), end < 0.15, 0.15 <= end < 0.3)
            now[env] = next(fresh) if step.terminated or step.truncated else step.after
            row.append(step)
        script.append(row)
    return script


def observation(names: list[float], space: spaces.Space[Any]) -> Any:
    array = np.array(names)[:, None]
    return {"name": array, "twice": 2 * array} if isinstance(space, spaces.Dict) else array


def name_of(obs: Any) -> Any:
    if isinstance(obs, dict):
        np.testing.assert_array_equal(obs["twice"], 2 * obs["name"])
        obs = obs["name"]
    return obs[:, 0].numpy()


def filled(
    script: list[list[Step]], space: spaces.Space[Any] = BOX, kind: type[DQNReplayBuffer] = DQNReplayBuffer, **kwargs: Any
) -> DQNReplayBuffer:
    n_envs = len(script[0])
    buffer = kind(ROWS * n_envs, space, ACTIONS, device="cpu", n_envs=n_envs, **kwargs)
    names = [step.name for step in script[0]]
    for i, row in enumerate(script):
        following = [step.name for step in script[i + 1]] if i + 1 < len(script) else [step.after for step in row]
        buffer.add(
            observation(names, space),
            observation([step.after for step in row], space),
            np.array([step.action for step in row]),
            np.array([step.reward for step in row]),
            np.array([step.terminated or step.truncated for step in row]),
            [{"TimeLimit.truncated": step.truncated} for step in row],
        )
        names = following
    return buffer


ENDS: dict[str, Callable[[Step], bool]] = {
    "terminated": lambda step: step.terminated,
    "truncated": lambda step: step.truncated,
    "done": lambda step: step.terminated or step.truncated,
}


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"terminal_on": "truncated"},
        {"terminal_on": "done"},
        {"terminal_on": "truncated", "handle_timeout_termination": False},
        {"n_steps": 3, "gamma": 0.9},
        {"space": DICT},
        {"optimize_memory_usage": True},
        {"optimize_memory_usage": True, "n_steps": 3, "gamma": 0.9, "space": DICT, "terminal_on": "done"},
    ],
    ids=str,
)
def test_terminal_copies_are_drawn_as_from_a_list_that_holds_them(kwargs: dict[str, Any], n_envs: int, length: int) -> None:
    copies, draws = 4, 40_000
    script = scripted(length, n_envs)
    buffer = filled(script, terminal_copies=copies, **kwargs)
    # with optimize_memory_usage a full ring cannot replay its oldest row
    kept = script[-(ROWS - 1 if kwargs.get("optimize_memory_usage") and length > ROWS else ROWS) :]
    ended = ENDS[kwargs.get("terminal_on", "terminated")]
    stored = [step.name for row in kept for step in row for _ in range(copies if ended(step) else 1)]
    assert any(ended(step) for row in kept for step in row)

    np.random.seed(0)
    drawn = name_of(buffer.sample_batch(draws).observations)
    names, expected = np.unique(stored, return_counts=True)
    counts = np.array([np.sum(drawn == name) for name in names])
    assert counts.sum() == draws, "something was drawn that is not stored"
    assert chisquare(counts, expected / expected.sum() * draws).pvalue > 1e-3


def brute_force(
    kept: list[list[Step]], i: int, env: int, n_steps: int, gamma: float, timeouts: bool
) -> tuple[float, float, float]:
    """n-step return by its definition: (reward, discount, name of the next observation)."""
    reward, discount = 0.0, 1.0
    for row in kept[i : i + n_steps]:
        step = row[env]
        reward += discount * step.reward
        discount *= gamma
        if step.terminated or (step.truncated and not timeouts):
            return reward, 0.0, step.after
        if step.truncated:
            break
    return reward, discount, step.after


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [1, 2, 5])
@pytest.mark.parametrize("space", [BOX, DICT], ids=["Box", "Dict"])
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
@pytest.mark.parametrize("timeouts", [False, True], ids=["", "handle_timeout_termination"])
def test_folded_transitions_equal_a_loop_over_the_episodes(
    length: int, n_envs: int, n_steps: int, space: spaces.Space[Any], compact: bool, timeouts: bool
) -> None:
    gamma = 0.9
    script = scripted(length, n_envs)
    buffer = filled(
        script, space, n_steps=n_steps, gamma=gamma, optimize_memory_usage=compact, handle_timeout_termination=timeouts
    )
    kept = script[-(ROWS - 1 if compact and length > ROWS else ROWS) :]
    expected = {
        step.name: (step.action, *brute_force(kept, i, env, n_steps, gamma, timeouts))
        for i, row in enumerate(kept)
        for env, step in enumerate(row)
    }
    np.random.seed(0)
    batch = buffer.sample_batch(2000)
    names = name_of(batch.observations)
    assert set(names) == set(expected)
    found = zip(batch.actions, batch.rewards, batch.discounts, name_of(batch.next_observations), strict=True)
    for name, (action, reward, discount, after) in zip(names, found, strict=True):
        assert action == expected[name][0]
        np.testing.assert_allclose([reward, discount], expected[name][1:3], rtol=1e-5, atol=1e-6)
        assert after == expected[name][3]
    assert batch.weights is None


def test_a_truncated_episode_still_bootstraps_from_its_true_last_observation_when_memory_is_optimized() -> None:
    script = scripted(20, 1, seed=0)
    cut = {row[0].name: row[0].after for row in script if row[0].truncated}
    assert cut
    buffer = filled(script, optimize_memory_usage=True, gamma=0.9)
    batch = buffer.sample_batch(500)
    after = dict(zip(name_of(batch.observations), name_of(batch.next_observations), strict=True))
    assert {name: after[name] for name in cut} == cut


def test_a_set_of_cells_keeps_what_a_python_set_keeps() -> None:
    rng = np.random.default_rng(0)
    ours: IndexSet = IndexSet(60)
    theirs: set[int] = set()
    for _ in range(1000):
        cells = rng.permutation(60)[:3]
        if rng.random() < 0.5:
            ours.add(cells)
            theirs |= set(cells.tolist())
        else:
            ours.discard(cells)
            theirs -= set(cells.tolist())
        assert sorted(ours.array.tolist()) == sorted(theirs)


def test_realised_returns_equal_the_hand_computed_ones() -> None:
    rewards = [1.0, 1.0, 1.0, 0.0]
    buffer = DQNReplayBuffer(10, BOX, ACTIONS, device="cpu", gamma=0.9, monte_carlo=1.0)
    for i, reward in enumerate(rewards):
        with pytest.raises(ArgumentError, match="no episode has ended"):
            buffer.sample_batch(1)
        arrays = (np.array([[float(i)]]), np.array([[i + 1.0]]), np.array([0]), np.array([reward]), np.array([i == 3]))
        buffer.add(*arrays, [{}])
    batch = buffer.sample_batch(100)
    found = dict(zip(name_of(batch.observations).tolist(), batch.rewards.tolist(), strict=True))
    assert found == pytest.approx({0.0: 2.71, 1.0: 1.9, 2.0: 1.0, 3.0: 0.0})
    assert not batch.discounts.any()


def ended_rows(script: list[list[Step]], env: int) -> list[tuple[int, int]]:
    """The first and last row of each episode that has ended."""
    ends = [i for i, row in enumerate(script) if row[env].terminated or row[env].truncated]
    return list(zip([0, *(end + 1 for end in ends)], ends, strict=False))


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize("timeouts", [False, True], ids=["", "handle_timeout_termination"])
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
def test_realised_returns_of_ended_episodes_are_mixed_with_n_step_returns(
    length: int, n_envs: int, share: float, timeouts: bool, compact: bool
) -> None:
    gamma, n_steps = 0.9, 2
    script = scripted(length, n_envs)
    buffer = filled(
        script,
        DICT,
        n_steps=n_steps,
        gamma=gamma,
        monte_carlo=share,
        handle_timeout_termination=timeouts,
        optimize_memory_usage=compact,
    )
    oldest = max(0, length - (ROWS - compact))
    expected: dict[float, list[tuple[float, float, float]]] = {}
    for env in range(n_envs):
        for first, last in ended_rows(script, env):
            for i in range(max(first, oldest), last + 1):
                near = brute_force(script, i, env, n_steps, gamma, timeouts)
                far = brute_force(script, i, env, last - i + 1, gamma, timeouts)
                if far[1] > 0:  # cut off: one or the other
                    expected[script[i][env].name] = [far] if share == 1 else [near, far]
                else:
                    reward, discount = ((1 - share) * a + share * b for a, b in zip(near[:2], far[:2], strict=True))
                    expected[script[i][env].name] = [(reward, discount, near[2])]
    np.random.seed(0)
    batch = buffer.sample_batch(4000)
    names = name_of(batch.observations)
    assert set(names) == set(expected), "exactly the rows of ended episodes are replayed"
    seen: dict[float, set[int]] = {name: set() for name in expected}
    found = zip(batch.rewards.tolist(), batch.discounts.tolist(), name_of(batch.next_observations), strict=True)
    for name, transition in zip(names, found, strict=True):
        close = [np.allclose(transition[:2], candidate[:2], atol=1e-5) for candidate in expected[name]]
        assert any(close), (name, transition, expected[name])
        if transition[1] > 0:
            assert any(transition[2] == candidate[2] for candidate in expected[name])
        seen[name] |= {i for i, is_close in enumerate(close) if is_close}
    assert all(len(seen[name]) == len(expected[name]) for name in expected), "a cut episode is read in both ways"


def test_a_cut_episode_is_read_as_its_realised_return_as_often_as_the_share_says() -> None:
    buffer = DQNReplayBuffer(10, BOX, ACTIONS, device="cpu", gamma=0.5, monte_carlo=0.25)
    for i in range(3):
        arrays = (np.array([[float(i)]]), np.array([[i + 1.0]]), np.array([0]), np.array([1.0]), np.array([i == 2]))
        buffer.add(*arrays, [{"TimeLimit.truncated": i == 2}])
    np.random.seed(0)
    batch = buffer.sample_batch(20_000)
    first = batch.discounts.numpy()[name_of(batch.observations) == 0.0]
    assert set(first.tolist()) == {0.5, 0.125}
    assert np.mean(first == 0.125) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("monte_carlo", [0.0, 0.5])
@pytest.mark.parametrize("length", [ROWS - 2, 3 * ROWS + 5], ids=["not yet full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_only_the_latest_episodes_are_kept(monte_carlo: float, length: int, n_envs: int) -> None:
    keep = 3
    script = scripted(length, n_envs, seed=2)
    buffer = filled(script, gamma=0.9, monte_carlo=monte_carlo, keep_episodes=keep, terminal_copies=3)
    episodes = sorted(
        ((last, env, first) for env in range(n_envs) for first, last in ended_rows(script, env)), key=lambda e: e[:2]
    )
    rows = {(i, env) for last, env, first in episodes[-keep:] for i in range(first, last + 1)}
    if monte_carlo == 0:  # what is open can be replayed too
        opened = {env: max((last + 1 for last, e, _ in episodes if e == env), default=0) for env in range(n_envs)}
        rows |= {(i, env) for env in range(n_envs) for i in range(opened[env], length)}
    expected = {script[i][env].name for i, env in rows if i >= length - ROWS}
    assert len(episodes) > keep
    assert set(name_of(buffer.sample_batch(4000).observations)) == expected


def test_an_episode_that_is_broken_off_by_a_reset_is_replayed_and_bootstraps_from_its_last_observation() -> None:
    model = DQNExt(
        "MlpPolicy",
        short_cartpole(),
        replay_buffer_kwargs={"monte_carlo": 1.0},
        **(SMALL | {"learning_starts": 60, "train_freq": 1}),
    )
    learn(model, 33)
    learn(model, 87)  # resets the environment
    buffer = model.replay_buffer
    assert isinstance(buffer, DQNReplayBuffer)
    np.testing.assert_array_less(0, buffer.rewards[:120])
    batch = buffer.sample_batch(3000)
    members = dict(zip(batch.indices.tolist(), batch.discounts.tolist(), strict=True))
    ends = np.flatnonzero(buffer.dones[:120, 0])
    assert set(members) == set(range(int(ends.max()) + 1))
    assert 32 not in ends
    ends = np.sort([*ends, 32])
    for cell, discount in members.items():  # CartPole pays 1 for each step: the return tells how long the episode went on
        steps = int(ends[ends >= cell].min()) - cell + 1
        assert buffer.returns[cell, 0] == pytest.approx((1 - 0.99**steps) / (1 - 0.99), rel=1e-4)
        assert discount in ((0, pytest.approx(0.99**steps)) if cell + steps - 1 != 32 else (pytest.approx(0.99**steps),))


def test_a_reset_forgets_the_terminal_copies_too() -> None:
    buffer = filled(scripted(ROWS, 1), terminal_copies=50)
    buffer.reset()
    script = scripted(3, 1, seed=5)
    for step in (row[0] for row in script):
        buffer.add(
            np.array([[step.name]]),
            np.array([[step.after]]),
            np.array([0]),
            np.array([0.0]),
            np.array([False]),
            [{}],
        )
    assert set(name_of(buffer.sample_batch(300).observations)) == {row[0].name for row in script}


SMALL: dict[str, Any] = {
    "buffer_size": 128,
    "learning_starts": 20,
    "batch_size": 16,
    "train_freq": 4,
    "policy_kwargs": {"net_arch": [16]},
    "seed": 1,
    "device": "cpu",
}


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_inside_a_stock_algorithm_it_gives_the_bits_of_the_stock_buffer(algorithm: type[Any], n_steps: int) -> None:
    with_ours: dict[str, Any] = {"replay_buffer_class": DQNReplayBuffer}
    if n_steps > 1:
        with_ours["replay_buffer_kwargs"] = {"n_steps": n_steps, "gamma": 0.99}
    models = []
    network = {"net_arch": [16]} | ({"n_quantiles": 5} if algorithm is QRDQN else {})
    for kwargs in (with_ours, {"n_steps": n_steps}):
        model = algorithm("MlpPolicy", short_cartpole(), **(SMALL | {"policy_kwargs": network}), **kwargs)
        learn(model, 300)
        models.append(model)
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")
    assert models[0].replay_buffer is not None
    assert models[1].replay_buffer is not None
    assert_same_memory(models[0].replay_buffer, models[1].replay_buffer)


def test_terminal_copies_work_inside_a_stock_algorithm() -> None:
    model = DQN(
        "MultiInputPolicy",
        dict_cartpole(),
        replay_buffer_class=DQNReplayBuffer,
        replay_buffer_kwargs={"terminal_copies": 8, "terminal_on": "done"},
        **SMALL,
    )
    learn(model, 200)
    buffer = model.replay_buffer
    assert isinstance(buffer, DQNReplayBuffer)
    ended = buffer.dones.sum()
    expected = 8 * ended / (buffer.size() + 7 * ended)
    rows, envs = np.divmod(buffer.sample_batch(20_000).indices, 1)
    assert buffer.dones[rows, envs].mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("make_env", [short_cartpole, dict_cartpole])
def test_a_saved_memory_is_loaded_with_its_sampler(make_env: Any, tmp_path: Path) -> None:
    policy = "MultiInputPolicy" if make_env is dict_cartpole else "MlpPolicy"
    kwargs: dict[str, Any] = {"replay_buffer_kwargs": {"terminal_copies": 5}, "optimize_memory_usage": True, "n_steps": 2}
    model = DQNExt(policy, make_env(), **SMALL, **kwargs)
    learn(model, 200)
    model.save_replay_buffer(tmp_path / "memory.pkl")
    other = DQNExt(policy, make_env(), **SMALL, **kwargs)
    other.load_replay_buffer(tmp_path / "memory.pkl")
    batches = []
    for buffer in (model.replay_buffer, other.replay_buffer):
        assert isinstance(buffer, DQNReplayBuffer)
        np.random.seed(0)
        batches.append(buffer.sample_batch(100))
    assert_same(tuple(batches[0]), tuple(batches[1]), "batch")


def takes_memory(buffer: Any) -> bool:
    """Return whether the arrays of a buffer, which are made when they are first read, are there."""
    return bool({"before", "after"} & vars(buffer.observation_ring).keys() or {"actions", "rewards"} & vars(buffer).keys())


def test_memory_is_taken_at_the_first_transition_and_not_before(tmp_path: Path) -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), **(SMALL | {"buffer_size": 1_000_000}))
    assert not takes_memory(model.replay_buffer)
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert not takes_memory(loaded.replay_buffer)
    learn(loaded, 30)
    assert takes_memory(loaded.replay_buffer)
    assert isinstance(loaded.replay_buffer, DQNReplayBuffer)
    assert np.asarray(loaded.replay_buffer.observations).shape == (1_000_000, 1, 4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"terminal_copies": 0}, r"terminal_copies=0 must be a whole number"),
        ({"terminal_copies": 1.5}, r"terminal_copies=1.5 must be a whole number"),
        ({"terminal_on": "terminal"}, r"terminal_on='terminal'.*done, terminated, truncated.*'terminated'"),
        ({"sampler": "unifrom"}, r"sampler='unifrom'.*uniform"),
        ({"sampler_kwargs": {"alpha": 0.6}}, r"sampler_kwargs has no argument 'alpha'.*'prioritized'"),
        ({"n_steps": 3}, r"n_steps=3.*need a gamma"),
        ({"n_steps": 0, "gamma": 0.9}, r"n_steps=0 must be a whole number"),
        ({"monte_carlo": 1.5, "gamma": 0.9}, r"monte_carlo=1.5 must be a finite number in \[0, 1\]"),
        ({"monte_carlo": 0.5}, r"monte_carlo=0.5 need a gamma"),
        ({"keep_episodes": 0}, r"keep_episodes=0 must be a whole number in \[1, inf\]"),
        ({"gamma": 1.5}, r"gamma=1.5 must be a finite number in \[0, 1\]"),
        ({"buffer_size": 4, "n_envs": 2, "n_steps": 3, "gamma": 0.9}, r"buffer_size=4 leaves 2 rows"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(kwargs: dict[str, Any], message: str) -> None:
    required: dict[str, Any] = {"buffer_size": 100, "observation_space": BOX, "action_space": ACTIONS}
    with pytest.raises(ArgumentError, match=message):
        DQNReplayBuffer(**(required | kwargs))


def test_rows_that_can_never_be_whole_are_an_error_when_the_memory_is_built() -> None:
    with pytest.raises(ArgumentError, match=r"keep_episodes=2 leaves sampler='rows' no row that is whole.*n_envs=4"):
        DQNReplayBuffer(100, BOX, ACTIONS, device="cpu", n_envs=4, sampler="rows", keep_episodes=2)
    DQNReplayBuffer(100, BOX, ACTIONS, device="cpu", n_envs=4, sampler="rows", keep_episodes=4)


# methods of a user's own, and replay buffers that were made elsewhere


class DoublesRewards(DQNReplayBuffer):
    def _get_samples(self, batch_inds: Any, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        return samples._replace(rewards=2 * samples.rewards)


class DoublesRewardsOfSamples(DQNReplayBuffer):
    def sample(self, batch_size: int, env: Any = None) -> Any:
        samples = super().sample(batch_size, env)
        return samples._replace(rewards=2 * samples.rewards)


@pytest.mark.parametrize("subclass", [DoublesRewards, DoublesRewardsOfSamples])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"sampler": "prioritized"},
        {"sampler": "prioritized", "terminal_copies": 3, "n_steps": 3},
        {"monte_carlo": 0.5, "optimize_memory_usage": True},
    ],
    ids=str,
)
def test_a_subclass_that_changes_what_was_read_is_learned_from(subclass: Any, n_envs: int, kwargs: dict[str, Any]) -> None:
    batches = []
    for kind in (DQNReplayBuffer, subclass):
        buffer = filled(scripted(15, n_envs), kind=kind, gamma=0.9, **kwargs)
        np.random.seed(0)
        n_batches = 1 if "monte_carlo" in kwargs else 2  # reading draws numbers as well, between the draws of two samples
        batches.append(buffer.sample_batch(16, progress=0.5, n_batches=n_batches))
    plain, doubled = batches
    assert_same(tuple(doubled), tuple(plain._replace(rewards=2 * plain.rewards)), "batch")


def test_rewards_that_a_subclass_changes_are_those_of_epochs_and_a_sample_that_is_never_drawn_is_refused() -> None:
    buffer = filled(scripted(15, 1), kind=DoublesRewards, gamma=0.9)
    assert {float(reward) for batch in buffer.epoch(buffer.all_indices(), 4) for reward in batch.rewards} == {
        2 * float(reward) for reward in buffer.rewards[:15].flat
    }
    with pytest.raises(ArgumentError, match=r"sample\(\) of DoublesRewardsOfSamples would never be called"):
        DQNExt("MlpPolicy", short_cartpole(), replay_buffer_class=DoublesRewardsOfSamples, n_epochs=1, **SMALL)


def saved_by(tmp_path: Path, make: Callable[..., DQN], **kwargs: Any) -> Path:
    model = make("MlpPolicy", short_cartpole(), **(SMALL | {"learning_starts": 100}), **kwargs)
    model.learn(30)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    return tmp_path / "buffer.pkl"


PRIORITIZED: dict[str, Any] = {"replay_buffer_kwargs": {"sampler": "prioritized"}}
MISFITS: dict[str, tuple[Callable[..., DQN], dict[str, Any], dict[str, Any], str]] = {
    "SB3's, prioritized": (DQN, {}, PRIORITIZED, "sampler='uniform' in the place of 'prioritized'"),
    "SB3's, 3 steps": (DQN, {}, {"n_steps": 3}, "n_step_returns=False"),
    "SB3's, epochs": (DQN, {}, {"n_epochs": 1}, "in 1 epochs"),
    "prioritized": (DQNExt, PRIORITIZED, {}, "sampler='prioritized' in the place of 'uniform'"),
    "copies": (DQNExt, {"replay_buffer_kwargs": {"terminal_copies": 3}}, {}, "terminal_copies=3 in the place of 1"),
    "Monte-Carlo": (DQNExt, {}, {"replay_buffer_kwargs": {"monte_carlo": 1.0}}, "monte_carlo=0.0 in the place of 1.0"),
    "Monte-Carlo, gamma": (
        *(DQNExt, {"gamma": 0.5, "replay_buffer_kwargs": {"monte_carlo": 1.0}}),
        *({"gamma": 0.9, "replay_buffer_kwargs": {"monte_carlo": 1.0}}, "gamma=0.9 does not fit"),
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_replay_buffer_that_does_not_fit_is_refused_and_the_own_one_is_kept(name: str, tmp_path: Path) -> None:
    make, theirs, ours, message = MISFITS[name]
    path = saved_by(tmp_path, make, **theirs)
    model = DQNExt("MlpPolicy", short_cartpole(), **SMALL, **ours)
    own = model.replay_buffer
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(")):
        model.load_replay_buffer(path)
    assert model.replay_buffer is own
    loaded = make("MlpPolicy", short_cartpole(), **SMALL, **theirs)
    loaded.load_replay_buffer(path)
    model.replay_buffer = loaded.replay_buffer
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(")):
        model.learn(10)


def test_a_replay_buffer_of_other_environments_is_refused(tmp_path: Path) -> None:
    path = saved_by(tmp_path, DQNExt)
    two = DQNExt("MlpPolicy", several_cartpoles(2), **SMALL)
    with pytest.raises(ArgumentError, match="n_envs=1 in the place of 2"):
        two.load_replay_buffer(path)
    with pytest.raises(ArgumentError, match="observation_space"):
        DQNExt("MultiInputPolicy", dict_cartpole(), **SMALL).load_replay_buffer(path)


@pytest.mark.parametrize("make", [DQN, DQNExt])
def test_a_replay_buffer_that_fits_is_read_with_the_gamma_and_the_steps_of_the_model(make: Any, tmp_path: Path) -> None:
    path = saved_by(tmp_path, make, gamma=0.5, n_steps=2)
    model = DQNExt("MlpPolicy", short_cartpole(), gamma=0.9, n_steps=3, **SMALL)
    model.load_replay_buffer(path)
    discounts = {round(float(discount), 6) for discount in model._sample_batch(300).discounts}
    assert {0.729} <= discounts <= {0.0, 0.9, 0.81, 0.729}
