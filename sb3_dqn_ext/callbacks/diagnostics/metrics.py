"""What diagnostics log, as functions of arrays. Shapes: B batch, A actions, T steps, U units, F features."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

__all__ = [
    "action_gap",
    "age_group_means",
    "calibration_metrics",
    "changed_share",
    "discounted_returns",
    "dormant_share",
    "effective_rank",
    "effective_sample_size",
    "error_metrics",
    "largest_weight",
    "parameter_distance",
    "unit_scores",
    "value_metrics",
]

Array = npt.NDArray[Any]
Metrics = dict[str, float]


# Q-values


def value_metrics(q: Array) -> Metrics:
    """
    :param q: (B, A) Q-values
    :return: the mean over states of the largest (``mean``), the smallest and the largest of all (``min``, ``max``), and the
        mean over states of the distance between the largest and the smallest of a state (``spread``)
    """
    best = q.max(axis=1)  # (B,)
    spread = (best - q.min(axis=1)).mean()
    return {"mean": float(best.mean()), "min": float(q.min()), "max": float(q.max()), "spread": float(spread)}


def action_gap(q: Array) -> float:
    """(B, A) Q-values -> the mean over states of the best minus the second best (https://arxiv.org/abs/1512.04860)."""
    second, best = np.partition(q, -2, axis=1)[:, -2:].T  # (B,), (B,)
    return float((best - second).mean())


def changed_share(before: Array, now: Array) -> float:
    """(B,) and (B,) actions -> the share of those that differ."""
    return float((before != now).mean())


def parameter_distance(some: Iterable[th.Tensor], others: Iterable[th.Tensor]) -> float:
    """Tensors and as many others of their shapes -> the Euclidean distance between all their numbers."""
    norms = [th.linalg.vector_norm(one.detach() - other.detach()) for one, other in zip(some, others, strict=True)]
    return float(th.linalg.vector_norm(th.stack(norms))) if norms else 0.0


# TD errors


def error_metrics(errors: Array) -> Metrics:
    """
    :param errors: (B,) target minus prediction
    :return: their mean, their standard deviation, and of their sizes the mean, the 95th percentile and the largest
    """
    sizes = np.abs(errors)
    return {
        "mean": float(errors.mean()),
        "std": float(errors.std()),
        "abs_mean": float(sizes.mean()),
        "abs_p95": float(np.percentile(sizes, 95)),
        "abs_max": float(sizes.max()),
    }


def age_group_means(sizes: Array, ages: Array, span: int, n_parts: int) -> list[float | None]:
    """
    :param sizes: (B,) numbers
    :param ages: (B,) of each, in [0, span)
    :param span: the first age that there is not
    :param n_parts: into how many equal parts the span is cut
    :return: (n_parts,) the mean of the numbers of each age, the youngest first; None where there is no number
    """
    part = ages * n_parts // span  # (B,)
    return [float(sizes[part == i].mean()) if (part == i).any() else None for i in range(n_parts)]


def effective_sample_size(weights: Array) -> float:
    """
    (N,) how often each is drawn, up to a factor -> (sum w)^2 / sum w^2 (Kish 1965): from how many, drawn equally often, the
    draws would be as diverse.
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())


def largest_weight(priorities: Array, copies: Array, beta: float) -> float:
    """
    :param priorities: (N,) of all that can be drawn
    :param copies: (N,) how many times each counts
    :param beta: how much the weights make up for
    :return: the largest importance weight before all are divided by it, ``(b_i / sum b / P(i))^beta`` with ``P(i) = b_i p_i /
        sum b p`` (https://arxiv.org/abs/1511.05952, section 3.4; with all b = 1 that is ``(N P(i))^-beta``)
    """
    return float(((copies * priorities).sum() / copies.sum() / priorities.min()) ** beta)


# networks


def unit_scores(activations: th.Tensor) -> Array:
    """
    :param activations: (B, U, ...) what a layer says
    :return: (U,) the mean size of what each unit says, over the mean of that over the layer; of a layer that is silent, zeros
    """
    sizes = activations.detach().abs().double()
    means = sizes.mean(dim=[i for i in range(sizes.dim()) if i != 1])  # (U,)
    scores: Array = (means / means.mean().clamp(min=1e-300)).cpu().numpy()
    return scores


def dormant_share(scores: Sequence[Array], tau: float) -> float:
    """
    :param scores: (U,) of each layer, see :func:`unit_scores`
    :param tau: up to which score a unit is dormant
    :return: the share of dormant units (https://arxiv.org/abs/2302.12902, definition 3.1 and section 3.2)
    """
    return float(np.concatenate([one <= tau for one in scores]).mean())


def effective_rank(features: th.Tensor, delta: float) -> int:
    """
    :param features: (B, F) what the last layer is told; finite numbers
    :param delta: which share may be left out
    :return: how many of the largest singular values sum up to ``1 - delta`` of the sum of all
        (https://arxiv.org/abs/2010.14498, section 3)
    """
    values = th.linalg.svdvals(features.detach().double()).cpu().numpy()  # descending
    total = values.sum()
    return int(np.searchsorted(values.cumsum(), (1 - delta) * total * (1 - 1e-12)) + 1) if total > 0 else 0


# predicted and realised values


def discounted_returns(rewards: Array, gamma: float, last_value: float = 0.0) -> Array:
    """
    :param rewards: (T,) of one episode
    :param gamma: the discount factor
    :param last_value: of the state after the last step; 0 after a termination
    :return: (T,) what each step and those after it were worth
    """
    returns = np.zeros(len(rewards))
    value = last_value
    for t in reversed(range(len(rewards))):
        value = rewards[t] + gamma * value
        returns[t] = value
    return returns


def calibration_metrics(predicted: Array, realised: Array, n_parts: int = 5) -> Metrics:
    """
    :param predicted: (N,) Q-values
    :param realised: (N,) discounted returns
    :param n_parts: into how many parts of the same size the returns are cut, the lowest first
    :return: ``bias``, the mean of predicted minus realised; ``error_1_of_5`` ..., the same for each part; ``slope``, by how
        much the return rises where the prediction is higher by 1 (least squares); ``correlation``, Pearson's. The last two are
        missing where they are not defined: predictions, or returns, that are all the same
    """
    errors = predicted - realised
    numbers = {"predicted": float(predicted.mean()), "realised": float(realised.mean()), "bias": float(errors.mean())}
    spread_of_both = float(predicted.std()), float(realised.std())
    # below the rounding of 32-bit networks there is no spread to speak of
    noise = 1e-6 * max(np.abs(predicted).max(), np.abs(realised).max())
    if spread_of_both[0] > noise:
        covariance = float(np.mean((predicted - predicted.mean()) * (realised - realised.mean())))
        numbers["slope"] = covariance / spread_of_both[0] ** 2
        if spread_of_both[1] > noise:
            numbers["correlation"] = covariance / (spread_of_both[0] * spread_of_both[1])
    if len(errors) >= n_parts:
        parts = np.array_split(errors[np.argsort(realised, kind="stable")], n_parts)
        numbers |= {f"error_{i}_of_{n_parts}": float(part.mean()) for i, part in enumerate(parts, 1)}
    return numbers
