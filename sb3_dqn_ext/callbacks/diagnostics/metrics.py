"""Metrics of diagnostics, as functions of arrays. Shapes: B batch, A actions, T steps, U units, F features."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext.algorithm.action_masks import is_legal

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
    Summarise the Q-values of legal actions in some states.

    :param q: (B, A) Q-values
    :return: ``mean``, the mean over states of ``max_a Q(s, a)``; ``min`` and ``max`` of all; ``spread``, the mean over
        states of ``max_a Q(s, a) - min_a Q(s, a)``
    """
    best, worst = q.max(axis=1), np.where(is_legal(q), q, np.inf).min(axis=1)  # (B,), (B,)
    spread = (best - worst).mean()
    return {"mean": float(best.mean()), "min": float(worst.min()), "max": float(best.max()), "spread": float(spread)}


def action_gap(q: Array) -> float:
    """
    Return the action gap (https://arxiv.org/abs/1512.04860).

    :param q: (B, A) Q-values, with at least two legal actions in each state
    :return: the mean over states of the largest minus the second largest Q-value
    """
    second, best = np.partition(q, -2, axis=1)[:, -2:].T  # (B,), (B,)
    return float((best - second).mean())


def changed_share(before: Array, now: Array) -> float:
    """Return the share of states whose action differs between (B,) actions ``before`` and (B,) actions ``now``."""
    return float((before != now).mean())


def parameter_distance(some: Iterable[th.Tensor], others: Iterable[th.Tensor]) -> float:
    """
    Return the Euclidean distance between two sets of parameters.

    :param some: tensors
    :param others: as many tensors of the same shapes
    :return: the norm of all differences
    """
    norms = [th.linalg.vector_norm(one.detach() - other.detach()) for one, other in zip(some, others, strict=True)]
    return float(th.linalg.vector_norm(th.stack(norms))) if norms else 0.0


# TD errors


def error_metrics(errors: Array) -> Metrics:
    """
    Summarise TD errors.

    :param errors: (B,) target minus prediction
    :return: ``mean`` and ``std`` of the errors; ``abs_mean``, ``abs_p95`` and ``abs_max``, the mean, 95th percentile and
        maximum of their absolute values
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
    Average numbers within groups of ages.

    :param sizes: (B,) the numbers
    :param ages: (B,) the age of each number, in [0, span)
    :param span: the exclusive upper bound of ages
    :param n_parts: the number of groups, each for an equal part of the span
    :return: (n_parts,) the mean of each group, the youngest first; None for an empty group
    """
    part = ages * n_parts // span  # (B,)
    return [float(sizes[part == i].mean()) if (part == i).any() else None for i in range(n_parts)]


def effective_sample_size(weights: Array) -> float:
    """
    Return the effective sample size ``(sum w)^2 / sum w^2`` (Kish 1965).

    :param weights: (N,) the probability of each item to be drawn, up to a common factor
    :return: the number of items from which uniform draws would be as diverse
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())


def largest_weight(priorities: Array, copies: Array, beta: float) -> float:
    """
    Return the largest importance weight, by which all weights are divided.

    It is the maximum of ``(b_i / sum b / P(i))^beta`` with ``P(i) = b_i p_i / sum b p``
    (https://arxiv.org/abs/1511.05952, section 3.4; with all b = 1 that is ``(N P(i))^-beta``).

    :param priorities: (N,) the priorities p of all transitions that can be drawn
    :param copies: (N,) the numbers b of copies of each transition
    :param beta: the exponent of the importance weights
    :return: the largest weight
    """
    return float(((copies * priorities).sum() / copies.sum() / priorities.min()) ** beta)


# networks


def unit_scores(activations: th.Tensor) -> Array:
    """
    Score the activity of the units of a layer (https://arxiv.org/abs/2302.12902, definition 3.1).

    :param activations: (B, U, ...) the outputs of the layer
    :return: (U,) the mean absolute output of each unit, over the mean of that over the layer; zeros if all outputs are 0
    """
    sizes = activations.detach().abs().double()
    means = sizes.mean(dim=[i for i in range(sizes.dim()) if i != 1])  # (U,)
    scores: Array = (means / means.mean().clamp(min=1e-300)).cpu().numpy()
    return scores


def dormant_share(scores: Sequence[Array], tau: float) -> float:
    """
    Return the share of dormant units (https://arxiv.org/abs/2302.12902, definition 3.1 and section 3.2).

    :param scores: (U,) scores of the units of each layer, see :func:`unit_scores`
    :param tau: the largest score of a dormant unit
    :return: the share among the units of all layers
    """
    return float(np.concatenate([one <= tau for one in scores]).mean())


def effective_rank(features: th.Tensor, delta: float) -> int:
    """
    Return the effective rank of features (https://arxiv.org/abs/2010.14498, section 3).

    :param features: (B, F) the inputs of the last layer; finite numbers
    :param delta: the share of the sum of singular values that is left out
    :return: the number of largest singular values that sum up to at least ``1 - delta`` of the sum of all
    """
    values = th.linalg.svdvals(features.detach().double()).cpu().numpy()  # descending
    total = values.sum()
    return int(np.searchsorted(values.cumsum(), (1 - delta) * total * (1 - 1e-12)) + 1) if total > 0 else 0


# predicted and realised values


def discounted_returns(rewards: Array, gamma: float, last_value: float = 0.0) -> Array:
    """
    Compute the discounted returns ``G_t = r_t + gamma G_(t+1)`` of an episode.

    :param rewards: (T,) the rewards
    :param gamma: the discount factor
    :param last_value: the value of the state after the last step; 0 after a termination
    :return: (T,) the return from each step on
    """
    returns = np.zeros(len(rewards))
    value = last_value
    for t in reversed(range(len(rewards))):
        value = rewards[t] + gamma * value
        returns[t] = value
    return returns


def calibration_metrics(predicted: Array, realised: Array, n_parts: int = 5) -> Metrics:
    """
    Compare predicted values with realised returns.

    :param predicted: (N,) Q-values
    :param realised: (N,) discounted returns
    :param n_parts: the number of groups of equal size into which the returns are sorted, the lowest first
    :return: ``predicted`` and ``realised``, the means; ``bias``, the mean of predicted minus realised; ``error_1_of_5`` ...,
        the bias of each group; ``slope``, the increase of the return where the prediction is higher by 1 (least squares);
        ``correlation``, Pearson's correlation. The last two are missing where all predictions, or all returns, are equal
    """
    errors = predicted - realised
    metrics = {"predicted": float(predicted.mean()), "realised": float(realised.mean()), "bias": float(errors.mean())}
    spread_of_both = float(predicted.std()), float(realised.std())
    # a smaller spread is the rounding error of 32-bit networks
    noise = 1e-6 * max(np.abs(predicted).max(), np.abs(realised).max())
    if spread_of_both[0] > noise:
        covariance = float(np.mean((predicted - predicted.mean()) * (realised - realised.mean())))
        metrics["slope"] = covariance / spread_of_both[0] ** 2
        if spread_of_both[1] > noise:
            metrics["correlation"] = covariance / (spread_of_both[0] * spread_of_both[1])
    if len(errors) >= n_parts:
        parts = np.array_split(errors[np.argsort(realised, kind="stable")], n_parts)
        metrics |= {f"error_{i}_of_{n_parts}": float(part.mean()) for i, part in enumerate(parts, 1)}
    return metrics
