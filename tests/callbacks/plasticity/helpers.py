"""Callbacks and functions for the tests of plasticity."""

from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_dqn_ext.callbacks.run_callback import RunCallback
from sb3_dqn_ext.networks.spectral_norm import SpectralNorm


class BeforeRollout(RunCallback):
    """A callback that calls a function with the model before each rollout, in the order of the callbacks of the run."""

    def __init__(self, observe: Callable[[Any], None]) -> None:
        super().__init__()
        self.observe = observe

    def _before_rollout(self) -> None:
        self.observe(self.model)


def around(callback: BaseCallback, observe: Callable[[Any], Any]) -> tuple[list[BaseCallback], list[Any], list[Any]]:
    """
    Observe a model before and after a callback acts.

    :param callback: the callback
    :param observe: a function of the model
    :return: the callbacks of the run; the observations before the callback; those after it
    """
    before: list[Any] = []
    after: list[Any] = []
    first = BeforeRollout(lambda model: before.append(observe(model)))
    last = BeforeRollout(lambda model: after.append(observe(model)))
    return [first, callback, last], before, after


def state_of(module: th.nn.Module) -> dict[str, th.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(some: dict[str, th.Tensor], others: dict[str, th.Tensor]) -> bool:
    return all(th.equal(tensor, others[name]) for name, tensor in some.items())


def small_images() -> VecEnv:
    env = FakeImageEnv(action_dim=3, screen_height=12, screen_width=12, n_channels=2, discrete=True)
    env.observation_space.seed(0)  # its images are samples of the space
    return DummyVecEnv([lambda: env])


def spectral_norms(network: th.nn.Module) -> list[float]:
    """Return the largest singular values of the weights that the hidden layers of a network multiply their inputs by."""
    norms = []
    for layer in network.modules():
        if isinstance(layer, SpectralNorm):
            inputs = th.eye(layer.matrix().shape[1])
            with th.no_grad():
                weights = layer.eval()(inputs) - layer(th.zeros_like(inputs))
            norms.append(float(th.linalg.matrix_norm(weights, 2)))
    return norms
