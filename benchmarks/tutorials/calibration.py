"""What a model says of an action, beside what came of it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.runs import EVALUATION_SEED, fresh_env, load
from sb3_dqn_ext.callbacks.diagnostics.evaluation import Calibration, EvaluationPolicy, play_episodes

ALGO = "dqn_ext"
N_GAMES = 50
N_RANDOM = 30  # at most so many actions at the beginning of a game are random
LIMIT = 200  # steps of a game that are looked at
MAX_DISCOUNT_LEFT = 0.01  # how much a reward still counts of which the games hold no more


def measure_calibration(run: Path, env_id: str, model_file: str, seed: int) -> Calibration:
    """
    Games that begin with random actions, so that bad states are seen too, and go on as the model does in training, with its
    exploration. From the last random action on, its values are compared with what came of them. The games have a later time
    limit than in training, for no state tells how much time is left; what follows the usual one counts for the returns only.

    :param run: a run folder
    :param env_id: the environment
    :param model_file: the model in the run folder
    :param seed: the seed it was trained with
    :return: predicted and realised values
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
    :param model: plays as it does in training
    :param env: one environment
    :param rng: of the random actions at the beginning
    :return: predicted and realised values from the last of these on
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
