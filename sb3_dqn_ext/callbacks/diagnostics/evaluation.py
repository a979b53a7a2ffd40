"""
Evaluation of predicted values: the Q-values of the actions of some episodes, and the returns that followed.

Shapes: A actions, T steps of an episode, N steps of all episodes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import original_rewards, sync_normalization
from sb3_dqn_ext.callbacks.diagnostics.metrics import calibration_metrics, discounted_returns
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks, q_value_function

__all__ = ["Calibration", "EvaluationPolicy", "PlayedEpisode", "episode_calibration", "play", "play_episodes"]

Array = npt.NDArray[Any]


class EvaluationPolicy(NamedTuple):
    """A policy that plays episodes, and the unit of their returns."""

    q_values: Callable[[Any], Array]
    """(n_envs, \\*obs) -> (n_envs, A), and \\*obs -> (1, A)"""
    choose: Callable[[Array, Any, int], Array]
    """(n_envs, A) Q-values, the observations, and the number of steps since the reset -> (n_envs,) actions"""
    gamma: float
    timeouts_terminate: bool
    """whether an episode that a time limit truncates has no further value"""
    normalize: VecNormalize | None
    """normalises rewards to the unit that the network learns"""


class PlayedEpisode(NamedTuple):
    """An episode of T steps."""

    predicted: Array
    """(T,) Q-values of the actions"""
    realised: Array
    """(T,) discounted returns from each step on, in the same unit"""
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
        """Pearson's correlation; 0 where all predictions, or all returns, are equal."""
        return calibration_metrics(self.predicted, self.realised).get("correlation", 0.0)

    @property
    def bias(self) -> float:
        """The mean of predicted minus realised values."""
        return calibration_metrics(self.predicted, self.realised)["bias"]


def episode_calibration(episodes: Iterable[PlayedEpisode]) -> Calibration:
    """
    Concatenate the values of all steps of some episodes.

    :param episodes: the episodes
    :return: the predicted and realised values of their steps
    """
    predicted, realised, _ = zip(*episodes, strict=True)
    return Calibration(np.concatenate(predicted), np.concatenate(realised))


def play(model: Any, env: VecEnv, n_episodes: int, max_steps: int, deterministic: bool, seed: int) -> list[PlayedEpisode]:
    """
    Play episodes with the current policy of a model that is in training. Call this function within
    :func:`~sb3_dqn_ext.callbacks.diagnostics.model_access.state_preserved`, which restores the random generators and the state
    of the exploration.

    This function seeds and resets the environments, and copies the normalisation statistics of training to them.

    The return of a truncated episode includes the predicted value of its last state. There is one exception: with
    ``handle_timeout_termination=False`` the replay buffer stores time limits as terminations, and the value after a time limit
    of the environment is 0. The cut after ``max_steps`` is never a termination.

    :param model: a DQN, QRDQN or DQNExt
    :param env: the (n_envs,) environments to play in, with the wrappers of the training environments
    :param n_episodes: the number of episodes
    :param max_steps: the number of steps after which this function truncates an episode
    :param deterministic: True: the actions are greedy; False: ``model.predict`` chooses them with the exploration of training
    :param seed: the seed of the environments
    :return: the episodes; those that are played in parallel are in the order in which they end
    :raises ArgumentError: if the model has no Q-network
    """

    def choose(q: Array, observations: Any, n_steps: int) -> Array:
        actions: Array = q.argmax(axis=1) if deterministic else model.predict(observations, deterministic=False)[0]
        return actions

    online, _ = find_networks(model, "play")
    timeouts_terminate = not getattr(model.replay_buffer, "handle_timeout_termination", True)
    q_values = q_value_function(model, online, env.num_envs)
    sync_normalization(model, env)
    env.seed(seed)
    policy = EvaluationPolicy(q_values, choose, model.gamma, timeouts_terminate, model.get_vec_normalize_env())
    return list(play_episodes(policy, env, n_episodes, max_steps))


def play_episodes(policy: EvaluationPolicy, env: VecEnv, n_episodes: int, max_steps: int) -> Iterator[PlayedEpisode]:
    """
    Play some episodes, as many in parallel as there are environments, which are reset for each group of episodes.

    The return of an episode that is truncated after its last observation s, k steps ahead, includes
    ``gamma**k max_a Q(s, a)``. After a time limit of the environment it does not if ``policy.timeouts_terminate``.

    :param policy: the policy
    :param env: the environments to play in
    :param n_episodes: the number of episodes
    :param max_steps: the number of steps after which an episode is truncated
    :return: the episodes; those that are played in parallel are in the order in which they end
    """
    for n_played in range(0, n_episodes, env.num_envs):
        yield from _play_in_parallel(policy, env, min(env.num_envs, n_episodes - n_played), max_steps)


class _EpisodeRecorder:
    """A record of an episode that has not ended."""

    def __init__(self) -> None:
        self.predicted: list[float] = []
        self.rewards: list[float] = []  # of the environment
        self.scaled_rewards: list[float] = []  # in the unit that the network learns

    def finish(self, gamma: float, last_value: float) -> PlayedEpisode:
        """
        Compute the returns of the episode.

        :param gamma: the discount factor
        :param last_value: the value of the state after the last step
        :return: the episode
        """
        realised = discounted_returns(np.array(self.scaled_rewards), gamma, last_value)
        return PlayedEpisode(np.array(self.predicted), realised, float(np.array(self.rewards).sum()))


def _play_in_parallel(policy: EvaluationPolicy, env: VecEnv, n_episodes: int, max_steps: int) -> Iterator[PlayedEpisode]:
    """Play an episode in each of the first ``n_episodes`` environments."""
    observations: Any = env.reset()
    running = {i: _EpisodeRecorder() for i in range(n_episodes)}
    for n_steps in range(max_steps):
        q = policy.q_values(observations)  # (n_envs, A)
        actions = policy.choose(q, observations, n_steps)  # (n_envs,)
        observations, rewards, dones, infos = env.step(actions)
        raw = original_rewards(env, rewards)  # (n_envs,)
        scaled = raw if policy.normalize is None else policy.normalize.normalize_reward(raw)  # (n_envs,)
        for i, episode in list(running.items()):
            episode.predicted.append(float(q[i, actions[i]]))
            episode.rewards.append(float(raw[i]))
            episode.scaled_rewards.append(float(scaled[i]))
            if dones[i] or n_steps + 1 == max_steps:
                yield episode.finish(policy.gamma, _value_at_end(policy, observations, i, bool(dones[i]), infos[i]))
                del running[i]
        if not running:
            return


def _value_at_end(policy: EvaluationPolicy, observations: Any, i: int, done: bool, info: dict[str, Any]) -> float:
    """
    Return the value of the state after the last step of an episode in environment i: 0 after a termination, and max_a Q(s, a)
    after a truncation. With ``policy.timeouts_terminate``, a time limit of the environment is a termination.

    :param policy: the policy
    :param observations: (n_envs, \\*obs) the observations that the last step returned
    :param i: the index of the environment
    :param done: whether the environment has ended the episode; False: it is cut after ``max_steps``
    :param info: the environment's info of the last step
    """
    if done and (policy.timeouts_terminate or not info.get("TimeLimit.truncated", False)):
        return 0.0
    last = info.get("terminal_observation") if done else None
    if last is None:  # some environments leave it out: training, too, then takes the observation of the step
        last = map_observation(lambda part: part[i], observations)
    return float(policy.q_values(last).max())
