"""The actions whose predictions are fitted. Shapes: B batch, A actions, K numbers per action."""

from collections.abc import Callable

import torch as th

from sb3_dqn_ext.algorithm.predictions import Prediction, select_actions
from sb3_dqn_ext.algorithm.value_models import ReturnModel

__all__ = ["FITS", "Fit", "fit_all", "fit_taken"]

Fit = Callable[[ReturnModel, Prediction, th.Tensor, Prediction, Callable[[], Prediction]], tuple[th.Tensor, th.Tensor]]
"""
(return model, (B, A, K) predicted parameters, (B,) actions, (B, K) target of the actions that were taken, a function that
gives the (B, A, K) parameters that the target network predicts) -> (B,) losses, (B,) TD errors of the actions that were taken
"""


def fit_taken(
    returns: ReturnModel,
    params: Prediction,
    actions: th.Tensor,
    target: Prediction,
    predicted_by_target: Callable[[], Prediction],
) -> tuple[th.Tensor, th.Tensor]:
    """(B,) losses and TD errors of the actions that were taken."""
    prediction = select_actions(params, actions)
    losses = returns.loss(prediction, target)
    return losses, returns.td_errors(prediction, target, losses)


def fit_all(
    returns: ReturnModel,
    params: Prediction,
    actions: th.Tensor,
    target: Prediction,
    predicted_by_target: Callable[[], Prediction],
) -> tuple[th.Tensor, th.Tensor]:
    """
    (B,) losses averaged over all actions, and TD errors of those that were taken. The predictions of all others are fitted to
    those of the target network.
    """
    with th.no_grad():
        kept = predicted_by_target().values  # (B, A, K)
        index = actions.view(-1, 1, 1).expand(-1, 1, kept.shape[-1])
        targets = kept.scatter(1, index, target.values.unsqueeze(1))  # (B, A, K)
    n_actions = targets.shape[1]
    losses = returns.loss(Prediction(params.values.flatten(0, 1)), Prediction(targets.flatten(0, 1)))  # (B * A,)
    mean_losses = losses.view(-1, n_actions).mean(dim=1)
    return mean_losses, returns.td_errors(select_actions(params, actions), target, mean_losses)


FITS: dict[str, Fit] = {"taken": fit_taken, "all": fit_all}
