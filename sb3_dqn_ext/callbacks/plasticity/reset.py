"""A callback that resets parts of the networks to initial weights."""

from collections.abc import Iterable, Sequence
from fnmatch import filter as matching
from typing import Any

import torch as th
from torch import nn

from sb3_dqn_ext._validation import check_number, check_type, unknown_name_error
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks
from sb3_dqn_ext.callbacks.plasticity.fresh_weights import check_same_layers, make_fresh_network, moments
from sb3_dqn_ext.callbacks.plasticity.periodic import PeriodicCallback
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.spectral_norm import estimate_spectral_norms

__all__ = ["ResetCallback"]

EXTRACTOR = "features_extractor"
"""the name of the features extractor, or the encoder, in networks of SB3, sb3-contrib and this package"""

Patterns = str | Sequence[str]


def named_layers(network: nn.Module) -> list[str]:
    """Return the names of all modules of a network that have parameters."""
    return [name for name, module in network.named_modules() if name and next(module.parameters(), None) is not None]


def find_tensors(network: nn.Module, argument: str, patterns: Patterns) -> set[str]:
    """
    Find the parameters and buffers of modules.

    :param network: an online network
    :param argument: the name of the argument with the modules, for the message
    :param patterns: names of modules, or patterns such as ``"q_net.*"``
    :return: the names of their parameters and buffers in the state of the network
    :raises ArgumentError: if no module has such a name
    """
    names, tensors = named_layers(network), network.state_dict()
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        modules = matching(names, pattern)
        if not modules:
            raise unknown_name_error(argument, pattern, names)
        found.update(name for name in tensors for module in modules if name.startswith(f"{module}."))
    return found


def check_patterns(argument: str, patterns: Any) -> None:
    """:raises ArgumentError: if ``patterns`` is neither a string nor a sequence of strings"""
    called = "a name or a pattern of modules, such as 'q_net.*', or a list of them"
    check_type(argument, patterns, str | Sequence, called)
    for pattern in patterns:
        check_type(argument, pattern, str, called)


def reset_tensors(network: nn.Module, fresh: nn.Module, names: Iterable[str]) -> None:
    """Copy parameters and buffers of an untrained network to a network: ``theta <- fresh``."""
    tensors, initial = network.state_dict(), fresh.state_dict()  # they share their storage with the networks
    for name in names:
        tensors[name].copy_(initial[name])


def shrink_and_perturb(network: nn.Module, fresh: nn.Module, names: Iterable[str], shrink: float, perturb: float) -> None:
    """Mix parameters of a network with those of an untrained one: ``theta <- shrink * theta + perturb * fresh``."""
    initial = dict(fresh.named_parameters())
    for name, parameter in network.named_parameters():
        if name in names:
            parameter.mul_(shrink).add_(initial[name], alpha=perturb)


class ResetCallback(PeriodicCallback):
    """
    A callback that resets modules of the networks to new initial weights every k gradient steps (Nikishin et al., 2022,
    https://arxiv.org/abs/2205.07802), or shrinks and perturbs them (Schwarzer et al., 2023,
    https://arxiv.org/abs/2305.19452)::

        reset    theta <- fresh
        shrink   theta <- shrink_factor * theta + perturb_factor * fresh

    ``fresh`` are the weights of an untrained network that the policy makes. The replay buffer is kept. The optimizer's running
    averages of these parameters become 0, and its number of steps is kept.

    ``ResetCallback(20_000)`` resets all layers after the features extractor; ``ResetCallback(40_000,
    shrink="features_extractor")`` is that of BBF. Modules have the names of ``model.q_net.named_modules()``, or
    ``model.quantile_net`` for QRDQN; ``*`` is any text. The running statistics of batch normalisation are reset with their
    layer, and are not shrunk.

    The networks are reset between two rollouts, also if an event callback holds this one, and never after the last rollout.
    ``train/resets`` is the number of resets so far.

    :param every: k, the number of steps between two resets
    :param unit: the unit of the steps: ``"gradient_steps"`` (default), or ``"env_steps"``, counted over all environments
    :param reset: names or patterns of the modules that are reset; None (default): all outside of the features extractor that
        ``shrink`` does not name; []: none
    :param shrink: names or patterns of the modules that are shrunk and perturbed; [] (default): none
    :param shrink_factor: the factor of the weights that are shrunk
    :param perturb_factor: the factor of the initial weights that are added to these
    :param until: the last step at which there may be a reset, in the unit of ``every``; None (default): there is none
    :param reset_target: whether the target network is changed in the same way, with the same initial weights (default)
    :raises ArgumentError: if an argument is out of its range; at the start of the run, if the model is no DQN, there is no
        such module, or one is both reset and shrunk
    """

    def __init__(
        self,
        every: int,
        unit: str = "gradient_steps",
        reset: Patterns | None = None,
        shrink: Patterns = (),
        shrink_factor: float = 0.5,
        perturb_factor: float = 0.5,
        until: int | None = None,
        reset_target: bool = True,
    ) -> None:
        super().__init__(every, unit, until)
        check_patterns("reset", () if reset is None else reset)
        check_patterns("shrink", shrink)
        check_number("shrink_factor", shrink_factor, 0, 1)
        check_number("perturb_factor", perturb_factor, low=0)
        check_type("reset_target", reset_target, bool, "True or False")
        if reset is not None and not reset and not shrink:
            raise ArgumentError(f"reset={reset!r} and shrink={shrink!r} name no module: there is nothing to reset.")
        self.reset = reset
        self.shrink = shrink
        self.shrink_factor = shrink_factor
        self.perturb_factor = perturb_factor
        self.reset_target = reset_target

    def _on_run_start(self, continues: bool) -> None:
        super()._on_run_start(continues)
        online, _ = find_networks(self.model, type(self).__name__)
        self._find_changes(online)
        check_same_layers(online, make_fresh_network(self.model, 0), type(self).__name__)
        self.logger.record("train/resets", self.n_acts)

    def _find_changes(self, online: nn.Module) -> tuple[set[str], set[str]]:
        """Return the names of the tensors that are reset, and those that are shrunk."""
        shrunk = find_tensors(online, "shrink", self.shrink)
        if self.reset is None:
            return {name for name in online.state_dict() if not name.startswith(f"{EXTRACTOR}.")} - shrunk, shrunk
        reset = find_tensors(online, "reset", self.reset)
        if both := reset & shrunk:
            raise ArgumentError(
                f"reset={self.reset!r} and shrink={self.shrink!r} have {', '.join(sorted(both))} in common; name it once."
            )
        return reset, shrunk

    def _act(self) -> None:
        model: Any = self.model
        online, target = find_networks(model, type(self).__name__)
        reset, shrunk = self._find_changes(online)
        fresh = make_fresh_network(model, self._draw_seed())
        with th.no_grad():
            for network in {online, target} if self.reset_target else {online}:
                reset_tensors(network, fresh, reset)
                shrink_and_perturb(network, fresh, shrunk, self.shrink_factor, self.perturb_factor)
                estimate_spectral_norms(network)
            for name, parameter in online.named_parameters():
                if name in reset | shrunk:
                    for average in moments(model.policy.optimizer, parameter):
                        average.zero_()
        self.logger.record("train/resets", self.n_acts + 1)
