"""Linear layers with noisy weights (Fortunato et al., 2018, https://arxiv.org/abs/1706.10295)."""

import math
import threading
from weakref import WeakKeyDictionary

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_dqn_ext._validation import check_number

__all__ = ["NoisyLinear", "make_noisy", "noisy_layers"]


def signed_sqrt(noise: th.Tensor) -> th.Tensor:
    """Compute ``f(x) = sgn(x) sqrt(|x|)`` elementwise (Fortunato et al., 2018, section 3, "factorised Gaussian noise")."""
    return noise.sign() * noise.abs().sqrt()


Noise = tuple[th.Tensor, th.Tensor]
"""The (Q, P) noise of the weights and the (Q,) noise of the biases."""


class _ThreadNoise(threading.local):
    """The noise that the current thread has drawn, by layer. It is not stored in the layers, since all threads share them."""

    def __init__(self) -> None:
        self.by_layer: WeakKeyDictionary[nn.Module, Noise] = WeakKeyDictionary()


_thread_noise = _ThreadNoise()


class NoisyLinear(nn.Linear):
    """
    A linear layer with factorised Gaussian noise (Fortunato et al., 2018, equations 9 to 11)::

        y = (mu_w + sigma_w * eps_w) x + mu_b + sigma_b * eps_b
        eps_w = f(eps_out) f(eps_in)^T,  eps_b = f(eps_out),  f(x) = sgn(x) sqrt(|x|)

    ``weight`` and ``bias`` are the means mu, with torch's initialisation, which is that of the paper. The layer has noise from
    :meth:`resample_noise` until :meth:`remove_noise`, in training and in evaluation mode, and only for the thread that has
    called them.

    :param in_features: P, the number of inputs
    :param out_features: Q, the number of outputs
    :param sigma0: the initial value of each sigma is ``sigma0 / sqrt(P)``
    """

    def __init__(self, in_features: int, out_features: int, sigma0: float = 0.5) -> None:
        super().__init__(in_features, out_features)
        start = sigma0 / math.sqrt(in_features)
        self.weight_sigma = nn.Parameter(th.full_like(self.weight, start))
        self.bias_sigma = nn.Parameter(th.full_like(self.bias, start))

    @property
    def noise(self) -> Noise | None:
        """The noise that this thread has drawn; None if there is none."""
        return _thread_noise.by_layer.get(self)

    def resample_noise(self) -> None:
        """Draw new noise from torch's generator. Graphs that were built with the previous noise keep it."""
        weight, sizes = self.weight, (self.in_features, self.out_features)
        with th.no_grad():
            eps_in, eps_out = (signed_sqrt(th.randn(n, dtype=weight.dtype, device=weight.device)) for n in sizes)
            _thread_noise.by_layer[self] = th.outer(eps_out, eps_in), eps_out

    def remove_noise(self) -> None:
        """Remove the noise, so that the outputs are those of the means."""
        _thread_noise.by_layer.pop(self, None)

    def forward(self, input: th.Tensor) -> th.Tensor:
        """
        Map inputs to outputs.

        The weights include the noise that this thread has drawn by :meth:`resample_noise`. Without noise, the weights are the
        means. The training or evaluation mode has no effect.

        :param input: (\\*, P) inputs
        :return: (\\*, Q) outputs
        """
        noise = self.noise
        if noise is None:
            return F.linear(input, self.weight, self.bias)
        weight_noise, bias_noise = noise
        return F.linear(input, self.weight + self.weight_sigma * weight_noise, self.bias + self.bias_sigma * bias_noise)


def make_noisy(module: nn.Module, sigma0: float = 0.5) -> None:
    """
    Replace each linear layer of a module by a noisy layer.

    :param module: the module
    :param sigma0: see :class:`NoisyLinear`
    """
    check_number("sigma0", sigma0, low=0)
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, NoisyLinear(child.in_features, child.out_features, sigma0))
        else:
            make_noisy(child, sigma0)


def noisy_layers(module: nn.Module) -> list[NoisyLinear]:
    """Return the noisy layers of a module."""
    return [layer for layer in module.modules() if isinstance(layer, NoisyLinear)]
