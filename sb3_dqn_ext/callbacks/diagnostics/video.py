"""A diagnostic that films episodes."""

import importlib.util
import os
import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from tensorboard.compat.proto.summary_pb2 import Summary

from sb3_dqn_ext._validation import check_number, check_type
from sb3_dqn_ext.algorithm.action_masks import is_legal
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.diagnostics.base import DefaultRate, Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import (
    check_eval_env,
    make_eval_env,
    original_rewards,
    sync_normalization,
    vectorize,
)
from sb3_dqn_ext.callbacks.diagnostics.model_access import q_value_function, state_preserved
from sb3_dqn_ext.callbacks.summary import run_folder
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["EpisodeVideoCallback"]

Array = npt.NDArray[Any]
LIBRARIES = ("PIL", "imageio", "imageio_ffmpeg")
DEFAULT_FPS = 30.0
"""frames per second of environments whose metadata contains no number"""


class EpisodeVideoCallback(Diagnostic):
    """
    A diagnostic that films a greedy episode in its own environment. Under each frame is a bar for each action's Q-value, that
    of the greedy action in another colour. It writes ``videos/step_N.mp4`` in the folder of the run, and the animated picture
    ``video/episode`` in TensorBoard.

    ``video/return``, the sum of the rewards before a VecNormalize normalises them, and ``video/length``, the number of steps,
    are logged as well. The diagnostic needs Pillow, imageio and imageio-ffmpeg, which
    the extra ``zoo`` installs.

    :param every: environment steps of training between two films. None (default): about 4 films in a run, at most one in
        1,000,000 steps, and one at the end of any run
    :param folder: the folder to write to. None (default): the folder of the run's ``monitor.csv``, else that of its best
        model, else that of SB3's logger
    :param eval_env: the environment to play in, with ``render_mode="rgb_array"``. None (default): an environment like those of
        training, see :class:`~sb3_dqn_ext.callbacks.ValueCalibrationCallback`
    :param max_steps: the number of steps after which an episode is truncated
    :param skip: the number of steps for each frame of the film
    :param width: the width of the film in pixels
    :raises ArgumentError: if an argument is out of its range; at the start of the run, if there is no folder, the environment
        does not render to arrays, or a library is missing
    """

    group = "video"
    default_rate = DefaultRate(n_measurements=4, min_measurements=1, min_interval=1_000_000)
    eval_env: VecEnv

    def __init__(
        self,
        every: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        eval_env: GymEnv | None = None,
        max_steps: int = 500,
        skip: int = 4,
        width: int = 320,
    ) -> None:
        super().__init__(every)
        check_number("max_steps", max_steps, low=1, integer=True)
        check_number("skip", skip, low=1, integer=True)
        check_number("width", width, low=16, high=4096, integer=True)
        check_type("folder", folder, str | os.PathLike | None, "a folder, or None")
        self.folder = None if folder is None else os.fspath(folder)
        self.max_steps = max_steps
        self.skip = skip
        self.width = -(-width // 16) * 16  # video codecs require a multiple of 16
        if eval_env is not None:  # checkpoints store the environments of this attribute
            self.eval_env = vectorize(eval_env)
        self._env: VecEnv | None = None
        self._filmed_at = -1  # the step of the last film

    def _reset(self) -> None:
        self._filmed_at = -1

    def _prepare(self) -> None:
        name = type(self).__name__
        missing = [library for library in LIBRARIES if importlib.util.find_spec(library) is None]
        if missing:
            raise ArgumentError(f"{name} needs {', '.join(missing)}: pip install 'sb3_dqn_ext[zoo]', or leave it out.")
        if not _finds_ffmpeg():
            raise ArgumentError(
                f"{name} needs ffmpeg: install it, or set IMAGEIO_FFMPEG_EXE to its path, or leave the callback out."
            )
        os.makedirs(self._folder(), exist_ok=True)
        made = None if hasattr(self, "eval_env") else make_eval_env(self.training_env, 1, name, render_mode="rgb_array")
        self._env = self.eval_env if made is None else made
        check_eval_env(self.model, self._env, name)
        modes = self._env.get_attr("render_mode")
        if modes[0] != "rgb_array":
            raise ArgumentError(f"{name} needs an eval_env with render_mode='rgb_array', not {modes[0]!r}.")

    def _on_training_end(self) -> None:
        # a callback may have ended the run early, and its last rollout may be longer than planned
        end = min(self.model.num_timesteps, self.model._total_timesteps)
        if self.every is None and self._filmed_at < end and self._env is not None:  # an exception has closed it
            self.num_timesteps = self.model.num_timesteps
            with state_preserved(self.model), th.no_grad(), np.errstate(invalid="ignore", over="ignore"):
                self._film()
        super()._on_training_end()

    def _on_run_end(self) -> None:
        if self._env is not None and not hasattr(self, "eval_env"):
            self._env.close()
        self._env = None

    def _folder(self) -> str:
        """Return the folder of the films."""
        folder = self.folder or run_folder(list(all_callbacks(self.run.root)), self.training_env) or self.logger.dir
        if folder is None:
            raise ArgumentError(f"{type(self).__name__} finds no folder of the run: give it a folder.")
        return os.path.join(folder, "videos")

    def _measure(self) -> None:
        rewards = self._film()
        self._record({"return": float(sum(rewards)), "length": len(rewards)})

    def _film(self) -> list[float]:
        """Play an episode, write its film, and return the original rewards of its steps."""

        # Pillow and imageio are optional
        from sb3_dqn_ext.callbacks.diagnostics.film import add_q_bars, encode_animation, write_film

        frames, q, rewards = self._play_episode()
        low, high = float(q[is_legal(q)].min()), float(q.max())
        pictures = [
            add_q_bars(frame, q[i * self.skip], min(low, 0.0), max(high, 0.0), self.width) for i, frame in enumerate(frames)
        ]
        assert self._env is not None
        metadata = self._env.get_attr("metadata")[0] or {}
        fps = float(metadata.get("render_fps") or DEFAULT_FPS) / self.skip
        write_film(os.path.join(self._folder(), f"step_{self.num_timesteps}.mp4"), pictures, fps)
        tensorboards = [output for output in self.logger.output_formats if isinstance(output, TensorBoardOutputFormat)]
        if tensorboards:
            animation = encode_animation(pictures, fps)
            for tensorboard in tensorboards:
                self._write(tensorboard, animation, pictures[0].shape)
        self._filmed_at = self.num_timesteps
        return rewards

    def _play_episode(self) -> tuple[list[Array], Array, list[float]]:
        """
        Play one greedy episode of at most ``max_steps`` steps. The environment gets a new seed and is reset.

        :return: the frames before steps 0, ``skip``, 2 * ``skip`` and so on; the (T, A) Q-values of the T steps; and the T
            rewards before a VecNormalize normalised them
        """
        env = self._env
        assert env is not None
        q_values = q_value_function(self.model, self._networks[0], env.num_envs)
        sync_normalization(self.model, env)
        env.seed(int(self._generator().integers(2**31)))
        observations: Any = env.reset()
        frames, values, rewards = [], [], []
        for step in range(self.max_steps):
            if step % self.skip == 0:
                frames.append(np.asarray(env.get_images()[0]))
            q = q_values(observations)  # (1, A)
            values.append(q[0].astype(np.float64))
            observations, given, dones, _ = env.step(q.argmax(axis=1))
            rewards.append(float(original_rewards(env, given)[0]))
            if dones[0]:
                break
        return frames, np.stack(values), rewards

    def _write(self, tensorboard: TensorBoardOutputFormat, picture: bytes, shape: tuple[int, ...]) -> None:
        """Write an animated picture to TensorBoard. SummaryWriter.add_video, which SB3 uses, writes nothing with moviepy 2."""
        image = Summary.Image(height=shape[0], width=shape[1], colorspace=3, encoded_image_string=picture)
        summary = Summary(value=[Summary.Value(tag=f"{self.group}/episode", image=image)])
        writer: Any = tensorboard.writer
        writer._get_file_writer().add_summary(summary, self.num_timesteps)


def _finds_ffmpeg() -> bool:
    """Return whether there is the program with which imageio writes films."""
    import imageio_ffmpeg  # optional

    try:
        return shutil.which(imageio_ffmpeg.get_ffmpeg_exe()) is not None
    except RuntimeError:
        return False
