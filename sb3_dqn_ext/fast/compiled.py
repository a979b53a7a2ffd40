"""Whole updates as compiled functions: losses, gradients, clipping, Adam and, where it is due, the target network."""

from collections.abc import Callable, Mapping
from typing import Any

import torch as th
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten

from sb3_dqn_ext._validation import check_keys, check_number
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.finite_updates import max_finite_norm
from sb3_dqn_ext.algorithm.td_loss import TDLoss
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.compilation import CompilationError, announce_compilation, compile_function
from sb3_dqn_ext.fast.flat_adam import FlatAdam, unsupported_reason_flat
from sb3_dqn_ext.fast.numpy_forward import QValues, make_numpy_q_values
from sb3_dqn_ext.fast.update_function import Tensors, UpdateFunction
from sb3_dqn_ext.networks.flat_storage import flatten_parameters

__all__ = ["CompiledUpdates", "parse_unroll", "unsupported_reason_compiled"]

UNROLL = 4
"""number of updates of one call, where there are so many: with more, compilation takes longer than it saves"""


def parse_unroll(compile: bool | Mapping[str, Any]) -> int:
    """
    :param compile: the argument of DQNExt
    :return: the largest number of updates of one call; 0 if nothing is compiled
    :raises ArgumentError: if it is neither True nor False nor ``{"unroll": k}``
    """
    if isinstance(compile, bool):
        return UNROLL if compile else 0
    if not isinstance(compile, Mapping):
        raise ArgumentError(f"compile={compile!r} must be True, False or a mapping such as {{'unroll': 4}}.")
    check_keys("compile", compile, {"unroll"})
    unroll = compile.get("unroll", UNROLL)
    check_number("compile['unroll']", unroll, low=1, integer=True)
    return int(unroll)


def unsupported_reason_compiled(loss: TDLoss, optimizer: th.optim.Optimizer) -> str | None:
    """
    :param loss: the loss whose updates would be compiled
    :param optimizer: the optimizer of its online network
    :return: the reason why they cannot be, None if there is no known one
    """
    if any(isinstance(layer, _BatchNorm) for layer in loss.online_net.modules()):
        return "batch normalisation changes its averages at every batch"
    return unsupported_reason_flat(list(loss.online_net.parameters()), optimizer)


class CompiledUpdates:
    """
    Updates of a loss's online network, each as the eager path makes it, in functions that torch has compiled.

    They work on the one tensor of :class:`~sb3_dqn_ext.fast.flat_adam.FlatAdam`, and on one of the target network's: a
    function has few arguments, and one loop over all parameters is enough. The first call with another number of updates or
    another batch size compiles a function, or finds it in torch's cache.

    :param loss: the losses of a batch
    :param adam: the optimizer of its online network
    :param unroll: the number of updates for which a function of its own is compiled
    :param n_envs: the number of observations for which actions are chosen at a time
    :param verbose: the verbosity of the model
    """

    def __init__(self, loss: TDLoss, adam: FlatAdam, unroll: int, n_envs: int = 1, verbose: int = 0) -> None:
        self.loss = loss
        self.adam = adam
        self.unroll = unroll
        self.n_envs = n_envs
        self.verbose = verbose
        self.updates_target = False
        self._settings: tuple[float, float | None, bool] | None = None
        self._functions: dict[tuple[Any, ...], Callable[..., Tensors]] = {}
        self._largest_norm: float | None = None
        self._settings_tensor: th.Tensor | None = None
        self._target_parameters = list(loss.target_net.parameters())
        self._flat_target: th.Tensor | None = None
        self._values: QValues | None = None
        self._ones: th.Tensor | None = None

    @property
    def q_values(self) -> QValues | None:
        """
        The online network's Q-values in numpy, once there was an update, if it is simple and small enough; None as long as its
        parameters are elsewhere, for example in memory that is shared with another process.
        """
        return self._values if self.adam.is_bound else None

    def configure(self, max_grad_norm: float, tau: float | None, guarded: bool) -> None:
        """
        Take over what a callback may change from training to training.

        :param max_grad_norm: the norm to which gradients are clipped
        :param tau: the share by which the target network follows after each update; None if it is updated elsewhere
        :param guarded: whether the first update of a call that would not be finite is left out, with those after it
        """
        if (max_grad_norm, tau, guarded) != self._settings:
            self._settings = max_grad_norm, tau, guarded
            self._largest_norm = max_finite_norm(max_grad_norm) if guarded else None
            self.updates_target = tau is not None
            self._settings_tensor = None

    def __call__(self, batches: Batch, n_updates: int) -> Tensors:
        """
        :param batches: k batches of B transitions, one after the other in its (k * B, ...) tensors
        :param n_updates: k
        :return: (k,) losses before each update, (k * B,) TD errors of the transitions; and if it is guarded, (k,) norms
            of the gradients
        :raises CannotCompile: if torch cannot compile the loss
        """
        with self.adam.lock:
            return self._call(batches, n_updates)

    def _call(self, batches: Batch, n_updates: int) -> Tensors:
        if not self._functions:
            self._check(batches)
        self.bind_storage()
        adam, group = self.adam, self.adam.group
        if batches.weights is None:  # one function is enough
            batches = batches._replace(weights=self._ones_like(batches.rewards))
        *fields, _ = batches
        # the structure of a flat list is known
        leaves, structure = (fields, None) if isinstance(fields[0], th.Tensor) else tree_flatten(fields)
        assert self._flat_target is not None
        state = adam.flat, adam.exp_avg, adam.exp_avg_sq, adam.steps, self._flat_target
        arguments = [*state, adam.step_coefficients(n_updates), self._followed(), *leaves]
        # the numbers that are constants of a function
        constants = group["betas"], group["eps"], group["weight_decay"], self.updates_target, self._largest_norm
        key = n_updates, len(batches.actions), *constants
        with th.no_grad():
            if key not in self._functions:
                function = UpdateFunction(self.loss, group, n_updates, structure, self.updates_target, self._largest_norm)
                with announce_compilation(self.verbose):
                    self._functions[key] = compile_function(function, arguments)
            return self._functions[key](*arguments)

    def _ones_like(self, rewards: th.Tensor) -> th.Tensor:
        if self._ones is None or self._ones.shape != rewards.shape or self._ones.dtype != rewards.dtype:
            self._ones = th.ones_like(rewards)
        return self._ones

    def _followed(self) -> th.Tensor:
        """(2,) the norm to which gradients are clipped, and tau: a tensor, so that another value needs no other function."""
        if self._settings_tensor is None:
            assert self._settings is not None
            max_grad_norm, tau, _ = self._settings
            flat = self.adam.flat
            self._settings_tensor = th.tensor((max_grad_norm, tau or 0.0), dtype=flat.dtype, device=flat.device)
        return self._settings_tensor

    def __getstate__(self) -> dict[str, Any]:
        # a copy binds its own parameters, and compiles at its first update
        return vars(self) | {"_functions": {}, "_flat_target": None, "_values": None, "_ones": None}

    def _check(self, batch: Batch) -> None:
        """:raises CannotCompile: if there is a parameter without a gradient, which Adam does not change"""
        buffers = {name: buffer.clone() for name, buffer in self.loss.named_buffers()}  # some layers change theirs
        with th.enable_grad(), th.random.fork_rng():
            losses, _ = functional_call(self.loss, buffers, (batch,), tie_weights=False)
            gradients = th.autograd.grad(losses.sum(), list(self.loss.online_net.parameters()), allow_unused=True)
        if any(gradient is None for gradient in gradients):
            raise CompilationError("some parameters take no part in the loss")

    def bind_storage(self) -> None:
        """Put all parameters in their places, if they are not there."""
        moved = self.adam.bind_storage()
        if moved:
            self._settings_tensor = None
        reason = unsupported_reason_compiled(self.loss, self.adam.optimizer) if moved else None
        if not self.adam.has_equal_steps:
            reason = "some parameters have seen fewer updates than others"
        if reason is not None:  # a state was loaded that has settings of its own
            raise CompilationError(reason)
        if self.loss.target_net is self.loss.online_net:
            self._flat_target = self.adam.flat
        elif self._flat_target is None or self._target_parameters[0].data_ptr() != self._flat_target.data_ptr():
            self._flat_target = flatten_parameters(self._target_parameters)
        if moved:
            self._values = make_numpy_q_values(self.loss.online_net, self.n_envs)

    def subtract_skipped_updates(self, n_updates: int) -> None:
        """
        :param n_updates: the number of updates that the last call has left out, at its end
        """
        self.adam.steps -= n_updates
