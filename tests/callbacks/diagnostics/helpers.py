"""Models, environments and rows of a log for the tests of diagnostics."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_dqn_ext.callbacks import (
    DiagnosticsCallback,
)
from tests.parity import short_cartpole

GROUPS = ("values/", "errors/", "replay/", "network/", "exploration/", "calibration/", "video/")


def poles(n_envs: int = 1, limit: int = 20) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(short_cartpole(limit))] * n_envs)


def build(algorithm: Any, env: VecEnv | None = None, **kwargs: Any) -> Any:
    policy_kwargs: dict[str, Any] = {"net_arch": [16, 8]} | kwargs.pop("policy_kwargs", {})
    if algorithm is QRDQN:
        policy_kwargs["n_quantiles"] = 5
    defaults: dict[str, Any] = {
        "policy": "MlpPolicy",
        "buffer_size": 120,
        "learning_starts": 20,
        "batch_size": 8,
        "train_freq": 2,
        "target_update_interval": 20,
        "learning_rate": 1e-2,
        "seed": 0,
        "device": "cpu",
    }
    if not kwargs.get("target_network", True):
        del defaults["target_update_interval"]
    return algorithm(env=env or poles(), policy_kwargs=policy_kwargs, **(defaults | kwargs))


def everything(**kwargs: Any) -> DiagnosticsCallback:
    often: dict[str, Any] = {"every": 30, "calibration": {"every": 60, "n_episodes": 3}}
    return DiagnosticsCallback(**(often | kwargs))


def theirs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the log without the values of diagnostics."""
    return [{key: value for key, value in row.items() if not key.startswith(GROUPS)} for row in rows]


def ours(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the last logged value of each key of diagnostics."""
    return {key: value for row in rows for key, value in row.items() if key.startswith(GROUPS)}


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with pictures as arrays."""
    return [{key: of.image if isinstance(of, Image) else of for key, of in row.items()} for row in rows]


class At(BaseCallback):
    """A callback that calls a function with the model at one step, before the transition is stored."""

    def __init__(self, step: int, inspect: Callable[[Any], None]) -> None:
        super().__init__()
        self.step, self.inspect = step, inspect

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.inspect(self.model)
        return True


def networks_of(model: Any) -> tuple[Any, Any]:
    if isinstance(model, QRDQN):
        return model.quantile_net, model.quantile_net_target
    return model.q_net, model.q_net_target


def generators(model: Any) -> list[Any]:
    own = getattr(model, "_generator", None)
    return [
        random.random(),
        np.random.rand(),
        th.rand(1),
        None if own is None else own.random(),
        int(model.action_space.sample()),
        [layer.training for layer in model.policy.modules()],
    ]


def is_observed(buffer: Any) -> bool:
    """Return whether a diagnostic observes the draws of a replay buffer."""
    return bool(getattr(buffer, "sample_hooks", [])) or "_get_samples" in vars(buffer)


def states_of(callback: Any) -> Any:
    r"""Return the (N, \*obs) observations at which a QValuesCallback evaluates the networks."""
    return callback._states


def visits_of(callback: Any) -> Any:
    """Return the counts of an ExplorationCallback, and the bounds of their grid."""
    return callback._visited


def evaluation_env_of(callback: Any) -> Any:
    """Return the environments in which a ValueCalibrationCallback plays."""
    return callback._env
