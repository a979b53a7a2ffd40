"""The engine that runs actors on a Ray cluster."""

import os
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import torch as th

from sb3_dqn_ext.actors.actor import Actor, ActorSetup, Orders
from sb3_dqn_ext.actors.block import Block
from sb3_dqn_ext.actors.engine import Arrival, Weights
from sb3_dqn_ext.ray_cluster import RayCluster

__all__ = ["RayEngine", "RemoteActor"]

CONTROL = "control"
"""The concurrency group whose methods run while a block is made."""


class RemoteActor:
    """
    An actor on a node of a cluster; a Ray actor.

    :param setup: the pickled description
    :param actor: the index of the actor
    :param seed: its seed
    """

    def __init__(self, setup: bytes, actor: int, seed: int) -> None:
        th.set_num_threads(1)
        self._actor = Actor(cloudpickle.loads(setup), actor, seed)
        self._weights: tuple[Weights, int] | None = None
        self._orders: Orders | None = None
        self._ended = time.monotonic()

    def load(self, weights: Weights, n_updates: int) -> None:
        """Load weights before the next step, see :meth:`Engine.broadcast`."""
        self._weights = weights, n_updates

    def obey(self, orders: Orders) -> None:
        """Act by orders from the next step on, see :meth:`Engine.order`."""
        self._orders = orders

    def make_block(self) -> Block:
        """Make the next block."""
        block = self._actor.make_block(self._update, time.monotonic() - self._ended)
        self._ended = time.monotonic()
        return block

    def _update(self) -> None:
        if (new := self._weights) is not None:
            self._weights = None
            self._actor.load(*new)
        if self._orders is not None:
            self._actor.obey(self._orders)


class _Call(NamedTuple):
    """A call of an actor for a block."""

    number: int
    result: Any


class _Life(NamedTuple):
    """An actor of the cluster."""

    handle: Any
    number: int
    calls: "deque[_Call]"


class RayEngine:
    """
    An engine that runs each actor on a node of a Ray cluster.

    An acknowledgement is a call for another block. An actor has as many calls as blocks of it may wait.

    :param setup: the description of the actors
    :param weights: (P,) the first weights
    :param queue_blocks: the blocks of an actor that may wait for the learner
    :param address: the address of a cluster, such as ``"auto"``; None (default): one is started on this machine
    :param num_cpus: the processors of an actor; None (default): 1 on a cluster with an address, and 0 on one that is started
        here, so that there can be more actors than processors
    :param runtime_env: the ``runtime_env`` of Ray, such as ``{"working_dir": "."}`` for nodes without your own modules
    :raises UnsupportedError: if Ray is not installed
    """

    def __init__(
        self,
        setup: ActorSetup,
        weights: Weights,
        queue_blocks: int,
        address: str | None = None,
        num_cpus: float | None = None,
        runtime_env: dict[str, Any] | None = None,
    ) -> None:
        self._cluster = RayCluster(Path(tempfile.gettempdir()) / f"actors-{os.getpid()}", address, runtime_env)
        self._cluster.restore_sigterm()  # checkpoints need the handler
        self._ray: Any = self._cluster.ray
        cpus = (0 if address is None else 1) if num_cpus is None else num_cpus
        remote = self._ray.remote(max_restarts=0, num_cpus=cpus, concurrency_groups={CONTROL: 1})
        self._actor_class: Any = remote(RemoteActor)
        self._setup = self._ray.put(cloudpickle.dumps(setup))
        self._queue_blocks = queue_blocks
        self._lives: dict[int, _Life] = {}
        self._weights: tuple[Any, int] = (self._ray.put(weights), 0)
        self._orders = Orders(0.0, True)

    def start(self, actor: int, life: int, seed: int) -> None:
        handle = self._actor_class.remote(self._setup, actor, seed)
        self._lives[actor] = _Life(handle, life, deque())
        self._call("load", handle, *self._weights)
        self._call("obey", handle, self._orders)
        for number in range(self._queue_blocks):
            self._request(self._lives[actor], number)

    def _call(self, method: str, handle: Any, *arguments: Any) -> None:
        getattr(handle, method).options(concurrency_group=CONTROL).remote(*arguments)

    def _request(self, life: _Life, number: int) -> None:
        life.calls.append(_Call(number, life.handle.make_block.remote()))

    def broadcast(self, weights: Weights, n_updates: int) -> None:
        self._weights = self._ray.put(weights), n_updates
        for life in self._lives.values():
            self._call("load", life.handle, *self._weights)

    def order(self, orders: Orders) -> None:
        if orders != self._orders:
            self._orders = orders
            for life in self._lives.values():
                self._call("obey", life.handle, orders)

    def receive(self, seconds: float) -> Arrival | None:
        oldest = {life.calls[0].result: actor for actor, life in self._lives.items() if life.calls}
        ready, _ = self._ray.wait(list(oldest), timeout=seconds)
        if not ready:
            return None
        actor = oldest[ready[0]]
        life = self._lives[actor]
        try:
            block = self._ray.get(ready[0])
        except self._ray.exceptions.RayError as error:
            self._ray.kill(life.handle)
            life.calls.clear()
            return Arrival(actor, life.number, -1, None, f"has ended: {error}")
        return Arrival(actor, life.number, life.calls.popleft().number, block)

    def acknowledge(self, arrival: Arrival) -> None:
        life = self._lives[arrival.actor]
        if life.number == arrival.life:
            self._request(life, arrival.number + self._queue_blocks)

    def n_waiting(self) -> int:
        calls = [call.result for life in self._lives.values() for call in life.calls]
        return len(self._ray.wait(calls, num_returns=len(calls), timeout=0)[0]) if calls else 0

    def close(self) -> None:
        self._lives.clear()
        self._cluster.close()
