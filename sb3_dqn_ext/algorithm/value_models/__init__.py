"""Return models: the meaning of a network's K outputs per action, their targets and their losses."""

from collections.abc import Callable, Mapping
from typing import Any

from sb3_dqn_ext._validation import check_keys, choose, parameters_of
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel
from sb3_dqn_ext.algorithm.value_models.categorical import CategoricalReturns
from sb3_dqn_ext.algorithm.value_models.expected import ExpectedReturns
from sb3_dqn_ext.algorithm.value_models.quantile import ImplicitQuantileReturns, QuantileReturns
from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "RETURN_MODELS",
    "CategoricalReturns",
    "ExpectedReturns",
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
}


def make_returns(returns: str, returns_kwargs: Mapping[str, Any], loss: str | None) -> ReturnModel:
    """
    Make a return model by its name.

    :param returns: a key of ``RETURN_MODELS``
    :param returns_kwargs: the arguments of that model
    :param loss: a key of ``LOSSES``, for expected returns only; None (default): the model's default
    :return: the return model
    :raises ArgumentError: if the name or an argument does not exist, or the model does not take a loss
    """
    model = choose("returns", returns, RETURN_MODELS, SYNONYMS)
    check_keys("returns_kwargs", returns_kwargs, set(parameters_of(model)) - {"loss"})
    if loss is None:
        return model(**returns_kwargs)
    if "loss" not in parameters_of(model):
        raise ArgumentError(f"loss={loss!r} has no effect with returns={returns!r}, which has its own loss; leave it out.")
    return model(loss=loss, **returns_kwargs)
