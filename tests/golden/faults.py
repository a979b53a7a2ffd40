"""
Faults that a golden curve has to detect, as changes of hyperparameters.

A TD target with a wrong sign is a target policy, a return model or a loss that a user could write.
"""

from typing import Any

import torch as th
from torch.nn import functional as F

from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.target_policies import QFunction, TargetPolicy, one_hot_argmax
from sb3_dqn_ext.algorithm.value_models import CategoricalReturns

Hyperparameters = dict[str, Any]


class NegatedRewards(TargetPolicy):
    """DQN's target with a wrong sign: ``y = -r + gamma * max_a Q_target(s', a)``."""

    needs_online_net = False

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return one_hot_argmax(q_t), -batch.rewards


class NegatedNextValues(CategoricalReturns):
    """Categorical returns with a wrong sign: ``y = r - gamma * z``. Bounds of 0 and more have no place for negated rewards."""

    def target(self, prediction: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        return super().target(prediction, pi, rewards, -discounts)


def negated_target_loss(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """Compute the squared difference from the negated target, for lambda returns, which no target policy computes."""
    return F.mse_loss(prediction, -target, reduction="none")


def without_learning(hyperparameters: Hyperparameters) -> Hyperparameters:
    """Return hyperparameters with a learning rate of 0."""
    return {**hyperparameters, "learning_rate": 0.0}


def with_wrong_sign(hyperparameters: Hyperparameters) -> Hyperparameters:
    """Return hyperparameters with a TD target of the wrong sign."""
    network = hyperparameters.get("policy_kwargs", {})
    if "td_lambda" in hyperparameters.get("replay_buffer_kwargs", {}):
        loss = f"{__name__}.{negated_target_loss.__name__}"
        return {**hyperparameters, "policy_kwargs": {**network, "loss": loss}}
    if network.get("returns") == "categorical":
        returns = f"{__name__}.{NegatedNextValues.__name__}"
        return {**hyperparameters, "policy_kwargs": {**network, "returns": returns}}
    target_policy = f"{__name__}.{NegatedRewards.__name__}"
    return {**hyperparameters, "target_policy": target_policy, "target_policy_kwargs": {}}
