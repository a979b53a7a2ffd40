"""
Masks of legal actions: the part ``action_mask`` of a Dict observation, 1 for each action that is legal and 0 for each other.

A network with masks reads the other parts of the observation, and gives illegal actions the Q-value :data:`ILLEGAL_VALUE`. All
code that chooses the best action, or computes a softmax, then leaves them out. Shapes: B batch size, A actions.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_dqn_ext.errors import ArgumentError

if TYPE_CHECKING:  # the wrappers of environments import this module, and torch takes more than a second
    import torch as th
    from stable_baselines3.common.type_aliases import PyTorchObs

__all__ = [
    "ACTION_MASK",
    "ILLEGAL_VALUE",
    "check_mask_space",
    "is_legal",
    "legal_actions",
    "mask_q_values",
    "mask_values",
    "without_mask",
]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]

ACTION_MASK = "action_mask"
"""The key of the mask in Dict observations, as in PettingZoo."""
ILLEGAL_VALUE = -(2.0**126)
"""
The Q-value of illegal actions. It is a power of two, so that it is the same number in every precision, and finite, so that its
product with a probability of 0 is 0.
"""


def check_mask_space(space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """
    Check that observations contain a mask of the actions.

    :param space: the observation space
    :param action_space: the action space
    :raises ArgumentError: if they contain none, or the mask has another shape, or there is no other part
    """
    actions = getattr(action_space, "n", None)
    mask = space.spaces.get(ACTION_MASK) if isinstance(space, spaces.Dict) else None
    wrap = "sb3_dqn_ext.envs.ActionMaskInObservation adds it to the observations of an environment"
    if mask is None:
        raise ArgumentError(f"action_masks=True needs Dict observations with the key {ACTION_MASK!r}, not {space}: {wrap}.")
    if not isinstance(mask, spaces.Box | spaces.MultiBinary) or mask.shape != (actions,):
        raise ArgumentError(
            f"the observation {ACTION_MASK!r} must be a MultiBinary({actions}) or a Box of shape ({actions},), with a number "
            f"for each action, not {mask}."
        )
    if isinstance(space, spaces.Dict) and len(space.spaces) == 1:
        raise ArgumentError(f"the observations {space} have no part beside {ACTION_MASK!r}, which the network does not read.")


def without_mask(parts: Any) -> Any:
    """
    Return what a network with masks reads: the parts of an observation beside the mask, or the only one.

    :param parts: an observation, or the space of observations
    :return: an observation, or a space
    """
    items = parts.spaces if isinstance(parts, spaces.Dict) else parts
    others = {key: part for key, part in items.items() if key != ACTION_MASK}
    if len(others) == 1:
        return next(iter(others.values()))
    return spaces.Dict(others) if isinstance(parts, spaces.Dict) else others


def legal_actions(net: object, obs: "PyTorchObs") -> "th.Tensor | None":
    """
    Return which actions are legal.

    :param net: a network
    :param obs: (B, \\*obs) observations
    :return: (B, A) booleans; None if the network has no masks
    """
    if not getattr(net, "action_masks", False):
        return None
    assert isinstance(obs, dict)
    return obs[ACTION_MASK] != 0


def mask_q_values(q: "th.Tensor", legal: "th.Tensor | None") -> "th.Tensor":
    """
    Give illegal actions the value :data:`ILLEGAL_VALUE`.

    :param q: (B, A) Q-values
    :param legal: (B, A) whether each action is legal; None: all are
    :return: (B, A) Q-values
    """
    return q if legal is None else q.masked_fill(~legal, ILLEGAL_VALUE)


def mask_values(q: Array, obs: Mapping[str, Array]) -> Array:
    """
    Give illegal actions the value :data:`ILLEGAL_VALUE`, in numpy.

    :param q: (B, A) Q-values
    :param obs: (B, \\*obs) observations with a mask
    :return: (B, A) Q-values
    """
    return np.where(np.asarray(obs[ACTION_MASK]) != 0, q, q.dtype.type(ILLEGAL_VALUE))


def is_legal(q: Array) -> Bools:
    """
    Return which actions are legal.

    :param q: Q-values of a network with or without masks, of any shape
    :return: booleans of the same shape
    """
    legal: Bools = q != ILLEGAL_VALUE
    return legal
