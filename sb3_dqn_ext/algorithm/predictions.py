"""
Predictions of a network about the return of each action, and whether they are random.

Shapes: B batch, A actions, K numbers per action.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol, cast

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

__all__ = ["Phase", "Prediction", "Predictor", "is_sampling", "predict", "select_actions", "stochastic_predictions"]

Phase = Literal["online", "target", "policy"]
"""What the numbers are for: a prediction that is fitted, the target it is fitted to, or the choice of an action"""


class Prediction(NamedTuple):
    """The numbers that a network predicts about the return of each action; a return model reads the Q-values out of them."""

    values: th.Tensor
    """(B, A, K), or (B, K) once the action is chosen"""
    taus: th.Tensor | None = None
    """(B, K) the quantile fractions that were sampled with ``values``, for the models that sample them"""
    q_values: th.Tensor | None = None
    """(B, A) the Q-values, where they are not to be computed from ``values``: a hook or a user's ``forward`` gave them"""


def select_actions(params: Prediction, actions: th.Tensor) -> Prediction:
    """
    (B, A, K) parameters and (B,) actions -> (B, K) parameters of the actions that were taken.
    """
    index = actions.view(-1, 1, 1).expand(-1, 1, params.values.shape[-1])
    return params._replace(values=params.values.gather(1, index).squeeze(1))


class NoisyLayer(Protocol):
    """A layer whose noise is drawn before it is used."""

    def resample_noise(self) -> None:
        """Draw new noise."""

    def remove_noise(self) -> None:
        """Remove the noise."""


class Predictor(Protocol):
    """
    The methods of a network that predicts more than Q-values. The networks of SB3 and of users need none of them: they return
    the Q-values, and are deterministic.
    """

    is_stochastic: bool
    """whether its predictions are random within :func:`sampled`"""
    noisy_layers: Sequence[NoisyLayer]

    def predict_returns(self, obs: PyTorchObs, purpose: Phase) -> Prediction:
        """
        :param obs: (B, \\*obs) observations
        :param purpose: the use of the prediction
        :return: (B, A, K) parameters
        """
        ...


def predict(net: nn.Module, obs: PyTorchObs, purpose: Phase = "policy") -> Prediction:
    """
    Predict (B, A, K) parameters; those of a network that is no :class:`Predictor` are its Q-values, one for each action.

    :param net: the network
    :param obs: (B, \\*obs) observations
    :param purpose: the use of the prediction
    """
    if hasattr(type(net), "predict_returns"):
        return cast(Predictor, net).predict_returns(obs, purpose)
    return Prediction(net(obs).unsqueeze(-1))


class _Thread(threading.local):
    """The state of the current thread; another one may use the same networks meanwhile."""

    sampled: frozenset[nn.Module] = frozenset()
    """the networks whose predictions are random: those of all others are deterministic"""


_thread = _Thread()


def is_sampling(net: nn.Module) -> bool:
    """:return: whether the current thread is within :func:`sampled` for a network"""
    return net in _thread.sampled


@contextmanager
def stochastic_predictions(*nets: nn.Module) -> Iterator[None]:
    """
    Draw noise for each of the networks, and let quantile fractions be drawn too, for the current thread. Outside of it, and in
    all other threads, every prediction is deterministic.

    :param nets: networks; deterministic ones are left alone
    """
    random = [net for net in dict.fromkeys(nets) if getattr(net, "is_stochastic", False)]
    layers = [layer for net in random for layer in cast(Predictor, net).noisy_layers]
    before = _thread.sampled
    try:
        for layer in layers:
            layer.resample_noise()
        _thread.sampled = before.union(random)
        yield
    finally:
        _thread.sampled = before
        for layer in layers:
            layer.remove_noise()
