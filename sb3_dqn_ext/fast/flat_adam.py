"""Parameters that lie side by side in one tensor, so that one call is for all of them."""

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

from sb3_dqn_ext.networks.flat_storage import flatten_parameters, register_owner, views_like

__all__ = ["FlatAdam", "adam_step", "unsupported_reason_flat", "with_lock"]

UNSUPPORTED_SETTINGS = ("amsgrad", "maximize", "differentiable", "fused", "capturable")
"""settings of torch's Adam that are left to it"""


Method = TypeVar("Method", bound=Callable[..., Any])


def with_lock(method: Method) -> Method:
    """
    :param method: a method of an object that has a ``lock``
    :return: the same, holding it
    """

    @wraps(method)
    def holding(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast(Method, holding)


def unsupported_reason_flat(parameters: Sequence[nn.Parameter], optimizer: th.optim.Optimizer) -> str | None:
    """
    :param parameters: what is learned
    :param optimizer: what follows their gradients
    :return: what :class:`FlatAdam` cannot do as the optimizer does it; None if there is nothing
    """
    if type(optimizer) not in (th.optim.Adam, th.optim.AdamW):
        return f"{type(optimizer).__name__} is not Adam, nor AdamW"
    if len(optimizer.param_groups) > 1:
        return "the optimizer has several groups of parameters"
    for name in UNSUPPORTED_SETTINGS:
        if optimizer.param_groups[0][name]:
            return f"the optimizer has {name}={optimizer.param_groups[0][name]}"
    if not all(parameter.requires_grad for parameter in parameters):
        return "some parameters are not learned"
    if len(parameters) != len(group := optimizer.param_groups[0]["params"]) or not all(map(is_, parameters, group)):
        return "the optimizer has other parameters than the network"
    if len({(parameter.dtype, parameter.device) for parameter in parameters}) > 1:
        return "its parameters differ in precision or device"
    return None


class FlatAdam:
    """
    Steps for torch's Adam or AdamW, with all parameters side by side, and its averages, too: in place of some calls for each
    parameter there are some for all. The numbers are the same, to the last bit, and all stays where the optimizer saves it.

    :param parameters: what is learned
    :param optimizer: whose state and settings it has; :func:`why_not_flat` says None of it
    """

    flat: th.Tensor
    """(P,) the parameters"""
    exp_avg: th.Tensor
    """(P,) the average of the gradient"""
    exp_avg_sq: th.Tensor
    """(P,) the average of its square"""
    steps: th.Tensor
    """(parameters,) how many steps each has seen"""
    has_equal_steps: bool
    """whether that is the same number for all"""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: th.optim.Optimizer) -> None:
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self._places = 0, 0
        self.lock = RLock()  # is held where the tensors are changed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.parameters, self.optimizer)  # a copy binds its own parameters

    @property
    def group(self) -> dict[str, Any]:
        """The settings."""
        group: dict[str, Any] = self.optimizer.param_groups[0]
        return group

    @property
    def is_bound(self) -> bool:
        """Whether the parameters are in their places."""
        return self.parameters[0].data_ptr() == self._places[0]

    def bind_storage(self) -> bool:
        """
        Put parameters and averages in their places, if they are not there: a state that was loaded brings tensors of its own.

        :return: whether they were not
        """
        parameters, states = self.parameters, self.optimizer.state
        state = states.get(parameters[0])
        if state and (parameters[0].data_ptr(), state["exp_avg"].data_ptr()) == self._places:
            return False
        for parameter in parameters:
            # as torch begins
            states[parameter].setdefault("step", th.zeros((), dtype=th.float32))
            for name in ("exp_avg", "exp_avg_sq"):
                states[parameter].setdefault(name, th.zeros_like(parameter, memory_format=th.preserve_format))
        self.flat = flatten_parameters(parameters)
        register_owner(self.flat, self, self._places[0])
        self.exp_avg, self.exp_avg_sq = (
            th.cat([states[parameter][name].reshape(-1) for parameter in parameters]) for name in ("exp_avg", "exp_avg_sq")
        )
        self.steps = th.stack([states[parameter]["step"].cpu() for parameter in parameters])
        self.has_equal_steps = bool((self.steps == self.steps[0]).all())
        parts = zip(
            parameters, views_like(self.exp_avg, parameters), views_like(self.exp_avg_sq, parameters), self.steps, strict=True
        )
        for parameter, first, second, step in parts:
            states[parameter].update(step=step, exp_avg=first, exp_avg_sq=second)
        self._places = parameters[0].data_ptr(), states[parameters[0]]["exp_avg"].data_ptr()
        return True

    def step_coefficients(self, n: int) -> th.Tensor:
        """
        :param n: how many steps are to come
        :return: (n, 3) for each of them the learning rate, that divided by the first average's correction, and the root of
            the second's, by which to multiply
        """
        group, before = self.group, int(self.steps[0].item())
        (beta1, beta2), rate = group["betas"], group["lr"]
        rows = [(rate, rate / (1 - beta1**step), (1 - beta2**step) ** -0.5) for step in range(before + 1, before + 1 + n)]
        # by way of numpy, which takes half as long
        return th.from_numpy(np.array(rows, np.float64 if self.flat.dtype == th.float64 else np.float32)).to(self.flat.device)

    def _shown_to_profiler(self) -> AbstractContextManager[Any]:
        """Record a step as torch's optimizers do, where a profiler of torch is active."""
        if not th._C._autograd._profiler_enabled():
            return nullcontext()
        name = type(self.optimizer).__name__
        return th.autograd.profiler.record_function(f"Optimizer.step#{name}.step")

    @with_lock
    def step(self, max_grad_norm: float, check: Callable[[float], None] | None = None) -> bool:
        """
        Clip the gradients as torch's ``clip_grad_norm_`` does, and descend them as its Adam does.

        :param max_grad_norm: to which norm
        :param check: is told the norm they have before, and may raise an error
        :return: False if that is left to torch, as there is a parameter without a gradient, or a setting that was loaded
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if len(gradients) < len(self.parameters) or any(self.group[name] for name in UNSUPPORTED_SETTINGS):
            return False
        self.bind_storage()
        if not self.has_equal_steps:
            return False
        with th.no_grad(), self._shown_to_profiler():
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
    (P,) parameters, their gradient and its averages: one step of Adam (https://arxiv.org/abs/1412.6980, algorithm 1), or of
    AdamW (https://arxiv.org/abs/1711.05101, algorithm 2), in place.

    :param numbers: (3,) what changes from step to step, see :meth:`FlatAdam.step_coefficients`
    :param group: ``betas``, ``eps``, ``weight_decay`` and ``decoupled_weight_decay`` of torch's Adam
    """
    first, second = averages
    rate, size, scale = numbers
    beta1, beta2 = group["betas"]
    if group["decoupled_weight_decay"]:
        parameters.mul_(1 - rate * group["weight_decay"])
    else:
        gradient = gradient + group["weight_decay"] * parameters
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    parameters.sub_(size * first / (second.sqrt() * scale + group["eps"]))
