"""Random starts for environments that always begin in nearly the same state."""

from typing import Any

import gymnasium as gym

from sb3_dqn_ext.errors import ArgumentError


class RandomFirstStep(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """
    A wrapper that takes one random action after each reset.

    The environment's own generator draws the action, so the same seed gives the same start. The wrapper is the smallest case
    of the random no-op starts of Mnih et al. 2015, "Human-level control through deep reinforcement learning"
    (https://doi.org/10.1038/nature14236). If the action ends the episode, the environment is reset again and no other action
    is taken. The step counts for a ``TimeLimit`` inside this wrapper, and its reward counts for a ``Monitor`` inside it.

    :param env: an environment with a Discrete action space
    :raises ArgumentError: if the action space is not Discrete
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        if not isinstance(env.action_space, gym.spaces.Discrete):
            raise ArgumentError(f"RandomFirstStep needs a Discrete action space, not {env.action_space}.")
        self._actions = env.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.env.reset(seed=seed, options=options)
        action = self._actions.start + self.np_random.integers(self._actions.n)
        observation, _, terminated, truncated, info = self.env.step(action)
        return self.env.reset(options=options) if terminated or truncated else (observation, info)
