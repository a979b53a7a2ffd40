"""Small models with a choice of network, and their layers computed in numpy."""

from typing import Any

import numpy as np
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.networks.q_network import QNetwork
from tests.parity import short_cartpole

RETURNS: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"n_atoms": 5, "v_min": 0, "v_max": 20},
    "quantile": {"n_quantiles": 4},
    "implicit_quantile": {"n_quantiles": 3, "n_target_quantiles": 4, "n_policy_quantiles": 5, "embedding_dim": 6},
    "hl_gauss": {"n_bins": 5, "v_min": 0, "v_max": 20},
}
HEADS: dict[str, list[int]] = {"shared": [], "multi_head": [5], "dueling": [6], "action_input": [7]}


def make(policy: str = "MlpPolicy", env: Any = None, **policy_kwargs: Any) -> DQNExt:
    return DQNExt(
        policy,
        env or short_cartpole(),
        learning_rate=1e-3,
        buffer_size=100,
        learning_starts=10,
        train_freq=1,
        batch_size=8,
        policy_kwargs={"net_arch": [8]} | policy_kwargs,
        seed=0,
        device="cpu",
    )


def network(model: DQNExt) -> QNetwork:
    assert isinstance(model.q_net, QNetwork)
    return model.q_net


def observations(n: int = 20) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)


def arrays(net: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {key: value.double().numpy() for key, value in net.state_dict().items()}


def layer(weights: dict[str, np.ndarray[Any, Any]], name: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def relu(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.maximum(x, 0))
