"""Observations to try an exported model with, and the comparison of its predictions with those of the original."""

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces

from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks, q_values
from sb3_dqn_ext.errors import UnsupportedError

__all__ = ["check_predictions", "sample_observations"]

Array = npt.NDArray[Any]
Observations = Array | dict[str, Array]

TOLERANCE = 1e-4
"""The largest difference of Q-values that rounding can cause, as a fraction of the largest Q-value."""


def sample_observations(space: spaces.Space[Any], n: int) -> Observations:
    """
    Sample observations. The generator of the space is not changed, and the samples are always the same.

    :param space: the observation space
    :param n: B, the number of observations
    :return: (B, \\*obs) observations
    """
    own = copy.deepcopy(space)
    own.seed(0)
    samples = [own.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: stacked([sample[key] for sample in samples], part) for key, part in space.spaces.items()}
    return stacked(samples, space)


def stacked(samples: list[Any], space: spaces.Space[Any]) -> Array:
    """Return samples of a space as one array. Floats are clipped, as bounds of a space can be as large as 1e38."""
    array: Array = np.stack(samples).astype(space.dtype)
    return array.clip(-10, 10) if np.issubdtype(array.dtype, np.floating) else array


def check_predictions(model: Any, observations: Observations, q: Array, actions: Array, where: str) -> None:
    """
    Check that an exported model predicts the same as the original.

    :param model: the original
    :param observations: (B, \\*obs) observations, as the original takes them
    :param q: (B, A) the Q-values of the exported model
    :param actions: (B,) its actions
    :param where: the program that has evaluated the exported model, for the message
    :raises UnsupportedError: if Q-values or actions differ, for example because ``predict`` is overridden
    """
    online, _ = find_networks(model, "export")
    greedy, _ = model.predict(map_observation(np.array, observations), deterministic=True)
    with th.no_grad():
        expected = q_values(online, model.policy.obs_to_tensor(observations)[0]).cpu().numpy()
    largest = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    rows = np.arange(len(q))
    # of two actions with nearly the same value, either can be the greedy one
    losses = q.max(axis=1)[:, None] - np.stack([q[rows, greedy], q[rows, actions]], axis=1)  # (B, 2)
    error = np.abs(q - expected).max() if q.shape == expected.shape else np.inf
    for what, difference in (("Q-values", error), ("actions", losses.max())):
        if not difference <= largest:
            raise UnsupportedError(
                f"the exported model has other {what} in {where} than model.predict(..., deterministic=True), by "
                f"{difference:.2g}: a method of the model, the policy or the network is overridden, or a layer cannot be "
                "exported."
            )
