"""Policies of DQNExt: SB3's policies with a choice of head, return model, loss and layers."""

import inspect
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_dqn_ext._validation import check_type, resolve_class
from sb3_dqn_ext.algorithm.action_masks import check_mask_space, without_mask
from sb3_dqn_ext.algorithm.auxiliary_losses import make_auxiliary_loss
from sb3_dqn_ext.algorithm.batches import copy_to_device, map_observation
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS, make_returns
from sb3_dqn_ext.algorithm.value_models.quantile import CosineEmbedding
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.checks import check_arch, check_extractor_kwargs, check_optimizer_kwargs, check_space
from sb3_dqn_ext.networks.config import NetworkConfig
from sb3_dqn_ext.networks.encoders import ENCODER, ENCODERS, DictEncoder, Encoder, ResidualBlock, make_encoder
from sb3_dqn_ext.networks.flat_storage import separate_parameters
from sb3_dqn_ext.networks.heads import HEADS, MultiHead
from sb3_dqn_ext.networks.hooks import NetworkSnapshot
from sb3_dqn_ext.networks.noisy import NoisyLinear
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.networks.preprocessing import image_keys
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
    "radam": th.optim.RAdam,
    "rmsprop": th.optim.RMSprop,
    "sgd": th.optim.SGD,
}
EXTRACTORS: dict[str, type[BaseFeaturesExtractor]] = {
    "flatten": FlattenExtractor,
    "nature_cnn": NatureCNN,
    "combined": CombinedExtractor,
}
# layers that compute the same in training and in evaluation mode; other layers may not
MODE_INDEPENDENT: set[Any] = {
    *(
        nn.Linear,
        NoisyLinear,
        nn.Conv2d,
        nn.MaxPool2d,
        nn.AdaptiveMaxPool2d,
        nn.Flatten,
        nn.Identity,
        nn.LayerNorm,
        nn.GroupNorm,
    ),
    *(nn.Sequential, nn.ModuleList, nn.ModuleDict),
    *ACTIVATIONS.values(),
    *EXTRACTORS.values(),
    *(*ENCODERS.values(), ResidualBlock, DictEncoder),
    *HEADS.values(),
    *RETURN_MODELS.values(),
    *(QNetwork, CosineEmbedding),
}


class MlpPolicy(DQNPolicy):
    """
    A policy with a Q-network and its target network, for vector observations.

    Classes can be given by name, for YAML: ``activation_fn="tanh"``, ``optimizer_class="sgd"``,
    ``features_extractor_class="my_package.MyExtractor"``.

    :param observation_space: the observation space
    :param action_space: the action space
    :param lr_schedule: the learning rate as a function of ``progress_remaining``
    :param net_arch: the sizes of the hidden layers that all actions share; None (default): [64, 64], or [] after a
        NatureCNN or an encoder of observations that are no Dict
    :param activation_fn: the activation function: a class, or a key of ``ACTIVATIONS``
    :param features_extractor_class: the features extractor: a class, a key of ``EXTRACTORS``, or the dotted name of a class;
        None (default): the extractor of the policy, or the ``encoder``
    :param features_extractor_kwargs: the arguments of the features extractor
    :param normalize_images: whether images are divided by 255
    :param optimizer_class: the optimizer: a class, a key of ``OPTIMIZERS``, or the dotted name of a class
    :param optimizer_kwargs: the arguments of the optimizer, except for the learning rate
    :param config: the fields of :class:`~sb3_dqn_ext.networks.config.NetworkConfig`: head, return model, noise, precision
    :raises ArgumentError: if an argument is not allowed
    """

    default_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    """The features extractor without an encoder."""
    q_net: QNetwork
    q_net_target: QNetwork
    _snapshot: NetworkSnapshot | None = None  # None until the networks are built
    _has_modes = True

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] | str = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | str | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] | str = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **config: Any,
    ) -> None:
        # SB3's constructor builds the networks, so their configuration must be set before
        self.input_space: spaces.Space[Any] = observation_space
        if config.get("action_masks"):
            check_mask_space(observation_space, action_space)
            self.input_space = without_mask(observation_space)
        self.config = self._make_config(config, features_extractor_class, features_extractor_kwargs, self.input_space)
        extractor = self._find_extractor(features_extractor_class)
        optimizer = resolve_class("optimizer_class", optimizer_class, OPTIMIZERS)
        check_extractor_kwargs(extractor, features_extractor_kwargs)
        check_optimizer_kwargs(optimizer, optimizer_kwargs)
        check_type("normalize_images", normalize_images, bool, "True or False")
        check_arch("net_arch", net_arch)
        check_space(self.input_space, extractor, normalize_images)
        vars(self).update(vars(self.config))  # as in SB3's policies, there is an attribute for each argument
        self.fit = self.config.fit
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            [] if net_arch is None and issubclass(extractor, Encoder) and self.config.encoder is not None else net_arch,
            resolve_class("activation_fn", activation_fn, ACTIVATIONS),
            extractor,
            features_extractor_kwargs,
            normalize_images,
            optimizer,
            optimizer_kwargs,
        )

    def _make_config(
        self, config: dict[str, Any], extractor: object, extractor_kwargs: object, space: spaces.Space[Any]
    ) -> NetworkConfig:
        """
        Return the configuration. A policy for images with arguments of the encoder alone has the encoder "nature".

        :param config: the arguments of the configuration
        :param extractor: the argument ``features_extractor_class``
        :param extractor_kwargs: the argument ``features_extractor_kwargs``
        :param space: the observation space
        :raises ArgumentError: if both an encoder and a features extractor are given
        """
        needs_encoder = bool(config.get("encoder_kwargs")) or config.get("norm", "none") != "none"
        reads_images = self.default_extractor is not FlattenExtractor and bool(image_keys(space))
        if needs_encoder and reads_images and extractor is None and config.get("encoder") is None:
            config = config | {"encoder": "nature"}
        if config.get("encoder") is not None and (extractor is not None or extractor_kwargs):
            raise ArgumentError(
                f"encoder={config['encoder']!r} is a features extractor, too: leave features_extractor_class and "
                "features_extractor_kwargs out, and write its arguments into encoder_kwargs."
            )
        return NetworkConfig(**config)

    def _find_extractor(self, given: Any) -> type[BaseFeaturesExtractor]:
        if self.config.encoder is not None:
            encoder: type[Encoder] = ENCODER.find(self.config.encoder)
            return DictEncoder if self.default_extractor is CombinedExtractor else encoder
        return self.default_extractor if given is None else resolve_class("features_extractor_class", given, EXTRACTORS)

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Make the encoder, or the features extractor."""
        config = self.config
        if config.encoder is None:
            return self.features_extractor_class(self.input_space, **self.features_extractor_kwargs)
        return make_encoder(config.encoder, self.input_space, config.norm, config.encoder_kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        space, config = self.observation_space, self.config
        self._is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1
        self._shape = space.shape
        self.return_model = make_returns(config.returns, config.returns_kwargs or {}, config.loss)
        self.auxiliary = make_auxiliary_loss(config.auxiliary_loss, config.auxiliary_loss_kwargs)
        self.net_args |= {"config": config, "return_model": self.return_model}
        try:
            super()._build(lr_schedule)
            self._take_snapshot()
            if config.optimizer_per_head:
                self.optimizer = self._make_optimizer_per_head(lr_schedule)
        except ArgumentError:
            raise
        # errors of extractors and optimizers for arguments or observations that they do not support
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
        Put the online network in training or evaluation mode, on which batch normalisation and dropout depend.

        :param mode: True for training mode
        """
        # SB3 calls this method at each step, and torch walks through all layers each time
        if self._snapshot is not None and not self._snapshot.has_same_modules():
            self._take_snapshot()
            super().set_training_mode(mode)
        elif self._has_modes and not self.training == self.q_net.training == mode:
            super().set_training_mode(mode)

    @property
    def depends_on_training_mode(self) -> bool:
        """Whether the online network computes differently in training mode, or a user has overridden ``set_training_mode``."""
        is_unchanged = self._snapshot is not None and self._snapshot.has_same_modules()
        return self._has_modes or not is_unchanged or type(self).set_training_mode is not MlpPolicy.set_training_mode

    def _take_snapshot(self) -> None:
        self._snapshot = NetworkSnapshot([self.q_net])
        self._has_modes = any(type(layer) not in MODE_INDEPENDENT for layer in self.q_net.modules())
        self._some_parameter = [next(self.q_net.parameters())]  # in a list, so that torch does not register it

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """
        Choose the greedy actions.

        :param observation: one observation, or one for each environment
        :param state: the state of recurrent policies, which is returned unchanged
        :param episode_start: not used; an argument for recurrent policies
        :param deterministic: whether the network is evaluated without noise and with fixed quantile fractions
        :return: one action, or one for each environment; the state
        """
        is_plain = type(self).obs_to_tensor is MlpPolicy.obs_to_tensor and "obs_to_tensor" not in self.__dict__
        if not (is_plain and self._is_vector and type(observation) is np.ndarray and observation.shape[1:] == self._shape):
            return super().predict(observation, state, episode_start, deterministic)
        # the steps of SB3's method for arrays of the right shape, without its checks
        self.set_training_mode(False)
        with th.no_grad():
            # a copy, as in SB3: torch does not support negative strides, and warns about read-only arrays
            actions = self._predict(copy_to_device(np.array(observation), self._some_parameter[0].device), deterministic)
        return actions.cpu().numpy().reshape(-1), state

    def __getstate__(self) -> dict[str, Any]:
        separate_parameters(list(self.parameters()), self.optimizer)
        return vars(self)

    def obs_to_tensor(self, observation: Array | dict[str, Array]) -> tuple[PyTorchObs, bool]:
        """
        Convert observations to tensors as SB3 does. Arrays with negative strides, such as mirrored images, are supported, too.

        :param observation: one observation, or one for each environment
        :return: the tensors; whether there is one observation for each environment
        """
        return super().obs_to_tensor(
            map_observation(lambda part: np.array(part) if isinstance(part, np.ndarray) else part, observation)
        )

    def make_q_net(self) -> QNetwork:
        """Make a network with its own features extractor."""
        return QNetwork(**self._update_features_extractor(self.net_args)).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = super()._get_constructor_parameters() | vars(self.config)
        if self.config.encoder is not None:
            del parameters["features_extractor_class"], parameters["features_extractor_kwargs"]
        return parameters


class CnnPolicy(MlpPolicy):
    """
    A policy for images: :class:`MlpPolicy` with the features extractor ``NatureCNN``. It has the same arguments.
    """

    default_extractor = NatureCNN


class MultiInputPolicy(MlpPolicy):
    """
    A policy for Dict observations: :class:`MlpPolicy` with the features extractor ``CombinedExtractor``. It has the same
    arguments.
    """

    default_extractor = CombinedExtractor


class MultiHeadPolicy(MlpPolicy):
    """
    A policy with separate layers for each action: :class:`MlpPolicy` with ``head="multi_head"``. It has the same arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"head": "multi_head", "head_arch": [64]} | kwargs)


def _signature() -> inspect.Signature:
    """Return the arguments of SB3's policies, followed by those of :class:`NetworkConfig`."""
    *theirs, _ = inspect.signature(MlpPolicy.__init__).parameters.values()
    return inspect.Signature([*theirs, *inspect.signature(NetworkConfig).parameters.values()], return_annotation=None)


_SIGNATURE = _signature()
for policy_class in (MlpPolicy, CnnPolicy, MultiInputPolicy, MultiHeadPolicy):
    constructor: Any = policy_class.__init__
    constructor.__signature__ = _SIGNATURE
