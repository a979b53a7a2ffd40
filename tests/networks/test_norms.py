"""Batch and spectral normalisation compared with torch's and with singular values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks import ImpalaEncoder
from sb3_dqn_ext.networks.norms import batch_norm
from sb3_dqn_ext.networks.spectral_norm import SpectralNorm
from tests.internals import update_target_network
from tests.networks.helpers import make, observations
from tests.parity import assert_same, learn, short_cartpole

LAYERS: dict[str, tuple[Callable[[], nn.Linear | nn.Conv2d], tuple[int, ...]]] = {
    "dense": (lambda: nn.Linear(6, 4, dtype=th.float64), (5, 6)),
    "convolution": (lambda: nn.Conv2d(3, 4, kernel_size=2, dtype=th.float64), (5, 3, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_spectral_norm_is_trained_as_torchs_own(name: str) -> None:
    make_layer, shape = LAYERS[name]
    ours, theirs = SpectralNorm(make_layer()), make_layer()
    theirs.load_state_dict(ours.layer.state_dict())
    nn.utils.parametrizations.spectral_norm(theirs)
    parametrization: Any = theirs.parametrizations.weight  # type: ignore[union-attr]
    parametrization[0]._u.copy_(ours.running_u)
    parametrization[0]._v.copy_(ours.running_v)
    weights = ours.layer.weight, parametrization.original
    for step in range(8):
        inputs = th.randn(shape, dtype=th.float64)
        gradients = []
        for layer, weight in zip((ours, theirs), weights, strict=True):
            output = layer.train(step != 4)(inputs)
            gradients += th.autograd.grad((output**2).mean(), weight)
            weight.data -= gradients[-1]
        th.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)
        assert float(gradients[0].abs().max()) > 1e-3
        th.testing.assert_close(ours.running_u, parametrization[0]._u, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kwargs", [{}, {"init": "keras"}, {"noisy": True}, {"dtype": "float64"}], ids=str)
def test_the_weights_of_a_new_network_are_divided_by_their_largest_singular_value(kwargs: dict[str, Any]) -> None:
    model = make(net_arch=[8, 6], norm="spectral", **kwargs)
    layers: Any = [layer for layer in model.q_net.q_net if isinstance(layer, SpectralNorm)]
    assert len(layers) == 2
    for layer in layers:
        for _ in range(200):
            layer.iterate(1)
        layer.eval()
        weight = layer.layer.weight.detach().double().numpy()
        bias = layer.layer.bias.detach().double().numpy()
        inputs = np.random.default_rng(0).normal(size=(5, weight.shape[1]))
        expected = inputs @ (weight / np.linalg.svd(weight, compute_uv=False)[0]).T + bias
        found = layer(th.as_tensor(inputs, dtype=layer.layer.weight.dtype)).detach()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not isinstance(list(model.q_net.q_net)[-1], SpectralNorm)


def test_new_estimates_are_good_before_the_first_update() -> None:
    for seed in range(5):
        th.manual_seed(seed)
        layer = make(norm="spectral", net_arch=[16], init="keras").q_net.q_net[0]
        assert isinstance(layer, SpectralNorm)
        weight = layer.layer.weight.detach()
        estimate = float(layer.running_u @ weight @ layer.running_v)
        assert estimate == pytest.approx(np.linalg.svd(weight, compute_uv=False)[0], rel=0.05)


@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_running_estimates_are_learned_copied_to_the_target_network_and_saved(norm: str, tmp_path: Path) -> None:
    model = make(norm=norm, head="dueling", head_arch=[5])
    names = [key for key in model.q_net.state_dict() if "running_" in key]
    assert len(names) == 2 * 3  # trunk, value and advantage
    learn(model, 30)
    ours, target = model.q_net.state_dict(), model.q_net_target.state_dict()
    assert not any(th.equal(ours[name], target[name]) for name in names)
    update_target_network(model)
    for name in names:
        assert_same(model.q_net_target.state_dict()[name], ours[name], name)
    actions = model.predict(observations(), deterministic=True)[0]
    assert_same(model.q_net.state_dict(), ours, "after a prediction")
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert_same(loaded.get_parameters(), model.get_parameters(), "parameters")
    assert_same(loaded.predict(observations(), deterministic=True)[0], actions, "actions")
    with pytest.warns(UserWarning, match="running estimates"):
        DQNExt("MlpPolicy", short_cartpole(), policy_kwargs={"norm": norm}, compile=True, device="cpu").updater  # noqa: B018


def test_batch_normalisation_of_images_has_one_mean_for_each_channel() -> None:
    layer, norm = batch_norm(nn.Conv2d(3, 4, kernel_size=2))
    images = layer(th.randn(5, 3, 6, 6))
    values = images.detach().numpy()
    mean, variance = values.mean((0, 2, 3), keepdims=True), values.var((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(norm(images).detach(), (values - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "own"])
def test_a_single_transition_is_refused_with_batch_normalisation(norm: str) -> None:
    def own(hidden: Any) -> list[nn.Module]:
        return [hidden, nn.BatchNorm1d(hidden.out_features)]

    kwargs = {"norm": norm if norm == "batch" else own}
    with pytest.raises(ArgumentError, match="batch_size=1 is too small for batch normalisation"):
        DQNExt("MlpPolicy", short_cartpole(), batch_size=1, device="cpu", policy_kwargs=kwargs)


# the encoder of Beyond the Rainbow


def test_impala_is_pooled_and_its_residual_blocks_are_normalised() -> None:
    space = spaces.Box(0, 255, (4, 40, 50), np.uint8)
    plain = ImpalaEncoder(space, channels="first", features_dim=8)
    encoder = ImpalaEncoder(space, channels="first", features_dim=8, pool=3, residual_norm="spectral")
    normalised = [name for name, layer in encoder.named_modules() if isinstance(layer, SpectralNorm)]
    assert len(normalised) == 3 * 2 * 2
    assert all(".residual." in name for name in normalised)
    assert [layer.in_features for layer in (plain.linear[0], encoder.linear[0])] == [32 * 5 * 7, 32 * 3 * 3]
    images = th.rand(2, 4, 40, 50)
    pooled = encoder.eval().cnn(images).view(2, 32, 3, 3)
    maps = encoder.cnn[:-2](images)  # without pooling and flattening
    assert maps.shape == (2, 32, 5, 7)
    for i, rows in enumerate([(0, 2), (1, 4), (3, 5)]):
        for j, columns in enumerate([(0, 3), (2, 5), (4, 7)]):
            assert th.equal(pooled[:, :, i, j], maps[:, :, slice(*rows), slice(*columns)].amax((2, 3)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"pool": 0}, "pool=0 must be a whole number"), ({"residual_norm": "spectrum"}, "norm='spectrum'.*'spectral'")],
)
def test_wrong_arguments_of_impala_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ImpalaEncoder(spaces.Box(0, 255, (4, 40, 40), np.uint8), **kwargs)
