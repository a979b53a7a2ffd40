"""Several updates of the networks as one function of tensors. Shapes: P parameters, k updates, B batch size."""

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
from sb3_dqn_ext.fast.optimizer_rules import OptimizerRule, decay_weights
from sb3_dqn_ext.networks.flat_storage import views_like

__all__ = ["UpdateFunction"]

Tensors = tuple[th.Tensor, ...]


def _named_views(flat: th.Tensor, prefix: str, like: Mapping[str, nn.Parameter]) -> dict[str, th.Tensor]:
    """Split a (P,) flat tensor into views with the names and the shapes of parameters."""
    return {f"{prefix}.{name}": view for name, view in zip(like, views_like(flat, list(like.values())), strict=True)}


@dataclass(frozen=True)
class UpdateFunction:
    """A function that makes k updates: loss, gradient, clipping, optimizer and, if it is due each time, the target network."""

    loss: TDLoss
    """The loss."""
    rule: OptimizerRule
    """The equations of the optimizer."""
    optimizer_settings: Mapping[str, Any]
    """The settings of the optimizer that are constants of the rule."""
    n_updates: int
    """k, the number of updates."""
    fields: tuple[str, ...]
    """The names of the fields of a batch that are given; the others are None."""
    structure: Any
    """The structure of these fields as a pytree of torch; None if each leaf is a field."""
    updates_target: bool
    """Whether the target network is updated after each gradient step."""
    max_finite_norm: float | None
    """The largest gradient norm of an update that is not skipped; None: no update is skipped."""

    def __call__(
        self,
        flat: th.Tensor,
        flat_target: th.Tensor,
        *tensors: th.Tensor,
    ) -> Tensors:
        """
        Make the updates in place.

        :param flat: (P,) parameters of the online network
        :param flat_target: (P,) parameters of the target network
        :param tensors: the (P,) state tensors of the optimizer; the (k, C) result of
            :meth:`~sb3_dqn_ext.fast.flat_optimizer.FlatOptimizer.step_coefficients`; (2,) the norm to which gradients are
            clipped, and tau; then the tensors of k concatenated batches of B transitions
        :return: (k,) losses before each update, (k * B,) TD errors; also (k,) norms of the gradients with ``max_finite_norm``
        """
        n_averages = len(self.rule.averages)
        averages, (step_coefficients, settings, *leaves) = tensors[:n_averages], tensors[n_averages:]
        batches = self._batch_of(tuple(leaves))
        all_finite = th.ones_like(flat[0])
        results = []
        for batch, target, coefficients in zip(
            batches.split(self.n_updates), self._targets(batches, flat_target), step_coefficients, strict=True
        ):
            gradient, loss, td_errors = self._gradient(flat, flat_target, batch, target)
            norm = gradient.norm()
            state = (flat, *averages, *([flat_target] if self.updates_target else []))
            before = [tensor.clone() for tensor in state] if self.max_finite_norm is not None else []
            self._step(state, gradient, norm, coefficients, settings)
            if self.max_finite_norm is not None:
                is_finite = loss.isfinite() & norm.isfinite() & (norm <= self.max_finite_norm)
                # 0 from the first update that is not finite
                all_finite = th.stack([all_finite, is_finite.to(all_finite.dtype)]).amin()
                for tensor, previous in zip(state, before, strict=True):
                    tensor.copy_(th.where(all_finite > 0, tensor, previous))
            results.append((loss, td_errors, norm))
        losses, td_errors_of_each, norms = zip(*results, strict=True)
        return th.stack(losses), th.cat(td_errors_of_each), *([] if self.max_finite_norm is None else [th.stack(norms)])

    def _batch_of(self, leaves: Tensors) -> Batch:
        values = leaves if self.structure is None else tree_unflatten(leaves, self.structure)
        given: dict[str, Any] = dict(zip(self.fields, values, strict=True))
        fields: dict[str, Any] = dict.fromkeys(Batch._fields)
        return Batch(**fields | {"indices": np.empty(0, dtype=np.int64)} | given)

    def _targets(self, batches: Batch, flat_target: th.Tensor) -> list[Prediction] | list[None]:
        """Return the (B, K) targets of each update if one computation is valid for all of them, else None for each."""
        if not self.loss.targets_are_fixed or self.updates_target:
            return [None] * self.n_updates
        parameters = _named_views(flat_target, "loss.target_net", dict(self.loss.target_net.named_parameters()))
        targets = functional_call(TDTarget(self.loss), parameters, (batches,))
        return [Prediction(values) for values in targets.values.chunk(self.n_updates)]

    def _gradient(self, flat: th.Tensor, flat_target: th.Tensor, batch: Batch, target: Prediction | None) -> Tensors:
        """Return the (P,) gradient, the () loss and the (B,) TD errors of a batch."""
        loss_module = self.loss
        online_parameters = _named_views(flat, "online_net", dict(loss_module.online_net.named_parameters()))
        same_net = loss_module.target_net is loss_module.online_net
        target_parameters = (
            {} if same_net else _named_views(flat_target, "target_net", dict(loss_module.target_net.named_parameters()))
        )

        def weighted_loss(parameters: dict[str, th.Tensor]) -> tuple[th.Tensor, th.Tensor]:
            # with tie_weights, torch would replace the parameters of a network that is online and target network by traced
            # tensors, and not restore them
            losses, td_errors = functional_call(
                loss_module, target_parameters | parameters, (batch, target), tie_weights=bool(target_parameters)
            )
            return (batch.weights * losses).mean(), td_errors

        gradients, (loss, td_errors) = th.func.grad_and_value(weighted_loss, has_aux=True)(online_parameters)
        return th.cat([gradients[name].reshape(-1) for name in online_parameters]), loss, td_errors

    def _step(
        self, state: Tensors, gradient: th.Tensor, norm: th.Tensor, coefficients: th.Tensor, settings: th.Tensor
    ) -> None:
        """
        Clip the gradient, make a step of the optimizer, and update the target network. All tensors of ``state`` are changed in
        place.

        :param state: the (P,) parameters, the (P,) state tensors of the optimizer, and, if the target network is due, its (P,)
            parameters
        :param gradient: (P,) the gradient before it is clipped
        :param norm: () the norm of the gradient
        :param coefficients: (C,) the numbers of the optimizer that depend on the step
        :param settings: (2,) the norm to which the gradient is clipped, and tau of the target network
        """
        max_grad_norm, tau = settings
        # min(1, max_grad_norm / norm) as a reduction: its result is stored instead of being recomputed for each parameter
        clip = th.stack([max_grad_norm / (norm + 1e-6), th.ones_like(gradient[0])]).amin()
        n_averages = len(self.rule.averages)
        flat, averages, target_nets = state[0], state[1 : 1 + n_averages], state[1 + n_averages :]
        gradient = decay_weights(flat, gradient * clip, coefficients[0], self.optimizer_settings)
        self.rule.tensor_step(flat, gradient, averages, coefficients.unbind(), self.optimizer_settings)
        for target in target_nets:
            target.mul_(1 - tau).add_(flat * tau)
