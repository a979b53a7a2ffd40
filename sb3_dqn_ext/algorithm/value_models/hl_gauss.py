"""Return model of HL-Gauss: expected returns as a classification. Shapes: B batch size, A actions, K bins."""

import math
from collections.abc import Sequence
from typing import Any

import torch as th

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models.histogram import HistogramReturns, check_bounds
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["HLGaussReturns"]


def gaussian_histogram(values: th.Tensor, edges: th.Tensor, sigma: float) -> th.Tensor:
    """
    Integrate the normal distributions N(y, sigma**2) over bins, and normalise the K masses (Farebrother et al., 2024,
    https://arxiv.org/abs/2403.03950, section 3.1), with the distribution function F of N(y, sigma**2)::

        p_i = (F(e_{i+1}) - F(e_i)) / (F(e_K) - F(e_0))

    :param values: (B,) means y
    :param edges: (K + 1,) edges e of the bins
    :param sigma: the standard deviation
    :return: (B, K) probabilities of the bins
    """
    # F(e) = (1 + erf((e - y) / (sqrt(2) sigma))) / 2, and neither 1 nor 1/2 remains in the quotient
    erf = th.erf((edges - values.unsqueeze(-1)) / (math.sqrt(2) * sigma))  # (B, K + 1)
    return erf.diff(dim=-1) / (erf[:, -1:] - erf[:, :1])


def return_bounds(reward_range: Sequence[float], gamma: float, max_episode_length: float = math.inf) -> tuple[float, float]:
    """
    Compute the lowest and the highest discounted return of an episode::

        sum_{k=0}^{T-1} gamma**k r = r (1 - gamma**T) / (1 - gamma)

    :param reward_range: the lowest and the highest reward r of a step
    :param gamma: the discount
    :param max_episode_length: T, the largest number of steps of an episode; an episode can be as short as one step
    """
    low, high = reward_range
    longest = max_episode_length if gamma == 1 else (1 - gamma**max_episode_length) / (1 - gamma)
    return min(low, low * longest), max(high, high * longest)


class HLGaussReturns(HistogramReturns):
    """
    HL-Gauss: the expected return, learned by classification (Farebrother et al., 2024, https://arxiv.org/abs/2403.03950; Imani
    and White, 2018, https://arxiv.org/abs/1806.04613).

    The network predicts logits of K bins, and the Q-value is the mean of the bins' centres. The target is one number, as for
    expected returns; it is smoothed to a normal distribution over the bins, and the loss is the cross-entropy. Targets outside
    of the bins are clipped. Near the outermost edges, the mean of the bins is up to one standard deviation further inside than
    the target, so that bounds which are a little too wide do no harm.

    The bins are given by ``v_min`` and ``v_max``, or by the rewards with ``reward_range`` and ``gamma``.

    :param n_bins: K, the number of bins
    :param v_min: the lowest edge: a lower bound of the discounted return of an episode
    :param v_max: the highest edge: an upper bound of the discounted return of an episode
    :param sigma_ratio: the standard deviation of the target, in widths of a bin
    :param reward_range: the lowest and the highest reward of a step, in place of ``v_min`` and ``v_max``
    :param gamma: the discount, for ``reward_range``; not below that of the model
    :param max_episode_length: the number of steps after which every episode has terminated, for ``reward_range``; None
        (default): no limit. A time limit that truncates episodes does not count, since the return after it is estimated
    :raises ArgumentError: if the bounds are missing or given twice, or an argument is out of its range
    """

    edges: th.Tensor

    def __init__(
        self,
        n_bins: int = 101,
        v_min: float | None = None,
        v_max: float | None = None,
        sigma_ratio: float = 0.75,
        reward_range: Sequence[float] | None = None,
        gamma: float | None = None,
        max_episode_length: int | None = None,
    ) -> None:
        check_number("n_bins", n_bins, low=2, integer=True)
        check_number("sigma_ratio", sigma_ratio, low=0.01)
        bounds, rewards = (v_min, v_max), (reward_range, gamma)
        given, others = (bounds, (*rewards, max_episode_length)) if reward_range is None else (rewards, bounds)
        if None in given or any(one is not None for one in others):
            raise ArgumentError(
                "returns='hl_gauss' needs the lowest and the highest discounted return of an episode: give returns_kwargs "
                "v_min and v_max, for example {'v_min': -10, 'v_max': 10}, or reward_range and gamma, for example "
                "{'reward_range': [-1, 1], 'gamma': 0.99}; not both."
            )
        if reward_range is not None and gamma is not None:
            _check_rewards(reward_range, gamma, max_episode_length)
            v_min, v_max = return_bounds(reward_range, gamma, max_episode_length or math.inf)
        check_bounds(v_min, v_max)
        edges = th.linspace(v_min, v_max, n_bins + 1)  # type: ignore[arg-type]
        super().__init__((edges[:-1] + edges[1:]) / 2)
        self.register_buffer("edges", edges, persistent=False)
        self.gamma = gamma
        self.sigma = sigma_ratio * (v_max - v_min) / n_bins  # type: ignore[operator]

    def target(self, prediction: Prediction, pi: th.Tensor, rewards: th.Tensor, discounts: th.Tensor) -> Prediction:
        next_values = (pi * self.mean(prediction)).sum(dim=1)  # (B,)
        # y = r + gamma * sum_a pi(a | s') Q(s', a)
        values = (rewards + discounts * next_values).clamp(self.edges[0], self.edges[-1])
        return Prediction(gaussian_histogram(values, self.edges, self.sigma))

    def td_errors(self, prediction: Prediction, target: Prediction, losses: th.Tensor) -> th.Tensor:
        # delta = y - Q(s, a), as for expected returns: the target is one number. The cross-entropy is not used, since it
        # contains the entropy of the normal distribution, and all priorities would be nearly equal
        return (target.values * self.atoms).sum(dim=-1) - self.mean(prediction).detach()


def _check_rewards(reward_range: Any, gamma: Any, max_episode_length: Any) -> None:
    """:raises ArgumentError: if they are not two rewards, a discount and a number of steps that bound the return"""
    if not isinstance(reward_range, list | tuple) or len(reward_range) != 2:
        raise ArgumentError(f"reward_range={reward_range!r} must be the lowest and the highest reward, for example [-1, 1].")
    for reward in reward_range:
        check_number("a number of reward_range", reward)
    if reward_range[0] > reward_range[1] or not any(reward_range):
        raise ArgumentError(f"reward_range={reward_range!r} must be the lowest and then the highest reward, not both 0.")
    check_number("gamma", gamma, low=0, high=1)
    if max_episode_length is not None:
        check_number("max_episode_length", max_episode_length, low=1, integer=True)
    elif gamma == 1:
        raise ArgumentError(
            "gamma=1 does not bound the return: give max_episode_length, the length of the longest episode, too."
        )
