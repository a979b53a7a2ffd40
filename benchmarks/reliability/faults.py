"""One fault each: it happens to a run, and what came of it becomes a row."""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.reliability.folders import contents, manifests, newest_step, pieces, unreadable
from benchmarks.reliability.interrupted import BROKEN_OFF, Runs, last_line, refusal
from benchmarks.reliability.kills import killed
from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.train import EVERY

PAGE = 4096


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
