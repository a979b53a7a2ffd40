"""Target policies: which policy is followed at the next state. Shapes: B batch, A actions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_dqn_ext.batch import Batch

__all__ = ["TARGET_POLICIES", "Double", "Greedy", "TargetPolicy"]

QFunction = Callable[[PyTorchObs], th.Tensor]
"""(B, \\*obs) observations -> (B, A) Q-values"""


class TargetPolicy(Protocol):
    """A value that says which policy the target follows, and what reward it sees on the way."""

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param batch: B transitions
        :param online: the online network
        :param target: the target network
        :param q_t: (B, A) Q-values of the target network at the next observations
        :return: (B, A) probabilities of the next actions, (B,) rewards
        """
        ...


def one_hot_argmax(q: th.Tensor) -> th.Tensor:
    """(B, A) Q-values -> (B, A) the policy that takes the best action, the first of equals."""
    return th.zeros_like(q).scatter_(1, q.argmax(dim=1, keepdim=True), 1.0)


@dataclass(frozen=True)
class Greedy:
    """The action that the target network itself values most (Mnih et al., 2015)."""

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return one_hot_argmax(q_t), batch.rewards


@dataclass(frozen=True)
class Double:
    """The action that the online network values most, valued by the target network (https://arxiv.org/abs/1509.06461)."""

    def __call__(self, batch: Batch, online: QFunction, target: QFunction, q_t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return one_hot_argmax(online(batch.next_observations)), batch.rewards


TARGET_POLICIES: dict[str, Callable[..., TargetPolicy]] = {"greedy": Greedy, "double": Double}
SYNONYMS = {"max": "greedy", "dqn": "greedy", "ddqn": "double", "double_dqn": "double", "double_q": "double"}
