"""Losses over the actions that were taken, or over all actions. Shapes: B batch size, A actions, K distribution parameters."""

from collections.abc import Callable

import torch as th

from sb3_dqn_ext.algorithm.predictions import Prediction, select_actions
from sb3_dqn_ext.algorithm.value_models import ReturnModel

__all__ = ["FITS", "Fit", "fit_all", "fit_taken"]

Fit = Callable[
    [ReturnModel, Prediction, th.Tensor, Prediction, Callable[[], Prediction], th.Tensor | None], tuple[th.Tensor, th.Tensor]
]
"""
A function that computes the (B,) losses and the (B,) TD errors of the actions that were taken, from: the return model, the
(B, A, K) prediction, the (B,) actions, their (B, K) target, a function that returns the target network's (B, A, K) prediction
at the same observations, and the (B, A) mask of legal actions, None if all are.
"""


def fit_taken(
    returns: ReturnModel,
    prediction: Prediction,
    actions: th.Tensor,
    target: Prediction,
    predict_target_net: Callable[[], Prediction],
    legal: th.Tensor | None = None,
) -> tuple[th.Tensor, th.Tensor]:
    """
    Compute the (B,) losses and the (B,) TD errors of the actions that were taken, as DQN does. The target network's prediction
    is not computed. See :data:`Fit`.
    """
    taken = select_actions(prediction, actions)
    losses = returns.loss(taken, target)
    return losses, returns.td_errors(taken, target, losses)


def fit_all(
    returns: ReturnModel,
    prediction: Prediction,
    actions: th.Tensor,
    target: Prediction,
    predict_target_net: Callable[[], Prediction],
    legal: th.Tensor | None = None,
) -> tuple[th.Tensor, th.Tensor]:
    """
    Compute the (B,) losses, each the mean over all legal actions, and the (B,) TD errors of the actions that were taken. See
    :data:`Fit`.

    The target of the taken action a is y, and that of each other action is the target network's prediction for it::

        mean over actions b of loss(Q(s, b), y if b = a else Q_target(s, b))
    """
    with th.no_grad():
        predictions_t = predict_target_net().values  # (B, A, K)
        index = actions.view(-1, 1, 1).expand(-1, 1, predictions_t.shape[-1])
        targets = predictions_t.scatter(1, index, target.values.unsqueeze(1))  # (B, A, K)
    n_actions = targets.shape[1]
    losses = returns.loss(Prediction(prediction.values.flatten(0, 1)), Prediction(targets.flatten(0, 1)))  # (B * A,)
    losses = losses.view(-1, n_actions)  # (B, A)
    mean_losses = losses.mean(dim=1) if legal is None else (losses * legal).sum(dim=1) / legal.sum(dim=1)
    return mean_losses, returns.td_errors(select_actions(prediction, actions), target, mean_losses)


FITS: dict[str, Fit] = {"taken": fit_taken, "all": fit_all}
