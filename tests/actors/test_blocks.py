"""Blocks of actors in the replay buffer of the learner: each acknowledged one exactly once, also if actors are killed."""

import os
import random
import signal
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import EnvironmentDiedError
from tests.actors.envs import is_last, is_time_limit, reward_of
from tests.actors.helpers import KeepPool, is_alive, make_model, own_indices, time_limit
from tests.internals import n_updates_of


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    with time_limit():
        yield


class KillActors(BaseCallback):
    """
    A callback that kills random actors at random steps.

    :param n_kills: the number of kills
    """

    def __init__(self, n_kills: int) -> None:
        super().__init__()
        self.n_left, self.random, self.killed = n_kills, random.Random(0), set[int]()

    def _on_step(self) -> bool:
        if self.n_left and self.random.random() < 0.008:
            processes = set(self.model.run_state.actor_pool.engine.process_ids().values())  # type: ignore[attr-defined]
            if alive := sorted(processes - self.killed):
                process = self.random.choice(alive)
                os.kill(process, signal.SIGKILL)
                self.killed.add(process)
                self.n_left -= 1
        return True


def serials_by_env(model: DQNExt) -> dict[tuple[int, int], list[int]]:
    """Return the serial numbers of the stored steps in their order, for each environment of each process."""
    buffer: Any = model.replay_buffer
    found = defaultdict(list)
    for process, instance, serial in buffer.read_observations(own_indices(model)).astype(int).tolist():
        found[process, instance].append(serial)
    return found


def first_steps(n: int) -> list[int]:
    """Return the serial numbers of the first n steps of an environment: final observations begin none."""
    return [serial for serial in range(2 * n) if serial % 8 != 7][:n]


@pytest.mark.parametrize(
    ("n_steps", "sampler", "m"), [(1, "uniform", 1), (3, "prioritized", 2), (4, "uniform", 1)], ids=["1", "3 prioritized", "4"]
)
def test_each_acknowledged_block_is_stored_once_while_actors_are_killed(n_steps: int, sampler: str, m: int) -> None:
    buffer_kwargs = {"sampler": sampler}
    actors = {"n_actors": 3, "envs_per_actor": m, "max_restarts": 100}
    model = make_model(actors=actors, n_steps=n_steps, replay_buffer_kwargs=buffer_kwargs, train_freq=5)
    kills, keep = KillActors(8), KeepPool()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Actor .* was ended by the signal 9 \(SIGKILL\). It is started again")
        model.learn(4_000, CallbackList([kills, keep]))
    pool, serials = keep.pool, serials_by_env(model)
    assert kills.n_left == 0
    assert pool.n_restarts >= 6  # the last ones may have been killed at the end
    assert len({process for process, _ in serials}) >= 6  # most lives have sent a block
    for stored in serials.values():
        assert stored == first_steps(len(stored))
    n_stored, per_block = sum(map(len, serials.values())), 20
    assert n_stored == model.num_timesteps
    assert 0 <= n_stored - per_block * sum(pool.acknowledged.values()) < per_block + m  # the run may end in a block
    assert not any(map(is_alive, kills.killed | set(pool.engine.process_ids().values())))


@pytest.mark.parametrize("arguments", [{}, {"optimize_memory_usage": True}], ids=["plain", "optimize_memory_usage"])
def test_n_step_returns_across_blocks_are_those_of_a_loop(arguments: dict[str, Any]) -> None:
    model = make_model(actors={"envs_per_actor": 2}, n_steps=3, gamma=0.9, **arguments)
    model.learn(600)
    buffer: Any = model.replay_buffer
    indices = own_indices(model)
    # the newest steps of a block that is not complete have no following steps yet
    newest = {key: serials[-3] for key, serials in serials_by_env(model).items()}
    batch = buffer.read(indices)
    n_compared = 0
    for i, (process, instance, serial) in enumerate(batch.observations.int().tolist()):
        if serial >= newest[process, instance]:
            continue
        total, discount, at = 0.0, 1.0, serial
        for _ in range(3):
            total += discount * reward_of(at)
            discount *= 0.9
            at += 1
            if is_last(at - 1):
                discount *= is_time_limit(at - 1)
                break
        assert batch.rewards[i].item() == pytest.approx(total, abs=1e-6)
        assert batch.discounts[i].item() == pytest.approx(discount, abs=1e-6)
        if discount:
            assert batch.next_observations[i].int().tolist() == [process, instance, at]
        n_compared += 1
    assert n_compared > 500


def test_frames_are_those_of_plain_storage() -> None:
    def read(storage: str) -> Any:
        model = make_model(
            "serial/Stack-v0",
            policy="CnnPolicy",
            n_steps=2,
            policy_kwargs={"encoder": "minatar"},
            replay_buffer_kwargs={"storage": storage},
            learning_starts=1_000,
        )
        model.learn(300)
        buffer: Any = model.replay_buffer
        indices = own_indices(model)
        observations, following = buffer.read_observations(indices), buffer.read_next_observations(indices)
        return observations[:, :, 0, 0].astype(int), following[:, :, 0, 0].astype(int)

    for storage in ("plain", "frames"):
        stacks, following = read(storage)
        assert len(stacks) >= 300
        for stack, after in zip(stacks.tolist(), following.tolist(), strict=True):
            assert after[:3] == stack[1:]
            assert after[3] == stack[3] + 1
            begin = stack[3] - stack[3] % 8  # the first observation of the episode fills the stack
            assert stack == [max(begin, stack[3] - age) for age in (3, 2, 1, 0)]


def test_the_ratio_of_samples_to_inserts_is_held() -> None:
    for wanted in (0.5, 7.0):
        model = make_model(actors={"samples_per_insert": wanted}, train_freq=3)
        drawn: list[int] = []
        buffer: Any = model.replay_buffer
        buffer.sample_hooks.append(lambda indices, drawn=drawn: drawn.append(len(indices)))
        ratios = []

        class Watch(BaseCallback):
            def _on_step(self) -> bool:
                inserted = self.num_timesteps - 100
                if inserted > 0:
                    ratios.append(sum(drawn) - wanted * inserted)  # noqa: B023
                return True

        model.learn(1_000, Watch())
        # at each step, the samples are behind by a rollout of 3 transitions and by less than a batch
        assert max(ratios) <= 0
        assert min(ratios) > -16 - 3 * wanted
        assert sum(drawn) == pytest.approx(wanted * 900, abs=16)


def test_an_actor_waits_for_acknowledgements_and_the_learner_for_blocks() -> None:
    from sb3_dqn_ext.actors.collection import start_actors

    model = make_model(actors={"n_actors": 1, "queue_blocks": 2})
    pool = start_actors(model)
    try:
        first, second, third = (pool.engine.receive(seconds) for seconds in (20.0, 5.0, 0.5))
        assert first is not None
        assert second is not None
        assert third is None  # two blocks are not acknowledged
        pool.engine.acknowledge(first)
        third = pool.engine.receive(5.0)
        assert third is not None
        assert (first.number, second.number, third.number) == (0, 1, 2)
        assert pool.engine.receive(0.3) is None
    finally:
        pool.close()


def test_the_error_of_an_environment_ends_the_run_after_restarts() -> None:
    model = make_model("serial/Broken-v0", actors={"n_actors": 1, "max_restarts": 1, "block_size": 100})
    with (
        pytest.warns(UserWarning, match="Actor 0 has ended by an error"),
        pytest.raises(EnvironmentDiedError, match=r"(?s)ZeroDivisionError: the robot has fallen.*2 times") as caught,
    ):
        model.learn(500)
    assert "tests/actors/envs.py" in str(caught.value)


def test_a_second_run_continues_with_the_replay_buffer() -> None:
    model = make_model()
    model.learn(200)
    assert n_updates_of(model) == 25
    model.learn(200, reset_num_timesteps=False)
    assert model.num_timesteps == 400
    assert len(own_indices(model)) == 400
    assert n_updates_of(model) == 75
