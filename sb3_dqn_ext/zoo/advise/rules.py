"""The rules that choose hyperparameters by the facts of an environment, each with its reason."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from sb3_dqn_ext.networks.encoders import has_channels_last, is_image
from sb3_dqn_ext.zoo.advise.env_facts import EnvFacts, describe_magnitude
from sb3_dqn_ext.zoo.network_choice import choose_encoder, choose_policy, smallest_side, split_image_shape

Choice = tuple[Any, str]
"""A value and its reason."""

LARGE_REWARD = 100
SMALL_REWARD = 0.01
LARGE_OBSERVATION = 10
MIN_TRANSITIONS, MAX_TRANSITIONS = 1_000, 100_000
MAX_BYTES = 2_000_000_000
"""the largest size of the replay buffer"""
N_FRAMES = 4

ATARI_WRAPPER = "stable_baselines3.common.atari_wrappers.AtariWrapper"
CLIP_REWARD = "stable_baselines3.common.atari_wrappers.ClipRewardEnv"
WARP_FRAME = "stable_baselines3.common.atari_wrappers.WarpFrame"
ACTION_MASKS = "sb3_dqn_ext.envs.ActionMaskInObservation"
MIN_TIME_LIMIT = 1_000
WRAPPER_REASONS = {
    ACTION_MASKS: "the legal actions as a part of the observation",
    ATARI_WRAPPER: "gray images of 84 x 84, an action for 4 steps, rewards of -1, 0 and 1, an episode for each life; DQN",
    CLIP_REWARD: "rewards of -1, 0 and 1; DQN",
    WARP_FRAME: "gray images of 84 x 84; DQN",
}


class Line(NamedTuple):
    """A line of a configuration."""

    key: str
    """a hyperparameter; ``policy_kwargs.head`` is an argument in a mapping"""
    value: Any
    reason: str


Rule = Callable[[EnvFacts, int], Choice | None]
"""A function of the facts and the number of environment steps in the run. None: the default of DQNExt suits."""


def advise(facts: EnvFacts, n_timesteps: int | None = None) -> list[Line]:
    """
    Choose the hyperparameters for an environment.

    :param facts: the facts about the environment
    :param n_timesteps: the environment steps of a run; None (default): a number that suits the environment
    :return: the lines of the configuration
    """
    n_steps, reason = choose_n_timesteps(facts) if n_timesteps is None else (n_timesteps, "environment steps, as given")
    choices = ((key, rule(facts, n_steps)) for key, rule in RULES.items())
    return [Line("n_timesteps", n_steps, reason), *(Line(key, *choice) for key, choice in choices if choice is not None)]


def choose_n_timesteps(facts: EnvFacts) -> Choice:
    """Choose the number of environment steps in a run."""
    if facts.has_images:
        return 1_000_000, "environment steps; images: as docs/results/minatar.md"
    limit = facts.max_episode_steps or 0
    n_steps = min(200 * limit, 1_000_000)
    if facts.is_sparse and n_steps <= 200_000:
        return 200_000, "environment steps; sparse rewards: more than the usual 100,000"
    if n_steps > 100_000:
        return n_steps, f"environment steps; {n_steps // limit} episodes of {limit:,} steps"
    return 100_000, "environment steps; the zoo's number for LunarLander and Acrobot"


def always(value: Any, reason: str) -> Rule:
    """
    Return a rule that does not depend on the environment.

    :param value: the value
    :param reason: the reason
    """
    return lambda facts, n_timesteps: (value, reason)


def for_images(images: Choice, others: Choice) -> Rule:
    """
    Return a rule that depends on whether there are images.

    :param images: the value for images and its reason
    :param others: the value for other observations and its reason
    """
    return lambda facts, n_timesteps: images if facts.has_images else others


def for_screens(value: Any, reason: str) -> Rule:
    """
    Return a rule for images that are larger than those of MinAtar.

    :param value: the value
    :param reason: the reason
    """
    return lambda facts, n_timesteps: (value, reason) if is_screen(facts) else None


def is_screen(facts: EnvFacts) -> bool:
    """Return whether the images are larger than those of MinAtar."""
    return choose_encoder(facts.observation_space) in ("small", "nature")


def no_value(facts: EnvFacts, n_timesteps: int) -> None:
    """Return None, for the default of DQNExt."""


def for_sparse(value: Any, reason: str, usual: Rule = no_value) -> Rule:
    """
    Return a rule for sparse rewards.

    :param value: the value if rewards are sparse
    :param reason: its reason, after the rewards in random steps
    :param usual: the rule for other rewards
    """

    def rule(facts: EnvFacts, n_timesteps: int) -> Choice | None:
        return (value, f"{describe_sparsity(facts)}: {reason}") if facts.is_sparse else usual(facts, n_timesteps)

    return rule


def describe_sparsity(facts: EnvFacts) -> str:
    """Describe the rewards of random steps."""
    ends = f", with {facts.n_terminations} terminations" if facts.usual_reward and facts.n_terminations else ""
    share = f"{100 * facts.usual_share:.4g} % of {facts.n_random_steps:,} random steps"
    return f"rewards were {facts.usual_reward:g} in {share}{ends}"


# -- observations ----------------------------------------------------------------------------------------------------------


def env_kwargs(facts: EnvFacts, n_timesteps: int) -> Choice | None:
    """Make the environment with the same arguments, and with a time limit."""
    limit = time_limit(facts)
    # not as a wrapper: the zoo would put it around the Monitor, which would not see that the episode has ended
    kwargs = {**facts.env_kwargs, **({} if limit is None else {"max_episode_steps": limit})}
    reasons = ["arguments of the environment"] if facts.env_kwargs else []
    reasons += [] if limit is None else ["a time limit, so that each evaluation ends"]
    return (kwargs, ", ".join(reasons)) if kwargs else None


def env_wrapper(facts: EnvFacts, n_timesteps: int) -> Choice | None:
    """Wrap the environment as it was measured; clip rewards that VecNormalize cannot rescale."""
    is_clipped = has_unscaled_rewards(facts) and not allows_normalization(facts, n_timesteps)
    wrappers = [*facts.preprocessing, *([CLIP_REWARD] if is_clipped else [])]
    reasons = [WRAPPER_REASONS[wrapper if isinstance(wrapper, str) else next(iter(wrapper))] for wrapper in wrappers]
    return (wrappers, "; ".join(reasons)) if wrappers else None


def time_limit(facts: EnvFacts) -> int | None:
    """Choose a time limit of ten mean episodes if there is none; the games of ALE have their own."""
    if facts.max_episode_steps is not None or facts.n_truncations or facts.is_atari:
        return None
    return max(MIN_TIME_LIMIT, 100 * round(facts.episode_length / 10)) if facts.n_ends else MIN_TIME_LIMIT


def has_unscaled_rewards(facts: EnvFacts) -> bool:
    """Return whether the largest reward is far from 1."""
    return facts.max_abs_reward > LARGE_REWARD or 0 < facts.max_abs_reward < SMALL_REWARD


def frame_stack(facts: EnvFacts, n_timesteps: int) -> Choice | None:
    """Stack the frames of gray or coloured images of a screen."""
    space = facts.observation_space
    if facts.is_stacked or facts.has_masks or not (is_image(space) and is_screen(facts)):
        return None
    if not (is_image_space(space) or has_channels_last(space, None)):
        return None  # SB3 would put such frames side by side
    is_frame = split_image_shape(space)[0] in (1, 3)
    return (N_FRAMES, "observations in one: a single image has no velocities") if is_frame else None


def allows_normalization(facts: EnvFacts, n_timesteps: int) -> bool:
    """Return whether the zoo can put SB3's VecNormalize where it is outermost: without frame stack and transposition."""
    space = facts.observation_space
    parts = space.values() if isinstance(space, spaces.Dict) else [space]
    images = [part for part in parts if isinstance(part, spaces.Box) and is_image_space(part)]
    is_transposed = not all(map(is_image_space_channels_first, images))
    return frame_stack(facts, n_timesteps) is None and not is_transposed


def policy(facts: EnvFacts, n_timesteps: int) -> Choice:
    """Choose the policy by the observation space."""
    space = facts.observation_space
    reasons = {
        spaces.Dict: "Dict observations",
        spaces.Discrete: "a number as observation, which SB3 makes a one-hot vector of",
    }
    default = "images" if is_image(space) else "vector observations"
    return choose_policy(space, choose_encoder(space) is not None), reasons.get(type(space), default)


def encoder(facts: EnvFacts, n_timesteps: int) -> Choice | None:
    """Choose the encoder by the size of the images."""
    name = choose_encoder(facts.observation_space)
    side = smallest_side(facts.observation_space)
    return None if name is None else (name, f"for images of about this size: the shorter side has {side} pixels")


def net_arch(facts: EnvFacts, n_timesteps: int) -> Choice | None:
    """Choose the hidden layers; an encoder ends with one."""
    if not facts.has_images:
        return [256, 256], "units per hidden layer; the zoo's number"
    is_dict = isinstance(facts.observation_space, spaces.Dict)
    return ([256], "units of the layer that joins the parts of the Dict") if is_dict else None


def storage(facts: EnvFacts, n_timesteps: int) -> Choice | None:
    """Store each frame once if the observations are stacks of images."""
    is_stack = facts.has_images and (facts.is_stacked or frame_stack(facts, n_timesteps) is not None)
    if not is_stack:
        return None
    space = facts.observation_space  # VecNormalize may change the other parts of a Dict
    images = {key: "frames" for key, part in space.items() if is_image(part)} if isinstance(space, spaces.Dict) else "frames"
    return images, "each frame once, in about a seventh of the memory (docs/choices/replay.md)"


def count_bytes(space: spaces.Space[Any]) -> int:
    """
    Count the bytes of an observation.

    :param space: the observation space
    """
    if isinstance(space, spaces.Dict):
        return sum(map(count_bytes, space.values()))
    return int(np.prod(space.shape or (1,))) * (8 if space.dtype is None else space.dtype.itemsize)


def buffer_size(facts: EnvFacts, n_timesteps: int) -> Choice:
    """Choose the capacity of the replay buffer by the number of steps and the size of a transition."""
    n_bytes = count_bytes(facts.observation_space)
    if storage(facts, n_timesteps) is None:
        n_bytes *= 2  # the observations before and after the step
    elif facts.is_stacked:
        n_bytes //= N_FRAMES
    n_fitting = MAX_BYTES // n_bytes // 1000 * 1000
    size = max(min(n_timesteps, MAX_TRANSITIONS, n_fitting), MIN_TRANSITIONS)
    whole = "the whole run, " if size >= n_timesteps else ""
    return size, f"transitions: {whole}at most {max(size * n_bytes / 1e9, 0.001):.1g} GB"


def normalize(facts: EnvFacts, n_timesteps: int) -> Choice | None:
    """Normalize observations or rewards that are far from 1."""
    if not allows_normalization(facts, n_timesteps):
        return None
    norm_reward = has_unscaled_rewards(facts)
    large = {key: size for key, size in facts.max_abs_observations.items() if size > LARGE_OBSERVATION}
    reasons = [f"the largest |reward| was {facts.max_abs_reward:.4g}"] if norm_reward else []
    reasons += [f"the {describe_magnitude(key)} was {size:.4g}" for key, size in large.items()]
    keys = {"norm_obs_keys": list(large)} if large and None not in large else {}  # other parts remain as they are
    return ({"norm_obs": bool(large), "norm_reward": norm_reward, **keys}, ", ".join(reasons)) if reasons else None


# -- returns, targets, exploration -----------------------------------------------------------------------------------------


def loss(facts: EnvFacts, n_timesteps: int) -> Choice | None:
    """Name the loss whose gradient is bounded, if errors can be large."""
    is_large = 1 < facts.max_abs_reward <= LARGE_REWARD
    return ("huber", f"the largest |reward| was {facts.max_abs_reward:.4g}: bounded gradients (default)") if is_large else None


def gamma(facts: EnvFacts, n_timesteps: int) -> Choice:
    """Choose the discount factor by the length of the episodes."""
    if facts.is_sparse and facts.episode_length > 200:
        length = f"{facts.episode_length:.0f} steps per episode" if facts.n_ends else "no end of an episode"
        return 0.995, f"per step; sparse rewards and {length}: a horizon of 200 steps"
    return 0.99, "per step: a horizon of 100 steps; SB3"


def target_policy(facts: EnvFacts, n_timesteps: int) -> Choice:
    """Choose the target policy: Munchausen targets assume rewards of about 1."""
    if facts.has_images and facts.max_abs_reward <= 1:
        return "munchausen", "rewards up to 1: docs/results/minatar.md, with layer normalisation"
    return "double", "less overestimation (van Hasselt et al. 2016)"


def learning_starts(facts: EnvFacts, n_timesteps: int) -> Choice:
    """Choose the number of random steps before the first training."""
    return min(n_timesteps // 50, 10_000), "random steps before the first training: up to 2 % of n_timesteps"


three_steps = always(3, "rewards per target; Rainbow (Hessel et al. 2018), docs/results/default.md")

RULES: dict[str, Rule] = {
    "env_kwargs": env_kwargs,
    "env_wrapper": env_wrapper,
    "frame_stack": frame_stack,
    "normalize": normalize,
    "policy": policy,
    "learning_rate": for_images(
        ("lin_0.0005", "Adam, falls to 0; docs/results/pong.md"),
        ("lin_0.001", "Adam, falls to 0: a constant rate forgets late in a run; docs/results/cartpole_seeds.md"),
    ),
    "batch_size": for_images((32, "transitions; DQN"), (128, "transitions; the zoo's number for Acrobot and LunarLander")),
    "buffer_size": buffer_size,
    "learning_starts": learning_starts,
    "gamma": gamma,
    "n_steps": for_sparse(5, "longer returns", three_steps),
    "train_freq": always(4, "steps between trainings; DQN"),
    "gradient_steps": for_images(
        (1, "per training: one for 4 steps, as docs/results/minatar.md"),
        (4, "per training: one for each step, as the zoo in LunarLander"),
    ),
    "tau": always(0.005, "soft targets (Lillicrap et al. 2016): smoother than copies ..."),
    "target_update_interval": always(1, "... after every gradient step"),
    "target_update_unit": always("gradient_steps", "so that train_freq does not change the speed of the target"),
    "target_policy": target_policy,
    "exploration": for_sparse("ez_greedy", "random actions last (Dabney et al. 2021)"),
    "exploration_kwargs.mu": lambda facts, _: (1.5, "docs/results/tutorials.md, MountainCar") if facts.is_sparse else None,
    "exploration_fraction": for_sparse(
        0.3,
        "of n_timesteps, longer than usual",
        for_images(
            (0.1, "of n_timesteps, in which epsilon falls; docs/results/minatar.md"),
            (0.12, "of n_timesteps, in which epsilon falls; the zoo's number for Acrobot and LunarLander"),
        ),
    ),
    "exploration_final_eps": always(0.05, "SB3"),
    "compile": always(True, "faster steps (docs/speed.md) with a C++ compiler; else one warning"),
    "replay_buffer_kwargs.storage": storage,
    "policy_kwargs.net_arch": net_arch,
    "policy_kwargs.encoder": encoder,
    "policy_kwargs.norm": for_images(
        ("layer", "after each hidden layer; docs/results/minatar.md"),
        ("layer", "after each hidden layer; docs/results/ablation_lunarlander.md"),
    ),
    "policy_kwargs.head": for_screens("dueling", "Wang et al. 2016; docs/results/pong.md, 20.9 of 21 points"),
    "policy_kwargs.loss": loss,
    "policy_kwargs.action_masks": lambda facts, _: (
        (True, "illegal actions are never chosen; docs/masks.md") if facts.has_masks else None
    ),
}
"""The rule for each hyperparameter, in the order of the configuration."""
