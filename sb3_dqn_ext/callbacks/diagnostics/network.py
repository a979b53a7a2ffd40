"""A diagnostic of the online network: its gradients, weights, units and features."""

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

TAU = 0.025
"""the largest score of a dormant unit (Sokar et al., section 3.2)"""
DELTA = 0.01
"""the share of the sum of singular values that an effective rank leaves out (Kumar et al., section 3)"""
MAX_GRADIENTS = 10_000
"""the largest number of gradients whose norms are averaged"""


@contextmanager
def record_layers(net: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[list[tuple[th.Tensor, th.Tensor]]]:
    """
    Record the inputs and outputs of layers within the block.

    :param net: a network
    :param kinds: the classes of the layers
    :return: the input and the output of each call of such a layer, in the order of the calls
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
    """Return the (B, U, ...) outputs of each activation function of a network at (B, \\*obs) observations."""
    with record_layers(net, tuple(ACTIVATIONS.values())) as found:
        q_values(net, observations)
    return [output for _, output in found]


def trunk_features(net: nn.Module, observations: PyTorchObs) -> th.Tensor | None:
    """
    Return the features from which the output layers of a network compute Q-values.

    :param net: an online network
    :param observations: (B, \\*obs) inputs of the network
    :return: (B, F) the outputs of the trunk. For networks of other packages: the inputs of the last linear layer, or None if
        there is no linear layer
    """
    if isinstance(net, QNetwork):
        assert net.features_extractor is not None
        hidden: th.Tensor = net.q_net.trunk(net.extract_features(observations, net.features_extractor))  # type: ignore[operator]
        return hidden
    with record_layers(net, (nn.Linear,)) as found:
        q_values(net, observations)
    return found[-1][0].flatten(1) if found else None


class NetworkHealthCallback(WindowedDiagnostic):
    """
    A diagnostic that logs properties of the online network and of its gradients.

    - ``network/gradient_norm``, ``network/gradient_norm_max``: the mean and the largest Euclidean norm of the gradient before
      it is clipped, over the updates in the last fiftieth of the interval, or from one training to the next, if that is
      longer. If there are none, over the next updates. ``network/clipped``: the share of these updates that ``max_grad_norm``
      clips. Compiled updates do not provide norms: in their place is the norm of one batch of ``batch_size`` transitions,
      drawn as for the other numbers, and there is no ``clipped``
    - ``network/weight_norm``: the Euclidean norm of all parameters; ``network/norm_of_NAME``: the norm of each parameter
    - ``network/dormant``: the share of hidden units whose mean activity is at most 0.025 times the mean of their layer
      (https://arxiv.org/abs/2302.12902); ``network/dormant_1`` ...: the share in each layer. A channel of an image is a unit.
      Hidden layers are those followed by an activation function that has a name (``relu``, ``tanh`` ...)
    - ``network/feature_rank``: the number of singular values of the features that hold 99 % of their sum
      (https://arxiv.org/abs/2010.14498); ``network/feature_rank_share``: that number over its maximum. Features are the
      outputs of the trunk, or the inputs of the last layer

    Activities and features are those at ``batch_size`` states of the replay buffer, drawn again for each measurement.

    :param every: environment steps between two measurements. None (default): about 40 measurements in a run, at most one in
        10,000 steps, but 10 in any run
    :param batch_size: the number of states
    :raises ArgumentError: if an argument is out of its range
    """

    group = "network"

    def __init__(self, every: int | None = None, batch_size: int = 512) -> None:
        super().__init__(every)
        check_number("batch_size", batch_size, low=2, integer=True)
        self.batch_size = batch_size
        self._norms: deque[th.Tensor] = deque(maxlen=MAX_GRADIENTS)  # of the latest gradients since the last measurement
        self._parts: dict[int, th.Tensor] = {}  # the norms of the parts of the last gradient, by the number of the parameter
        self._hooks: tuple[Any, ...] = ()

    def _prepare(self) -> None:
        self._restore_model()
        self._norms.clear()
        self._parts = {}

    def _restore_model(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = ()

    def _next_observation(self) -> int:
        # compiled updates show no gradients
        return self._measurement_due if self._is_compiled else super()._next_observation()

    def _start_observing(self) -> None:
        if not self._hooks and not self._is_compiled:
            learned: list[Any] = [one for one in self._networks[0].parameters() if one.requires_grad]
            self._hooks = tuple(
                one.register_post_accumulate_grad_hook(partial(self._add_parameter_norm, i)) for i, one in enumerate(learned)
            )

    def _has_observations(self) -> bool:
        self._finish_gradient()
        return bool(self._norms) or self._is_compiled

    def _add_parameter_norm(self, i: int, parameter: th.Tensor) -> None:
        """Store the norm of the gradient of a parameter. Hooks are called before gradients are clipped."""
        if i in self._parts:  # the gradient is that of the next update
            self._finish_gradient()
        assert parameter.grad is not None
        self._parts[i] = th.linalg.vector_norm(parameter.grad)

    def _finish_gradient(self) -> None:
        if self._parts:
            self._norms.append(th.linalg.vector_norm(th.stack(list(self._parts.values()))))
            self._parts = {}

    @property
    def _is_compiled(self) -> bool:
        updater = getattr(self.model, "updater", None)
        return updater is not None and updater.compiled is not None

    def _measure(self) -> None:
        model: Any = self.model
        online, _ = self._networks
        self._finish_gradient()
        norms = {name: float(th.linalg.vector_norm(one)) for name, one in online.named_parameters()}
        self._record({"weight_norm": float(np.linalg.norm(list(norms.values())))})
        self._record({f"norm_of_{name}": norm for name, norm in norms.items()}, in_table=False)
        indices = sample_indices(model.replay_buffer, self.batch_size, self._generator())
        if len(indices) == 0:
            return
        batch = read_transitions(model, indices)
        scores = [unit_scores(activations) for activations in hidden_activations(online, batch.observations)]
        if scores:
            self._record({"dormant": dormant_share(scores, TAU)})
            parts = {f"dormant_{i}": dormant_share([layer_scores], TAU) for i, layer_scores in enumerate(scores, 1)}
            self._record(parts, in_table=False)
        found = trunk_features(online, batch.observations)
        if found is not None and bool(found.isfinite().all()):
            rank = effective_rank(found, DELTA)
            self._record({"feature_rank": rank, "feature_rank_share": rank / min(found.shape)})
        if self._is_compiled:
            with th.enable_grad():
                loss = model.updater.loss(batch)[0].mean()
                gradients = th.autograd.grad(
                    loss, [one for one in online.parameters() if one.requires_grad], allow_unused=True
                )
            self._record_gradients(
                [th.linalg.vector_norm(th.cat([one.ravel() for one in gradients if one is not None]))], None
            )
        elif self._norms:
            self._record_gradients(self._norms, model.max_grad_norm)

    def _record_gradients(self, norms_of_updates: Iterable[th.Tensor], limit: float | None) -> None:
        norms = th.stack(list(norms_of_updates)).double().cpu().numpy()
        self._record({"gradient_norm": float(norms.mean()), "gradient_norm_max": float(norms.max())})
        if limit is not None:
            self._record({"clipped": float((norms > limit).mean())})
