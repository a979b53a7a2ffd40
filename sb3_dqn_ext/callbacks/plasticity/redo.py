"""A callback that recycles dormant units."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.diagnostics.metrics import unit_scores
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks, read_transitions, sample_indices, state_preserved
from sb3_dqn_ext.callbacks.diagnostics.network import TAU
from sb3_dqn_ext.callbacks.plasticity.fresh_weights import check_same_layers, make_fresh_network, moments
from sb3_dqn_ext.callbacks.plasticity.hidden_layers import HiddenLayer, find_hidden_layers, forward_hooks, units_last
from sb3_dqn_ext.callbacks.plasticity.periodic import PeriodicCallback
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.spectral_norm import SpectralNorm, estimate_spectral_norms

__all__ = ["ReDoCallback"]

Scores = npt.NDArray[np.float64]


def layer_scores(net: nn.Module, layers: list[HiddenLayer], observations: PyTorchObs) -> list[Scores]:
    """
    Score the units of hidden layers, see :func:`~sb3_dqn_ext.callbacks.diagnostics.metrics.unit_scores`.

    :param net: the network
    :param layers: its hidden layers
    :param observations: (B, \\*obs) inputs of the network
    :return: the (U,) scores of each layer
    """
    outputs: dict[nn.Module, th.Tensor] = {}
    hooks = {layer.activation: lambda module, _, output: outputs.update({module: output}) for layer in layers}
    with forward_hooks(hooks):
        net(observations)
    return [unit_scores(units_last(outputs[one.activation], one.is_convolution).flatten(0, -2)) for one in layers]


def recycle(
    net: nn.Module, fresh: nn.Module, layers: list[HiddenLayer], masks: list[th.Tensor], optimizer: th.optim.Optimizer
) -> None:
    """
    Recycle units (Sokar et al., 2023, algorithm 1): their incoming weights become initial weights, their outgoing weights 0,
    and the optimizer's running averages of both 0. Outgoing weights that are divided by their spectral norm become initial
    weights where all of them would be 0.

    :param net: the network
    :param fresh: an untrained network
    :param layers: the hidden layers of the network
    :param masks: for each layer, the (U,) units that are recycled
    :param optimizer: the optimizer of the network
    """
    for layer, units in zip(layers, masks, strict=True):
        for name in (layer.name, *layer.norms):
            initial = fresh.get_submodule(name).state_dict()
            for key, tensor in net.get_submodule(name).state_dict(keep_vars=True).items():
                if tensor.shape[:1] == units.shape:
                    tensor[units] = initial[key][units]
                    for average in moments(optimizer, tensor):
                        average[units] = 0
    for layer, units in zip(layers, masks, strict=True):
        for name, columns in layer.readers.items():
            inputs = columns[units].any(dim=0)  # (F,)
            initial = dict(fresh.get_submodule(name).named_parameters())
            is_spectral = isinstance(net.get_submodule(name.rpartition(".")[0]), SpectralNorm)
            for key, parameter in net.get_submodule(name).named_parameters():
                if parameter.dim() > 1:  # the weight, and the weight_sigma of a noisy layer
                    parameter[:, inputs] = initial[key][:, inputs] if is_spectral and inputs.all() else 0
                    for average in moments(optimizer, parameter):
                        average[:, inputs] = 0


class ReDoCallback(PeriodicCallback):
    """
    A callback that recycles dormant units of the online network every k gradient steps (ReDo; Sokar et al., 2023,
    https://arxiv.org/abs/2302.12902).

    The score of unit i of a hidden layer is its mean absolute output over the mean of that over the layer. Units with a score
    of at most tau get new incoming weights, as the policy initialises them, and outgoing weights of 0. A channel of a
    convolution is a unit. The optimizer's running averages of these weights become 0, and its number of steps is kept. The
    target network follows by its usual updates.

    Hidden layers are dense layers and convolutions that are followed by an activation function that has a name (``relu``,
    ``tanh`` ...), as in :class:`~sb3_dqn_ext.callbacks.NetworkHealthCallback`. All layers that read a unit are found,
    such as both streams of a dueling head. Layers whose units cannot be separated, such as those that are added in a residual
    block, are left out with a warning.

    Scores are computed at states that are drawn uniformly from the replay buffer. The random numbers of training do not depend
    on this callback: without dormant units, the training ends with the same bits as without it.

    Units are recycled between two rollouts, also if an event callback holds this one, and never after the last rollout.
    ``train/recycled_units`` is the number of units that were recycled so far.

    :param every: k, the number of steps between two checks (1000 as in the paper)
    :param unit: the unit of the steps: ``"gradient_steps"`` (default), or ``"env_steps"``, counted over all environments
    :param tau: the largest score of a dormant unit; 0: only units whose outputs are all 0
    :param batch_size: the number of states
    :param until: the last step at which units may be recycled, in the unit of ``every``; None (default): there is none
    :raises ArgumentError: if an argument is out of its range; at the start of the run, if the model is no DQN, or has no such
        hidden layer
    """

    def __init__(
        self,
        every: int = 1000,
        unit: str = "gradient_steps",
        tau: float = TAU,
        batch_size: int = 256,
        until: int | None = None,
    ) -> None:
        super().__init__(every, unit, until)
        check_number("tau", tau, low=0)
        check_number("batch_size", batch_size, low=1, integer=True)
        self.tau = tau
        self.batch_size = batch_size
        self.n_recycled = 0
        self._layers: list[HiddenLayer] = []

    def _on_run_start(self, continues: bool) -> None:
        super()._on_run_start(continues)
        model: Any = self.model
        online, _ = find_networks(model, type(self).__name__)
        check_same_layers(online, make_fresh_network(model, 0), type(self).__name__)
        if not continues:
            self.n_recycled = 0
        with state_preserved(model), th.no_grad():
            observation, _ = model.policy.obs_to_tensor(model.observation_space.sample())
            self._layers, unknown = find_hidden_layers(online, observation)
        if not self._layers:
            raise ArgumentError(
                "ReDoCallback recycles units of dense layers and convolutions that one activation function follows, and the "
                "network has none: give it hidden layers (net_arch), or leave the callback out."
            )
        if unknown:
            warnings.warn(
                f"ReDoCallback leaves out {', '.join(unknown)}: their units cannot be separated from those of other layers.",
                stacklevel=2,
            )
        self.logger.record("train/recycled_units", self.n_recycled)

    def _act(self) -> None:
        model: Any = self.model
        online, _ = find_networks(model, type(self).__name__)
        seed = self._draw_seed()
        indices = sample_indices(model.replay_buffer, self.batch_size, np.random.default_rng(seed))
        if len(indices) == 0:
            return
        with state_preserved(model), th.no_grad():
            scores = layer_scores(online, self._layers, read_transitions(model, indices).observations)
            masks = [th.as_tensor(one <= self.tau, device=model.device) for one in scores]
            n_dormant = int(sum(mask.sum() for mask in masks))
            if n_dormant:
                recycle(online, make_fresh_network(model, seed), self._layers, masks, model.policy.optimizer)
                estimate_spectral_norms(online)
        self.n_recycled += n_dormant
        self.logger.record("train/recycled_units", self.n_recycled)
