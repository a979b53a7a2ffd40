"""The parts of Beyond the Rainbow (https://arxiv.org/abs/2411.03820), compared with the paper's table and with plain torch."""

import copy
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3.common.envs import FakeImageEnv
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.presets import preset_paths
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.internals import n_updates_of
from tests.parity import learn

N_ACTIONS, N_COSINES, N_TAUS = 6, 64, 8
ATARI: dict[str, Any] = yaml.safe_load(Path(preset_paths()["btr"]).read_text())["atari"]
OF_THE_ZOO = ("policy", "n_timesteps", "n_envs", "vec_env_wrapper")
"""the entries of the block that are no arguments of DQNExt"""


def arguments(**changed: Any) -> dict[str, Any]:
    return {name: value for name, value in copy.deepcopy(ATARI).items() if name not in OF_THE_ZOO} | changed


class Residual(nn.Module):
    """Two convolutions with spectral norm, and a shortcut."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second = (spectral_norm(nn.Conv2d(n, n, 3, padding=1)) for _ in range(2))

    def forward(self, x: th.Tensor) -> th.Tensor:
        out: th.Tensor = x + self.second(self.first(x.relu()).relu())
        return out


class Reference(nn.Module):
    """The network of the paper without noise, with layers in the order of ours."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(4, 32), (32, 64), (64, 64)]
        blocks = [[nn.Conv2d(i, o, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(o), Residual(o)] for i, o in widths]
        self.convolutions = nn.Sequential(*(layer for block in blocks for layer in block))
        self.cosines = nn.Linear(N_COSINES, 2304)
        self.value = nn.Sequential(nn.Linear(2304, 512), nn.ReLU(), nn.Linear(512, 1))
        self.advantage = nn.Sequential(nn.Linear(2304, 512), nn.ReLU(), nn.Linear(512, N_ACTIONS))

    def forward(self, images: th.Tensor) -> th.Tensor:
        pooled = nn.functional.adaptive_max_pool2d(self.convolutions(images.float() / 255), 6).relu().flatten(1)
        taus = (th.arange(N_TAUS) + 0.5) / N_TAUS  # the midpoints, which a deterministic prediction has
        embedded = self.cosines(th.cos(th.pi * th.outer(taus, th.arange(N_COSINES).float()))).relu()
        hidden = pooled[:, None] * embedded  # (B, N, 2304)
        advantages = self.advantage(hidden)
        quantiles = self.value(hidden) + advantages - advantages.mean(dim=2, keepdim=True)
        q_values: th.Tensor = quantiles.mean(dim=1)
        return q_values


def copy_weights(ours: Any, theirs: Reference) -> None:
    """Copy the weights of our network, and the power iteration of its spectral norms."""
    means = [parameter for name, parameter in ours.named_parameters() if "sigma" not in name]
    layers: list[Any] = [layer for layer in theirs.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    with th.no_grad():
        for layer, (weight, bias) in zip(layers, zip(means[::2], means[1::2], strict=True), strict=True):
            raw = layer.parametrizations.weight.original if hasattr(layer, "parametrizations") else layer.weight
            assert raw.shape == weight.shape
            raw.copy_(weight)
            layer.bias.copy_(bias)
    vectors = [buffer for name, buffer in ours.named_buffers() if name.endswith(("running_u", "running_v"))]
    normalized = [layer for layer in layers if hasattr(layer, "parametrizations")]
    for layer, (u, v) in zip(normalized, zip(vectors[::2], vectors[1::2], strict=True), strict=True):
        rule = layer.parametrizations.weight[0]
        rule._u.copy_(u.flatten())
        rule._v.copy_(v.flatten())


def test_the_network_is_that_of_the_paper() -> None:
    env = FakeImageEnv(
        action_dim=N_ACTIONS, screen_height=84, screen_width=84, n_channels=4, discrete=True, channel_first=True
    )
    model = DQNExt("CnnPolicy", env, **arguments(buffer_size=300, device="cpu", step_while_learning=False))
    model.policy.set_training_mode(False)
    reference = Reference().eval()
    copy_weights(model.q_net, reference)
    images = th.as_tensor(np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), dtype=np.uint8))
    with th.no_grad():
        th.testing.assert_close(model.q_net(images), reference(images), atol=1e-5, rtol=1e-5)
    # each noisy weight has a standard deviation, too
    noisy = sum(parameter.numel() for parameter in [*reference.value.parameters(), *reference.advantage.parameters()])
    n_parameters = sum(parameter.numel() for parameter in reference.parameters())
    assert sum(parameter.numel() for parameter in model.q_net.parameters()) == n_parameters + noisy


def test_the_hyperparameters_are_those_of_the_paper() -> None:
    sampler = ATARI["replay_buffer_kwargs"]["sampler_kwargs"]
    returns = ATARI["policy_kwargs"]["returns_kwargs"]
    schedule = ATARI["exploration_kwargs"]["schedule"]["points"]
    assert (ATARI["batch_size"], ATARI["n_envs"], ATARI["gradient_steps"], ATARI["train_freq"]) == (256, 64, 1, 1)
    assert (ATARI["learning_rate"], ATARI["policy_kwargs"]["optimizer_kwargs"]["eps"]) == (1e-4, 0.005 / 256)
    assert (ATARI["gamma"], ATARI["n_steps"], ATARI["max_grad_norm"]) == (0.997, 3, 10)
    assert (ATARI["buffer_size"], ATARI["learning_starts"]) == (2**20, 200_000)
    assert (ATARI["target_update_interval"], ATARI["target_update_unit"]) == (500, "gradient_steps")
    assert ATARI["target_policy_kwargs"] == {"alpha": 0.9, "temperature": 0.03, "clip": -1}
    assert (sampler["alpha"], sampler["beta"]) == (0.2, 0.45)
    assert {returns[f"n_{name}quantiles"] for name in ("", "target_", "policy_")} == {N_TAUS}
    assert schedule[:3] == [[0, 1.0], [2_000_000, 0.01], [25_000_000, 0.01]]


@pytest.mark.slow  # a minute and a half
def test_the_form_for_atari_learns_for_twenty_updates() -> None:
    gym.register_envs(ale_py)
    wrapper = copy.deepcopy(ATARI["vec_env_wrapper"][0]["sb3_dqn_ext.vec_env.FastVecEnv"])
    env = make_fast_vec_env("ALE/Pong-v5", ATARI["n_envs"], seed=0, env_kwargs=wrapper["env_kwargs"])
    model = DQNExt("CnnPolicy", env, **arguments(buffer_size=10_000, learning_starts=320, device="cpu", seed=0))
    before = copy.deepcopy(model.q_net.state_dict())
    learn(model, 64 * 25)
    assert n_updates_of(model) == 20
    after = model.q_net.state_dict()
    assert all(th.isfinite(values).all() for values in after.values())
    assert not any(th.equal(values, before[name]) for name, values in after.items() if values.is_floating_point())
    env.close()
