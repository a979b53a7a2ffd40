"""Observations as the input of a features extractor, in the precision of the network."""

from collections.abc import Collection
from typing import Any, cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs

__all__ = ["image_keys", "preprocess"]


def preprocess(obs: PyTorchObs, space: spaces.Space[Any], images: Collection[str | None], dtype: th.dtype) -> PyTorchObs:
    """
    SB3's ``preprocess_obs`` in another precision: images between 0 and 1, choices as one-hot vectors.

    :param obs: (B, \\*obs) observations
    :param space: their space
    :param images: keys of the images that are divided by 255, None where the observation is one array
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
    Number the values of a Discrete or a MultiDiscrete space from 0, as one-hot vectors need them, wherever the space starts.

    :param obs: (B, \\*obs) observations
    :param space: their space
    :return: (B, \\*obs) numbers of the values
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        return obs.long() - th.as_tensor(space.start, device=obs.device)
    return obs


def image_keys(space: spaces.Space[Any]) -> set[str | None]:
    """
    :param space: of observations
    :return: the keys of its parts that are images, None where it is one image; slow, so that it is done once
    """
    if isinstance(space, spaces.Dict):
        return {key for key, part in space.spaces.items() if is_image_space(part)}
    return {None} if is_image_space(space) else set()
