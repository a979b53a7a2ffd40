"""Target policies: the policy at the next state. Shapes: B batch, A actions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.batches import Batch

__all__ = ["TARGET_POLICIES", "DoubleTarget", "GreedyTarget", "MunchausenTarget", "TargetPolicy"]

QFunction = Callable[[PyTorchObs], th.Tensor]
"""(B, \\*obs) observations -> (B, A) Q-values"""


class TargetPolicy(Protocol):
    """The policy at the next state, of which the target is computed, and the reward on the way there."""

    @property
    def needs_online_net(self) -> bool:
        """Whether the online network takes part."""

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param batch: B transitions
        :param online: the online network
        :param target: the target network
        :param q_t: (B, A) Q-values of the target network at the next observations
        :return: (B, A) probabilities of the next actions, (B,) rewards. A bonus of the next state, such as the policy's
            entropy there, is among the rewards once it is multiplied by the discounts
        """
        ...


def one_hot_argmax(q: th.Tensor) -> th.Tensor:
    """(B, A) Q-values -> (B, A) probabilities: 1 for the best action, the first of equals."""
    return th.zeros_like(q).scatter_(1, q.argmax(dim=1, keepdim=True), 1.0)


@dataclass(frozen=True)
class GreedyTarget:
    """The action that the target network itself values most (Mnih et al., 2015)."""

    needs_online_net: ClassVar[bool] = False

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return one_hot_argmax(q_t), batch.rewards


@dataclass(frozen=True)
class DoubleTarget:
    """The action that the online network values most, valued by the target network (https://arxiv.org/abs/1509.06461)."""

    needs_online_net: ClassVar[bool] = True

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return one_hot_argmax(online(batch.next_observations)), batch.rewards


def scaled_log_softmax(q: th.Tensor, temperature: float) -> th.Tensor:
    """
    (B, A) Q-values -> (B, A) ``temperature * log softmax(q / temperature)``, finite at any temperature: the best action's
    value is taken off first, so that no exponential overflows and the sum is at least 1.
    """
    gaps = q - q.max(dim=1, keepdim=True).values  # (B, A), 0 for the best action
    return gaps - temperature * th.logsumexp(gaps / temperature, dim=1, keepdim=True)


@dataclass(frozen=True)
class MunchausenTarget:
    """
    Munchausen DQN (https://arxiv.org/abs/2007.14430): the policy ``softmax(q / temperature)`` of the target network is
    followed, its entropy is part of the return, and the reward is augmented by the policy's own scaled logarithm::

        r + alpha * [temperature * log pi(a|s)]_clip^0 + discount * sum_b pi(b|s') * (q(s', b) - temperature * log pi(b|s'))

    The entropy at the next state is handed on among the rewards, multiplied by the discount. For expected returns this is the
    equation above to the letter. A distribution of returns is moved as a whole by the entropy's expectation, as the paper's
    authors do in M-IQN. With n steps the logarithm of the first action is added, once: this, too, is what they do.

    :param alpha: weight of the log-policy, in [0, 1]; 0 leaves soft Q-learning, and with ``temperature`` near 0 ``Greedy``
    :param temperature: of the softmax, the paper's tau, in the unit of the returns
    :param clip: lowest value of ``temperature * log pi(a|s)``, the paper's l0, not positive
    :raises ArgumentError: if an argument is out of its range
    """

    needs_online_net: ClassVar[bool] = False

    alpha: float = 0.9
    temperature: float = 0.03
    clip: float = -1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0, 1)
        check_number("temperature", self.temperature, low=1e-6)
        check_number("clip", self.clip, high=0)

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        log_pi_tm1 = scaled_log_softmax(target(batch.observations), self.temperature)  # (B, A)
        log_pi_taken = log_pi_tm1.gather(1, batch.actions.unsqueeze(1)).squeeze(1)  # (B,)
        log_pi_t = scaled_log_softmax(q_t, self.temperature)  # (B, A)
        pi_t = th.exp(log_pi_t / self.temperature)
        entropy = -(pi_t * log_pi_t).sum(dim=1)  # (B,), times the temperature
        return pi_t, batch.rewards + self.alpha * log_pi_taken.clamp(min=self.clip) + batch.discounts * entropy


TARGET_POLICIES: dict[str, Callable[..., TargetPolicy]] = {
    "greedy": GreedyTarget,
    "double": DoubleTarget,
    "munchausen": MunchausenTarget,
}
SYNONYMS = {
    "max": "greedy",
    "dqn": "greedy",
    "ddqn": "double",
    "double_dqn": "double",
    "double_q": "double",
    "mdqn": "munchausen",
    "m-dqn": "munchausen",
    "m_dqn": "munchausen",
}
