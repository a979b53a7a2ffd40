"""Vector environments of CartPole that reset an environment in the same step in which its episode ends."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


class SameStepCartPoleVectorEnv(CartPoleVectorEnv):
    """
    gymnasium's vector environment of CartPole with ``AutoresetMode.SAME_STEP``.

    gymnasium's own vector environment resets an environment one step after its episode has ended (``NEXT_STEP``). That extra
    step ignores its action and is not a transition. Here ``infos["final_obs"]``, (n_envs, 4), holds the last observations of
    the episodes that ended.
    """

    metadata = CartPoleVectorEnv.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}
    state: Any  # (4, n_envs), None before the first reset

    def step(self, action: npt.NDArray[Any]) -> tuple[Floats, Floats, Bools, Bools, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = super().step(action)
        ended = self.prev_done
        if np.count_nonzero(ended):  # several times as fast as any()
            infos = {"final_obs": observations, "_final_obs": ended, "final_info": infos, "_final_info": ended}
            self.prev_done = np.zeros(self.num_envs, np.bool_)
            self._reset_envs(ended)
            observations = self.state.T.astype(np.float32)
        return observations, rewards, terminated, truncated, infos

    def _reset_envs(self, envs: Bools) -> None:
        """
        Draw the first states of new episodes.

        :param envs: (n_envs,) a mask of the environments to reset
        """
        self.state[:, envs] = self.np_random.uniform(self.low, self.high, size=(4, np.count_nonzero(envs)))
        self.steps[envs] = 0


class RandomStartCartPoleVectorEnv(SameStepCartPoleVectorEnv):
    """
    A vector environment of CartPole that takes one random action after each reset, like ``RandomFirstStep``.

    gymnasium can only step all environments together. Environments that were not reset get their states back after that step.
    The vector environment's own generator draws the random actions. They do not count for the time limit.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        _, infos = super().reset(seed=seed, options=options)
        self._take_random_steps(np.ones(self.num_envs, dtype=np.bool_))
        observations: Floats = self.state.T.astype(np.float32)
        return observations, infos

    def _reset_envs(self, envs: Bools) -> None:
        super()._reset_envs(envs)
        self._take_random_steps(envs)

    def _take_random_steps(self, envs: Bools) -> None:
        """
        Take one random action in environments that have just been reset.

        :param envs: (n_envs,) a mask of these environments
        """
        before, steps = self.state, self.steps.copy()
        CartPoleVectorEnv.step(self, self.np_random.integers(2, size=self.num_envs))
        ended_at_once = envs & self.prev_done  # the random action has ended these episodes: they are reset again
        self.state = np.where(envs, self.state, before)  # (4, n_envs)
        self.steps, self.prev_done = steps, np.zeros(self.num_envs, np.bool_)
        super()._reset_envs(ended_at_once)
