"""Train runs with the RL Zoo, read their folders and evaluate their models."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.processes import run_command

EVALUATION_SEED = 10_000
"""Added to the seed of training, so that evaluations have other episodes than those that chose the best model."""


def train(algo: str, env_id: str, seed: int, folder: Path, *arguments: str, **environment: str) -> Path:
    """
    Train one model with the zoo's command in its own process.

    :param algo: the ``--algo``
    :param env_id: the ``--env``
    :param seed: the ``--seed``
    :param folder: the ``-f``
    :param arguments: further arguments of the command
    :param environment: additional environment variables
    :return: the run folder
    """
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", algo, "--env", env_id, "--seed", str(seed), "-f", str(folder)]
    run_command([*command, "--num-threads", "1", "--verbose", "0", *arguments], environment)
    return newest_run(folder, algo, env_id)


def newest_run(folder: Path, algo: str, env_id: str) -> Path:
    """
    Return the run folder with the highest number.

    :param folder: the ``-f`` of the zoo
    :param algo: the ``--algo``
    :param env_id: the ``--env``
    """
    runs = (folder / algo).glob(f"{env_id.replace('/', '-')}_*")
    return max(runs, key=run_number)


def run_number(run: Path) -> int:
    """
    Return the number of a run folder.

    :param run: the run folder
    """
    return int(run.name.rpartition("_")[2])


def _zoo_utils() -> ModuleType:
    """Import the zoo with its environments. This is done as late as possible, because the import changes gymnasium."""
    from rl_zoo3 import import_envs, utils  # noqa: F401

    return utils


def fresh_env(run: Path, env_id: str, seed: int, **env_kwargs: object) -> VecEnv:
    """
    Make an environment as the zoo does to test a model, with a seed for episodes that do not occur in training.

    :param run: the run folder
    :param env_id: the ``--env`` of the training
    :param seed: the seed of the training
    :param env_kwargs: further arguments of ``gym.make``
    """
    zoo = _zoo_utils()
    hyperparams, stats_path = zoo.get_saved_hyperparams(str(run / env_id.replace("/", "-")), test_mode=True)
    env: VecEnv = zoo.create_test_env(
        env_id,
        stats_path=stats_path,
        seed=EVALUATION_SEED + seed,
        should_render=False,
        hyperparams=hyperparams,
        env_kwargs=env_kwargs,
    )
    return env


def load(run: Path, algo: str, model: str) -> BaseAlgorithm:
    """
    Load a model of a run.

    :param run: the run folder
    :param algo: the ``--algo`` of the training
    :param model: the file name, e.g. ``"best_model.zip"``
    """
    loaded: BaseAlgorithm = _zoo_utils().ALGOS[algo].load(run / model, device="cpu")
    return loaded


def mean_return(run: Path, algo: str, env_id: str, model: str, n_episodes: int = 50, seed: int = 0) -> float:
    """
    Play greedy episodes with a model of a run, and return the mean of their returns.

    :param run: the run folder
    :param algo: the ``--algo`` of the training
    :param env_id: the ``--env`` of the training
    :param model: the file name, e.g. ``"best_model.zip"``
    :param n_episodes: the number of episodes
    :param seed: the seed of the training
    """
    env = fresh_env(run, env_id, seed)
    returns, _ = evaluate_policy(load(run, algo, model), env, n_eval_episodes=n_episodes, return_episode_rewards=True)
    env.close()
    return float(np.mean(returns))
