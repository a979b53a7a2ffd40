"""Normalisations of the hidden layers of a network."""

from collections.abc import Callable
from typing import Any

import torch as th
from torch import nn

from sb3_dqn_ext._validation import OpenChoice
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.spectral_norm import SpectralNorm

__all__ = ["NORM", "NORMS", "HiddenLayer", "Norm", "NormFunction", "batch_norm", "make_norm", "needs_batches", "no_norm"]

HiddenLayer = nn.Linear | nn.Conv2d
NormFunction = Callable[[Any], list[nn.Module]]


class Norm:
    """
    A normalisation: a function of a hidden layer, or an object that is called as one.

    It is called for each hidden layer of the encoder, the trunk and the head, not for the outputs.
    """

    def __call__(self, layer: HiddenLayer) -> list[nn.Module]:
        """
        Return the layers that are used in place of a hidden layer, before its activation.

        :param layer: a dense layer with outputs (B, layer.out_features), or a convolution with outputs
            (B, layer.out_channels, height, width)
        :return: for example, this layer and a normalisation of its outputs
        """
        raise NotImplementedError


def no_norm(layer: HiddenLayer) -> list[nn.Module]:
    """Return the layer alone."""
    return [layer]


def layer_norm(layer: HiddenLayer) -> list[nn.Module]:
    """
    Return the layer and a layer normalisation (Ba et al., 2016, https://arxiv.org/abs/1607.06450)::

        y = (x - mean(x)) / sqrt(var(x) + 1e-5) * weight + bias

    The mean and the variance are those of all outputs of one observation: for convolutions, over channels, height and width,
    with one weight and bias for each channel.
    """
    if isinstance(layer, nn.Conv2d):
        return [layer, nn.GroupNorm(1, layer.out_channels)]
    return [layer, nn.LayerNorm(layer.out_features)]


def batch_norm(layer: HiddenLayer) -> list[nn.Module]:
    """
    Return the layer and a batch normalisation (Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167).

    The mean and the variance of each output are those of the batch in training mode, and running averages otherwise; for
    convolutions, those of each channel over the batch, height and width.
    """
    if isinstance(layer, nn.Conv2d):
        return [layer, nn.BatchNorm2d(layer.out_channels)]
    return [layer, nn.BatchNorm1d(layer.out_features)]


def needs_batches(network: nn.Module) -> bool:
    """Return whether a network cannot be trained on a single transition, which has no variance."""
    return any(isinstance(layer, nn.BatchNorm1d) for layer in network.modules())


def spectral_norm(layer: HiddenLayer) -> list[nn.Module]:
    """Return the layer with weights of spectral norm 1 (Miyato et al., 2018, https://arxiv.org/abs/1802.05957)."""
    return [SpectralNorm(layer)]


NORMS: dict[str, NormFunction] = {"none": no_norm, "layer": layer_norm, "batch": batch_norm, "spectral": spectral_norm}
NORM_SYNONYMS = {
    "no": "none",
    "false": "none",
    "layer_norm": "layer",
    "layernorm": "layer",
    "layer_normalization": "layer",
    "ln": "layer",
    "true": "layer",
    "group": "layer",
    "group_norm": "layer",
    "batch_norm": "batch",
    "batchnorm": "batch",
    "batch_normalization": "batch",
    "bn": "batch",
    "spectral_norm": "spectral",
    "spectral_normalization": "spectral",
    "sn": "spectral",
}
NORM = OpenChoice("norm", Norm, ("__call__",), NORMS, NORM_SYNONYMS)


def make_norm(norm: object) -> NormFunction:
    """
    Build a normalisation.

    :param norm: a name of ``NORMS``, a function, an object, a class that is built without arguments, or a dotted name
    :raises ArgumentError: if there is no such normalisation, or it does not return a list of layers
    """
    function: NormFunction = NORM.build(norm)
    if function in NORMS.values():
        return function
    with th.random.fork_rng(devices=[]):
        layers: Any = function(nn.Linear(2, 2))
    if not isinstance(layers, list) or not all(isinstance(layer, nn.Module) for layer in layers):
        raise ArgumentError(f"norm={norm!r} returns {layers!r} for a layer: it must return a list of layers.")
    return function
