"""Whole updates as one compiled function: losses, gradients, clipping, Adam and, where it is due, the target network."""

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch as th
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from sb3_dqn_ext._validation import check_keys, check_number
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.finite_updates import largest_norm
from sb3_dqn_ext.algorithm.td_loss import Learner, Targets
from sb3_dqn_ext.algorithm.value_models import Params
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.flat_adam import FlatAdam, adam, locked, side_by_side, views, why_not_flat
from sb3_dqn_ext.fast.numpy_forward import QValues, numpy_values

__all__ = ["CannotCompile", "CompiledUpdates", "unroll_of", "why_not"]

UNROLL = 4
"""how many updates one call makes, where so many are to be made: with more, compiling takes longer than it saves"""


def unroll_of(compile: bool | Mapping[str, Any]) -> int:
    """
    :param compile: the argument of DQNExt
    :return: how many updates one call makes at most; 0 if nothing is to be compiled
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


def why_not(learner: Learner, optimizer: th.optim.Optimizer) -> str | None:
    """
    :param learner: what would be compiled
    :param optimizer: what follows its gradients
    :return: what stands in the way, None if nothing is known to
    """
    if any(isinstance(layer, _BatchNorm) for layer in learner.online.modules()):
        return "batch normalisation changes its averages at every batch"
    return why_not_flat(list(learner.online.parameters()), optimizer)


class CannotCompile(Exception):
    """Says why torch could not compile an update."""


def _explained(error: BaseException) -> str:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if any(type(cause).__name__ == "InvalidCxxCompiler" for cause in causes):
        reason = "no C++ compiler was found; install one (on Debian: apt install g++), or name it in the variable CXX"
    else:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return _message(reason)


def _message(reason: str) -> str:
    return f"compile has no effect, training is eager: {reason}."


class _OneHotUnseen(TorchFunctionMode):
    """torch's ``one_hot`` without its look at the numbers, which are not there while a function is traced."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        def one_hot(tensor: th.Tensor, num_classes: int = -1) -> Any:
            if num_classes == -1:
                return func(tensor)
            return (tensor.unsqueeze(-1) == th.arange(num_classes, device=tensor.device)).long()

        return (one_hot if func is F.one_hot else func)(*args, **(kwargs or {}))


def _compile(function: Callable[..., Any], arguments: list[th.Tensor]) -> Callable[..., Any]:
    """
    :param function: of tensors; may change them in place
    :param arguments: tensors of the shapes it will be called with
    :raises CannotCompile: if torch cannot compile it
    """
    try:
        with warnings.catch_warnings(), th.random.fork_rng():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of other parts of torch
            # a second and more to import, which only those wait for who compile
            import torch._inductor
            from torch._guards import TracingContext, tracing
            from torch._subclasses import FakeTensorMode
            from torch.fx.experimental.proxy_tensor import make_fx
            from torch.fx.experimental.symbolic_shapes import ShapeEnv

            # nothing is computed, so that what depends on a tensor's values is an error
            trace = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
            with _OneHotUnseen():
                graph = trace(*(argument.clone() for argument in arguments))
            # without shapes to speak of, torch would not look for the graph in its cache
            with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):
                # random numbers are those of the eager path; what calls the kernels is C++, too, and not Python
                options = {"fallback_random": True, "cpp_wrapper": True}
                compiled = torch._inductor.compile(graph, [*arguments], options=options)
    except Exception as error:  # what torch raises here differs from version to version
        raise CannotCompile(_explained(error)) from error
    return cast(Callable[..., Any], compiled)


PATIENCE = 10.0
"""seconds of compiling after which a message explains the wait even to those who want none"""


@contextlib.contextmanager
def announced(verbose: int) -> Iterator[None]:
    """
    Print that an update is compiled while the block runs: at once with ``verbose=1``, as SB3 prints what it makes; else only
    if it takes long, and then to the standard error.

    :param verbose: the verbosity of the model
    """
    message = "Compiling the updates of the network (compile=True): some seconds, up to a minute on a busy machine."
    if verbose >= 1:
        print(message)
        yield
        return
    timer = threading.Timer(PATIENCE, print, [message], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class CompiledUpdates:
    """
    Makes updates of a learner's online network, each as the eager path does, in functions that torch's compiler made.

    They work on the one tensor of :class:`~sb3_dqn_ext.fast.flat_adam.FlatAdam`, and on one of the target's: a function has
    few arguments, and one loop over all parameters is enough. The first call with another number of updates or another batch
    size compiles a function, or finds it in torch's cache.

    :param learner: the losses of a batch
    :param adam: the optimizer of its online network
    :param max_grad_norm: to which norm gradients are clipped
    :param tau: how far the target network follows after each update; None if it is updated elsewhere
    :param unroll: how many updates are worth a function of their own
    :param n_envs: for how many environments actions are chosen at a time
    :param verbose: whether to print that a function is compiled
    """

    def __init__(
        self,
        learner: Learner,
        adam: FlatAdam,
        max_grad_norm: float,
        tau: float | None,
        unroll: int,
        n_envs: int = 1,
        verbose: int = 0,
    ) -> None:
        self.learner = learner
        self.adam = adam
        self.max_grad_norm = max_grad_norm
        self.tau = tau
        self.unroll = unroll
        self.n_envs = n_envs
        self.verbose = verbose
        self.guarded = False
        """whether the first update of a call that would not be finite is left out, and those after it"""
        self._functions: dict[tuple[Any, ...], Callable[..., tuple[th.Tensor, ...]]] = {}
        self._followed: tuple[tuple[float, float] | None, th.Tensor] = None, th.empty(0)
        self._online, self._targets = dict(learner.online.named_parameters()), dict(learner.old.named_parameters())
        self._old_parameters = list(learner.old.parameters())
        self._old: th.Tensor | None = None
        self._values: QValues | None = None

    @property
    def values(self) -> QValues | None:
        """
        The online network's Q-values in numpy, once there was an update, if it is simple and small enough; None as long as its
        parameters are elsewhere, for example in memory that is shared with another process.
        """
        return self._values if self.adam.is_bound else None

    @property
    def lock(self) -> Any:
        """The lock of the optimizer."""
        return self.adam.lock

    @locked
    def __call__(self, batches: Batch, n_updates: int) -> tuple[th.Tensor, ...]:
        """
        :param batches: k batches of B transitions, one after the other in its (k * B, ...) tensors
        :param n_updates: k
        :return: (k,) losses before each update, (k * B,) losses of the transitions, before they were weighted; and if it is
            guarded, (k,) norms of the gradients
        :raises CannotCompile: if torch cannot compile this learner
        """
        if not self._functions:
            self._check(batches)
        self.adopt()
        adam, group = self.adam, self.adam.group
        if batches.weights is None:  # one function is enough
            batches = batches._replace(weights=th.ones_like(batches.rewards))
        *fields, _ = batches
        # a flat list needs no look at its structure
        leaves, structure = (fields, None) if isinstance(fields[0], th.Tensor) else tree_flatten(fields)
        followed = self.max_grad_norm, self.tau or 0.0
        if followed != self._followed[0]:
            # a tensor, as callbacks may change these from training to training
            self._followed = followed, th.tensor(followed, dtype=adam.flat.dtype, device=adam.flat.device)
        numbers = adam.numbers(n_updates), self._followed[1]
        arguments = [adam.flat, adam.first, adam.second, adam.steps, self._old, *numbers, *leaves]
        # what is written into a function as a number
        constants = group["betas"], group["eps"], group["weight_decay"], self.tau is None
        key = n_updates, len(batches.actions), *constants, largest_norm(self.max_grad_norm) if self.guarded else None
        with th.no_grad():
            if key not in self._functions:
                with announced(self.verbose):
                    self._functions[key] = _compile(self._make(n_updates, structure), arguments)
            return self._functions[key](*arguments)

    def __getstate__(self) -> dict[str, Any]:
        # a copy binds its own parameters, and compiles at its first update
        return vars(self) | {"_functions": {}, "_old": None, "_values": None}

    def _check(self, batch: Batch) -> None:
        """:raises CannotCompile: if there is a parameter without a gradient, which Adam leaves as it is"""
        numbers = {name: buffer.clone() for name, buffer in self.learner.named_buffers()}  # some layers change theirs
        with th.enable_grad(), th.random.fork_rng():
            loss = functional_call(self.learner, numbers, (batch,), tie_weights=False).sum()
            gradients = th.autograd.grad(loss, list(self.learner.online.parameters()), allow_unused=True)
        if any(gradient is None for gradient in gradients):
            raise CannotCompile(_message("some parameters take no part in the loss"))

    def adopt(self) -> None:
        """Put all parameters in their places, if they are not there."""
        moved = self.adam.adopt()
        if moved:
            self._followed = None, th.empty(0)
        reason = why_not(self.learner, self.adam.optimizer) if moved else None
        if not self.adam.even:
            reason = "some parameters have seen fewer updates than others"
        if reason is not None:  # a state was loaded that has settings of its own
            raise CannotCompile(_message(reason))
        if self.learner.old is self.learner.online:
            self._old = self.adam.flat
        elif self._old is None or self._old_parameters[0].data_ptr() != self._old.data_ptr():
            self._old = side_by_side(self._old_parameters)
        if moved:
            self._values = numpy_values(self.learner.online, self.n_envs)

    def take_back(self, n_updates: int) -> None:
        """
        :param n_updates: that the last call has left out, at its end
        """
        self.adam.steps -= n_updates

    def _make(self, n_updates: int, structure: Any) -> Callable[..., tuple[th.Tensor, ...]]:
        """The function of k updates with batches of B, which come as the leaves of a structure."""
        learner, group, moves_target = self.learner, self.adam.group, self.tau is not None
        guarded, largest = self.guarded, largest_norm(self.max_grad_norm)

        def parts(flat: th.Tensor, network: str, like: dict[str, nn.Parameter]) -> dict[str, th.Tensor]:
            return {f"{network}.{name}": view for name, view in zip(like, views(flat, list(like.values())), strict=True)}

        def loss_of(
            online: dict[str, th.Tensor], old: dict[str, th.Tensor], batch: Batch, target: Params | None
        ) -> tuple[th.Tensor, th.Tensor]:
            # where both are one network, torch would put what is traced in the place of its parameters, and leave it there
            errors = functional_call(learner, old | online, (batch, target), tie_weights=bool(old))
            return (cast(th.Tensor, batch.weights) * errors).mean(), errors

        def updates(
            flat: th.Tensor,
            first: th.Tensor,
            second: th.Tensor,
            steps: th.Tensor,
            old: th.Tensor,
            numbers: th.Tensor,
            followed: th.Tensor,
            *leaves: th.Tensor,
        ) -> tuple[th.Tensor, ...]:
            losses, errors, norms = [], [], []
            max_grad_norm, tau = followed
            good = th.ones_like(flat[0])
            batches = Batch._make(
                [*(leaves if structure is None else tree_unflatten(leaves, structure)), np.empty(0, dtype=np.int64)]
            )
            targets: list[Params | None] = [None] * n_updates
            if learner.targets_stay and not moves_target:
                # one computation for the batches of all updates
                of_all = functional_call(Targets(learner), parts(old, "learner.old", self._targets), (batches,))
                targets = [Params(values) for values in of_all.values.chunk(n_updates)]
            for batch, target, of_step in zip(batches.split(n_updates), targets, numbers, strict=True):
                online = parts(flat, "online", self._online)
                of_old = {} if learner.old is learner.online else parts(old, "old", self._targets)
                gradients, (loss, error) = th.func.grad_and_value(loss_of, has_aux=True)(online, of_old, batch, target)
                gradient = th.cat([gradients[name].reshape(-1) for name in online])
                norm = gradient.norm()
                state = (flat, first, second, old) if moves_target else (flat, first, second)
                before = [numbers.clone() for numbers in state] if guarded else []
                # the smaller one by a reduction: its result is kept, and not computed anew for each parameter
                clip = th.stack([max_grad_norm / (norm + 1e-6), th.ones_like(gradient[0])]).amin()
                adam(flat, gradient * clip, (first, second), of_step, group)
                if moves_target:
                    old.mul_(1 - tau).add_(flat * tau)
                if guarded:
                    is_good = loss.isfinite() & norm.isfinite() & (norm <= largest)
                    good = th.stack([good, is_good.to(good.dtype)]).amin()  # 0 from the first bad one on
                    for numbers, were in zip(state, before, strict=True):
                        numbers.copy_(th.where(good > 0, numbers, were))
                losses.append(loss)
                errors.append(error)
                norms.append(norm)
            steps.add_(n_updates)
            return (th.stack(losses), th.cat(errors), *([th.stack(norms)] if guarded else []))

        return updates
