"""What came of a run, in a few lines."""

import os
import time
from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import unwrap_wrapper
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext._validation import check_verbose
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback
from sb3_dqn_ext.callbacks.log_observer import LogObserver, Score, evaluation_score, training_score

__all__ = ["SummaryCallback", "run_folder"]


PATH_ORDER = ("run folder", "best model", "checkpoints", "resume from", "TensorBoard")


class Clock:
    """When training began in this process, and at which step; no checkpoint remembers it."""

    def __init__(self, step: int) -> None:
        self.began = time.perf_counter()
        self.step = step


class SummaryCallback(LogObserver):
    """
    Print at the end of a run what came of it: steps, episodes and steps per second, mean returns, and where things lie: the
    run's folder, its best model, checkpoints, TensorBoard's log.

    In the zoo, the first callback of the configuration is told of the end at Ctrl-C, too, when the model is saved.

    :param verbose: 0 prints nothing
    """

    def __init__(self, verbose: int = 1) -> None:
        check_verbose(verbose)
        super().__init__(verbose)
        self._clock = Clock(0)

    def _on_run_start(self, continues: bool) -> None:
        super()._on_run_start(continues)
        self._clock = Clock(self.model.num_timesteps)

    def _finish(self) -> None:
        if self.verbose >= 1:
            print("\n".join(self._lines()), flush=True)

    def _lines(self) -> Iterator[str]:
        model: Any = self.model
        steps, seconds = model.num_timesteps - self._clock.step, time.perf_counter() - self._clock.began
        planned = model._total_timesteps
        end = f"Ended before its time, at step {model.num_timesteps:,} of {planned:,}"
        title = f"Ended after {model.num_timesteps:,} steps" if model.num_timesteps >= planned else end
        yield f"{title}: {format_count(model._episode_num, 'episode')}, {steps / max(seconds, 1e-9):,.0f} steps per second"
        n_episodes = format_count(len(model.ep_info_buffer or ()), "training episode")
        for what, score in {"evaluations": evaluation_score(self), f"last {n_episodes}": training_score(self)}.items():
            if score is not None:
                yield f"  mean return of {what:<26} {format_score(score)}"
        callbacks = [one for one in all_callbacks(self.run.root) if one is not self]
        for what, path in output_paths(callbacks, model.get_env(), model.logger.output_formats).items():
            yield f"  {what:<14} {short_path(path)}"


def format_score(score: Score) -> str:
    """
    :param score: of a run
    :return: in words
    """
    return f"{score.last:10.2f}   best {score.best:10.2f} at step {score.best_at:,}"


def short_path(path: str) -> str:
    """A path, from here if it lies below."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def format_count(number: int, thing: str) -> str:
    """``(2, "episode")`` -> ``"2 episodes"``"""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def output_paths(callbacks: list[BaseCallback], env: VecEnv | None, outputs: list[Any]) -> dict[str, str]:
    """
    :param callbacks: of a run
    :param env: its training environments
    :param outputs: formats of its logger
    :return: what the run has left where
    """
    found: dict[str, str] = {}
    folder = run_folder(callbacks, env)
    if folder is not None:
        found["run folder"] = folder
    for one in callbacks:
        if isinstance(one, EvalCallback) and one.best_model_save_path is not None:
            found["best model"] = os.path.join(one.best_model_save_path, "best_model.zip")
        if isinstance(one, CheckpointCallback):
            found["checkpoints"] = os.path.join(one.save_path, f"{one.name_prefix}_*_steps.zip")
        if isinstance(one, ExactCheckpointCallback):
            found["resume from"] = one.path
    for board in outputs:
        if isinstance(board, TensorBoardOutputFormat):
            found["TensorBoard"] = str(board.writer.log_dir)
    return {what: found[what] for what in PATH_ORDER if what in found and ("*" in found[what] or os.path.exists(found[what]))}


def run_folder(callbacks: list[BaseCallback], env: VecEnv | None) -> str | None:
    """
    :param callbacks: of a run
    :param env: its training environments
    :return: the folder of their ``monitor.csv``, which is not known of environments in other processes, else that of the best
        model
    """
    for single in getattr(getattr(env, "unwrapped", None), "envs", []):
        monitor: Any = unwrap_wrapper(single, Monitor)
        if monitor is not None and monitor.results_writer is not None:
            return str(os.path.dirname(monitor.results_writer.file_handler.name))
    folders = [one.best_model_save_path for one in callbacks if isinstance(one, EvalCallback)]
    return next((folder for folder in folders if folder is not None), None)
