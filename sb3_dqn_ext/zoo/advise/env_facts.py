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
from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.encoders import is_image
from sb3_dqn_ext.zoo.network_choice import choose_encoder, choose_policy

Env = gym.Env[Any, Any]
Wrapper = str | dict[str, dict[str, Any]]
"""The dotted name of a wrapper, or a mapping from it to its arguments."""

RARE_REWARDS = 0.01
"""The share of informative steps below which rewards are sparse: one in 100, the horizon of a discount factor of 0.99."""


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
    usual_reward: float
    """the most frequent reward"""
    usual_share: float
    """the share of steps with the most frequent reward"""
    informative_share: float
    """the share of steps in which an action made a difference: the reward was another one, or the episode terminated, which
    changes the return where the most frequent reward is not zero"""
    max_abs_observations: Mapping[str | None, float]
    """the largest absolute value in the observations that are vectors, by their key in the Dict; None without a Dict"""
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
    def is_sparse(self) -> bool:
        """Whether few random steps, or none, made a difference to the return. If each step has a bonus, any end is enough."""
        ends_a_bonus = self.usual_reward > 0 and self.n_terminations > 0
        return self.informative_share < RARE_REWARDS and not ends_a_bonus

    @property
    def has_images(self) -> bool:
        """Whether the observations are images that an encoder supports, or a Dict with such images."""
        return choose_encoder(self.observation_space) is not None


class RandomStep(NamedTuple):
    """The result of a random step."""

    max_abs_observations: Mapping[str | None, float]
    reward: float
    terminated: bool
    truncated: bool


def measure(env: Env, n_random_steps: int = 2_000, seed: int = 0) -> EnvFacts:
    """
    Make random steps in an environment, and return the facts.

    :param env: the environment, which is reset
    :param n_random_steps: the number of steps, at least 1
    :param seed: the seed of the environment and of the actions
    :raises UnsupportedError: if no policy supports the actions or the observations
    """
    has_masks = contains_masks(env)
    space = without_mask(env.observation_space) if has_masks else env.observation_space
    n_actions = count_actions(env, space, has_masks)
    steps = list(random_steps(env, n_random_steps, seed))
    rewards = np.array([step.reward for step in steps])
    terminated = np.array([step.terminated for step in steps])
    values, counts = np.unique(rewards, return_counts=True)
    usual_reward = float(values[counts.argmax()])
    return EnvFacts(
        observation_space=space,
        has_masks=has_masks,
        n_actions=n_actions,
        max_episode_steps=None if env.spec is None else env.spec.max_episode_steps,
        is_stacked=any(isinstance(layer, FrameStackObservation) for layer in layers_of(env)),
        n_random_steps=n_random_steps,
        n_terminations=int(terminated.sum()),
        n_truncations=sum(step.truncated and not step.terminated for step in steps),
        min_reward=float(rewards.min()),
        max_reward=float(rewards.max()),
        usual_reward=usual_reward,
        usual_share=float(counts.max() / n_random_steps),
        informative_share=float(np.mean((rewards != usual_reward) | (terminated & (usual_reward != 0)))),
        max_abs_observations={
            key: max(step.max_abs_observations[key] for step in steps) for key in vector_parts(env.observation_space)
        },
    )


def count_actions(env: Env, space: spaces.Space[Any], has_masks: bool) -> int:
    """
    Make a model, which checks the spaces of the environment, and return its number of actions.

    :param env: the environment
    :param space: the observation space of the network
    :param has_masks: whether the observations contain action masks
    :raises UnsupportedError: if no policy supports the actions or the observations
    """
    check_environment(env)
    encoder = choose_encoder(space)
    policy_kwargs = {"action_masks": has_masks, **({} if encoder is None else {"encoder": encoder})}
    policy = choose_policy(space, encoder is not None)
    model = DQNExt(policy, env, buffer_size=1_000, policy_kwargs=policy_kwargs, device="cpu")
    actions = model.action_space
    assert isinstance(actions, spaces.Discrete)
    return int(actions.n)


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
        magnitudes = {key: max_abs(observation, key) for key in vector_parts(env.observation_space)}
        numbers = {"reward": float(reward), **{describe_magnitude(key): size for key, size in magnitudes.items()}}
        for name, number in numbers.items():
            if not np.isfinite(number):
                raise ArgumentError(f"the {name} of random step {step} is {number}: the networks would become nan, too.")
        yield RandomStep(magnitudes, float(reward), bool(terminated), bool(truncated))
        if terminated or truncated:
            observation, _ = env.reset()


def vector_parts(space: spaces.Space[Any]) -> list[str | None]:
    """
    Return the keys of those parts of a Dict that are vectors of numbers, without action masks.

    :param space: the observation space
    :return: the keys; ``[None]`` if the space is no Dict, but a vector
    """
    parts = space.spaces.items() if isinstance(space, spaces.Dict) else [(None, space)]
    return [key for key, part in parts if isinstance(part, spaces.Box) and not is_image(part) and key != ACTION_MASK]


def max_abs(observation: Any, key: str | None) -> float:
    """
    Return the largest absolute value in a vector.

    :param observation: an observation
    :param key: the key of the vector in the observation; None: the observation itself
    """
    return float(np.abs(observation if key is None else observation[key]).max())


def describe_magnitude(key: str | None) -> str:
    """Return what ``max_abs`` returns for a key in words."""
    return "largest |observation|" + ("" if key is None else f" in {key!r}")
