"""
The hidden layers of a network: where their units come from, and which weights read them.

The layers of users, heads and encoders are connected in any way, so the connections are not read from their classes. The
output of one unit is replaced by nan, and the inputs of all layers that contain nan depend on this unit. Other layers with
weights return zeros in the meantime, so that no nan passes through them. Row i of a batch has the nan of unit i: one forward
pass finds the connections of all units of a layer.

Shapes: U units, R rows, F features.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.networks.policies import ACTIVATIONS

__all__ = ["HiddenLayer", "find_hidden_layers", "units_last"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (nn.Linear, *CONVOLUTIONS)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


class HiddenLayer(NamedTuple):
    """A dense layer or a convolution whose outputs enter one activation function."""

    name: str
    """The name of the layer in its network."""
    norms: list[str]
    """The names of the normalisations between the layer and its activation function."""
    activation: nn.Module
    """The activation function."""
    is_convolution: bool
    """Whether the units are channels."""
    readers: dict[str, th.Tensor]
    """For each layer that reads the units, by name: the (U, F) inputs of it that belong to each unit."""


class Trace(NamedTuple):
    """The modules that depend on the units of a layer, in the order of their calls."""

    readers: list[tuple[nn.Module, th.Tensor]]
    """The layers with weights, and the (U, F) inputs of them that depend on each unit."""
    activations: list[tuple[nn.Module, th.Tensor]]
    """The activation functions, and the (U, F) outputs of them that depend on each unit."""
    norms: list[nn.Module]
    """The normalisations before the activation function."""
    reaches_output: bool
    """Whether the output of the network depends on the units without a layer with weights in between."""


def units_last(values: th.Tensor, is_convolution: bool) -> th.Tensor:
    """Move the axis of the units of a layer to the end: it is axis 1 of the outputs of convolutions."""
    return values.movedim(1, -1) if is_convolution else values


def dependence(values: th.Tensor, n_units: int, is_convolution: bool) -> th.Tensor:
    """
    Return which features are nan for which unit.

    :param values: (R, F, ...) or (R, ..., F) features, where R is a multiple of U
    :param n_units: U; the first R / U rows belong to unit 0
    :param is_convolution: whether axis 1 contains the features
    :return: (U, F) whether feature f depends on unit u
    """
    nans = units_last(values.isnan(), is_convolution)
    return nans.reshape(n_units, -1, nans.shape[-1]).any(dim=1)


@contextmanager
def forward_hooks(hooks: dict[nn.Module, Any]) -> Iterator[None]:
    """Register a forward hook on each module within the block."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace_units(net: nn.Module, layer: nn.Module, observations: PyTorchObs, n_units: int, stops: bool) -> Trace:
    """
    Find what depends on the units of a layer.

    :param net: the network, in evaluation mode
    :param layer: the layer
    :param observations: U equal observations
    :param n_units: U
    :param stops: whether activation functions return zeros
    :return: the modules that depend on the units
    """
    found = Trace([], [], [], False)

    def mark_units(module: nn.Module, _: Any, output: th.Tensor) -> th.Tensor:
        marked = units_last(output, isinstance(module, CONVOLUTIONS)).clone(memory_format=th.contiguous_format)  # (R, ..., U)
        every = th.arange(n_units)
        marked.view(n_units, -1, n_units)[every, :, every] = th.nan
        return marked.movedim(-1, 1) if isinstance(module, CONVOLUTIONS) else marked

    def read(module: nn.Module, inputs: tuple[th.Tensor], output: th.Tensor) -> th.Tensor:
        if inputs[0].isnan().any():
            found.readers.append((module, dependence(inputs[0], n_units, isinstance(module, CONVOLUTIONS))))
        return th.zeros_like(output)

    def activate(module: nn.Module, inputs: tuple[th.Tensor], output: th.Tensor) -> th.Tensor:
        if inputs[0].isnan().any():
            found.activations.append((module, dependence(output, n_units, isinstance(layer, CONVOLUTIONS))))
        return th.zeros_like(output) if stops else output

    def normalise(module: nn.Module, inputs: tuple[th.Tensor], output: th.Tensor) -> th.Tensor:
        nans = inputs[0].isnan()
        if found.activations or not nans.any():
            return output  # one that mixes units leads to connections that no layer has
        found.norms.append(module)
        return th.zeros_like(output).masked_fill(nans, th.nan)

    hooks = {
        module: hook
        for kinds, hook in ((WEIGHTED, read), (NORMS, normalise), (tuple(ACTIVATIONS.values()), activate))
        for module in net.modules()
        if isinstance(module, kinds)
    }
    with forward_hooks(hooks | {layer: mark_units}):
        output: th.Tensor = net(observations)
    return found._replace(reaches_output=bool(output.isnan().any()))


def find_hidden_layers(net: nn.Module, observation: PyTorchObs) -> tuple[list[HiddenLayer], list[str]]:
    """
    Find the hidden layers of a network. Call this function without gradients.

    :param net: the network, in evaluation mode
    :param observation: an input of the network, as a batch of one
    :return: the layers; and the names of those whose units cannot be separated from others, because more than one layer or
        more than one activation function is involved, as in a residual block
    """
    names = {module: name for name, module in net.named_modules()}
    traces: dict[Any, tuple[Trace, Trace]] = {}
    for module in (one for one in names if isinstance(one, WEIGHTED)):
        n_units: int = module.weight.shape[0]
        observations = repeat_rows(observation, n_units)
        direct = trace_units(net, module, observations, n_units, stops=True)
        if direct.activations:
            traces[module] = direct, trace_units(net, module, observations, n_units, stops=False)
    n_sources = Counter(activation for direct, _ in traces.values() for activation, _ in direct.activations)
    layers, unknown = [], []
    for module, (direct, whole) in traces.items():
        activation, outputs = whole.activations[0]
        if n_sources[activation] == 1 and is_separate(module, direct, whole, outputs):
            readers = {names[reader]: columns for reader, columns in whole.readers}
            norms = [names[norm] for norm in whole.norms]
            layers.append(HiddenLayer(names[module], norms, activation, isinstance(module, CONVOLUTIONS), readers))
        else:
            unknown.append(names[module])
    return layers, unknown


def repeat_rows(observation: PyTorchObs, n: int) -> PyTorchObs:
    """Repeat an observation n times."""
    repeated: PyTorchObs = map_observation(lambda part: part.repeat_interleave(n, dim=0), observation)
    return repeated


def is_separate(layer: nn.Module, direct: Trace, whole: Trace, outputs: th.Tensor) -> bool:
    """
    Return whether the units of a layer can be recycled one by one.

    :param layer: the layer
    :param direct: the trace of its units up to an activation function
    :param whole: the trace of its units
    :param outputs: the (U, F) outputs of the activation function that depend on each unit
    :return: True if the units enter one activation function and nothing else, each one is an output of this function, and
        each layer that reads the units has different inputs for each of them
    """
    reading = [reader for reader, _ in whole.readers]
    return (
        has_own_weight(layer)
        and len(whole.activations) == 1
        and not (direct.readers or direct.reaches_output or whole.reaches_output)
        and th.equal(outputs.cpu(), th.eye(len(outputs), dtype=th.bool))
        and len(set(reading)) == len(reading) > 0
        and all(has_own_weight(reader, 1) and int(columns.sum(dim=0).max()) <= 1 for reader, columns in whole.readers)
    )


def has_own_weight(layer: nn.Module, groups: int | None = None) -> bool:
    """
    Return whether the weight of a layer is a parameter, and is not computed from others.

    :param layer: a dense layer or a convolution
    :param groups: the number of groups that a convolution must have; None (default): any
    """
    return "weight" in layer._parameters and groups in (None, getattr(layer, "groups", 1))
