"""Reads and judges the run folders that the RL Zoo leaves."""

from pathlib import Path

import numpy as np
import rl_zoo3.import_envs  # noqa: F401  the zoo's own environments
from rl_zoo3.utils import ALGOS, create_test_env, get_saved_hyperparams
from stable_baselines3.common.evaluation import evaluate_policy

FRESH = 10_000  # added to the seeds of training: nothing is judged on the episodes that chose the best model


def newest_run(folder: Path, algo: str, env_id: str) -> Path:
    """
    :param folder: the ``-f`` of the zoo
    :param algo: the ``--algo``
    :param env_id: the ``--env``
    :return: the run folder with the highest number
    """
    runs = (folder / algo).glob(f"{env_id.replace('/', '-')}_*")
    return max(runs, key=lambda run: int(run.name.rpartition("_")[2]))


def mean_return(run: Path, algo: str, env_id: str, model: str, n_episodes: int = 50, seed: int = 0) -> float:
    """
    :param run: a run folder
    :param algo: the ``--algo`` it was trained with
    :param env_id: the ``--env`` it was trained with
    :param model: the file, e.g. ``"best_model.zip"``
    :param n_episodes: how many episodes to play, greedily
    :param seed: the seed it was trained with
    :return: the mean of their returns
    """
    hyperparams, stats_path = get_saved_hyperparams(str(run / env_id.replace("/", "-")), test_mode=True)
    env = create_test_env(
        env_id, stats_path=stats_path, seed=FRESH + seed, should_render=False, hyperparams=hyperparams, env_kwargs={}
    )
    returns, _ = evaluate_policy(
        ALGOS[algo].load(run / model, device="cpu"), env, n_eval_episodes=n_episodes, return_episode_rewards=True
    )
    env.close()
    return float(np.mean(returns))
