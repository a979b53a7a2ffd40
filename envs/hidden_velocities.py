"""CartPole without its velocities, a partially observable task that needs several observations (frame stacking) or memory."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorWrapper

IS_VISIBLE = np.array([True, False, True, False])  # position, velocity, angle, angular velocity


def hide_velocities(observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """
    Replace the two velocities by zeros.

    :param observations: (..., 4) observations of CartPole
    :return: (..., 4) the masked observations
    """
    # a product with a mask would keep the signs of the velocities, as -0.0
    return np.where(IS_VISIBLE, observations, np.float32(0))


class HiddenVelocities(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """
    A wrapper of CartPole that replaces the two velocities in each observation by zeros.

    The shape of the observations stays (4,), as with the RL Zoo's ``MaskVelocityWrapper``. An agent trained on the masked
    observations can therefore act in CartPole itself, and the other way round.

    :param env: a CartPole environment
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def observation(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return hide_velocities(observation)


class VectorHiddenVelocities(VectorWrapper):
    """
    :class:`HiddenVelocities` for gymnasium's vector environments.

    gymnasium's ``TransformObservation`` refuses vector environments with ``AutoresetMode.SAME_STEP``, so it cannot be used.

    :param env: a vector environment of CartPole
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observations, infos = self.env.reset(seed=seed, options=options)
        return hide_velocities(observations), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            infos = {**infos, "final_obs": hide_velocities(infos["final_obs"])}
        return hide_velocities(observations), rewards, terminated, truncated, infos
