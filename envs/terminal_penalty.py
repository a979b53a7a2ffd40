"""A different reward at the end of an episode, for example -50 when the pole of CartPole falls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv, VectorWrapper

from sb3_dqn_ext._validation import check_number, choose

# mode -> function (reward of the environment, terminal reward) -> reward of the last step
REWARD_MODES: dict[str, Callable[[Any, float], Any]] = {
    "replace": lambda own, at_end: at_end,
    "add": lambda own, at_end: own + at_end,
}
REWARD_MODE_SYNONYMS = {"set": "replace", "override": "replace", "overwrite": "replace", "plus": "add", "sum": "add"}

# kind of end -> function (terminated, truncated) -> whether the step is such an end. An episode that terminates in the step
# in which its time limit is reached counts as terminated: gymnasium's TimeLimit then sets both flags, the zoo's sets only
# ``terminated``, and SB3 bootstraps in neither case.
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
    A function that changes the reward of steps that end an episode.

    :param reward: the terminal reward, with its sign: a penalty of 50 is ``-50``
    :param mode: ``"replace"``: the terminal reward replaces the environment's reward; ``"add"``: it is added to it
    :param on: the kind of end: ``"terminated"``, ``"truncated"`` (truncated and not terminated) or ``"done"`` (either)
    :raises ArgumentError: if ``reward`` is not finite, or ``mode`` or ``on`` has another value
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
        Return the changed rewards of one step.

        :param rewards: (n_envs,) or (), the environments' rewards
        :param terminated: (n_envs,) or (), the flags of the step
        :param truncated: (n_envs,) or (), the flags of the step
        :return: (n_envs,) or (), the rewards with the terminal reward where an episode ends
        """
        # some environments return flags as 0 and 1, or as 0.0 and 1.0, and rewards as lists
        ends = EPISODE_ENDS[self.on](np.asarray(terminated, dtype=bool), np.asarray(truncated, dtype=bool))
        rewards = np.asarray(rewards)
        return np.asarray(np.where(ends, REWARD_MODES[self.mode](rewards, self.reward), rewards))


class TerminalPenalty(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """
    A wrapper that changes the reward of the last step of an episode.

    ``info["original_reward"]`` contains the environment's own reward.

    Outside SB3's ``Monitor``, as with the zoo's ``env_wrapper``, the agent is trained with the penalty, while the returns of
    ``Monitor`` and ``evaluate_policy`` are without it. Inside ``Monitor``, as in a registered id, the returns of ``Monitor``
    include the penalty.

    :param env: the environment
    :param reward: the terminal reward, with its sign: a penalty of 50 is ``-50``
    :param mode: ``"replace"``: the terminal reward replaces the environment's reward; ``"add"``: it is added to it
    :param on: the kind of end: ``"terminated"``, ``"truncated"`` (truncated and not terminated) or ``"done"`` (either)
    :raises ArgumentError: if ``reward`` is not finite, or ``mode`` or ``on`` has another value
    """

    def __init__(self, env: gym.Env[Any, Any], reward: float, mode: str = "replace", on: str = "terminated") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, reward=reward, mode=mode, on=on)
        super().__init__(env)
        self.terminal_reward = TerminalReward(reward, mode, on)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, own, terminated, truncated, info = self.env.step(action)
        reward = float(self.terminal_reward(own, terminated, truncated).item())
        # A new dict, since the environment may reuse its own. An ``original_reward`` that exists comes from an inner wrapper.
        return observation, reward, terminated, truncated, {"original_reward": own, **info}


class VectorTerminalPenalty(VectorWrapper):
    """
    :class:`TerminalPenalty` for gymnasium's vector environments, with the same terminal reward in each environment.

    ``infos["original_reward"]``, (n_envs,), contains the environments' own rewards of the step that is returned, in every
    autoreset mode. With ``AutoresetMode.NEXT_STEP`` it is 0 in the step that resets an environment. With
    ``AutoresetMode.SAME_STEP`` ``infos["final_info"]`` contains it, too.

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
        # A copy, since the environment may write its next rewards into the same array.
        originals = {"original_reward": np.array(own), "_original_reward": np.ones(self.num_envs, dtype=np.bool_)}
        if "final_info" in infos:
            infos = {**infos, "final_info": {**originals, **infos["final_info"]}}
        return observations, self.terminal_reward(own, terminated, truncated), terminated, truncated, {**originals, **infos}
