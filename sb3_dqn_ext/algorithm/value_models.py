"""
Return models: what the K numbers that a network says per action mean, how they are backed up, and how they are regressed.

Shapes: B batch, A actions, K numbers per action, N fractions of a prediction, M of a target.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_dqn_ext._validation import check_keys, check_number, choose, parameters_of
from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "FITS",
    "LOSSES",
    "RETURN_MODELS",
    "CategoricalReturns",
    "ExpectedReturns",
    "ImplicitQuantileReturns",
    "Params",
    "QuantileReturns",
    "ReturnModel",
    "make_returns",
    "taken",
]

Purpose = Literal["online", "target", "policy"]
"""What the numbers are for: a prediction that is fitted, the target it is fitted to, or the choice of an action"""


class Params(NamedTuple):
    """What a head says about the return of each action."""

    values: th.Tensor
    """(B, A, K), or (B, K) once the action is chosen"""
    fractions: th.Tensor | None = None
    """(B, K) the quantile fractions that were sampled with ``values``, for the models that sample them"""
    q_values: th.Tensor | None = None
    """(B, A) the Q-values, where they are not to be computed from ``values``: a hook or a user's ``forward`` gave them"""


def taken(params: Params, actions: th.Tensor) -> Params:
    """
    (B, A, K) parameters and (B,) actions -> (B, K) parameters of the actions that were taken.
    """
    index = actions.view(-1, 1, 1).expand(-1, 1, params.values.shape[-1])
    return params._replace(values=params.values.gather(1, index).squeeze(1))


class ReturnModel(nn.Module):
    """A return model; its constants are buffers that are not saved, so that target updates leave them alone."""

    n_params: int
    """how many numbers the network answers for each action in one evaluation; K, where no fractions are sampled"""

    def mean(self, params: Params) -> th.Tensor:
        """(B, A, K) parameters -> (B, A) expected returns, the Q-values."""
        raise NotImplementedError

    def target(self, params: Params, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Params:
        """
        One backup: the return's parameters at the next state, seen from this one.

        :param params: (B, A, K) parameters at the next state, from the target network
        :param pi: (B, A) probabilities of the actions at the next state
        :param rewards: (B,)
        :param discounts: (B,)
        :return: (B, K) parameters
        """
        raise NotImplementedError

    def loss(self, params: Params, target: Params) -> th.Tensor:
        """(B, K) predicted and (B, K) target parameters -> (B,) losses."""
        raise NotImplementedError

    def absolute_errors(self, losses: th.Tensor) -> th.Tensor:
        """
        (B,) losses -> (B,) how wrong the predictions were, which is what they are prioritized by: the absolute TD errors
        where values are learned, the losses where distributions are (as in https://arxiv.org/abs/1710.02298).
        """
        return losses

    def embedding(self, hidden_dim: int) -> nn.Module | None:
        """
        :param hidden_dim: H, how wide the trunk's output is
        :return: a network from (B, N) fractions to (B, N, H), if the network is asked at fractions
        """
        return None

    def fractions(self, hidden: th.Tensor, purpose: Purpose, sampled: bool) -> th.Tensor:
        """
        :param hidden: (B, H) the trunk's output
        :param purpose: what the answers are for
        :param sampled: whether to draw from torch's generator, or to take midpoints, which are the same every time
        :return: (B, N) fractions at which the network is asked
        """
        raise NotImplementedError


# Expected returns


def huber(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """Quadratic within 1 of the target, linear beyond (Mnih et al., 2015); shapes are kept."""
    return F.smooth_l1_loss(prediction, target, reduction="none")


def mse(prediction: th.Tensor, target: th.Tensor) -> th.Tensor:
    """The squared error; shapes are kept."""
    return F.mse_loss(prediction, target, reduction="none")


def inverse_huber(losses: th.Tensor) -> th.Tensor:
    """Return the absolute errors that have these Huber losses; shapes are kept."""
    return th.where(losses < 0.5, (2 * losses).sqrt(), losses + 0.5)


def inverse_mse(losses: th.Tensor) -> th.Tensor:
    """Return the absolute errors that have these squared errors; shapes are kept."""
    return losses.sqrt()


LOSSES: dict[str, Callable[[th.Tensor, th.Tensor], th.Tensor]] = {"huber": huber, "mse": mse}
INVERSES: dict[str, Callable[[th.Tensor], th.Tensor]] = {"huber": inverse_huber, "mse": inverse_mse}
"""losses -> the absolute errors that have them"""


class ExpectedReturns(ReturnModel):
    """
    One number per action, the expected return: Q-learning as in DQN (https://www.nature.com/articles/nature14236).

    :param loss: ``"huber"`` or ``"mse"``
    """

    n_params = 1

    def __init__(self, loss: str = "huber") -> None:
        super().__init__()
        self._loss = choose("loss", loss, LOSSES, {"smooth_l1": "huber", "l1": "huber", "l2": "mse", "squared": "mse"})
        self._inverse = INVERSES[loss]

    def mean(self, params: Params) -> th.Tensor:
        return params.values.squeeze(-1)

    def target(self, params: Params, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Params:
        next_values = (pi * self.mean(params)).sum(dim=1)  # (B,)
        return Params((rewards + discounts * next_values).unsqueeze(-1))

    def loss(self, params: Params, target: Params) -> th.Tensor:
        return self._loss(params.values, target.values).squeeze(-1)

    def absolute_errors(self, losses: th.Tensor) -> th.Tensor:
        return self._inverse(losses)


# Categorical returns


def project(atoms: th.Tensor, places: th.Tensor, probabilities: th.Tensor) -> th.Tensor:
    """
    (K,) even atoms, (B, K) places of probability and (B, K) how much lies there -> (B, K) how much lies at each atom.

    Each place gives to its two neighbours, to the nearer one more (https://arxiv.org/abs/1707.06887, equation 7).
    """
    distances = (places.clamp(atoms[0], atoms[-1]).unsqueeze(1) - atoms.view(1, -1, 1)).abs()  # (B, K atoms, K places)
    shares = (1 - distances / (atoms[1] - atoms[0])).clamp(min=0)  # (B, K atoms, K places)
    return (shares * probabilities.unsqueeze(1)).sum(dim=2)


class CategoricalReturns(ReturnModel):
    """
    C51: the probabilities of K returns that lie evenly between two bounds (https://arxiv.org/abs/1707.06887).

    A prediction is K logits, a target K probabilities. Under a target policy that is not greedy, the target is the mixture of
    the actions' distributions. The bounds have no default: a return beyond them is cut off at them, unnoticed.

    :param n_atoms: K
    :param v_min: the lowest return; at least what a discounted episode can sum to
    :param v_max: the highest return
    """

    atoms: th.Tensor

    def __init__(self, n_atoms: int = 51, v_min: float | None = None, v_max: float | None = None) -> None:
        super().__init__()
        if v_min is None or v_max is None:
            raise ArgumentError(
                "returns='categorical' needs the lowest and the highest discounted return of an episode: "
                "give returns_kwargs v_min and v_max, for example {'v_min': -10, 'v_max': 10}."
            )
        check_number("n_atoms", n_atoms, low=2, integer=True)
        check_number("v_min", v_min)
        check_number("v_max", v_max)
        if v_min >= v_max:
            raise ArgumentError(f"v_min={v_min!r} must be below v_max={v_max!r}.")
        self.n_params = n_atoms
        self.register_buffer("atoms", th.linspace(v_min, v_max, n_atoms), persistent=False)

    def mean(self, params: Params) -> th.Tensor:
        return (params.values.softmax(dim=-1) * self.atoms).sum(dim=-1)

    def target(self, params: Params, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Params:
        mixture = (pi.unsqueeze(-1) * params.values.softmax(dim=-1)).sum(dim=1)  # (B, K)
        places = rewards.unsqueeze(1) + discounts.unsqueeze(1) * self.atoms  # (B, K)
        return Params(project(self.atoms, places, mixture))

    def loss(self, params: Params, target: Params) -> th.Tensor:
        return -(target.values * params.values.log_softmax(dim=-1)).sum(dim=-1)


# Quantiles


def midpoints(n: int) -> th.Tensor:
    """(n,) the middles of n equal parts of [0, 1] (https://arxiv.org/abs/1710.10044, lemma 2)."""
    return (th.arange(n) + 0.5) / n


def huber_beyond(errors: th.Tensor, kappa: float) -> th.Tensor:
    """Quadratic within kappa, of slope 1 beyond it; the absolute error at kappa = 0; shapes are kept."""
    sizes = errors.abs()
    if kappa == 0:
        return sizes
    return th.where(sizes > kappa, sizes - 0.5 * kappa, errors**2 * (0.5 / kappa))


def quantile_huber(quantiles: th.Tensor, fractions: th.Tensor, targets: th.Tensor, kappa: float) -> th.Tensor:
    """
    (B, N) quantiles at (B, N) or (N,) fractions and (B, M) samples of the target -> (B,) losses.

    Summed over the quantiles, averaged over the samples (https://arxiv.org/abs/1710.10044, equation 10).
    """
    errors = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)  # (B, N, M)
    weights = (fractions.unsqueeze(-1) - (errors.detach() < 0).to(errors.dtype)).abs()  # (B, N, M)
    return (weights * huber_beyond(errors, kappa)).sum(dim=-2).mean(dim=-1)


class _Quantiles(ReturnModel):
    """
    What the two models of quantiles share. Where the target policy is not greedy, quantiles of equal fractions are averaged
    over the actions, as in M-IQN (https://arxiv.org/abs/2007.14430, section 3): the mean is that of the mixture, its spread
    between the actions is left out. For a greedy policy this is exact.
    """

    def mean(self, params: Params) -> th.Tensor:
        return params.values.mean(dim=-1)

    def target(self, params: Params, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Params:
        next_values = (pi.unsqueeze(-1) * params.values).sum(dim=1)  # (B, K)
        return Params(rewards.unsqueeze(1) + discounts.unsqueeze(1) * next_values, params.fractions)


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

    def loss(self, params: Params, target: Params) -> th.Tensor:
        return quantile_huber(params.values, self.midpoints, target.values, self.kappa)


class CosineEmbedding(nn.Module):
    """
    Fractions as weighted cosines (https://arxiv.org/abs/1806.06923, equation 4).

    :param embedding_dim: n, how many cosines
    :param hidden_dim: H, how wide the features are that it is multiplied with
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
    IQN: the quantile at any fraction one asks for (https://arxiv.org/abs/1806.06923).

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
        self.counts: dict[Purpose, int] = {
            "online": n_quantiles,
            "target": n_target_quantiles,
            "policy": n_policy_quantiles,
        }
        for name, count in zip(("n_quantiles", "n_target_quantiles", "n_policy_quantiles"), self.counts.values(), strict=True):
            check_number(name, count, low=1, integer=True)
        check_number("embedding_dim", embedding_dim, low=1, integer=True)
        check_number("kappa", kappa, low=0)
        self.embedding_dim = embedding_dim
        self.kappa = kappa

    def embedding(self, hidden_dim: int) -> nn.Module:
        return CosineEmbedding(self.embedding_dim, hidden_dim)

    def fractions(self, hidden: th.Tensor, purpose: Purpose, sampled: bool) -> th.Tensor:
        shape = len(hidden), self.counts[purpose]
        if sampled:
            return th.rand(shape, dtype=hidden.dtype, device=hidden.device)
        return midpoints(self.counts[purpose]).to(hidden).expand(shape)

    def loss(self, params: Params, target: Params) -> th.Tensor:
        assert params.fractions is not None
        return quantile_huber(params.values, params.fractions, target.values, self.kappa)


RETURN_MODELS: dict[str, Callable[..., ReturnModel]] = {
    "expected": ExpectedReturns,
    "categorical": CategoricalReturns,
    "quantile": QuantileReturns,
    "implicit_quantile": ImplicitQuantileReturns,
}
SYNONYMS = {
    "mean": "expected",
    "dqn": "expected",
    "q": "expected",
    "c51": "categorical",
    "distributional": "categorical",
    "qr": "quantile",
    "qrdqn": "quantile",
    "qr_dqn": "quantile",
    "quantiles": "quantile",
    "iqn": "implicit_quantile",
    "implicit": "implicit_quantile",
}


def make_returns(returns: str, returns_kwargs: Mapping[str, Any], loss: str | None) -> ReturnModel:
    """
    :param returns: a name of ``RETURN_MODELS``
    :param returns_kwargs: the arguments of that model
    :param loss: a name of ``LOSSES``, for the models that regress values; ``"huber"`` by default
    """
    model = choose("returns", returns, RETURN_MODELS, SYNONYMS)
    check_keys("returns_kwargs", returns_kwargs, set(parameters_of(model)) - {"loss"})
    if loss is None:
        return model(**returns_kwargs)
    if "loss" not in parameters_of(model):
        raise ArgumentError(
            f"loss={loss!r} has no effect with returns={returns!r}, which has a loss of its own; leave it out."
        )
    return model(loss=loss, **returns_kwargs)


# Which entries of the prediction are fitted

Fit = Callable[[ReturnModel, Params, th.Tensor, Params, Callable[[], Params]], th.Tensor]
"""
(return model, (B, A, K) predicted parameters, (B,) actions, (B, K) target of the actions that were taken, a function that
gives the (B, A, K) parameters that the target network predicts) -> (B,) losses
"""


def fit_taken(
    returns: ReturnModel, params: Params, actions: th.Tensor, target: Params, predicted_by_target: Callable[[], Params]
) -> th.Tensor:
    """(B,) losses of the actions that were taken."""
    return returns.loss(taken(params, actions), target)


def fit_all(
    returns: ReturnModel, params: Params, actions: th.Tensor, target: Params, predicted_by_target: Callable[[], Params]
) -> th.Tensor:
    """(B,) losses averaged over all actions; those that were not taken are held where the target network sees them."""
    with th.no_grad():
        kept = predicted_by_target().values  # (B, A, K)
        index = actions.view(-1, 1, 1).expand(-1, 1, kept.shape[-1])
        targets = kept.scatter(1, index, target.values.unsqueeze(1))  # (B, A, K)
    n_actions = targets.shape[1]
    losses = returns.loss(Params(params.values.flatten(0, 1)), Params(targets.flatten(0, 1)))  # (B * A,)
    return losses.view(-1, n_actions).mean(dim=1)


FITS: dict[str, Fit] = {"taken": fit_taken, "all": fit_all}
