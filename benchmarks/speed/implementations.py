"""The implementations that are measured, each set up as its users set it up, with the numbers of the workload."""

import pkgutil
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.sb3_internals import n_updates
from benchmarks.speed.stopwatch import Stopwatch
from benchmarks.speed.tutorial_loop import train_tutorial
from benchmarks.speed.workloads import Workload

ALGORITHMS = {
    "sb3": "stable_baselines3:DQN",
    "sbx": "sbx:DQN",  # it knows two layers of one width, as here, and does not clip gradients
    "qrdqn": "sb3_contrib:QRDQN",
    "ours_eager": "sb3_dqn_ext:DQNExt",
    "ours": "sb3_dqn_ext:DQNExt",
}
"""the classes that train, by implementation"""


class _Steps(BaseCallback):
    """
    Tells the stopwatch how far training is.

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
    :param workload: what to train
    :param implementation: its name
    :param seed: of the networks and environments
    :param stopwatch: told of every step
    """
    if implementation == "tutorial":
        train_tutorial(workload, seed, stopwatch)
    else:
        learn(make_model(workload, implementation, seed), workload, stopwatch)


def learn(model: OffPolicyAlgorithm, workload: Workload, stopwatch: Stopwatch) -> None:
    """
    :param model: what :func:`make` gave
    :param workload: what to train
    :param stopwatch: told of every step
    """
    if workload.fill:
        fill_replay_buffer(model)
    # Nothing is printed, and what SB3 gathers every 4 episodes is gathered: these are the defaults of all.
    model.learn(workload.warm_up + workload.steps, callback=_Steps(stopwatch))


def make_model(workload: Workload, implementation: str, seed: int) -> OffPolicyAlgorithm:
    """
    :param workload: what to train
    :param implementation: its name
    :param seed: of the networks and environments
    :return: the algorithm
    """
    policy_kwargs: dict[str, Any] = {"net_arch": [workload.width, workload.width]}
    arguments: dict[str, Any] = {**workload.arguments, "seed": seed, "device": "cpu", "policy_kwargs": policy_kwargs}
    if implementation == "qrdqn":
        policy_kwargs["n_quantiles"] = workload.n_quantiles
        arguments["max_grad_norm"] = 10  # as DQN clips
    elif workload.n_quantiles is not None:
        policy_kwargs |= {"returns": "quantile", "returns_kwargs": {"n_quantiles": workload.n_quantiles}}
    if implementation == "ours":
        arguments["compile"] = True
    # Imported by its name: no implementation waits for the libraries of another.
    algorithm = pkgutil.resolve_name(ALGORITHMS[implementation])
    model: OffPolicyAlgorithm = algorithm("MlpPolicy", make_env(workload, implementation, seed), **arguments)
    return model


def make_env(workload: Workload, implementation: str, seed: int) -> VecEnv:
    """
    :param workload: what to train
    :param implementation: its name
    :param seed: of the environments
    :return: the environments, which keep the statistics of their episodes
    """
    if implementation == "ours" and workload.env_id == "CartPole-v1":
        make_fast_vec_env = pkgutil.resolve_name("sb3_dqn_ext.vec_env:make_fast_vec_env")
        fast: VecEnv = make_fast_vec_env(workload.env_id, n_envs=workload.n_envs, seed=seed)
        return fast
    # As the zoo makes them: SB3 would ask for pictures, for which LunarLander simulates sparks, 15 times as slow.
    return make_vec_env(workload.env_id, n_envs=workload.n_envs, seed=seed, env_kwargs={"render_mode": None})


def fill_replay_buffer(model: OffPolicyAlgorithm) -> None:
    """:param model: gets a replay memory full of noise"""
    memory = model.replay_buffer
    assert memory is not None
    random = np.random.default_rng(0)
    shape = (model.n_envs, *memory.obs_shape)
    infos: list[dict[str, Any]] = [{}] * model.n_envs
    while not memory.full:
        observations, next_observations = random.normal(size=(2, *shape)).astype(np.float32)
        actions = random.integers(2, size=(model.n_envs, 1))
        memory.add(observations, next_observations, actions, np.ones(model.n_envs), random.random(model.n_envs) < 0.02, infos)
