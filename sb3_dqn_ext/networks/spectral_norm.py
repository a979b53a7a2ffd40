"""Layers whose weights have a spectral norm of 1 (Miyato et al., 2018, https://arxiv.org/abs/1802.05957)."""

import torch as th
from torch import nn
from torch.nn import functional as F

__all__ = ["SpectralNorm", "estimate_spectral_norms"]

FIRST_ITERATIONS = 15
"""The number of power iterations of a new layer, as in torch."""


class SpectralNorm(nn.Module):
    """
    A dense layer or a convolution whose weights W are divided by an estimate of their spectral norm, the largest singular
    value (Miyato et al., 2018, https://arxiv.org/abs/1802.05957, equation 8 and algorithm 1)::

        y = W / sigma x + b,  sigma = u^T W v

    The weights of a convolution are a matrix with one row for each output channel. Each forward pass in training mode makes
    one power iteration, ``u = W v / |W v|`` and ``v = W^T u / |W^T u|``. The results are those of
    ``torch.nn.utils.parametrizations.spectral_norm``, whose layers cannot be pickled. With noise, sigma is that of the mean
    weights.

    :param layer: the layer
    """

    # SB3 copies buffers with "running_" in their names to the target network
    running_u: th.Tensor
    """(Q,) the estimate of the left singular vector, with one number for each output or output channel."""
    running_v: th.Tensor
    """(P,) the estimate of the right singular vector."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        n_out, n_in = self.matrix().shape
        weight = layer.weight
        self.register_buffer("running_u", th.zeros(n_out, dtype=weight.dtype, device=weight.device))
        self.register_buffer("running_v", th.randn(n_in, dtype=weight.dtype, device=weight.device))
        self.iterate(FIRST_ITERATIONS)

    def matrix(self) -> th.Tensor:
        """Return the weights as a (Q, P) matrix W."""
        return self.layer.weight.flatten(1)

    def iterate(self, n: int) -> None:
        """Make n power iterations."""
        with th.no_grad():
            matrix = self.matrix()
            for _ in range(n):
                self.running_u.copy_(F.normalize(matrix @ self.running_v, dim=0))
                self.running_v.copy_(F.normalize(matrix.mT @ self.running_u, dim=0))

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        """Apply the layer with normalised weights to inputs of its shape."""
        if self.training:
            self.iterate(1)
        # copies, as a later forward pass changes the vectors while autograd still needs them
        sigma = self.running_u.clone() @ self.matrix() @ self.running_v.clone()
        outputs: th.Tensor = self.layer(inputs / sigma)  # W (x / sigma) + b
        return outputs


def estimate_spectral_norms(network: nn.Module) -> None:
    """
    Estimate the spectral norms of all layers again, after their weights were replaced.

    :param network: a network
    """
    for layer in network.modules():
        if isinstance(layer, SpectralNorm):
            layer.iterate(FIRST_ITERATIONS)
