"""A callback that updates the target network by a Polyak average."""

from functools import partial
from typing import Any

import torch as th
from stable_baselines3.common.utils import get_parameters_by_name, polyak_update
from torch import nn

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.run_callback import NEVER, RunCallback
from sb3_dqn_ext.errors import ArgumentError

TensorPair = tuple[list[th.Tensor], list[th.Tensor]]
NETWORK_ATTRIBUTES = (("q_net", "q_net_target"), ("quantile_net", "quantile_net_target"))
"""the attributes of models with the online and the target network"""


def online_and_target(model: Any) -> tuple[nn.Module, nn.Module]:
    """
    Return the online and the target network of a model.

    :param model: a DQN of SB3, sb3-contrib or this package
    :return: both networks
    :raises ArgumentError: if the model has none, or both are the same network
    """
    name = type(model).__name__
    pairs = [(getattr(model, online, None), getattr(model, target, None)) for online, target in NETWORK_ATTRIBUTES]
    found = [(online, target) for online, target in pairs if online is not None and target is not None]
    if not found:
        raise ArgumentError(f"{name} has no target network that could be updated.")
    online, target = found[0]
    if online is target:
        raise ArgumentError(f"The target network of {name} is its online network: there is nothing to update.")
    return online, target


def soft_update(parameters: TensorPair, running_stats: TensorPair, tau: float) -> None:
    """
    Update a target network: ``target = (1 - tau) * target + tau * online``.

    :param parameters: the parameters of the online network, and those of the target network
    :param running_stats: the running statistics of batch normalisation of both networks, which are copied
    :param tau: the weight of the online network
    """
    polyak_update(*parameters, tau)
    polyak_update(*running_stats, 1.0)


class SoftTargetUpdateCallback(RunCallback):
    """
    A callback that updates the target network by a Polyak average, ``target = (1 - tau) * target + tau * online``, as in
    Lillicrap et al. 2016, "Continuous control with deep reinforcement learning". Running statistics of batch normalisation
    are copied, as SB3 does.

    During the run, it *replaces* the model's own target updates: ``model.target_update_interval`` has no effect. For other
    callbacks, and in a model that is saved in the middle of the run, the attribute has its original value.

    :param tau: weight of the online network in each update, in [0, 1]; 1 copies it
    :param every: environment steps between two updates, counted over all environments: with several, there is one update
        every ``max(every // n_envs, 1)`` calls of ``env.step``, as with SB3's ``target_update_interval``. If an event
        callback such as ``EveryNTimesteps`` holds this one, an update is made at the next event
    :raises ArgumentError: if an argument is out of its range; at the start of the run, if the model has no target network
    """

    def __init__(self, tau: float, every: int = 1) -> None:
        super().__init__()
        check_number("tau", tau, 0, 1)
        check_number("every", every, low=1, integer=True)
        self.tau = tau
        self.every = every

    def _on_run_start(self, continues: bool) -> None:
        model: Any = self.model
        online, target = online_and_target(model)
        parameters: TensorPair = list(online.parameters()), list(target.parameters())
        running_stats = get_parameters_by_name(online, ["running_"]), get_parameters_by_name(target, ["running_"])
        self._update = partial(soft_update, parameters, running_stats, self.tau)
        self._n_calls = model._n_calls
        # version 0.1.0 saved models in the middle of a run without their own interval
        model.target_update_interval = vars(model).pop("own_target_update_interval", model.target_update_interval)
        self.run.replaced.add("target_update_interval", NEVER)

    def _on_step(self) -> bool:
        model: Any = self.model
        # The model counts its calls of ``env.step`` after the callbacks; at the events of another callback some were left out.
        before, self._n_calls = self._n_calls, model._n_calls + 1
        interval = max(self.every // model.n_envs, 1)
        if self._n_calls // interval > before // interval:
            self._update()
        return True
