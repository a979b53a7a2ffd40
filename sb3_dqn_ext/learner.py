"""What is descended: the losses of a batch, as the five choices say."""

from contextlib import nullcontext

import torch as th
from stable_baselines3.dqn.policies import QNetwork
from torch import nn

from sb3_dqn_ext.batch import Batch
from sb3_dqn_ext.networks import params_of, sampled, values_of
from sb3_dqn_ext.returns import Fit, ReturnModel
from sb3_dqn_ext.target_policy import TargetPolicy

__all__ = ["Learner"]


class Learner(nn.Module):
    """
    The whole algorithm, as a module: with other parameters in the place of its own it is a pure function.

    :param online: the network that learns
    :param old: the target network
    :param returns: what the networks' numbers mean
    :param target_policy: which policy is followed at the next state
    :param fit: which of the predictions are fitted
    """

    def __init__(self, online: QNetwork, old: QNetwork, returns: ReturnModel, target_policy: TargetPolicy, fit: Fit) -> None:
        super().__init__()
        self.online = online
        self.old = old
        self.returns = returns
        self.target_policy = target_policy
        self.fit = fit
        self._by_chance = [net for net in dict.fromkeys([online, old]) if getattr(net, "knows_chance", False)]

    def forward(self, batch: Batch) -> th.Tensor:
        """B transitions -> (B,) losses."""
        online, old, returns = self.online, self.old, self.returns
        with sampled(*self._by_chance) if self._by_chance else nullcontext():
            with th.no_grad():
                params_t = params_of(old, batch.next_observations, "target")
                q_t = values_of(old, batch.next_observations, params_t, returns)
                pi_t, rewards = self.target_policy(batch, online, old, q_t)
                target = returns.target(params_t, pi_t, rewards, batch.discounts)
            params_tm1 = params_of(online, batch.observations, "online")
            return self.fit(returns, params_tm1, batch.actions, target, lambda: params_of(old, batch.observations))
