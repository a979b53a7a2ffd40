"""Several updates of the networks as one function of tensors. Shapes: P parameters, k updates, B transitions of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.func import functional_call
from torch.utils._pytree import tree_unflatten

from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.td_loss import TDLoss, TDTarget
from sb3_dqn_ext.fast.flat_adam import adam_step
from sb3_dqn_ext.networks.flat_storage import views_like

__all__ = ["UpdateFunction"]

Tensors = tuple[th.Tensor, ...]


def _named_views(flat: th.Tensor, prefix: str, like: Mapping[str, nn.Parameter]) -> dict[str, th.Tensor]:
    """(P,) numbers -> parts of them by the names of parameters, in their shapes"""
    return {f"{prefix}.{name}": view for name, view in zip(like, views_like(flat, list(like.values())), strict=True)}


@dataclass(frozen=True)
class UpdateFunction:
    """k updates: losses, gradients, clipping, Adam and, where it follows after each of them, the target network."""

    loss: TDLoss
    adam_settings: Mapping[str, Any]
    """``betas``, ``eps``, ``weight_decay`` and ``decoupled_weight_decay`` of torch's Adam"""
    n_updates: int
    """k"""
    structure: Any
    """how the leaves make up a batch, see torch's pytrees; None if each of them is a field"""
    updates_target: bool
    """whether the target network follows after each update"""
    max_finite_norm: float | None
    """the largest gradient norm of an update that is made; None if all are made"""

    def __call__(
        self,
        flat: th.Tensor,
        first: th.Tensor,
        second: th.Tensor,
        steps: th.Tensor,
        flat_target: th.Tensor,
        numbers: th.Tensor,
        settings: th.Tensor,
        *leaves: th.Tensor,
    ) -> Tensors:
        """
        Make the updates in place.

        :param flat: (P,) parameters of the online network
        :param first: (P,) averages of the gradient
        :param second: (P,) averages of its square
        :param steps: (parameters,) numbers of updates
        :param flat_target: (P,) parameters of the target network
        :param numbers: (k, 3) see :meth:`~sb3_dqn_ext.fast.flat_adam.FlatAdam.numbers`
        :param settings: (2,) the norm to which gradients are clipped, and tau
        :param leaves: the tensors of a batch of k * B transitions
        :return: (k,) losses before each update, (k * B,) TD errors of the transitions; and with ``max_finite_norm`` (k,) norms
        """
        batches = self._batch_of(leaves)
        good = th.ones_like(flat[0])
        made = []
        for batch, target, of_step in zip(
            batches.split(self.n_updates), self._targets(batches, flat_target), numbers, strict=True
        ):
            gradient, loss, td_errors = self._gradient(flat, flat_target, batch, target)
            norm = gradient.norm()
            state = (flat, first, second, flat_target) if self.updates_target else (flat, first, second)
            before = [tensor.clone() for tensor in state] if self.max_finite_norm is not None else []
            self._step(state, gradient, norm, of_step, settings)
            if self.max_finite_norm is not None:
                is_good = loss.isfinite() & norm.isfinite() & (norm <= self.max_finite_norm)
                good = th.stack([good, is_good.to(good.dtype)]).amin()  # 0 from the first bad one on
                for tensor, was in zip(state, before, strict=True):
                    tensor.copy_(th.where(good > 0, tensor, was))
            made.append((loss, td_errors, norm))
        steps.add_(self.n_updates)
        losses, td_errors_of_each, norms = zip(*made, strict=True)
        return th.stack(losses), th.cat(td_errors_of_each), *([] if self.max_finite_norm is None else [th.stack(norms)])

    def _batch_of(self, leaves: Tensors) -> Batch:
        fields = leaves if self.structure is None else tree_unflatten(leaves, self.structure)
        return Batch._make([*fields, np.empty(0, dtype=np.int64)])

    def _targets(self, batches: Batch, flat_target: th.Tensor) -> list[Prediction] | list[None]:
        """(k * B,) transitions -> the (B, K) targets of each update, where they can be computed for all of them at once"""
        if not self.loss.targets_are_fixed or self.updates_target:
            return [None] * self.n_updates
        parameters = _named_views(flat_target, "loss.target_net", dict(self.loss.target_net.named_parameters()))
        of_all = functional_call(TDTarget(self.loss), parameters, (batches,))
        return [Prediction(values) for values in of_all.values.chunk(self.n_updates)]

    def _gradient(self, flat: th.Tensor, flat_target: th.Tensor, batch: Batch, target: Prediction | None) -> Tensors:
        """(P,) parameters, and B transitions with their targets -> (P,) gradient, () loss, (B,) TD errors"""
        loss_module = self.loss
        online = _named_views(flat, "online_net", dict(loss_module.online_net.named_parameters()))
        is_one = loss_module.target_net is loss_module.online_net
        of_target = {} if is_one else _named_views(flat_target, "target_net", dict(loss_module.target_net.named_parameters()))

        def weighted(parameters: dict[str, th.Tensor]) -> tuple[th.Tensor, th.Tensor]:
            # where both are one network, torch would put what is traced in the place of its parameters, and leave it there
            losses, td_errors = functional_call(
                loss_module, of_target | parameters, (batch, target), tie_weights=bool(of_target)
            )
            return (batch.weights * losses).mean(), td_errors

        gradients, (loss, td_errors) = th.func.grad_and_value(weighted, has_aux=True)(online)
        return th.cat([gradients[name].reshape(-1) for name in online]), loss, td_errors

    def _step(self, state: Tensors, gradient: th.Tensor, norm: th.Tensor, of_step: th.Tensor, settings: th.Tensor) -> None:
        """Clip the gradient, and change parameters and averages."""
        max_grad_norm, tau = settings
        # the smaller one by a reduction: its result is kept, and not computed anew for each parameter
        clip = th.stack([max_grad_norm / (norm + 1e-6), th.ones_like(gradient[0])]).amin()
        flat, first, second, *followers = state
        adam_step(flat, gradient * clip, (first, second), of_step, self.adam_settings)
        for target in followers:
            target.mul_(1 - tau).add_(flat * tau)
