"""
Saved models: what they say of states, and what comes of what they do.

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
EVALUATION_SEED = 10_000  # added to the seed: training has hardly seen these episodes


def predict_q_values(model: BaseAlgorithm, observations: Array | dict[str, Array]) -> Array:
    """
    :param model: a DQNExt, a DQN, or a QRDQN of sb3-contrib
    :param observations: (B, \\*obs)
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
    Chooses greedy actions, but for some random ones at the beginning of an episode, in one environment.

    :param rng: draws how many there are, and which
    :param most: at most so many
    """

    def __init__(self, rng: np.random.Generator, most: int) -> None:
        self._rng, self._most = rng, most
        self.numbers: list[int] = []
        """the number of random actions of each episode"""

    def __call__(self, q: Array, observations: Any, n_steps: int) -> Array:
        """
        :param q: (1, A)
        :param observations: (1, \\*obs)
        :param n_steps: of the episode up to now
        :return: (1,) action
        """
        if n_steps == 0:
            self.numbers.append(int(self._rng.integers(self._most + 1)))
        if n_steps < self.numbers[-1]:
            return np.array([self._rng.integers(q.shape[1])])
        greedy: Array = q.argmax(axis=1)
        return greedy


def measure_calibration(
    model: BaseAlgorithm, env: VecEnv, n_episodes: int = N_EPISODES, n_random: int = MAX_RANDOM_ACTIONS, seed: int = 0
) -> Calibration:
    """
    Play, and put what the model says of each action beside what came of it. The actions are greedy but for some random ones at
    the beginning of an episode, so that bad states are seen too; it is looked at from the last of these on. What was cut off
    by a time limit is worth what the model says of its last state, unless it learned that time limits are ends
    (``handle_timeout_termination=False``).

    :param model: a DQNExt, a DQN, or a QRDQN of sb3-contrib. Values of ``"munchausen"`` hold more than returns
    :param env: one environment, with the wrappers that the model was trained with
    :param n_episodes: how many
    :param n_random: at most so many actions are random; 0: none
    :param seed: of the random actions
    :return: predicted and realised values
    """
    learner: Any = model
    limits_end = not (learner.replay_buffer_kwargs or {}).get("handle_timeout_termination", True)
    choose = GreedyAfterRandomStart(np.random.default_rng(seed), n_random)
    player = EvaluationPolicy(partial(predict_q_values, model), choose, learner.gamma, limits_end, unwrap_vec_normalize(env))
    episodes = list(play_episodes(player, env, n_episodes, MAX_EPISODE_STEPS))
    return episode_calibration(_from_step(episode, max(n, 1) - 1) for episode, n in zip(episodes, choose.numbers, strict=True))


def _from_step(episode: PlayedEpisode, step: int) -> PlayedEpisode:
    """What follows a step; the last step of an episode that is shorter."""
    counted = slice(min(step, len(episode.predicted) - 1), None)
    return episode._replace(predicted=episode.predicted[counted], realised=episode.realised[counted])


# -- from run folders ------------------------------------------------------------------------------------------------------


def load_model(run: Run, name: str | None = None, trust: bool = False) -> BaseAlgorithm:
    """
    The model of a run. Files of DQNExt hold no code; those of ``dqn`` and ``qrdqn`` are read by their own ``load``, which runs
    what is in them, so let them be of people you trust. Classes of your own that ``run.json`` names are imported, if Python
    finds them.

    :param run: of ``dqn_ext``, ``dqn`` or ``qrdqn``; where that is not known, DQNExt reads the file, which may be of SB3's DQN
    :param name: of the file; None: the best, or else the final, or else the newest one
    :param trust: whether DQNExt imports what its files name, also from the directory where the run was started
    :raises ArgumentError: if there is none, or it cannot be read
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
    except Exception as error:  # whatever the file of another algorithm, or of another version, makes of it
        raise ArgumentError(str(error) if str(path) in str(error) else f"{path} cannot be loaded: {error}") from error
    raise ArgumentError(f"{run.folder} is of {run.algo!r}, and Q-values are known of {', '.join(ALGOS)} only.")


def model_file(run: Run, name: str | None = None) -> Path:
    """
    :param run: a run
    :param name: of the file; None: the best, or else the final, or else the newest one
    :return: its path
    :raises ArgumentError: if there is none
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
    """What the files of CheckpointCallback are sorted by, and others after them."""
    found = re.fullmatch(r".*_(\d+)_steps", path.stem)
    return (int(found[1]) if found else 2**63, path.stat().st_mtime)


def make_env(run: Run, seed: int = EVALUATION_SEED) -> VecEnv:
    """
    One environment such as a run was trained in: its wrappers are there, too, but nothing that only makes it quick.

    :param run: a run
    :param seed: of the environment
    :raises ArgumentError: if it cannot be made from what the run folder holds
    """
    give_it = "Give calibration() the environment."
    check_env_is_known(run, give_it)
    if run.env_id is None:
        raise ArgumentError(f"{run.folder} does not tell its environment: there is no run.json, config.yml or *monitor.csv.")

    def wrapped(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        return _wrapped(env, "env_wrapper", run.hyperparameters.get("env_wrapper"), gym.Wrapper)  # type: ignore[no-any-return]

    try:
        env = make_vec_env(run.env_id, seed=seed, env_kwargs=dict(run.env_kwargs), wrapper_class=wrapped)
        env = _wrapped(env, "vec_env_wrapper", run.hyperparameters.get("vec_env_wrapper"), VecEnv)
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ArgumentError(f"The environment {run.env_id!r} of {run.folder} cannot be made: {error} {give_it}") from error
    n_stack = run.hyperparameters.get("frame_stack") or 0
    return VecFrameStack(env, n_stack) if n_stack > 0 else env


def check_env_is_known(run: Run, instead: str) -> None:
    """
    :param run: a run
    :param instead: what can be done
    :raises ArgumentError: if what its network sees is not known without opening a pickle
    """
    if run.obstacle is not None:
        raise ArgumentError(f"{run.obstacle}. {instead}")
    if run.hyperparameters.get("normalize"):
        raise ArgumentError(
            f"{run.folder} was trained with normalize={run.hyperparameters['normalize']!r}, and the statistics of that are in "
            f"a pickle, which is not opened. {instead}"
        )


def _wrapped(env: Any, argument: str, wrappers: Any, kind: type) -> Any:
    """As the zoo does: a dotted name, or ``{name: arguments}``, or a list of them."""
    for wrapper in wrappers if isinstance(wrappers, list) else [] if wrappers is None else [wrappers]:
        ((name, kwargs),) = wrapper.items() if isinstance(wrapper, Mapping) else [(wrapper, {})]
        found: Any = resolve_class(argument, name, {})
        if not issubclass(found, kind):
            raise ArgumentError(f"{argument}={name!r} is no {kind.__name__}.")
        if found is not _fast():
            env = found(env, **(kwargs or {}))
    return env


def _fast() -> type:
    """It steps many environments at once, which are the same otherwise."""
    fast: type = importlib.import_module("sb3_dqn_ext.vec_env").FastVecEnv
    return fast
