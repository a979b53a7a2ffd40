"""How healthy the network is: its gradients, weights, units and features."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.diagnostics.metrics import dormant_share, effective_rank, unit_scores
from sb3_dqn_ext.callbacks.diagnostics.model_access import q_values, read_transitions, sample_indices
from sb3_dqn_ext.callbacks.diagnostics.windowed import WindowedDiagnostic
from sb3_dqn_ext.networks.policies import ACTIVATIONS
from sb3_dqn_ext.networks.q_network import QNetwork

__all__ = ["NetworkHealthCallback"]

TAU = 0.025  # Sokar et al., section 3.2
DELTA = 0.01  # Kumar et al., section 3
MAX_GRADIENTS = 10_000  # gradients


@contextmanager
def record_layers(net: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[list[tuple[th.Tensor, th.Tensor]]]:
    """
    :param net: a network
    :param kinds: of layers
    :return: what each such layer is told and what it says, in the order in which they speak
    """
    found: list[tuple[th.Tensor, th.Tensor]] = []
    layers = [layer for layer in net.modules() if isinstance(layer, kinds)]
    hooks = [layer.register_forward_hook(lambda _, inputs, output: found.append((inputs[0], output))) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def hidden_activations(net: nn.Module, observations: PyTorchObs) -> list[th.Tensor]:
    """(B, \\*obs) -> (B, U, ...) of each layer behind an activation function"""
    with record_layers(net, tuple(ACTIVATIONS.values())) as found:
        q_values(net, observations)
    return [output for _, output in found]


def trunk_features(net: nn.Module, observations: PyTorchObs) -> th.Tensor | None:
    """(B, \\*obs) -> (B, F) what the trunk says; of networks that are not ours, what their last linear layer is told"""
    if isinstance(net, QNetwork):
        assert net.features_extractor is not None
        hidden: th.Tensor = net.q_net.trunk(net.extract_features(observations, net.features_extractor))  # type: ignore[operator]
        return hidden
    with record_layers(net, (nn.Linear,)) as found:
        q_values(net, observations)
    return found[-1][0].flatten(1) if found else None


class NetworkHealthCallback(WindowedDiagnostic):
    """
    Log how healthy the online network is.

    - ``network/gradient_norm``, ``network/gradient_norm_max``: the mean and the largest Euclidean norm of the gradient before
      it is clipped, of the updates in the last fiftieth of the time between two looks, or from one training to the next, if
      that is longer; where there were none, of the next ones. ``network/clipped``: the share of them that ``max_grad_norm``
      shortens. Compiled updates tell no norm: in its place is that of one batch of ``batch_size``, drawn as the other numbers
      are, and there is no ``clipped``
    - ``network/weight_norm``: the Euclidean norm of all parameters; ``network/norm_of_NAME``: that of each
    - ``network/dormant``: the share of hidden units whose mean activity is at most 0.025 times the mean of their layer
      (https://arxiv.org/abs/2302.12902); ``network/dormant_1`` ...: of each layer, the first one first. A channel of an image
      is a unit. Layers behind activation functions by name (``relu``, ``tanh`` ...) are looked at
    - ``network/feature_rank``: how many singular values of the features hold 99 % of their sum
      (https://arxiv.org/abs/2010.14498); ``network/feature_rank_share``: that over how many there can be. Features are what
      the trunk says, or what the last layer is told

    Activities and features are those at ``batch_size`` states of the replay memory, drawn anew each time.

    :param every: environment steps between two looks
    :param batch_size: how many states
    :raises ArgumentError: if an argument cannot be
    """

    group = "network"

    def __init__(self, every: int = 10_000, batch_size: int = 512) -> None:
        super().__init__(every)
        check_number("batch_size", batch_size, low=2, integer=True)
        self.batch_size = batch_size
        # of the latest gradients since the last look
        self._norms: deque[th.Tensor] = deque(maxlen=MAX_GRADIENTS)
        self._parts: dict[int, th.Tensor] = {}  # of the last gradient, the norms of each parameter's
        self._hooks: tuple[Any, ...] = ()

    def _begin(self) -> None:
        self._put_back()
        self._norms.clear()
        self._parts = {}

    def _put_back(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = ()

    def _next_observation(self) -> int:
        return self._log_at if self._is_compiled else super()._next_observation()  # compiled updates show no gradients

    def _watch(self) -> None:
        if not self._hooks and not self._is_compiled:
            learned: list[Any] = [of for of in self._networks[0].parameters() if of.requires_grad]
            self._hooks = tuple(of.register_post_accumulate_grad_hook(partial(self._note, i)) for i, of in enumerate(learned))

    def _has_seen(self) -> bool:
        self._close_gradient()
        return bool(self._norms) or self._is_compiled

    def _note(self, i: int, parameter: th.Tensor) -> None:
        """A gradient is there, and nobody has clipped it yet."""
        if i in self._parts:  # it is that of another update
            self._close_gradient()
        assert parameter.grad is not None
        self._parts[i] = th.linalg.vector_norm(parameter.grad)

    def _close_gradient(self) -> None:
        if self._parts:
            self._norms.append(th.linalg.vector_norm(th.stack(list(self._parts.values()))))
            self._parts = {}

    @property
    def _is_compiled(self) -> bool:
        updater = getattr(self.model, "updater", None)
        return updater is not None and updater.compiled is not None

    def _look(self) -> None:
        model: Any = self.model
        online, _ = self._networks
        self._close_gradient()
        norms = {name: float(th.linalg.vector_norm(of)) for name, of in online.named_parameters()}
        self._record({"weight_norm": float(np.linalg.norm(list(norms.values())))})
        self._record({f"norm_of_{name}": norm for name, norm in norms.items()}, in_table=False)
        cells = sample_indices(model.replay_buffer, self.batch_size, self._generator())
        if len(cells) == 0:
            return
        batch = read_transitions(model, cells)
        scores = [unit_scores(activations) for activations in hidden_activations(online, batch.observations)]
        if scores:
            self._record({"dormant": dormant_share(scores, TAU)})
            parts = {f"dormant_{i}": dormant_share([of_layer], TAU) for i, of_layer in enumerate(scores, 1)}
            self._record(parts, in_table=False)
        found = trunk_features(online, batch.observations)
        if found is not None and bool(found.isfinite().all()):
            rank = effective_rank(found, DELTA)
            self._record({"feature_rank": rank, "feature_rank_share": rank / min(found.shape)})
        if self._is_compiled:
            with th.enable_grad():
                loss = model.updater.loss(batch)[0].mean()
                gradients = th.autograd.grad(loss, [of for of in online.parameters() if of.requires_grad], allow_unused=True)
            self._record_gradients([th.linalg.vector_norm(th.cat([of.ravel() for of in gradients if of is not None]))], None)
        elif self._norms:
            self._record_gradients(self._norms, model.max_grad_norm)

    def _record_gradients(self, of_updates: Iterable[th.Tensor], limit: float | None) -> None:
        norms = th.stack(list(of_updates)).double().cpu().numpy()
        self._record({"gradient_norm": float(norms.mean()), "gradient_norm_max": float(norms.max())})
        if limit is not None:
            self._record({"clipped": float((norms > limit).mean())})
