"""Return model of expected values. Shapes: B batch size, A actions."""

from collections.abc import Callable

import torch as th
from torch.nn import functional as F

from sb3_dqn_ext._validation import choose
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel

__all__ = ["LOSSES", "ExpectedReturns"]


def huber(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """Compute the elementwise Huber loss, quadratic for errors up to 1 and linear beyond (Mnih et al., 2015)."""
    return F.smooth_l1_loss(prediction, target, reduction="none")


def mse(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """Compute the elementwise squared error."""
    return F.mse_loss(prediction, target, reduction="none")


LOSSES: dict[str, Callable[[th.Tensor, th.Tensor], th.Tensor]] = {"huber": huber, "mse": mse}


class ExpectedReturns(ReturnModel):
    """
    DQN: one output per action, the expected return Q(s, a) (Mnih et al., 2015, https://www.nature.com/articles/nature14236).

    :param loss: ``"huber"`` or ``"mse"``
    :raises ArgumentError: if there is no such loss
    """

    n_params = 1

    def __init__(self, loss: str = "huber") -> None:
        super().__init__()
        self._loss = choose("loss", loss, LOSSES, {"smooth_l1": "huber", "l1": "huber", "l2": "mse", "squared": "mse"})

    def mean(self, prediction: Prediction) -> th.Tensor:
        return prediction.values.squeeze(-1)

    def target(self, prediction: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        next_values = (pi * self.mean(prediction)).sum(dim=1)  # (B,)
        # y = r + gamma * sum_a pi(a | s') Q(s', a)
        return Prediction((rewards + discounts * next_values).unsqueeze(-1))

    def loss(self, prediction: Prediction, target: Prediction) -> th.Tensor:
        return self._loss(prediction.values, target.values).squeeze(-1)

    def td_errors(self, prediction: Prediction, target: Prediction, losses: th.Tensor) -> th.Tensor:
        # delta = y - Q(s, a)
        return (target.values - prediction.values.detach()).squeeze(-1)
