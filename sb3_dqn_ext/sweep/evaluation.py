"""Fresh episodes with the models of a run of the RL Zoo."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

__all__ = ["EVALUATION_SEED", "fresh_env", "load", "model_name", "play"]

EVALUATION_SEED = 10_000
"""Added to the seed of training, so that evaluations have other episodes than those that chose the best model."""


def model_name(env: str) -> str:
    """
    Return the name of the last model without its ending, which the zoo derives from the id of the environment.

    :param env: the id of the environment
    """
    return env.replace("/", "-")


def fresh_env(run: Path, env: str, seed: int, **env_kwargs: object) -> VecEnv:
    """
    Make an environment as the zoo does to test a model, with a seed for episodes that do not occur in training.

    :param run: the zoo's run folder
    :param env: the id of the environment
    :param seed: the seed of the training
    :param env_kwargs: arguments of ``gym.make`` that replace those of the training
    """
    from rl_zoo3 import import_envs, utils  # noqa: F401  # as late as possible, because the import changes gymnasium

    from sb3_dqn_ext.plot import read_run

    trained = read_run(run)
    for module in trained.arguments.get("gym_packages") or []:  # another process may have trained the run
        importlib.import_module(module)
    hyperparameters, stats_path = utils.get_saved_hyperparams(str(run / model_name(env)), test_mode=True)
    hyperparameters.pop("env_kwargs", None)  # not arguments of the zoo's function
    made: VecEnv = utils.create_test_env(
        env,
        stats_path=stats_path,
        seed=EVALUATION_SEED + seed,
        should_render=False,
        hyperparams=hyperparameters,
        env_kwargs={**trained.env_kwargs, **env_kwargs},
    )
    return made


def load(run: Path, algo: str, file: str) -> BaseAlgorithm:
    """
    Load a model of a run that the user has made: the classes and functions that a file of DQNExt names are imported.

    :param run: the zoo's run folder
    :param algo: the name of the algorithm in the zoo
    :param file: the name of the file, such as ``best_model.zip``
    """
    from rl_zoo3 import utils

    from sb3_dqn_ext import DQNExt

    algorithm = utils.ALGOS[algo]
    trust: dict[str, Any] = {"trust": True} if issubclass(algorithm, DQNExt) else {}
    model: BaseAlgorithm = algorithm.load(run / file, device="cpu", **trust)
    return model


def play(run: Path, algo: str, env: str, seed: int, n_episodes: int, file: str | None = None) -> npt.NDArray[np.float64]:
    """
    Play fresh greedy episodes with a model of a run.

    :param run: the zoo's run folder
    :param algo: the name of the algorithm in the zoo
    :param env: the id of the environment
    :param seed: the seed of the training
    :param n_episodes: the number of episodes
    :param file: the name of the file of the model; None: the last model
    :return: (E,) the returns of the episodes
    """
    from stable_baselines3.common.evaluation import evaluate_policy

    fresh = fresh_env(run, env, seed)
    model = load(run, algo, file or f"{model_name(env)}.zip")
    returns: Any = evaluate_policy(model, fresh, n_episodes, return_episode_rewards=True)[0]
    fresh.close()
    return np.array(returns, dtype=float)
