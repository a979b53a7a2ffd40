"""
Evaluation of predicted values: what a network predicts of the actions of some episodes, beside their realised returns.

Shapes: A actions, T steps of an episode, N steps of all episodes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import sync_normalization
from sb3_dqn_ext.callbacks.diagnostics.metrics import calibration_metrics, discounted_returns
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks, q_value_function

__all__ = ["Calibration", "EvaluationPolicy", "PlayedEpisode", "episode_calibration", "play", "play_episodes"]

Array = npt.NDArray[Any]


class EvaluationPolicy(NamedTuple):
    """How episodes are played, and in which unit their returns are counted."""

    q_values: Callable[[Any], Array]
    """(n_envs, \\*obs) -> (n_envs, A), and \\*obs -> (1, A)"""
    choose: Callable[[Array, Any, int], Array]
    """(n_envs, A) Q-values, the observations, and the number of steps since the reset -> (n_envs,) actions"""
    gamma: float
    timeouts_terminate: bool
    """whether an episode that a time limit ends has no further value"""
    normalize: VecNormalize | None
    """normalises rewards to the unit that the network learns"""


class PlayedEpisode(NamedTuple):
    """An episode of T steps."""

    predicted: Array
    """(T,) Q-values of the actions"""
    realised: Array
    """(T,) discounted returns from there on, in the same unit"""
    total: float
    """the sum of the rewards, neither discounted nor normalised"""


class Calibration(NamedTuple):
    """Predicted and realised values of actions."""

    predicted: Array
    """(N,) Q-values"""
    realised: Array
    """(N,) discounted returns"""

    @property
    def correlation(self) -> float:
        """Pearson's, 0 where one of both is the same everywhere."""
        return calibration_metrics(self.predicted, self.realised).get("correlation", 0.0)

    @property
    def bias(self) -> float:
        """How much more is predicted than realised."""
        return calibration_metrics(self.predicted, self.realised)["bias"]


def episode_calibration(episodes: Iterable[PlayedEpisode]) -> Calibration:
    """
    :param episodes: some episodes
    :return: the values of all their steps
    """
    predicted, realised, _ = zip(*episodes, strict=True)
    return Calibration(np.concatenate(predicted), np.concatenate(realised))


def play(model: Any, env: VecEnv, n_episodes: int, max_steps: int, deterministic: bool, seed: int) -> list[PlayedEpisode]:
    """
    Within :func:`~sb3_dqn_ext.callbacks.diagnostics.model_access.state_preserved`: play some episodes as a model in training does.

    If the replay memory takes time limits for ends (``handle_timeout_termination=False``), so does this.

    :param model: plays
    :param env: where; it is normalised as the training environments are at this time
    :param n_episodes: how many
    :param max_steps: after how many an episode is cut off
    :param deterministic: whether the actions are greedy, or those of training, with its exploration
    :param seed: of the episodes
    :return: the episodes
    """

    def choose(q: Array, observations: Any, n_steps: int) -> Array:
        actions: Array = q.argmax(axis=1) if deterministic else model.predict(observations, deterministic=False)[0]
        return actions

    online, _ = find_networks(model, "play")
    limits_end = not getattr(model.replay_buffer, "handle_timeout_termination", True)
    q_values = q_value_function(model, online, env.num_envs)
    sync_normalization(model, env)
    env.seed(seed)
    player = EvaluationPolicy(q_values, choose, model.gamma, limits_end, model.get_vec_normalize_env())
    return list(play_episodes(player, env, n_episodes, max_steps))


def play_episodes(player: EvaluationPolicy, env: VecEnv, n_episodes: int, max_steps: int) -> Iterator[PlayedEpisode]:
    """
    Play some episodes: as many at a time as there are environments, which are then reset.

    An episode that a time limit cuts off, or that is cut here, is worth ``gamma**k max_a Q(s, a)`` more, where s is its last
    observation, k steps ahead.

    :param player: plays
    :param env: where
    :param n_episodes: how many
    :param max_steps: after how many an episode is cut off
    :return: the episodes, in the order in which they end
    """
    for n_played in range(0, n_episodes, env.num_envs):
        yield from _play_at_once(player, env, min(env.num_envs, n_episodes - n_played), max_steps)


class _Open:
    """An episode that goes on."""

    def __init__(self) -> None:
        self.predicted: list[float] = []
        self.rewards: list[float] = []  # as the environment gives them
        self.learned: list[float] = []  # in the unit that the network learns

    def ended(self, gamma: float, last_value: float) -> PlayedEpisode:
        """
        :param gamma: the discount factor
        :param last_value: the value of what would have followed
        """
        realised = discounted_returns(np.array(self.learned), gamma, last_value)
        return PlayedEpisode(np.array(self.predicted), realised, float(np.array(self.rewards).sum()))


def _play_at_once(player: EvaluationPolicy, env: VecEnv, n_episodes: int, max_steps: int) -> Iterator[PlayedEpisode]:
    """An episode in each of the first ``n_episodes`` environments."""
    own_normalize = unwrap_vec_normalize(env)
    observations: Any = env.reset()
    going_on = {i: _Open() for i in range(n_episodes)}
    for n_steps in range(max_steps):
        q = player.q_values(observations)  # (n_envs, A)
        actions = player.choose(q, observations, n_steps)  # (n_envs,)
        observations, rewards, dones, infos = env.step(actions)
        raw = rewards if own_normalize is None else own_normalize.get_original_reward()  # (n_envs,)
        learned = raw if player.normalize is None else player.normalize.normalize_reward(raw)  # (n_envs,)
        for i, episode in list(going_on.items()):
            episode.predicted.append(float(q[i, actions[i]]))
            episode.rewards.append(float(raw[i]))
            episode.learned.append(float(learned[i]))
            if dones[i] or n_steps + 1 == max_steps:
                yield episode.ended(player.gamma, _value_at_end(player, observations, i, bool(dones[i]), infos[i]))
                del going_on[i]
        if not going_on:
            return


def _value_at_end(player: EvaluationPolicy, observations: Any, i: int, done: bool, info: dict[str, Any]) -> float:
    """What would have followed the last step of an episode in environment i."""
    if done and (player.timeouts_terminate or not info.get("TimeLimit.truncated", False)):
        return 0.0
    last = info.get("terminal_observation") if done else None
    if last is None:  # an environment may leave it out: training, too, then takes what it observed
        last = map_observation(lambda part: part[i], observations)
    return float(player.q_values(last).max())
