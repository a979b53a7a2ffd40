"""Linear layers with noisy weights (https://arxiv.org/abs/1706.10295)."""

import math
import threading
from weakref import WeakKeyDictionary

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_dqn_ext._validation import check_number

__all__ = ["NoisyLinear", "make_noisy", "noisy_layers"]


def signed_sqrt(noise: th.Tensor) -> th.Tensor:
    """The square root of each number, with its sign (section 3, "factorised Gaussian noise"); shapes are kept."""
    return noise.sign() * noise.abs().sqrt()


Noise = tuple[th.Tensor, th.Tensor]
"""(Q, P) noise of the weights and (Q,) noise of the biases"""


class _NoiseOfThread(threading.local):
    """The noise that the current thread has drawn, by layer; it is kept out of the layers, which all threads share."""

    def __init__(self) -> None:
        self.drawn: WeakKeyDictionary[nn.Module, Noise] = WeakKeyDictionary()


_of_thread = _NoiseOfThread()


class NoisyLinear(nn.Linear):
    """
    Linear layer with factorised Gaussian noise: y = (w + sigma_w * f(e_out) f(e_in)^T) x + b + sigma_b * f(e_out).

    ``weight`` and ``bias`` are the means, initialised as torch does, which is as the paper does. There is no noise until
    :meth:`draw`, and none after :meth:`silence`, whether or not the layer is in training mode. Noise is seen by the thread
    that has drawn it, and by no other one.

    :param in_features: P, numbers per input
    :param out_features: Q, numbers per output
    :param sigma0: the initial value of every sigma is ``sigma0 / sqrt(P)``
    """

    def __init__(self, in_features: int, out_features: int, sigma0: float = 0.5) -> None:
        super().__init__(in_features, out_features)
        start = sigma0 / math.sqrt(in_features)
        self.weight_sigma = nn.Parameter(th.full_like(self.weight, start))
        self.bias_sigma = nn.Parameter(th.full_like(self.bias, start))

    @property
    def noise(self) -> Noise | None:
        """The noise that this thread has drawn, None if there is none."""
        return _of_thread.drawn.get(self)

    def resample_noise(self) -> None:
        """Draw new noise from torch's generator; the old one stays with the graphs that were built with it."""
        weight, sizes = self.weight, (self.in_features, self.out_features)
        with th.no_grad():
            e_in, e_out = (signed_sqrt(th.randn(n, dtype=weight.dtype, device=weight.device)) for n in sizes)
            _of_thread.drawn[self] = th.outer(e_out, e_in), e_out

    def remove_noise(self) -> None:
        """Remove the noise: outputs are those of the means from now on."""
        _of_thread.drawn.pop(self, None)

    def forward(self, input: th.Tensor) -> th.Tensor:
        """(*, P) -> (*, Q)"""
        noise = self.noise
        if noise is None:
            return F.linear(input, self.weight, self.bias)
        weight_noise, bias_noise = noise
        return F.linear(input, self.weight + self.weight_sigma * weight_noise, self.bias + self.bias_sigma * bias_noise)


def make_noisy(module: nn.Module, sigma0: float = 0.5) -> None:
    """
    Replace every linear layer inside a module by a noisy one.

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
    """The noisy layers inside a module."""
    return [layer for layer in module.modules() if isinstance(layer, NoisyLinear)]
