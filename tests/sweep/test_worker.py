"""The process of a run: its row, and fresh environments of a run that another process has trained."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.storage.lock import Lock
from sb3_dqn_ext.sweep.processes import LOCKED, describe_failure
from sb3_dqn_ext.sweep.progress import ProgressCallback
from sb3_dqn_ext.sweep.run_files import PROGRESS, Progress, read_progress, read_row, write_task
from sb3_dqn_ext.sweep.spec import Evaluation, Task
from sb3_dqn_ext.sweep.worker import main
from tests.processes import output, python, wait_for

TASK = Task("CartPole-v1", "a", 0, "dqn", {}, Evaluation(), 1)


def test_a_row_that_is_damaged_or_of_another_run_is_no_row(tmp_path: Path) -> None:
    assert read_row(tmp_path, TASK) is None
    for text in ("", '{"env"', "[]", "3", '{"env": "CartPole-v1"}', json.dumps(TASK.key | {"seed": "1"})):
        (tmp_path / "row.json").write_text(text)
        assert read_row(tmp_path, TASK) is None
    (tmp_path / "row.json").write_text(json.dumps(TASK.key))
    assert read_row(tmp_path, TASK) == TASK.key


def test_a_failure_is_described_if_its_folder_was_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "deleted"
    assert describe_failure(folder, 1) == f"exit code 1, {folder / 'log.txt'} is missing"


def test_a_run_waits_for_another_process_and_not_for_a_broken_disk(tmp_path: Path) -> None:
    with Lock(tmp_path / "busy"), pytest.raises(SystemExit) as busy:
        main([str(tmp_path / "busy")])
    assert busy.value.code == LOCKED
    (tmp_path / "broken" / "writer.lock").mkdir(parents=True)
    with pytest.raises(SystemExit) as broken:
        main([str(tmp_path / "broken")])
    assert broken.value.code == 1


@pytest.mark.parametrize("algo", ["dqn", "dqn_ext"])
def test_an_interrupted_run_has_no_row(algo: str, tmp_path: Path) -> None:
    """At a KeyboardInterrupt, the zoo saves the model as if the training had ended."""
    hyperparameters = {"n_timesteps": 1_000_000, "policy": "MlpPolicy"}
    write_task(tmp_path, Task("CartPole-v1", "a", 0, algo, hyperparameters, Evaluation(every=10**6), 10**6), "command")
    with (tmp_path / "log.txt").open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-m", "sb3_dqn_ext.sweep.worker", str(tmp_path)], stdout=log, stderr=log)
    wait_for(lambda: (tmp_path / PROGRESS).is_file())
    worker.send_signal(signal.SIGINT)
    assert worker.wait() == 128 + signal.SIGINT, (tmp_path / "log.txt").read_text()
    assert not (tmp_path / "row.json").exists()
    assert not list(tmp_path.glob("logs/*/*/CartPole-v1.zip"))


def test_a_fresh_environment_has_the_packages_of_its_training(tmp_path: Path) -> None:
    (tmp_path / "own_games.py").write_text(
        "import gymnasium as gym\ngym.register('Own-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    (tmp_path / "run/Own-v0").mkdir(parents=True)
    (tmp_path / "run/Own-v0/args.yml").write_text(yaml.safe_dump({"env": "Own-v0", "gym_packages": ["own_games"]}))
    (tmp_path / "run/Own-v0/config.yml").write_text(yaml.safe_dump({"n_envs": 1}))
    code = (
        "from pathlib import Path\nfrom sb3_dqn_ext.sweep.evaluation import fresh_env\n"
        "print(fresh_env(Path('run'), 'Own-v0', 0).observation_space.shape)"
    )
    assert output(python("-c", code, cwd=tmp_path)) == "(4,)\n"


def test_times_of_a_resumed_run_are_the_sums_over_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock in a checkpoint would count the pause, and would be wrong after a restart of the machine or on another one."""

    def train(steps: int) -> Progress:
        model = DQNExt("MlpPolicy", "CartPole-v1", learning_starts=1000)
        if steps > 100:
            model.resume(tmp_path / "checkpoints")
        callbacks = [ProgressCallback("progress.json"), ExactCheckpointCallback(every=50, path=tmp_path / "checkpoints")]
        model.learn(steps, callback=callbacks)
        return read_progress(tmp_path / PROGRESS)

    monkeypatch.setattr(ProgressCallback, "folder", tmp_path)
    first = train(100)
    (tmp_path / PROGRESS).write_text(json.dumps(first._replace(wall=1000.0, cpu=500.0)))
    time.sleep(0.1)
    began, cpu_before = time.monotonic(), time.process_time()
    second = train(200)
    assert (first.steps, second.steps) == (100, 200)
    assert 1000 < second.wall < 1000 + time.monotonic() - began
    assert 500 < second.cpu < 500 + time.process_time() - cpu_before
