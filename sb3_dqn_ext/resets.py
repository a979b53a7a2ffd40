"""New episodes after a callback or an evaluation has reset the training environments between two steps of a training."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_dqn_ext.last_step import LastStep, latest_reset_infos
from sb3_dqn_ext.replay.truncation import truncate_open_episodes

__all__ = ["begin_episodes", "begin_episodes_after_resets", "end_open_episodes", "swap_unnormalized"]

Unnormalized = tuple[Any, Any]
"""the latest observations and rewards of a VecNormalize before normalization: ``old_obs`` and ``old_reward``"""


def end_open_episodes(model: Any) -> None:
    """
    Truncate the open episodes in the replay buffer, and reset the state of the exploration.

    :param model: a DQNExt whose environments were reset, or are about to be reset
    """
    model._exploration_state = {}
    truncate_open_episodes(model.replay_buffer)


def begin_episodes_after_resets(model: Any, env: VecEnv) -> None:
    """
    Begin new episodes if the environments were reset since the last step.

    :param model: a DQNExt
    :param env: its training environments
    """
    last, obs = model.run_state.last_step, model._last_obs
    is_replaced = obs is None or (last is not None and obs is not last.observations)
    if is_replaced or (last is not None and last.was_reset_since(env)):
        begin_episodes(model, env.reset() if obs is None or not is_replaced else obs)


def begin_episodes(model: Any, observations: Any) -> None:
    """
    Begin new episodes from given observations.

    :param model: a DQNExt
    :param observations: (n_envs, \\*obs) the first observations; None if the environments are still to be reset
    """
    end_open_episodes(model)
    envs, normalize = model.run_state.stepped_envs, model.get_vec_normalize_env()
    model._last_obs, model.run_state.last_step = observations, LastStep(envs, latest_reset_infos(envs), observations)
    model.run_state.acting_values = None
    if normalize is not None:
        model._last_original_obs = normalize.get_original_obs()


def swap_unnormalized(normalize: VecNormalize | None, originals: Unnormalized | None = None) -> Unnormalized | None:
    """
    Swap the unnormalized observations and rewards of a VecNormalize. An evaluation in the same environments replaces them.

    :param normalize: the VecNormalize of the training environments, or None
    :param originals: the values to set; None (default): changes nothing
    :return: the previous values, None without a VecNormalize
    """
    if normalize is None:
        return None
    before = normalize.old_obs, normalize.old_reward
    if originals is not None:
        normalize.old_obs, normalize.old_reward = originals
    return before
