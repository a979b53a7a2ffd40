"""
A loop in the way of CleanRL's ``dqn.py`` and ``dqn_atari.py`` (Huang et al., 2022): one function in plain PyTorch.

As there, the environments are those of gymnasium, the replay buffer is SB3's, gradients are not clipped, and the loss is the
mean squared error. The network is that of the other implementations.
"""

import importlib
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
import torch.nn.functional as F
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from benchmarks.speed.networks import MinAtarCNN
from benchmarks.speed.stopwatch import Stopwatch
from benchmarks.speed.workloads import Workload


def make_env(workload: Workload) -> gym.Env[Any, Any]:
    """
    Make one environment, with statistics of its episodes.

    :param workload: the workload
    """
    if workload.registered_by is not None:
        importlib.import_module(workload.registered_by)
    env: gym.Env[Any, Any] = gym.wrappers.RecordEpisodeStatistics(gym.make(workload.env_id))
    if workload.atari:
        env = gym.wrappers.FrameStackObservation(AtariWrapper(env), 4)
        height, width, _ = env.observation_space.shape[1:]  # type: ignore[index]
        space = gym.spaces.Box(0, 255, (4, height, width), np.uint8)
        env = gym.wrappers.TransformObservation(env, lambda frames: frames[..., 0], space)
    return env


def make_network(workload: Workload, space: gym.spaces.Box, n_actions: int) -> nn.Module:
    """
    Make a Q-network.

    :param workload: the workload
    :param space: the observation space
    :param n_actions: the number of actions
    """
    if workload.network == "nature":
        extractor = NatureCNN(space, workload.width)
        return nn.Sequential(extractor, nn.Linear(workload.width, n_actions))
    features = MinAtarCNN(space)
    hidden = nn.Linear(features.features_dim, workload.width)
    return nn.Sequential(features, hidden, nn.ReLU(), nn.Linear(workload.width, n_actions))


def train_cleanrl(workload: Workload, seed: int, stopwatch: Stopwatch) -> None:
    """
    Train as CleanRL does.

    :param workload: the environments, the network and the hyperparameters
    :param seed: the seed of the network, the environments and all random draws
    :param stopwatch: called after each step
    """
    random.seed(seed)
    np.random.seed(seed)
    th.manual_seed(seed)
    args, n_envs, total_steps = workload.arguments, workload.n_envs, workload.warm_up + workload.steps
    makers: list[Callable[[], Any]] = [partial(make_env, workload)] * n_envs
    envs: SyncVectorEnv[Any, Any] = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    space, action_space = envs.single_observation_space, envs.single_action_space
    assert isinstance(space, gym.spaces.Box)
    assert isinstance(action_space, gym.spaces.Discrete)
    scale = 255.0 if workload.atari else 1.0
    q_network = make_network(workload, space, int(action_space.n))
    target_network = make_network(workload, space, int(action_space.n))
    target_network.load_state_dict(q_network.state_dict())
    optimizer = th.optim.Adam(q_network.parameters(), lr=args["learning_rate"])
    rb = ReplayBuffer(args["buffer_size"], space, action_space, "cpu", n_envs=n_envs, handle_timeout_termination=False)
    slope = (args["exploration_final_eps"] - 1) / (args["exploration_fraction"] * total_steps)
    n_updates = 0

    obs, _ = envs.reset(seed=seed)
    for vector_step in range(1, total_steps // n_envs + 1):
        global_step = vector_step * n_envs
        epsilon = max(1 + slope * global_step, args["exploration_final_eps"])
        if random.random() < epsilon:
            actions = np.array([action_space.sample() for _ in range(n_envs)])
        else:
            actions = th.argmax(q_network(th.Tensor(obs) / scale), dim=1).numpy()
        next_obs, rewards, terminations, truncations, infos = envs.step(actions)
        real_next_obs = next_obs.copy()
        for i in np.flatnonzero(terminations | truncations):
            real_next_obs[i] = infos["final_obs"][i]
        rb.add(obs, real_next_obs, actions, rewards, terminations, [{}] * n_envs)
        obs = next_obs

        if global_step > args["learning_starts"] and vector_step % args["train_freq"] == 0:
            data = rb.sample(args["batch_size"])
            with th.no_grad():
                target_max, _ = target_network(data.next_observations.float() / scale).max(dim=1)
                td_target = data.rewards.flatten() + args["gamma"] * target_max * (1 - data.dones.flatten())
            old_value = q_network(data.observations.float() / scale).gather(1, data.actions).squeeze()
            loss = F.mse_loss(td_target, old_value)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            n_updates += 1
        if vector_step % max(args["target_update_interval"] // n_envs, 1) == 0:
            target_network.load_state_dict(q_network.state_dict())
        stopwatch(global_step, n_updates)
    envs.close()
