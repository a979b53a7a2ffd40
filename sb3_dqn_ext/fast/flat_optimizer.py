"""Optimizers on one flat tensor of all parameters."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from operator import is_
from threading import RLock
from typing import Any, TypeVar, cast

import numpy as np
import torch as th
from torch import nn

from sb3_dqn_ext.algorithm.batches import copy_to_device
from sb3_dqn_ext.fast.optimizer_rules import RULES, decay_weights
from sb3_dqn_ext.networks.flat_storage import addresses, flatten_parameters, register_owner, views_like

__all__ = ["FlatOptimizer", "unsupported_reason_flat", "with_lock"]

TABLE_LENGTH = 256
"""The number of steps for which numbers that depend on the step are computed together."""
RowGroups = dict[tuple[int, int], Sequence[th.Tensor]]
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
    Return the reason why :class:`FlatOptimizer` cannot replace an optimizer.

    :param parameters: the parameters of the network
    :param optimizer: their optimizer
    :return: the reason; None if it can
    """
    rule = RULES.get(type(optimizer))
    if rule is None:
        return f"{type(optimizer).__name__} is none of torch's {', '.join(kind.__name__ for kind in RULES)}"
    if len(optimizer.param_groups) > 1:
        return "the optimizer has several groups of parameters"
    for name in rule.unsupported:
        if optimizer.param_groups[0][name]:
            return f"the optimizer has {name}={optimizer.param_groups[0][name]}"
    if not all(parameter.requires_grad for parameter in parameters):
        return "some parameters are frozen (requires_grad=False)"
    if len(parameters) != len(group := optimizer.param_groups[0]["params"]) or not all(map(is_, parameters, group)):
        return "the optimizer has other parameters than the network"
    if len({(parameter.dtype, parameter.device) for parameter in parameters}) > 1:
        return "its parameters differ in precision or device"
    return None


class FlatOptimizer:
    """
    Steps of one of torch's optimizers on one flat tensor of all parameters.

    There are a few calls of torch for all parameters instead of a few for each. The results have the same bits as torch's, and
    parameters and optimizer state stay views of the flat tensors, so that they are saved as usual.

    :param parameters: the parameters of the network
    :param optimizer: their optimizer, whose state and settings are used; :func:`unsupported_reason_flat` must be None for it
    """

    flat: th.Tensor
    """The (P,) parameters."""
    averages: list[th.Tensor]
    """The (P,) state tensors, such as running averages of the gradient, in the order of the rule's names."""
    steps: th.Tensor
    """The number of steps of each parameter tensor."""
    has_equal_steps: bool
    """Whether that number is the same for all."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: th.optim.Optimizer) -> None:
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self.rule = RULES[type(optimizer)]
        self._addresses: list[int] = []  # of the parameters
        self._state_addresses: list[int] | None = None
        # the number of steps before the first row of a table, the settings that it is for, the table, and its rows in groups
        # of n from row r on, for each (n, r) that was used
        self._coefficients: tuple[int, list[Any], th.Tensor, RowGroups] = 0, [], th.empty(0), {}
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
        return addresses(self.parameters) == self._addresses

    def bind_storage(self) -> bool:
        """
        Make parameters and optimizer state views of the flat tensors, if they are not, for example after a state was loaded
        or a user has replaced a tensor.

        :return: whether they were not
        """
        parameters, states, names = self.parameters, self.optimizer.state, self.rule.averages
        if self.is_bound and self._addresses_of_state() == self._state_addresses:
            return False
        for parameter in parameters:
            # torch's initial state
            states[parameter].setdefault("step", th.zeros((), dtype=th.float32))
            for name in names:
                states[parameter].setdefault(name, th.zeros_like(parameter, memory_format=th.preserve_format))
        self.flat = flatten_parameters(parameters)
        self._coefficients = 0, [], th.empty(0), {}  # precision and device may be others
        register_owner(self.flat, self, self._addresses[0] if self._addresses else 0)
        self.averages = [th.cat([states[parameter][name].reshape(-1) for parameter in parameters]) for name in names]
        self.steps = th.stack([states[parameter]["step"].cpu() for parameter in parameters])
        self._step_counts = self.steps.numpy()  # the same memory: reading a number of it takes a tenth of torch's time
        self.has_equal_steps = bool((self._step_counts == self._step_counts[0]).all())
        views = zip(*(views_like(average, parameters) for average in self.averages), strict=True)
        for parameter, step, own in zip(parameters, self.steps, views, strict=True):
            states[parameter].update(step=step, **dict(zip(names, own, strict=True)))
        self._addresses, self._state_addresses = addresses(parameters), self._addresses_of_state()
        return True

    def _addresses_of_state(self) -> list[int] | None:
        """Return the addresses of the optimizer's state; None if a part of it is missing."""
        names = "step", *self.rule.averages
        try:
            return [state[name].data_ptr() for state in self.optimizer.state.values() for name in names]
        except (KeyError, AttributeError):
            return None

    def step_coefficients(self, n: int) -> th.Tensor:
        """
        Compute the numbers of the next steps that depend on the step or on the learning rate.

        :param n: the number of steps
        :return: (n, C) the C numbers of each step, see
            :meth:`~sb3_dqn_ext.fast.optimizer_rules.OptimizerRule.step_coefficients`
        """
        group, done = self.group, int(self._step_counts[0])
        settings = [group["lr"], *map(group.__getitem__, self.rule.constants)]
        first, known_settings, table, groups = self._coefficients
        if settings != known_settings or not first <= done <= first + len(table) - n:
            # a rate that has stayed the same will be used for several times as many steps
            length = max(n, min(4 * len(table), TABLE_LENGTH)) if settings == known_settings else n
            rows = [self.rule.step_coefficients(group, step) for step in range(done + 1, done + 1 + length)]
            # numpy takes half as long as torch
            dtype = np.float64 if self.flat.dtype == th.float64 else np.float32
            first, table, groups = done, copy_to_device(np.array(rows, dtype), self.flat.device), {}
            self._coefficients = first, settings, table, groups
        position, start = divmod(done - first, n)
        if (n, start) not in groups:
            n_groups = (len(table) - start) // n
            # all groups at once: a slice in each call would take several times as long
            groups[n, start] = table[start : start + n_groups * n].view(n_groups, n, -1).unbind()
        return groups[n, start][position]

    def count_steps(self, n: int) -> None:
        """
        Add to the number of steps of each parameter tensor.

        :param n: the number of steps; it is negative for steps that were counted and not made
        """
        self._step_counts += n

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
        Clip the gradients as torch's ``clip_grad_norm_`` does, and make a step as its optimizer does.

        :param max_grad_norm: the norm to which the gradients are clipped
        :param check: a function that is called with the norm before clipping and can raise an error; None (default): no check
        :return: False if no step was made, because a parameter has no gradient or a loaded setting is not supported
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if len(gradients) < len(self.parameters) or any(self.group[name] for name in self.rule.unsupported):
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
            self.count_steps(1)
            group = self.group
            gradient = decay_weights(self.flat, gradient, group["lr"], group)
            self.rule.eager_step(self.flat, gradient, self.averages, float(self._step_counts[0]), group)
        return True
