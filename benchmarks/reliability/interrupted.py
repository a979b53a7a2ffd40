"""Runs that faults are injected into, and runs that continue them."""

import re
import shutil
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reliability.folders import find_unreadable, manifests
from benchmarks.reliability.outcome import Resumption
from benchmarks.reliability.process import Training
from benchmarks.reliability.train import EVERY, make_envs, make_model
from sb3_dqn_ext.errors import CheckpointError

INTERRUPTED_AT = 3 * EVERY + EVERY // 2  # steps; at this step the checkpoints of steps 2 * EVERY and 3 * EVERY exist


class Runs:
    """
    The runs that faults are injected into. Each is trained once and then copied.

    :param folder: the folder of all runs, which is emptied
    :param steps: the number of environment steps of each run
    :param n_kills: the number of times that a run of the fault ``sigkill`` is killed
    """

    def __init__(self, folder: Path, steps: int, n_kills: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.steps, self.n_kills = folder.absolute(), steps, n_kills
        self._made: dict[Any, Any] = {}
        self._locks: defaultdict[Any, threading.Lock] = defaultdict(threading.Lock)

    def training(self, folder: Path, seed: int, options: Sequence[object] = (), prefix: Sequence[object] = ()) -> Training:
        """
        Start a training process.

        :param folder: the checkpoint folder
        :param seed: the seed of the run
        :param options: further options of the training command
        :param prefix: a command prefix
        """
        return Training(folder, seed, ["--steps", self.steps, *options], prefix)

    def reference_fingerprints(self, seed: int, options: Sequence[object] = ()) -> dict[str, str]:
        """
        Return the fingerprints at the end of a run without faults.

        :param seed: the seed of the run
        :param options: further options of the training command
        """

        def end() -> dict[str, str]:
            name = "-".join(["reference", str(seed), *(str(option).strip("-") for option in options)])
            with self.training(self.folder / name, seed, options) as training:
                if training.wait() or training.fingerprints is None:
                    raise RuntimeError(training.errors())
                return training.fingerprints

        found: dict[str, str] = self._once(("reference", seed, *options), end)
        return found

    def interrupted_run(self, fault: str, number: int) -> Path:
        """
        Return the folder of a run that was killed at step ``INTERRUPTED_AT``.

        :param fault: the name of the fault that will be injected
        :param number: the number of the trial, which is the seed

        """

        def begin() -> Path:
            folder = self.folder / f"interrupted-{number}"
            with self.training(folder, number, ["--die", INTERRUPTED_AT]) as training:
                if training.wait() != -signal.SIGKILL or len(manifests(folder)) != 2:
                    raise RuntimeError(training.errors())
            return folder

        original: Path = self._once(("interrupted", number), begin)
        shutil.copytree(original, folder := self.folder / f"{fault.replace(' ', '-')}-{number}")
        return folder

    def resume(self, folder: Path, seed: int, expected: int, options: Sequence[object] = ()) -> Resumption:
        """
        Continue a run to its end in a new process.

        :param folder: the checkpoint folder
        :param seed: the seed of the run
        :param expected: the step from which the run should continue
        :param options: further options of the training command; only the number of environments changes the final weights
        """
        with self.training(folder, seed, options) as training:
            code = training.wait()
            problems = find_unreadable(folder)
            if code != 0:
                problems.append(last_line(training.errors(), folder))
            if training.start_step != expected:
                problems.append(f"it began at step {training.start_step}, and not at {expected}")
            equal = training.fingerprints == self.reference_fingerprints(seed, options if "--processes" in options else ())
            return Resumption(not problems, equal, "; ".join(problems))

    def _once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        with self._locks[key]:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


def last_line(text: str, folder: Path) -> str:
    """
    Return the name and the message of an exception.

    :param text: the standard error of a process that ended with the exception
    :param folder: a folder that becomes ``FOLDER`` in the message
    """
    lines = [line for line in text.splitlines() if line and not line.startswith(" ")]
    return re.sub(r"^(\w+\.)+(?=\w+:)", "", lines[-1] if lines else "").replace(str(folder), "FOLDER")


def resume_error(path: Path, seed: int, env_id: str = "CartPole-v1") -> str:
    """
    Return the error message of a model that resumes in this process, empty if there is no error.

    :param path: a checkpoint or a checkpoint folder
    :param seed: the seed of the run
    :param env_id: the environment of the model
    """
    folder = path if path.is_dir() else path.parent
    try:
        make_model(seed, make_envs(env_id, seed)).resume(path)
    except CheckpointError as error:
        return f"CheckpointError: {error}".replace(str(folder), "FOLDER")
    return ""
