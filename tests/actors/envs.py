"""Environments whose observations are serial numbers, so that each stored step can be recognised."""

import itertools
import os
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

LENGTH = 7
"""The steps of an episode."""
_instances = itertools.count()

Observation = npt.NDArray[Any]


def reward_of(serial: int) -> float:
    """Return the reward of the step that begins with a serial number."""
    return float(serial % 5 - 2)


def is_last(serial: int) -> bool:
    """Return whether the step that begins with a serial number ends an episode."""
    return serial % (LENGTH + 1) == LENGTH - 1


def is_time_limit(serial: int) -> bool:
    """Return whether a time limit ends that episode, every other one."""
    return serial // (LENGTH + 1) % 2 == 1


class SerialEnv(gym.Env[Observation, int]):
    """
    An environment whose observation is the process, the instance in it, and the number of observations so far.

    An episode has 7 steps and 8 observations, so that the serial number of its final observation is no first one of a step.
    """

    observation_space: Any = spaces.Box(0, 2**24, (3,), np.float32)
    action_space: Any = spaces.Discrete(2)

    def __init__(self) -> None:
        self.instance = next(_instances)
        self.serial = -1

    def _observation(self) -> Observation:
        self.serial += 1
        return np.array([os.getpid(), self.instance, self.serial], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        serial = self.serial
        ends = is_last(serial)
        limit = is_time_limit(serial)
        return self._observation(), reward_of(serial), ends and not limit, ends and limit, {}


class SerialFrames(SerialEnv):
    """The same with an image of 16 x 16 pixels, whose brightness is the serial number modulo 256."""

    observation_space = spaces.Box(0, 255, (16, 16), np.uint8)

    def _observation(self) -> Observation:
        self.serial += 1
        return np.full((16, 16), self.serial % 256, np.uint8)


class BrokenEnv(SerialEnv):
    """An environment that raises an error in its 30th step."""

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if self.serial > 30:
            raise ZeroDivisionError("the robot has fallen")
        return super().step(action)


for _id, _class in {"serial/Serial-v0": SerialEnv, "serial/Frames-v0": SerialFrames, "serial/Broken-v0": BrokenEnv}.items():
    gym.register(_id, f"tests.actors.envs:{_class.__name__}", disable_env_checker=True, order_enforce=False)


def make_stack() -> gym.Env[Any, Any]:
    """Make an environment whose observations are stacks of four frames."""
    return gym.wrappers.FrameStackObservation(SerialFrames(), 4)


gym.register("serial/Stack-v0", "tests.actors.envs:make_stack", disable_env_checker=True, order_enforce=False)
