"""Demonstrations in the replay buffer: the ring never overwrites them, and every sampler and return reads them."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_dqn_ext.demonstrations import Transitions, from_episode, join, load_transitions
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.own_choices import Recent

SPACE = gym.spaces.Box(-1e6, 1e6, (2,), np.float32)
ROWS = 6
GAMMA = 0.5


def episode(length: int, reward: float, truncated: bool = False) -> Transitions:
    """Make an episode whose rewards count on from a number, with observations (reward before, 0)."""
    rewards = reward + np.arange(length)
    observations = np.stack([np.arange(length + 1) + reward, np.zeros(length + 1)], axis=1)
    ends = np.arange(length) == length - 1
    return from_episode(observations, np.arange(length) % 3, rewards, ends & (not truncated), ends & truncated)


DEMONSTRATIONS = join([episode(3, 100.0), episode(4, 200.0, truncated=True)])
N = len(DEMONSTRATIONS)


def make(n_envs: int = 1, **kwargs: Any) -> DQNReplayBuffer:
    arguments: dict[str, Any] = {"demonstrations": DEMONSTRATIONS, "gamma": GAMMA} | kwargs
    return DQNReplayBuffer(n_envs * ROWS, SPACE, gym.spaces.Discrete(3), "cpu", n_envs, **arguments)


def add(buffer: DQNReplayBuffer, n_rows: int) -> None:
    """Store steps with the rewards 1, 2, ... in episodes of three steps."""
    for _ in range(n_rows):
        number = buffer.n_added * buffer.n_envs + np.arange(buffer.n_envs)
        obs = np.stack([np.full(buffer.n_envs, buffer.n_added), number], axis=1)
        done = np.full(buffer.n_envs, buffer.n_added % 3 == 2)
        buffer.add(obs, obs + np.array([1, 0]), number % 3, 1.0 + number, done, [{}] * buffer.n_envs)


@pytest.mark.parametrize("sampler", ["uniform", "prioritized"])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_ring_wraps_and_never_overwrites_a_demonstration(sampler: str, optimize: bool, n_envs: int) -> None:
    buffer = make(n_envs, sampler=sampler, optimize_memory_usage=optimize)
    for n_rows in (0, 4, 1, 1, 1, 9, 6):
        add(buffer, n_rows)
        stored = range(max(0, buffer.n_added - ROWS + (optimize and buffer.full)) * n_envs, buffer.n_added * n_envs)
        expected = sorted([*DEMONSTRATIONS.rewards.tolist(), *(1.0 + number for number in stored)])
        batch = buffer.sample_batch(600)
        assert sorted(set(batch.rewards.tolist())) == expected
        assert batch.demonstrations is not None
        assert ((batch.rewards >= 100) == batch.demonstrations).all()
        counts = np.unique(batch.rewards.numpy(), return_counts=True)[1]
        assert counts.min() > 0.4 * 600 / len(expected)
        # each row of the batch is one transition, whatever the order in which the parts were read
        np.testing.assert_array_equal(buffer.read(batch.indices).rewards, batch.rewards)
        first = batch.observations[batch.demonstrations][:, 0]  # type: ignore[index]
        np.testing.assert_array_equal(first, batch.rewards[batch.demonstrations])
        np.testing.assert_array_equal(buffer.actions_at(batch.indices), batch.actions)
        if sampler == "uniform":
            assert sorted(buffer.read(buffer.all_indices()).rewards.tolist()) == expected
    buffer.reset()
    assert sorted(set(buffer.sample_batch(400).rewards.tolist())) == sorted(DEMONSTRATIONS.rewards.tolist())


def test_several_batches_are_read_in_their_order() -> None:
    buffer = make(2)
    add(buffer, 5)
    np.random.seed(3)
    together = buffer.sample_batch(8, n_batches=3)
    np.random.seed(3)
    apart = [buffer.sample_batch(8) for _ in range(3)]
    np.testing.assert_array_equal(together.rewards, np.concatenate([batch.rewards for batch in apart]))
    assert together.demonstrations is not None
    np.testing.assert_array_equal(together.demonstrations, np.concatenate([batch.demonstrations for batch in apart]))


def expected_return(position: int, n_steps: int) -> tuple[float, float, float]:
    """Compute the reward, the discount and the observation at the end of an n-step return by a loop."""
    total, i = 0.0, position
    for k in range(n_steps):
        i = position + k
        total += GAMMA**k * DEMONSTRATIONS.rewards[i]
        if DEMONSTRATIONS.terminated[i] or DEMONSTRATIONS.truncated[i]:
            break
    discount = 0.0 if DEMONSTRATIONS.terminated[i] else GAMMA ** (i - position + 1)
    next_observations: Any = DEMONSTRATIONS.next_observations
    return total, discount, next_observations[i, 0]


@pytest.mark.parametrize("n_steps", [1, 2, 5])
@pytest.mark.parametrize("is_set_later", [False, True])
def test_n_step_returns_of_demonstrations_equal_those_of_a_loop(n_steps: int, is_set_later: bool) -> None:
    buffer = make(n_steps=1 if is_set_later else n_steps)
    add(buffer, 2)
    if is_set_later:
        buffer.sample_batch(4)
        buffer.set_multistep(n_steps, GAMMA)
    batch: Any = buffer.read(ROWS + np.arange(N))
    found = np.stack([batch.rewards, batch.discounts, batch.next_observations[:, 0]], axis=1)
    np.testing.assert_allclose(found, [expected_return(position, n_steps) for position in range(N)], rtol=1e-6)


def test_monte_carlo_returns_of_demonstrations() -> None:
    batch = make(monte_carlo=1.0).read(ROWS + np.arange(3))
    np.testing.assert_allclose(batch.rewards, [100 + 101 / 2 + 102 / 4, 101 + 102 / 2, 102])


def test_priorities_of_demonstrations_have_their_own_constant() -> None:
    kwargs = {"alpha": 0.5, "eps": 0.01, "eps_demonstrations": 3.0}
    buffer = make(sampler="prioritized", sampler_kwargs=kwargs)
    add(buffer, ROWS)
    indices = np.arange(ROWS + N)
    buffer.sampler.update_priorities(indices, np.ones(ROWS + N))
    priorities: Any = buffer.sampler.priorities()
    expected = np.sqrt(np.where(indices < ROWS, 1.01, 4.0))
    np.testing.assert_allclose(priorities.values[np.argsort(priorities.indices)], expected)
    share = buffer.sample_batch(20_000).demonstrations.double().mean()  # type: ignore[union-attr]
    assert float(share) == pytest.approx(expected[ROWS:].sum() / expected.sum(), abs=0.01)
    again = make(sampler="prioritized", sampler_kwargs=kwargs)
    again.sampler.load_state_dict(buffer.sampler.state_dict())
    restored: Any = again.sampler.priorities()
    np.testing.assert_array_equal(restored.values, priorities.values)


def test_terminal_copies_count_for_demonstrations() -> None:
    buffer = make(terminal_copies=5)
    rewards, counts = np.unique(buffer.read(buffer.all_indices()).rewards, return_counts=True)
    assert dict(zip(rewards.tolist(), counts.tolist(), strict=True)) == {
        **dict.fromkeys(DEMONSTRATIONS.rewards.tolist(), 1),
        102.0: 5,
    }


def test_frames_and_dictionaries_of_demonstrations() -> None:
    space = gym.spaces.Dict(image=gym.spaces.Box(0, 255, (3, 4, 4), np.uint8), speed=gym.spaces.Box(-1, 1, (2,), np.float32))
    frames = np.random.default_rng(0).integers(0, 255, (8, 4, 4), dtype=np.uint8)
    stacks = np.stack([frames[i : i + 3] for i in range(6)])
    observations: Any = {"image": stacks, "speed": np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)}
    ends = np.arange(5) == 4
    transitions = from_episode(observations, np.zeros(5, int), np.arange(5), ends, ~ends & False)
    buffer = DQNReplayBuffer(10, space, gym.spaces.Discrete(2), "cpu", storage="frames", demonstrations=transitions)
    batch: Any = buffer.sample_batch(50)
    rows = batch.rewards.numpy().astype(int)
    for key, values in observations.items():
        np.testing.assert_array_equal(batch.observations[key], values[rows])
        np.testing.assert_array_equal(batch.next_observations[key], values[rows + 1])


MASKS = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]], np.int8)
"""the masks of the four states of :func:`masked_episode`; the last one is terminal"""


def masked_episode(masks: Any = MASKS, actions: Any = (0, 1, 2), terminated: bool = True) -> Transitions:
    """Make an episode of three steps in states 0, 1, 2, 3; without masks, its observations are no dictionaries."""
    states = np.repeat(np.arange(4.0), 2).reshape(4, 2)
    observations: Any = states if masks is None else {"state": states, "action_mask": masks}
    ends = np.array([False, False, terminated])
    return from_episode(observations, actions, np.arange(3.0), ends, ~ends & [False, False, True])


def masked(demonstrations: Any, n_envs: int = 1, **kwargs: Any) -> DQNReplayBuffer:
    space = spaces.Dict(state=SPACE, action_mask=spaces.MultiBinary(3))
    arguments = {"demonstrations": demonstrations, "action_masks": True, "gamma": GAMMA} | kwargs
    return DQNReplayBuffer(n_envs * ROWS, space, spaces.Discrete(3), "cpu", n_envs, **arguments)


@pytest.mark.parametrize("n_steps", [1, 2])
def test_masks_of_demonstrations_are_those_of_the_data(n_steps: int) -> None:
    batch: Any = masked(masked_episode(), n_steps=n_steps).read(ROWS + np.arange(3))
    np.testing.assert_array_equal(batch.observations["action_mask"], MASKS[:3])
    np.testing.assert_array_equal(batch.next_observations["action_mask"], MASKS[1:] if n_steps == 1 else MASKS[[2, 3, 3]])


def test_all_actions_are_legal_where_the_data_have_no_masks() -> None:
    plain = masked_episode(masks=None)
    parts: Any = {"state": plain.observations}, {"state": plain.next_observations}
    dictionaries = Transitions(**vars(plain) | {"observations": parts[0], "next_observations": parts[1]})
    for source in (plain, dictionaries):
        batch: Any = masked(source).read(ROWS + np.arange(3))
        for obs, states in ((batch.observations, [0, 1, 2]), (batch.next_observations, [1, 2, 3])):
            assert obs["action_mask"].eq(1).all()
            np.testing.assert_array_equal(obs["state"][:, 0], states)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (masked_episode(actions=(0, 0, 2)), r"transition 1 has an action that is illegal by the mask"),
        (masked_episode(terminated=False), r"transition 2 continues in a state in which no action is legal"),
        ([masked_episode(), masked_episode(masks=None)], r"of different shapes cannot be joined: .*action_mask"),
    ],
)
def test_demonstrations_that_contradict_their_masks_are_refused(source: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        masked(source).sample_batch(1)


def test_observations_and_actions_are_read_by_the_indices_of_batches() -> None:
    for n_envs, optimize in ((1, True), (2, False)):
        buffer = masked(masked_episode(), n_envs, optimize_memory_usage=optimize)
        for n_rows in (0, 4):
            for i in range(n_rows):
                state, mask = np.full((n_envs, 2), 10.0 + i), np.full((n_envs, 3), [1, 0, i % 2])
                obs: Any = {"state": state, "action_mask": mask}
                following: Any = {"state": state + 1, "action_mask": np.full((n_envs, 3), [1, 0, (i + 1) % 2])}
                buffer.add(obs, following, np.zeros(n_envs), np.zeros(n_envs), np.zeros(n_envs), [{}] * n_envs)
            batch: Any = buffer.sample_batch(30)
            pairs = (buffer.read_observations, batch.observations), (buffer.read_next_observations, batch.next_observations)
            for read, wanted in pairs:
                found: Any = read(batch.indices)
                np.testing.assert_array_equal(found["state"], wanted["state"])
                np.testing.assert_array_equal(found["action_mask"], wanted["action_mask"])
            np.testing.assert_array_equal(buffer.actions_at(batch.indices), batch.actions)
            assert {1.0, 2.0, 3.0} < set(found["state"][:, 0]) if n_rows else set(found["state"][:, 0]) == {1.0, 2.0, 3.0}


def test_a_buffer_of_packed_masks_and_one_of_frames_are_sources() -> None:
    random = np.random.default_rng(0)
    frames, masks = random.integers(0, 255, (8, 4, 4), dtype=np.uint8), random.integers(0, 2, (6, 11), dtype=np.int8)
    masks[:, 0] = 1
    observations: Any = {"image": np.stack([frames[i : i + 3] for i in range(6)]), "action_mask": masks}
    ends = np.arange(5) == 4
    recorded = from_episode(observations, np.zeros(5, int), np.arange(5), ends, ~ends & False)
    space = spaces.Dict(image=spaces.Box(0, 255, (3, 4, 4), np.uint8), action_mask=spaces.MultiBinary(11))
    for storage in ("plain", "frames"):
        kwargs: dict[str, Any] = {"storage": storage, "action_masks": True}
        buffer = DQNReplayBuffer(10, space, spaces.Discrete(11), "cpu", demonstrations=recorded, **kwargs)
        batch: Any = buffer.sample_batch(50)
        rows = batch.rewards.numpy().astype(int)
        for key, values in observations.items():
            np.testing.assert_array_equal(batch.observations[key], values[rows])
            np.testing.assert_array_equal(batch.next_observations[key], values[rows + 1])
        found = load_transitions(buffer.demonstrations)
        for name, array in recorded.arrays().items():
            np.testing.assert_array_equal(found.arrays()[name], array, err_msg=name)


def test_a_sampler_of_the_user_draws_demonstrations() -> None:
    buffer = make(sampler=Recent)
    assert buffer.sample_batch(50).demonstrations.all()  # type: ignore[union-attr]
    add(buffer, 3)
    assert 0 < int(buffer.sample_batch(50).demonstrations.sum()) < 50  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sampler": "vector_steps"}, "sampler='vector_steps' draws time steps of all environments"),
        ({"td_lambda": 0.5}, "td_lambda=0.5 needs the values at the time of acting"),
        ({"demonstrations": None, "sampler": "prioritized", "sampler_kwargs": {"eps_demonstrations": 1}}, "no effect without"),
        ({"demonstrations": 3}, r"demonstrations=3 must be a file \(\.npz, \.pkl\)"),
        ({"demonstrations": []}, "an empty list or data set"),
        ({"demonstrations": "nowhere.npz"}, "demonstrations='nowhere.npz' cannot be read: .*No such file"),
        ({"demonstrations": "nowhere.pkl"}, "demonstrations='nowhere.pkl' cannot be read as a replay buffer"),
        ({"demonstrations": [(0, 1)]}, "must hold tuples"),
        (
            {"demonstrations": from_episode(np.zeros((3, 5)), [0, 1], [0, 0], [0, 0], [0, 1])},
            r"observations of shape \(5,\) do not fit",
        ),
        ({"demonstrations": from_episode(np.zeros((3, 2)), [0, 3], [0, 0], [0, 0], [0, 1])}, "from 0 to 3 do not fit"),
        ({"demonstrations": from_episode(np.zeros((3, 2)), [0.5, 1], [0, 0], [0, 0], [0, 1])}, "actions of float64"),
    ],
)
def test_wrong_demonstrations_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(**kwargs).sample_batch(1)


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"actions: 3 rows.*one observation more than actions"):
        from_episode(np.zeros((3, 2)), [0, 1, 0], [0, 0], [0, 0], [0, 1])
