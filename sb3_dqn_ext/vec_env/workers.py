"""The processes of environments that have one each: how it is noticed that one of them has ended, and what is done then."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, NamedTuple

from gymnasium.vector.async_vector_env import AsyncState
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_dqn_ext.errors import EnvironmentDiedError
from sb3_dqn_ext.vec_env.async_ import AsyncBackend
from sb3_dqn_ext.vec_env.fast_vec_env import FastVecEnv

__all__ = ["worker_errors_translated"]

EXIT_TIMEOUT_S = 5.0  # how long a process may take to end


class WorkerGroup(NamedTuple):
    """The processes of a vectorised environment."""

    processes: Sequence[Any]
    pipes: Sequence[Any]
    """to each of them; None where it is known that one has ended"""
    forget: Callable[[], None]
    """tell the vectorised environment that they have all ended, so that it can be closed"""


def worker_group_of(env: VecEnv | None) -> WorkerGroup | None:
    """
    :param env: a vectorised environment, in wrappers or not
    :return: its processes, if its environments have some
    """
    inner = None if env is None else env.unwrapped
    if isinstance(inner, SubprocVecEnv):

        def forget() -> None:
            for pipe in inner.remotes:
                pipe.close()
            inner.waiting, inner.closed = False, True

        return WorkerGroup(inner.processes, inner.remotes, forget)
    if isinstance(inner, FastVecEnv) and isinstance(inner.backend, AsyncBackend):
        vector = inner.backend.async_env

        def forget_fast() -> None:
            vector._state = AsyncState.DEFAULT  # whatever it was waiting for
            vector.close(terminate=True)

        return WorkerGroup(vector.processes, vector.parent_pipes, forget_fast)
    return None


@contextmanager
def worker_errors_translated(envs: Mapping[str, VecEnv | None], resume_hint: Callable[[], str]) -> Iterator[None]:
    """
    Inside of this context, an error because the process of an environment has ended becomes one that says so. The processes of
    the other environments are ended, and closing the environments does no more.

    :param envs: the vectorised environments of a run, by the names that the error gives them
    :param resume_hint: returns a sentence on the checkpoint from which the run can be resumed, or an empty string
    :raises EnvironmentDiedError: in place of other errors
    """
    found = {name: workers for name, env in envs.items() if (workers := worker_group_of(env)) is not None}
    with ExitStack() as stack:
        for workers in found.values():
            stack.enter_context(watch_worker_exits(workers))
        try:
            yield
        except EnvironmentDiedError:
            raise
        except Exception as error:
            seconds = EXIT_TIMEOUT_S if isinstance(error, EOFError | ConnectionError) else 0.0
            dead = {name: ends for name, workers in found.items() if (ends := describe_exits(workers, seconds))}
            if not dead:
                raise
            for name in dead:
                stop_workers(found[name])
            said = [f"{name} {i} {how}" for name, ends in dead.items() for i, how in ends.items()]
            raise EnvironmentDiedError(f"{'; '.join(said)}.{resume_hint()}") from error


# -- one that has ended ----------------------------------------------------------------------------------------------------


def describe_exits(workers: WorkerGroup, seconds: float) -> dict[int, str]:
    """
    :param workers: of which one may have ended
    :param seconds: how long one may take to do so whose pipe is closed already
    :return: how those that have ended did so, by their index
    """
    until = time.monotonic() + seconds
    while not (dead := [i for i in range(len(workers.pipes)) if has_exited(workers, i)]) and time.monotonic() < until:
        time.sleep(0.01)
    return {i: describe_exit(workers.processes[i], workers.pipes[i] is None) for i in dead}


def has_exited(workers: WorkerGroup, i: int) -> bool:
    """
    :param workers: the processes
    :param i: which of them
    :return: whether it has
    """
    return workers.pipes[i] is None or not workers.processes[i].is_alive()


def describe_exit(process: Any, told_its_error: bool) -> str:
    """
    :param process: that has ended, or is about to
    :param told_its_error: whether it sent the error that it ended with, which is then the cause of ours
    :return: that, in words
    """
    process.join(EXIT_TIMEOUT_S)
    code, who = process.exitcode, f"(process {process.pid})"
    if told_its_error:
        return f"{who} has ended by an error inside it, from which this one comes"
    if code is not None and code < 0:
        return f"{who} was ended by the signal {-code}{signal_name(-code)}"
    if code == 1:
        return f"{who} has ended with exit code 1: most likely by an error inside it, which it has then printed above"
    return f"{who} has ended with exit code {code}"


def signal_name(number: int) -> str:
    """
    :param number: of a signal
    :return: its name in brackets, if it has one
    """
    with suppress(ValueError):
        return f" ({signal.Signals(number).name})"
    return ""


def stop_workers(workers: WorkerGroup) -> None:
    """
    End those that are left.

    :param workers: of which one has ended
    """
    for process, pipe in zip(workers.processes, workers.pipes, strict=True):
        if pipe is not None:
            request_close(process, pipe)
        process.join(EXIT_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
    workers.forget()


def request_close(process: Any, pipe: Any) -> None:
    """
    Let it close its environment. SB3's processes and gymnasium's are told so in the same way.

    :param process: that waits for a command, or is about to answer one
    :param pipe: to it
    """
    with suppress(EOFError, OSError):
        pipe.send(("close", None))
        while pipe in wait([pipe, process.sentinel], EXIT_TIMEOUT_S):
            pipe.recv_bytes()  # an answer that nobody waits for any more, at which it might stand still


# -- one whose end nobody is told of ---------------------------------------------------------------------------------------


@contextmanager
def watch_worker_exits(workers: WorkerGroup) -> Iterator[None]:
    """
    A process that is forked has copies of the pipes of those after it. When one of them ends, its pipe stays open, and who
    reads from it waits forever. Inside of this context, a thread closes it.

    :param workers: the processes
    """
    forked = [i for i, process in enumerate(workers.processes) if getattr(process, "_start_method", None) == "fork"]
    if not forked:
        yield
        return
    here, there = multiprocessing.Pipe()
    places = {workers.processes[i].sentinel: workers.pipes[i] for i in forked}

    def watch() -> None:
        while there not in (ready := wait([there, *places])):
            for sentinel in ready:
                shut_down_pipe(places.pop(sentinel))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        here.send_bytes(b"")
        thread.join()
        here.close()
        there.close()


def shut_down_pipe(pipe: Any) -> None:
    """
    :param pipe: of which no more is to be read than what was sent already
    """
    with suppress(OSError), socket.socket(fileno=os.dup(pipe.fileno())) as end_of_it:
        end_of_it.shutdown(socket.SHUT_RDWR)
