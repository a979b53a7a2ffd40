"""Worker processes that end during a run: the error names the process, its exit and the checkpoint to resume from."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.checkpoint.envs import ReplayWrapper
from sb3_dqn_ext.checkpoint.folder import checkpoints
from sb3_dqn_ext.errors import EnvironmentDiedError
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.interrupted_runs import WHOLE, final_state, make_model
from tests.parity import assert_same, learn, short_cartpole
from tests.processes import python

SMALL: dict[str, Any] = {"learning_starts": 20, "buffer_size": 200, "batch_size": 8, "seed": 0, "device": "cpu"}


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    """Fail a test after a minute: the typical fault is to wait forever for a process that has ended."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it waited for more than a minute")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def worker_envs() -> Iterator[list[VecEnv]]:
    """A list of environments that are closed at the end of the test; their processes must have ended then."""
    envs: list[VecEnv] = []
    yield envs
    for env in envs:
        env.close()
        assert not any(process.is_alive() for process in processes_of(env))


def processes_of(env: VecEnv) -> list[Any]:
    inner: Any = env.unwrapped
    found: list[Any] = inner.backend.async_env.processes if hasattr(inner, "backend") else inner.processes
    return found


class Kill(BaseCallback):
    """A callback that kills the process of one environment, and waits until it has ended."""

    def __init__(self, env: VecEnv, i: int, at: int, when: str = "step", number: int = signal.SIGKILL) -> None:
        super().__init__()
        self.of, self.i, self.at, self.when, self.number = [env], i, at, when, number

    def _on_step(self) -> bool:
        self._kill("step")
        return True

    def _on_rollout_end(self) -> None:
        self._kill("rollout")

    def _kill(self, when: str) -> None:
        if when == self.when and self.num_timesteps == self.at:
            kill(self.of[0], self.i, self.number)


def kill(env: VecEnv, i: int, number: int = signal.SIGKILL) -> None:
    process = processes_of(env)[i]
    os.kill(process.pid, number)
    process.join()


def died(model: DQNExt, *callbacks: BaseCallback, steps: int = WHOLE) -> EnvironmentDiedError:
    """Train until an error is raised, close the environments and return the error."""
    with pytest.raises(EnvironmentDiedError) as raised:
        learn(model, steps, callback=list(callbacks))
    start = time.monotonic()
    assert model.env is not None
    model.env.close()
    assert time.monotonic() - start < 1, "closing waits for nobody any more"
    assert not any(process.is_alive() for process in processes_of(model.env))
    return raised.value


# -- killed ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["step", "rollout"], ids=["at a step", "before a checkpoint"])
@pytest.mark.parametrize("i", [0, 1])
def test_a_run_whose_worker_was_killed_resumes_with_the_bits_of_an_uninterrupted_run(
    i: int, when: str, tmp_path: Path
) -> None:
    model = make_model("processes")
    assert model.env is not None
    pid = processes_of(model.env)[i].pid
    # at 120 steps the next checkpoint is due, which reads the states of the environments
    at = 120 if when == "rollout" else 142
    error = died(model, ExactCheckpointCallback(40, tmp_path, keep=9), Kill(model.env, i, at, when))
    *_, newest = checkpoints(tmp_path)
    assert str(error) == (
        f"Environment {i} (process {pid}) was ended by the signal 9 (SIGKILL). The newest checkpoint of the run is {newest}: "
        f"model.resume({str(tmp_path)!r}) continues from there."
    )
    assert isinstance(error.__cause__, EOFError | ConnectionError)
    again = make_model("processes").resume(tmp_path)
    assert again.num_timesteps == (80 if when == "rollout" else 120)
    found = final_state(again, learn(again, WHOLE, callback=ExactCheckpointCallback(40, tmp_path)).rows)
    undisturbed = make_model("processes")
    expected = final_state(undisturbed, learn(undisturbed, WHOLE).rows)
    rest = found.pop("rows")
    assert_same(rest, expected.pop("rows")[-len(rest) :], "logged")
    assert_same(found, expected, "all")
    for one in (again, undisturbed):
        assert one.env is not None
        one.env.close()


def test_an_environment_that_died_before_the_run_is_named_at_its_reset(worker_envs: list[VecEnv]) -> None:
    env = VecNormalize(SubprocVecEnv([short_cartpole] * 3, start_method="fork"))
    worker_envs.append(env)
    model = DQNExt("MlpPolicy", env, **SMALL)
    kill(env, 2, signal.SIGTERM)
    error = died(model)
    assert re.fullmatch(r"Environment 2 \(process \d+\) was ended by the signal 15 \(SIGTERM\)\.", str(error))


@pytest.mark.parametrize("kind", ["SubprocVecEnv", "FastVecEnv"])
def test_processes_that_are_not_forked_are_named_as_well(kind: str, worker_envs: list[VecEnv], tmp_path: Path) -> None:
    def env() -> VecEnv:
        if kind == "SubprocVecEnv":
            return SubprocVecEnv([resumable] * 2, start_method="forkserver")
        return make_fast_vec_env("CartPole-v1", n_envs=2, vectorization_mode="async")

    worker_envs.append(env())
    model = DQNExt("MlpPolicy", worker_envs[0], **SMALL)
    saves = [ExactCheckpointCallback(20, tmp_path)] if kind == "SubprocVecEnv" else []
    error = died(model, Kill(worker_envs[0], 1, 50), *saves)
    assert re.match(r"Environment 1 \(process \d+\) was ended by the signal 9 \(SIGKILL\)\.", str(error))
    assert (str(checkpoints(tmp_path)[-1]) in str(error)) if saves else str(error).endswith("(SIGKILL).")


def resumable() -> Any:
    return ReplayWrapper(short_cartpole())


def test_the_error_distinguishes_environments_of_evaluation_and_training(worker_envs: list[VecEnv]) -> None:
    envs = [SubprocVecEnv([short_cartpole] * 2, start_method="fork") for _ in range(2)]
    worker_envs.extend(envs)
    model = DQNExt("MlpPolicy", envs[0], **SMALL)
    error = died(model, Kill(envs[1], 0, 40), EvalCallback(envs[1], eval_freq=30, verbose=0))
    assert str(error).startswith("Evaluation environment of EvalCallback 0 (process ")


def test_several_that_died_are_all_named(worker_envs: list[VecEnv]) -> None:
    env = SubprocVecEnv([short_cartpole] * 3, start_method="fork")
    worker_envs.append(env)
    error = died(DQNExt("MlpPolicy", env, **SMALL), Kill(env, 0, 60), Kill(env, 2, 60))
    found = re.findall(r"Environment (\d) \(process \d+\) was ended by the signal 9 \(SIGKILL\)", str(error))
    assert found == ["0", "2"]


class Pictures(gym.Env[Any, Any]):
    """An environment with observations larger than a pipe's buffer, which creates a file when it is closed."""

    observation_space = gym.spaces.Box(0, 255, (700, 700, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def reset(self, **_: Any) -> Any:
        return self.observation_space.low, {}

    def step(self, _: Any) -> Any:
        return self.observation_space.low, 0.0, False, False, {}

    def close(self) -> None:
        self.mark.touch()


def test_the_others_are_closed_at_once_even_if_they_are_about_to_answer(worker_envs: list[VecEnv], tmp_path: Path) -> None:
    env = SubprocVecEnv([partial(Pictures, tmp_path / f"closed {i}") for i in range(3)], start_method="fork")
    worker_envs.append(env)
    model = DQNExt("MlpPolicy", env, **SMALL | {"buffer_size": 20, "policy_kwargs": {"net_arch": [4]}})
    start = time.monotonic()
    died(model, Kill(env, 0, 9), steps=30)
    assert time.monotonic() - start < 5, "nobody was waited for in vain"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["closed 1", "closed 2"]
    assert [process.exitcode for process in env.processes] == [-9, 0, 0]


# -- errors inside ---------------------------------------------------------------------------------------------------------


class Broken(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that raises an error at a step."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.n_steps = 0

    def step(self, action: Any) -> Any:
        self.n_steps += 1
        if self.n_steps == 30:
            raise ValueError("the rope has torn")
        return self.env.step(action)


def broken() -> Any:
    return Broken(gym.make("CartPole-v1"))


def test_the_message_names_an_error_inside_an_environment(
    worker_envs: list[VecEnv], capfd: pytest.CaptureFixture[str]
) -> None:
    env = SubprocVecEnv([short_cartpole, broken], start_method="fork")
    worker_envs.append(env)
    error = died(DQNExt("MlpPolicy", env, **SMALL))
    message = (
        r"Environment 1 \(process \d+\) has ended with exit code 1: most likely by an error inside it, which is printed above"
    )
    assert re.match(message, str(error))
    assert "ValueError: the rope has torn" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore::UserWarning")  # gymnasium's, with the traceback
def test_an_error_inside_a_fast_environment_is_the_cause(worker_envs: list[VecEnv]) -> None:
    if "tests/Broken-v0" not in gym.registry:
        gym.register("tests/Broken-v0", "tests.vec_env.test_workers:broken", disable_env_checker=True)
    env = make_fast_vec_env(gym.spec("tests/Broken-v0"), n_envs=2, vectorization_mode="async")
    worker_envs.append(env)
    error = died(DQNExt("MlpPolicy", env, **SMALL))
    assert re.match(r"Environment 0 \(process \d+\) has ended by an error inside it, the cause of this error", str(error))
    assert isinstance(error.__cause__, ValueError)
    assert str(error.__cause__) == "the rope has torn"


@pytest.mark.parametrize("make_env", [DummyVecEnv, SubprocVecEnv], ids=lambda kind: kind.__name__)
def test_other_errors_are_not_translated(make_env: Callable[..., VecEnv], worker_envs: list[VecEnv]) -> None:
    class Wrong(BaseCallback):
        def _on_step(self) -> bool:
            raise ValueError("of a callback")

    env = make_env([short_cartpole] * 2, **({"start_method": "fork"} if make_env is SubprocVecEnv else {}))
    model = DQNExt("MlpPolicy", env, **SMALL)
    with pytest.raises(ValueError, match="of a callback"):
        learn(model, 50, callback=Wrong())
    learn(model, 50)  # the environments live
    if make_env is SubprocVecEnv:
        worker_envs.append(env)


# -- the run ---------------------------------------------------------------------------------------------------------------


def test_no_thread_is_left_when_a_run_has_ended(worker_envs: list[VecEnv]) -> None:
    before = threading.active_count()
    env = SubprocVecEnv([short_cartpole] * 2, start_method="fork")
    worker_envs.append(env)
    during: list[int] = []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            during.append(threading.active_count())
            return True

    learn(DQNExt("MlpPolicy", env, **SMALL), 40, callback=Look())
    assert set(during) == {before + 1}
    assert threading.active_count() == before


SCRIPT = """
import os, signal, sys
import gymnasium as gym
from stable_baselines3.common.vec_env import SubprocVecEnv
from sb3_dqn_ext import DQNExt

class Gone(gym.Wrapper):
    n_steps = 0

    def step(self, action):
        self.n_steps += 1
        if self.n_steps == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.env.step(action)

if __name__ == "__main__":
    envs = [lambda: gym.make("CartPole-v1"), lambda: Gone(gym.make("CartPole-v1")), lambda: gym.make("CartPole-v1")]
    DQNExt("MlpPolicy", SubprocVecEnv(envs, start_method=sys.argv[1]), learning_starts=10, device="cpu").learn(300)
"""


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_a_script_ends_by_itself_with_the_error(start_method: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    process = python("script.py", start_method, cwd=tmp_path)
    assert process.returncode == 1
    assert "EnvironmentDiedError: Environment 1 (process " in process.stderr
