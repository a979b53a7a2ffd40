"""
Saved models of runs: their Q-values, and the returns of their actions.

Shapes: B batch, A actions, T steps of an episode, N steps of all of them.
"""

import importlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, unwrap_vec_normalize

from sb3_dqn_ext._validation import resolve_class
from sb3_dqn_ext.algorithm.action_masks import is_legal
from sb3_dqn_ext.callbacks.diagnostics import model_access
from sb3_dqn_ext.callbacks.diagnostics.evaluation import (
    Calibration,
    EvaluationPolicy,
    PlayedEpisode,
    episode_calibration,
    play_episodes,
)
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks
from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot.runs import ALGOS, Run
from sb3_dqn_ext.run_folder.user_classes import import_run_classes
from sb3_dqn_ext.saved_model import classes_allowed

__all__ = ["load_model", "make_env", "measure_calibration", "model_file", "predict_q_values"]

Array = npt.NDArray[Any]

N_EPISODES = 20
MAX_RANDOM_ACTIONS = 30
MAX_EPISODE_STEPS = 10_000
_OTHERWISE = "trust the run: load_model(..., trust=True), or --trust of the report"
EVALUATION_SEED = 10_000  # differs from the usual seeds of training


def predict_q_values(model: BaseAlgorithm, observations: Array | dict[str, Array]) -> Array:
    """
    Return the Q-values of a model.

    :param model: a DQNExt, a DQN, or a QRDQN of sb3-contrib
    :param observations: (B, \\*obs) observations
    :return: (B, A) Q-values
    """
    learner: Any = model
    learner.policy.set_training_mode(False)
    inputs, _ = learner.policy.obs_to_tensor(observations)
    online, _ = find_networks(model, "q_values()")
    with th.no_grad():
        values: Array = model_access.q_values(online, inputs).cpu().numpy()
    return values


class GreedyAfterRandomStart:
    """
    A policy for one environment that begins each episode with random actions and continues with greedy ones.

    :param rng: the generator of the random actions and of their number
    :param most: the largest number of random actions in an episode
    """

    def __init__(self, rng: np.random.Generator, most: int) -> None:
        self._rng, self._most = rng, most
        self.numbers: list[int] = []
        """The number of random actions in each episode."""

    def __call__(self, q: Array, observations: Any, n_steps: int) -> Array:
        """
        Choose an action.

        :param q: (1, A) Q-values
        :param observations: (1, \\*obs) observation
        :param n_steps: the number of steps since the start of the episode
        :return: (1,) action
        """
        if n_steps == 0:
            self.numbers.append(int(self._rng.integers(self._most + 1)))
        if n_steps < self.numbers[-1]:
            legal = np.flatnonzero(is_legal(q[0]))
            return np.array([legal[self._rng.integers(len(legal))]])
        greedy: Array = q.argmax(axis=1)
        return greedy


def measure_calibration(
    model: BaseAlgorithm, env: VecEnv, n_episodes: int = N_EPISODES, n_random: int = MAX_RANDOM_ACTIONS, seed: int = 0
) -> Calibration:
    """
    Play episodes and compare the predicted values of actions with their realised discounted returns.

    Each episode begins with random actions, so that bad states occur too, and continues with greedy ones. Values are compared
    from the last random action on. At a time limit, the realised return includes the predicted value of the last state, unless
    the model was trained with time limits as ends of episodes (``handle_timeout_termination=False``).

    :param model: a DQNExt, a DQN, or a QRDQN of sb3-contrib; the values of ``"munchausen"`` include more than returns
    :param env: one environment with the wrappers of the training
    :param n_episodes: the number of episodes
    :param n_random: the largest number of random actions in an episode; 0: none
    :param seed: the seed of the random actions
    """
    learner: Any = model
    limits_end = not (learner.replay_buffer_kwargs or {}).get("handle_timeout_termination", True)
    choose = GreedyAfterRandomStart(np.random.default_rng(seed), n_random)
    player = EvaluationPolicy(partial(predict_q_values, model), choose, learner.gamma, limits_end, unwrap_vec_normalize(env))
    episodes = list(play_episodes(player, env, n_episodes, MAX_EPISODE_STEPS))
    return episode_calibration(_from_step(episode, max(n, 1) - 1) for episode, n in zip(episodes, choose.numbers, strict=True))


def _from_step(episode: PlayedEpisode, step: int) -> PlayedEpisode:
    """Return the part of an episode from a step on, the last step if the episode is shorter."""
    counted = slice(min(step, len(episode.predicted) - 1), None)
    return episode._replace(predicted=episode.predicted[counted], realised=episode.realised[counted])


# -- from run folders ------------------------------------------------------------------------------------------------------


def load_model(run: Run, name: str | None = None, trust: bool = False) -> BaseAlgorithm:
    """
    Load the model of a run.

    Files of DQNExt contain no code. Files of ``dqn`` and ``qrdqn`` are read by the ``load`` of their classes, which runs code
    in the files: open only files of people you trust. Your own classes that ``run.json`` names are imported if Python finds
    them.

    :param run: a run of ``dqn_ext``, ``dqn`` or ``qrdqn``; if the algorithm is unknown, DQNExt reads the file, which can also
        be one of SB3's DQN
    :param name: the file name of the model; None (default): the best model, otherwise the final, otherwise the newest one
    :param trust: whether DQNExt imports the classes that its files name, also from the directory where the run was started
    :raises ArgumentError: if there is no model, or it cannot be loaded
    """
    path = model_file(run, name)
    try:
        if run.algo in ("dqn_ext", None):
            with classes_allowed(import_run_classes(str(run.folder), trust, _OTHERWISE)):
                return DQNExt.load(path, device="cpu", trust=trust)
        if run.algo == "dqn":
            return DQN.load(path, device="cpu", buffer_size=1)
        if run.algo == "qrdqn":
            from sb3_contrib import QRDQN

            return QRDQN.load(path, device="cpu", buffer_size=1)
    except Exception as error:  # libraries raise any exception for files of other algorithms or versions
        raise ArgumentError(str(error) if str(path) in str(error) else f"{path} cannot be loaded: {error}") from error
    raise ArgumentError(f"{run.folder} is a run of {run.algo!r}. Only models of {', '.join(ALGOS)} have Q-values.")


def model_file(run: Run, name: str | None = None) -> Path:
    """
    Return the path of a run's model.

    :param run: the run
    :param name: the file name of the model; None (default): the best model, otherwise the final, otherwise the newest one
    :raises ArgumentError: if there is no model
    """
    if name is not None:
        path = run.folder / (name if name.endswith(".zip") else f"{name}.zip")
        if not path.is_file():
            raise ArgumentError(f"{run.folder} has no model {path.name}.")
        return path
    final = f"{run.env_id}.zip".replace("/", "-")
    path = next((run.folder / name for name in ("best_model.zip", final) if (run.folder / name).is_file()), run.folder)
    others = sorted(run.folder.glob("*.zip"), key=_steps_in_name)
    if path == run.folder and not others:
        raise ArgumentError(f"{run.folder} has no model: neither best_model.zip, nor {final}, nor another *.zip.")
    return others[-1] if path == run.folder else path


def _steps_in_name(path: Path) -> tuple[int, float]:
    """Return a key that sorts files of CheckpointCallback by their steps, and other files after them by their times."""
    found = re.fullmatch(r".*_(\d+)_steps", path.stem)
    return (int(found[1]) if found else 2**63, path.stat().st_mtime)


def make_env(run: Run, seed: int = EVALUATION_SEED) -> VecEnv:
    """
    Make one environment as in the training of a run, with its wrappers except for those that only increase the speed.

    :param run: the run
    :param seed: the seed of the environment
    :raises ArgumentError: if the run folder does not contain all that is needed
    """
    give_it = "Give calibration() the environment."
    check_env_is_known(run, give_it)
    if run.env_id is None:
        raise ArgumentError(f"The environment of {run.folder} is unknown: there is no run.json, config.yml or *monitor.csv.")

    def wrapped(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        return _add_wrappers(env, "env_wrapper", run.hyperparameters.get("env_wrapper"), gym.Wrapper)  # type: ignore[no-any-return]

    try:
        env = make_vec_env(run.env_id, seed=seed, env_kwargs=dict(run.env_kwargs), wrapper_class=wrapped)
        env = _add_wrappers(env, "vec_env_wrapper", run.hyperparameters.get("vec_env_wrapper"), VecEnv)
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ArgumentError(f"The environment {run.env_id!r} of {run.folder} cannot be made: {error} {give_it}") from error
    n_stack = run.hyperparameters.get("frame_stack") or 0
    return VecFrameStack(env, n_stack) if n_stack > 0 else env


def check_env_is_known(run: Run, instead: str) -> None:
    """
    Check that the observations of a run's network can be made again without opening a pickle.

    :param run: the run
    :param instead: advice for the error message
    :raises ArgumentError: if they cannot
    """
    if run.obstacle is not None:
        raise ArgumentError(f"{run.obstacle}. {instead}")
    if run.hyperparameters.get("normalize"):
        raise ArgumentError(
            f"{run.folder} was trained with normalize={run.hyperparameters['normalize']!r}, and the statistics of that are in "
            f"a pickle, which is not opened. {instead}"
        )


def _add_wrappers(env: Any, argument: str, wrappers: Any, kind: type) -> Any:
    """Apply wrappers in the notation of the zoo: a dotted name, ``{name: arguments}``, or a list of them."""
    for wrapper in wrappers if isinstance(wrappers, list) else [] if wrappers is None else [wrappers]:
        ((name, kwargs),) = wrapper.items() if isinstance(wrapper, Mapping) else [(wrapper, {})]
        found: Any = resolve_class(argument, name, {})
        if not issubclass(found, kind):
            raise ArgumentError(f"{argument}={name!r} is not a {kind.__name__}.")
        if found is not _fast_vec_env():
            env = found(env, **(kwargs or {}))
    return env


def _fast_vec_env() -> type:
    """Return FastVecEnv, a wrapper that changes the speed only. The import is lazy."""
    fast: type = importlib.import_module("sb3_dqn_ext.vec_env").FastVecEnv
    return fast
