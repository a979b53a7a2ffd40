"""
A training that faults happen to: ``python -m benchmarks.reliability.train FOLDER SEED`` goes on from the newest good
checkpoint in the folder, if there is one, and takes others.

Each line it prints is a word and what it says: ``began STEP``, ``step STEP`` for each that it has taken, ``environment PID``
for each that lives in a process of its own, and ``ended`` with what it ended with.
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
    Gives something else than the environment, once.

    :param env: the environment
    :param what: ``"observation"`` or ``"reward"``
    :param value: all of it
    :param step: how many steps after the first reset
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


def make_envs(env_id: str, seed: int, processes: int | None = None, poison: Sequence[str] | None = None) -> VecEnv:
    """
    :param env_id: what
    :param seed: of their generators
    :param processes: how many, each in a process of its own; one in this process if None
    :param poison: see :class:`Poisoned`
    :return: them
    """

    def wrapped(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        if poison is not None:
            what, value, step = poison
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
    :param seed: of the run
    :param env: what it learns from
    :param arguments: more ones
    :return: a small model whose memory is overwritten in the course of the run, and whose state has parts of every kind
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
    :param value: nested dictionaries and lists of numbers, arrays and tensors
    :return: what is another one as soon as one bit is, or one type
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
    :param model: after its run
    :return: fingerprints of what it has become, by other means than those of a checkpoint
    """
    memory = model.replay_buffer
    assert isinstance(memory, DQNReplayBuffer)
    priorities = memory.sampler.priorities()
    assert priorities is not None
    rows = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    parameters = model.get_parameters()
    return {
        "parameters": fingerprint(parameters["policy"]),
        "optimizer": fingerprint(parameters["policy.optimizer"]),
        "memory": fingerprint([getattr(memory, name) for name in rows]),
        "priorities": fingerprint(priorities.values),
        "counters": fingerprint([model.num_timesteps, n_updates(model), n_episodes(model), memory.pos, memory.full]),
        "generators": fingerprint([random.random(), np.random.rand(), float(th.rand(1)), random_number(model)]),
    }


def print_line(word: str, what: object = "") -> None:
    """
    :param word: what kind of line it is
    :param what: the rest of it
    """
    os.write(1, f"{word} {what}\n".encode())  # at once: who is killed flushes nothing


class StepReporter(BaseCallback):
    """
    Says each step.

    :param last: the process does not live longer
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
    """:param arguments: of the command line, those of this process if None"""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.train", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the checkpoints")
    parser.add_argument("seed", type=int)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--processes", type=int, help="live in by so many environments")
    parser.add_argument("--poison", nargs=3, metavar=("WHAT", "VALUE", "STEP"), help="what the environment gives once")
    parser.add_argument("--check-finite", action="store_true", help="see DQNExt")
    parser.add_argument("--die", type=int, metavar="STEP", help="by SIGKILL, after this step")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who is started in the background of a shell ignores it
    model = make_model(args.seed, make_envs(args.env, args.seed, args.processes, args.poison), check_finite=args.check_finite)
    for process in getattr(model.env, "processes", ()):
        print_line("environment", process.pid)
    if any(args.folder.glob("checkpoint_*.json")):
        model.resume(args.folder)
    print_line("began", model.num_timesteps)
    model.learn(args.steps, callback=[StepReporter(args.die), ExactCheckpointCallback(EVERY, args.folder)])
    print_line("ended", json.dumps(final_fingerprints(model)))


if __name__ == "__main__":
    main()
