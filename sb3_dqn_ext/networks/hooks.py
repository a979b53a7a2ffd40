"""
Fast detection of hooks and replaced methods of networks and optimizers.

torch calls hooks in ``Module.__call__``, ``Tensor.backward`` and ``Optimizer.step``. Code that bypasses these methods must
detect hooks itself.
"""

from collections.abc import Iterable
from inspect import unwrap
from itertools import chain, product, repeat
from operator import attrgetter, contains, is_
from typing import Any

import torch as th
from torch import nn
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer
from torch.utils.hooks import RemovableHandle

__all__ = ["NetworkSnapshot", "describe_optimizer_hooks", "is_instrumented"]

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
PREDICTION_METHODS = ("compute_prediction", "predict_returns", "extract_features")
"""The methods beside ``forward`` in which a Q-network computes."""
TORCH_STEPS: dict[Any, Any] = {
    kind: unwrap(kind.step)
    for kind in vars(th.optim).values()
    if isinstance(kind, type) and issubclass(kind, th.optim.Optimizer)
}
"""The original step of each optimizer; torch wraps it for its profiler."""
_wrapped_steps: dict[Any, Any] = {}
"""The wrapped step of each optimizer, once it has been found to be torch's."""
_requires_grad = attrgetter("requires_grad")
_gradient_hooks, _accumulation_hooks = attrgetter("_backward_hooks"), attrgetter("_post_accumulate_grad_hooks")
_any_global_hook: Any = torch_module._has_any_global_hook


def is_instrumented(module: nn.Module) -> bool:
    """
    Return whether a call of a module does more than the ``forward`` of its class: it has hooks, or a ``forward`` that was
    assigned to it, or is compiled.

    :param module: a module
    """
    own = module.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or own.get("_compiled_call_impl")
        or _any_global_hook()
    )


class NetworkSnapshot:
    """
    The modules and parameters of networks at one time, for the detection of later changes.

    :param networks: the networks
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self._networks = list(networks)
        self._all_modules = list(dict.fromkeys(module for network in self._networks for module in network.modules()))
        # torch changes these dictionaries and never replaces them, so that references to them stay valid
        self._children = [module._modules for module in self._all_modules if not _is_leaf(module)]
        self._parts = [*self._children, *(module._parameters for module in self._all_modules if _has_parameters(module))]
        self._hooks = [getattr(module, name) for module in self._all_modules for name in HOOKS]
        self._attributes = [module.__dict__ for module in self._all_modules]
        pairs = product((network.__dict__ for network in self._networks), PREDICTION_METHODS)
        self._network_attributes, self._method_names = zip(*pairs, strict=True)
        self._modules, self._all = self._flatten(self._children), self._flatten(self._parts)
        self._parameters = [part for part in self._all if isinstance(part, nn.Parameter)]
        self._required_grad = list(map(_requires_grad, self._parameters))
        self._hook_description: str | None = None
        self._next_handle_id = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return NetworkSnapshot, (self._networks,)  # a copy refers to the copied networks

    @staticmethod
    def _flatten(parts: list[Any]) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, parts)))

    def has_same_modules(self) -> bool:
        """Return whether the modules are the same objects as when this snapshot was made."""
        return self._flatten(self._children) == self._modules

    def is_current(self) -> bool:
        """
        Return whether the networks are as they were when this snapshot was made: the modules and parameters are the same
        objects, and the ``requires_grad`` of each parameter is unchanged. The values of parameters are not compared.
        """
        now = self._flatten(self._parts)
        same = len(now) == len(self._all) and all(map(is_, now, self._all))
        return same and list(map(_requires_grad, self._parameters)) == self._required_grad

    def describe_hooks(self) -> str | None:
        """Return a description of a hook on a module or a parameter, or of a replaced method; None if there is none."""
        # torch numbers the handles of all hooks: if the next number is the same, no hook was registered
        if self._hook_description is not None or RemovableHandle.next_id != self._next_handle_id:
            self._hook_description, self._next_handle_id = self._find_hooks(), RemovableHandle.next_id
        if self._hook_description is not None:
            return self._hook_description
        if any(map(contains, self._attributes, repeat("forward"))):
            return "the forward of a module was replaced"
        if any(map(contains, self._network_attributes, self._method_names)):
            return "a method of a network was replaced"
        return None

    def _find_hooks(self) -> str | None:
        if any(self._hooks) or _any_global_hook():
            return "a hook is registered on its modules"
        if any(map(_gradient_hooks, self._parameters)) or any(map(_accumulation_hooks, self._parameters)):
            return "a hook is registered on its parameters"
        return None


def _is_leaf(module: nn.Module) -> bool:
    """Return whether a module is a layer of torch without children. (A parametrization changes its class and parameters.)"""
    kind = type(module).__module__
    return not module._modules and kind.startswith("torch.nn.modules.") and kind != "torch.nn.modules.container"


def _has_parameters(module: nn.Module) -> bool:
    return bool(module._parameters) or not _is_leaf(module)


def describe_optimizer_hooks(optimizer: th.optim.Optimizer) -> str | None:
    """
    Return a description of a hook on an optimizer, or of a replaced ``step``; None if there is none.

    :param optimizer: an optimizer
    """
    own, kind = vars(optimizer), type(optimizer)
    name, step = kind.__name__, kind.step
    if step is not _wrapped_steps.get(kind):  # torch wraps it when the first optimizer of its kind is made
        if unwrap(step) is not TORCH_STEPS.get(kind):
            return f"the step of {name} was replaced"
        _wrapped_steps[kind] = step
    if "step" in own or "zero_grad" in own:
        return f"the step of {name} was replaced, as a learning-rate scheduler of torch does"
    hooks = own["_optimizer_step_pre_hooks"] or own["_optimizer_step_post_hooks"]
    if hooks or torch_optimizer._global_optimizer_pre_hooks or torch_optimizer._global_optimizer_post_hooks:
        return f"a hook is registered on the step of {name}"
    return None
