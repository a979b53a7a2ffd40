"""Normalisations of the hidden layers of a network."""

from collections.abc import Callable
from typing import Any

from torch import nn

from sb3_dqn_ext._validation import OpenChoice

__all__ = ["NORM", "NORMS", "HiddenLayer", "Norm", "NormFunction", "batch_norm", "no_norm"]

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


def batch_norm(layer: nn.Linear) -> list[nn.Module]:
    """Return a dense layer and a batch normalisation (Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167)."""
    return [layer, nn.BatchNorm1d(layer.out_features)]


NORMS: dict[str, NormFunction] = {"none": no_norm, "layer": layer_norm}
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
}
NORM = OpenChoice("norm", Norm, ("__call__",), NORMS, NORM_SYNONYMS)
