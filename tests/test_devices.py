"""
Updates on the device ``meta``, whose tensors have no values. Tensors that were made on another device are errors there, and so
are numbers that Python reads from the device. On CUDA, the first are errors, too, and the second wait for the GPU.
"""

from collections.abc import Callable
from itertools import cycle, product
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from torch.utils._pytree import tree_map

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS, QuantileReturns
from sb3_dqn_ext.networks.encoders import ENCODERS
from sb3_dqn_ext.networks.heads import HEADS
from sb3_dqn_ext.networks.norms import NORMS
from sb3_dqn_ext.updates import Updater
from tests.internals import drawn_batch
from tests.parity import dict_cartpole, learn, short_cartpole
from tests.test_combinations import HEAD_ARCH, RETURNS_KWARGS
from tests.test_cuda import stacked

META = th.device("meta")


def update_on_meta(env: Callable[[], gym.Env[Any, Any]], policy: str = "MlpPolicy", **kwargs: Any) -> DQNExt:
    """Make an eager update of a model whose networks are on ``meta``, with a batch of transitions of the environment."""
    sizes: dict[str, Any] = {"buffer_size": 30, "batch_size": 4, "learning_starts": 100, "seed": 0, "device": "cpu"}
    model = DQNExt(policy, env(), **sizes | kwargs)
    learn(model, 10)
    move_to_meta(model)
    batch = drawn_batch(model, 4)._replace(weights=th.ones(4))
    on_meta = tree_map(lambda part: part.to(META) if isinstance(part, th.Tensor) else part, batch)
    assert model.choices is not None
    updater = Updater(model, model.choices.target_policy, set())
    loss = updater.update(model, on_meta, 1, None)
    assert {loss.device, *(parameter.grad.device for parameter in model.q_net.parameters() if parameter.grad is not None)} == {
        META
    }
    return model


def move_to_meta(model: DQNExt) -> None:
    model.policy.to(META)
    optimizer: Any = type(model.policy.optimizer)
    model.policy.optimizer = optimizer(model.q_net.parameters(), lr=1e-3)
    model.target_update_interval = 1  # this update is due


NETWORKS = list(zip(product(TARGET_POLICIES, RETURN_MODELS, HEADS), cycle([False, True, True]), cycle(NORMS), strict=False))


@pytest.mark.parametrize("returns", RETURN_MODELS)
def test_an_update_stays_on_its_device_with_every_target_policy_and_head(returns: str) -> None:
    for (target_policy, of_network, head), noisy, norm in NETWORKS:
        if of_network == returns:
            network = {
                "net_arch": [4],
                "head": head,
                "head_arch": HEAD_ARCH[head],
                "returns": returns,
                "returns_kwargs": RETURNS_KWARGS[returns],
                "noisy": noisy,
                "norm": norm,
            }
            update_on_meta(short_cartpole, target_policy=target_policy, policy_kwargs=network)


SETTINGS: dict[str, tuple[Callable[[], gym.Env[Any, Any]], dict[str, Any]]] = {
    "Dict": (dict_cartpole, {"policy": "MultiInputPolicy"}),
    "Discrete": (lambda: gym.make("FrozenLake-v1"), {}),
    "MultiDiscrete": (lambda: FromOne(short_cartpole()), {}),
    "all actions": (short_cartpole, {"policy_kwargs": {"fitted_actions": "all"}}),
    "float64": (short_cartpole, {"policy_kwargs": {"dtype": "float64"}}),
    "batch norm": (short_cartpole, {"policy_kwargs": {"batch_norm": True}}),
    "no target network": (short_cartpole, {"target_network": False}),
    "AdamW": (short_cartpole, {"policy_kwargs": {"optimizer_class": "adamw"}}),
    "RMSprop": (short_cartpole, {"policy_kwargs": {"optimizer_class": "rmsprop"}}),
    **{
        encoder: (lambda: stacked(short_cartpole(), as_image=True), {"policy_kwargs": {"encoder": encoder}})
        for encoder in ENCODERS
    },
}


class FromOne(gym.ObservationWrapper[Any, Any, Any]):
    """A wrapper that shows the signs of two of CartPole's numbers as values of a MultiDiscrete space that starts at 1."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.MultiDiscrete([2, 2], start=[1, 1])

    def observation(self, observation: Any) -> Any:
        return 1 + (observation[:2] > 0)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_update_stays_on_its_device_with_every_other_setting(name: str) -> None:
    env, kwargs = SETTINGS[name]
    update_on_meta(env, **kwargs)


class OnCpu(QuantileReturns):
    """Quantiles whose fractions are no buffer, so that they stay on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        del self.midpoints
        self.midpoints = th.full((50,), 0.5)


class ReadsANumber(QuantileReturns):
    """Quantiles whose mean Python computes with a number from the device."""

    def mean(self, prediction: Any) -> th.Tensor:
        return super().mean(prediction) * float(prediction.values.sum())


@pytest.mark.parametrize("returns", [OnCpu, ReadsANumber])
def test_a_tensor_of_another_device_and_a_number_that_is_read_are_found(returns: Any) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match=r"device|meta"):
        update_on_meta(short_cartpole, policy_kwargs={"returns": returns})
