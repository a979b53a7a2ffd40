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

from benchmarks.reliability.folders import checksums, files_of_checkpoint, find_unreadable, manifests, newest_step
from benchmarks.reliability.interrupted import INTERRUPTED_AT, Runs, last_line, resume_error
from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.sigkill import kill_repeatedly
from benchmarks.reliability.train import EVERY

PAGE_BYTES = 4096


# -- processes that end ------------------------------------------------------------------------------------------------------


def sigkill(runs: Runs, fault: str, number: int) -> Outcome:
    """SIGKILL, again and again."""
    folder = runs.folder / f"kills-{number}"
    found = kill_repeatedly(folder, number, runs.n_kills, ["--steps", runs.steps])
    return Outcome(
        how=f"at steps {' '.join(map(str, found.at))}",
        kills=runs.n_kills,
        writing=found.n_writing,
        resumed=not found.problems,
        equal=found.ended == runs.reference_fingerprints(number),
        message="; ".join(found.problems).replace(str(folder), "FOLDER"),
    )


def send_signals(runs: Runs, fault: str, number: int, signals: Sequence[signal.Signals]) -> Outcome:
    """
    :param signals: one, or two, the second of which comes while the last checkpoint is written
    """
    folder = runs.interrupted_run(fault, number)
    with runs.training(folder, number) as training:
        training.read(INTERRUPTED_AT + int(np.random.default_rng(number).integers(1, EVERY)))
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
    return Outcome(how, kills=1, clear=clear, **runs.resume(folder, number, newest).after(message))


def kill_environment(runs: Runs, fault: str, number: int) -> Outcome:
    """One of two processes of environments is killed."""
    folder, options = runs.folder / f"dead-environment-{number}", ["--processes", 2]
    with runs.training(folder, number, options) as training:
        training.read(INTERRUPTED_AT + number)
        victim = training.environments[number % 2]
        os.kill(victim, signal.SIGKILL)
        code = training.wait()
        message = last_line(training.errors(), folder).replace(str(victim), "PID")
    gone_on = runs.resume(folder, number, newest_step(folder), options)
    clear = code == 1 and "EnvironmentDiedError" in message and f"nvironment {number % 2}" in message
    return Outcome(f"environment {number % 2}", clear=clear, **gone_on.after(message))


def inject_non_finite(runs: Runs, fault: str, number: int) -> Outcome:
    """What is not finite comes from an environment."""
    what, value = [("observation", "nan"), ("reward", "nan"), ("observation", "inf"), ("reward", "inf")][number % 4]
    folder = runs.folder / f"poison-{number}"
    with runs.training(folder, number, ["--check-finite", "--poison", what, value, INTERRUPTED_AT]) as training:
        code = training.wait()
        message = last_line(training.errors(), folder)
    newest = newest_step(folder)
    gone_on = runs.resume(folder, number, newest, ["--check-finite"])
    clear = code == 1 and "NonFiniteError" in message and what in message and 0 < newest < INTERRUPTED_AT
    return Outcome(f"{what} {value}", clear=clear, **gone_on.after(message))


def start_second_run(runs: Runs, fault: str, number: int) -> Outcome:
    """A second process in the same folder, which the first does not notice."""
    folder = runs.interrupted_run(fault, number)
    with runs.training(folder, number) as first:
        first.read(INTERRUPTED_AT)
        first.signal(signal.SIGSTOP)  # or it might come to its end before
        with runs.training(folder, number) as second:
            clear = second.wait() == 1
            message = last_line(second.errors(), folder)
        first.signal(signal.SIGCONT)
        clear = clear and "CheckpointError" in message and str(first.pid) in message
        resumed = first.wait() == 0 and not find_unreadable(folder)
        equal = first.ended == runs.reference_fingerprints(number)
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


def shell_prefix(script: str, *arguments: object, mounts: bool) -> list[object]:
    """
    :param script: to run before a command, whose words are then ``"$@"``
    :param arguments: its variables $1, $2 ..., to shift away
    :param mounts: whether it mounts something
    :return: the prefix of the command
    """
    return [*(["unshare", "-rm"] if mounts else []), "sh", "-c", script, "sh", *arguments]


def fill_disk(runs: Runs, fault: str, number: int) -> Outcome:
    """In the middle of writing a checkpoint."""
    folder = runs.interrupted_run(fault, number)
    part = np.random.default_rng(number).uniform(0.05, 0.95)
    newest = [
        (folder / name).stat().st_size
        for name in files_of_checkpoint(manifests(folder)[3 * EVERY])
        if name.startswith("state_")
    ]
    if can_mount():
        held = sum(-(-path.stat().st_size // PAGE_BYTES) * PAGE_BYTES for path in folder.iterdir())
        size = (held + int(part * newest[0])) // PAGE_BYTES * PAGE_BYTES
        disk = runs.folder / f"disk-{number}"
        disk.mkdir()
        script = (
            'from="$1" to="$2" size="$3"; shift 3; '
            'mount -t tmpfs -o size="$size" none "$to" && cp -a "$from/." "$to" || exit 99; '
            '"$@"; code=$?; rm -rf "$from"; cp -a "$to" "$from"; exit $code'
        )
        how, prefix = f"a disk of {size} bytes", shell_prefix(script, folder, disk, size, mounts=True)
    else:
        blocks = max(int(part * newest[0]) // 512, 1)
        disk, how = folder, f"files of {512 * blocks} bytes at most (RLIMIT_FSIZE)"
        prefix = shell_prefix('ulimit -f "$1"; shift; exec "$@"', blocks, mounts=False)
    return run_without_writes(runs, number, folder, disk, how, prefix)


def make_read_only(runs: Runs, fault: str, number: int) -> Outcome:
    """A folder that nothing can be written to."""
    folder = runs.interrupted_run(fault, number)
    if can_mount():
        script = 'f="$1"; shift; mount --bind "$f" "$f" && mount -o remount,ro,bind "$f" || exit 99; exec "$@"'
        return run_without_writes(runs, number, folder, folder, "a read-only mount", shell_prefix(script, folder, mounts=True))
    folder.chmod(0o555)
    for path in folder.iterdir():
        path.chmod(0o444)
    other = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.geteuid() == 0 else []  # root writes wherever it likes
    try:
        return run_without_writes(runs, number, folder, folder, "by its mode", [*other])
    finally:
        folder.chmod(0o755)


def run_without_writes(runs: Runs, seed: int, folder: Path, seen_as: Path, how: str, prefix: Sequence[object]) -> Outcome:
    """
    :param runs: what faults happen to
    :param seed: of the run
    :param folder: of its checkpoints
    :param seen_as: the name it has for the process
    :param how: the writing is prevented
    :param prefix: the command that does so
    :return: what comes of a run there, and of the same run when there is room again
    """
    before = checksums(folder)
    with runs.training(seen_as, seed, prefix=prefix) as training:
        code = training.wait()
        message = last_line(training.errors(), seen_as)
    untouched = checksums(folder) == before
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    gone_on = runs.resume(folder, seed, 3 * EVERY)
    clear = code == 1 and message.startswith("CheckpointError: FOLDER")
    return Outcome(how, clear=clear, untouched=untouched, **gone_on.after(message))


# -- files that are not what they were ---------------------------------------------------------------------------------------


def truncate_file(path: Path, rng: np.random.Generator) -> None:
    """Of a part of its end."""
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def flip_bits(path: Path, rng: np.random.Generator) -> None:
    """A bit in each of a few of its bytes."""
    data = bytearray(path.read_bytes())
    for i in rng.choice(len(data), size=3, replace=False):
        data[i] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def remove_file(path: Path, rng: np.random.Generator) -> None:
    """All of it."""
    path.unlink()


def change_schema(path: Path, rng: np.random.Generator) -> None:
    """As another version of the library would write it."""
    text, n = re.subn(rb'"schema": \d+', b'"schema": 999', path.read_bytes(), count=1)
    assert n == 1
    path.write_bytes(text)


def damage_newest(
    runs: Runs, fault: str, number: int, damage: Callable[[Path, np.random.Generator], None], kinds: Sequence[str]
) -> Outcome:
    """
    :param damage: what happens to a file of the newest checkpoint
    :param kinds: the files it can be: ``"manifest"``, ``"state"`` or ``"segment"``
    """
    folder, kind = runs.interrupted_run(fault, number), kinds[number % len(kinds)]
    older, newest = manifests(folder).values()
    own = {name.partition("_")[0]: folder / name for name in files_of_checkpoint(newest) - files_of_checkpoint(older)} | {
        "manifest": newest
    }
    damage(own[kind], np.random.default_rng(number))
    before = checksums(folder)
    message = resume_error(newest, number)
    untouched = checksums(folder) == before
    gone_on = runs.resume(folder, number, 2 * EVERY)
    return Outcome(f"its {kind}", clear=bool(message), untouched=untouched, **gone_on.after(message))


def damage_all(runs: Runs, fault: str, number: int) -> Outcome:
    """A file that all checkpoints need is damaged."""
    folder = runs.interrupted_run(fault, number)
    older, newest = manifests(folder).values()
    common = sorted(files_of_checkpoint(newest) & files_of_checkpoint(older))
    flip_bits(folder / common[number % len(common)], np.random.default_rng(number))
    before = checksums(folder)
    with runs.training(folder, number) as training:
        code = training.wait()
        message = last_line(training.errors(), folder)
    clear = code == 1 and "CheckpointError" in message
    return Outcome("", clear=clear, untouched=checksums(folder) == before, message=message)


def resume_other_model(runs: Runs, fault: str, number: int, env_id: str) -> Outcome:
    """
    :param env_id: of the model that is to go on
    """
    folder = runs.interrupted_run(fault, number)
    before = checksums(folder)
    message = resume_error(folder, number, env_id)
    untouched = checksums(folder) == before
    gone_on = runs.resume(folder, number, 3 * EVERY)
    return Outcome(f"a model of {env_id}", clear=bool(message), untouched=untouched, **gone_on.after(message))


# ----------------------------------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """A kind of fault."""

    title: str
    """in the table"""
    inject: Callable[[Runs, str, int], Outcome]
    trials: int
    """how many of it"""


FAULTS = {
    "kills": Fault("processes killed (SIGKILL)", sigkill, 10),
    "sigint": Fault("SIGINT", partial(send_signals, signals=[signal.SIGINT]), 4),
    "sigterm": Fault("SIGTERM", partial(send_signals, signals=[signal.SIGTERM]), 4),
    "second signal": Fault("a second signal", partial(send_signals, signals=[signal.SIGINT, signal.SIGTERM]), 4),
    "dead environment": Fault("the process of an environment dies", kill_environment, 4),
    "poison": Fault("nan or infinite numbers from an environment", inject_non_finite, 4),
    "two runs": Fault("a second run in the folder", start_second_run, 4),
    "disk full": Fault("the disk is full", fill_disk, 8),
    "read-only": Fault("the folder is read-only", make_read_only, 2),
    "truncated": Fault(
        "a truncated file", partial(damage_newest, damage=truncate_file, kinds=["manifest", "state", "segment"]), 6
    ),
    "flipped": Fault("flipped bits", partial(damage_newest, damage=flip_bits, kinds=["manifest", "state", "segment"]), 6),
    "missing": Fault("a missing file", partial(damage_newest, damage=remove_file, kinds=["state", "segment"]), 4),
    "nothing good": Fault("flipped bits where no older checkpoint is good", damage_all, 2),
    "schema": Fault("a checkpoint of another version", partial(damage_newest, damage=change_schema, kinds=["manifest"]), 2),
    "space": Fault("a checkpoint of another space", partial(resume_other_model, env_id="Acrobot-v1"), 2),
    "environment": Fault(
        "a checkpoint of another environment", partial(resume_other_model, env_id="dqn_ext/CartPoleTerminalPenalty-v1"), 2
    ),
}
