"""Policies of DQNExt: SB3's, with a choice of head, return model, loss and layers."""

import inspect
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_dqn_ext._validation import check_type, resolve_class
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS, make_returns
from sb3_dqn_ext.algorithm.value_models.quantile import CosineEmbedding
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.checks import check_arch, check_extractor_kwargs, check_optimizer_kwargs, check_space
from sb3_dqn_ext.networks.config import NetworkConfig
from sb3_dqn_ext.networks.flat_storage import separate_parameters
from sb3_dqn_ext.networks.heads import HEADS, MultiHead
from sb3_dqn_ext.networks.hooks import NetworkSnapshot
from sb3_dqn_ext.networks.noisy import NoisyLinear
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.networks.q_network import QNetwork

__all__ = ["ACTIVATIONS", "EXTRACTORS", "OPTIMIZERS", "CnnPolicy", "MlpPolicy", "MultiHeadPolicy", "MultiInputPolicy"]

Array = npt.NDArray[Any]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}
OPTIMIZERS: dict[str, type[th.optim.Optimizer]] = {
    "adam": th.optim.Adam,
    "adamw": th.optim.AdamW,
    "rmsprop": th.optim.RMSprop,
    "sgd": th.optim.SGD,
}
EXTRACTORS: dict[str, type[BaseFeaturesExtractor]] = {
    "flatten": FlattenExtractor,
    "nature_cnn": NatureCNN,
    "combined": CombinedExtractor,
}
# layers that do the same in training and in evaluation; of another's it is not known
MODE_INDEPENDENT: set[Any] = {
    *(nn.Linear, NoisyLinear, nn.Conv2d, nn.Flatten, nn.Identity, nn.LayerNorm),
    *(nn.Sequential, nn.ModuleList, nn.ModuleDict),
    *ACTIVATIONS.values(),
    *EXTRACTORS.values(),
    *HEADS.values(),
    *RETURN_MODELS.values(),
    *(QNetwork, CosineEmbedding),
}


class MlpPolicy(DQNPolicy):
    """
    Policy with a Q-network and its target network, for vectors of observations.

    Classes can be given by name, so that YAML needs plain data only: ``activation_fn="tanh"``, ``optimizer_class="sgd"``,
    ``features_extractor_class="my_package.MyExtractor"``.

    :param observation_space: Observation space
    :param action_space: Action space
    :param lr_schedule: Learning rate schedule (could be constant)
    :param net_arch: sizes of the hidden layers that all actions share; [64, 64] by default, [] behind a NatureCNN
    :param activation_fn: Activation function, a class or a name of ``ACTIVATIONS``
    :param features_extractor_class: Features extractor to use
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor
    :param normalize_images: Whether to normalize images or not, dividing by 255.0 (True by default)
    :param optimizer_class: The optimizer to use, a class or a name of ``OPTIMIZERS``
    :param optimizer_kwargs: Additional keyword arguments, excluding the learning rate, to pass to the optimizer
    :param config: the fields of :class:`~sb3_dqn_ext.networks.config.NetworkConfig`: head, return model, noise, precision
    :raises ArgumentError: if an argument cannot work
    """

    q_net: QNetwork
    q_net_target: QNetwork
    _snapshot: NetworkSnapshot | None = None  # until the networks are there
    _knows_modes = True

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] | str = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | str = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] | str = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **config: Any,
    ) -> None:
        extractor = resolve_class("features_extractor_class", features_extractor_class, EXTRACTORS)
        optimizer = resolve_class("optimizer_class", optimizer_class, OPTIMIZERS)
        check_extractor_kwargs(extractor, features_extractor_kwargs)
        check_optimizer_kwargs(optimizer, optimizer_kwargs)
        check_type("normalize_images", normalize_images, bool, "True or False")
        check_arch("net_arch", net_arch)
        check_space(observation_space, extractor)
        # SB3's constructor builds the networks: what they are made from must be there before
        self.config = NetworkConfig(**config)
        vars(self).update(vars(self.config))  # as SB3's policies, this one has an attribute for each argument
        self.fit = self.config.fit
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            resolve_class("activation_fn", activation_fn, ACTIVATIONS),
            extractor,
            features_extractor_kwargs,
            normalize_images,
            optimizer,
            optimizer_kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        space, config = self.observation_space, self.config
        self._is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1
        self._shape = space.shape
        self.return_model = make_returns(config.returns, config.returns_kwargs or {}, config.loss)
        self.net_args |= {"config": config, "return_model": self.return_model}
        try:
            super()._build(lr_schedule)
            self._take_snapshot()
            if config.optimizer_per_head:
                self.optimizer = self._make_optimizer_per_head(lr_schedule)
        except ArgumentError:
            raise
        # what extractors and optimizers raise at arguments or observations that they cannot work with
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            raise ArgumentError(
                f"no network with its optimizer can be built for observations {space} with "
                f"features_extractor_class={self.features_extractor_class.__name__}, "
                f"features_extractor_kwargs={self.features_extractor_kwargs!r}, optimizer_kwargs={self.optimizer_kwargs!r} "
                f"and the learning rate that was given: {error}"
            ) from error

    def _make_optimizer_per_head(self, lr_schedule: Schedule) -> OptimizerPerHead:
        heads = [list(head.parameters()) for head in cast(MultiHead, self.q_net.q_net).heads]
        of_a_head = {id(parameter) for head in heads for parameter in head}
        shared = [parameter for parameter in self.q_net.parameters() if id(parameter) not in of_a_head]
        make: Any = self.optimizer_class
        return OptimizerPerHead([make([*shared, *head], lr=lr_schedule(1), **self.optimizer_kwargs) for head in heads])

    def set_training_mode(self, mode: bool) -> None:
        """
        Put the online network in training or evaluation mode, which matters to batch normalisation and dropout.

        :param mode: True for training
        """
        # SB3 asks for it again and again, and torch walks through all layers each time
        if self._snapshot is not None and not self._snapshot.has_same_modules():
            self._take_snapshot()
            super().set_training_mode(mode)
        elif self._knows_modes and not self.training == self.q_net.training == mode:
            super().set_training_mode(mode)

    @property
    def depends_on_training_mode(self) -> bool:
        """Whether the online network computes differently in training mode, or the method for modes is a user's own."""
        is_known = self._snapshot is not None and self._snapshot.has_same_modules()
        return self._knows_modes or not is_known or type(self).set_training_mode is not MlpPolicy.set_training_mode

    def _take_snapshot(self) -> None:
        self._snapshot = NetworkSnapshot([self.q_net])
        self._knows_modes = any(type(layer) not in MODE_INDEPENDENT for layer in self.q_net.modules())
        self._some_parameter = [next(self.q_net.parameters())]  # in a list, or it would be another of this module's own

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """
        The actions of greatest Q-value.

        :param observation: one observation, or one for each environment
        :param state: returned as it is; there for policies with a memory
        :param episode_start: not used; there for policies with a memory
        :param deterministic: whether noisy layers are silent
        :return: one action, or one for each environment, and the state
        """
        is_plain = type(self).obs_to_tensor is MlpPolicy.obs_to_tensor and "obs_to_tensor" not in self.__dict__
        if not (is_plain and self._is_vector and type(observation) is np.ndarray and observation.shape[1:] == self._shape):
            return super().predict(observation, state, episode_start, deterministic)
        # what SB3 does to observations that are as they should be
        self.set_training_mode(False)
        with th.no_grad():
            # a copy, as SB3 makes one: torch takes no negative strides, and warns of arrays that cannot be written
            actions = self._predict(th.as_tensor(np.array(observation), device=self._some_parameter[0].device), deterministic)
        return actions.cpu().numpy().reshape(-1), state

    def __getstate__(self) -> dict[str, Any]:
        separate_parameters(list(self.parameters()), self.optimizer)
        return vars(self)

    def obs_to_tensor(self, observation: Array | dict[str, Array]) -> tuple[PyTorchObs, bool]:
        """
        Convert observations to tensors, as SB3 does, but also images with negative strides, as mirrored ones have them.

        :param observation: one observation, or one for each environment
        :return: the tensors, and whether there is one for each environment
        """
        return super().obs_to_tensor(
            map_observation(lambda part: np.array(part) if isinstance(part, np.ndarray) else part, observation)
        )

    def make_q_net(self) -> QNetwork:
        """:return: a network with a features extractor of its own"""
        return QNetwork(**self._update_features_extractor(self.net_args)).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | vars(self.config)


class CnnPolicy(MlpPolicy):
    """
    Policy for images; its arguments are those of :class:`MlpPolicy`, with ``NatureCNN`` before the trunk.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": NatureCNN} | kwargs)


class MultiInputPolicy(MlpPolicy):
    """
    Policy for Dict observations; its arguments are those of :class:`MlpPolicy`, with ``CombinedExtractor`` before the trunk.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor} | kwargs)


class MultiHeadPolicy(MlpPolicy):
    """
    :class:`MlpPolicy` with ``head="multi_head"``: a shared trunk, then for each action its own hidden layer and output.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"head": "multi_head", "head_arch": [64]} | kwargs)


def _signature() -> inspect.Signature:
    """The arguments of SB3's policies, then those of :class:`NetworkConfig`."""
    *theirs, _ = inspect.signature(MlpPolicy.__init__).parameters.values()
    return inspect.Signature([*theirs, *inspect.signature(NetworkConfig).parameters.values()], return_annotation=None)


_SIGNATURE = _signature()
for policy_class in (MlpPolicy, CnnPolicy, MultiInputPolicy, MultiHeadPolicy):
    constructor: Any = policy_class.__init__
    constructor.__signature__ = _SIGNATURE
