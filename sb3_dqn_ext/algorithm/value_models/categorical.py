"""Return model of categorical distributions (C51). Shapes: B batch size, A actions, K atoms."""

import torch as th

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models.histogram import HistogramReturns, check_bounds
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["CategoricalReturns"]


def project(atoms: th.Tensor, values: th.Tensor, probabilities: th.Tensor) -> th.Tensor:
    """
    Project a distribution onto the atoms (Bellemare et al., 2017, https://arxiv.org/abs/1707.06887, equation 7)::

        (Phi T Z)_i = sum_j [1 - |[T z_j]_{v_min}^{v_max} - z_i| / delta_z]_0^1 p_j

    The probability of each value is divided between the two atoms next to it; the nearer atom gets the larger share.

    :param atoms: (K,) evenly spaced atoms z
    :param values: (B, K) values T z
    :param probabilities: (B, K) probabilities p of the values
    :return: (B, K) probabilities of the atoms
    """
    distances = (values.clamp(atoms[0], atoms[-1]).unsqueeze(1) - atoms.view(1, -1, 1)).abs()  # (B, K atoms, K values)
    shares = (1 - distances / (atoms[1] - atoms[0])).clamp(min=0)  # (B, K atoms, K values)
    return (shares * probabilities.unsqueeze(1)).sum(dim=2)


class CategoricalReturns(HistogramReturns):
    """
    C51: probabilities of K evenly spaced returns, the atoms (Bellemare et al., 2017, https://arxiv.org/abs/1707.06887).

    A prediction has K logits, a target K probabilities. If the target policy is not greedy, the target is the mixture of the
    actions' distributions. ``v_min`` and ``v_max`` have no defaults, since returns outside of them are clipped without an
    error.

    :param n_atoms: K, the number of atoms
    :param v_min: the lowest atom: a lower bound of the discounted return of an episode
    :param v_max: the highest atom: an upper bound of the discounted return of an episode
    :raises ArgumentError: if a bound is missing or an argument is out of its range
    """

    def __init__(self, n_atoms: int = 51, v_min: float | None = None, v_max: float | None = None) -> None:
        if v_min is None or v_max is None:
            raise ArgumentError(
                "returns='categorical' needs the lowest and the highest discounted return of an episode: "
                "give returns_kwargs v_min and v_max, for example {'v_min': -10, 'v_max': 10}."
            )
        check_number("n_atoms", n_atoms, low=2, integer=True)
        check_bounds(v_min, v_max)
        super().__init__(th.linspace(v_min, v_max, n_atoms))

    def target(self, prediction: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        mixture = (pi.unsqueeze(-1) * prediction.values.softmax(dim=-1)).sum(dim=1)  # (B, K)
        # T z_j = r + gamma * z_j
        values = rewards.unsqueeze(1) + discounts.unsqueeze(1) * self.atoms  # (B, K)
        return Prediction(project(self.atoms, values, mixture))
