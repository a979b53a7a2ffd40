"""The engine that runs actors in processes of this machine."""

import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import time
import traceback
import zlib
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

import cloudpickle
import numpy as np
import torch as th

from sb3_dqn_ext.actors.actor import Actor, ActorSetup, Orders
from sb3_dqn_ext.actors.engine import Arrival, Weights
from sb3_dqn_ext.vec_env.workers import describe_exit

__all__ = ["ProcessEngine", "SharedWeights"]

EXIT_TIMEOUT_S = 5.0  # seconds to wait for a process to end
PRELOADED = [__name__, "torch._dynamo"]
"""The modules that actors import, the last one with an optimizer: they are imported once, and actors start in milliseconds."""
DISCONNECTED = (EOFError, ConnectionError, BrokenPipeError)


class SharedWeights:
    """
    Weights and orders in memory that the learner and its actors share. Nothing is locked: a process that is killed would never
    release a lock.

    :param context: the context of the processes
    :param weights: (P,) the first weights
    """

    def __init__(self, context: Any, weights: Weights) -> None:
        self._dtype, self._size = weights.dtype.str, weights.size
        self._data = context.RawArray(ctypes.c_byte, max(weights.nbytes, 1))
        self._state = context.RawArray(ctypes.c_double, 4)  # version before, version after, checksum, gradient steps
        self._orders = context.RawArray(ctypes.c_double, 2)  # rate, is_warm_up
        self._seen = 0.0
        self.write(weights, 0)

    def _array(self) -> Weights:
        return np.frombuffer(self._data, self._dtype, self._size)

    def write(self, weights: Weights, n_updates: int) -> None:
        """
        Write weights.

        :param weights: (P,) the weights
        :param n_updates: the gradient steps with which they were learned
        """
        version = self._state[0] + 1
        self._state[0] = version
        self._array()[:] = weights
        self._state[2], self._state[3] = zlib.crc32(self._data), n_updates
        self._state[1] = version

    def read(self) -> tuple[Weights, int] | None:
        """
        Read weights that are newer than those of the last call.

        :return: (P,) the weights, and the gradient steps with which they were learned; None if there are none, or if they are
            being written
        """
        version = self._state[1]
        if version == self._seen:
            return None
        weights, checksum, n_updates = self._array().copy(), self._state[2], self._state[3]
        # the checksum finds what a processor with a weak memory order may have mixed
        if self._state[0] != version or zlib.crc32(weights.tobytes()) != checksum:
            return None
        self._seen = version
        return weights, int(n_updates)

    def write_orders(self, orders: Orders) -> None:
        """
        Write orders.

        :param orders: the orders
        """
        self._orders[0], self._orders[1] = orders.rate, float(orders.is_warm_up)

    def read_orders(self) -> Orders:
        """Read the orders."""
        return Orders(self._orders[0], bool(self._orders[1]))


def run_actor(pipe: Connection, shared: SharedWeights, setup: bytes, index: int, seed: int, queue_blocks: int) -> None:
    """
    Run an actor in this process, until the learner ends.

    :param pipe: the connection to the learner: blocks are sent, and the numbers of acknowledged blocks are received
    :param shared: the weights and the orders
    :param setup: the pickled description of the actor
    :param index: its index
    :param seed: its seed
    :param queue_blocks: the number of blocks that may be sent without acknowledgement
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the learner ends this one
    th.set_num_threads(1)
    with suppress(*DISCONNECTED):  # the learner has ended
        try:
            _send_blocks(pipe, shared, Actor(pickle.loads(setup), index, seed), queue_blocks)
        except DISCONNECTED:
            raise
        except Exception:
            pipe.send_bytes(pickle.dumps(traceback.format_exc()))


def _send_blocks(pipe: Connection, shared: SharedWeights, actor: Actor, queue_blocks: int) -> None:
    def update() -> None:
        if (new := shared.read()) is not None:
            actor.load(*new)
        actor.obey(shared.read_orders())

    while (first := shared.read()) is None:
        time.sleep(0.001)
    actor.load(*first)
    n_sent = n_acknowledged = 0
    seconds_waiting = 0.0
    while True:
        block = actor.make_block(update, seconds_waiting)
        begin = time.monotonic()
        while n_sent - n_acknowledged >= queue_blocks or pipe.poll():
            n_acknowledged = int.from_bytes(pipe.recv_bytes(), "little") + 1
        seconds_waiting = time.monotonic() - begin
        pipe.send_bytes(pickle.dumps((n_sent, block), protocol=5))
        n_sent += 1


class _Life:
    """
    A process of an actor, and the thread that receives its blocks.

    :param process: the process
    :param pipe: the connection to it
    :param actor: the index of the actor
    :param number: the number of starts of the actor before this one
    :param arrivals: the queue for what is received; None marks the end of the process
    """

    def __init__(self, process: Any, pipe: Connection, actor: int, number: int, arrivals: "queue.Queue[Any]") -> None:
        self.process, self.pipe, self.actor, self.number = process, pipe, actor, number
        self._arrivals = arrivals
        self._thread = Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        data: bytes | None = b""
        while data is not None:
            try:
                data = self.pipe.recv_bytes()
            except (*DISCONNECTED, OSError):
                data = None
            self._arrivals.put((self, data))

    def close(self) -> None:
        """End the process."""
        self.process.kill()  # it has nothing to save
        self.process.join()
        self._thread.join()  # it has received the end of the file
        self.pipe.close()


class ProcessEngine:
    """
    An engine that runs each actor in a process of this machine.

    :param setup: the description of the actors
    :param weights: (P,) the first weights
    :param queue_blocks: the blocks that an actor may send without acknowledgement
    """

    def __init__(self, setup: ActorSetup, weights: Weights, queue_blocks: int) -> None:
        methods = multiprocessing.get_all_start_methods()
        # a plain fork would copy locks that threads of torch may hold
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(PRELOADED)
        self._setup = cloudpickle.dumps(setup)
        self._queue_blocks = queue_blocks
        self._shared = SharedWeights(self._context, weights)
        self._arrivals: queue.Queue[tuple[_Life, bytes | None]] = queue.Queue()
        self._lives: dict[int, _Life] = {}
        self._errors: dict[int, str] = {}

    def process_ids(self) -> dict[int, int]:
        """Return the id of the process of each actor, by its index."""
        return {actor: life.process.pid for actor, life in self._lives.items()}

    def start(self, actor: int, life: int, seed: int) -> None:
        ours, theirs = self._context.Pipe()
        arguments = theirs, self._shared, self._setup, actor, seed, self._queue_blocks
        process = self._context.Process(target=run_actor, args=arguments, name=f"actor {actor}", daemon=True)
        threads = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # an actor has one thread; the variable is read when numpy is imported
        try:
            process.start()
        finally:
            _set_variable("OMP_NUM_THREADS", threads)
        theirs.close()
        self._lives[actor] = _Life(process, ours, actor, life, self._arrivals)

    def broadcast(self, weights: Weights, n_updates: int) -> None:
        self._shared.write(weights, n_updates)

    def order(self, orders: Orders) -> None:
        self._shared.write_orders(orders)

    def receive(self, seconds: float) -> Arrival | None:
        try:
            life, data = self._arrivals.get(timeout=seconds)
        except queue.Empty:
            return None
        if data is None:
            exit = self._errors.pop(life.actor, None) or describe_exit(life.process, False)
            life.close()
            return Arrival(life.actor, life.number, -1, None, exit)
        content = pickle.loads(data)
        if isinstance(content, str):  # the traceback of an error; the end of the process follows
            self._errors[life.actor] = f"has ended by an error:\n{content}"
            return self.receive(seconds)
        return Arrival(life.actor, life.number, *content)

    def acknowledge(self, arrival: Arrival) -> None:
        life = self._lives[arrival.actor]
        if life.number == arrival.life:
            with suppress(*DISCONNECTED, OSError):  # the process has ended, which is the next arrival
                life.pipe.send_bytes(arrival.number.to_bytes(8, "little"))

    def n_waiting(self) -> int:
        return self._arrivals.qsize()

    def close(self) -> None:
        for life in self._lives.values():
            life.close()
        self._lives.clear()


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        del os.environ[name]
    else:
        os.environ[name] = value
