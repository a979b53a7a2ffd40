"""Small models of SB3 and of this package, with the same arguments."""

from collections.abc import Callable
from typing import Any

from stable_baselines3 import DQN

from tests.parity import short_cartpole

SMALL: dict[str, Any] = {
    "learning_rate": 1e-2,
    "buffer_size": 300,
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 2,
    "target_update_interval": 6,
    "seed": 0,
    "device": "cpu",
}
Make = Callable[..., DQN]


def make(algorithm: Make, policy: Any = "MlpPolicy", policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    return algorithm(policy, short_cartpole(8), policy_kwargs={"net_arch": [8]} | (policy_kwargs or {}), **(SMALL | kwargs))
