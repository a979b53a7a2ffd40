"""The loop of a sweep, the choice of an engine, and the files that are carried between machines."""

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import pytest

from sb3_dqn_ext import _command_line
from sb3_dqn_ext.storage.lock import Lock
from sb3_dqn_ext.sweep import carried, driver
from sb3_dqn_ext.sweep.__main__ import EXAMPLE, main
from sb3_dqn_ext.sweep.driver import KILLS, Outcome, run_all
from sb3_dqn_ext.sweep.engine import Engine, Job
from sb3_dqn_ext.sweep.engines import ENGINE
from sb3_dqn_ext.sweep.processes import LOCKED, WorkerProcess
from sb3_dqn_ext.sweep.progress_view import ProgressView
from sb3_dqn_ext.sweep.run_files import PROGRESS
from sb3_dqn_ext.sweep.spec import Evaluation, Task


class OwnEngine(Engine):
    """An engine of a user, whose processes run the lines of Python in the files of the runs."""

    def __init__(self) -> None:
        self.most = self.n_running = 0
        self.submitted: list[str] = []
        self.closed: list[Job] | None = None

    def submit(self, folder: Path) -> "subprocess.Popen[bytes]":
        self.submitted.append(folder.name)
        return subprocess.Popen([sys.executable, "-S", "-c", (folder / "code.py").read_text()], cwd=folder)

    def close(self, jobs: Collection[Job]) -> None:
        self.closed = list(jobs)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "POLL_SECONDS", 0.02)


def write_runs(folder: Path, **codes: str) -> list[Path]:
    for name, code in codes.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "code.py").write_text(code)
    return [folder / name for name in codes]


def test_a_killed_run_is_submitted_again_as_long_as_it_has_new_checkpoints(tmp_path: Path) -> None:
    checkpoint = "logs/dqn_ext/Run_1/checkpoints/checkpoint_{}.json"
    makes_progress = (
        "import os, pathlib\n"
        f"files = [pathlib.Path({checkpoint!r}.format(i)) for i in range({KILLS + 2})]\n"
        "new = [file for file in files if not file.exists()]\n"
        "new and (new[0].parent.mkdir(parents=True, exist_ok=True), new[0].touch(), os.kill(os.getpid(), 9))\n"
    )
    runs = write_runs(
        tmp_path,
        good="",
        wrong="raise SystemExit(3)",
        killed="import os; os.kill(os.getpid(), 9)",
        terminated="raise SystemExit(143)",
        progresses=makes_progress,
    )
    engine, ended, polled = OwnEngine(), list[Outcome](), list[int]()
    run_all(runs, engine, 2, ended.append, lambda running: polled.append(len(running)))
    outcomes = {outcome.folder.name: outcome.error[:12] for outcome in ended}
    assert outcomes == {
        "good": "",
        "wrong": "exit code 3,",
        "killed": "exit code -9",
        "terminated": "exit code 14",
        "progresses": "",
    }
    counts = {run.name: engine.submitted.count(run.name) for run in runs}
    assert counts == {"good": 1, "wrong": 1, "killed": KILLS, "terminated": KILLS, "progresses": KILLS + 3}
    assert max(polled) == 2, "two runs at the same time"
    assert engine.closed == []


def test_a_run_that_another_process_trains_waits_for_its_end(tmp_path: Path) -> None:
    once = f"import os, pathlib, sys\nfile = pathlib.Path('second')\nfile.exists() or (file.touch(), sys.exit({LOCKED}))"
    runs = write_runs(tmp_path, busy="", race=once)
    lock = Lock(runs[0])
    assert not Lock.is_held(runs[0])
    lock.__enter__()
    assert Lock.is_held(runs[0])
    engine, ended = OwnEngine(), list[Outcome]()

    def on_end(outcome: Outcome) -> None:
        ended.append(outcome)
        lock.__exit__()

    run_all(runs, engine, None, on_end, lambda _: None)
    assert engine.submitted == ["race", "race", "busy"]
    assert [outcome.error for outcome in ended] == ["", ""]
    (tmp_path / "broken" / "writer.lock").mkdir(parents=True)
    assert not Lock.is_held(tmp_path / "broken"), "the process of the run reports the broken disk"


def test_the_progress_shows_the_submitted_runs_that_have_made_steps(tmp_path: Path) -> None:
    tasks = [Task("CartPole-v1", "a", seed, "dqn", {"n_timesteps": 10}, Evaluation(), 1) for seed in range(3)]
    folders = [tmp_path / task.folder for task in tasks]
    with ProgressView(tasks, tmp_path) as view:
        view.begin(tasks)
        folders[1].mkdir(parents=True)
        (folders[1] / PROGRESS).write_text("[4, 1.0, 1.0]")
        text = view.describe(folders)
    assert text.startswith("0 of 3 runs, 13% of the steps, ")
    assert text.endswith(" left | CartPole-v1 a seed 1: 40%")


def test_an_interrupted_sweep_gives_the_engine_the_jobs_to_end(tmp_path: Path) -> None:
    engine = OwnEngine()

    def interrupt(_: list[Path]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(write_runs(tmp_path, a="input()", b="input()"), engine, 1, lambda _: None, interrupt)
    assert engine.closed is not None
    (job,) = engine.closed
    assert isinstance(job, subprocess.Popen)
    job.kill()
    job.wait()


def test_an_engine_is_a_name_or_an_object_or_a_dotted_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = OwnEngine()
    assert ENGINE.build(engine) is engine
    assert type(ENGINE.build(f"{__name__}.OwnEngine", {})).__name__ == "OwnEngine"
    (tmp_path / "spec.yml").write_text(EXAMPLE)
    for arguments, message in (
        (["--engine", "slurm"], "--engine='slurm' is not known.*Did you mean 'submitit'"),
        (["--engine", "tests.sweep.test_engines.write_runs"], "is no Engine: it has no submit"),
        (["--address", "auto"], "--engine-kwargs has no argument 'address'"),
        (["--engine", "ray", "--engine-kwargs", "{num_cpu: 2}"], "Did you mean 'num_cpus'"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([str(tmp_path / "spec.yml"), *arguments])
    with pytest.raises(SystemExit):
        main([str(tmp_path / "spec.yml"), "--engine-kwargs", "2"])
    assert "'2' must be a mapping in YAML" in capsys.readouterr().err


@pytest.mark.parametrize("extra", ["ray", "submitit"])
def test_an_engine_without_its_extra_ends_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    monkeypatch.setitem(_command_line.EXTRAS, extra, ("not_installed",))
    (tmp_path / "spec.yml").write_text(EXAMPLE)
    with pytest.raises(SystemExit, match=rf"--engine {extra} needs not_installed: pip install 'sb3-dqn-ext\[{extra}\]'$"):
        main([str(tmp_path / "spec.yml"), "--engine", extra])
    assert not (tmp_path / "runs").exists()


def write_run(folder: Path) -> None:
    for name in ("row.json", "log.txt", "logs/dqn_ext/Run_1/checkpoints/checkpoint_1.json", "writer.lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_files_of_a_run_are_carried_and_an_unpacking_that_was_killed_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, here = tmp_path / "node", tmp_path / "here"
    write_run(node)
    with tarfile.open(fileobj=BytesIO(carried.pack(node))) as archive:
        assert archive.getnames()[-1] == "row.json", "a row exists only after all other files"
    (here / "logs/dqn_ext/Run_1").mkdir(parents=True)
    (here / "logs/dqn_ext/Run_1/old.zip").touch()
    carried.store(carried.pack(node), here)
    assert carried.read_state(here) == carried.pack(node), "a run continues from the newest archive"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda _: sys.exit("killed"))
        with pytest.raises(SystemExit):
            carried.unpack_stored(here)
    carried.unpack_stored(here)
    assert names(here) == names(node) - {"writer.lock"}
    state = carried.newest_state(here)
    (here / "logs/dqn_ext/Run_1/checkpoints/checkpoint_2.json").touch()
    assert carried.newest_state(here) != state


def test_a_paused_process_writes_nothing(tmp_path: Path) -> None:
    code = "import itertools\nfor i in itertools.count():\n    with open('count', 'w') as file: file.write(str(i))"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], cwd=tmp_path, start_new_session=True)
    try:
        count = tmp_path / "count"
        while not count.is_file() or not count.read_text():
            time.sleep(0.01)
        for _ in range(3):
            with carried.paused(process.pid):
                before = count.stat().st_mtime_ns, count.read_text()
                time.sleep(0.2)
                assert (count.stat().st_mtime_ns, count.read_text()) == before
            deadline = time.monotonic() + 30
            while count.stat().st_mtime_ns == before[0] and time.monotonic() < deadline:
                time.sleep(0.01)
            assert count.stat().st_mtime_ns != before[0], "it continues"
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    with carried.paused(process.pid):  # one that has ended
        pass


@pytest.mark.slow
def test_the_process_of_a_run_ends_with_the_process_that_has_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time\nfrom sb3_dqn_ext.sweep.processes import WorkerProcess\n"
        "print(WorkerProcess(pathlib.Path('.')).process.pid, flush=True)\ntime.sleep(600)"
    )
    (tmp_path / "task.json").mkdir()  # which is read after the lock
    os.mkfifo(tmp_path / "row.json")
    assert WorkerProcess(tmp_path).wait() == 1
    (tmp_path / "task.json").rmdir()
    os.mkfifo(tmp_path / "task.json")  # which the process of the run waits for
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    while not Lock.is_held(tmp_path):
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
