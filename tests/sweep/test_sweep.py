"""Sweeps in separate processes: rows, failures, interrupted runs."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep.__main__ import EXAMPLE, main
from sb3_dqn_ext.sweep.results import COLUMNS, Row, read_rows
from sb3_dqn_ext.sweep.spec import Evaluation, Task
from sb3_dqn_ext.sweep.worker import measure_own
from tests.processes import python, wait_for

HOW = ("wall_s", "cpu_s", "command")
SPEC = """
envs: [CartPole-v1]
seeds: {seeds}
hyperparameters: {{n_timesteps: {steps}, policy: MlpPolicy, learning_starts: 100}}
evaluation: {{every: 500, episodes: 2, last_episodes: 3}}
save_freq: 200
measure: own_measures.count
variants:
  ours: {{hyperparameters: {{target_policy: own_measures.OwnTarget, policy_kwargs: {{loss: own_measures.own_loss}}}}}}
"""
MEASURES = """
from sb3_dqn_ext.algorithm.target_policies import GreedyTarget

class OwnTarget(GreedyTarget):
    pass

def own_loss(prediction, target):
    return (prediction - target).abs()

def count(run, task):
    return {"n_models": len(list(run.glob("best_model.zip"))), "name": task.name}
"""


def write_spec(path: Path, steps: int, more: str = "") -> None:
    path.write_text(SPEC.format(seeds=0, steps=steps) + more)
    (path.parent / "own_measures.py").write_text(MEASURES)


def results(path: Path) -> list[Row]:
    """The rows of a sweep without what differs between two times it is run."""
    return [{column: cell for column, cell in row.items() if column not in HOW} for row in read_rows(path)]


def test_each_run_becomes_a_row_once_and_a_failure_stops_no_other_run(tmp_path: Path) -> None:
    wrong = "  wrong: {hyperparameters: {batch_size: -1}}\n  theirs: {algo: dqn}\n"
    write_spec(tmp_path / "small.yml", steps=600, more=wrong)
    process = python("-m", "sb3_dqn_ext.sweep", "small.yml", "--jobs", "2", cwd=tmp_path)
    assert process.returncode == 1
    assert "CartPole-v1 wrong seed 0 failed" in process.stderr
    assert "batch_size=-1 must be a whole number" in process.stderr, "the output of the run is shown"
    assert process.stderr.rstrip().endswith("1 of the runs failed: CartPole-v1 wrong seed 0.")
    rows = {row["variant"]: row for row in read_rows(tmp_path / "small.csv")}
    assert rows.keys() == {"ours", "theirs"}
    for row in rows.values():
        assert (row["env"], row["seed"], row["steps"], row["eval_steps"]) == ("CartPole-v1", "0", "600", "500")
        assert 8 <= float(row["worst_episode"]) <= float(row["score"]) <= 500
        assert 8 <= float(row["eval_returns"]) <= 500
        assert float(row["cpu_s"]) > 0
        assert "torch=" in row["versions"]
        assert [*row] == [*COLUMNS[:10], "n_models", "name", *COLUMNS[10:]]
        assert (row["n_models"], row["name"]) == ("1", f"CartPole-v1 {row['variant']} seed 0")
    assert (tmp_path / "small.md").read_text() in process.stdout
    assert "| CartPole-v1: ours - theirs |" in process.stdout
    assert "| CartPole-v1 | n_models | theirs | 1 | 1 (1 to 1) | 0 | 0 to 0 |" in process.stdout
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")

    before = (tmp_path / "small.csv").read_bytes()
    repeated = python("-m", "sb3_dqn_ext.sweep", "small.yml", "--variants", "ours", "theirs", cwd=tmp_path)
    assert repeated.returncode == 0, repeated.stderr
    assert (tmp_path / "small.csv").read_bytes() == before, "a finished run was trained again"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("{'score': 1}", "returns 'score', which is a column of each row: give it another name"),
        ("1", "the result of own_measures_{}.wrong=1 must be a mapping"),
    ],
)
def test_a_function_that_measures_returns_columns_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: str, message: str
) -> None:
    name = f"own_measures_{len(result)}"
    (tmp_path / f"{name}.py").write_text(f"def wrong(run, task):\n    return {result}\n")
    monkeypatch.syspath_prepend(tmp_path)
    task = Task("CartPole-v1", "a", 0, "dqn", {}, Evaluation(), 1)
    with pytest.raises(ArgumentError, match=re.escape(message.format(len(result)))):
        measure_own(f"{name}.wrong", tmp_path, task)


def start(spec: str, cwd: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "sb3_dqn_ext.sweep", spec], cwd=cwd, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_run_and_a_killed_sweep_end_with_the_row_of_an_undisturbed_one(tmp_path: Path) -> None:
    for name in ("undisturbed", "disturbed"):
        write_spec(tmp_path / f"{name}.yml", steps=3000)
    assert start("undisturbed.yml", tmp_path).wait() == 0

    def checkpoints() -> list[Path]:
        return sorted((tmp_path / "runs/disturbed").glob("*/*/*/logs/*/*/checkpoints/checkpoint_*.json"))

    sweep = start("disturbed.yml", tmp_path)
    wait_for(checkpoints)
    newest = checkpoints()[-1].name
    (worker,) = (tmp_path / "runs/disturbed").glob("*/*/*/writer.lock")
    os.kill(int(worker.read_text()), signal.SIGKILL)  # the sweep starts it again
    wait_for(lambda: checkpoints()[-1].name > newest)
    sweep.kill()  # its worker ends at a checkpoint
    sweep.wait()
    assert read_rows(tmp_path / "disturbed.csv") == []
    assert start("disturbed.yml", tmp_path).wait() == 0
    assert results(tmp_path / "disturbed.csv") == [
        row | {"env": "CartPole-v1"} for row in results(tmp_path / "undisturbed.csv")
    ]
    (log,) = (tmp_path / "runs/disturbed").glob("*/*/*/log.txt")
    assert log.read_text().count("Resuming") == 2


@pytest.mark.slow
def test_an_interrupted_sweep_ends_its_runs_at_a_checkpoint(tmp_path: Path) -> None:
    write_spec(tmp_path / "spec.yml", steps=100_000)
    (tmp_path / "spec.yml").write_text((tmp_path / "spec.yml").read_text().replace("save_freq: 200", "save_freq: 90_000"))
    sweep = start("spec.yml", tmp_path)
    wait_for(lambda: list((tmp_path / "runs").glob("*/*/*/*/progress.json")))
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait() == 1
    assert list((tmp_path / "runs").glob("*/*/*/*/logs/*/*/checkpoints/checkpoint_*.json"))
    assert not list((tmp_path / "runs").glob("*/*/*/*/row.json"))


def test_wrong_arguments_end_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yml").write_text(EXAMPLE)
    for arguments, message in (
        ("--jobs 0", "--jobs=0 must be a whole number in [1, inf]"),
        ("--variants two", "--variants='two' is not known; it can be one of: one step, three steps"),
        ("--envs CartPole-v0", "Did you mean 'CartPole-v1'?"),
        ("--seeds 3-9", "--seeds='5' is not known"),
    ):
        with pytest.raises(SystemExit, match=re.escape(message)):
            main([str(tmp_path / "spec.yml"), *arguments.split()])
    with pytest.raises(SystemExit):
        main([str(tmp_path / "spec.yml"), "--seeds", "all"])
    assert "seeds='all' must be numbers, such as 0-4" in capsys.readouterr().err
