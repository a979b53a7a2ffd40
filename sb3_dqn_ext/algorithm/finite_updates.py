"""Gradient steps that keep all numbers finite."""

import math

__all__ = ["MAX_FINITE", "max_finite_norm", "non_finite_reason"]

MAX_FINITE = 1e15
"""the largest learning rate and gradient norm; their product and their squares stay far below the largest float32"""


def max_finite_norm(max_grad_norm: float | None) -> float:
    """
    :param max_grad_norm: to which norm gradients are clipped, if they are
    :return: the largest norm from which they can be clipped, so that a step is finite
    """
    return math.inf if max_grad_norm is not None and max_grad_norm <= MAX_FINITE else MAX_FINITE


def non_finite_reason(loss: float, norm: float, largest: float) -> str | None:
    """
    :param loss: of the batch
    :param norm: of its gradient
    :param largest: see :func:`max_finite_norm`
    :return: what would leave the finite numbers, None if the update can be made
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the gradient has a norm of {norm}"
    return None if norm <= largest else f"the gradient has a norm of {norm:g}, and is not clipped to {MAX_FINITE:g} or less"
