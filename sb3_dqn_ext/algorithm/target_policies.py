"""Target policies: the policy at the next state in the TD target. Shapes: B batch size, A actions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_dqn_ext._validation import OpenChoice, check_number, choose
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.stateful import Stateful

__all__ = [
    "TARGET_POLICIES",
    "TARGET_POLICY",
    "DoubleTarget",
    "GreedyTarget",
    "MunchausenTarget",
    "TargetPolicy",
]

QFunction = Callable[[PyTorchObs], th.Tensor]
"""A function from (B, \\*obs) observations to (B, A) Q-values."""


class TargetPolicy(Stateful):
    """
    A policy at the next state, and the rewards, from which the TD target is computed.

    A subclass overrides :meth:`__call__`. Its arguments are given as ``target_policy_kwargs``. With ``compile``, the method is
    traced once: it computes with tensors, branches on none of their values, and changes no attributes. A policy that changes
    its attributes is trained without compilation.
    """

    needs_online_net: ClassVar[bool] = True
    """Whether the policy depends on the online network. If not, the targets of several updates are computed at once."""

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Compute the policy at the next states, and the rewards of the targets. Returns without a next state do not call it.

        :param batch: B transitions
        :param online: the online network
        :param target: the target network
        :param q_t: (B, A) Q-values of the target network at the next observations
        :return: (B, A) probabilities of the next actions, (B,) rewards. A bonus at the next state, such as the policy's
            entropy, is multiplied by the discounts and added to the rewards
        """
        raise NotImplementedError


def one_hot_argmax(q: th.Tensor) -> th.Tensor:
    """Return the (B, A) probabilities of the greedy policy for (B, A) Q-values; the first of several best actions has 1."""
    return th.zeros_like(q).scatter_(1, q.argmax(dim=1, keepdim=True), 1.0)


@dataclass(frozen=True)
class GreedyTarget(TargetPolicy):
    """DQN: the greedy policy of the target network, ``argmax_a Q_target(s', a)`` (Mnih et al., 2015)."""

    needs_online_net: ClassVar[bool] = False

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return one_hot_argmax(q_t), batch.rewards


@dataclass(frozen=True)
class DoubleTarget(TargetPolicy):
    """
    Double DQN: the greedy policy of the online network, ``argmax_a Q_online(s', a)``, whose action the target network
    evaluates (van Hasselt et al., 2016, https://arxiv.org/abs/1509.06461).
    """

    needs_online_net: ClassVar[bool] = True

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        assert batch.next_observations is not None
        return one_hot_argmax(online(batch.next_observations)), batch.rewards


def scaled_log_softmax(q: th.Tensor, temperature: float) -> th.Tensor:
    """
    Compute ``tau * log softmax(q / tau)``, finite at any temperature tau (the log-sum-exp trick).

    The largest Q-value v is subtracted first, so that no exponential overflows and the sum is at least 1::

        tau * log softmax(q / tau) = q - v - tau * log(sum_b exp((q_b - v) / tau))

    :param q: (B, A) Q-values
    :param temperature: tau
    :return: (B, A) scaled log-probabilities
    """
    gaps = q - q.max(dim=1, keepdim=True).values  # (B, A), 0 for the best action
    return gaps - temperature * th.logsumexp(gaps / temperature, dim=1, keepdim=True)


@dataclass(frozen=True)
class MunchausenTarget(TargetPolicy):
    """
    Munchausen DQN (Vieillard et al., 2020, https://arxiv.org/abs/2007.14430): a soft policy ``pi = softmax(Q_target / tau)``,
    an entropy bonus, and a reward that is augmented by the scaled log-probability of the action::

        y = r + alpha * [tau * log pi(a|s)]_{l0}^0 + gamma * sum_b pi(b|s') * (Q_target(s', b) - tau * log pi(b|s'))

    The entropy at the next state is multiplied by the discount and added to the reward. For expected returns the target is
    exactly this equation. For distributions, all returns are shifted by the expected entropy, as the authors do in M-IQN. With
    n-step returns, only the log-probability of the first action is added, as the authors do.

    :param alpha: the weight of the log-probability, in [0, 1]. 0 is soft Q-learning, and with ``temperature`` near 0
        :class:`GreedyTarget`
    :param temperature: the temperature of the softmax, the paper's tau, in the unit of the returns
    :param clip: the lowest value of ``tau * log pi(a|s)``, the paper's l0; not positive
    :param log_policy_net: the network of log pi(a|s): ``"target"``, as in the paper, or ``"online"``, as in the code of Beyond
        the Rainbow (Clark et al., 2024, https://arxiv.org/abs/2411.03820)
    :raises ArgumentError: if an argument is out of its range
    """

    needs_online_net: ClassVar[bool] = False

    alpha: float = 0.9
    temperature: float = 0.03
    clip: float = -1.0
    log_policy_net: str = "target"

    def __post_init__(self) -> None:
        choose("log_policy_net", self.log_policy_net, {"online": 0, "target": 0})
        if self.log_policy_net == "online":
            object.__setattr__(self, "needs_online_net", True)
        check_number("alpha", self.alpha, 0, 1)
        check_number("temperature", self.temperature, low=1e-6)
        check_number("clip", self.clip, high=0)

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        # both logarithms are multiplied by tau
        log_policy_net = online if self.log_policy_net == "online" else target
        log_pi_tm1 = scaled_log_softmax(log_policy_net(batch.observations), self.temperature)  # (B, A)
        log_pi_taken = log_pi_tm1.gather(1, batch.actions.unsqueeze(1)).squeeze(1)  # (B,)
        log_pi_t = scaled_log_softmax(q_t, self.temperature)  # (B, A)
        pi_t = th.exp(log_pi_t / self.temperature)
        entropy = -(pi_t * log_pi_t).sum(dim=1)  # (B,), multiplied by tau
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
TARGET_POLICY = OpenChoice("target_policy", TargetPolicy, ("__call__",), TARGET_POLICIES, SYNONYMS)
