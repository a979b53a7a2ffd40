"""Whole updates as one compiled function: losses, gradients, clipping, Adam and, where it is due, the target network."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch as th
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_unflatten

from sb3_dqn_ext.batch import Batch
from sb3_dqn_ext.choices import ArgumentError, check_keys, check_number
from sb3_dqn_ext.learner import Learner

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
    if not isinstance(optimizer, th.optim.Adam):
        return f"{type(optimizer).__name__} is not Adam, nor AdamW"
    for name in ("amsgrad", "maximize", "differentiable", "fused", "capturable"):
        if optimizer.defaults[name]:
            return f"the optimizer has {name}={optimizer.defaults[name]}"
    if len(optimizer.param_groups) > 1:
        return "the optimizer has several groups of parameters"
    if not all(parameter.requires_grad for parameter in learner.online.parameters()):
        return "some parameters are not learned"
    if any(isinstance(layer, _BatchNorm) for layer in learner.online.modules()):
        return "batch normalisation changes its averages at every batch"
    if len({(parameter.dtype, parameter.device) for parameter in learner.online.parameters()}) > 1:
        return "its parameters differ in precision or device"
    return None


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
    return f"compile has no effect, training is eager: {reason}."


def _compile(function: Callable[..., Any], arguments: list[th.Tensor]) -> Callable[..., Any]:
    """
    :param function: of tensors; may change them in place
    :param arguments: tensors of the shapes it will be called with
    :raises CannotCompile: if torch cannot compile it
    """
    # a second and more to import, which only those wait for who compile
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with th.random.fork_rng():
            graph = make_fx(function)(*(argument.clone() for argument in arguments))
        # its random numbers are then those of the eager path
        compiled: Callable[..., Any] = torch._inductor.compile(graph, [*arguments], options={"fallback_random": True})
    except Exception as error:  # what torch raises here differs from version to version
        raise CannotCompile(_explained(error)) from error
    return compiled


def adam(
    parameters: th.Tensor,
    gradient: th.Tensor,
    averages: tuple[th.Tensor, th.Tensor],
    step: th.Tensor,
    learning_rate: th.Tensor,
    group: Mapping[str, Any],
) -> None:
    """
    (P,) parameters, their gradient and its averages: one step of Adam (https://arxiv.org/abs/1412.6980, algorithm 1), or of
    AdamW (https://arxiv.org/abs/1711.05101, algorithm 2), in place.

    :param step: () how many steps there were, this one included
    :param learning_rate: ()
    :param group: ``betas``, ``eps``, ``weight_decay`` and ``decoupled_weight_decay`` of torch's Adam
    """
    first, second = averages
    beta1, beta2 = group["betas"]
    if group["decoupled_weight_decay"]:
        parameters.mul_(1 - learning_rate * group["weight_decay"])
    else:
        gradient = gradient + group["weight_decay"] * parameters
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    corrections = 1 - beta1 ** step.double(), 1 - beta2 ** step.double()
    size = learning_rate / corrections[0]
    parameters.sub_(size * first / ((second / corrections[1]).sqrt() + group["eps"]))


class Flat:
    """
    Tensors that lie side by side in one: whoever holds one of them holds a view of it.

    :param tensors: what is to lie there; of one precision, on one device
    """

    def __init__(self, tensors: list[th.Tensor]) -> None:
        self.flat = th.cat([tensor.detach().reshape(-1) for tensor in tensors])
        ends = [0, *th.tensor([tensor.numel() for tensor in tensors]).cumsum(0).tolist()]
        self.places = list(pairwise(ends))
        self.shapes = [tensor.shape for tensor in tensors]

    def views(self, flat: th.Tensor) -> list[th.Tensor]:
        """A tensor like ``flat`` -> its parts."""
        return [flat[start:end].view(shape) for (start, end), shape in zip(self.places, self.shapes, strict=True)]


class CompiledUpdates:
    """
    Makes updates of a learner's online network, each as the eager path does, in functions that ``torch.compile`` made.

    Parameters, target parameters and Adam's averages are moved into one tensor each, of which those of the networks and of the
    optimizer become views: so a function has few arguments, and one loop over all parameters is enough.
    The first call with another number of updates or another batch size compiles a function, or finds it in torch's cache.

    :param learner: the losses of a batch
    :param optimizer: Adam or AdamW
    :param max_grad_norm: to which norm gradients are clipped
    :param tau: how far the target network follows after each update; None if it is updated elsewhere
    :param unroll: how many updates are worth a function of their own
    """

    def __init__(
        self, learner: Learner, optimizer: th.optim.Optimizer, max_grad_norm: float, tau: float | None, unroll: int
    ) -> None:
        self.learner = learner
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.tau = tau
        self.unroll = unroll
        self._functions: dict[tuple[int, int], Callable[..., tuple[th.Tensor, th.Tensor]]] = {}
        self._names = [f"online.{name}" for name, _ in learner.online.named_parameters()]
        self._old_names = (
            [] if learner.old is learner.online else [f"old.{name}" for name, _ in learner.old.named_parameters()]
        )
        self._first = 0, 0

    def __call__(self, batches: Batch, n_updates: int) -> tuple[th.Tensor, th.Tensor]:
        """
        :param batches: k batches of B transitions, one after the other in its (k * B, ...) tensors
        :param n_updates: k
        :return: (k,) losses before each update, (k * B,) losses of the transitions, before they were weighted
        :raises CannotCompile: if torch cannot compile this learner
        """
        if not self._adopted():
            self._adopt()
        self._learning_rate.fill_(self.optimizer.param_groups[0]["lr"])
        leaves, structure = tree_flatten(batches[:-1])
        arguments = [*self._state, self._learning_rate, *leaves]
        key = n_updates, len(batches.actions)
        with th.no_grad():
            if key not in self._functions:
                self._functions[key] = _compile(self._make(n_updates, key[1] // n_updates, structure), arguments)
            losses, errors = self._functions[key](*arguments)
        return losses, errors

    def _adopted(self) -> bool:
        """Whether networks and optimizer still hold the views: a loaded state brings tensors of its own."""
        first = next(self.learner.online.parameters())
        state = self.optimizer.state.get(first, {})
        return first.data_ptr() == self._first[0] and "exp_avg" in state and state["exp_avg"].data_ptr() == self._first[1]

    def _adopt(self) -> None:
        online = list(self.learner.online.parameters())
        averages = ["exp_avg", "exp_avg_sq"]
        for parameter in online:
            state = self.optimizer.state[parameter]
            state.setdefault("step", th.zeros((), dtype=th.float32))
            for name in averages:
                state.setdefault(name, th.zeros_like(parameter))
        self._parts = Flat(cast(list[th.Tensor], online))
        flat = [self._move(online)]
        for name in averages:
            of_name = Flat([self.optimizer.state[parameter][name] for parameter in online])
            for parameter, view in zip(online, of_name.views(of_name.flat), strict=True):
                self.optimizer.state[parameter][name] = view
            flat.append(of_name.flat)
        steps = th.stack([self.optimizer.state[parameter]["step"].detach().cpu() for parameter in online])
        for parameter, step in zip(online, steps, strict=True):
            self.optimizer.state[parameter]["step"] = step
        old = self._move(list(self.learner.old.parameters())) if self._old_names else flat[0]
        self._state = [*flat, steps, old]
        self._learning_rate = th.zeros((), dtype=th.float32, device=flat[0].device)
        self._first = flat[0].data_ptr(), flat[1].data_ptr()

    @staticmethod
    def _move(parameters: list[nn.Parameter]) -> th.Tensor:
        """Put parameters side by side; the tensor that holds them."""
        parts = Flat(cast(list[th.Tensor], parameters))
        for parameter, view in zip(parameters, parts.views(parts.flat), strict=True):
            parameter.data = view
        return parts.flat

    def _make(self, n_updates: int, batch_size: int, structure: Any) -> Callable[..., tuple[th.Tensor, th.Tensor]]:
        """The function of k updates with batches of B, which come as the leaves of a structure."""
        learner, parts, names, old_names = self.learner, self._parts, self._names, self._old_names
        group, tau = self.optimizer.param_groups[0], self.tau

        def loss_of(online: dict[str, th.Tensor], old: dict[str, th.Tensor], batch: Batch) -> tuple[th.Tensor, th.Tensor]:
            errors = functional_call(learner, online | old, (batch,))
            return (batch.weights * errors).mean(), errors

        def updates(
            flat: th.Tensor,
            first: th.Tensor,
            second: th.Tensor,
            steps: th.Tensor,
            old: th.Tensor,
            learning_rate: th.Tensor,
            *leaves: th.Tensor,
        ) -> tuple[th.Tensor, th.Tensor]:
            losses, errors = [], []
            batches = Batch._make([*tree_unflatten(leaves, structure), np.empty(0, dtype=np.int64)])
            for batch in batches.split(n_updates):
                online = dict(zip(names, parts.views(flat), strict=True))
                target = dict(zip(old_names, parts.views(old), strict=True)) if old_names else {}
                gradients, (loss, error) = th.func.grad_and_value(loss_of, has_aux=True)(online, target, batch)
                gradient = th.cat([gradients[name].reshape(-1) for name in names])
                gradient = gradient * (self.max_grad_norm / (th.linalg.vector_norm(gradient) + 1e-6)).clamp(max=1.0)
                steps.add_(1)
                adam(flat, gradient, (first, second), steps[0], learning_rate, group)
                if tau is not None and old_names:
                    old.mul_(1 - tau).add_(flat, alpha=tau)
                losses.append(loss)
                errors.append(error)
            return th.stack(losses), th.cat(errors)

        return updates
