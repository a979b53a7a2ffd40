"""Losses that are added to the TD loss. Shapes: B batch size, A actions."""

from collections.abc import Mapping
from typing import Any

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_dqn_ext._validation import OpenChoice, check_number
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "AUXILIARY_LOSS",
    "AUXILIARY_LOSSES",
    "AuxiliaryLoss",
    "ConservativeLoss",
    "LargeMarginLoss",
    "make_auxiliary_loss",
]


class AuxiliaryLoss:
    """
    A loss that is added to the TD loss of each transition: a function of Q-values and a batch, or an object that is called as
    one.

    The sum is multiplied by the importance weights and averaged over the batch. Priorities are those of the TD errors alone.
    With ``compile``, it is traced once: it computes with tensors, whose values decide nothing in Python, and leaves the object
    as it is.
    """

    def __call__(self, q_values: th.Tensor, batch: Batch) -> th.Tensor:
        """
        Compute the losses.

        :param q_values: (B, A) the Q-values of the online network, with gradients; the means of distributions of returns. With
            action masks, illegal actions have the lowest value, which a maximum or a softmax leaves out
        :param batch: B transitions. ``batch.demonstrations`` is None if the replay buffer has no demonstrations
        :return: (B,) losses
        """
        raise NotImplementedError


def _taken(q_values: th.Tensor, actions: th.Tensor) -> th.Tensor:
    """Return the (B,) Q-values of the (B,) actions."""
    return q_values.gather(1, actions.unsqueeze(1)).squeeze(1)


class LargeMarginLoss(AuxiliaryLoss):
    """
    The large-margin loss of DQfD (Hester et al., 2018, https://arxiv.org/abs/1704.03732, equation 1), which is 0 for
    transitions that are no demonstrations::

        weight * (max_a [Q(s, a) + margin * (a != a_E)] - Q(s, a_E)),   a_E: the action of the demonstration

    :param margin: the margin by which the Q-value of the demonstrated action exceeds the others where the loss is 0
    :param weight: the weight lambda_2
    :raises ArgumentError: if an argument is negative
    """

    def __init__(self, margin: float = 0.8, weight: float = 1.0) -> None:
        check_number("margin", margin, low=0)
        check_number("weight", weight, low=0)
        self.margin = margin
        self.weight = weight

    def __call__(self, q_values: th.Tensor, batch: Batch) -> th.Tensor:
        assert batch.demonstrations is not None
        margins = self.margin * (1 - F.one_hot(batch.actions, q_values.shape[1]).to(q_values.dtype))  # (B, A)
        losses = (q_values + margins).amax(dim=1) - _taken(q_values, batch.actions)  # (B,)
        return self.weight * losses * batch.demonstrations


class ConservativeLoss(AuxiliaryLoss):
    """
    The regularizer of conservative Q-learning for discrete actions, CQL(H) (Kumar et al., 2020,
    https://arxiv.org/abs/2006.04779, equation 4)::

        alpha * (log sum_a exp Q(s, a) - Q(s, a_data))

    It lowers the Q-values of actions that the data do not contain, about which learning without an environment gets no
    feedback.

    :param alpha: the weight of the loss; the TD loss has the weight 1
    :raises ArgumentError: if it is negative
    """

    def __init__(self, alpha: float = 1.0) -> None:
        check_number("alpha", alpha, low=0)
        self.alpha = alpha

    def __call__(self, q_values: th.Tensor, batch: Batch) -> th.Tensor:
        return self.alpha * (q_values.logsumexp(dim=1) - _taken(q_values, batch.actions))


AUXILIARY_LOSSES: dict[str, type[AuxiliaryLoss]] = {"large_margin": LargeMarginLoss, "cql": ConservativeLoss}
SYNONYMS = {
    "margin": "large_margin",
    "dqfd": "large_margin",
    "supervised": "large_margin",
    "conservative": "cql",
    "conservative_q_learning": "cql",
    "discrete_cql": "cql",
}
AUXILIARY_LOSS = OpenChoice("auxiliary_loss", AuxiliaryLoss, ("__call__",), AUXILIARY_LOSSES, SYNONYMS)


def make_auxiliary_loss(value: object, kwargs: Mapping[str, Any] | None) -> AuxiliaryLoss | None:
    """
    Build an auxiliary loss.

    :param value: a key of ``AUXILIARY_LOSSES``, a class, an object, a function, or a dotted name; None: no loss
    :param kwargs: the arguments of the class
    :return: the loss; None if there is none
    :raises ArgumentError: if it is no auxiliary loss, has no such arguments, or has parameters
    """
    if value is None:
        if kwargs:
            raise ArgumentError(f"auxiliary_loss_kwargs={dict(kwargs)!r} has no effect without auxiliary_loss; give one.")
        return None
    made = AUXILIARY_LOSS.build(value, kwargs or {})
    if isinstance(made, nn.Module) and any(True for _ in made.parameters()):
        raise ArgumentError(f"auxiliary_loss={value!r} has parameters, which no optimizer would train: make them buffers.")
    return made
