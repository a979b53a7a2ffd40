"""Many CartPoles at once, which are reset in the step that ends an episode."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


class SameStepCartPoleVectorEnv(CartPoleVectorEnv):
    """
    gymnasium's vector of CartPoles, which resets an environment in the step that ends its episode.

    gymnasium's own does it in the step after, ignores the action of that step, and has nothing to return for it. Here
    ``infos["final_obs"]``, (n_envs, 4), holds the last observations of the episodes that ended, as ``AutoresetMode.SAME_STEP``
    demands.
    """

    metadata = CartPoleVectorEnv.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}
    state: Any  # (4, n_envs), once there was a reset

    def step(self, action: npt.NDArray[Any]) -> tuple[Floats, Floats, Bools, Bools, dict[str, Any]]:
        observations, rewards, terminated, truncated, infos = super().step(action)
        ended = self.prev_done
        if np.count_nonzero(ended):  # any() takes several times as long
            infos = {"final_obs": observations, "_final_obs": ended, "final_info": infos, "_final_info": ended}
            self.prev_done = np.zeros(self.num_envs, np.bool_)
            self._begin(ended)
            observations = self.state.T.astype(np.float32)
        return observations, rewards, terminated, truncated, infos

    def _begin(self, envs: Bools) -> None:
        """:param envs: (n_envs,) the environments whose next episode begins"""
        self.state[:, envs] = self.np_random.uniform(self.low, self.high, size=(4, np.count_nonzero(envs)))
        self.steps[envs] = 0


class RandomStartCartPoleVectorEnv(SameStepCartPoleVectorEnv):
    """
    A vector of CartPoles, where each takes one random action after its reset, as RandomFirstStep has it.

    gymnasium steps all of them or none: those that did not begin are put back to where they were. The random actions come from
    the vector's own generator, and do not count for the time limit.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        _, infos = super().reset(seed=seed, options=options)
        self._take_random_steps(np.ones(self.num_envs, dtype=np.bool_))
        observations: Floats = self.state.T.astype(np.float32)
        return observations, infos

    def _begin(self, envs: Bools) -> None:
        super()._begin(envs)
        self._take_random_steps(envs)

    def _take_random_steps(self, envs: Bools) -> None:
        """:param envs: (n_envs,) which of them have just been reset"""
        before, steps = self.state, self.steps.copy()
        CartPoleVectorEnv.step(self, self.np_random.integers(2, size=self.num_envs))
        at_once = envs & self.prev_done  # these have fallen already: they are reset once more, and start there
        self.state = np.where(envs, self.state, before)  # (4, n_envs)
        self.steps, self.prev_done = steps, np.zeros(self.num_envs, np.bool_)
        super()._begin(at_once)
