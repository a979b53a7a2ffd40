"""Another reward at the end of an episode, e.g. -50 when the pole falls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv, VectorWrapper

from sb3_dqn_ext._validation import check_number, choose

# (reward of the environment, reward of the end) -> reward of the last step
REWARD_MODES: dict[str, Callable[[Any, float], Any]] = {
    "replace": lambda own, at_end: at_end,
    "add": lambda own, at_end: own + at_end,
}
REWARD_MODE_SYNONYMS = {"set": "replace", "override": "replace", "overwrite": "replace", "plus": "add", "sum": "add"}

# (terminated, truncated) -> is this the end that is meant? An episode that ends in the very step in which its time runs out
# has terminated: gymnasium's TimeLimit then sets both flags, the zoo's sets only the first, and SB3 bootstraps with neither.
EPISODE_ENDS: dict[str, Callable[[Any, Any], Any]] = {
    "terminated": lambda terminated, truncated: terminated,
    "truncated": lambda terminated, truncated: truncated & np.logical_not(terminated),
    "done": lambda terminated, truncated: terminated | truncated,
}
END_SYNONYMS = {
    "termination": "terminated",
    "terminal": "terminated",
    "truncation": "truncated",
    "timeout": "truncated",
    "time_limit": "truncated",
    "any": "done",
    "both": "done",
    "end": "done",
}


@dataclass(frozen=True)
class TerminalReward:
    """
    The rewards of one step, with another reward where an episode ends.

    :param reward: the reward of the end, in the reward's own sign and unit
    :param mode: ``"replace"``: it takes the place of the environment's reward; ``"add"``: it is added to it
    :param on: which end: ``"terminated"``, ``"truncated"`` (cut short, and not terminated) or ``"done"`` (either)
    :raises ArgumentError: if ``reward`` is not finite, or a word is not one of these
    """

    reward: float
    mode: str = "replace"
    on: str = "terminated"

    def __post_init__(self) -> None:
        check_number("reward", self.reward)
        choose("mode", self.mode, REWARD_MODES, REWARD_MODE_SYNONYMS)
        choose("on", self.on, EPISODE_ENDS, END_SYNONYMS)

    def __call__(self, rewards: Any, terminated: Any, truncated: Any) -> npt.NDArray[Any]:
        """
        :param rewards: (n_envs,) or () the environments' own
        :param terminated: the same shape
        :param truncated: the same shape
        :return: the same shape
        """
        # environments may have 0 and 1, or 0.0 and 1.0, and rewards in lists
        ends = EPISODE_ENDS[self.on](np.asarray(terminated, dtype=bool), np.asarray(truncated, dtype=bool))
        rewards = np.asarray(rewards)
        return np.asarray(np.where(ends, REWARD_MODES[self.mode](rewards, self.reward), rewards))


class TerminalPenalty(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """
    Give another reward at the end of an episode; the environment's own stays in ``info["original_reward"]``.

    Around SB3's Monitor, as with the zoo's ``env_wrapper``, training sees the penalty, while Monitor's returns and with them
    ``evaluate_policy`` report the environment's own. Inside Monitor, as in a registered id, Monitor reports the penalty too.

    :param env: the environment
    :param reward: the reward of the end, in the reward's own sign and unit: a penalty of 50 is ``-50``
    :param mode: ``"replace"``: it takes the place of the environment's reward; ``"add"``: it is added to it
    :param on: which end: ``"terminated"``, ``"truncated"`` (cut short, and not terminated) or ``"done"`` (either)
    :raises ArgumentError: if ``reward`` is not finite, or a word is not one of these
    """

    def __init__(self, env: gym.Env[Any, Any], reward: float, mode: str = "replace", on: str = "terminated") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, reward=reward, mode=mode, on=on)
        super().__init__(env)
        self.terminal_reward = TerminalReward(reward, mode, on)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, own, terminated, truncated, info = self.env.step(action)
        reward = float(self.terminal_reward(own, terminated, truncated).item())
        # A new dict, as the environment may keep and reuse its own; what is there already comes from a wrapper further in.
        return observation, reward, terminated, truncated, {"original_reward": own, **info}


class VectorTerminalPenalty(VectorWrapper):
    """
    :class:`TerminalPenalty` for gymnasium's vector environments: the same reward in each of them.

    ``infos["original_reward"]``, (n_envs,), belongs to the step whose rewards are returned, in every autoreset mode; where
    that step is the reset that follows an end, it is the vector environment's own 0. Where an environment is reset in the step
    that ends an episode, ``infos["final_info"]`` has it too.

    :param env: the vector environment
    :param reward: see :class:`TerminalPenalty`
    :param mode: see :class:`TerminalPenalty`
    :param on: see :class:`TerminalPenalty`
    :raises ArgumentError: see :class:`TerminalPenalty`
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], reward: float, mode: str = "replace", on: str = "terminated") -> None:
        super().__init__(env)
        self.terminal_reward = TerminalReward(reward, mode, on)

    def step(self, actions: Any) -> tuple[Any, npt.NDArray[Any], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        observations, own, terminated, truncated, infos = self.env.step(actions)  # each but infos: (n_envs, ...)
        # A copy, as the environment may write its next rewards into the same array.
        originals = {"original_reward": np.array(own), "_original_reward": np.ones(self.num_envs, dtype=np.bool_)}
        if "final_info" in infos:
            infos = {**infos, "final_info": {**originals, **infos["final_info"]}}
        return observations, self.terminal_reward(own, terminated, truncated), terminated, truncated, {**originals, **infos}
