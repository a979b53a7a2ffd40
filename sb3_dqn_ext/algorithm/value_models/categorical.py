"""Returns as probabilities of fixed values. Shapes: B batch, A actions, K values."""

import torch as th

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models.base import ReturnModel
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["CategoricalReturns"]


def project(atoms: th.Tensor, places: th.Tensor, probabilities: th.Tensor) -> th.Tensor:
    """
    (K,) evenly spaced atoms, (B, K) values and their (B, K) probabilities -> (B, K) probabilities of the atoms.

    The probability of each value is split between its two neighbours, most of it for the nearer one
    (https://arxiv.org/abs/1707.06887, equation 7).
    """
    distances = (places.clamp(atoms[0], atoms[-1]).unsqueeze(1) - atoms.view(1, -1, 1)).abs()  # (B, K atoms, K places)
    shares = (1 - distances / (atoms[1] - atoms[0])).clamp(min=0)  # (B, K atoms, K places)
    return (shares * probabilities.unsqueeze(1)).sum(dim=2)


class CategoricalReturns(ReturnModel):
    """
    C51: the probabilities of K returns that are evenly spaced between two bounds (https://arxiv.org/abs/1707.06887).

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

    def mean(self, params: Prediction) -> th.Tensor:
        return (params.values.softmax(dim=-1) * self.atoms).sum(dim=-1)

    def target(self, params: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        mixture = (pi.unsqueeze(-1) * params.values.softmax(dim=-1)).sum(dim=1)  # (B, K)
        places = rewards.unsqueeze(1) + discounts.unsqueeze(1) * self.atoms  # (B, K)
        return Prediction(project(self.atoms, places, mixture))

    def loss(self, params: Prediction, target: Prediction) -> th.Tensor:
        return -(target.values * params.values.log_softmax(dim=-1)).sum(dim=-1)
