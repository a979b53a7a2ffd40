"""Many CartPoles at once, each of which begins with a random action."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

Bools = npt.NDArray[np.bool_]


class RandomStartCartPoles(CartPoleVectorEnv):
    """
    gymnasium's vector of CartPoles, where each takes one random action after its reset, as RandomFirstStep has it.

    gymnasium steps all of them or none: those that did not begin are put back to where they were. The random actions come from
    the vector's own generator, and do not count for the time limit.
    """

    state: Any  # (4, n_envs), once there was a reset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        _, infos = super().reset(seed=seed, options=options)
        return self._random_first_steps(np.ones(self.num_envs, dtype=np.bool_)), infos

    def step(
        self, action: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Bools, Bools, dict[str, Any]]:
        begin = self.prev_done
        observations, rewards, terminated, truncated, infos = super().step(action)
        if begin.any():
            observations = self._random_first_steps(begin)
        return observations, rewards, terminated, truncated, infos

    def _random_first_steps(self, begin: Bools) -> npt.NDArray[np.float32]:
        """
        :param begin: (n_envs,) which of them have just been reset
        :return: (n_envs, 4) the observations after their random actions
        """
        before, steps, done = self.state, self.steps.copy(), self.prev_done
        self.prev_done = np.zeros_like(done)
        super().step(self.np_random.integers(2, size=self.num_envs))
        at_once = begin & self.prev_done  # these have fallen already: they are reset once more, and start there
        self.state = np.where(begin, self.state, before)  # (4, n_envs)
        self.state[:, at_once] = self.np_random.uniform(self.low, self.high, size=(4, at_once.sum()))
        self.steps, self.prev_done = steps, done
        observations: npt.NDArray[np.float32] = self.state.T.astype(np.float32)
        return observations
