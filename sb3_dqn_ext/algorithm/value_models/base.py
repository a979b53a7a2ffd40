"""
The base class of return models.

Shapes: B batch size, A actions, K distribution parameters per action, N quantile fractions of a prediction.
"""

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_dqn_ext.algorithm.action_masks import legal_actions, mask_q_values
from sb3_dqn_ext.algorithm.predictions import Phase, Prediction

__all__ = ["ReturnModel", "compute_q_values"]


class ReturnModel(nn.Module):
    """
    A model of the return of an action: the meaning of the network's outputs, their target and their loss.

    A subclass sets :attr:`n_params` and overrides :meth:`mean`, :meth:`target` and :meth:`loss`. Its arguments are given as
    ``returns_kwargs``. It has no parameters. It registers constants as buffers with ``persistent=False``, so that neither
    files nor updates of the target network contain them. With ``compile``, its methods are traced once: they compute with
    tensors, branch on none of their values, and change no attributes.
    """

    n_params: int
    """
    The number of outputs per action in one evaluation of the network: K, or 1 for models with sampled quantile fractions.
    """

    def mean(self, prediction: Prediction) -> th.Tensor:
        """
        Compute the Q-values, the means of the predicted returns.

        :param prediction: (B, A, K) distribution parameters
        :return: (B, A) Q-values
        """
        raise NotImplementedError

    def target(self, prediction: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        """
        Apply the distributional Bellman operator: the return here is the reward plus the discounted return at the next state.

        :param prediction: (B, A, K) distribution parameters that the target network predicts at the next state
        :param pi: (B, A) probabilities of the actions at the next state
        :param rewards: (B,) n-step rewards
        :param discounts: (B,) discounts of the return at the next state
        :return: (B, K) distribution parameters of the target
        """
        raise NotImplementedError

    def loss(self, prediction: Prediction, target: Prediction) -> th.Tensor:
        """
        Compute the loss of each transition.

        :param prediction: (B, K) distribution parameters of the actions that were taken
        :param target: (B, K) distribution parameters, see :meth:`target`
        :return: (B,) losses
        """
        raise NotImplementedError

    def td_errors(self, prediction: Prediction, target: Prediction, losses: th.Tensor) -> th.Tensor:
        """
        Compute the TD errors, whose absolute values are the priorities of prioritized replay.

        Models of a distribution use the losses. Those of Rainbow (Hessel et al., 2018, https://arxiv.org/abs/1710.02298) are
        Kullback-Leibler divergences; cross-entropies are larger, by the entropy of the target.

        :param prediction: (B, K) distribution parameters of the actions that were taken
        :param target: (B, K) distribution parameters
        :param losses: (B,) the losses of the two
        :return: (B,) TD errors
        """
        return losses

    def embedding(self, hidden_dim: int) -> nn.Module | None:
        """
        Make the network that embeds quantile fractions, for models that have them as an input.

        :param hidden_dim: H, the width of the trunk's output
        :return: a network from (B, N) fractions to (B, N, H); None for models without such an input
        """
        return None

    def taus(self, hidden: th.Tensor, phase: Phase, is_sampling: bool) -> th.Tensor:
        """
        Choose the quantile fractions (taus) at which the network is evaluated.

        :param hidden: (B, H) output of the trunk
        :param phase: the use of the prediction
        :param is_sampling: whether the fractions are drawn from torch's generator; if not, they are fixed midpoints
        :return: (B, N) quantile fractions
        """
        raise NotImplementedError


def compute_q_values(net: nn.Module, obs: PyTorchObs, prediction: Prediction, returns: ReturnModel) -> th.Tensor:
    """
    Compute the Q-values of a network whose prediction is available. Those of illegal actions are masked.

    If the prediction is a sample of quantiles, the network is evaluated again: the action is then chosen by other samples than
    those that estimate its return (Dabney et al., 2018, https://arxiv.org/abs/1806.06923, section 3.1).

    :param net: the network
    :param obs: (B, \\*obs) observations
    :param prediction: (B, A, K) the network's prediction for these observations
    :param returns: the return model of the network
    :return: (B, A) Q-values
    """
    q_values = prediction.q_values
    if q_values is None:
        q_values = returns.mean(prediction) if prediction.taus is None else net(obs)
    return mask_q_values(q_values, legal_actions(net, obs))
