"""Conditions under which a gradient step keeps all parameters finite."""

import math

__all__ = ["MAX_FINITE", "max_finite_norm", "non_finite_reason"]

MAX_FINITE = 1e15
"""The largest learning rate and gradient norm. Their product and their squares are far below the largest float32."""


def max_finite_norm(max_grad_norm: float | None) -> float:
    """
    Return the largest gradient norm for which a gradient step is finite.

    :param max_grad_norm: the norm to which gradients are clipped; None: they are not clipped
    :return: the largest norm before clipping
    """
    return math.inf if max_grad_norm is not None and max_grad_norm <= MAX_FINITE else MAX_FINITE


def non_finite_reason(loss: float, norm: float, largest: float) -> str | None:
    """
    Return the reason why a gradient step would not be finite.

    :param loss: the loss of the batch
    :param norm: the norm of its gradient
    :param largest: the largest norm, see :func:`max_finite_norm`
    :return: a description of the number that is not finite; None if the step can be made
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the gradient has a norm of {norm}"
    return None if norm <= largest else f"the gradient has a norm of {norm:g}, and is not clipped to {MAX_FINITE:g} or less"
