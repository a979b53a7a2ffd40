"""Expected returns. Shapes: B batch, A actions."""

from collections.abc import Callable

import torch as th
from torch.nn import functional as F

from sb3_dqn_ext._validation import choose
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel

__all__ = ["LOSSES", "ExpectedReturns"]


def huber(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """Quadratic within 1 of the target, linear beyond (Mnih et al., 2015); shapes are kept."""
    return F.smooth_l1_loss(prediction, target, reduction="none")


def mse(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """The squared error; shapes are kept."""
    return F.mse_loss(prediction, target, reduction="none")


LOSSES: dict[str, Callable[[th.Tensor, th.Tensor], th.Tensor]] = {"huber": huber, "mse": mse}


class ExpectedReturns(ReturnModel):
    """
    One number per action, the expected return: Q-learning as in DQN (https://www.nature.com/articles/nature14236).

    :param loss: ``"huber"`` or ``"mse"``
    """

    n_params = 1

    def __init__(self, loss: str = "huber") -> None:
        super().__init__()
        self._loss = choose("loss", loss, LOSSES, {"smooth_l1": "huber", "l1": "huber", "l2": "mse", "squared": "mse"})

    def mean(self, params: Prediction) -> th.Tensor:
        return params.values.squeeze(-1)

    def target(self, params: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        next_values = (pi * self.mean(params)).sum(dim=1)  # (B,)
        return Prediction((rewards + discounts * next_values).unsqueeze(-1))

    def loss(self, params: Prediction, target: Prediction) -> th.Tensor:
        return self._loss(params.values, target.values).squeeze(-1)

    def td_errors(self, params: Prediction, target: Prediction, losses: th.Tensor) -> th.Tensor:
        return (target.values - params.values.detach()).squeeze(-1)
