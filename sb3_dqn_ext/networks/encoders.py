"""
Encoders: convolutions and a dense layer that map an image to features.

Shapes: B batch size, C channels, F features.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_dqn_ext._validation import OpenChoice, check_number, choose
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.networks.norms import NormFunction, make_norm

__all__ = [
    "ENCODER",
    "ENCODERS",
    "DictEncoder",
    "Encoder",
    "ImpalaEncoder",
    "MinAtarEncoder",
    "NatureEncoder",
    "ResidualBlock",
    "SmallEncoder",
    "is_image",
    "make_encoder",
]


class Encoder(BaseFeaturesExtractor):
    """
    A features extractor for images: convolutions and a dense layer, each followed by a ReLU.

    A subclass overrides :meth:`convolutions`. The images can have any type. Channels are the first axis if height and width,
    the other two, are equal, the last axis if they come first, else the shorter one of the first and the last axis; the last
    one if the rule allows both. SB3 moves the channels of images with values of uint8 from 0 to 255 to the first axis.

    The DQN and QRDQN of SB3 train with the same network, whose default ``net_arch`` is not empty::

        DQN("CnnPolicy", env, policy_kwargs={"features_extractor_class": MinAtarEncoder, "net_arch": []})

    Their ``MlpPolicy`` does the same. As in SB3, only images with values of uint8 from 0 to 255 are divided by 255.

    :param observation_space: the space of the images, with three axes
    :param norm: the normalisation of each layer before its ReLU, see :class:`~sb3_dqn_ext.networks.config.NetworkConfig`
    :param features_dim: F, the number of units of the dense layer; None (default): ``default_features_dim`` of the class; 0:
        there is no dense layer, and the features are the outputs of the convolutions
    :param channels: the axis of the channels, ``"first"`` or ``"last"``; None (default): the rule above
    :raises UnsupportedError: if the observations are no images, or too small for the convolutions
    :raises ArgumentError: if an argument has a wrong value
    """

    default_features_dim: ClassVar[int] = 256
    """The number of units of the dense layer, if it is not given."""
    memory_format: ClassVar[th.memory_format] = th.preserve_format
    """The order of the numbers of an image in memory, on which the speed of convolutions depends."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        norm: Any = "none",
        features_dim: int | None = None,
        channels: str | None = None,
    ) -> None:
        features_dim = self.default_features_dim if features_dim is None else features_dim
        check_number("features_dim", features_dim, low=0, integer=True)
        self.channels_last = has_channels_last(observation_space, channels)
        super().__init__(observation_space, features_dim or 1)  # which refuses 0
        apply_norm: NormFunction = make_norm(norm)
        first, middle, last = observation_space.shape  # type: ignore[misc]
        shape = (last, first, middle) if self.channels_last else (first, middle, last)
        self.cnn = nn.Sequential(*self.convolutions(shape[0], apply_norm), nn.Flatten())
        n_outputs = self._n_outputs(shape)
        self.linear = nn.Sequential(*([*apply_norm(nn.Linear(n_outputs, features_dim)), nn.ReLU()] if features_dim else []))
        self._features_dim = features_dim or n_outputs

    def convolutions(self, n_channels: int, norm: NormFunction) -> list[nn.Module]:
        """
        Make the layers before the dense one, from (B, C, height, width) to any number of channels, height and width.

        :param n_channels: C
        :param norm: a function from a convolution to this layer and its normalisation
        """
        raise NotImplementedError

    def _n_outputs(self, shape: tuple[int, int, int]) -> int:
        """Return the number of outputs of the convolutions for images of shape (C, height, width)."""
        layers = copy.deepcopy(self.cnn).eval().to("meta")  # which computes shapes only, in no time and memory
        try:
            n_outputs: int = layers(th.zeros(1, *shape, device="meta")).shape[1]
        except RuntimeError as error:
            raise UnsupportedError(
                f"images of {shape[1]} x {shape[2]} pixels with {shape[0]} channels are too small for "
                f"{type(self).__name__}: take encoder='minatar' or 'impala', or enlarge them with "
                f"gymnasium.wrappers.ResizeObservation; encoder_kwargs={{'channels': 'first'}} or 'last' is the axis of the "
                f"channels ({error})."
            ) from error
        return n_outputs

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        Compute features.

        :param observations: (B, C, height, width) or (B, height, width, C) images
        :return: (B, F)
        """
        images = observations.permute(0, 3, 1, 2) if self.channels_last else observations
        features: th.Tensor = self.linear(self.cnn(images.to(memory_format=self.memory_format)))
        return features


def has_channels_last(space: spaces.Space[Any], channels: str | None) -> bool:
    """
    Return whether the last axis of images contains the channels, by the rule of :class:`Encoder`.

    :param space: the space of the images
    :param channels: ``"first"``, ``"last"`` or None
    :raises UnsupportedError: if it is no space of images
    :raises ArgumentError: if ``channels`` has another value, or contradicts the axis to which SB3 has moved the channels
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        raise UnsupportedError(
            f"an encoder needs images, which are Box observations with three axes, not {space}: leave encoder out, or see "
            "gymnasium.wrappers.ReshapeObservation."
        )
    first, middle, last = space.shape
    by_shape = first == middle or (middle != last and last <= first)
    if channels is None:
        return by_shape
    given = choose("encoder_kwargs['channels']", channels, {"first": False, "last": True})
    if given and not by_shape and is_image_space(space):
        raise ArgumentError(
            f"encoder_kwargs['channels']='last' contradicts the observation space {space}: SB3 moves the channels of such "
            "images to the first axis; leave it out."
        )
    return given


class NatureEncoder(Encoder):
    """
    The network of Mnih et al. (2015, https://www.nature.com/articles/nature14236), equal to SB3's NatureCNN: three
    convolutions and a dense layer, for images of 84 x 84 pixels.
    """

    default_features_dim = 512

    def convolutions(self, n_channels: int, norm: NormFunction) -> list[nn.Module]:
        return [
            *(*norm(nn.Conv2d(n_channels, 32, kernel_size=8, stride=4)), nn.ReLU()),
            *(*norm(nn.Conv2d(32, 64, kernel_size=4, stride=2)), nn.ReLU()),
            *(*norm(nn.Conv2d(64, 64, kernel_size=3)), nn.ReLU()),
        ]


class MinAtarEncoder(Encoder):
    """
    The network of Young and Tian (2019, https://arxiv.org/abs/1903.03176): a convolution with 16 channels and a dense layer,
    for images of 10 x 10 pixels.
    """

    default_features_dim = 128

    def convolutions(self, n_channels: int, norm: NormFunction) -> list[nn.Module]:
        return [*norm(nn.Conv2d(n_channels, 16, kernel_size=3)), nn.ReLU()]


class SmallEncoder(Encoder):
    """Three convolutions with 32 channels and a dense layer, for images of about 42 x 42 pixels."""

    def convolutions(self, n_channels: int, norm: NormFunction) -> list[nn.Module]:
        return [
            *(*norm(nn.Conv2d(n_channels, 32, kernel_size=5, stride=3)), nn.ReLU()),
            *(*norm(nn.Conv2d(32, 32, kernel_size=3, stride=2)), nn.ReLU()),
            *(*norm(nn.Conv2d(32, 32, kernel_size=3)), nn.ReLU()),
        ]


class ImpalaEncoder(Encoder):
    """
    The residual network of IMPALA (Espeholt et al., 2018, https://arxiv.org/abs/1802.01561, figure 3, right): three stages of
    a convolution, a 3 x 3 max-pooling with stride 2 and two residual blocks, with 16, 32 and 32 channels; and a dense layer.

    Beyond the Rainbow (Clark et al., 2024, https://arxiv.org/abs/2411.03820) has ``width=2``, ``pool=6`` and
    ``residual_norm="spectral"``.

    :param width: the factor of the numbers of channels
    :param pool: the height and width to which the images are max-pooled before the dense layer; None (default): no pooling
    :param residual_norm: the normalisation of the convolutions in residual blocks; None (default): that of all layers
    """

    memory_format = th.channels_last  # on a CPU, an update takes 14 to 35 % less time

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        norm: Any = "none",
        features_dim: int | None = None,
        channels: str | None = None,
        width: int = 1,
        pool: int | None = None,
        residual_norm: Any = None,
    ) -> None:
        check_number("width", width, low=1, integer=True)
        if pool is not None:
            check_number("pool", pool, low=1, integer=True)
        # the base class makes the layers
        self.width, self.pool = width, pool
        self.residual_norm = None if residual_norm is None else make_norm(residual_norm)
        super().__init__(observation_space, norm, features_dim, channels)

    def convolutions(self, n_channels: int, norm: NormFunction) -> list[nn.Module]:
        layers: list[nn.Module] = []
        residual_norm = self.residual_norm or norm
        for n_out in (16 * self.width, 32 * self.width, 32 * self.width):
            layers += norm(nn.Conv2d(n_channels, n_out, kernel_size=3, padding=1))
            layers += [nn.MaxPool2d(3, stride=2, padding=1), ResidualBlock(n_out, residual_norm)]
            layers += [ResidualBlock(n_out, residual_norm)]
            n_channels = n_out
        pooling = [] if self.pool is None else [nn.AdaptiveMaxPool2d(self.pool)]
        return [*layers, nn.ReLU(), *pooling]


class ResidualBlock(nn.Module):
    """
    A residual block of IMPALA: ``x + conv(relu(conv(relu(x))))``.

    :param n_channels: C, the number of channels of x and of both convolutions
    :param norm: a function from a convolution to this layer and its normalisation
    """

    def __init__(self, n_channels: int, norm: NormFunction) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(nn.ReLU(), *norm(nn.Conv2d(n_channels, n_channels, kernel_size=3, padding=1))),
            *(nn.ReLU(), *norm(nn.Conv2d(n_channels, n_channels, kernel_size=3, padding=1))),
        )

    def forward(self, images: th.Tensor) -> th.Tensor:
        """Map (B, C, height, width) to the same shape."""
        residual: th.Tensor = self.residual(images)
        return images + residual


ENCODERS: dict[str, type[Encoder]] = {
    "nature": NatureEncoder,
    "minatar": MinAtarEncoder,
    "small": SmallEncoder,
    "impala": ImpalaEncoder,
}
ENCODER_SYNONYMS = {
    "cnn": "nature",
    "nature_cnn": "nature",
    "naturecnn": "nature",
    "dqn": "nature",
    "atari": "nature",
    "resnet": "impala",
    "residual": "impala",
    "impala_cnn": "impala",
    "impala_resnet": "impala",
    "min_atar": "minatar",
}
ENCODER = OpenChoice("encoder", Encoder, ("convolutions",), ENCODERS, ENCODER_SYNONYMS)


class DictEncoder(BaseFeaturesExtractor):
    """
    A features extractor for Dict observations: each image has its own encoder, and other parts are flattened.

    :param observation_space: the Dict space; its parts with three axes are the images
    :param encoder: see :class:`~sb3_dqn_ext.networks.config.NetworkConfig`
    :param norm: the normalisation of the encoders
    :param kwargs: the arguments of the encoders
    """

    def __init__(self, observation_space: spaces.Dict, encoder: Any, norm: Any, kwargs: Mapping[str, Any] | None) -> None:
        sizes = [get_flattened_obs_dim(part) for part in observation_space.values() if not is_image(part)]
        super().__init__(observation_space, features_dim=1)  # corrected below, as in SB3's CombinedExtractor
        images = {key: make_encoder(encoder, part, norm, kwargs) for key, part in observation_space.items() if is_image(part)}
        self._features_dim = sum(sizes) + sum(image.features_dim for image in images.values())
        self.extractors = nn.ModuleDict({key: images.get(key, nn.Flatten()) for key in observation_space})

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """Compute (B, F) features from a dictionary of (B, \\*part) observations."""
        return th.cat([extractor(observations[key]) for key, extractor in self.extractors.items()], dim=1)


def is_image(space: spaces.Space[Any]) -> bool:
    """Return whether observations are arrays with three axes."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3


def make_encoder(encoder: Any, space: spaces.Space[Any], norm: Any, kwargs: Mapping[str, Any] | None) -> BaseFeaturesExtractor:
    """
    Build an encoder of images, or of the images of Dict observations.

    :param encoder: a name of ``ENCODERS``, a subclass of :class:`Encoder`, or its dotted name
    :param space: the observation space
    :param norm: the normalisation
    :param kwargs: the arguments of the encoder
    :raises ArgumentError: if it has no such argument, or does not support the observations
    """
    if isinstance(space, spaces.Dict):
        return DictEncoder(space, encoder, norm, kwargs)
    return ENCODER.build(encoder, kwargs or {}, {"observation_space": space, "norm": norm})
