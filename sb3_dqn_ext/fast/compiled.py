"""Compiled updates: loss, gradient, clipping, optimizer and, if it is due, the target network in one function."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch as th
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten

from sb3_dqn_ext._validation import check_keys, check_number, check_type
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.finite_updates import max_finite_norm
from sb3_dqn_ext.algorithm.td_loss import TDLoss
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.compilation import CompilationError, announce_compilation, compile_function
from sb3_dqn_ext.fast.compiled_forward import QValuesOfParameters, compile_q_values
from sb3_dqn_ext.fast.cuda_graph import GraphedFunction
from sb3_dqn_ext.fast.flat_optimizer import FlatOptimizer, unsupported_reason_flat
from sb3_dqn_ext.fast.numpy_forward import QValues, make_numpy_q_values
from sb3_dqn_ext.fast.traced_state import TracedState
from sb3_dqn_ext.fast.update_function import Tensors, UpdateFunction
from sb3_dqn_ext.networks.flat_storage import addresses, flatten_parameters
from sb3_dqn_ext.networks.spectral_norm import SpectralNorm

__all__ = ["CompiledUpdates", "parse_compile", "unsupported_reason_compiled"]

FIELDS = tuple(name for name in Batch._fields if name != "indices")
"""The fields of a batch that updates read; indices are the last field."""
WEIGHTS = FIELDS.index("weights")

UNROLL = 4
"""The default number of updates per call. With more, the longer compilation outweighs the savings."""


def parse_compile(compile: bool | Mapping[str, Any]) -> tuple[int, bool]:
    """
    Return what the argument ``compile`` of DQNExt defines.

    :param compile: the argument
    :return: the number of updates per call: k for ``{"unroll": k}``, ``UNROLL`` for True, 0 for False (no compilation); and
        whether CUDA graphs are used, for ``{"cuda_graphs": True}``
    :raises ArgumentError: if it is neither True nor False nor a mapping with these keys
    """
    if isinstance(compile, bool):
        return UNROLL if compile else 0, False
    if not isinstance(compile, Mapping):
        raise ArgumentError(f"compile={compile!r} must be True, False or a mapping such as {{'unroll': 4}}.")
    check_keys("compile", compile, {"unroll", "cuda_graphs"})
    unroll, cuda_graphs = compile.get("unroll", UNROLL), compile.get("cuda_graphs", False)
    check_number("compile['unroll']", unroll, low=1, integer=True)
    check_type("compile['cuda_graphs']", cuda_graphs, bool, "True or False")
    return int(unroll), cuda_graphs


def unsupported_reason_compiled(loss: TDLoss, optimizer: th.optim.Optimizer) -> str | None:
    """
    Return the reason why updates cannot be compiled.

    :param loss: the loss
    :param optimizer: the optimizer of its online network
    :return: the reason; None if they can probably be compiled
    """
    if any(isinstance(layer, _BatchNorm | SpectralNorm) for layer in loss.online_net.modules()):
        return "batch and spectral normalisation change their running estimates in each update"
    return unsupported_reason_flat(list(loss.online_net.parameters()), optimizer)


def _traced_objects(loss: TDLoss) -> list[object]:
    """Return the objects that a user may have defined, and whose methods are traced."""
    nets = (loss.online_net, loss.target_net)
    parts = [getattr(net, name, None) for net in nets for name in ("features_extractor", "q_net")]
    return [loss.target_policy, loss.returns, getattr(loss.returns, "loss_function", None), loss.auxiliary_loss, *parts]


class CompiledUpdates:
    """
    Updates of a network that torch has compiled to functions. Each update has the result of the eager path.

    The functions change the flat tensor of :class:`~sb3_dqn_ext.fast.flat_optimizer.FlatOptimizer` and a flat tensor of the
    target network's parameters, so that they have few arguments and one loop over all parameters. The first call with a new
    number of updates or a new batch size compiles a function, or reads it from torch's cache.

    :param loss: the loss
    :param flat_optimizer: the optimizer of its online network
    :param unroll: the number of updates per call
    :param n_envs: the number of observations for which actions are chosen at a time
    :param verbose: the verbosity of the model
    :param cuda_graphs: whether a call starts one CUDA graph instead of every kernel by itself; for networks on a GPU
    """

    def __init__(
        self,
        loss: TDLoss,
        flat_optimizer: FlatOptimizer,
        unroll: int,
        n_envs: int = 1,
        verbose: int = 0,
        cuda_graphs: bool = False,
    ) -> None:
        self.loss = loss
        self.cuda_graphs = cuda_graphs
        self.flat_optimizer = flat_optimizer
        self.unroll = unroll
        self.n_envs = n_envs
        self.verbose = verbose
        self.updates_target = False
        self._settings: tuple[float, float | None, bool] | None = None
        self._functions: dict[tuple[Any, ...], Callable[..., Tensors]] = {}
        self._largest_norm: float | None = None
        self._cached_settings: th.Tensor | None = None
        self._target_parameters = list(loss.target_net.parameters())
        self._shares_net = loss.target_net is loss.online_net
        self._flat_target: th.Tensor | None = None
        self._target_addresses: list[int] = []
        self._q_values: QValues | None = None
        self._forward: QValuesOfParameters | None = None
        self._forward_is_compiled = False
        self._ones: th.Tensor | None = None
        self._traced: TracedState | None = None

    @property
    def q_values(self) -> QValues | None:
        """
        A function that computes the online network's Q-values: in numpy for small layers, compiled for images.

        It is None before the first update, if the network is too large or not supported, and while its parameters are not in
        the flat tensor, for example if they were moved to memory that processes share.
        """
        return self._q_values if self.flat_optimizer.is_bound else None

    def configure(self, max_grad_norm: float, tau: float | None, skips_non_finite: bool) -> None:
        """
        Set the values that a user or a callback can change between two trainings.

        :param max_grad_norm: the norm to which gradients are clipped
        :param tau: the weight of the online network in the update of the target network after each gradient step; None: the
            target network is not updated by these functions
        :param skips_non_finite: whether the first update of a call that would not be finite is skipped, and all updates after
            it
        """
        if (max_grad_norm, tau, skips_non_finite) != self._settings:
            self._settings = max_grad_norm, tau, skips_non_finite
            self._largest_norm = max_finite_norm(max_grad_norm) if skips_non_finite else None
            self.updates_target = tau is not None
            self._cached_settings = None

    def __call__(self, batches: Batch, n_updates: int) -> Tensors:
        """
        Make k updates.

        :param batches: k concatenated batches of B transitions
        :param n_updates: k
        :return: (k,) losses before each update, (k * B,) TD errors; also (k,) norms of the gradients if updates that are not
            finite are skipped
        :raises CompilationError: if torch cannot compile the loss
        """
        with self.flat_optimizer.lock:
            return self._call(batches, n_updates)

    def _call(self, batches: Batch, n_updates: int) -> Tensors:
        if not self._functions:
            self._traced = TracedState(_traced_objects(self.loss))
            self._check_gradients(batches)
        self.bind_storage()
        optimizer, group = self.flat_optimizer, self.flat_optimizer.group
        values = [*batches[:-1]]
        if values[WEIGHTS] is None:  # so that one function serves both kinds of replay
            values[WEIGHTS] = self._ones_like(batches.rewards)
        given: list[Any] = [value for value in values if value is not None]
        # without Dict observations, the fields are a flat list
        leaves, structure = (given, None) if isinstance(given[0], th.Tensor) else tree_flatten(given)
        assert self._flat_target is not None
        numbers = optimizer.step_coefficients(n_updates), self._settings_as_tensor()
        arguments = [optimizer.flat, self._flat_target, *optimizer.averages, *numbers, *leaves]
        # a function contains the optimizer's constants, and reads the memory of its arguments as their precision was
        constants = [group[name] for name in optimizer.rule.constants]
        dtypes = [leaf.dtype for leaf in leaves]
        key = n_updates, batches.actions.shape[0], self.updates_target, self._largest_norm, *constants, *dtypes
        function = self._functions.get(key)
        if function is None:
            fields = tuple(name for name, value in zip(FIELDS, values, strict=True) if value is not None)
            with th.no_grad():
                function = self._functions[key] = self._compile(n_updates, constants, fields, structure, arguments)
            self._check_traced(restore=len(self._functions) == 1)
        else:
            self._check_traced(restore=False)
        results = function(*arguments)
        optimizer.count_steps(n_updates)
        return results

    def _compile(
        self, n_updates: int, constants: list[Any], fields: tuple[str, ...], structure: Any, arguments: list[th.Tensor]
    ) -> Callable[..., Tensors]:
        """Compile a function that makes k updates, see :class:`~sb3_dqn_ext.fast.update_function.UpdateFunction`."""
        rule = self.flat_optimizer.rule
        function = UpdateFunction(
            self.loss,
            rule,
            dict(zip(rule.constants, constants, strict=True)),
            n_updates,
            fields,
            structure,
            self.updates_target,
            self._largest_norm,
        )
        with announce_compilation(self.verbose):
            compiled = compile_function(function, arguments)
        # the parameters, those of the target network, and the state of the optimizer are changed
        return GraphedFunction(compiled, 2 + len(rule.averages)) if self.cuda_graphs else compiled

    def _check_traced(self, restore: bool) -> None:
        """:raises CannotCompile: if an object that was traced has changed its attributes"""
        assert self._traced is not None
        changed = self._traced.changed()
        if changed is not None:
            if restore:  # nothing but the trace has run
                self._traced.restore()
            raise CompilationError(f"{changed} has changed its attributes, which a compiled function holds as constants")

    def _ones_like(self, rewards: th.Tensor) -> th.Tensor:
        if self._ones is None or self._ones.shape != rewards.shape or self._ones.dtype != rewards.dtype:
            self._ones = th.ones_like(rewards)
        return self._ones

    def _settings_as_tensor(self) -> th.Tensor:
        """Return max_grad_norm and tau as a (2,) tensor, so that a new value does not require a new function."""
        if self._cached_settings is None:
            assert self._settings is not None
            max_grad_norm, tau, _ = self._settings
            flat = self.flat_optimizer.flat
            self._cached_settings = th.tensor((max_grad_norm, tau or 0.0), dtype=flat.dtype, device=flat.device)
        return self._cached_settings

    def __getstate__(self) -> dict[str, Any]:
        # a copy binds its own parameters and compiles at its first update
        forward = {"_forward": None, "_forward_is_compiled": False, "_q_values": None}
        return vars(self) | forward | {"_functions": {}, "_flat_target": None, "_ones": None, "_traced": None}

    def _check_gradients(self, batch: Batch) -> None:
        """Raise a CompilationError if a parameter has no gradient. The optimizer would not change it."""
        buffers = {name: buffer.clone() for name, buffer in self.loss.named_buffers()}  # some layers change their buffers
        with th.enable_grad(), th.random.fork_rng():
            losses, _ = functional_call(self.loss, buffers, (batch,), tie_weights=False)
            gradients = th.autograd.grad(losses.sum(), list(self.loss.online_net.parameters()), allow_unused=True)
        if any(gradient is None for gradient in gradients):
            raise CompilationError("some parameters do not affect the loss")

    def bind_storage(self) -> None:
        """
        Make all parameters views of the flat tensors, if they are not, and raise a CompilationError if that is not supported.
        """
        rebound = self.flat_optimizer.bind_storage()
        if rebound:
            self._cached_settings = None
        reason = unsupported_reason_compiled(self.loss, self.flat_optimizer.optimizer) if rebound else None
        if not self.flat_optimizer.has_equal_steps:
            reason = "the parameters differ in their numbers of updates"
        if reason is not None:  # the settings of a state that was loaded
            raise CompilationError(reason)
        if self._shares_net:
            self._flat_target = self.flat_optimizer.flat
        elif self._flat_target is None or addresses(self._target_parameters) != self._target_addresses:
            self._flat_target = flatten_parameters(self._target_parameters)
            self._target_addresses = addresses(self._target_parameters)
        if rebound:
            self._q_values = make_numpy_q_values(self.loss.online_net, self.n_envs) or self._compiled_q_values()

    def _compiled_q_values(self) -> QValues | None:
        """Return a compiled function for images. It is compiled once, as checkpoints separate and rebind the parameters."""
        if not self._forward_is_compiled:
            self._forward = compile_q_values(self.loss.online_net, self.flat_optimizer.flat, self.n_envs)
            self._forward_is_compiled = True
        return None if self._forward is None else partial(self._forward, self.flat_optimizer.flat)

    def subtract_skipped_updates(self, n_updates: int) -> None:
        """
        Subtract the updates that the last call has skipped from the optimizer's step counts.

        :param n_updates: the number of skipped updates
        """
        self.flat_optimizer.count_steps(-n_updates)
