"""An environment whose values can be written down, and models whose networks say exactly these."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import DQN

from sb3_dqn_ext import DQNExt

N = 6
GAMMA = 0.9
ID = "tests/Chain-v0"


class Chain(gym.Env[Any, Any]):
    """
    Six states in a row, seen as one-hot vectors. An episode begins in any of them. Action 1 goes to the next one and earns its
    number, 1 to 6, and the sixth ends the episode; action 0 ends it at once and earns nothing.
    """

    observation_space = gym.spaces.Box(0, 1, (N,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def _seen(self) -> npt.NDArray[np.float32]:
        seen: npt.NDArray[np.float32] = np.eye(N, dtype=np.float32)[min(self.state, N - 1)]
        return seen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(N))
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        if action == 0:
            return self._seen(), 0.0, True, False, {}
        self.state += 1
        return self._seen(), float(self.state), self.state == N, False, {}


gym.register(ID, entry_point=f"{__name__}:Chain")


def true_values() -> npt.NDArray[np.float64]:
    """(N, 2) Q-values of the optimal policy, by hand: ``sum_k 0.9^k (s + 1 + k)`` for action 1, 0 for action 0."""
    forward = [sum(GAMMA**k * (s + 1 + k) for k in range(N - s)) for s in range(N)]
    return np.stack([np.zeros(N), np.array(forward)], axis=1)


def model_with_true_values(algorithm: Any, shift: float = 0.0, scale: float = 1.0, **kwargs: Any) -> Any:
    """
    :param algorithm: DQN, QRDQN or DQNExt
    :param shift: what is added to all values
    :param scale: what they are multiplied with before
    :param kwargs: further arguments of the model, and ``env``
    :return: a model that says the true values, so changed
    """
    arguments: dict[str, Any] = {
        "env": gym.make(ID),
        "gamma": GAMMA,
        "learning_starts": 10**6,
        "buffer_size": 500,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": {"net_arch": []} | ({"n_quantiles": 3} if algorithm is QRDQN else {}),
    }
    model = algorithm("MlpPolicy", **(arguments | kwargs))
    net = model.quantile_net.quantile_net if algorithm is QRDQN else model.q_net.q_net
    n_copies = 3 if algorithm is QRDQN else 1  # of each action's value, quantile by quantile
    values = np.tile(scale * true_values().T, (n_copies, 1))
    with th.no_grad():
        net[0].weight.copy_(th.from_numpy(values))
        net[0].bias.fill_(shift)
    return model


ALGORITHMS = [DQN, QRDQN, DQNExt]
