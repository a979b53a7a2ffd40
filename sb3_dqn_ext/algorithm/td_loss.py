"""The losses of DQN, as the five choices define them. Shapes: B batch, A actions, K numbers per action."""

from contextlib import nullcontext

import torch as th
from stable_baselines3.dqn.policies import QNetwork
from torch import nn

from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.fitted_actions import Fit
from sb3_dqn_ext.algorithm.predictions import Prediction, predict, stochastic_predictions
from sb3_dqn_ext.algorithm.target_policies import TargetPolicy
from sb3_dqn_ext.algorithm.value_models import ReturnModel
from sb3_dqn_ext.algorithm.value_models.base import predict_q_values

__all__ = ["TDLoss", "TDTarget"]


class TDLoss(nn.Module):
    """
    Per-transition DQN losses of a batch, as a module: with other parameters in the place of its own it is a pure function.

    :param online_net: the network that is trained
    :param target_net: the target network, or the online network itself
    :param returns: the return model, which the networks' outputs parametrize
    :param target_policy: the policy that is followed at the next state
    :param fit: which of the predictions are fitted
    """

    def __init__(
        self, online_net: QNetwork, target_net: QNetwork, returns: ReturnModel, target_policy: TargetPolicy, fit: Fit
    ) -> None:
        super().__init__()
        self.online_net = online_net
        self.target_net = target_net
        self.returns = returns
        self.target_policy = target_policy
        self.fit = fit
        self._stochastic = [net for net in dict.fromkeys([online_net, target_net]) if getattr(net, "is_stochastic", False)]

    @property
    def targets_are_fixed(self) -> bool:
        """Whether no update of the online network changes the targets: those of several updates are then one computation."""
        return self.target_net is not self.online_net and not self._stochastic and not self.target_policy.needs_online_net

    def forward(self, batch: Batch, target: Prediction | None = None) -> tuple[th.Tensor, th.Tensor]:
        """B transitions, and their targets if these are known -> (B,) losses, (B,) TD errors."""
        online_net, target_net = self.online_net, self.target_net
        with stochastic_predictions(*self._stochastic) if self._stochastic else nullcontext():
            if target is None:
                target = self.target(batch)
            params_tm1 = predict(online_net, batch.observations, "online")
            return self.fit(self.returns, params_tm1, batch.actions, target, lambda: predict(target_net, batch.observations))

    def target(self, batch: Batch) -> Prediction:
        """B transitions -> (B, K) the parameters that their predictions are fitted to."""
        online_net, target_net, returns = self.online_net, self.target_net, self.returns
        with th.no_grad():
            params_t = predict(target_net, batch.next_observations, "target")
            q_t = predict_q_values(target_net, batch.next_observations, params_t, returns)
            pi_t, rewards = self.target_policy(batch, online_net, target_net, q_t)
            return returns.target(params_t, pi_t, rewards, batch.discounts)


class TDTarget(nn.Module):
    """
    The targets of a loss, as a module of its own.

    :param loss: the loss
    """

    def __init__(self, loss: TDLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, batch: Batch) -> Prediction:
        """B transitions -> (B, K) parameters."""
        return self.loss.target(batch)
