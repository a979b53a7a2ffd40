"""
Runs that are interrupted and resumed.

``python -m tests.interrupted_runs FOLDER NAME...`` resumes each named run from its checkpoints below the folder, in this
process, and writes its final state there.
"""

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback, StopTrainingOnMeanReturn
from sb3_dqn_ext.checkpoint.envs import ReplayWrapper
from sb3_dqn_ext.replay.frame_ring import FrameRing
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.box2d import import_box2d
from tests.internals import generator_of, n_episodes_of, n_updates_of
from tests.masked_envs import strict  # noqa: F401  registers its environments
from tests.parity import dict_cartpole, learn, short_cartpole

import_box2d()

HALF = 160  # environment steps at which a run is interrupted; some episodes are open then
WHOLE = 2 * HALF


def make_envs(env_id: str, n_envs: int = 1) -> VecEnv:
    return make_vec_env(env_id, n_envs=n_envs, seed=3, env_kwargs={"render_mode": None})


def _monitored() -> gym.Env[Any, Any]:
    return ReplayWrapper(Monitor(short_cartpole()))


def subprocesses() -> VecEnv:
    env = SubprocVecEnv([_monitored, _monitored], start_method="fork")
    env.seed(3)
    return env


def images() -> VecEnv:
    env = FakeImageEnv(action_dim=3, screen_height=36, screen_width=36, n_channels=1, discrete=True)
    env.observation_space.seed(0)  # its images are samples of the space
    return DummyVecEnv([lambda: Monitor(env)])


def cartpole() -> VecEnv:
    return make_envs("CartPole-v1")


EVERYTHING: dict[str, Any] = {
    "n_steps": 3,
    "replay_buffer_kwargs": {"sampler": "prioritized", "terminal_copies": 2},
    "policy_kwargs": {"net_arch": [16], "noisy": True, "returns": "quantile", "returns_kwargs": {"n_quantiles": 5}},
}
EXPONENTIAL = {"name": "exponential", "start": 1.0, "end": 0.05, "rate": 0.01}
MULTIPLICATIVE = {"name": "multiplicative", "start": 1.0, "end": 0.05, "factor": 0.99}


class SimpleLinearSchedule:
    """A schedule that falls linearly to 0, as the zoo makes of ``lin_0.01``."""

    def __init__(self, initial_value: float) -> None:
        self.initial_value = initial_value

    def __call__(self, progress_remaining: float) -> float:
        return progress_remaining * self.initial_value


def atari_games() -> VecEnv:
    gym.register_envs(ale_py)
    cut_short = {"max_num_frames_per_episode": 120, "episodic_life": True, "reseed_every": 20}
    arguments = {"num_threads": 2, "img_height": 36, "img_width": 36, **cut_short}
    return make_fast_vec_env("ALE/Breakout-v5", n_envs=2, seed=3, env_kwargs=arguments)


CASES: dict[str, tuple[Callable[[], VecEnv], dict[str, Any]]] = {
    "CartPole": (cartpole, {}),
    "MountainCar": (lambda: make_envs("MountainCar-v0"), {}),
    "Acrobot": (lambda: make_envs("Acrobot-v1"), {}),
    "LunarLander": (lambda: make_envs("LunarLander-v3"), {}),
    "four at once": (lambda: make_envs("CartPole-v1", 4), {}),
    "a dictionary": (lambda: DummyVecEnv([lambda: Monitor(dict_cartpole())]), {"policy": "MultiInputPolicy"}),
    "images": (images, {"policy": "CnnPolicy", "buffer_size": 60}),
    "processes": (subprocesses, {}),
    "processes, stepped while learning": (subprocesses, {"step_while_learning": True, "train_freq": 1}),
    "Atari games, stepped while learning": (
        atari_games,
        {
            "policy": "CnnPolicy",
            "step_while_learning": True,
            "policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}},
        },
    ),
    "one array of poles": (lambda: make_fast_vec_env("CartPole-v1", n_envs=3, seed=3), {}),
    "in turn": (lambda: make_fast_vec_env("CartPole-v1", n_envs=3, seed=3, vectorization_mode="sync"), {}),
    "Seaquest": (lambda: make_envs("dqn_ext/MinAtar-Seaquest-v1"), {}),
    "Catch at once": (lambda: make_fast_vec_env("dqn_ext/Catch-v0", n_envs=3, seed=3), {}),
    "normalised": (lambda: VecNormalize(make_envs("CartPole-v1", 2)), {}),
    "stacked": (lambda: VecFrameStack(make_envs("CartPole-v1", 2), 3), {}),
    "frames": (
        lambda: VecFrameStack(make_envs("dqn_ext/Catch-v0", 2), 3),
        {"n_steps": 3, "replay_buffer_kwargs": {"storage": "frames"}},
    ),
    "everything": (cartpole, EVERYTHING),
    "compiled": (cartpole, EVERYTHING | {"compile": {"unroll": 2}, "gradient_steps": 2}),
    "realised returns": (
        cartpole,
        {"replay_buffer_kwargs": {"monte_carlo": 0.5, "keep_episodes": 6, "terminal_copies": 3}, "learning_starts": 80},
    ),
    "vector_steps": (
        lambda: make_envs("CartPole-v1", 4),
        {"replay_buffer_kwargs": {"sampler": "vector_steps", "terminal_copies": 2}},
    ),
    "optimize_memory_usage": (
        cartpole,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "by episodes": (cartpole, {"train_freq": (2, "episode"), "learning_starts": 0}),
    "ez_greedy": (lambda: make_envs("CartPole-v1", 2), {"exploration": "ez_greedy"}),
    "epsilon_ladder": (
        lambda: make_envs("CartPole-v1", 2),
        {"exploration": "epsilon_ladder", "exploration_kwargs": {"schedule": EXPONENTIAL, "unit": "actions"}},
    ),
    "boltzmann": (
        cartpole,
        {
            "exploration": "boltzmann",
            "exploration_kwargs": {"temperature": {"name": "multiplicative", "start": 2.0, "end": 0.1, "factor": 0.99}},
        },
    ),
    "none": (cartpole, {"exploration": "none", "learning_rate": SimpleLinearSchedule(0.01)}),
    "piecewise": (cartpole, {"exploration_kwargs": {"schedule": {"name": "piecewise", "points": [[0, 1.0], [300, 0.1]]}}}),
    "linear, and SB3's linear learning rate, and double": (
        cartpole,
        {
            "exploration_kwargs": {"schedule": {"name": "linear", "start": 1.0, "end": 0.1, "end_fraction": 0.8}},
            "learning_rate": LinearSchedule(1e-2, 1e-3, 0.7),
            "target_policy": "double",
        },
    ),
    "constant, and the zoo's linear learning rate, and munchausen": (
        cartpole,
        {
            "exploration_kwargs": {"schedule": {"name": "constant", "val": 0.3}},
            "learning_rate": SimpleLinearSchedule(1e-2),
            "target_policy": "munchausen",
        },
    ),
    "exponential from the first action on, and multi_head with an optimizer for each head": (
        cartpole,
        {
            "exploration_kwargs": {"schedule": EXPONENTIAL, "warm_up": False},
            "policy_kwargs": {"net_arch": [16], "head": "multi_head", "head_arch": [8], "optimizer_per_head": True},
        },
    ),
    "multiplicative, and implicit_quantile": (
        lambda: make_envs("CartPole-v1", 2),
        {
            "exploration_kwargs": {"schedule": MULTIPLICATIVE, "epsilon_draw": "shared"},
            "policy_kwargs": {"net_arch": [16], "returns": "implicit_quantile"},
        },
    ),
    "categorical, and dueling": (
        cartpole,
        {"policy_kwargs": {"returns": "categorical", "returns_kwargs": {"v_min": 0, "v_max": 30}, "head": "dueling"}},
    ),
    "hl_gauss, spectral normalisation, and RAdam": (
        cartpole,
        {
            "policy_kwargs": {
                "net_arch": [16],
                "norm": "spectral",
                "returns": "hl_gauss",
                "returns_kwargs": {"n_bins": 9, "reward_range": [0, 1], "gamma": 0.99},
                "optimizer_class": "torch.optim.RAdam",
            },
        },
    ),
    "batch normalisation, and RMSprop": (
        cartpole,
        {"policy_kwargs": {"net_arch": [16], "norm": "batch", "optimizer_class": "rmsprop"}},
    ),
    "normalised and prioritized": (
        lambda: VecNormalize(make_envs("CartPole-v1", 2)),
        {"n_steps": 3, "replay_buffer_kwargs": {"sampler": "prioritized"}},
    ),
    "epochs of the latest episodes": (
        cartpole,
        {"n_epochs": 2, "train_freq": (2, "episode"), "replay_buffer_kwargs": {"keep_episodes": 4}},
    ),
    "lambda returns in epochs": (
        lambda: make_envs("CartPole-v1", 2),
        {
            "n_epochs": 2,
            "train_freq": 16,
            "exploration": "boltzmann",
            "replay_buffer_kwargs": {"td_lambda": 0.8},
            "policy_kwargs": {"net_arch": [16], "noisy": True, "fitted_actions": "all"},  # which reads the target network
        },
    ),
    "action masks": (
        lambda: make_vec_env("tests/Strict-v0", n_envs=2, seed=3, env_kwargs={"place": "method"}),
        {
            "n_steps": 3,
            "exploration": "ez_greedy",
            "exploration_kwargs": {"schedule": 0.5},
            "target_policy": "munchausen",
            "policy_kwargs": {"net_arch": [16], "action_masks": True},
        },
    ),
    "minibatches, and a target network that counts them": (
        cartpole,
        {"minibatch_size": 2, "target_update_unit": "gradient_steps", "target_update_interval": 7, "tau": 0.5},
    ),
}
"""For each run: a function that makes its environments, and the arguments that differ from those of :func:`make_model`."""


EVALUATED = ("CartPole", "MountainCar", "everything")


def make_model(name: str) -> DQNExt:
    env, arguments = CASES[name]
    defaults: dict[str, Any] = {
        "buffer_size": 130,  # the oldest rows are overwritten before the run is interrupted
        "learning_starts": 40,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "train_freq": 4,
        "target_update_interval": 30,
        "policy_kwargs": {"net_arch": [16]},
        "seed": 0,
        "device": "cpu",
    }
    return DQNExt(env=env(), **{"policy": "MlpPolicy"} | defaults | arguments)


class Interrupted(Exception):
    pass


class Interrupt(BaseCallback):
    """
    A callback that interrupts a run some steps after its second checkpoint.

    :param checkpoints: the callback that writes the checkpoints
    """

    def __init__(self, checkpoints: ExactCheckpointCallback) -> None:
        super().__init__()
        self.checkpoints = [checkpoints]  # in a list, so that it is not taken for a child callback

    def _on_step(self) -> bool:
        if self.num_timesteps > self.checkpoints[0].saved_at + 13 > HALF:
            raise Interrupted
        return True


def interrupt(name: str, folder: Path) -> None:
    """
    Begin a run, and interrupt it after its second checkpoint.

    :param name: the name of the run in CASES
    :param folder: the folder of its checkpoints
    """
    with suppress(Interrupted):
        *others, checkpoints = callbacks(name, folder)
        assert isinstance(checkpoints, ExactCheckpointCallback)
        learn(make_model(name), WHOLE, callback=[*others, checkpoints, Interrupt(checkpoints)])
        raise AssertionError(f"{name} was not interrupted")


def callbacks(name: str, folder: Path) -> list[BaseCallback]:
    """Make callbacks with state: own attributes, evaluation environments that continue, and the checkpoints under test."""
    evaluation = [EvalCallback(CASES[name][0](), eval_freq=70, n_eval_episodes=2, verbose=0)] if name in EVALUATED else []
    return [
        StopTrainingOnMeanReturn(threshold=400, window=3),
        *evaluation,
        ExactCheckpointCallback(every=HALF // 2, path=folder),  # the second one contains rows of the first one
    ]


def stored_observations(buffer: Any) -> list[Any]:
    """Return the observations before and after the stored steps; the buffer is full."""
    if isinstance(getattr(buffer, "observation_ring", None), FrameRing):
        indices = np.arange(buffer.buffer_size * buffer.n_envs)
        return [buffer.observation_ring.gather_observations(indices), buffer.observation_ring.gather_next(indices)]
    return [buffer.observations, buffer.next_observations]


def final_state(model: DQNExt, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the final state of a run, without the code of checkpoints."""
    buffer: Any = model.replay_buffer
    stored = [*stored_observations(buffer), buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts]
    result = {
        "parameters": model.get_parameters(),
        "buffer": [list(array.values()) if isinstance(array, dict) else array for array in stored],
        "counters": [model.num_timesteps, n_updates_of(model), model._n_calls, n_episodes_of(model), buffer.pos, buffer.full],
        "episodes": [[info["r"], info["l"]] for info in model.ep_info_buffer or []],
        "rows": rows,
        "generators": [
            random.random(),
            np.random.rand(),
            th.rand(1),
            generator_of(model).random() if generator_of(model) else None,
            int(model.action_space.sample()),
        ],
    }
    np.random.seed(1)
    result["drawn"] = buffer.sampler.sample(*buffer.replayable_rows(), 8, 0.5)
    return result


def main() -> None:
    folder, *names = sys.argv[1:]
    for name in names:
        run_folder = Path(folder) / name
        model = make_model(name).resume(run_folder)
        assert HALF <= model.num_timesteps < WHOLE
        rows = learn(model, WHOLE, callback=callbacks(name, run_folder)).rows
        th.save(final_state(model, rows), run_folder / "final_state.pt")


if __name__ == "__main__":
    main()
