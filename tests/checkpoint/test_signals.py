"""A last checkpoint after Ctrl-C and SIGTERM, and folders of checkpoints that belong to one run."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.checkpoint.deferred_signals import DEFERRED, STOP_MESSAGE
from sb3_dqn_ext.checkpoint.envs import ReplayWrapper
from sb3_dqn_ext.checkpoint.folder import checkpoints, latest_manifest
from sb3_dqn_ext.errors import CheckpointError
from sb3_dqn_ext.storage.lock import Lock
from tests.internals import last_observations_of
from tests.interrupted_runs import WHOLE, final_state, make_model
from tests.parity import assert_same, learn
from tests.paths import ROOT

FOREVER = 10**9


def saved_message(folder: Path) -> str:
    """Return the message of a run about its last checkpoint."""
    return f"Saved {latest_manifest(folder)}: model.resume({str(folder)!r}) continues from there.\n"


each_signal = pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["SIGINT", "SIGTERM"]
)


def steps(folder: Path) -> list[int]:
    """List the steps of the checkpoints."""
    return [int(path.stem.rpartition("_")[2]) for path in checkpoints(folder)]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Check that a test restores all signal handlers."""
    before = [signal.getsignal(number) for number in DEFERRED]
    yield
    assert [signal.getsignal(number) for number in DEFERRED] == before


# -- in this process -------------------------------------------------------------------------------------------------------


class ActAtStep(BaseCallback):
    """
    A callback that performs an action at a step.

    :param step: the step
    :param action: the action; the run stops if it returns False
    """

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        super().__init__()
        self.step = step
        self.action = action

    def _on_step(self) -> bool:
        return self.num_timesteps != self.step or self.action() is not False


@each_signal
def test_a_signal_ends_the_run_after_a_checkpoint_that_can_be_resumed(
    number: signal.Signals, end: type[BaseException], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raise_signal = ActAtStep(101, lambda: signal.raise_signal(number))  # in a rollout of 4 steps
    with pytest.raises(end) as raised:
        learn(make_model("CartPole"), WHOLE, callback=[raise_signal, ExactCheckpointCallback(80, tmp_path)])
    assert raised.type is KeyboardInterrupt or raised.value.code == 143  # type: ignore[attr-defined]
    assert capfd.readouterr().err == STOP_MESSAGE + saved_message(tmp_path)
    assert steps(tmp_path) == [80, 104]

    model = make_model("CartPole").resume(tmp_path)
    resumed = final_state(
        model, learn(model, WHOLE, callback=[ActAtStep(-1, str), ExactCheckpointCallback(80, tmp_path)]).rows
    )
    model = make_model("CartPole")
    whole = final_state(model, learn(model, WHOLE).rows)
    rows, all_rows = resumed.pop("rows"), whole.pop("rows")
    assert_same(resumed, whole, "at the end")
    assert_same(rows, all_rows[-len(rows) :], "logged")


@each_signal
def test_a_second_signal_takes_effect_at_once(number: signal.Signals, end: type[BaseException], tmp_path: Path) -> None:
    continued = []

    def twice() -> None:
        signal.raise_signal(number)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # it would end this process
        signal.raise_signal(signal.SIGINT)
        continued.append("the next line")

    with pytest.raises(KeyboardInterrupt):
        learn(make_model("CartPole"), WHOLE, callback=[ActAtStep(101, twice), ExactCheckpointCallback(80, tmp_path)])
    assert not continued
    assert steps(tmp_path) == [80]


def test_a_signal_in_the_last_rollout_leaves_a_checkpoint_of_the_end(tmp_path: Path) -> None:
    raise_signal = ActAtStep(WHOLE - 1, lambda: signal.raise_signal(signal.SIGTERM))
    model = make_model("CartPole")
    with pytest.raises(SystemExit):
        learn(model, WHOLE, callback=[raise_signal, ExactCheckpointCallback(10**6, tmp_path)])
    assert steps(tmp_path) == [WHOLE]
    again = make_model("CartPole").resume(tmp_path)
    assert learn(again, WHOLE, callback=ExactCheckpointCallback(10**6, tmp_path)).rows == []
    assert_same(again.get_parameters(), model.get_parameters(), "parameters")


def test_a_callback_that_stops_in_a_rollout_leaves_no_checkpoint(tmp_path: Path) -> None:
    def stop() -> bool:
        signal.raise_signal(signal.SIGINT)
        return False

    with pytest.raises(KeyboardInterrupt):
        learn(make_model("CartPole"), WHOLE, callback=[ActAtStep(102, stop), ExactCheckpointCallback(10**6, tmp_path)])
    assert steps(tmp_path) == []


def test_a_handler_of_the_user_is_called_after_the_checkpoint_and_the_run_continues(tmp_path: Path) -> None:
    called = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(steps(tmp_path)))
    try:
        raise_twice = [ActAtStep(step, lambda: signal.raise_signal(signal.SIGTERM)) for step in (101, 201)]
        model = make_model("CartPole")
        learn(model, WHOLE, callback=[*raise_twice, ExactCheckpointCallback(10**6, tmp_path)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert called == [[104], [104, 204]]
    assert model.num_timesteps == WHOLE


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a shell in the background do
    try:
        raise_signal = ActAtStep(101, lambda: signal.raise_signal(signal.SIGINT))
        learn(make_model("CartPole"), WHOLE, callback=[raise_signal, ExactCheckpointCallback(10**6, tmp_path)])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps(tmp_path) == []


def test_an_exception_restores_the_handlers_and_unlocks_the_folder(tmp_path: Path) -> None:
    def fail() -> None:
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        raise RuntimeError("of the environment")

    with pytest.raises(RuntimeError, match="of the environment"):
        learn(make_model("CartPole"), WHOLE, callback=[ActAtStep(101, fail), ExactCheckpointCallback(10**6, tmp_path)])
    with Lock(tmp_path):
        pass  # the fixture checks the handlers


def test_without_checkpoints_and_outside_of_the_main_thread_handlers_are_unchanged(tmp_path: Path) -> None:
    seen = []

    def record_handlers() -> None:
        seen.append([signal.getsignal(number) for number in DEFERRED])

    learn(make_model("CartPole"), 60, callback=ActAtStep(50, record_handlers))
    thread = threading.Thread(
        target=lambda: learn(
            make_model("CartPole"), 60, callback=[ActAtStep(50, record_handlers), ExactCheckpointCallback(40, tmp_path)]
        )
    )
    thread.start()
    thread.join()
    assert seen == [[signal.default_int_handler, signal.SIG_DFL]] * 2
    assert steps(tmp_path) == [40]


def test_two_threads_do_not_share_a_folder(tmp_path: Path) -> None:
    errors: list[Any] = []

    def second() -> None:
        try:
            learn(make_model("CartPole"), 60, callback=ExactCheckpointCallback(40, tmp_path))
        except CheckpointError as error:
            errors.append(error)

    def in_a_thread() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    learn(make_model("CartPole"), 60, callback=[ActAtStep(10, in_a_thread), ExactCheckpointCallback(40, tmp_path)])
    assert [str(error) for error in errors] == [f"{tmp_path} is being written to by process {os.getpid()}."]
    assert steps(tmp_path) == [40]


# -- in other processes ----------------------------------------------------------------------------------------------------


class Wide(gym.Env[Any, Any]):
    """An environment with large observations, so that a checkpoint takes some time to be written."""

    observation_space = gym.spaces.Box(-1, 1, (20_000,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.random(20_000, np.float32), {}

    def step(self, action: Any) -> Any:
        return self.np_random.random(20_000, np.float32), 0.0, False, False, {}


def model_of(kind: str) -> DQNExt:
    """Make a model whose run does not end by itself."""
    if kind == "wide":
        return DQNExt(
            "MlpPolicy", Wide(), learning_starts=FOREVER, buffer_size=600, train_freq=200, gradient_steps=-1, device="cpu"
        )
    if kind == "processes":
        env = make_vec_env("CartPole-v1", 2, 3, wrapper_class=ReplayWrapper, vec_env_cls=SubprocVecEnv)
        return DQNExt("MlpPolicy", env, learning_starts=40, train_freq=4, batch_size=8, seed=0, device="cpu")
    assert kind == "a long rollout"
    return DQNExt("MlpPolicy", "CartPole-v1", learning_starts=FOREVER, train_freq=FOREVER, gradient_steps=-1, device="cpu")


class Progress(BaseCallback):
    """A callback that prints a line once the run has made some steps."""

    def _on_step(self) -> bool:
        if self.n_calls == 30:
            print("running", flush=True)
        return True


def run(kind: str, folder: str) -> None:
    """Train, and print how the run ends."""
    try:
        model_of(kind).learn(FOREVER, callback=[Progress(), ExactCheckpointCallback(200, folder)])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    except CheckpointError as error:
        print(error, flush=True)


@contextmanager
def running(kind: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a process that trains, in a new process group as in a terminal, and kill the group at the end of the block."""
    source = f"from tests.checkpoint import test_signals; test_signals.run({kind!r}, {str(folder)!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, env=environment, start_new_session=True, **pipes)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != "running\n":
            raise AssertionError(line + process.communicate()[1])
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def group_is_gone(process: "subprocess.Popen[str]") -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_environments_in_processes_return_their_states_after_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    with running("processes", tmp_path) as process:
        wait_until(lambda: latest_manifest(tmp_path))
        before = steps(tmp_path)[-1]
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
        assert (printed, errors, process.returncode) == ("interrupted\n", STOP_MESSAGE + saved_message(tmp_path), 0)
        wait_until(lambda: group_is_gone(process))
    assert steps(tmp_path)[-1] > before
    model = model_of("processes").resume(tmp_path)
    assert model.num_timesteps == steps(tmp_path)[-1]
    assert model.env is not None
    model.env.close()


def test_sigterm_ends_the_process_with_its_exit_code(tmp_path: Path) -> None:
    with running("processes", tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=60)
        assert (printed, errors, process.returncode) == ("", STOP_MESSAGE + saved_message(tmp_path), 143)
        wait_until(lambda: group_is_gone(process))
    assert len(steps(tmp_path)) >= 1


def test_a_second_sigterm_kills_at_once(tmp_path: Path) -> None:
    with running("a long rollout", tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline() == STOP_MESSAGE
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == -signal.SIGTERM
    assert steps(tmp_path) == []


def test_a_signal_while_a_checkpoint_is_written_is_deferred(tmp_path: Path) -> None:
    with running("wide", tmp_path) as process:
        wait_until(lambda: list(tmp_path.glob("*.tmp")))
        assert steps(tmp_path) == []
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
        assert (printed, errors) == ("interrupted\n", STOP_MESSAGE + saved_message(tmp_path))
    assert steps(tmp_path) == [200]
    assert not list(tmp_path.glob("*.tmp"))
    assert model_of("wide").resume(tmp_path).num_timesteps == 200


def test_a_second_run_in_a_folder_is_refused_at_its_start_with_the_id_of_the_first(tmp_path: Path) -> None:
    with running("a long rollout", tmp_path) as process:
        assert steps(tmp_path) == []
        model = make_model("CartPole")
        with pytest.raises(CheckpointError, match=rf"is being written to by process {process.pid}\.$"):
            learn(model, WHOLE, callback=ExactCheckpointCallback(80, tmp_path))
        assert last_observations_of(model) is None, "its environments are not reset"
        with pytest.raises(CheckpointError, match=f"process {process.pid}"):
            model.save_checkpoint(tmp_path)
        process.kill()
        process.wait()
    learn(model, WHOLE, callback=ExactCheckpointCallback(80, tmp_path))
    assert steps(tmp_path) == [160, 240]
