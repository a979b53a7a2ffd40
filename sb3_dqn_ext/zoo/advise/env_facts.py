"""Facts about an environment on which its configuration depends, measured in random steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

from sb3_dqn_ext._arguments import check_environment
from sb3_dqn_ext.algorithm.action_masks import ACTION_MASK, check_mask_space, without_mask
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.networks.encoders import is_image
from sb3_dqn_ext.zoo.network_choice import choose_encoder

Env = gym.Env[Any, Any]
Wrapper = str | dict[str, dict[str, Any]]
"""The dotted name of a wrapper, or a mapping from it to its arguments."""

RARE_REWARDS = 0.01
"""The share of steps with a reward below which rewards are sparse: one in 100, the horizon of a discount factor of 0.99."""


@dataclass(frozen=True)
class EnvFacts:
    """The spaces of an environment, its time limit, and what happened in random steps."""

    observation_space: spaces.Space[Any]
    """that of the network, which does not read action masks"""
    n_actions: int
    max_episode_steps: int | None
    """the time limit; None: no limit is registered"""
    is_stacked: bool
    """whether FrameStackObservation stacks the observations"""
    n_random_steps: int
    n_terminations: int
    n_truncations: int
    min_reward: float
    max_reward: float
    nonzero_share: float
    """the share of steps with a reward other than zero"""
    max_abs_observation: float
    """the largest absolute value in vector observations; 0 for other observations"""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """the arguments with which the environment was made"""
    preprocessing: tuple[Wrapper, ...] = ()
    """the wrappers that were put around the environment before it was measured, as in the zoo's YAML"""
    has_masks: bool = False
    """whether the observations contain action masks"""
    is_atari: bool = False
    """whether it is a game of ALE, which ends its episodes itself"""

    @property
    def max_abs_reward(self) -> float:
        """The largest absolute value of a reward."""
        return max(abs(self.min_reward), abs(self.max_reward))

    @property
    def n_ends(self) -> int:
        """The number of episodes that ended."""
        return self.n_terminations + self.n_truncations

    @property
    def episode_length(self) -> float:
        """The mean number of steps in an episode; at least the number of random steps if no episode ended."""
        return self.n_random_steps / max(self.n_ends, 1)

    @property
    def is_uninformative(self) -> bool:
        """Whether all rewards were equal and no episode terminated, so that no return was better than another."""
        return self.min_reward == self.max_reward and self.n_terminations == 0

    @property
    def is_sparse(self) -> bool:
        """Whether random steps contain few rewards, or none that differs from the others."""
        return self.nonzero_share < RARE_REWARDS or self.is_uninformative

    @property
    def has_images(self) -> bool:
        """Whether the observations are images that an encoder supports, or a Dict with such images."""
        return choose_encoder(self.observation_space) is not None


class RandomStep(NamedTuple):
    """The result of a random step."""

    max_abs_observation: float
    reward: float
    terminated: bool
    truncated: bool


def measure(env: Env, n_random_steps: int = 2_000, seed: int = 0) -> EnvFacts:
    """
    Make random steps in an environment, and return the facts.

    :param env: the environment, which is reset
    :param n_random_steps: the number of steps, at least 1
    :param seed: the seed of the environment and of the actions
    :raises UnsupportedError: if the actions are not Discrete, or no policy supports the observations
    """
    n_actions = count_actions(env)
    check_observations(env)
    has_masks = contains_masks(env)
    steps = list(random_steps(env, n_random_steps, seed))
    rewards = np.array([step.reward for step in steps])
    return EnvFacts(
        observation_space=without_mask(env.observation_space) if has_masks else env.observation_space,
        has_masks=has_masks,
        n_actions=n_actions,
        max_episode_steps=None if env.spec is None else env.spec.max_episode_steps,
        is_stacked=any(isinstance(layer, FrameStackObservation) for layer in layers_of(env)),
        n_random_steps=n_random_steps,
        n_terminations=sum(step.terminated for step in steps),
        n_truncations=sum(step.truncated and not step.terminated for step in steps),
        min_reward=float(rewards.min()),
        max_reward=float(rewards.max()),
        nonzero_share=float(np.mean(rewards != 0)),
        max_abs_observation=max(step.max_abs_observation for step in steps),
    )


def count_actions(env: Env) -> int:
    """
    Return the number of actions.

    :param env: the environment
    :raises UnsupportedError: if the actions are not Discrete
    """
    if not isinstance(env.action_space, spaces.Discrete):
        raise UnsupportedError(f"the action space is {env.action_space}, and a DQN supports Discrete actions only.")
    return int(env.action_space.n)


def check_observations(env: Env) -> None:
    """:raises UnsupportedError: if no policy supports the observations"""
    check_environment(env)
    if isinstance(env.observation_space, spaces.Tuple):
        raise UnsupportedError(f"the observation space is {env.observation_space}: a Dict can contain several parts.")


def contains_masks(env: Env) -> bool:
    """Return whether the observations of an environment contain action masks."""
    try:
        check_mask_space(env.observation_space, env.action_space)
    except ArgumentError:
        return False
    return True


def random_steps(env: Env, n_steps: int, seed: int) -> Iterator[RandomStep]:
    """
    Make random steps with legal actions, and reset the environment at the end of each episode.

    :param env: the environment
    :param n_steps: the number of steps
    :param seed: the seed of the environment and of the actions
    :raises ArgumentError: if a reward or a vector observation is not finite
    """
    has_masks = contains_masks(env)
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    for step in range(1, n_steps + 1):
        mask = np.not_equal(observation[ACTION_MASK], 0).astype(np.int8) if has_masks else None
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample(mask))
        magnitude = max_abs(env.observation_space, observation)
        for name, number in (("reward", float(reward)), ("largest |observation|", magnitude)):
            if not np.isfinite(number):
                raise ArgumentError(f"the {name} of random step {step} is {number}: the networks would become nan, too.")
        yield RandomStep(magnitude, float(reward), bool(terminated), bool(truncated))
        if terminated or truncated:
            observation, _ = env.reset()


def max_abs(space: spaces.Space[Any], observation: Any) -> float:
    """
    Return the largest absolute value in a vector observation, and 0 for other observations.

    :param space: the observation space
    :param observation: an observation
    """
    is_vector = isinstance(space, spaces.Box) and not is_image(space)
    return float(np.abs(observation).max()) if is_vector else 0.0
