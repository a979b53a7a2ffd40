"""The policy and the encoder that suit an observation space."""

from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_dqn_ext.networks.checks import MIN_IMAGE_SIZE
from sb3_dqn_ext.networks.encoders import has_channels_last, is_image

ENCODER_BY_MIN_SIDE = {64: "nature", 24: "small", 3: "minatar"}
"""The encoder for images whose shorter side has at least this many pixels; the largest numbers first."""


def split_image_shape(space: spaces.Space[Any]) -> tuple[int, int]:
    """
    Return the number of channels of images, and the number of pixels of their shorter side.

    :param space: a Box with three axes
    """
    first, middle, last = space.shape  # type: ignore[misc]
    return (last, min(first, middle)) if has_channels_last(space, None) else (first, min(middle, last))


def smallest_side(space: spaces.Space[Any]) -> int:
    """
    Return the number of pixels of the shortest side of the images.

    :param space: the observation space; a Dict can contain several images
    :return: the number; 0: there are no images
    """
    parts = space.values() if isinstance(space, spaces.Dict) else [space]
    return min((split_image_shape(part)[1] for part in parts if is_image(part)), default=0)


def choose_encoder(space: spaces.Space[Any]) -> str | None:
    """
    Choose an encoder by the size of the images; in a Dict, by the smallest image.

    :param space: the observation space
    :return: a name of ``ENCODERS``; None: there are no images, or they are too small for convolutions
    """
    side = smallest_side(space)
    return next((encoder for min_side, encoder in ENCODER_BY_MIN_SIDE.items() if side >= min_side), None)


def choose_policy(space: spaces.Space[Any], has_encoder: bool) -> str:
    """
    Choose the policy for an observation space.

    :param space: the observation space
    :param has_encoder: whether ``policy_kwargs`` contain an encoder. ``CnnPolicy`` needs none for the images that SB3's
        NatureCNN can process
    """
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    fits_nature_cnn = is_image(space) and is_image_space(space) and smallest_side(space) >= MIN_IMAGE_SIZE
    return "CnnPolicy" if has_encoder or fits_nature_cnn else "MlpPolicy"


def network_arguments(space: spaces.Space[Any], policy_kwargs: Mapping[str, Any], allows_encoder: bool) -> dict[str, Any]:
    """
    Return ``policy`` and ``policy_kwargs`` for a configuration without ``policy``.

    :param space: the observation space
    :param policy_kwargs: the arguments of the policy in the configuration, which are kept
    :param allows_encoder: whether an encoder may be added; it is added for images unless the arguments contain an extractor
    """
    has_extractor = not {"encoder", "features_extractor_class"}.isdisjoint(policy_kwargs)
    encoder = choose_encoder(space) if allows_encoder and not has_extractor else None
    kwargs = {**policy_kwargs, **({} if encoder is None else {"encoder": encoder})}
    return {"policy": choose_policy(space, "encoder" in kwargs), **({"policy_kwargs": kwargs} if kwargs else {})}
