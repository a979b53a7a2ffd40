"""Storage of action masks as packed bits. Shapes: A actions."""

from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_dqn_ext.algorithm.action_masks import ACTION_MASK, check_mask_space
from sb3_dqn_ext.replay.observations import Obs

__all__ = ["PackedMasks", "pack_masks"]

Array = npt.NDArray[Any]


class PackedMasks(NamedTuple):
    """The conversion of observations with an action mask to those that are stored: eight actions in a byte."""

    n_actions: int
    """A, the number of actions."""
    dtype: np.dtype[Any]
    """The dtype of the masks in observations."""
    space: spaces.Dict
    """The space of the stored observations."""

    def pack(self, obs: Obs) -> Obs:
        """
        Pack the masks of observations.

        :param obs: the observations, with a mask of (n_envs, A)
        :return: the observations that are stored, with a mask of (n_envs, ceil(A / 8)) bytes
        """
        parts = cast(dict[str, Array], obs)
        return {**parts, ACTION_MASK: np.packbits(np.asarray(parts[ACTION_MASK]) != 0, axis=-1)}

    def unpack(self, obs: Obs) -> Obs:
        """
        Unpack the masks of stored observations: the inverse of :meth:`pack`.

        :param obs: the stored observations
        """
        parts = cast(dict[str, Array], obs)
        bits = np.unpackbits(parts[ACTION_MASK], axis=-1, count=self.n_actions)
        return {**parts, ACTION_MASK: bits.astype(self.dtype)}


def pack_masks(space: spaces.Space[Any], action_space: spaces.Space[Any]) -> PackedMasks:
    """
    Make the conversion for an observation space.

    :param space: the observation space
    :param action_space: the action space
    :raises ArgumentError: if the observations contain no mask of the actions
    """
    check_mask_space(space, action_space)
    parts = cast(spaces.Dict, space).spaces
    n_actions = int(cast(spaces.Discrete, action_space).n)
    stored = spaces.Box(0, 255, (-(-n_actions // 8),), np.uint8)
    return PackedMasks(n_actions, np.dtype(parts[ACTION_MASK].dtype), spaces.Dict({**parts, ACTION_MASK: stored}))
