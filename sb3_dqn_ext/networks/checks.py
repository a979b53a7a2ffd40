"""Checks of the arguments of policies."""

from collections.abc import Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_dqn_ext._validation import check_keys, check_number, check_type, parameters_of
from sb3_dqn_ext.errors import UnsupportedError
from sb3_dqn_ext.networks.encoders import DictEncoder, Encoder, is_image

__all__ = ["check_arch", "check_extractor_kwargs", "check_optimizer_kwargs", "check_space"]

MIN_IMAGE_SIZE = 36
"""The smallest edge of an image, in pixels, after which NatureCNN's three convolutions leave one pixel."""


def check_extractor_kwargs(extractor: type[BaseFeaturesExtractor], kwargs: Mapping[str, Any] | None) -> None:
    """
    Check the arguments of a features extractor.

    :param extractor: the class of the features extractor
    :param kwargs: its arguments except for the observation space
    :raises ArgumentError: if they are no mapping, or there is no such argument
    """
    check_type("features_extractor_kwargs", kwargs, Mapping | None, "a mapping of arguments")
    check_keys("features_extractor_kwargs", kwargs or {}, parameters_of(extractor).keys() - {"observation_space"})


def check_optimizer_kwargs(optimizer: type[th.optim.Optimizer], kwargs: Mapping[str, Any] | None) -> None:
    """
    Check the arguments of an optimizer.

    For torch's optimizers, numbers and booleans are compared with the defaults, since torch raises no error for a wrong type
    until the first gradient step.

    :param optimizer: the class of the optimizer
    :param kwargs: its arguments except for the parameters and the learning rate
    :raises ArgumentError: if they are no mapping, the optimizer has no such argument, or a value is no number or boolean
        although the default is one
    """
    check_type("optimizer_kwargs", kwargs, Mapping | None, "a mapping of arguments")
    parameters = parameters_of(optimizer)
    check_keys("optimizer_kwargs", kwargs or {}, parameters.keys() - {"params", "lr"})
    if not optimizer.__module__.startswith("torch.optim."):
        return
    for name, value in (kwargs or {}).items():
        default = parameters[name].default
        if isinstance(default, bool):
            check_type(f"optimizer_kwargs[{name!r}]", value, bool, "True or False")
        elif isinstance(default, int | float):
            check_number(f"optimizer_kwargs[{name!r}]", value)


def check_arch(argument: str, sizes: Any) -> None:
    """
    Check a list of layer sizes.

    :param argument: the argument's name, for the message
    :param sizes: the value of the user; None: the default
    :raises ArgumentError: if it is no list of layer sizes
    """
    if sizes is not None:
        check_type(argument, sizes, list | tuple, "a list of layer sizes, for example [64, 64]")
        for size in sizes:
            check_number(f"a layer of {argument}", size, low=1, integer=True)


def check_space(space: spaces.Space[Any], extractor: type[BaseFeaturesExtractor], normalize_images: bool = True) -> None:
    """
    Check that a features extractor can process the observations.

    :param space: the observation space
    :param extractor: the class of the features extractor
    :param normalize_images: whether images are divided by 255
    :raises UnsupportedError: if it cannot
    """
    is_dict, reads_dict = isinstance(space, spaces.Dict), extractor in (CombinedExtractor, DictEncoder)
    if is_dict and (extractor in (FlattenExtractor, NatureCNN) or issubclass(extractor, Encoder)):
        raise UnsupportedError("this policy reads one array; for Dict observations use policy='MultiInputPolicy'.")
    if not is_dict and reads_dict:
        raise UnsupportedError(
            f"policy='MultiInputPolicy' reads Dict observations, not {space}; use 'MlpPolicy' or 'CnnPolicy'."
        )
    if extractor is NatureCNN and normalize_images and is_image(space) and not is_image_space(space):
        raise UnsupportedError(
            f"NatureCNN reads images with values of uint8 from 0 to 255, not {space}; for other images take "
            "policy_kwargs={'encoder': 'minatar'}, 'small', 'nature' or 'impala'."
        )
    parts = space.spaces if isinstance(space, spaces.Dict) and reads_dict else {}
    layers = nn.ModuleDict()
    for key in parts:
        if not isinstance(key, str) or not key or "." in key or hasattr(layers, key):
            raise UnsupportedError(f"the key {key!r} of the Dict observations cannot name a layer of torch; rename it.")
    for image in [space] if extractor is NatureCNN else parts.values() if extractor is CombinedExtractor else ():
        if is_image_space(image) and min(image.shape[1:]) < MIN_IMAGE_SIZE:  # type: ignore[index]
            raise UnsupportedError(
                f"images of shape {image.shape} are too small for NatureCNN, which needs {MIN_IMAGE_SIZE} x {MIN_IMAGE_SIZE} "
                "pixels: enlarge them with gymnasium.wrappers.ResizeObservation, or take policy_kwargs={'encoder': 'minatar'}."
            )
