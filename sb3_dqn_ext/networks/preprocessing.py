"""Preprocessing of observations for the features extractor, in the precision of the network."""

from collections.abc import Collection
from typing import Any, cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_dqn_ext.algorithm.batches import copy_to_device

__all__ = ["image_keys", "preprocess"]


def preprocess(obs: PyTorchObs, space: spaces.Space[Any], images: Collection[str | None], dtype: th.dtype) -> PyTorchObs:
    """
    Preprocess observations as SB3's ``preprocess_obs``, but in any precision: images between 0 and 1, discrete values as
    one-hot vectors.

    :param obs: (B, \\*obs) observations
    :param space: their space
    :param images: the keys of the images that are divided by 255; the key of an observation that is one array is None
    :param dtype: the precision
    :return: the input of the features extractor
    """
    if isinstance(obs, dict):
        parts = cast(spaces.Dict, space).spaces
        return cast(PyTorchObs, {key: _preprocess(part, parts[key], key in images, dtype) for key, part in obs.items()})
    return _preprocess(obs, space, None in images, dtype)


def _preprocess(obs: th.Tensor, space: spaces.Space[Any], is_image: bool, dtype: th.dtype) -> th.Tensor:
    if not isinstance(space, spaces.Box):
        return cast(th.Tensor, preprocess_obs(subtract_start(obs, space), space)).to(dtype)
    return obs.to(dtype) / 255.0 if is_image else obs.to(dtype)


def subtract_start(obs: th.Tensor, space: spaces.Space[Any]) -> th.Tensor:
    """
    Subtract the start of a Discrete or a MultiDiscrete space, so that values begin at 0, as one-hot encoding requires.

    :param obs: (B, \\*obs) observations
    :param space: their space
    :return: (B, \\*obs) values from 0
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        return obs.long() - copy_to_device(np.asarray(space.start), obs.device)
    return obs


def image_keys(space: spaces.Space[Any]) -> set[str | None]:
    """
    Find the images in an observation space. It is slow, so call it once.

    :param space: the observation space
    :return: the keys of its images; None is the key of a space that is one image
    """
    if isinstance(space, spaces.Dict):
        return {key for key, part in space.spaces.items() if is_image_space(part)}
    return {None} if is_image_space(space) else set()
