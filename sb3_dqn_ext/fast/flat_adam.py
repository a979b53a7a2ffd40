"""Adam on one flat tensor of all parameters."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from operator import is_
from threading import RLock
from typing import Any, TypeVar, cast

import numpy as np
import torch as th
from torch import nn

from sb3_dqn_ext.algorithm.batches import copy_to_device
from sb3_dqn_ext.networks.flat_storage import flatten_parameters, register_owner, views_like

__all__ = ["FlatAdam", "adam_step", "unsupported_reason_flat", "with_lock"]

UNSUPPORTED_SETTINGS = ("amsgrad", "maximize", "differentiable", "fused", "capturable")
"""The settings of torch's Adam that are not supported."""


Method = TypeVar("Method", bound=Callable[..., Any])


def with_lock(method: Method) -> Method:
    """
    Decorate a method so that it holds the ``lock`` of its object.

    :param method: the method
    :return: the method that holds the lock
    """

    @wraps(method)
    def method_with_lock(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast(Method, method_with_lock)


def unsupported_reason_flat(parameters: Sequence[nn.Parameter], optimizer: th.optim.Optimizer) -> str | None:
    """
    Return the reason why :class:`FlatAdam` cannot replace an optimizer.

    :param parameters: the parameters of the network
    :param optimizer: their optimizer
    :return: the reason; None if it can
    """
    if type(optimizer) not in (th.optim.Adam, th.optim.AdamW):
        return f"{type(optimizer).__name__} is not Adam, nor AdamW"
    if len(optimizer.param_groups) > 1:
        return "the optimizer has several groups of parameters"
    for name in UNSUPPORTED_SETTINGS:
        if optimizer.param_groups[0][name]:
            return f"the optimizer has {name}={optimizer.param_groups[0][name]}"
    if not all(parameter.requires_grad for parameter in parameters):
        return "some parameters are frozen (requires_grad=False)"
    if len(parameters) != len(group := optimizer.param_groups[0]["params"]) or not all(map(is_, parameters, group)):
        return "the optimizer has other parameters than the network"
    if len({(parameter.dtype, parameter.device) for parameter in parameters}) > 1:
        return "its parameters differ in precision or device"
    return None


class FlatAdam:
    """
    Steps of torch's Adam or AdamW on one flat tensor of all parameters.

    There are a few calls of torch for all parameters instead of a few for each. The results have the same bits as torch's, and
    parameters and optimizer state stay views of the flat tensors, so that they are saved as usual.

    :param parameters: the parameters of the network
    :param optimizer: their optimizer, whose state and settings are used; :func:`unsupported_reason_flat` must be None for it
    """

    flat: th.Tensor
    """The (P,) parameters."""
    exp_avg: th.Tensor
    """The (P,) first moments m, the running averages of the gradient."""
    exp_avg_sq: th.Tensor
    """The (P,) second moments v, the running averages of the squared gradient."""
    steps: th.Tensor
    """The number of steps of each parameter tensor."""
    has_equal_steps: bool
    """Whether that number is the same for all."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: th.optim.Optimizer) -> None:
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self._addresses = 0, 0
        self.lock = RLock()  # held while the tensors are changed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.parameters, self.optimizer)  # a copy binds its own parameters

    @property
    def group(self) -> dict[str, Any]:
        """The settings of the optimizer."""
        group: dict[str, Any] = self.optimizer.param_groups[0]
        return group

    @property
    def is_bound(self) -> bool:
        """Whether the parameters are views of the flat tensor."""
        return self.parameters[0].data_ptr() == self._addresses[0]

    def bind_storage(self) -> bool:
        """
        Make parameters and optimizer state views of the flat tensors, if they are not, for example after a state was loaded.

        :return: whether they were not
        """
        parameters, states = self.parameters, self.optimizer.state
        state = states.get(parameters[0])
        if state and (parameters[0].data_ptr(), state["exp_avg"].data_ptr()) == self._addresses:
            return False
        for parameter in parameters:
            # torch's initial state
            states[parameter].setdefault("step", th.zeros((), dtype=th.float32))
            for name in ("exp_avg", "exp_avg_sq"):
                states[parameter].setdefault(name, th.zeros_like(parameter, memory_format=th.preserve_format))
        self.flat = flatten_parameters(parameters)
        register_owner(self.flat, self, self._addresses[0])
        self.exp_avg, self.exp_avg_sq = (
            th.cat([states[parameter][name].reshape(-1) for parameter in parameters]) for name in ("exp_avg", "exp_avg_sq")
        )
        self.steps = th.stack([states[parameter]["step"].cpu() for parameter in parameters])
        self.has_equal_steps = bool((self.steps == self.steps[0]).all())
        parts = zip(
            parameters, views_like(self.exp_avg, parameters), views_like(self.exp_avg_sq, parameters), self.steps, strict=True
        )
        for parameter, exp_avg, exp_avg_sq, step in parts:
            states[parameter].update(step=step, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
        self._addresses = parameters[0].data_ptr(), states[parameters[0]]["exp_avg"].data_ptr()
        return True

    def step_coefficients(self, n: int) -> th.Tensor:
        """
        Compute the numbers of the next steps that depend on the step t.

        :param n: the number of steps
        :return: (n, 3) for each step ``lr``, ``lr / (1 - beta1**t)`` and ``1 / sqrt(1 - beta2**t)``
        """
        group, before = self.group, int(self.steps[0].item())
        (beta1, beta2), rate = group["betas"], group["lr"]
        rows = [(rate, rate / (1 - beta1**step), (1 - beta2**step) ** -0.5) for step in range(before + 1, before + 1 + n)]
        # numpy takes half as long as torch
        dtype = np.float64 if self.flat.dtype == th.float64 else np.float32
        return copy_to_device(np.array(rows, dtype), self.flat.device)

    def _record_for_profiler(self) -> AbstractContextManager[Any]:
        """
        Return a context manager that records a gradient step for torch's profiler as torch's optimizers do. It does nothing if
        the profiler is not active.
        """
        if not th._C._autograd._profiler_enabled():
            return nullcontext()
        name = type(self.optimizer).__name__
        return th.autograd.profiler.record_function(f"Optimizer.step#{name}.step")

    @with_lock
    def step(self, max_grad_norm: float, check: Callable[[float], None] | None = None) -> bool:
        """
        Clip the gradients as torch's ``clip_grad_norm_`` does, and make a step as its Adam does.

        :param max_grad_norm: the norm to which the gradients are clipped
        :param check: a function that is called with the norm before clipping and can raise an error; None (default): no check
        :return: False if no step was made, because a parameter has no gradient or a loaded setting is not supported
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if len(gradients) < len(self.parameters) or any(self.group[name] for name in UNSUPPORTED_SETTINGS):
            return False
        self.bind_storage()
        if not self.has_equal_steps:
            return False
        with th.no_grad(), self._record_for_profiler():
            norm = th.stack(th._foreach_norm(gradients)).norm()
            if check is not None:
                check(norm.item())
            clip = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
            gradient = th.cat([gradient.reshape(-1) for gradient in gradients]).mul_(clip)
            self.steps += 1
            step, group = self.steps[0].item(), self.group
            (beta1, beta2), rate = group["betas"], group["lr"]
            if group["weight_decay"] and group["decoupled_weight_decay"]:
                self.flat.mul_(1 - rate * group["weight_decay"])
            elif group["weight_decay"]:
                gradient = gradient.add(self.flat, alpha=group["weight_decay"])
            self.exp_avg.lerp_(gradient, 1 - beta1)
            self.exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            size, correction = rate / (1 - beta1**step), math.sqrt(1 - beta2**step)
            self.flat.addcdiv_(self.exp_avg, (self.exp_avg_sq.sqrt() / correction).add_(group["eps"]), value=-size)
        return True


def adam_step(
    parameters: th.Tensor,
    gradient: th.Tensor,
    averages: tuple[th.Tensor, th.Tensor],
    step_coefficients: th.Tensor,
    group: Mapping[str, Any],
) -> None:
    """
    Make one step of Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1) or of AdamW (Loshchilov and
    Hutter, 2019, https://arxiv.org/abs/1711.05101, algorithm 2) in place::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        theta = theta - lr / (1 - beta1**t) * m / (sqrt(v) / sqrt(1 - beta2**t) + eps)

    :param parameters: (P,) parameters theta
    :param gradient: (P,) gradient g
    :param averages: (P,) first moments m, (P,) second moments v
    :param step_coefficients: (3,) the numbers that depend on the step t, see :meth:`FlatAdam.step_coefficients`
    :param group: ``betas``, ``eps``, ``weight_decay`` and ``decoupled_weight_decay`` of torch's Adam
    """
    exp_avg, exp_avg_sq = averages
    rate, size, scale = step_coefficients
    beta1, beta2 = group["betas"]
    if group["decoupled_weight_decay"]:
        parameters.mul_(1 - rate * group["weight_decay"])
    else:
        gradient = gradient + group["weight_decay"] * parameters
    exp_avg.lerp_(gradient, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    parameters.sub_(size * exp_avg / (exp_avg_sq.sqrt() * scale + group["eps"]))
