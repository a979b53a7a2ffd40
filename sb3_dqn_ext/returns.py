"""
Return models: what the K numbers that a network says per action mean, how they are backed up, and how they are regressed.

Shapes: B batch, A actions, K numbers per action.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_dqn_ext.choices import build, choose

__all__ = ["LOSSES", "RETURN_MODELS", "ExpectedReturns", "Params", "ReturnModel", "make_returns", "taken"]


class Params(NamedTuple):
    """What a head says about the return of each action."""

    values: th.Tensor
    """(B, A, K), or (B, K) once the action is chosen"""
    fractions: th.Tensor | None = None
    """(B, K) the quantile fractions that were sampled with ``values``, for the models that sample them"""


def taken(params: Params, actions: th.Tensor) -> Params:
    """
    (B, A, K) parameters and (B,) actions -> (B, K) parameters of the actions that were taken.
    """
    index = actions.view(-1, 1, 1).expand(-1, 1, params.values.shape[-1])
    return params._replace(values=params.values.gather(1, index).squeeze(1))


class ReturnModel(nn.Module):
    """A return model; its constants are buffers that are not saved, so that target updates leave them alone."""

    n_params: int
    """K"""

    def mean(self, params: Params) -> th.Tensor:
        """(B, A, K) parameters -> (B, A) expected returns, the Q-values."""
        raise NotImplementedError

    def target(self, params: Params, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Params:
        """
        One backup: the return's parameters at the next state, seen from this one.

        :param params: (B, A, K) parameters at the next state, from the target network
        :param pi: (B, A) probabilities of the actions at the next state
        :param rewards: (B,)
        :param discounts: (B,)
        :return: (B, K) parameters
        """
        raise NotImplementedError

    def loss(self, params: Params, target: Params) -> th.Tensor:
        """(B, K) predicted and (B, K) target parameters -> (B,) losses."""
        raise NotImplementedError


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

    def mean(self, params: Params) -> th.Tensor:
        return params.values.squeeze(-1)

    def target(self, params: Params, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Params:
        next_values = (pi * self.mean(params)).sum(dim=1)  # (B,)
        return Params((rewards + discounts * next_values).unsqueeze(-1))

    def loss(self, params: Params, target: Params) -> th.Tensor:
        return self._loss(params.values, target.values).squeeze(-1)


RETURN_MODELS: dict[str, type[ReturnModel]] = {"expected": ExpectedReturns}


def make_returns(returns: str, returns_kwargs: Mapping[str, Any], loss: str) -> ReturnModel:
    """
    :param returns: a name of ``RETURN_MODELS``
    :param returns_kwargs: the arguments of that model
    :param loss: a name of ``LOSSES``, for the models that regress values
    """
    synonyms = {"mean": "expected", "dqn": "expected", "q": "expected"}
    return build("returns", returns, RETURN_MODELS, {"loss": loss, **returns_kwargs}, synonyms)
