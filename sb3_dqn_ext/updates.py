"""Gradient steps of a model, eager or compiled, and updates of its target network. Shapes: B batch size."""

import math
import warnings
from collections.abc import Mapping
from functools import partial
from operator import is_
from typing import Any, Protocol

import torch as th
from stable_baselines3.common.utils import polyak_update

from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.finite_updates import MAX_FINITE, max_finite_norm, non_finite_reason
from sb3_dqn_ext.algorithm.fitted_actions import fit_taken
from sb3_dqn_ext.algorithm.target_policies import TargetPolicy
from sb3_dqn_ext.algorithm.td_loss import TDLoss
from sb3_dqn_ext.algorithm.value_models import ExpectedReturns
from sb3_dqn_ext.fast.compilation import CompilationError
from sb3_dqn_ext.fast.compiled import CompiledUpdates, parse_compile, unsupported_reason_compiled
from sb3_dqn_ext.fast.flat_optimizer import FlatOptimizer, unsupported_reason_flat
from sb3_dqn_ext.fast.numpy_forward import QValues, chooses_greedy_actions, has_replaced_methods
from sb3_dqn_ext.networks.hooks import NetworkSnapshot, describe_optimizer_hooks
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.networks.q_network import QNetwork

__all__ = ["TrainableModel", "UpdateGuard", "Updater"]


class UpdateGuard(Protocol):
    """A check that gradient steps are finite."""

    def check_rate(self) -> None:
        """Check the learning rate, and raise a NonFiniteError if it is not finite."""

    def check_update(self, loss: float, norm: float, max_grad_norm: float | None = None, n_before: int = 0) -> None:
        """
        Check a gradient step before it is made.

        :param loss: the loss of the batch
        :param norm: the norm of its gradient
        :param max_grad_norm: the norm to which gradients are clipped; None: they are not clipped
        :param n_before: the number of updates of the same call that precede it
        :raises NonFiniteError: if the step would not be finite
        """


class TrainableModel(Protocol):
    """The attributes of a model on which its gradient steps depend. A user can change all of them between two trainings."""

    policy: Any
    q_net: Any
    q_net_target: Any
    target_network: bool
    target_update_unit: str
    target_update_interval: int
    tau: float
    max_grad_norm: float
    compile: bool | Mapping[str, Any]
    n_epochs: int | None
    batch_size: int
    n_envs: int
    verbose: int
    replay_buffer: Any
    _n_updates: int


def _components(model: TrainableModel, target_policy: TargetPolicy) -> tuple[Any, ...]:
    """Return the objects from which an updater is made."""
    return model.policy, model.q_net, model.q_net_target, model.policy.optimizer, target_policy, model.compile


def _updates_target_each_step(model: TrainableModel) -> bool:
    return model.target_network and model.target_update_unit == "gradient_steps" and model.target_update_interval == 1


class Updater:
    """
    A maker of gradient steps for a model's networks and optimizer.

    It takes the fastest path that calls all hooks that users have registered. It does not refer to the model, so that the
    replay buffer is freed with the model.

    :param model: the model
    :param target_policy: the policy at the next state
    :param reported_reasons: the reasons for eager training about which the user was warned; new ones are added
    """

    def __init__(self, model: TrainableModel, target_policy: TargetPolicy, reported_reasons: set[str]) -> None:
        policy, q_net, q_net_target = model.policy, model.q_net, model.q_net_target
        for net in (q_net, q_net_target):
            if isinstance(net, QNetwork):
                net.find_noisy_layers()
        returns = getattr(policy, "return_model", None) or ExpectedReturns()
        fit, auxiliary_loss = getattr(policy, "fit", fit_taken), getattr(policy, "auxiliary", None)
        self.loss = TDLoss(q_net, q_net_target, returns, target_policy, fit, auxiliary_loss)
        self._components = _components(model, target_policy)
        self._snapshot = NetworkSnapshot([policy, q_net, q_net_target])
        self._reported_reasons = reported_reasons
        self._online_params, self._target_params = list(q_net.parameters()), list(q_net_target.parameters())
        self._clipped_params = list(policy.parameters())
        self._running_averages, self._target_averages = (
            [buffer for name, buffer in net.named_buffers() if "running_" in name] for net in (q_net, q_net_target)
        )
        is_flat = unsupported_reason_flat(self._online_params, policy.optimizer) is None
        self.flat_optimizer = FlatOptimizer(self._online_params, policy.optimizer) if is_flat else None
        self._chooses_greedy_actions = chooses_greedy_actions(type(policy), type(q_net))
        self._depends_on_training_mode = getattr(policy, "depends_on_training_mode", True)
        self._compilable = self._make_compiled(model)
        self._choose_path(model)

    def _make_compiled(self, model: TrainableModel) -> CompiledUpdates | None:
        unroll, cuda_graphs = parse_compile(model.compile)
        if not unroll:
            return None
        reason = unsupported_reason_compiled(self.loss, model.policy.optimizer)
        if reason is not None:
            self._warn_of_eager_training(model, reason)
            return None
        assert self.flat_optimizer is not None
        device = self._online_params[0].device.type
        if cuda_graphs and device != "cuda":
            self._warn_once(device, f"compile['cuda_graphs'] has no effect: the networks are on {device!r}, not on 'cuda'.", 5)
        return CompiledUpdates(
            self.loss, self.flat_optimizer, unroll, model.n_envs, model.verbose, cuda_graphs and device == "cuda"
        )

    def _warn_of_eager_training(self, model: TrainableModel, reason: str) -> None:
        self._warn_once(reason, f"compile={model.compile!r} has no effect, training is eager: {reason}.", 6)

    def _warn_once(self, reason: str, message: str, stacklevel: int) -> None:
        if reason not in self._reported_reasons:
            self._reported_reasons.add(reason)
            warnings.warn(message, stacklevel=stacklevel)

    # changes by users, and their hooks

    def is_current(self, model: TrainableModel, target_policy: TargetPolicy) -> bool:
        """
        Return whether the updater fits the model: no network, module, parameter or optimizer was replaced since it was made.

        :param model: the model
        :param target_policy: the policy at the next state
        """
        return all(map(is_, _components(model, target_policy), self._components)) and self._snapshot.is_current()

    def detect_hooks(self, model: TrainableModel) -> None:
        """
        Detect hooks on networks and optimizer, and take the eager path if there are any, since faster paths would skip them.

        :param model: the model
        """
        if self._hooks != (self._snapshot.describe_hooks(), describe_optimizer_hooks(model.policy.optimizer)):
            self._choose_path(model)
        self._has_replaced_methods = has_replaced_methods(model.policy, model.q_net)

    def _choose_path(self, model: TrainableModel) -> None:
        self._hooks = network_hooks, optimizer_hooks = (
            self._snapshot.describe_hooks(),
            describe_optimizer_hooks(model.policy.optimizer),
        )
        self._used_flat_optimizer = self.flat_optimizer if optimizer_hooks is None else None
        self._has_replaced_methods = has_replaced_methods(model.policy, model.q_net)
        self.compiled = self._compilable if network_hooks is None and optimizer_hooks is None else None
        if self._compilable is not None and self.compiled is None:
            self._warn_of_eager_training(model, network_hooks or optimizer_hooks or "")

    @property
    def acts_greedily(self) -> bool:
        """Whether the policy's actions are those with the highest Q-values of its online network."""
        return self._chooses_greedy_actions and not self._has_replaced_methods

    @property
    def numpy_q_values(self) -> QValues | None:
        """A numpy function for the online network's Q-values, if the policy's actions depend on nothing else; else None."""
        if self.compiled is None or not self.acts_greedily:
            return None
        return self.compiled.q_values

    def set_training_mode(self, policy: Any, mode: bool) -> None:
        """
        Put the policy into training or evaluation mode, unless no layer depends on the mode.

        :param policy: the policy of the model
        :param mode: True for training mode
        """
        if self._depends_on_training_mode or "set_training_mode" in vars(policy):
            policy.set_training_mode(mode)

    # the target network

    def update_target(self, tau: float) -> None:
        """
        Update the target network: ``theta_target = tau * theta + (1 - tau) * theta_target``.

        :param tau: the weight of the online network's parameters
        """
        polyak_update(self._online_params, self._target_params, tau)
        polyak_update(self._running_averages, self._target_averages, 1.0)

    def _updates_until_target_update(self, model: TrainableModel) -> float:
        """Return the number of gradient steps until the next update of the target network."""
        if model.target_update_unit == "env_steps" or (self.compiled is not None and self.compiled.updates_target):
            return math.inf
        return model.target_update_interval - model._n_updates % model.target_update_interval

    def _count_updates(self, model: TrainableModel, n_updates: int) -> None:
        before = self._updates_until_target_update(model)
        model._n_updates += n_updates
        if n_updates >= before and model.target_network:
            self.update_target(model.tau)

    # gradient steps

    def begin_training(self, model: TrainableModel, guard: UpdateGuard | None) -> None:
        """
        Apply the model's present settings, and check the learning rate.

        :param model: the model
        :param guard: the check of the gradient steps; None: they are not checked
        """
        if self.compiled is not None:
            tau = model.tau if _updates_target_each_step(model) else None
            self.compiled.configure(model.max_grad_norm, tau, guard is not None)
        if guard is not None:
            guard.check_rate()

    def n_updates_per_call(self, model: TrainableModel, n_left: int) -> int:
        """
        Return the number of updates that the next call of :meth:`update` can make.

        :param model: the model
        :param n_left: the number of remaining updates of the training
        """
        compiled = self.compiled
        if compiled is None or min(n_left, self._updates_until_target_update(model)) < compiled.unroll:
            return 1
        return compiled.unroll

    def update(self, model: TrainableModel, batches: Batch, n_updates: int, guard: UpdateGuard | None) -> th.Tensor:
        """
        Make gradient steps, update the target network if it is due, and update the priorities of the replay buffer.

        :param model: the model
        :param batches: one batch for each update, concatenated
        :param n_updates: the number of updates
        :param guard: the check of the gradient steps; None: they are not checked
        :return: (n_updates,) losses before each update; with an optimizer per head there is one for each head in the batch
        :raises NonFiniteError: if the guard finds a number that is not finite
        """
        if self.compiled is not None and not self._is_remainder(model, batches):
            try:
                return self._compiled_update(model, self.compiled, batches, n_updates, guard)
            except CompilationError as error:
                warnings.warn(str(error), stacklevel=3)
                self.compiled = self._compilable = None
        if n_updates > 1:  # the batches of a call that could not be compiled
            return th.cat([self.update(model, batch, 1, guard) for batch in batches.split(n_updates)])
        optimizer = model.policy.optimizer
        parts = optimizer.split_batch(batches) if isinstance(optimizer, OptimizerPerHead) else [(optimizer, batches)]
        losses = [self.gradient_step(model, part_optimizer, part, guard) for part_optimizer, part in parts]
        self._count_updates(model, 1)
        if self.compiled is not None and self.compiled.updates_target:
            self.update_target(model.tau)
        return th.stack(losses)

    @staticmethod
    def _is_remainder(model: TrainableModel, batch: Batch) -> bool:
        """Return whether a batch is the smaller last one of an epoch, which is not worth a compilation for its size."""
        return model.n_epochs is not None and len(batch.actions) % model.batch_size != 0

    def _compiled_update(
        self, model: TrainableModel, compiled: CompiledUpdates, batches: Batch, n_updates: int, guard: UpdateGuard | None
    ) -> th.Tensor:
        losses, td_errors, *norms = compiled(batches, n_updates)
        if guard is not None and norms and not math.hypot(*losses.tolist(), *norms[0].tolist()) <= MAX_FINITE:
            self._check_compiled(model, compiled, batches, losses.tolist(), norms[0].tolist(), guard)
        self._update_priorities(model, batches, td_errors)
        self._count_updates(model, n_updates)
        return losses

    def _check_compiled(
        self,
        model: TrainableModel,
        compiled: CompiledUpdates,
        batches: Batch,
        losses: list[float],
        norms: list[float],
        guard: UpdateGuard,
    ) -> None:
        """Raise a NonFiniteError if the call has skipped an update. All state is then that before the skipped update."""
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            if non_finite_reason(loss, norm, max_finite_norm(model.max_grad_norm)) is not None:
                compiled.subtract_skipped_updates(len(losses) - i)
                model._n_updates += i
                self.backward(
                    model, batches.split(len(losses))[i]
                )  # the error message lists the parameters with such a gradient
                guard.check_update(loss, norm, model.max_grad_norm)

    def gradient_step(
        self, model: TrainableModel, optimizer: th.optim.Optimizer, batch: Batch, guard: UpdateGuard | None
    ) -> th.Tensor:
        """
        Make one eager gradient step.

        :param model: the model
        :param optimizer: its optimizer, or the optimizer of one head
        :param batch: B transitions
        :param guard: the check of the gradient step; None: it is not checked
        :return: () loss before the step
        """
        loss, td_errors = self.backward(model, batch)
        max_grad_norm = model.max_grad_norm
        check = None if guard is None else partial(guard.check_update, loss.item(), max_grad_norm=max_grad_norm)
        if self._used_flat_optimizer is None or not self._used_flat_optimizer.step(max_grad_norm, check):
            if check is not None:
                check(
                    th.nn.utils.get_total_norm(
                        [parameter.grad for parameter in self._clipped_params if parameter.grad is not None]
                    ).item()
                )
            th.nn.utils.clip_grad_norm_(self._clipped_params, max_grad_norm)
            optimizer.step()
        self._update_priorities(model, batch, td_errors)
        return loss

    def backward(self, model: TrainableModel, batch: Batch) -> tuple[th.Tensor, th.Tensor]:
        """
        Compute the gradient of a batch's loss, the mean over its transitions, weighted by importance sampling weights if any.

        :param model: the model
        :param batch: B transitions
        :return: () loss, (B,) TD errors
        """
        losses, td_errors = self.loss(batch)
        loss = losses.mean() if batch.weights is None else (batch.weights * losses).mean()
        if self._used_flat_optimizer is not None:
            for parameter in self._online_params:
                parameter.grad = None
        else:
            model.policy.optimizer.zero_grad()
        loss.backward()
        return loss.detach(), td_errors.detach()

    def _update_priorities(self, model: TrainableModel, batch: Batch, td_errors: th.Tensor) -> None:
        sampler = getattr(model.replay_buffer, "sampler", None)
        if sampler is not None and sampler.uses_td_errors:
            sampler.update_priorities(batch.indices, td_errors.abs().cpu().double().numpy())
