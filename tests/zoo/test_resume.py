"""A run of the zoo that was killed is resumed by one command, and ends as a run that was not interrupted."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.util import tensor_util

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.checkpoint.deferred_signals import STOP_MESSAGE
from sb3_dqn_ext.checkpoint.folder import checkpoints, read_checkpoint
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.run_folder.run_file import RunFile
from sb3_dqn_ext.serialization.migrations import SCHEMA
from sb3_dqn_ext.storage.lock import Lock
from sb3_dqn_ext.vec_env import make_fast_vec_env
from sb3_dqn_ext.versions import versions
from sb3_dqn_ext.zoo import resume
from tests.interrupted_runs import make_model
from tests.parity import assert_same, learn
from tests.processes import Process, output, python, write_package

RESUME = ("-m", "sb3_dqn_ext.zoo", "resume")

# A callback of the user, which kills its process at the step in KILL_AT.
KILLER = """
import os, signal
from stable_baselines3.common.callbacks import BaseCallback

class Kill(BaseCallback):
    def _on_step(self):
        if self.num_timesteps >= int(os.environ.get("KILL_AT", "1000000")):
            os.kill(os.getpid(), signal.SIGKILL)
        return True
"""

CONFIG: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_timesteps": 480,
    "learning_starts": 40,
    "learning_rate": "lin_0.01",
    "batch_size": 8,
    "train_freq": 4,
    "target_update_interval": 30,
    "policy_kwargs": "dict(net_arch=[16], activation_fn=nn.Tanh)",
    "callback": "killing.Kill",
}
TRAIN = (
    *("-m", "rl_zoo3.train", "--algo", "dqn_ext", "--env", "CartPole-v1", "-conf", "mine.yml", "--seed", "1", "-f", "logs"),
    *("--save-freq", "100", "--eval-freq", "90", "--eval-episodes", "2", "--log-interval", "1", "-tb", "tensorboard", "-P"),
)


class Run(NamedTuple):
    """A run, and what TensorBoard shows of it."""

    folder: Path
    tensorboard: Path

    def model(self) -> DQNExt:
        return DQNExt.load(self.folder / "CartPole-v1.zip", device="cpu")

    def best(self) -> DQNExt:
        return DQNExt.load(self.folder / "best_model.zip", device="cpu")

    def episodes(self) -> list[list[tuple[str, str]]]:
        """Return the return and the length of each episode, by environment."""
        found = []
        for path in sorted(self.folder.glob("*.monitor.csv")):
            header, *lines = path.read_text().splitlines()
            assert json.loads(header[1:])["env_id"] == "CartPole-v1"
            rows = list(csv.DictReader(lines))
            assert [row["t"] for row in rows] == sorted((row["t"] for row in rows), key=float)
            found.append([(row["r"], row["l"]) for row in rows])
        return found

    def evaluations(self) -> dict[str, Any]:
        with np.load(self.folder / "evaluations.npz") as file:
            return {name: file[name] for name in file.files}

    def scalars(self) -> dict[str, list[tuple[int, float]]]:
        """Return the scalars in TensorBoard, except for the times."""
        return read_scalars(self.tensorboard)


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points of each curve, and check that both readers of TensorBoard agree."""
    new = plugin_event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    points = {
        tag: [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in new.Tensors(tag)]
        for tag in new.Tags()["tensors"]
        if not tag.startswith("time/")
    }
    old = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    assert points == {tag: [(event.step, event.value) for event in old.Scalars(tag)] for tag in points}
    return points


EXACT = {"sb3_dqn_ext.callbacks.ExactCheckpointCallback": {"every": 100, "path": "exact"}}
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {  # the configuration, the command, where checkpoints lie
    "one environment": ({}, (), "checkpoints"),
    "two in processes, normalised": (
        {"n_envs": 2, "normalize": {"norm_reward": True}, "callback": ["killing.Kill", EXACT]},
        ("--vec-env", "subproc"),
        "exact",
    ),
}


def train(project: Path, *arguments: str, kill_at: int = 10**6) -> Process:
    return python(*TRAIN, *arguments, cwd=project, KILL_AT=str(kill_at))


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_killed_is_resumed_with_the_same_result(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration, arguments, place = CASES[name]
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    write_package(project, killing=KILLER)
    elsewhere.mkdir()
    (project / "mine.yml").write_text(yaml.safe_dump({"CartPole-v1": CONFIG | configuration}))
    whole, killed = (
        Run(project / f"logs/dqn_ext/CartPole-v1_{i}", project / f"tensorboard/CartPole-v1/DQNExt_{i}") for i in (1, 2)
    )
    output(train(project, *arguments))
    assert train(project, *arguments, kill_at=350).returncode == -signal.SIGKILL

    (project / "mine.yml").write_text(
        "CartPole-v1: {policy: another}"
    )  # not read: run.json contains the hyperparameters of the start
    for path in (killed.folder / "CartPole-v1").iterdir():
        path.unlink()  # args.yml, config.yml, vecnormalize.pkl: not read
    (project / "tensorboard/CartPole-v1/DQNExt_3").mkdir()  # of another run
    assert not (killed.folder / ("exact" if place == "checkpoints" else "checkpoints")).exists()
    older, newest = checkpoints(killed.folder / place)
    if name == "one environment":
        newest.write_bytes(newest.read_bytes()[:-9])
        assert older.name in ("checkpoint_000000000204.json", "checkpoint_000000000200.json")
    assert len(killed.episodes()[0]) > 2
    process = python(*RESUME, str(killed.folder), cwd=elsewhere, PYTHONPATH=str(project))
    assert "100%" in output(process)
    assert "could not be added" not in process.stderr
    assert (f"A later checkpoint is skipped: {newest} is damaged" in process.stderr) == (name == "one environment")

    assert_same(killed.model().get_parameters(), whole.model().get_parameters(), "parameters")
    assert killed.episodes() == whole.episodes()
    assert_same(killed.evaluations(), whole.evaluations(), "evaluations")
    assert killed.scalars() == whole.scalars()
    assert {tag for tag in whole.scalars() if tag.startswith("eval/")}
    assert {path.name for path in killed.folder.iterdir()} == {path.name for path in whole.folder.iterdir()}
    assert_same(killed.best().get_parameters(), whole.best().get_parameters(), "best")
    assert not list((project / "tensorboard/CartPole-v1/DQNExt_3").iterdir())
    assert not list(elsewhere.iterdir())

    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    resume.main([str(killed.folder)])
    assert capsys.readouterr().out == f"{killed.folder} is finished: it ended at step 480.\n"
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_ctrl_c_lets_the_zoo_save_its_model_after_a_last_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(yaml.safe_dump({"CartPole-v1": {**CONFIG, "callback": None}}))
    folder = tmp_path / "logs/dqn_ext/CartPole-v1_1"
    command = [sys.executable, *TRAIN, "-n", "100000000", "--verbose", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)
    try:
        deadline = time.monotonic() + 60
        while not checkpoints(folder / "checkpoints") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    assert STOP_MESSAGE in errors
    assert ": `sb3-dqn-ext resume logs/dqn_ext/CartPole-v1_1` continues from there.\n" in errors
    assert "Traceback" not in errors
    assert (
        DQNExt.load(folder / "CartPole-v1.zip").num_timesteps == read_checkpoint(checkpoints(folder / "checkpoints")[-1]).step
    )
    assert run_file.read(folder).finished is None

    content = json.loads((folder / "run.json").read_text())
    content["hyperparameters"]["gama"] = 0.9
    (folder / "run.json").write_text(json.dumps(content))
    files = {*folder.rglob("*")}
    assert "DQNExt() has no argument 'gama'" in python(*RESUME, str(folder), cwd=tmp_path).stderr
    assert {*folder.rglob("*")} == files, "a run that cannot be resumed keeps its files"


# -- run.json --------------------------------------------------------------------------------------------------------------

RUN = RunFile("CartPole-v1", "/somewhere", {"seed": 1}, {"policy": "MlpPolicy"}, "checkpoints", None, None, versions())


def refusal(folder: Path, *options: str) -> str:
    """Return the error with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        resume.main([str(folder), *options])
    assert isinstance(ended.value.code, str), "printed, and the exit code is 1"
    assert ended.value.code.startswith("python -m sb3_dqn_ext.zoo resume: ")
    assert "\n" not in ended.value.code
    return ended.value.code


def test_a_folder_without_run_json_is_refused(tmp_path: Path) -> None:
    process = python(*RESUME, "runs/nothing", cwd=tmp_path)
    assert process.returncode == 1
    assert process.stderr == (
        "python -m sb3_dqn_ext.zoo resume: RUN_FOLDER='runs/nothing' must be a run folder of dqn_ext, such as "
        "logs/dqn_ext/CartPole-v1_1: there is no runs/nothing/run.json.\n"
    )


WRITTEN = {"format": run_file.FORMAT, "schema": SCHEMA, **asdict(RUN)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(WRITTEN)[:9], "run.json is damaged: Expecting ':' delimiter"),
        ("[" * 100_000, "run.json is damaged: maximum recursion depth exceeded"),
        ("[]", "run.json is damaged: its format is not 'sb3_dqn_ext run'"),
        ("\0", "run.json is damaged: Expecting value"),
        (
            json.dumps({**WRITTEN, "schema": 99}),
            "run.json has the schema version 99, and this version of sb3_dqn_ext reads 1 to 3 only.",
        ),
        (json.dumps({**WRITTEN, "arguments": "rm -r"}), "run.json is damaged: its arguments is 'rm -r'"),
        (json.dumps({key: value for key, value in WRITTEN.items() if key != "env"}), "run.json is damaged: its env is 'None'"),
        (json.dumps({**WRITTEN, "more": 1}), "run.json is damaged: "),
        (json.dumps({**WRITTEN, "obstacle": "it is odd"}), "cannot be resumed: it is odd."),
        (json.dumps(WRITTEN), "has no checkpoint to resume from: train with --save-freq N, which writes one every N"),
        (json.dumps({**WRITTEN, "checkpoints": None}), "has no checkpoint to resume from: train with --save-freq N"),
    ],
    ids=[
        *("cut off", "deep", "a list", "no JSON", "another schema", "no arguments", "no env", "more", "an obstacle"),
        *("none yet", "none at all"),
    ],
)
def test_a_run_that_cannot_be_resumed_is_refused_with_the_reason(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    assert message in refusal(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_run_that_is_running_is_not_resumed(tmp_path: Path) -> None:
    run_file.write(tmp_path, RUN)
    learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path / "checkpoints"))
    with Lock(tmp_path / "checkpoints"):
        assert f"is being written to by process {os.getpid()}." in refusal(tmp_path)


def test_other_versions_are_named(tmp_path: Path) -> None:
    run_file.write(tmp_path, replace(RUN, versions={**versions(), "torch": "1.0"}))
    learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path / "checkpoints"))
    with Lock(tmp_path / "checkpoints"), pytest.warns(UserWarning, match=r"started with torch 1\.0 and is resumed with"):
        refusal(tmp_path)


def test_a_run_that_is_no_longer_tracked_is_announced(tmp_path: Path) -> None:
    run_file.write(tmp_path, replace(RUN, arguments={"track": True}))
    learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path / "checkpoints"))
    with Lock(tmp_path / "checkpoints"), pytest.warns(UserWarning, match=r"--track and is resumed without Weights & Biases"):
        refusal(tmp_path)


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"policy_kwargs": "PYTHON"}, "policy_kwargs=.* is an expression, which is evaluated with --trust only"),
        ({"normalize": "PYTHON"}, "normalize=.* is an expression"),
        ({"replay_buffer_kwargs": "PYTHON"}, "replay_buffer_kwargs=.* is an expression"),
        ({"monitor_kwargs": "PYTHON"}, "monitor_kwargs=.* is an expression"),
        ({"replay_buffer_class": "PYTHON"}, "replay_buffer_class=.* is not known"),
        (
            {"callback": {"subprocess.Popen": {"args": "SHELL", "shell": True}}},
            "callback='subprocess.Popen' is not a BaseCallback",
        ),
        ({"callback": ["os.system"]}, "callback='os.system' is not a class"),
        ({"env_wrapper": [{"timeit.timeit": {"setup": "PYTHON"}}]}, "env_wrapper='timeit.timeit' is not a class"),
        ({"env_wrapper": "code.InteractiveConsole"}, "env_wrapper='code.InteractiveConsole' is not a Wrapper"),
        ({"vec_env_wrapper": "subprocess.Popen"}, "vec_env_wrapper='subprocess.Popen' is not a VecEnv"),
        ({"policy": "subprocess.Popen"}, "policy='subprocess.Popen' is not a BasePolicy"),
        ({"policy_kwargs": {"activation_fn": "subprocess.Popen"}}, "activation_fn='subprocess.Popen' is not a Module"),
        ({"policy_kwargs": {"optimizer_class": "subprocess.Popen"}}, "optimizer_class='subprocess.Popen' is not a Optimizer"),
        ({"env_wrapper": "of_the_user.Wrapper"}, r"No module named 'of_the_user'\. Run the command in /somewhere, where"),
    ],
    ids=str,
)
def test_a_run_json_of_somebody_else_runs_nothing(hyperparameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    text = json.dumps(hyperparameters).replace("PYTHON", f"open('{marker}', 'w')").replace("SHELL", f"touch {marker}")
    run_file.write(tmp_path, replace(RUN, hyperparameters=json.loads(text)))
    with pytest.raises(ArgumentError, match=message):
        resume.check_untrusted_run(run_file.read(tmp_path))
    assert not marker.exists()


def test_a_usual_run_json_passes_the_check(tmp_path: Path) -> None:
    hyperparameters = {
        "policy": "sb3_dqn_ext.networks.policies.MlpPolicy",
        "env_wrapper": [{"sb3_dqn_ext.envs.TerminalPenalty": {"reward": -1}}, "rl_zoo3.wrappers.HistoryWrapper"],
        "vec_env_wrapper": "sb3_dqn_ext.vec_env.FastVecEnv",
        "callback": ["sb3_dqn_ext.callbacks.SoftTargetUpdateCallback"],
        "replay_buffer_class": "stable_baselines3.her.her_replay_buffer.HerReplayBuffer",
        "policy_kwargs": {"activation_fn": "torch.nn.ReLU", "optimizer_class": "rmsprop", "net_arch": [8]},
    }
    imports = "from sb3_dqn_ext.run_folder import run_file; from sb3_dqn_ext.zoo import resume"
    code = f"{imports}; resume.check_untrusted_run(run_file.read({str(tmp_path)!r}))"
    run_file.write(tmp_path, replace(RUN, hyperparameters=hyperparameters))
    output(python("-c", code, cwd=tmp_path))


# -- scripts ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def models() -> Iterator[list[DQNExt]]:
    """Whose files are closed when a test has ended."""
    made: list[DQNExt] = []
    yield made
    for model in made:
        model.logger.close()
        assert model.env is not None
        model.env.close()


class Broken(Exception):
    pass


class Break(BaseCallback):
    """
    Breaks a run off.

    :param step: at which step
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.step:
            raise Broken
        return True


@pytest.mark.parametrize("fast", [False, True], ids=["a Monitor", "a vector entry point"])
def test_a_script_goes_on_in_its_own_files_whatever_was_started_since(
    fast: bool, models: list[DQNExt], tmp_path: Path
) -> None:
    def made(folder: Path, new: bool = True) -> DQNExt:
        arguments: dict[str, Any] = {"monitor_dir": str(folder), "monitor_kwargs": {"override_existing": new}}
        make_env: Any = make_fast_vec_env if fast else make_vec_env
        env = make_env("CartPole-v1", n_envs=2, seed=3, **arguments)
        tensorboard = str(folder / "tensorboard")
        models.append(DQNExt("MlpPolicy", env, learning_starts=40, tensorboard_log=tensorboard, seed=0, device="cpu"))
        return models[-1]

    def learned(model: DQNExt, folder: Path, *more: BaseCallback) -> DQNExt:
        return model.learn(400, [ExactCheckpointCallback(100, folder / "checkpoints"), *more], log_interval=1)

    def run(folder: Path) -> Run:
        return Run(folder, folder / "tensorboard/DQNExt_1")

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = learned(made(whole), whole)
    with pytest.raises(Broken):
        learned(made(broken), broken, Break(290))
    (broken / "tensorboard/DQNExt_2").mkdir()
    time.sleep(1.1)  # TensorBoard orders files of events by the second
    again = made(broken, new=False).resume(broken / "checkpoints")
    assert run(broken).scalars() != run(whole).scalars()
    learned(again, broken).logger.close()
    assert_same(again.get_parameters(), model.get_parameters(), "parameters")
    assert run(broken).episodes() == run(whole).episodes()
    assert run(broken).scalars() == run(whole).scalars()
    assert not list((broken / "tensorboard/DQNExt_2").iterdir())
    again.learn(10)
    assert list((broken / "tensorboard/DQNExt_3").iterdir()), "another run of the model has a place of its own"


def test_a_file_of_episodes_that_another_run_has_replaced_is_kept(models: list[DQNExt], tmp_path: Path) -> None:
    def made() -> DQNExt:
        env = Monitor(gym.make("CartPole-v1"), str(tmp_path / "0"))
        models.append(DQNExt("MlpPolicy", env, learning_starts=10**6, seed=0, device="cpu"))
        return models[-1]

    made().learn(60, ExactCheckpointCallback(40, tmp_path / "checkpoints"))
    again = made().resume(tmp_path / "checkpoints")
    assert again.num_timesteps == 40
    again.learn(120, ExactCheckpointCallback(40, tmp_path / "checkpoints"))
    (episodes,) = Run(tmp_path, tmp_path).episodes()
    assert 0 < len(episodes) < 120 / 8
