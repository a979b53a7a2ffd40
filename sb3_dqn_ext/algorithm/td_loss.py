"""What is descended: the losses of a batch, as the five choices say."""

from contextlib import nullcontext

import torch as th
from stable_baselines3.dqn.policies import QNetwork
from torch import nn

from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.fitted_actions import Fit
from sb3_dqn_ext.algorithm.predictions import Params, params_of, sampled
from sb3_dqn_ext.algorithm.target_policies import TargetPolicy
from sb3_dqn_ext.algorithm.value_models import ReturnModel
from sb3_dqn_ext.algorithm.value_models.base import values_of

__all__ = ["Learner", "Targets"]


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

    @property
    def targets_stay(self) -> bool:
        """Whether no update of the online network changes the targets: those of several updates are then one computation."""
        return self.old is not self.online and not self._by_chance and not self.target_policy.looks_online

    def forward(self, batch: Batch, target: Params | None = None) -> th.Tensor:
        """B transitions, and their targets if these are there already -> (B,) losses."""
        online, old = self.online, self.old
        with sampled(*self._by_chance) if self._by_chance else nullcontext():
            if target is None:
                target = self.target(batch)
            params_tm1 = params_of(online, batch.observations, "online")
            return self.fit(self.returns, params_tm1, batch.actions, target, lambda: params_of(old, batch.observations))

    def target(self, batch: Batch) -> Params:
        """B transitions -> (B, K) what is learned of each."""
        online, old, returns = self.online, self.old, self.returns
        with th.no_grad():
            params_t = params_of(old, batch.next_observations, "target")
            q_t = values_of(old, batch.next_observations, params_t, returns)
            pi_t, rewards = self.target_policy(batch, online, old, q_t)
            return returns.target(params_t, pi_t, rewards, batch.discounts)


class Targets(nn.Module):
    """
    What a learner learns of each transition, as a module of its own.

    :param learner: the learner
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, batch: Batch) -> Params:
        """B transitions -> (B, K) parameters."""
        return self.learner.target(batch)
