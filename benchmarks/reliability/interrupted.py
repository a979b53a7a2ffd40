"""Runs that faults happen to, and runs that continue them."""

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

INTERRUPTED_AT = 3 * EVERY + EVERY // 2  # steps; there are the checkpoints of 2 and 3 times EVERY then


class Runs:
    """
    What faults happen to, each made once.

    :param folder: of all of them, which is emptied
    :param steps: of each run
    :param n_kills: how often one is killed, of those that are killed again and again
    """

    def __init__(self, folder: Path, steps: int, n_kills: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.steps, self.n_kills = folder.absolute(), steps, n_kills
        self._made: dict[Any, Any] = {}
        self._locks: defaultdict[Any, threading.Lock] = defaultdict(threading.Lock)

    def training(self, folder: Path, seed: int, options: Sequence[object] = (), prefix: Sequence[object] = ()) -> Training:
        """
        :param folder: of checkpoints
        :param seed: of the run
        :param options: of the training
        :param prefix: a command that runs it
        :return: the process
        """
        return Training(folder, seed, ["--steps", self.steps, *options], prefix)

    def reference_fingerprints(self, seed: int, options: Sequence[object] = ()) -> dict[str, str]:
        """
        :param seed: of the run
        :param options: of the training
        :return: what it ends with when nothing happens to it
        """

        def end() -> dict[str, str]:
            with self.training(self.folder / f"undisturbed-{seed}-{len(self._made)}", seed, options) as training:
                if training.wait() or training.ended is None:
                    raise RuntimeError(training.errors())
                return training.ended

        ended: dict[str, str] = self._once(("reference_fingerprints", seed, *options), end)
        return ended

    def interrupted_run(self, fault: str, number: int) -> Path:
        """
        :param fault: that is about to happen
        :param number: which one of its kind, and the seed
        :return: a folder of a run that has come to BROKEN_OFF
        """

        def begin() -> Path:
            folder = self.folder / f"broken-off-{number}"
            with self.training(folder, number, ["--die", INTERRUPTED_AT]) as training:
                if training.wait() != -signal.SIGKILL or len(manifests(folder)) != 2:
                    raise RuntimeError(training.errors())
            return folder

        original: Path = self._once(("broken off", number), begin)
        shutil.copytree(original, folder := self.folder / f"{fault.replace(' ', '-')}-{number}")
        return folder

    def resume(self, folder: Path, seed: int, expected: int, options: Sequence[object] = ()) -> "GoneOn":
        """
        :param folder: of checkpoints
        :param seed: of the run
        :param expected: the step that it is to go on from
        :param options: of the training; what it ends with does not depend on them, but on the number of environments
        :return: what comes of it
        """
        with self.training(folder, seed, options) as training:
            code = training.wait()
            problems = find_unreadable(folder)
            if code != 0:
                problems.append(last_line(training.errors(), folder))
            if training.began != expected:
                problems.append(f"it began at step {training.began}, and not at {expected}")
            equal = training.ended == self.reference_fingerprints(seed, options if "--processes" in options else ())
            return Resumption(not problems, equal, "; ".join(problems))

    def _once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        with self._locks[key]:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]


def last_line(text: str, folder: Path) -> str:
    """
    :param text: standard error of a process that ended with an exception
    :param folder: named there
    :return: the exception and what it says
    """
    lines = [line for line in text.splitlines() if line and not line.startswith(" ")]
    return re.sub(r"^(\w+\.)+(?=\w+:)", "", lines[-1] if lines else "").replace(str(folder), "FOLDER")


def resume_error(path: Path, seed: int, env_id: str = "CartPole-v1") -> str:
    """
    :param path: what to resume from
    :param seed: of the run
    :param env_id: of the model that is to
    :return: the error, nothing if there was none
    """
    folder = path if path.is_dir() else path.parent
    try:
        make_model(seed, make_envs(env_id, seed)).resume(path)
    except CheckpointError as error:
        return f"CheckpointError: {error}".replace(str(folder), "FOLDER")
    return ""
