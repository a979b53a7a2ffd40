"""A training in a process of its own, which can be watched and killed."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import Self

from benchmarks.processes import ROOT


class Training:
    """
    The process; what is left of it at the end is killed.

    :param folder: of the checkpoints
    :param seed: of the run
    :param options: see ``python -m benchmarks.reliability.train --help``
    :param prefix: a command that runs it
    """

    def __init__(self, folder: Path, seed: int, options: Sequence[object] = (), prefix: Sequence[object] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "benchmarks.reliability.train", folder, seed, *options]
        self.began: int | None = None
        """the step it has gone on from, once it has said so"""
        self.step = 0
        """the last it has said"""
        self.ended: dict[str, str] | None = None
        """what it ended with, if it did"""
        self.environments: list[int] = []
        """the processes of its environments"""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def read(self, step: float = math.inf) -> bool:
        """
        :param step: how far to read what it says
        :return: whether the process has come to that step
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, what = line.strip().partition(" ")
            if word == "began":
                self.began = self.step = int(what)
            elif word == "step":
                self.step = int(what)
            elif word == "environment":
                self.environments.append(int(what))
            elif word == "ended":
                self.ended = json.loads(what)
            if self.step >= step:
                return True
        return False

    def signal(self, number: int) -> None:
        """:param number: of the signal it is sent"""
        self._process.send_signal(number)

    def wait_for_error(self, seconds: float = 60.0) -> None:
        """
        :param seconds: to wait at most until it writes something to its standard error
        """
        until = time.perf_counter() + seconds
        while not self.errors():
            if time.perf_counter() > until:
                raise TimeoutError(f"Process {self.pid} has said nothing in {seconds} s.")
            time.sleep(2e-4)

    def wait(self) -> int:
        """
        :return: how the process has ended, after all that it has said
        """
        self.read()
        return self._process.wait()

    def errors(self) -> str:
        """
        :return: what it has written to its standard error
        """
        return os.pread(self._errors.fileno(), 2**20, 0).decode(errors="replace")  # its own place in the file stays
