"""
The loop of the tutorial on vectorised environments in plain PyTorch, as a lower bound of the work.

It has copies of one environment, a network of doubles, and a replay buffer whose items are time steps of all environments. One
item is fitted after each step. As in the tutorial, the fall of the pole and the time limit are both ends of an episode.
"""

import copy
import random
from collections import deque
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from torch import nn

from benchmarks.speed.stopwatch import Stopwatch
from benchmarks.speed.workloads import Workload

Array = npt.NDArray[Any]
COPY_EVERY = 100  # vector steps between two updates of the target network


class Step(NamedTuple):
    """One time step of N environments."""

    observations: Array
    """(N, *obs)"""
    actions: Array
    """(N,)"""
    rewards: Array
    """(N,)"""
    next_observations: Array
    """(N, *obs), the first of the next episode where one ended"""
    dones: Array
    """(N,)"""


class Copies:
    """
    Copies of an environment, each of which is reset when its episode ends.

    :param env: the environment
    :param n_envs: the number of copies
    """

    def __init__(self, env: gym.Env[Any, Any], n_envs: int) -> None:
        self.envs = [copy.deepcopy(env) for _ in range(n_envs)]

    def reset(self, seed: int) -> Array:
        """
        Reset all environments.

        :param seed: the seed of the first environment; the others have the next numbers
        :return: (N, *obs) first observations
        """
        return np.asarray([env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)])

    def step(self, actions: Array) -> tuple[Array, Array, Array]:
        """
        Step all environments.

        :param actions: (N,) actions
        :return: (N, *obs) next observations, (N,) rewards, (N,) whether the episode ended
        """
        next_observations, rewards, dones = [], [], []
        for env, action in zip(self.envs, actions, strict=True):
            observation, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            if done:
                observation, _ = env.reset()
            next_observations.append(observation)
            rewards.append(reward)
            dones.append(done)
        return np.asarray(next_observations), np.asarray(rewards), np.asarray(dones)


class Learner:
    """
    The online network, the target network and the optimizer.

    :param n_inputs: the size of an observation
    :param n_actions: the number of actions
    :param width: the number of units of each hidden layer
    :param learning_rate: the learning rate of Adam
    :param gamma: the discount factor
    """

    def __init__(self, n_inputs: int, n_actions: int, width: int, learning_rate: float, gamma: float) -> None:
        self.n_actions = n_actions
        self.gamma = gamma
        self.q_net = nn.Sequential(
            nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_actions)
        ).double()
        self.q_net_target = copy.deepcopy(self.q_net)
        self.optimizer = th.optim.Adam(self.q_net.parameters(), lr=learning_rate)

    def synchronize(self) -> None:
        """Copy the online network to the target network."""
        self.q_net_target.load_state_dict(self.q_net.state_dict())

    def act(self, observations: Array, epsilon: float) -> Array:
        """
        Choose random actions for all environments with probability epsilon, otherwise greedy ones.

        :param observations: (N, *obs) observations
        :param epsilon: the probability
        :return: (N,) actions
        """
        if np.random.rand() < epsilon:
            return np.random.randint(self.n_actions, size=len(observations))
        with th.no_grad():
            actions: Array = np.argmax(self.q_net(th.as_tensor(observations).double()).numpy(), axis=1)
            return actions

    def update(self, step: Step) -> None:
        """
        Make a gradient step.

        :param step: the time step of all environments that is fitted
        """
        observations = th.as_tensor(step.observations).double()
        actions = th.as_tensor(step.actions).long()
        rewards = th.as_tensor(step.rewards).double()
        next_observations = th.as_tensor(step.next_observations).double()
        dones = th.as_tensor(step.dones).double()
        with th.no_grad():
            target = rewards + (1 - dones) * self.gamma * th.max(self.q_net_target(next_observations), dim=1)[0]
        predicted = self.q_net(observations)[range(len(actions)), actions]
        loss = th.mean((target - predicted) ** 2)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


def train_tutorial(workload: Workload, seed: int, stopwatch: Stopwatch) -> None:
    """
    Train as the tutorial does.

    :param workload: the environments, the width of the network, the learning rate, the discount factor, the schedule of
        epsilon and the size of the replay buffer
    :param seed: the seed of the network, the environments and all random draws
    :param stopwatch: called after each step
    """
    random.seed(seed)
    np.random.seed(seed)
    th.manual_seed(seed)
    arguments, n_envs = workload.arguments, workload.n_envs
    env = gym.make(workload.env_id)
    assert isinstance(env.observation_space, gym.spaces.Box)
    assert isinstance(env.action_space, gym.spaces.Discrete)
    envs = Copies(env, n_envs)
    n_inputs, n_actions = env.observation_space.shape[0], int(env.action_space.n)
    learner = Learner(n_inputs, n_actions, workload.width, arguments["learning_rate"], arguments["gamma"])
    replay_buffer: deque[Step] = deque(maxlen=arguments["buffer_size"])
    n_vector_steps = (workload.warm_up + workload.steps) // n_envs
    returns: list[float] = []
    running = np.zeros(n_envs)

    epsilon = 1.0
    observations = envs.reset(seed)
    for t in range(n_vector_steps):
        if t % COPY_EVERY == 0:
            learner.synchronize()
        actions = learner.act(observations, epsilon)
        next_observations, rewards, dones = envs.step(actions)
        replay_buffer.append(Step(observations, actions, rewards, next_observations, dones))
        observations = next_observations
        for step in random.sample(replay_buffer, 1):
            learner.update(step)

        running += rewards
        for i in range(n_envs):
            if dones[i]:
                returns.append(running[i])
                running[i] = 0
        decayed = t / n_vector_steps / arguments["exploration_fraction"]
        epsilon = max(arguments["exploration_final_eps"], 1 - decayed * (1 - arguments["exploration_final_eps"]))
        stopwatch((t + 1) * n_envs, t + 1)
