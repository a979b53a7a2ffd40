"""A training in its own process, which can be watched and killed."""

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
    A training process. At the end of the ``with`` block it is killed if it still runs.

    :param folder: the folder of the checkpoints
    :param seed: the seed of the run
    :param options: further options, see ``python -m benchmarks.reliability.train --help``
    :param prefix: a command prefix
    """

    def __init__(self, folder: Path, seed: int, options: Sequence[object] = (), prefix: Sequence[object] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "benchmarks.reliability.train", folder, seed, *options]
        self.start_step: int | None = None
        """The step from which the process continues; None until it has reported it."""
        self.step = 0
        """The last step that the process has reported."""
        self.fingerprints: dict[str, str] | None = None
        """The fingerprints at the end of the run; None until it ends."""
        self.environments: list[int] = []
        """The process ids of the environments."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # it exists as long as the process
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
        """The id of the process."""
        return self._process.pid

    def read(self, step: float = math.inf) -> bool:
        """
        Read the output of the process up to a step.

        :param step: the step; infinity (default): up to the end
        :return: whether the process has taken that step
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, what = line.strip().partition(" ")
            if word == "began":
                self.start_step = self.step = int(what)
            elif word == "step":
                self.step = int(what)
            elif word == "environment":
                self.environments.append(int(what))
            elif word == "ended":
                self.fingerprints = json.loads(what)
            if self.step >= step:
                return True
        return False

    def signal(self, number: int) -> None:
        """
        Send a signal to the process.

        :param number: the number of the signal
        """
        self._process.send_signal(number)

    def wait_for_error(self, seconds: float = 60.0) -> None:
        """
        Wait until the process writes to its standard error.

        :param seconds: the longest time to wait
        :raises TimeoutError: if the process writes nothing in that time
        """
        until = time.perf_counter() + seconds
        while not self.errors():
            if time.perf_counter() > until:
                raise TimeoutError(f"Process {self.pid} has written no error in {seconds} s.")
            time.sleep(2e-4)

    def wait(self) -> int:
        """Read all output, wait for the end of the process, and return its exit code."""
        self.read()
        return self._process.wait()

    def errors(self) -> str:
        """Return the standard error of the process up to now."""
        # pread: the position at which the process writes is unchanged
        return os.pread(self._errors.fileno(), 2**20, 0).decode(errors="replace")
