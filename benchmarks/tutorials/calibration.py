"""Predicted values of actions, compared with realised returns."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext.callbacks.diagnostics.evaluation import Calibration, EvaluationPolicy, play_episodes
from sb3_dqn_ext.sweep.evaluation import EVALUATION_SEED, fresh_env, load

ALGO = "dqn_ext"
N_GAMES = 50
N_RANDOM = 30  # at the beginning of a game
LIMIT = 200  # steps of a game that are compared
MAX_DISCOUNT_LEFT = 0.01  # the discount of the first reward after the end of the longest game


def measure_calibration(run: Path, env_id: str, model_file: str, seed: int) -> Calibration:
    """
    Play games and compare predicted values with realised returns.

    A game begins with random actions, so that bad states occur too, and continues as in training, with the exploration of the
    model. Values are compared from the last random action on. The time limit is later than in training, because states do not
    contain the remaining time; steps after the usual limit count for the returns only.

    :param run: the run folder
    :param env_id: the id of the environment
    :param model_file: the file name of the model in the run folder
    :param seed: the seed of the training
    """
    model: Any = load(run, ALGO, model_file)
    model.set_random_seed(EVALUATION_SEED + seed)
    rng = np.random.default_rng(EVALUATION_SEED + seed)
    horizon = LIMIT + int(np.ceil(np.log(MAX_DISCOUNT_LEFT) / np.log(model.gamma)))
    env = fresh_env(run, env_id, seed, max_episode_steps=horizon)
    games = [play_game(model, env, rng) for _ in range(N_GAMES)]
    env.close()
    return Calibration(*(np.concatenate(values) for values in zip(*games, strict=True)))


def play_game(model: Any, env: VecEnv, rng: np.random.Generator) -> Calibration:
    """
    Play a game, and return predicted and realised values from the last random action on.

    :param model: the model, which explores as in training
    :param env: one environment
    :param rng: the generator of the random actions
    """
    n_random = int(rng.integers(1, N_RANDOM + 1))

    def choose(q: Any, observations: Any, n_steps: int) -> Any:
        if n_steps < n_random:
            return np.array([env.action_space.sample()])
        return model.predict(observations, deterministic=False)[0]

    def q_values(observations: Any) -> Any:
        with th.no_grad():
            return model.q_net(th.as_tensor(observations)).numpy()

    player = EvaluationPolicy(q_values, choose, model.gamma, timeouts_terminate=True, normalize=None)
    (episode,) = play_episodes(player, env, n_episodes=1, max_steps=sys.maxsize)
    counted = slice(min(n_random, len(episode.predicted)) - 1, LIMIT)
    return Calibration(episode.predicted[counted], episode.realised[counted])
