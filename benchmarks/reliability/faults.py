"""One fault each: it happens to a run, and what came of it becomes a row."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.reliability.folders import contents, manifests, newest_step, pieces, unreadable
from benchmarks.reliability.kills import killed
from benchmarks.reliability.process import Training
from benchmarks.reliability.train import EVERY, environments, make
from benchmarks.rows import Row
from sb3_dqn_ext.errors import CheckpointError

BROKEN_OFF = 3 * EVERY + EVERY // 2  # steps; there are the checkpoints of 2 and 3 times EVERY then
PAGE = 4096


@dataclass(frozen=True)
class Outcome:
    """What came of a fault; None is what was not asked."""

    how: str = ""
    """more on the fault"""
    kills: int | None = None
    """how many processes were killed"""
    writing: int | None = None
    """how many of them were in the middle of a write"""
    clear: bool | None = None
    """whether it ended as it should, and said why"""
    resumed: bool | None = None
    """whether the run went on from the newest checkpoint that is good, and came to its end"""
    equal: bool | None = None
    """whether it ended with the same bits as a run that nothing happened to"""
    untouched: bool | None = None
    """whether the files of the folder were the same before the fault and after"""
    message: str = ""
    """what the user was told"""

    def row(self, fault: str, number: int) -> Row:
        """
        :param fault: its name
        :param number: which one of its kind
        :return: all of it
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"fault": fault, "number": str(number), **{name: _written(value) for name, value in values.items()}}


def _written(value: object) -> str:
    if value is None:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


class GoneOn(NamedTuple):
    """What came of a run when a new process went on with it."""

    resumed: bool
    """whether it came to its end"""
    equal: bool
    """whether that was the right one"""
    problems: str

    def after(self, message: str) -> dict[str, Any]:
        """
        :param message: what the user was told before
        :return: what becomes a part of the outcome
        """
        told = "; then: ".join(part for part in (message, self.problems) if part)
        return {"resumed": self.resumed, "equal": self.equal, "message": told}


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

    def undisturbed(self, seed: int, options: Sequence[object] = ()) -> dict[str, str]:
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

        ended: dict[str, str] = self._once(("undisturbed", seed, *options), end)
        return ended

    def broken_off(self, fault: str, number: int) -> Path:
        """
        :param fault: that is about to happen
        :param number: which one of its kind, and the seed
        :return: a folder of a run that has come to BROKEN_OFF
        """

        def begin() -> Path:
            folder = self.folder / f"broken-off-{number}"
            with self.training(folder, number, ["--die", BROKEN_OFF]) as training:
                if training.wait() != -signal.SIGKILL or len(manifests(folder)) != 2:
                    raise RuntimeError(training.errors())
            return folder

        original: Path = self._once(("broken off", number), begin)
        shutil.copytree(original, folder := self.folder / f"{fault.replace(' ', '-')}-{number}")
        return folder

    def gone_on_with(self, folder: Path, seed: int, expected: int, options: Sequence[object] = ()) -> "GoneOn":
        """
        :param folder: of checkpoints
        :param seed: of the run
        :param expected: the step that it is to go on from
        :param options: of the training; what it ends with does not depend on them, but on the number of environments
        :return: what comes of it
        """
        with self.training(folder, seed, options) as training:
            code = training.wait()
            problems = unreadable(folder)
            if code != 0:
                problems.append(last_line(training.errors(), folder))
            if training.began != expected:
                problems.append(f"it began at step {training.began}, and not at {expected}")
            equal = training.ended == self.undisturbed(seed, options if "--processes" in options else ())
            return GoneOn(not problems, equal, "; ".join(problems))

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


def refusal(path: Path, seed: int, env_id: str = "CartPole-v1") -> str:
    """
    :param path: what to resume from
    :param seed: of the run
    :param env_id: of the model that is to
    :return: the error, nothing if there was none
    """
    folder = path if path.is_dir() else path.parent
    try:
        make(seed, environments(env_id, seed)).resume(path)
    except CheckpointError as error:
        return f"CheckpointError: {error}".replace(str(folder), "FOLDER")
    return ""


# -- processes that end ------------------------------------------------------------------------------------------------------


def kills(runs: Runs, fault: str, number: int) -> Outcome:
    """SIGKILL, again and again."""
    folder = runs.folder / f"kills-{number}"
    found = killed(folder, number, runs.n_kills, ["--steps", runs.steps])
    return Outcome(
        how=f"at steps {' '.join(map(str, found.at))}",
        kills=runs.n_kills,
        writing=found.n_writing,
        resumed=not found.problems,
        equal=found.ended == runs.undisturbed(number),
        message="; ".join(found.problems).replace(str(folder), "FOLDER"),
    )


def asked_to_end(runs: Runs, fault: str, number: int, signals: Sequence[signal.Signals]) -> Outcome:
    """
    :param signals: one, or two, the second of which comes while the last checkpoint is written
    """
    folder = runs.broken_off(fault, number)
    with runs.training(folder, number) as training:
        training.read(BROKEN_OFF + int(np.random.default_rng(number).integers(1, EVERY)))
        training.signal(signals[0])
        for one in signals[1:]:
            training.wait_for_error()
            training.signal(one)
        code, last = training.wait(), training.step
        message = next((line for line in training.errors().splitlines() if "checkpoint" in line), "")
    newest = newest_step(folder)
    # the second does what it does to any process
    clear = bool(message) and (code == -signals[1] if signals[1:] else code != 0 and newest == last)
    how = f"at step {last}, the checkpoint of step {newest}, exit code {code}"
    return Outcome(how, kills=1, clear=clear, **runs.gone_on_with(folder, number, newest).after(message))


def dead_environment(runs: Runs, fault: str, number: int) -> Outcome:
    """One of two processes of environments is killed."""
    folder, options = runs.folder / f"dead-environment-{number}", ["--processes", 2]
    with runs.training(folder, number, options) as training:
        training.read(BROKEN_OFF + number)
        victim = training.environments[number % 2]
        os.kill(victim, signal.SIGKILL)
        code = training.wait()
        message = last_line(training.errors(), folder).replace(str(victim), "PID")
    gone_on = runs.gone_on_with(folder, number, newest_step(folder), options)
    clear = code == 1 and "EnvironmentDiedError" in message and f"nvironment {number % 2}" in message
    return Outcome(f"environment {number % 2}", clear=clear, **gone_on.after(message))


def poison(runs: Runs, fault: str, number: int) -> Outcome:
    """What is not finite comes from an environment."""
    what, value = [("observation", "nan"), ("reward", "nan"), ("observation", "inf"), ("reward", "inf")][number % 4]
    folder = runs.folder / f"poison-{number}"
    with runs.training(folder, number, ["--check-finite", "--poison", what, value, BROKEN_OFF]) as training:
        code = training.wait()
        message = last_line(training.errors(), folder)
    newest = newest_step(folder)
    gone_on = runs.gone_on_with(folder, number, newest, ["--check-finite"])
    clear = code == 1 and "NonFiniteError" in message and what in message and 0 < newest < BROKEN_OFF
    return Outcome(f"{what} {value}", clear=clear, **gone_on.after(message))


def two_runs(runs: Runs, fault: str, number: int) -> Outcome:
    """A second process in the same folder, which the first does not notice."""
    folder = runs.broken_off(fault, number)
    with runs.training(folder, number) as first:
        first.read(BROKEN_OFF)
        first.signal(signal.SIGSTOP)  # or it might come to its end before
        with runs.training(folder, number) as second:
            clear = second.wait() == 1
            message = last_line(second.errors(), folder)
        first.signal(signal.SIGCONT)
        clear = clear and "CheckpointError" in message and str(first.pid) in message
        resumed = first.wait() == 0 and not unreadable(folder)
        equal = first.ended == runs.undisturbed(number)
    return Outcome(clear=clear, resumed=resumed, equal=equal, message=message.replace(str(first.pid), "PID"))


# -- disks that do not take what is written ----------------------------------------------------------------------------------


@cache
def can_mount() -> bool:
    """Whether this user may mount something that only the process itself sees."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", folder]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False


def shell(script: str, *arguments: object, mounts: bool) -> list[object]:
    """
    :param script: to run before a command, whose words are then ``"$@"``
    :param arguments: its variables $1, $2 ..., to shift away
    :param mounts: whether it mounts something
    :return: the prefix of the command
    """
    return [*(["unshare", "-rm"] if mounts else []), "sh", "-c", script, "sh", *arguments]


def disk_full(runs: Runs, fault: str, number: int) -> Outcome:
    """In the middle of writing a checkpoint."""
    folder = runs.broken_off(fault, number)
    part = np.random.default_rng(number).uniform(0.05, 0.95)
    newest = [(folder / name).stat().st_size for name in pieces(manifests(folder)[3 * EVERY]) if name.startswith("state_")]
    if can_mount():
        held = sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.iterdir())
        size = (held + int(part * newest[0])) // PAGE * PAGE
        disk = runs.folder / f"disk-{number}"
        disk.mkdir()
        script = (
            'from="$1" to="$2" size="$3"; shift 3; '
            'mount -t tmpfs -o size="$size" none "$to" && cp -a "$from/." "$to" || exit 99; '
            '"$@"; code=$?; rm -rf "$from"; cp -a "$to" "$from"; exit $code'
        )
        how, prefix = f"a disk of {size} bytes", shell(script, folder, disk, size, mounts=True)
    else:
        blocks = max(int(part * newest[0]) // 512, 1)
        disk, how = folder, f"files of {512 * blocks} bytes at most (RLIMIT_FSIZE)"
        prefix = shell('ulimit -f "$1"; shift; exec "$@"', blocks, mounts=False)
    return refused_write(runs, number, folder, disk, how, prefix)


def read_only(runs: Runs, fault: str, number: int) -> Outcome:
    """A folder that nothing can be written to."""
    folder = runs.broken_off(fault, number)
    if can_mount():
        script = 'f="$1"; shift; mount --bind "$f" "$f" && mount -o remount,ro,bind "$f" || exit 99; exec "$@"'
        return refused_write(runs, number, folder, folder, "a read-only mount", shell(script, folder, mounts=True))
    folder.chmod(0o555)
    for path in folder.iterdir():
        path.chmod(0o444)
    other = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.geteuid() == 0 else []  # root writes wherever it likes
    try:
        return refused_write(runs, number, folder, folder, "by its mode", [*other])
    finally:
        folder.chmod(0o755)


def refused_write(runs: Runs, seed: int, folder: Path, seen_as: Path, how: str, prefix: Sequence[object]) -> Outcome:
    """
    :param runs: what faults happen to
    :param seed: of the run
    :param folder: of its checkpoints
    :param seen_as: the name it has for the process
    :param how: the writing is prevented
    :param prefix: the command that does so
    :return: what comes of a run there, and of the same run when there is room again
    """
    before = contents(folder)
    with runs.training(seen_as, seed, prefix=prefix) as training:
        code = training.wait()
        message = last_line(training.errors(), seen_as)
    untouched = contents(folder) == before
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    gone_on = runs.gone_on_with(folder, seed, 3 * EVERY)
    clear = code == 1 and message.startswith("CheckpointError: FOLDER")
    return Outcome(how, clear=clear, untouched=untouched, **gone_on.after(message))


# -- files that are not what they were ---------------------------------------------------------------------------------------


def cut_short(path: Path, rng: np.random.Generator) -> None:
    """Of a part of its end."""
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def flip(path: Path, rng: np.random.Generator) -> None:
    """A bit in each of a few of its bytes."""
    data = bytearray(path.read_bytes())
    for i in rng.choice(len(data), size=3, replace=False):
        data[i] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def remove(path: Path, rng: np.random.Generator) -> None:
    """All of it."""
    path.unlink()


def other_schema(path: Path, rng: np.random.Generator) -> None:
    """As another version of the library would write it."""
    text, n = re.subn(rb'"schema": \d+', b'"schema": 999', path.read_bytes(), count=1)
    assert n == 1
    path.write_bytes(text)


def damaged(
    runs: Runs, fault: str, number: int, damage: Callable[[Path, np.random.Generator], None], kinds: Sequence[str]
) -> Outcome:
    """
    :param damage: what happens to a file of the newest checkpoint
    :param kinds: the files it can be: ``"manifest"``, ``"state"`` or ``"segment"``
    """
    folder, kind = runs.broken_off(fault, number), kinds[number % len(kinds)]
    older, newest = manifests(folder).values()
    own = {name.partition("_")[0]: folder / name for name in pieces(newest) - pieces(older)} | {"manifest": newest}
    damage(own[kind], np.random.default_rng(number))
    before = contents(folder)
    message = refusal(newest, number)
    untouched = contents(folder) == before
    gone_on = runs.gone_on_with(folder, number, 2 * EVERY)
    return Outcome(f"its {kind}", clear=bool(message), untouched=untouched, **gone_on.after(message))


def nothing_good(runs: Runs, fault: str, number: int) -> Outcome:
    """A file that all checkpoints need is damaged."""
    folder = runs.broken_off(fault, number)
    older, newest = manifests(folder).values()
    common = sorted(pieces(newest) & pieces(older))
    flip(folder / common[number % len(common)], np.random.default_rng(number))
    before = contents(folder)
    with runs.training(folder, number) as training:
        code = training.wait()
        message = last_line(training.errors(), folder)
    clear = code == 1 and "CheckpointError" in message
    return Outcome("", clear=clear, untouched=contents(folder) == before, message=message)


def of_another(runs: Runs, fault: str, number: int, env_id: str) -> Outcome:
    """
    :param env_id: of the model that is to go on
    """
    folder = runs.broken_off(fault, number)
    before = contents(folder)
    message = refusal(folder, number, env_id)
    untouched = contents(folder) == before
    gone_on = runs.gone_on_with(folder, number, 3 * EVERY)
    return Outcome(f"a model of {env_id}", clear=bool(message), untouched=untouched, **gone_on.after(message))


# ----------------------------------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """A kind of fault."""

    title: str
    """in the table"""
    happen: Callable[[Runs, str, int], Outcome]
    trials: int
    """how many of it"""


FAULTS = {
    "kills": Fault("processes killed (SIGKILL)", kills, 10),
    "sigint": Fault("SIGINT", partial(asked_to_end, signals=[signal.SIGINT]), 4),
    "sigterm": Fault("SIGTERM", partial(asked_to_end, signals=[signal.SIGTERM]), 4),
    "second signal": Fault("a second signal", partial(asked_to_end, signals=[signal.SIGINT, signal.SIGTERM]), 4),
    "dead environment": Fault("the process of an environment dies", dead_environment, 4),
    "poison": Fault("nan or infinite numbers from an environment", poison, 4),
    "two runs": Fault("a second run in the folder", two_runs, 4),
    "disk full": Fault("the disk is full", disk_full, 8),
    "read-only": Fault("the folder is read-only", read_only, 2),
    "truncated": Fault("a truncated file", partial(damaged, damage=cut_short, kinds=["manifest", "state", "segment"]), 6),
    "flipped": Fault("flipped bits", partial(damaged, damage=flip, kinds=["manifest", "state", "segment"]), 6),
    "missing": Fault("a missing file", partial(damaged, damage=remove, kinds=["state", "segment"]), 4),
    "nothing good": Fault("flipped bits where no older checkpoint is good", nothing_good, 2),
    "schema": Fault("a checkpoint of another version", partial(damaged, damage=other_schema, kinds=["manifest"]), 2),
    "space": Fault("a checkpoint of another space", partial(of_another, env_id="Acrobot-v1"), 2),
    "environment": Fault(
        "a checkpoint of another environment", partial(of_another, env_id="dqn_ext/CartPoleTerminalPenalty-v1"), 2
    ),
}
