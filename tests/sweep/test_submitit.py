"""Sweeps in jobs of submitit, on this machine."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep.processes import ProcessEngine
from sb3_dqn_ext.sweep.run_files import write_task
from sb3_dqn_ext.sweep.spec import Evaluation, Task
from sb3_dqn_ext.sweep.submitit_engine import SubmititEngine

pytest.importorskip("submitit")

HYPERPARAMETERS: dict[str, Any] = {"n_timesteps": 2000, "policy": "MlpPolicy", "policy_kwargs": {"net_arch": [8]}}
TASK = Task("CartPole-v1", "ours", 0, "dqn_ext", HYPERPARAMETERS, Evaluation(1500, 1, 1), save_freq=200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cluster": "condor"}, "cluster='condor'.*doesn't know any executor named condor"),
        ({"cluster": "local", "parameters": {"nonsense": 1}}, "Parameter 'nonsense' need to be prefixed"),
    ],
)
def test_wrong_arguments_of_submitit_are_one_error(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"(?s)submitit refuses .*{message}"):
        SubmititEngine(**arguments).start(tmp_path)


@pytest.mark.slow  # 3 minutes on two busy cores
def test_a_job_that_is_preempted_and_one_that_is_killed_continue_and_end_with_the_row_of_a_process(tmp_path: Path) -> None:
    for name in ("process", "job"):
        write_task(tmp_path / name, TASK, "the command")
    process = ProcessEngine().submit(tmp_path / "process")
    assert process.wait() == 0
    engine = SubmititEngine("local")
    engine.start(tmp_path)
    job = engine.submit(tmp_path / "job")

    def wait_for_more() -> None:
        before = set((tmp_path / "job").rglob("checkpoint_*.json"))
        while not set((tmp_path / "job").rglob("checkpoint_*.json")) - before:
            assert job.poll() is None
            time.sleep(0.05)

    wait_for_more()
    (function,) = psutil.Process(int(job.job.job_id)).children()
    function.send_signal(signal.SIGUSR2)  # as Slurm before a preemption
    while "Resuming" not in (tmp_path / "job/log.txt").read_text():
        assert job.poll() is None
        time.sleep(0.05)
    wait_for_more()
    (lock,) = (tmp_path / "job").glob("writer.lock")
    assert job.poll() is None
    os.kill(int(lock.read_text()), signal.SIGKILL)
    while (code := job.poll()) is None:
        time.sleep(0.1)
    assert code == -signal.SIGKILL
    job = engine.submit(tmp_path / "job")
    while (code := job.poll()) is None:
        time.sleep(0.1)
    assert code == 0
    engine.close([])
    assert (tmp_path / "job/log.txt").read_text().count("Resuming") == 2
    rows = [json.loads((tmp_path / name / "row.json").read_text()) for name in ("process", "job")]
    for row in rows:
        del row["wall_s"], row["cpu_s"]
    assert rows[0] == rows[1]
    assert not list((tmp_path / "submitit").glob(f"{job.job.job_id}_*")), "the files of a job that has ended well"
