"""The actors of a learner: the order of their blocks, acknowledgements, restarts, and the ratio of samples to inserts."""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sb3_dqn_ext.actors.block import Block, StoredStep, block_steps
from sb3_dqn_ext.actors.engine import Arrival, Engine
from sb3_dqn_ext.errors import EnvironmentDiedError

__all__ = ["ActorPool", "InsertRatio"]

WAIT_S = 1.0
STATISTICS_S = 2.0
"""The logged throughput is that of at least so many seconds."""


class InsertRatio:
    """
    The ratio of transitions that are sampled to those that are inserted into the replay buffer, and the gradient steps that
    keep it. Both counts begin at the end of the warm-up.

    :param wanted: the ratio; None: the gradient steps are those of ``gradient_steps``
    """

    def __init__(self, wanted: float | None) -> None:
        self.wanted = wanted
        self.n_inserted = 0
        self.n_sampled = 0

    def insert(self, n: int) -> None:
        """
        Count transitions that were inserted.

        :param n: their number
        """
        self.n_inserted += n

    def gradient_steps(self, otherwise: int, batch_size: int) -> int:
        """
        Return the number of gradient steps to make now, and count their samples.

        :param otherwise: the number without a wanted ratio
        :param batch_size: the samples of a gradient step
        """
        steps = otherwise
        if self.wanted is not None:
            steps = max(int((self.wanted * self.n_inserted - self.n_sampled) // batch_size), 0)
        self.n_sampled += steps * batch_size
        return steps

    @property
    def value(self) -> float:
        """The ratio so far; nan before the first insert."""
        return self.n_sampled / self.n_inserted if self.n_inserted else float("nan")


class ActorPool:
    """
    The actors of a learner.

    Each block is stored completely or not at all, and is acknowledged when it is stored. The blocks of an actor arrive in the
    order of their numbers; those of an actor that ends are lost unless they have arrived, and it is started again with new
    episodes.

    :param engine: the engine that runs the actors
    :param n_actors: their number
    :param max_restarts: the number of times in a row that an actor which has not sent a block is started again
    :param ratio: the ratio of samples to inserts
    :param seed: the seed of all actors
    """

    def __init__(self, engine: Engine, n_actors: int, max_restarts: int, ratio: InsertRatio, seed: list[int]) -> None:
        self.engine = engine
        self.ratio = ratio
        self.acknowledged: Counter[int] = Counter()
        """The blocks of each actor that are stored."""
        self.n_restarts = 0
        self.weights_interval = 1
        """The gradient steps between two broadcasts of the weights."""
        self.broadcast_at = 0
        """The gradient steps at the last broadcast."""
        self._max_restarts = max_restarts
        self._seed = seed
        self._lives = [0] * n_actors
        self._next_numbers = [0] * n_actors
        self._failures = [0] * n_actors
        self._steps: Iterator[StoredStep] = iter(())
        self._arrival: Arrival | None = None
        self._statistics = _Statistics()
        for actor in range(n_actors):
            self._start(actor)

    def _start(self, actor: int) -> None:
        seed = np.random.SeedSequence([*self._seed, actor, self._lives[actor]]).generate_state(1)
        self._next_numbers[actor] = 0
        self.engine.start(actor, self._lives[actor], int(seed[0] // 2))

    @property
    def n_actors(self) -> int:
        """The number of actors."""
        return len(self._lives)

    def next_step(self, n_updates: int) -> StoredStep:
        """
        Return the next step to store, and wait for it.

        :param n_updates: the gradient steps of the learner, from which the age of the weights is computed
        :raises EnvironmentDiedError: if an actor ends again and again
        """
        if self._arrival is None:
            arrival, block = self._receive_block()
            self._statistics.add(arrival.actor, block, n_updates)
            self._arrival, self._steps = arrival, block_steps(block)
        return next(self._steps)

    def lookahead(self) -> Iterator[StoredStep]:
        """Iterate over the steps after the last one of the present block."""
        return self._steps

    def acknowledge(self) -> None:
        """Acknowledge the present block, whose steps are all stored."""
        assert self._arrival is not None
        self.engine.acknowledge(self._arrival)
        self.acknowledged[self._arrival.actor] += 1
        self._arrival = None

    def _receive_block(self) -> tuple[Arrival, Block]:
        begin = time.monotonic()
        while True:
            arrival = self.engine.receive(WAIT_S)
            if arrival is None or arrival.life != self._lives[arrival.actor]:
                continue
            if arrival.block is None:
                self._restart(arrival)
                continue
            expected = self._next_numbers[arrival.actor]
            if arrival.number < expected:  # it was sent twice
                continue
            assert arrival.number == expected, f"block {expected} of actor {arrival.actor} is missing"
            self._next_numbers[arrival.actor] += 1
            self._failures[arrival.actor] = 0
            self._statistics.seconds_waiting += time.monotonic() - begin
            return arrival, arrival.block

    def _restart(self, arrival: Arrival) -> None:
        actor = arrival.actor
        self._failures[actor] += 1
        if self._failures[actor] > self._max_restarts:
            raise EnvironmentDiedError(
                f"Actor {actor} {arrival.exit}. It has ended {self._failures[actor]} times without having sent a block."
            )
        warnings.warn(f"Actor {actor} {arrival.exit}. It is started again.", stacklevel=2)
        self.n_restarts += 1
        self._lives[actor] += 1
        self._start(actor)

    def log(self, record: Callable[[str, Any], None]) -> None:
        """
        Log the throughput since the last call, the age of the weights, the queue and the ratio.

        :param record: the method ``record`` of a logger
        """
        for name, value in self._statistics.take().items():
            record(f"actors/{name}", value)
        record("actors/queue", self.engine.n_waiting())
        record("actors/restarts", self.n_restarts)
        if self.ratio.n_inserted:
            record("actors/samples_per_insert", self.ratio.value)

    def close(self) -> None:
        """End all actors. Blocks that are not stored are lost."""
        self._steps, self._arrival = iter(()), None
        self.engine.close()


class _Statistics:
    """The throughput, waiting times and ages of weights, over the latest seconds."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._clear()

    def _clear(self) -> None:
        self.seconds_waiting = 0.0
        self._begin = time.monotonic()
        self._transitions: Counter[int] = Counter()
        self._waited: dict[int, float] = {}
        self._ages: list[int] = []

    def add(self, actor: int, block: Block, n_updates: int) -> None:
        """
        Add a block.

        :param actor: the index of its actor
        :param block: the block
        :param n_updates: the gradient steps of the learner
        """
        self._transitions[actor] += block.n_own * block.dones.shape[1]
        self._waited[actor] = self._waited.get(actor, 0.0) + block.seconds_waiting
        self._ages.append(n_updates - block.n_updates)

    def take(self) -> dict[str, float]:
        """Return the logged values by name, and begin again if enough time has passed."""
        seconds = time.monotonic() - self._begin
        if seconds < STATISTICS_S:
            return self._values
        values = {f"steps_per_second_{actor}": n / seconds for actor, n in sorted(self._transitions.items())}
        values |= {f"waiting_{actor}": min(s / seconds, 1.0) for actor, s in sorted(self._waited.items())}
        if self._ages:
            values["weights_age"] = float(np.mean(self._ages))
        values["learner_waiting"] = min(self.seconds_waiting / seconds, 1.0)
        self._values = values
        self._clear()
        return values
