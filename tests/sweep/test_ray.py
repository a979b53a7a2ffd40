"""Sweeps on a Ray cluster: the rows of undisturbed ones, whatever is killed, joins or leaves."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep.ray_engine import RayEngine, RemoteRun
from sb3_dqn_ext.sweep.results import Row, read_rows
from tests.processes import output, python

pytest.importorskip("ray")

SPEC = """
envs: [CartPole-v1]
seeds: {seeds}
results: {results}
hyperparameters:
  n_timesteps: {steps}
  policy: MlpPolicy
  policy_kwargs: {{net_arch: [8]}}
  learning_starts: 50
  callback: own_watch.Watch
evaluation: {{every: 250, episodes: 1, last_episodes: 2}}
save_freq: 100
variants: {{ours: {{}}}}
"""
WATCH = """
import os
from pathlib import Path
from stable_baselines3.common.callbacks import BaseCallback

class Watch(BaseCallback):
    "Writes a file `twice` if two processes train a run at the same time."

    def _on_training_start(self):
        if self.file.exists() and os.path.exists(f"/proc/{{self.file.read_text()}}"):
            self.file.with_name("twice").touch()
        self.file.write_text(str(os.getpid()))

    def _on_step(self):
        if self.file.read_text() != str(os.getpid()):
            self.file.with_name("twice").touch()
        return True

    @property
    def file(self):
        return Path({folder!r}) / f"trained_by_{{self.model.seed}}"
"""
HOW = ("wall_s", "cpu_s", "command")
N_RUNS = 12
N_KILLS = 20


def write_specs(folder: Path, seeds: str, steps: int) -> None:
    for name in ("undisturbed", "disturbed"):
        (folder / f"{name}.yml").write_text(SPEC.format(seeds=seeds, steps=steps, results=f"{name}.csv"))
    (folder / "own_watch.py").write_text(WATCH.format(folder=str(folder)))


def results(path: Path) -> list[Row]:
    """The rows without what differs between two times they are made, sorted by seed."""
    rows = [{column: cell for column, cell in row.items() if column not in HOW} for row in read_rows(path)]
    return sorted(rows, key=lambda row: int(row["seed"]))


def start(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    with (folder / "sweep.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sb3_dqn_ext.sweep", "disturbed.yml", "--engine", "ray", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def wait_for(condition: Callable[[], object], seconds: float = 1200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def descendants(process: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(process).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def own_clusters() -> list[Path]:
    return sorted(Path(tempfile.gettempdir()).glob("ray-????????"))


def test_a_run_that_fails_on_a_cluster_is_reported_and_the_cluster_leaves_no_files(tmp_path: Path) -> None:
    run, before, on_sigterm = tmp_path / "runs/run", own_clusters(), signal.getsignal(signal.SIGTERM)
    run.mkdir(parents=True)
    (run / "task.json").write_text("no JSON")
    engine = RayEngine()
    engine.start(tmp_path / "runs")
    assert len(own_clusters()) == len(before) + 1
    job = engine.submit(run)
    code = None
    while code is None:
        code = job.poll()
        time.sleep(0.1)
    assert code == 1
    assert "JSONDecodeError" in (run / "log.txt").read_text()
    engine.close([])
    assert own_clusters() == before
    assert signal.getsignal(signal.SIGTERM) is on_sigterm
    with pytest.raises(ArgumentError, match=r"has no folder .*missing: set --runs to a folder that all nodes share, or carry"):
        RemoteRun(str(tmp_path / "missing"), None, None)


class Disturbance:
    """
    Kills at random: the sweep with its cluster, an actor, or the process of a run.

    :param folder: the folder of the sweep
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kills: list[str] = []
        self.random = random.Random(0)
        self.before: set[str] = set()
        self.sweep = start(folder, "--jobs", "2")

    def state(self) -> set[str]:
        """The checkpoints and rows so far: at least one is new between two kills, so that the sweep comes to an end."""
        runs = self.folder / "runs/disturbed"
        files = [*runs.glob("*/*/*/logs/*/*/checkpoints/checkpoint_*.json"), *runs.glob("*/*/*/row.json")]
        return set(map(str, files))

    def targets(self) -> dict[str, list[int]]:
        below = [(process.pid, command_of(process)) for process in descendants(self.sweep.pid)]
        return {
            "sweep": [self.sweep.pid],
            "actor": [pid for pid, command in below if command.startswith("ray::RemoteRun")],
            "run": [pid for pid, command in below if "sweep.worker" in command],
        }

    def kill(self, kind: str) -> None:
        """
        Kill a process of a kind as soon as there is one, and a new checkpoint or row.

        :param kind: a key of ``targets``
        """
        wait_for(lambda: self.sweep.poll() is not None or (self.state() - self.before and self.targets()[kind]))
        time.sleep(self.random.random())
        self.before, pids = self.state(), self.targets()[kind]
        if pids and self.sweep.poll() is None:
            os.kill(self.random.choice(pids), signal.SIGKILL)
            self.kills.append(kind)

    def run(self, n_kills: int) -> None:
        """
        Run the sweep to its end.

        :param n_kills: the number of kills meanwhile
        """
        while self.sweep.poll() != 0:
            if len(self.kills) < n_kills:
                self.kill(self.random.choice(["sweep", "actor", "run"]))
            else:
                self.sweep.wait()
            if self.sweep.poll() not in (None, 0):
                self.sweep = start(self.folder, "--jobs", "2")


@pytest.mark.slow  # three minutes on two idle cores, half an hour on busy ones
def test_a_sweep_whose_processes_are_killed_at_random_ends_with_the_rows_of_an_undisturbed_one(tmp_path: Path) -> None:
    write_specs(tmp_path, seeds=f"0-{N_RUNS - 1}", steps=1800)  # enough for all kills on an idle machine, too
    clusters = own_clusters()
    disturbance = Disturbance(tmp_path)
    disturbance.run(N_KILLS)
    print(disturbance.kills)
    assert len(disturbance.kills) == N_KILLS
    assert not (tmp_path / "twice").exists(), "two processes trained a run at the same time"
    assert own_clusters() == clusters, "temporary files are left"
    assert not [process for process in psutil.process_iter() if str(tmp_path) in command_of(process)]
    output(python("-m", "sb3_dqn_ext.sweep", "undisturbed.yml", "--jobs", "2", cwd=tmp_path))
    rows = results(tmp_path / "disturbed.csv")
    assert len(rows) == N_RUNS
    assert rows == results(tmp_path / "undisturbed.csv")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short path, for sockets
        Path("/tmp/ray").mkdir(exist_ok=True)  # where the address is written
        head = {"num_cpus": 0, "temp_dir": folder, "include_dashboard": False}
        made: Any = Cluster(initialize_head=True, head_node_args=head)
        yield made
        made.shutdown()


@pytest.mark.slow  # 7 minutes on two busy cores
def test_runs_move_to_a_node_that_joins_from_one_that_leaves_and_carry_their_files(tmp_path: Path, cluster: Any) -> None:
    write_specs(tmp_path, seeds="0-2", steps=1500)
    first = cluster.add_node(num_cpus=1)
    sweep = start(
        tmp_path,
        "--address",
        cluster.address,
        "--engine-kwargs",
        "{shared_files: false, runtime_env: {working_dir: ., excludes: [runs]}}",
    )

    def archives() -> list[Path]:
        return list((tmp_path / "runs").glob("*/*/*/*/carried.tar"))

    wait_for(archives)
    assert len(archives()) == 1, "one node with one processor trains one run"
    cluster.add_node(num_cpus=1)
    wait_for(lambda: len(archives()) == 2 or sweep.poll() is not None)
    cluster.remove_node(first, allow_graceful=False)
    assert sweep.wait(1200) == 0, (tmp_path / "sweep.log").read_text()
    assert not archives()
    logs = [log.read_text() for log in (tmp_path / "runs").glob("*/*/*/*/log.txt")]
    assert sum("Resuming" in log for log in logs) >= 1, "a run continued on another node"
    assert not (tmp_path / "twice").exists()
    scratch = Path(tempfile.gettempdir()) / f"sb3-dqn-ext-{os.getuid()}"
    assert not [folder for folder in scratch.iterdir() if psutil.pid_exists(int(folder.name.split("-")[0]))]
    output(python("-m", "sb3_dqn_ext.sweep", "undisturbed.yml", "--jobs", "2", cwd=tmp_path))
    assert results(tmp_path / "disturbed.csv") == results(tmp_path / "undisturbed.csv")
