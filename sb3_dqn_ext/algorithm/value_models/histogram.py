"""The base class of return models with probabilities of fixed returns. Shapes: B batch size, A actions, K atoms."""

from typing import Any

import torch as th

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["HistogramReturns", "check_bounds"]


def check_bounds(v_min: Any, v_max: Any) -> None:
    """
    Check the lowest and the highest return.

    :param v_min: the lowest return
    :param v_max: the highest return
    :raises ArgumentError: if one of them is no finite number, or the lowest is not below the highest
    """
    check_number("v_min", v_min)
    check_number("v_max", v_max)
    if v_min >= v_max:
        raise ArgumentError(f"v_min={v_min!r} must be below v_max={v_max!r}.")


class HistogramReturns(ReturnModel):
    """
    A model with probabilities of K returns, the atoms. A prediction has K logits, a target K probabilities.

    :param atoms: (K,) the returns
    """

    atoms: th.Tensor

    def __init__(self, atoms: th.Tensor) -> None:
        super().__init__()
        self.n_params = len(atoms)
        self.register_buffer("atoms", atoms, persistent=False)

    def mean(self, prediction: Prediction) -> th.Tensor:
        return (prediction.values.softmax(dim=-1) * self.atoms).sum(dim=-1)

    def loss(self, prediction: Prediction, target: Prediction) -> th.Tensor:
        # cross-entropy: -sum_i p_i(target) log p_i(s, a)
        return -(target.values * prediction.values.log_softmax(dim=-1)).sum(dim=-1)
