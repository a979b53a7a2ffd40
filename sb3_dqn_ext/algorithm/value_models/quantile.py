"""
Return models of quantiles: QR-DQN with fixed and IQN with sampled quantile fractions.

Shapes: B batch size, A actions, K quantiles per action, N quantile fractions (taus) of a prediction, M of a target.
"""

import torch as th
from torch import nn

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.predictions import Phase, Prediction
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel

__all__ = ["CosineEmbedding", "ImplicitQuantileReturns", "QuantileReturns"]


def midpoints(n: int, device: th.device | None = None) -> th.Tensor:
    """Return the (n,) midpoints tau_hat_i = (i + 1/2) / n, i = 0 ... n - 1 (Dabney et al., 2018, lemma 2)."""
    return (th.arange(n, device=device) + 0.5) / n


def scaled_huber(errors: th.Tensor, kappa: float) -> th.Tensor:
    """
    Compute the elementwise Huber loss divided by kappa, ``L_kappa(u) / kappa`` (Dabney et al., 2018, equation 9).

    It is ``u**2 / (2 kappa)`` for ``|u| <= kappa`` and ``|u| - kappa / 2`` beyond; for kappa = 0 it is ``|u|``.
    """
    magnitudes = errors.abs()
    if kappa == 0:
        return magnitudes
    return th.where(magnitudes > kappa, magnitudes - 0.5 * kappa, errors**2 * (0.5 / kappa))


def quantile_huber_loss(quantiles: th.Tensor, taus: th.Tensor, targets: th.Tensor, kappa: float) -> th.Tensor:
    """
    Compute the quantile Huber loss (Dabney et al., 2018, https://arxiv.org/abs/1710.10044, equation 10), divided by kappa as
    in IQN::

        sum_i mean_j |tau_i - 1{u_ij < 0}| L_kappa(u_ij) / kappa,  u_ij = y_j - theta_i

    :param quantiles: (B, N) predicted quantiles theta
    :param taus: (B, N) or (N,) their quantile fractions
    :param targets: (B, M) samples y of the target
    :param kappa: the threshold of the Huber loss
    :return: (B,) losses
    """
    errors = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)  # (B, N, M)
    weights = (taus.unsqueeze(-1) - (errors.detach() < 0).to(errors.dtype)).abs()  # (B, N, M)
    return (weights * scaled_huber(errors, kappa)).sum(dim=-2).mean(dim=-1)


class _QuantileModel(ReturnModel):
    """
    A base class with the mean and the target of quantiles.

    If the target policy is not greedy, quantiles of equal fractions are averaged over the actions, as in M-IQN (Vieillard et
    al., 2020, https://arxiv.org/abs/2007.14430, section 3). The target has the mean of the mixture of the actions'
    distributions, but not the spread between the actions. For a greedy policy the target is exact.
    """

    def mean(self, prediction: Prediction) -> th.Tensor:
        return prediction.values.mean(dim=-1)

    def target(self, prediction: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        # y_j = r + gamma * sum_a pi(a | s') theta_j(s', a)
        next_values = (pi.unsqueeze(-1) * prediction.values).sum(dim=1)  # (B, K)
        return Prediction(rewards.unsqueeze(1) + discounts.unsqueeze(1) * next_values, prediction.taus)


class QuantileReturns(_QuantileModel):
    """
    QR-DQN: K quantiles of the return at fixed fractions (Dabney et al., 2018, https://arxiv.org/abs/1710.10044).

    :param n_quantiles: K, the number of quantiles
    :param kappa: the absolute error at which the Huber loss changes from quadratic to linear; 0: the loss is linear everywhere
    :raises ArgumentError: if an argument is out of its range
    """

    midpoints: th.Tensor

    def __init__(self, n_quantiles: int = 50, kappa: float = 1.0) -> None:
        super().__init__()
        check_number("n_quantiles", n_quantiles, low=1, integer=True)
        check_number("kappa", kappa, low=0)
        self.n_params = n_quantiles
        self.kappa = kappa
        self.register_buffer("midpoints", midpoints(n_quantiles), persistent=False)

    def loss(self, prediction: Prediction, target: Prediction) -> th.Tensor:
        return quantile_huber_loss(prediction.values, self.midpoints, target.values, self.kappa)


class CosineEmbedding(nn.Module):
    """
    The cosine embedding of quantile fractions (Dabney et al., 2018, https://arxiv.org/abs/1806.06923, equation 4)::

        phi_j(tau) = ReLU(sum_{i=0}^{n-1} cos(pi i tau) w_ij + b_j)

    :param embedding_dim: n, the number of cosines
    :param hidden_dim: H, the width of the hidden vector that the embedding is multiplied with
    """

    frequencies: th.Tensor

    def __init__(self, embedding_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", th.pi * th.arange(embedding_dim, dtype=th.float32), persistent=False)
        self.linear = nn.Linear(embedding_dim, hidden_dim)

    def forward(self, taus: th.Tensor) -> th.Tensor:
        """Embed (B, N) quantile fractions as (B, N, H) vectors."""
        out: th.Tensor = self.linear(th.cos(taus.unsqueeze(-1) * self.frequencies))
        return out.relu()


class ImplicitQuantileReturns(_QuantileModel):
    """
    IQN: quantiles of the return at fractions that are an input (Dabney et al., 2018, https://arxiv.org/abs/1806.06923).

    New fractions are drawn for each batch, and for each action unless it is deterministic. The embedding of a fraction is
    multiplied elementwise with the trunk's output; the layers of ``head_arch`` follow.

    :param n_quantiles: N, the number of fractions of the predictions in the loss
    :param n_target_quantiles: N', the number of fractions of the targets in the loss
    :param n_policy_quantiles: K, the number of quantiles whose mean is the Q-value when an action is chosen
    :param embedding_dim: n, the number of cosines in the embedding of a fraction
    :param kappa: the absolute error at which the Huber loss changes from quadratic to linear; 0: the loss is linear everywhere
    :raises ArgumentError: if an argument is out of its range
    """

    n_params = 1

    def __init__(
        self,
        n_quantiles: int = 64,
        n_target_quantiles: int = 64,
        n_policy_quantiles: int = 32,
        embedding_dim: int = 64,
        kappa: float = 1.0,
    ) -> None:
        super().__init__()
        self.n_taus: dict[Phase, int] = {
            "online": n_quantiles,
            "target": n_target_quantiles,
            "policy": n_policy_quantiles,
        }
        for name, count in zip(("n_quantiles", "n_target_quantiles", "n_policy_quantiles"), self.n_taus.values(), strict=True):
            check_number(name, count, low=1, integer=True)
        check_number("embedding_dim", embedding_dim, low=1, integer=True)
        check_number("kappa", kappa, low=0)
        self.embedding_dim = embedding_dim
        self.kappa = kappa

    def embedding(self, hidden_dim: int) -> nn.Module:
        return CosineEmbedding(self.embedding_dim, hidden_dim)

    def taus(self, hidden: th.Tensor, phase: Phase, is_sampling: bool) -> th.Tensor:
        shape = hidden.shape[0], self.n_taus[phase]  # len() would be a constant in exported graphs
        if is_sampling:
            return th.rand(shape, dtype=hidden.dtype, device=hidden.device)
        return midpoints(self.n_taus[phase], hidden.device).to(hidden.dtype).expand(shape)

    def loss(self, prediction: Prediction, target: Prediction) -> th.Tensor:
        assert prediction.taus is not None
        return quantile_huber_loss(prediction.values, prediction.taus, target.values, self.kappa)
