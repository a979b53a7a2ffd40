"""Who takes part, each set up as its users set it up, with the numbers of the workload."""

from typing import Any

import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.speed.measure import Stopwatch
from benchmarks.speed.tutorial_loop import train_tutorial
from benchmarks.speed.workloads import Workload


class _Steps(BaseCallback):
    """
    Tells the stopwatch how far training is.

    :param stopwatch: the stopwatch
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self.stopwatch = stopwatch

    def _on_step(self) -> bool:
        self.stopwatch(self.num_timesteps, self.model._n_updates)
        return True


def train(workload: Workload, contestant: str, seed: int, stopwatch: Stopwatch) -> None:
    """
    :param workload: what to train
    :param contestant: who trains
    :param seed: of the networks and environments
    :param stopwatch: told of every step
    """
    if contestant == "tutorial":
        train_tutorial(workload, seed, stopwatch)
    else:
        learn(make(workload, contestant, seed), workload, stopwatch)


def learn(model: OffPolicyAlgorithm, workload: Workload, stopwatch: Stopwatch) -> None:
    """
    :param model: what :func:`make` gave
    :param workload: what to train
    :param stopwatch: told of every step
    """
    if workload.fill:
        fill(model)
    # Nothing is printed, and what SB3 gathers every 4 episodes is gathered: these are the defaults of all.
    model.learn(workload.warm_up + workload.steps, callback=_Steps(stopwatch))


def make(workload: Workload, contestant: str, seed: int) -> OffPolicyAlgorithm:
    """
    :param workload: what to train
    :param contestant: who trains
    :param seed: of the networks and environments
    :return: the algorithm
    """
    env = make_env(workload, contestant, seed)
    policy_kwargs: dict[str, Any] = {"net_arch": [workload.width, workload.width]}
    arguments = {**workload.arguments, "seed": seed, "device": "cpu", "policy_kwargs": policy_kwargs}
    if contestant == "sb3":
        return DQN("MlpPolicy", env, **arguments)
    if contestant == "sbx":
        import sbx

        # It knows two layers of one width, as here, and does not clip gradients.
        model: OffPolicyAlgorithm = sbx.DQN("MlpPolicy", env, **arguments)
        return model
    if contestant == "qrdqn":
        from sb3_contrib import QRDQN

        policy_kwargs["n_quantiles"] = workload.n_quantiles
        return QRDQN("MlpPolicy", env, max_grad_norm=10, **arguments)  # as DQN clips

    from sb3_dqn_ext import DQNExt

    if workload.n_quantiles is not None:
        policy_kwargs |= {"returns": "quantile", "returns_kwargs": {"n_quantiles": workload.n_quantiles}}
    if contestant == "ours":
        arguments["compile"] = True
    return DQNExt("MlpPolicy", env, **arguments)


def make_env(workload: Workload, contestant: str, seed: int) -> VecEnv:
    """
    :param workload: what to train
    :param contestant: who trains
    :param seed: of the environments
    :return: the environments, which keep the statistics of their episodes
    """
    if contestant == "ours" and workload.env_id == "CartPole-v1":
        from sb3_dqn_ext.vec_env import make_fast_vec_env

        fast: VecEnv = make_fast_vec_env(workload.env_id, n_envs=workload.n_envs, seed=seed)
        return fast
    # As the zoo makes them: SB3 would ask for pictures, for which LunarLander simulates sparks, 15 times as slow.
    return make_vec_env(workload.env_id, n_envs=workload.n_envs, seed=seed, env_kwargs={"render_mode": None})


def fill(model: OffPolicyAlgorithm) -> None:
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
