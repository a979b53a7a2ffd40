"""The contract of a return model. Shapes: B batch, A actions, K numbers per action, N fractions of a prediction."""

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_dqn_ext.algorithm.predictions import Phase, Prediction

__all__ = ["ReturnModel", "predict_q_values"]


class ReturnModel(nn.Module):
    """A return model; its constants are buffers that are not saved, so that target updates leave them alone."""

    n_params: int
    """how many numbers the network predicts for each action in one evaluation; K, where no fractions are sampled"""

    def mean(self, params: Prediction) -> th.Tensor:
        """(B, A, K) parameters -> (B, A) expected returns, the Q-values."""
        raise NotImplementedError

    def target(self, params: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        """
        One backup: the parameters of the return from this state, by those at the next one.

        :param params: (B, A, K) parameters at the next state, from the target network
        :param pi: (B, A) probabilities of the actions at the next state
        :param rewards: (B,)
        :param discounts: (B,)
        :return: (B, K) parameters
        """
        raise NotImplementedError

    def loss(self, params: Prediction, target: Prediction) -> th.Tensor:
        """(B, K) predicted and (B, K) target parameters -> (B,) losses."""
        raise NotImplementedError

    def td_errors(self, params: Prediction, target: Prediction, losses: th.Tensor) -> th.Tensor:
        """
        (B, K) predicted and (B, K) target parameters, and (B,) their losses -> (B,) errors, by whose absolute values
        transitions are prioritized: the TD errors of values, the losses of distributions (as in
        https://arxiv.org/abs/1710.02298).
        """
        return losses

    def embedding(self, hidden_dim: int) -> nn.Module | None:
        """
        :param hidden_dim: H, the width of the trunk's output
        :return: a network from (B, N) fractions to (B, N, H), if fractions are an input of the network
        """
        return None

    def taus(self, hidden: th.Tensor, purpose: Phase, sampled: bool) -> th.Tensor:
        """
        :param hidden: (B, H) the trunk's output
        :param purpose: the use of the prediction
        :param sampled: whether to draw from torch's generator, or to take midpoints, which are the same every time
        :return: (B, N) fractions at which the network is evaluated
        """
        raise NotImplementedError


def predict_q_values(net: nn.Module, obs: PyTorchObs, params: Prediction, returns: ReturnModel) -> th.Tensor:
    """
    (B, A) Q-values: read out of the parameters, or, where these are samples, out of others, so that no action is chosen by
    the same luck by which it is valued (https://arxiv.org/abs/1806.06923, section 3.1).
    """
    if params.q_values is not None:
        return params.q_values
    return returns.mean(params) if params.taus is None else net(obs)
