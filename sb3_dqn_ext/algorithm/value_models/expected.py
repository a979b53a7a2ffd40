"""Return model of expected values. Shapes: B batch size, A actions."""

from collections.abc import Callable
from typing import Any

import torch as th
from torch.nn import functional as F

from sb3_dqn_ext._validation import OpenChoice
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["LOSS", "LOSSES", "ExpectedReturns", "Loss"]

LossFunction = Callable[[th.Tensor, th.Tensor], th.Tensor]


def huber(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """Compute the elementwise Huber loss, quadratic for errors up to 1 and linear beyond (Mnih et al., 2015)."""
    return F.smooth_l1_loss(prediction, target, reduction="none")


def mse(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """Compute the elementwise squared error."""
    return F.mse_loss(prediction, target, reduction="none")


class Loss:
    """
    A loss of expected returns: a function of predictions and targets, or an object that is called as one.

    With ``compile``, it is traced once: it computes with tensors, whose values decide nothing in Python, and leaves the object
    as it is. A loss of torch is one with ``reduction="none"``, such as ``torch.nn.HuberLoss(reduction="none", delta=2.0)``.
    """

    def __call__(self, prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
        """
        Compute one loss for each number.

        :param prediction: the predicted expected returns, of any shape
        :param target: their targets, of the same shape
        :return: the losses, of the same shape
        """
        raise NotImplementedError


LOSSES: dict[str, LossFunction] = {"huber": huber, "mse": mse}

LOSS_SYNONYMS = {"smooth_l1": "huber", "l1": "huber", "l2": "mse", "squared": "mse"}
LOSS = OpenChoice("loss", Loss, ("__call__",), LOSSES, LOSS_SYNONYMS)


def make_loss(loss: object) -> LossFunction:
    """
    Build a loss.

    :param loss: a name of ``LOSSES``, a function, an object, a class that is built without arguments, or a dotted name
    :raises ArgumentError: if it is no loss, or does not return one loss for each number
    """
    function: LossFunction = LOSS.build(loss)
    if function in LOSSES.values():
        return function
    numbers = th.zeros(2, 1)
    try:
        with th.no_grad():
            losses = function(numbers, numbers)
        shape = tuple(losses.shape)
    except Exception as error:
        raise ArgumentError(
            f"loss={loss!r} cannot be called with predictions and targets of shape (2, 1): {error!r}"
        ) from error
    if shape != (2, 1):
        raise ArgumentError(
            f"loss={loss!r} returns a tensor of shape {shape} for predictions of shape (2, 1): it must return one loss for "
            "each number; a loss of torch does so with reduction='none'."
        )
    return function


class ExpectedReturns(ReturnModel):
    """
    DQN: one output per action, the expected return Q(s, a) (Mnih et al., 2015, https://www.nature.com/articles/nature14236).

    :param loss: ``"huber"``, ``"mse"``, or your own :class:`Loss`: a function, a class, an object or a dotted name
    :raises ArgumentError: if there is no such loss
    """

    n_params = 1

    def __init__(self, loss: Any = "huber") -> None:
        super().__init__()
        self.loss_function = make_loss(loss)

    def mean(self, prediction: Prediction) -> th.Tensor:
        return prediction.values.squeeze(-1)

    def target(self, prediction: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        next_values = (pi * self.mean(prediction)).sum(dim=1)  # (B,)
        # y = r + gamma * sum_a pi(a | s') Q(s', a)
        return Prediction((rewards + discounts * next_values).unsqueeze(-1))

    def loss(self, prediction: Prediction, target: Prediction) -> th.Tensor:
        return self.loss_function(prediction.values, target.values).squeeze(-1)

    def td_errors(self, prediction: Prediction, target: Prediction, losses: th.Tensor) -> th.Tensor:
        # delta = y - Q(s, a)
        return (target.values - prediction.values.detach()).squeeze(-1)
