"""Makes, reads and judges run folders of the RL Zoo."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.processes import run_command

EVALUATION_SEED = 10_000  # added to the seeds of training: nothing is judged on the episodes that chose the best model


def train(algo: str, env_id: str, seed: int, folder: Path, *arguments: str, **environment: str) -> Path:
    """
    Train one model through the zoo's own command, in a process of its own.

    :param algo: the ``--algo``
    :param env_id: the ``--env``
    :param seed: the ``--seed``
    :param folder: the ``-f``
    :param arguments: further ones of the command
    :param environment: variables to set
    :return: the run folder
    """
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", algo, "--env", env_id, "--seed", str(seed), "-f", str(folder)]
    run_command([*command, "--num-threads", "1", "--verbose", "0", *arguments], environment)
    return newest_run(folder, algo, env_id)


def newest_run(folder: Path, algo: str, env_id: str) -> Path:
    """
    :param folder: the ``-f`` of the zoo
    :param algo: the ``--algo``
    :param env_id: the ``--env``
    :return: the run folder with the highest number
    """
    runs = (folder / algo).glob(f"{env_id.replace('/', '-')}_*")
    return max(runs, key=run_number)


def run_number(run: Path) -> int:
    """
    :param run: a run folder
    :return: the number the zoo gave it
    """
    return int(run.name.rpartition("_")[2])


def _zoo_utils() -> ModuleType:
    """Import the zoo, with its environments, where a model is judged and not before: its import changes gymnasium."""
    from rl_zoo3 import import_envs, utils  # noqa: F401

    return utils


def fresh_env(run: Path, env_id: str, seed: int, **env_kwargs: object) -> VecEnv:
    """
    :param run: a run folder
    :param env_id: the ``--env`` it was trained with
    :param seed: the seed it was trained with
    :param env_kwargs: further arguments of ``gym.make``
    :return: an environment as the zoo makes it for its test, seeded for episodes that training has not seen
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
    :param run: a run folder
    :param algo: the ``--algo`` it was trained with
    :param model: the file, e.g. ``"best_model.zip"``
    :return: the model
    """
    loaded: BaseAlgorithm = _zoo_utils().ALGOS[algo].load(run / model, device="cpu")
    return loaded


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
    env = fresh_env(run, env_id, seed)
    returns, _ = evaluate_policy(load(run, algo, model), env, n_eval_episodes=n_episodes, return_episode_rewards=True)
    env.close()
    return float(np.mean(returns))
