"""Films of episodes."""

import importlib.util
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from tensorboard.compat.proto.summary_pb2 import Summary

from sb3_dqn_ext._validation import check_number, check_type
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import check_eval_env, make_eval_env, sync_normalization, vectorize
from sb3_dqn_ext.callbacks.diagnostics.model_access import q_value_function
from sb3_dqn_ext.callbacks.summary import run_folder
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["EpisodeVideoCallback"]

Array = npt.NDArray[Any]
DEFAULT_FPS = 30.0  # of environments that name none


class EpisodeVideoCallback(Diagnostic):
    """
    Film a greedy episode in an environment of its own, with a bar for each action's Q-value under the frames, that of the
    greedy action in another colour: ``videos/step_N.mp4`` in the run's folder, and in TensorBoard the animated picture
    ``video/episode``, under images.

    Logged are also ``video/return`` and ``video/length``, of what was filmed. It needs Pillow, imageio and imageio-ffmpeg,
    which the extra ``zoo`` brings.

    :param every: environment steps of training between two films
    :param folder: where to write; by default that of the run's ``monitor.csv``, else that of its best model, else
        that of SB3's logger
    :param eval_env: where to play, with ``render_mode="rgb_array"``; by default an environment like those of training, see
        :class:`~sb3_dqn_ext.callbacks.ValueCalibrationCallback`
    :param max_steps: after how many steps an episode is cut off
    :param skip: one frame is kept of so many steps
    :param width: of the film, in pixels
    :raises ArgumentError: if an argument cannot be; at the start of the run, if there is no folder, the environment shows no
        pictures, or a library is missing
    """

    group = "video"
    eval_env: VecEnv

    def __init__(
        self,
        every: int = 1_000_000,
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
        self.width = -(-width // 16) * 16  # films need a multiple of 16
        if eval_env is not None:  # a checkpoint looks for what has this name
            self.eval_env = vectorize(eval_env)
        self._env: VecEnv | None = None

    def _begin(self) -> None:
        name = type(self).__name__
        missing = [of for of in ("PIL", "imageio", "imageio_ffmpeg") if importlib.util.find_spec(of) is None]
        if missing:
            raise ArgumentError(f"{name} needs {', '.join(missing)}: pip install 'sb3_dqn_ext[zoo]', or leave it out.")
        self._videos = os.path.join(self._folder(), "videos")
        os.makedirs(self._videos, exist_ok=True)
        made = None if hasattr(self, "eval_env") else make_eval_env(self.training_env, 1, name, render_mode="rgb_array")
        self._env = self.eval_env if made is None else made
        check_eval_env(self.model, self._env, name)
        modes = self._env.get_attr("render_mode")
        if modes[0] != "rgb_array":
            raise ArgumentError(f"{name} needs an eval_env with render_mode='rgb_array', not {modes[0]!r}.")

    def _put_back(self) -> None:
        if self._env is not None and not hasattr(self, "eval_env"):
            self._env.close()
        self._env = None

    def _folder(self) -> str:
        if self.folder is not None:
            return self.folder
        folder = run_folder(list(all_callbacks(self.run.root)), self.training_env)
        if folder is not None:
            return folder
        if self.logger.dir is None:
            raise ArgumentError(f"{type(self).__name__} knows no folder of the run: give it a folder.")
        return str(self.logger.dir)

    def _look(self) -> None:

        frames, q, rewards = self._played()
        low, high = float(q.min()), float(q.max())
        shown = [
            with_bars(frame, q[i * self.skip], min(low, 0.0), max(high, 0.0), self.width) for i, frame in enumerate(frames)
        ]
        assert self._env is not None
        metadata = self._env.get_attr("metadata")[0] or {}
        fps = float(metadata.get("render_fps") or DEFAULT_FPS) / self.skip
        film(os.path.join(self._videos, f"step_{self.num_timesteps}.mp4"), shown, fps)
        self._record({"return": float(sum(rewards)), "length": len(rewards)})
        boards = [output for output in self.logger.output_formats if isinstance(output, TensorBoardOutputFormat)]
        if boards:
            picture = animation(shown, fps)
            for board in boards:
                self._write(board, picture, shown[0].shape)

    def _played(self) -> tuple[list[Array], Array, list[float]]:
        """Some of the frames of an episode, (T, A) its Q-values, and its rewards."""
        env = self._env
        assert env is not None
        values_of = q_value_function(self.model, self._networks[0], env.num_envs)
        sync_normalization(self.model, env)
        env.seed(int(self._generator().integers(2**31)))
        observations: Any = env.reset()
        frames, values, rewards = [], [], []
        for step in range(self.max_steps):
            if step % self.skip == 0:
                frames.append(np.asarray(env.get_images()[0]))
            q = values_of(observations)  # (1, A)
            values.append(q[0].astype(np.float64))
            observations, reward, dones, _ = env.step(q.argmax(axis=1))
            rewards.append(float(reward[0]))
            if dones[0]:
                break
        return frames, np.stack(values), rewards

    def _write(self, board: TensorBoardOutputFormat, picture: bytes, shape: tuple[int, ...]) -> None:
        # SB3's own way, SummaryWriter.add_video, writes nothing with moviepy 2
        image = Summary.Image(height=shape[0], width=shape[1], colorspace=3, encoded_image_string=picture)
        summary = Summary(value=[Summary.Value(tag=f"{self.group}/episode", image=image)])
        writer: Any = board.writer
        writer._get_file_writer().add_summary(summary, self.num_timesteps)
