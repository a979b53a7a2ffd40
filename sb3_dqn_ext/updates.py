"""The gradient steps of a model, eager or compiled, and the updates of its target network. Shape: B transitions of a batch."""

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
from sb3_dqn_ext.fast.compiled import CompiledUpdates, parse_unroll, unsupported_reason_compiled
from sb3_dqn_ext.fast.flat_adam import FlatAdam, unsupported_reason_flat
from sb3_dqn_ext.fast.numpy_forward import QValues, chooses_greedy_actions, has_replaced_methods
from sb3_dqn_ext.networks.hooks import NetworkSnapshot, describe_optimizer_hooks
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.networks.q_network import QNetwork

__all__ = ["TrainableModel", "UpdateGuard", "Updater"]


class UpdateGuard(Protocol):
    """Checks of the numbers of an update."""

    def check_rate(self) -> None:
        """:raises NonFiniteError: if the learning rate is not finite"""

    def check_update(self, loss: float, norm: float, max_grad_norm: float | None = None, n_before: int = 0) -> None:
        """:raises NonFiniteError: if an update with this loss and gradient norm would not be finite"""


class TrainableModel(Protocol):
    """The attributes of a model on which its gradient steps depend. A user may change all of them between two trainings."""

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
    n_envs: int
    verbose: int
    replay_buffer: Any
    _n_updates: int


def _parts(model: TrainableModel, target_policy: TargetPolicy) -> tuple[Any, ...]:
    """The objects of which an updater is made."""
    return model.policy, model.q_net, model.q_net_target, model.policy.optimizer, target_policy, model.compile


def _moves_target_each_time(model: TrainableModel) -> bool:
    return model.target_network and model.target_update_unit == "gradient_steps" and model.target_update_interval == 1


class Updater:
    """
    Makes gradient steps with a model's networks and optimizer, as fast as what is attached to them allows.

    It keeps no reference to the model, whose replay buffer is freed with it.

    :param model: the model
    :param target_policy: the policy that is followed at the next state
    :param known_reasons: the reasons for eager training of which a warning was given
    """

    def __init__(self, model: TrainableModel, target_policy: TargetPolicy, known_reasons: set[str]) -> None:
        policy, q_net, q_net_target = model.policy, model.q_net, model.q_net_target
        for net in (q_net, q_net_target):
            if isinstance(net, QNetwork):
                net.find_noisy_layers()
        returns = getattr(policy, "return_model", None) or ExpectedReturns()
        self.loss = TDLoss(q_net, q_net_target, returns, target_policy, getattr(policy, "fit", fit_taken))
        self._made_of = _parts(model, target_policy)
        self._snapshot = NetworkSnapshot([policy, q_net, q_net_target])
        self._known_reasons = known_reasons
        self._online_params, self._target_params = list(q_net.parameters()), list(q_net_target.parameters())
        self._clipped_params = list(policy.parameters())
        self._running_averages, self._target_averages = (
            [buffer for name, buffer in net.named_buffers() if "running_" in name] for net in (q_net, q_net_target)
        )
        self.adam = FlatAdam(self._online_params, policy.optimizer)
        self._can_be_flat = unsupported_reason_flat(self._online_params, policy.optimizer) is None
        self._acts_by_network = chooses_greedy_actions(type(policy), type(q_net))
        self._modes_matter = getattr(policy, "depends_on_training_mode", True)
        self._compilable = self._make_compiled(model)
        self._choose_path(model)

    def _make_compiled(self, model: TrainableModel) -> CompiledUpdates | None:
        unroll = parse_unroll(model.compile)
        if not unroll:
            return None
        reason = (
            "its batches differ in size (n_epochs)"
            if model.n_epochs
            else unsupported_reason_compiled(self.loss, model.policy.optimizer)
        )
        if reason is None:
            return CompiledUpdates(self.loss, self.adam, unroll, model.n_envs, model.verbose)
        self._warn_of_eager_training(model, reason)
        return None

    def _warn_of_eager_training(self, model: TrainableModel, reason: str) -> None:
        if reason not in self._known_reasons:
            self._known_reasons.add(reason)
            warnings.warn(f"compile={model.compile!r} has no effect, training is eager: {reason}.", stacklevel=5)

    # what users change, and what they attach

    def is_current(self, model: TrainableModel, target_policy: TargetPolicy) -> bool:
        """
        :param model: the model
        :param target_policy: the policy that is followed at the next state
        :return: whether its networks and its optimizer, and all modules and parameters in them, are those of this updater
        """
        return all(map(is_, _parts(model, target_policy), self._made_of)) and self._snapshot.is_current()

    def detect_hooks(self, model: TrainableModel) -> None:
        """
        Take the eager path if something is attached to the networks or the optimizer, which faster code would skip.

        :param model: the model
        """
        if self._attached != (self._snapshot.describe_hooks(), describe_optimizer_hooks(model.policy.optimizer)):
            self._choose_path(model)
        self._is_own_actor = has_replaced_methods(model.policy, model.q_net)

    def _choose_path(self, model: TrainableModel) -> None:
        self._attached = of_networks, of_optimizer = (
            self._snapshot.describe_hooks(),
            describe_optimizer_hooks(model.policy.optimizer),
        )
        self._is_flat = self._can_be_flat and of_optimizer is None
        self._is_own_actor = has_replaced_methods(model.policy, model.q_net)
        self.compiled = self._compilable if of_networks is None and of_optimizer is None else None
        if self._compilable is not None and self.compiled is None:
            self._warn_of_eager_training(model, of_networks or of_optimizer or "")

    @property
    def numpy_q_values(self) -> QValues | None:
        """The Q-values of the online network in numpy, where the policy chooses its actions by nothing else."""
        if self.compiled is None or self._is_own_actor or not self._acts_by_network:
            return None
        return self.compiled.q_values

    def set_training_mode(self, policy: Any, mode: bool) -> None:
        """
        Put the policy into training or evaluation mode, unless that changes nothing.

        :param policy: the policy of the model
        :param mode: True for training
        """
        if self._modes_matter or "set_training_mode" in vars(policy):
            policy.set_training_mode(mode)

    # the target network

    def update_target(self, tau: float) -> None:
        """
        Move the target network towards the online network.

        :param tau: the share of the online network's parameters
        """
        polyak_update(self._online_params, self._target_params, tau)
        polyak_update(self._running_averages, self._target_averages, 1.0)

    def _until_target_update(self, model: TrainableModel) -> float:
        """The number of updates until the target network is updated between two of them."""
        if model.target_update_unit == "env_steps" or (self.compiled is not None and self.compiled.updates_target):
            return math.inf
        return model.target_update_interval - model._n_updates % model.target_update_interval

    def _count(self, model: TrainableModel, n_updates: int) -> None:
        before = self._until_target_update(model)
        model._n_updates += n_updates
        if n_updates >= before and model.target_network:
            self.update_target(model.tau)

    # gradient steps

    def begin_training(self, model: TrainableModel, guard: UpdateGuard | None) -> None:
        """
        Begin a training.

        :param model: the model
        :param guard: checks the numbers of each update
        """
        if self.compiled is not None:
            tau = model.tau if _moves_target_each_time(model) else None
            self.compiled.configure(model.max_grad_norm, tau, guard is not None)
        if guard is not None:
            guard.check_rate()

    def n_updates_per_call(self, model: TrainableModel, n_left: int) -> int:
        """
        :param model: the model
        :param n_left: the number of updates that are left
        :return: the number of updates that the next call can make
        """
        compiled = self.compiled
        if compiled is None or min(n_left, self._until_target_update(model)) < compiled.unroll:
            return 1
        return compiled.unroll

    def update(self, model: TrainableModel, batches: Batch, n_updates: int, guard: UpdateGuard | None) -> th.Tensor:
        """
        Make gradient steps, update the target network where that is due, and pass the TD errors to the replay buffer.

        :param model: the model
        :param batches: as many batches as there are updates, one after the other
        :param n_updates: the number of updates
        :param guard: checks the numbers of each update
        :return: (updates,) losses before each update; an optimizer per head makes one update for each head
        :raises NonFiniteError: if the guard finds a number that is not finite
        """
        if self.compiled is not None:
            try:
                return self._compiled_update(model, self.compiled, batches, n_updates, guard)
            except CompilationError as error:
                warnings.warn(str(error), stacklevel=3)
                self.compiled = self._compilable = None
        if n_updates > 1:  # which were to be compiled
            return th.cat([self.update(model, batch, 1, guard) for batch in batches.split(n_updates)])
        optimizer = model.policy.optimizer
        parts = optimizer.split_batch(batches) if isinstance(optimizer, OptimizerPerHead) else [(optimizer, batches)]
        losses = [self.gradient_step(model, of_part, part, guard) for of_part, part in parts]
        self._count(model, 1)
        return th.stack(losses)

    def _compiled_update(
        self, model: TrainableModel, compiled: CompiledUpdates, batches: Batch, n_updates: int, guard: UpdateGuard | None
    ) -> th.Tensor:
        losses, td_errors, *norms = compiled(batches, n_updates)
        if guard is not None and norms and not math.hypot(*losses.tolist(), *norms[0].tolist()) <= MAX_FINITE:
            self._check_compiled(model, compiled, batches, losses.tolist(), norms[0].tolist(), guard)
        self._update_priorities(model, batches, td_errors)
        self._count(model, n_updates)
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
        """:raises NonFiniteError: if an update of a call was left out; it is then as if the call had ended before"""
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
            if non_finite_reason(loss, norm, max_finite_norm(model.max_grad_norm)) is not None:
                compiled.subtract_skipped_updates(len(losses) - i)
                model._n_updates += i
                self.backward(model, batches.split(len(losses))[i])  # it shows which parameters have such a gradient
                guard.check_update(loss, norm, model.max_grad_norm)

    def gradient_step(
        self, model: TrainableModel, optimizer: th.optim.Optimizer, batch: Batch, guard: UpdateGuard | None
    ) -> th.Tensor:
        """
        Make one eager gradient step.

        :param model: the model
        :param optimizer: its optimizer, or that of one head
        :param batch: B transitions
        :param guard: checks the numbers of the update
        :return: () the loss before it
        """
        loss, td_errors = self.backward(model, batch)
        max_grad_norm = model.max_grad_norm
        check = None if guard is None else partial(guard.check_update, loss.item(), max_grad_norm=max_grad_norm)
        if not (self._is_flat and self.adam.step(max_grad_norm, check)):
            if check is not None:
                check(th.nn.utils.get_total_norm([of.grad for of in self._clipped_params if of.grad is not None]).item())
            th.nn.utils.clip_grad_norm_(self._clipped_params, max_grad_norm)
            optimizer.step()
        self._update_priorities(model, batch, td_errors)
        return loss

    def backward(self, model: TrainableModel, batch: Batch) -> tuple[th.Tensor, th.Tensor]:
        """
        Compute the gradient of a batch's loss.

        :param model: the model
        :param batch: B transitions
        :return: () the loss and (B,) the TD errors of the transitions
        """
        losses, td_errors = self.loss(batch)
        loss = losses.mean() if batch.weights is None else (batch.weights * losses).mean()
        if self._is_flat:
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
