"""CartPole without its velocities: what is hidden must be remembered, or seen in several observations together."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorWrapper

IS_VISIBLE = np.array([True, False, True, False])  # position, its velocity, angle, its velocity


def hide_velocities(observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """
    :param observations: (..., 4) of CartPole
    :return: (..., 4) with zeros for the velocities; a product with a mask would leave their signs, as -0.0
    """
    return np.where(IS_VISIBLE, observations, np.float32(0))


class HiddenVelocities(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """
    CartPole that shows its position and its angle, and zeros in place of the two velocities.

    Masked, not dropped, as the RL Zoo's ``MaskVelocityWrapper`` does it: the observations are those of the zoo's id of the
    same name, and their shape is CartPole's, so that an agent of the one can be tried in the other.

    :param env: a CartPole
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def observation(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return hide_velocities(observation)


class VectorHiddenVelocities(VectorWrapper):
    """
    :class:`HiddenVelocities` for gymnasium's vector environments. gymnasium's TransformObservation takes no environments that
    reset in the step that ends an episode.

    :param env: a vector of CartPoles
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observations, infos = self.env.reset(seed=seed, options=options)
        return hide_velocities(observations), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            infos = {**infos, "final_obs": hide_velocities(infos["final_obs"])}
        return hide_velocities(observations), rewards, terminated, truncated, infos
