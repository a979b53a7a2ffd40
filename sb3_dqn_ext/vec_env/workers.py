"""Detection of worker processes of environments that have ended, and an error that names them."""

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

EXIT_TIMEOUT_S = 5.0  # seconds to wait for a process to end


class WorkerGroup(NamedTuple):
    """The worker processes of a vectorised environment."""

    processes: Sequence[Any]
    pipes: Sequence[Any]
    """the pipe to each process; None if gymnasium has closed it because of an error in the process"""
    mark_closed: Callable[[], None]
    """a function that marks the vectorised environment as closed, so that its ``close`` does not wait for the processes"""


def worker_group_of(env: VecEnv | None) -> WorkerGroup | None:
    """
    Return the worker processes of a vectorised environment.

    :param env: a vectorised environment, with or without wrappers; or None
    :return: the processes; None if its environments are in this process
    """
    inner = None if env is None else env.unwrapped
    if isinstance(inner, SubprocVecEnv):

        def mark_closed() -> None:
            for pipe in inner.remotes:
                pipe.close()
            inner.waiting, inner.closed = False, True

        return WorkerGroup(inner.processes, inner.remotes, mark_closed)
    if isinstance(inner, FastVecEnv) and isinstance(inner.backend, AsyncBackend):
        vector = inner.backend.async_env

        def mark_fast_closed() -> None:
            vector._state = AsyncState.DEFAULT  # close() refuses other states
            vector.close(terminate=True)

        return WorkerGroup(vector.processes, vector.parent_pipes, mark_fast_closed)
    return None


@contextmanager
def worker_errors_translated(envs: Mapping[str, VecEnv | None], resume_hint: Callable[[], str]) -> Iterator[None]:
    """
    Translate an error that is raised because a worker process has ended: a context manager.

    The other worker processes of the same vectorised environment are stopped, and it is marked as closed.

    :param envs: the vectorised environments of a run, by the names to use in the error
    :param resume_hint: a function that returns a sentence about the checkpoint to resume from, or an empty string
    :raises EnvironmentDiedError: with the original error as its cause
    """
    groups = {name: workers for name, env in envs.items() if (workers := worker_group_of(env)) is not None}
    with ExitStack() as stack:
        for workers in groups.values():
            stack.enter_context(watch_worker_exits(workers))
        try:
            yield
        except EnvironmentDiedError:
            raise
        except Exception as error:
            seconds = EXIT_TIMEOUT_S if isinstance(error, EOFError | ConnectionError) else 0.0
            dead = {name: exits for name, workers in groups.items() if (exits := describe_exits(workers, seconds))}
            if not dead:
                raise
            for name in dead:
                stop_workers(groups[name])
            messages = [f"{name} {i} {exit}" for name, exits in dead.items() for i, exit in exits.items()]
            raise EnvironmentDiedError(f"{'; '.join(messages)}.{resume_hint()}") from error


# -- processes that have ended ---------------------------------------------------------------------------------------------


def describe_exits(workers: WorkerGroup, seconds: float) -> dict[int, str]:
    """
    Find the worker processes that have ended.

    :param workers: the processes
    :param seconds: the time to wait for the first one; a process whose pipe is closed may need some time to end
    :return: a description of its exit for each process that has ended, by its index
    """
    until = time.monotonic() + seconds
    while not (dead := [i for i in range(len(workers.pipes)) if has_exited(workers, i)]) and time.monotonic() < until:
        time.sleep(0.01)
    return {i: describe_exit(workers.processes[i], workers.pipes[i] is None) for i in dead}


def has_exited(workers: WorkerGroup, i: int) -> bool:
    """
    Return whether a worker process has ended.

    :param workers: the processes
    :param i: the index of the process
    """
    return workers.pipes[i] is None or not workers.processes[i].is_alive()


def describe_exit(process: Any, has_sent_error: bool) -> str:
    """
    Describe the exit of a process.

    :param process: a process that has ended, or is about to end
    :param has_sent_error: whether it has sent the error that ended it; that error is the cause of the one raised here
    :return: the end of a sentence, after the name of the environment
    """
    process.join(EXIT_TIMEOUT_S)
    code, pid = process.exitcode, f"(process {process.pid})"
    if has_sent_error:
        return f"{pid} has ended by an error inside it, the cause of this error"
    if code is not None and code < 0:
        return f"{pid} was ended by the signal {-code}{signal_name(-code)}"
    if code == 1:
        return f"{pid} has ended with exit code 1: most likely by an error inside it, which is printed above"
    return f"{pid} has ended with exit code {code}"


def signal_name(number: int) -> str:
    """
    Return the name of a signal in brackets, with a space before it; an empty string if it has no name.

    :param number: the number of the signal
    """
    with suppress(ValueError):
        return f" ({signal.Signals(number).name})"
    return ""


def stop_workers(workers: WorkerGroup) -> None:
    """
    Stop the remaining worker processes, and mark the vectorised environment as closed.

    :param workers: processes, some of which have ended
    """
    for process, pipe in zip(workers.processes, workers.pipes, strict=True):
        if pipe is not None:
            request_close(process, pipe)
        process.join(EXIT_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
    workers.mark_closed()


def request_close(process: Any, pipe: Any) -> None:
    """
    Send a worker process the command to close its environment and to end. The command is the same in SB3 and gymnasium.

    :param process: a process that waits for a command, or is about to answer one
    :param pipe: the pipe to the process
    """
    with suppress(EOFError, OSError):
        pipe.send(("close", None))
        while pipe in wait([pipe, process.sentinel], EXIT_TIMEOUT_S):
            pipe.recv_bytes()  # a pending answer would block the process while the pipe is full


# -- forked processes, whose pipes stay open -------------------------------------------------------------------------------


@contextmanager
def watch_worker_exits(workers: WorkerGroup) -> Iterator[None]:
    """
    Shut down the pipe of a forked worker process when the process ends: a context manager that runs a thread.

    Forked processes hold copies of each other's pipes. Without the thread, the pipe of a process that has ended would stay
    open, and reading from it would block forever.

    :param workers: the processes
    """
    forked = [i for i, process in enumerate(workers.processes) if getattr(process, "_start_method", None) == "fork"]
    if not forked:
        yield
        return
    stop_sender, stop_receiver = multiprocessing.Pipe()
    pipes = {workers.processes[i].sentinel: workers.pipes[i] for i in forked}

    def watch() -> None:
        while stop_receiver not in (ready := wait([stop_receiver, *pipes])):
            for sentinel in ready:
                shut_down_pipe(pipes.pop(sentinel))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop_sender.send_bytes(b"")
        thread.join()
        stop_sender.close()
        stop_receiver.close()


def shut_down_pipe(pipe: Any) -> None:
    """
    Shut down a pipe, so that reading returns the data that were sent already and then the end of the file.

    :param pipe: the pipe
    """
    with suppress(OSError), socket.socket(fileno=os.dup(pipe.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
