"""
Predictions of a network about the return of each action, and a context in which predictions are stochastic.

Shapes: B batch size, A actions, K distribution parameters per action.
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
"""The use of a prediction: the prediction in the loss, its target, or the choice of an action."""


class Prediction(NamedTuple):
    """The distribution parameters of the return of each action; a return model computes the Q-values from them."""

    values: th.Tensor
    """The distribution parameters, such as values, logits or quantiles: (B, A, K), or (B, K) of one action per transition."""
    taus: th.Tensor | None = None
    """The (B, K) quantile fractions of ``values``, for models that sample them."""
    q_values: th.Tensor | None = None
    """The (B, A) Q-values, if a hook or a user's ``forward`` has computed them; None: they are computed from ``values``."""


def select_actions(prediction: Prediction, actions: th.Tensor) -> Prediction:
    """
    Select the parameters of the actions that were taken.

    :param prediction: (B, A, K) distribution parameters
    :param actions: (B,) actions
    :return: (B, K) distribution parameters
    """
    index = actions.view(-1, 1, 1).expand(-1, 1, prediction.values.shape[-1])
    return prediction._replace(values=prediction.values.gather(1, index).squeeze(1))


class NoisyLayer(Protocol):
    """A layer with random weights, whose noise is drawn before the layer is evaluated."""

    def resample_noise(self) -> None:
        """Draw new noise."""

    def remove_noise(self) -> None:
        """Remove the noise, so that the layer is deterministic."""


class Predictor(Protocol):
    """
    A network that predicts distribution parameters, or whose predictions can be stochastic.

    Networks of SB3 and of users need none of these methods: they return Q-values, and are deterministic.
    """

    is_stochastic: bool
    """Whether its predictions are random within :func:`stochastic_predictions`."""
    noisy_layers: Sequence[NoisyLayer]
    """Its layers with noise."""

    def predict_returns(self, obs: PyTorchObs, phase: Phase) -> Prediction:
        """
        Predict the returns of all actions.

        :param obs: (B, \\*obs) observations
        :param phase: the use of the prediction
        :return: (B, A, K) distribution parameters
        """
        ...


def predict(net: nn.Module, obs: PyTorchObs, phase: Phase = "policy") -> Prediction:
    """
    Predict the returns of all actions.

    :param net: a :class:`Predictor`, or a network that returns (B, A) Q-values
    :param obs: (B, \\*obs) observations
    :param phase: the use of the prediction
    :return: (B, A, K) distribution parameters; the Q-values, with K = 1, if the network is no :class:`Predictor`
    """
    if hasattr(type(net), "predict_returns"):
        return cast(Predictor, net).predict_returns(obs, phase)
    return Prediction(net(obs).unsqueeze(-1))


class _ThreadState(threading.local):
    """The state of the current thread, since another thread may use the same networks at the same time."""

    sampling_nets: frozenset[nn.Module] = frozenset()
    """The networks whose predictions are random; the predictions of all others are deterministic."""


_thread_state = _ThreadState()


def is_sampling(net: nn.Module) -> bool:
    """Return whether the current thread is within :func:`stochastic_predictions` for a network."""
    return net in _thread_state.sampling_nets


@contextmanager
def stochastic_predictions(*nets: nn.Module) -> Iterator[None]:
    """
    Make the predictions of networks stochastic while the block runs, for the current thread.

    The noise of noisy layers is drawn once, at the start; quantile fractions are drawn at each evaluation. Outside of the
    block, and in all other threads, predictions are deterministic.

    :param nets: networks; those without ``is_stochastic`` stay deterministic
    """
    stochastic_nets = [net for net in dict.fromkeys(nets) if getattr(net, "is_stochastic", False)]
    layers = [layer for net in stochastic_nets for layer in cast(Predictor, net).noisy_layers]
    before = _thread_state.sampling_nets
    try:
        for layer in layers:
            layer.resample_noise()
        _thread_state.sampling_nets = before.union(stochastic_nets)
        yield
    finally:
        _thread_state.sampling_nets = before
        for layer in layers:
            layer.remove_noise()
