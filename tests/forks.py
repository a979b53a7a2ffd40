"""Processes that are forked to be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tests.paths import ROOT


class Processes:
    """Starts functions of a module in processes of their own, without the seconds that imports take."""

    def __init__(self, module: str) -> None:
        source = f"import {module}; from {__name__} import serve; serve({module})"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-c", source], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, function: Callable[..., None], *arguments: Any) -> int:
        assert self.server.stdin is not None
        print(json.dumps([function.__name__, *map(str, arguments)]), file=self.server.stdin, flush=True)
        return int(self.read_line())

    def read_line(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline().strip()

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.kill()
        self.server.wait()
        self.server.stdin.close()
        self.server.stdout.close()


def serve(module: ModuleType) -> None:
    """Fork for each line that comes in; the new process says its id first."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that the dead vanish
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if os.fork() == 0:
            write_line(os.getpid())
            try:
                getattr(module, name)(*arguments)
            finally:
                os._exit(0)


def write_line(what: object) -> None:
    os.write(1, f"{what}\n".encode())


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(process: int) -> None:
    deadline = time.monotonic() + 20
    while is_alive(process):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    wait_for_end(process)
