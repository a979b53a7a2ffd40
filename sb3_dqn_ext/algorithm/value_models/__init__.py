"""Return models: the meaning of a network's K outputs per action, their targets and their losses."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from sb3_dqn_ext._validation import OpenChoice, parameters_of
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel
from sb3_dqn_ext.algorithm.value_models.categorical import CategoricalReturns
from sb3_dqn_ext.algorithm.value_models.expected import ExpectedReturns
from sb3_dqn_ext.algorithm.value_models.hl_gauss import HLGaussReturns
from sb3_dqn_ext.algorithm.value_models.quantile import ImplicitQuantileReturns, QuantileReturns
from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "RETURNS",
    "RETURN_MODELS",
    "CategoricalReturns",
    "ExpectedReturns",
    "HLGaussReturns",
    "ImplicitQuantileReturns",
    "QuantileReturns",
    "ReturnModel",
    "make_returns",
]

RETURN_MODELS: dict[str, Callable[..., ReturnModel]] = {
    "expected": ExpectedReturns,
    "categorical": CategoricalReturns,
    "quantile": QuantileReturns,
    "implicit_quantile": ImplicitQuantileReturns,
    "hl_gauss": HLGaussReturns,
}
SYNONYMS = {
    "mean": "expected",
    "dqn": "expected",
    "q": "expected",
    "c51": "categorical",
    "distributional": "categorical",
    "qr": "quantile",
    "qrdqn": "quantile",
    "qr_dqn": "quantile",
    "quantiles": "quantile",
    "iqn": "implicit_quantile",
    "implicit": "implicit_quantile",
    "hlgauss": "hl_gauss",
    "gauss": "hl_gauss",
    "histogram": "hl_gauss",
    "histogram_loss": "hl_gauss",
    "classification": "hl_gauss",
    "two_hot": "hl_gauss",
    "twohot": "hl_gauss",
}


RETURNS = OpenChoice("returns", ReturnModel, ("n_params", "mean", "target", "loss"), RETURN_MODELS, SYNONYMS)


def make_returns(returns: object, returns_kwargs: Mapping[str, Any], loss: object) -> ReturnModel:
    """
    Make a return model.

    :param returns: a key of ``RETURN_MODELS``, a subclass of :class:`ReturnModel`, an object, of which a copy is made, or a
        dotted name
    :param returns_kwargs: the arguments of that model
    :param loss: the loss of a model with an argument of this name; None (default): the model's default
    :return: the return model
    :raises ArgumentError: if the name or an argument does not exist, the model has parameters, or it does not take a loss
    """
    found = RETURNS.find(returns)
    takes_loss = isinstance(found, type) and "loss" in parameters_of(found)
    if loss is not None and not takes_loss:
        raise ArgumentError(f"loss={loss!r} has no effect with returns={returns!r}, which has its own loss; leave it out.")
    if "loss" in returns_kwargs and takes_loss:
        raise ArgumentError(f"returns_kwargs['loss']={returns_kwargs['loss']!r} is written loss={returns_kwargs['loss']!r}.")
    made = RETURNS.build(returns, {**returns_kwargs, **({} if loss is None else {"loss": loss})})
    if any(True for _ in made.parameters()):
        raise ArgumentError(f"returns={returns!r} has parameters, which no network would train: make them buffers.")
    # a model converts the buffers of its networks, and so those of its return model, to its precision and device
    return made if isinstance(found, type) else copy.deepcopy(made)
