"""
Returns as quantiles, at fixed fractions or at fractions that are drawn.

Shapes: B batch, A actions, K numbers per action, N fractions of a prediction, M of a target.
"""

import torch as th
from torch import nn

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.predictions import Phase, Prediction
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel

__all__ = ["CosineEmbedding", "ImplicitQuantileReturns", "QuantileReturns"]


def midpoints(n: int) -> th.Tensor:
    """(n,) the middles of n equal parts of [0, 1] (https://arxiv.org/abs/1710.10044, lemma 2)."""
    return (th.arange(n) + 0.5) / n


def scaled_huber(errors: th.Tensor, kappa: float) -> th.Tensor:
    """Quadratic within kappa, of slope 1 beyond it; the absolute error at kappa = 0; shapes are kept."""
    sizes = errors.abs()
    if kappa == 0:
        return sizes
    return th.where(sizes > kappa, sizes - 0.5 * kappa, errors**2 * (0.5 / kappa))


def quantile_huber_loss(quantiles: th.Tensor, fractions: th.Tensor, targets: th.Tensor, kappa: float) -> th.Tensor:
    """
    (B, N) quantiles at (B, N) or (N,) fractions and (B, M) samples of the target -> (B,) losses.

    Summed over the quantiles, averaged over the samples (https://arxiv.org/abs/1710.10044, equation 10).
    """
    errors = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)  # (B, N, M)
    weights = (fractions.unsqueeze(-1) - (errors.detach() < 0).to(errors.dtype)).abs()  # (B, N, M)
    return (weights * scaled_huber(errors, kappa)).sum(dim=-2).mean(dim=-1)


class _Quantiles(ReturnModel):
    """
    The mean and the target of both models of quantiles. Where the target policy is not greedy, quantiles of equal fractions
    are averaged over the actions, as in M-IQN (https://arxiv.org/abs/2007.14430, section 3): the mean is that of the mixture,
    its spread between the actions is left out. For a greedy policy this is exact.
    """

    def mean(self, params: Prediction) -> th.Tensor:
        return params.values.mean(dim=-1)

    def target(self, params: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        next_values = (pi.unsqueeze(-1) * params.values).sum(dim=1)  # (B, K)
        return Prediction(rewards.unsqueeze(1) + discounts.unsqueeze(1) * next_values, params.taus)


class QuantileReturns(_Quantiles):
    """
    QR-DQN: K quantiles of the return, at fixed fractions (https://arxiv.org/abs/1710.10044).

    :param n_quantiles: K
    :param kappa: where the loss of an error turns from quadratic to linear; 0 for a linear loss everywhere
    """

    midpoints: th.Tensor

    def __init__(self, n_quantiles: int = 50, kappa: float = 1.0) -> None:
        super().__init__()
        check_number("n_quantiles", n_quantiles, low=1, integer=True)
        check_number("kappa", kappa, low=0)
        self.n_params = n_quantiles
        self.kappa = kappa
        self.register_buffer("midpoints", midpoints(n_quantiles), persistent=False)

    def loss(self, params: Prediction, target: Prediction) -> th.Tensor:
        return quantile_huber_loss(params.values, self.midpoints, target.values, self.kappa)


class CosineEmbedding(nn.Module):
    """
    Fractions as weighted cosines (https://arxiv.org/abs/1806.06923, equation 4).

    :param embedding_dim: n, how many cosines
    :param hidden_dim: H, the width of the features that it is multiplied with
    """

    frequencies: th.Tensor

    def __init__(self, embedding_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", th.pi * th.arange(embedding_dim, dtype=th.float32), persistent=False)
        self.linear = nn.Linear(embedding_dim, hidden_dim)

    def forward(self, fractions: th.Tensor) -> th.Tensor:
        """(B, N) fractions -> (B, N, H)"""
        out: th.Tensor = self.linear(th.cos(fractions.unsqueeze(-1) * self.frequencies))
        return out.relu()


class ImplicitQuantileReturns(_Quantiles):
    """
    IQN: the quantile at any fraction (https://arxiv.org/abs/1806.06923).

    Fractions are drawn anew for every batch, and for every action that is not deterministic. The embedded fraction is
    multiplied with the trunk's output; ``head_arch`` are the layers behind.

    :param n_quantiles: N, how many fractions of a prediction are fitted
    :param n_target_quantiles: N', how many samples its target has
    :param n_policy_quantiles: K, how many the expected return is averaged over, where an action is chosen
    :param embedding_dim: n, how many cosines a fraction is described by
    :param kappa: where the loss of an error turns from quadratic to linear; 0 for a linear loss everywhere
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

    def taus(self, hidden: th.Tensor, purpose: Phase, sampled: bool) -> th.Tensor:
        shape = len(hidden), self.n_taus[purpose]
        if sampled:
            return th.rand(shape, dtype=hidden.dtype, device=hidden.device)
        return midpoints(self.n_taus[purpose]).to(hidden).expand(shape)

    def loss(self, params: Prediction, target: Prediction) -> th.Tensor:
        assert params.taus is not None
        return quantile_huber_loss(params.values, params.taus, target.values, self.kappa)
