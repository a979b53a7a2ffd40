"""
Train a run into which faults are injected: ``python -m benchmarks.reliability.train FOLDER SEED`` continues from the newest
good checkpoint in the folder, if there is one, and writes further checkpoints.

Each line of its output is a word and a value: ``began STEP``, ``step STEP`` after each environment step, ``environment PID``
for each environment process, and ``ended FINGERPRINTS``.
"""

import argparse
import hashlib
import json
import os
import random
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from benchmarks.internals import random_number
from benchmarks.sb3_internals import n_episodes, n_updates
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.checkpoint.envs import ReplayWrapper
from sb3_dqn_ext.replay import DQNReplayBuffer

STEPS = 8_000
EVERY = 200  # steps between two checkpoints


class NonFiniteOnce(gym.Wrapper[Any, Any, Any, Any]):
    """
    A wrapper that replaces one observation or reward by a constant value.

    :param env: the environment
    :param what: ``"observation"`` or ``"reward"``
    :param value: the value of the reward, or of every number of the observation
    :param step: the step, counted from the first reset
    """

    def __init__(self, env: gym.Env[Any, Any], what: str, value: float, step: int) -> None:
        super().__init__(env)
        self.what, self.value, self.left = what, value, step

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self.left -= 1
        if self.left == 0 and self.what == "observation":
            observation = np.full_like(observation, self.value)
        elif self.left == 0:
            reward = self.value
        return observation, reward, terminated, truncated, info


def make_envs(env_id: str, seed: int, processes: int | None = None, non_finite: Sequence[str] | None = None) -> VecEnv:
    """
    Make the environments of a run.

    :param env_id: the id of the environment
    :param seed: the seed of their generators
    :param processes: the number of environments, each in its own process; None: one environment in this process
    :param non_finite: the arguments of :class:`NonFiniteOnce`; None: the environment is unchanged
    """

    def wrapped(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        if non_finite is not None:
            what, value, step = non_finite
            env = NonFiniteOnce(env, what, float(value), int(step))
        return ReplayWrapper(env)

    return make_vec_env(
        env_id,
        n_envs=processes or 1,
        seed=seed,
        wrapper_class=wrapped,
        env_kwargs={"render_mode": None},
        vec_env_cls=DummyVecEnv if processes is None else SubprocVecEnv,
        vec_env_kwargs=None if processes is None else {"start_method": "fork"},
    )


def make_model(seed: int, env: VecEnv, **arguments: Any) -> DQNExt:
    """
    Make a small model whose state has parts of every kind. Its replay buffer is overwritten in the course of the run.

    :param seed: the seed of the run
    :param env: the environments
    :param arguments: further arguments of ``DQNExt``
    """
    return DQNExt(
        "MlpPolicy",
        env,
        buffer_size=2_000,
        learning_starts=100,
        learning_rate=1e-3,
        n_steps=3,
        train_freq=4,
        target_update_interval=250,
        exploration="ez_greedy",
        replay_buffer_kwargs={"sampler": "prioritized"},
        policy_kwargs={"net_arch": [32, 32]},
        seed=seed,
        device="cpu",
        **arguments,
    )


def fingerprint(value: Any) -> str:
    """
    Return a digest that changes if one bit or one type changes.

    :param value: nested dictionaries and lists of numbers, arrays and tensors
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    digest.update(f"<{type(value).__name__}".encode())
    if isinstance(value, Mapping):
        for key, part in value.items():
            digest.update(f"{key}:".encode())
            _feed(digest, part)
    elif isinstance(value, list | tuple):
        for part in value:
            _feed(digest, part)
    elif isinstance(value, th.Tensor | np.ndarray):
        array = value.detach().cpu().numpy() if isinstance(value, th.Tensor) else value
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    else:
        digest.update(repr(value).encode())
    digest.update(b">")


def final_fingerprints(model: DQNExt) -> dict[str, str]:
    """
    Return fingerprints of the parts of a model, computed without the code of checkpoints.

    :param model: a model at the end of its run
    """
    replay_buffer = model.replay_buffer
    assert isinstance(replay_buffer, DQNReplayBuffer)
    priorities = replay_buffer.sampler.priorities()
    assert priorities is not None
    rows = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    parameters = model.get_parameters()
    counters = [model.num_timesteps, n_updates(model), n_episodes(model), replay_buffer.pos, replay_buffer.full]
    return {
        "parameters": fingerprint(parameters["policy"]),
        "optimizer": fingerprint(parameters["policy.optimizer"]),
        "replay_buffer": fingerprint([getattr(replay_buffer, name) for name in rows]),
        "priorities": fingerprint(priorities.values),
        "counters": fingerprint(counters),
        "generators": fingerprint([random.random(), np.random.rand(), float(th.rand(1)), random_number(model)]),
    }


def print_line(word: str, what: object = "") -> None:
    """
    Print a line.

    :param word: the first word of the line
    :param what: the rest of the line
    """
    os.write(1, f"{word} {what}\n".encode())  # unbuffered: a killed process does not flush


class StepReporter(BaseCallback):
    """
    A callback that prints each step.

    :param last: the step at which the process kills itself; None: it does not
    """

    def __init__(self, last: int | None) -> None:
        super().__init__()
        self.last = last

    def _on_step(self) -> bool:
        print_line("step", self.num_timesteps)
        if self.num_timesteps == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return True


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    :param arguments: the command line; None: that of this process
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.train", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the checkpoints")
    parser.add_argument("seed", type=int)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--processes", type=int, help="number of environments, each in its own process")
    parser.add_argument(
        "--non-finite", nargs=3, metavar=("WHAT", "VALUE", "STEP"), help="replace one observation or reward by a value"
    )
    parser.add_argument("--check-finite", action="store_true", help="see DQNExt")
    parser.add_argument("--die", type=int, metavar="STEP", help="kill this process with SIGKILL after this step")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background of a shell ignores it
    env = make_envs(args.env, args.seed, args.processes, args.non_finite)
    model = make_model(args.seed, env, check_finite=args.check_finite)
    for process in getattr(model.env, "processes", ()):
        print_line("environment", process.pid)
    if any(args.folder.glob("checkpoint_*.json")):
        model.resume(args.folder)
    print_line("began", model.num_timesteps)
    model.learn(args.steps, callback=[StepReporter(args.die), ExactCheckpointCallback(EVERY, args.folder)])
    print_line("ended", json.dumps(final_fingerprints(model)))


if __name__ == "__main__":
    main()
