"""The implementations that are measured. Each is set up as its users would, with the hyperparameters of the workload."""

import importlib
import pkgutil
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from benchmarks.sb3_internals import n_updates
from benchmarks.speed.networks import network_arguments
from benchmarks.speed.stopwatch import Stopwatch
from benchmarks.speed.workloads import PQN, Workload

ALGORITHMS = {
    "sb3": "stable_baselines3:DQN",
    "sbx": "sbx:DQN",  # its two hidden layers have the same width; it does not clip gradients
    "qrdqn": "sb3_contrib:QRDQN",
    "ours_eager": "sb3_dqn_ext:DQNExt",
    "ours": "sb3_dqn_ext:DQNExt",
    "ours_graphs": "sb3_dqn_ext:DQNExt",
    "ours_frames": "sb3_dqn_ext:DQNExt",
    "pqn": "sb3_dqn_ext:DQNExt",
}
"""The class of each implementation."""
GRAPHED = ("ours_graphs", "ours_frames")
"""The implementations that use CUDA graphs."""
COMPILED = ("ours", *GRAPHED, "pqn")
"""The implementations whose updates are compiled."""
LOOPS = {
    "tutorial": "benchmarks.speed.tutorial_loop:train_tutorial",
    "cleanrl": "benchmarks.speed.cleanrl_loop:train_cleanrl",
}
"""The function of each implementation without a class."""


class _Steps(BaseCallback):
    """
    A callback that reports each step to the stopwatch.

    :param stopwatch: the stopwatch
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self.stopwatch = stopwatch

    def _on_step(self) -> bool:
        self.stopwatch(self.num_timesteps, n_updates(self.model))
        return True


def train(workload: Workload, implementation: str, seed: int, stopwatch: Stopwatch) -> None:
    """
    Train a workload with an implementation.

    :param workload: the workload
    :param implementation: the name of the implementation
    :param seed: the seed of the networks and environments
    :param stopwatch: called after each step
    """
    if implementation in LOOPS:
        pkgutil.resolve_name(LOOPS[implementation])(workload, seed, stopwatch)
    else:
        learn(make_model(workload, implementation, seed), workload, stopwatch)


def learn(model: OffPolicyAlgorithm, workload: Workload, stopwatch: Stopwatch) -> None:
    """
    Train a model.

    :param model: the model, see :func:`make_model`
    :param workload: the workload
    :param stopwatch: called after each step
    """
    if workload.fill:
        fill_replay_buffer(model)
    # The defaults of logging, the same for all: nothing is printed, and SB3 collects statistics every 4 episodes.
    model.learn(workload.warm_up + workload.steps, callback=_Steps(stopwatch))


def make_model(workload: Workload, implementation: str, seed: int) -> OffPolicyAlgorithm:
    """
    Make the model of an implementation for a workload.

    :param workload: the workload
    :param implementation: the name of the implementation
    :param seed: the seed of the networks and environments
    """
    policy, policy_kwargs = network_arguments(workload, implementation)
    arguments: dict[str, Any] = {**workload.arguments, "seed": seed, "device": workload.device}
    arguments["policy_kwargs"] = policy_kwargs
    if implementation == "qrdqn":
        policy_kwargs["n_quantiles"] = workload.n_quantiles
        arguments["max_grad_norm"] = 10  # as DQN clips
    elif workload.n_quantiles is not None:
        policy_kwargs |= {"returns": "quantile", "returns_kwargs": {"n_quantiles": workload.n_quantiles}}
    if implementation in COMPILED:
        arguments["compile"] = {"cuda_graphs": True} if implementation in GRAPHED else True
    if implementation == "ours_frames":
        arguments["replay_buffer_kwargs"] = {"storage": "frames", "device": workload.device}
    if implementation == "pqn":
        of_replay = {"target_update_interval", "gradient_steps"}
        arguments = {name: value for name, value in arguments.items() if name not in of_replay} | PQN
        policy_kwargs |= {"norm": "layer", "loss": "mse", "optimizer_class": "radam"}
    # imported by name, so that no implementation imports the libraries of another
    algorithm = pkgutil.resolve_name(ALGORITHMS[implementation])
    model: OffPolicyAlgorithm = algorithm(policy, make_env(workload, implementation, seed), **arguments)
    return model


def make_env(workload: Workload, implementation: str, seed: int) -> VecEnv:
    """
    Make the environments of a workload, with statistics of their episodes.

    :param workload: the workload
    :param implementation: the name of the implementation
    :param seed: the seed of the environments
    """
    if workload.registered_by is not None:
        importlib.import_module(workload.registered_by)
    wrapper = pkgutil.resolve_name("stable_baselines3.common.atari_wrappers:AtariWrapper") if workload.atari else None
    # render_mode as in the zoo. SB3's default, "rgb_array", makes LunarLander 15 times as slow, as it simulates sparks.
    make = make_vec_env
    if implementation in COMPILED and workload.env_id != "LunarLander-v3":  # whose rows were measured with SB3's
        make = pkgutil.resolve_name("sb3_dqn_ext.vec_env:make_fast_vec_env")
    env = make(workload.env_id, workload.n_envs, seed=seed, wrapper_class=wrapper, env_kwargs={"render_mode": None})
    return VecFrameStack(env, 4) if workload.atari else env


def fill_replay_buffer(model: OffPolicyAlgorithm) -> None:
    """
    Fill the replay buffer of a model with random transitions.

    :param model: the model
    """
    replay_buffer = model.replay_buffer
    assert replay_buffer is not None
    random = np.random.default_rng(0)
    shape = (model.n_envs, *replay_buffer.obs_shape)
    infos: list[dict[str, Any]] = [{}] * model.n_envs
    while not replay_buffer.full:
        observations, next_observations = random.normal(size=(2, *shape)).astype(np.float32)
        actions = random.integers(2, size=(model.n_envs, 1))
        dones = random.random(model.n_envs) < 0.02
        replay_buffer.add(observations, next_observations, actions, np.ones(model.n_envs), dones, infos)
