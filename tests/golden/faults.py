"""
Faults that a golden curve has to detect, as changes of hyperparameters.

The TD target of a wrong sign is ``y = r - gamma * max_a Q(s', a)``, by a return model or a loss that a user could write.
"""

from typing import Any

import torch as th
from torch.nn import functional as F

from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models import CategoricalReturns, ExpectedReturns, QuantileReturns, ReturnModel

Hyperparameters = dict[str, Any]


class WrongSign(ReturnModel):
    """A return model whose target has a wrong sign before the value of the next state."""

    def target(self, prediction: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        return super().target(prediction, pi, rewards, -discounts)


class WrongExpectedReturns(WrongSign, ExpectedReturns):
    """Expected returns with the wrong sign."""


class WrongCategoricalReturns(WrongSign, CategoricalReturns):
    """Categorical returns with the wrong sign."""


class WrongQuantileReturns(WrongSign, QuantileReturns):
    """Quantiles of returns with the wrong sign."""


WRONG_RETURNS: dict[str, type[WrongSign]] = {
    "expected": WrongExpectedReturns,
    "categorical": WrongCategoricalReturns,
    "quantile": WrongQuantileReturns,
}


def negated_target_loss(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """Compute the squared difference from the negated target: lambda returns contain the value of the next state already."""
    return F.mse_loss(prediction, -target, reduction="none")


def without_learning(hyperparameters: Hyperparameters) -> Hyperparameters:
    """Return hyperparameters with a learning rate of 0."""
    return {**hyperparameters, "learning_rate": 0.0}


def with_wrong_sign(hyperparameters: Hyperparameters) -> Hyperparameters:
    """Return hyperparameters with a TD target of the wrong sign."""
    network = hyperparameters["policy_kwargs"]
    if "td_lambda" in hyperparameters.get("replay_buffer_kwargs", {}):
        wrong = {"loss": f"{__name__}.{negated_target_loss.__name__}"}
    else:
        wrong = {"returns": f"{__name__}.{WRONG_RETURNS[network.get('returns', 'expected')].__name__}"}
    return {**hyperparameters, "policy_kwargs": {**network, **wrong}}
