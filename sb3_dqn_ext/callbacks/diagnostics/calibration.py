"""A diagnostic that compares predicted values with realised returns."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext._validation import check_number, check_type
from sb3_dqn_ext.callbacks.diagnostics.base import DefaultRate
from sb3_dqn_ext.callbacks.diagnostics.evaluation import episode_calibration, play
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import (
    EnvNotReproducibleError,
    check_eval_env,
    make_eval_env,
    vectorize,
)
from sb3_dqn_ext.callbacks.diagnostics.metrics import calibration_metrics
from sb3_dqn_ext.callbacks.diagnostics.model_access import reseed
from sb3_dqn_ext.callbacks.diagnostics.pictures import DrawingDiagnostic
from sb3_dqn_ext.callbacks.run_callback import NEVER

__all__ = ["ValueCalibrationCallback"]

Array = npt.NDArray[Any]
MAX_ENVS = 16
"""the largest number of evaluation environments that are stepped in parallel"""
MAX_POINTS = 20_000
"""the largest number of points in a picture"""


class ValueCalibrationCallback(DrawingDiagnostic):
    """
    A diagnostic that plays some episodes in its own environments, and compares the predicted value of each action with the
    discounted return that followed, as figure 3 of https://arxiv.org/abs/1509.06461 does.

    Both are in the unit that the network learns: of normalised rewards, if a VecNormalize normalises them. The return of an
    episode that a time limit truncates includes the predicted value of its last observation. So near a limit, most of the
    realised value is predicted. Munchausen targets include an entropy, which returns do not.

    - ``calibration/predicted``, ``calibration/realised``: means over all steps of the episodes
    - ``calibration/bias``: the mean of predicted minus realised; above 0, values are overestimated
    - ``calibration/slope``: the increase of the return where the prediction is higher by 1 (least squares). It is 1 for true
      values, also where returns are random. Below 1, differences between states are overestimated
    - ``calibration/correlation``: Pearson's correlation
    - ``calibration/error_1_of_5`` ... ``error_5_of_5``: the bias among the steps with the lowest fifth of returns ... the
      highest fifth
    - ``calibration/mean_return``: the mean sum of rewards, neither discounted nor normalised. A policy that has collapsed can
      predict its own low return perfectly
    - ``calibration/scatter``: a picture with a point for each step. It needs matplotlib

    Slope and correlation are left out where all predictions, or all returns, are equal.

    :param every: environment steps of training between two comparisons. None (default): about 8 comparisons in a run, at most
        one in 50,000 steps, but 2 in any run
    :param n_episodes: the number of episodes in a comparison
    :param eval_env: the environment to play in. None (default): environments like those of training, made by
        ``gymnasium.make`` with the same wrappers. They are seeded again for each comparison
    :param deterministic: whether actions are greedy; False: they are explored as in training
    :param max_steps: the number of steps after which an episode is truncated
    :raises ArgumentError: if an argument is out of its range; at the start of the run, if no environments like those of
        training can be made, or the spaces of ``eval_env`` are not those of the model
    """

    group, picture = "calibration", "scatter"
    default_rate = DefaultRate(n_measurements=8, min_measurements=2, min_interval=50_000)
    eval_env: VecEnv
    is_optional = False
    """whether there is a warning in place of an error where no environments like those of training can be made"""

    def __init__(
        self,
        every: int | None = None,
        n_episodes: int = 5,
        eval_env: GymEnv | None = None,
        deterministic: bool = True,
        max_steps: int = 1000,
    ) -> None:
        super().__init__(every)
        check_number("n_episodes", n_episodes, low=1, integer=True)
        check_number("max_steps", max_steps, low=1, integer=True)
        check_type("deterministic", deterministic, bool, "True or False")
        self.n_episodes = n_episodes
        self.deterministic = deterministic
        self.max_steps = max_steps
        if eval_env is not None:  # checkpoints store the environments of this attribute
            self.eval_env = vectorize(eval_env)
        self._env: VecEnv | None = None

    def _prepare(self) -> None:
        name = type(self).__name__
        n_envs = min(self.n_episodes, MAX_ENVS)
        try:
            self._env = self.eval_env if hasattr(self, "eval_env") else make_eval_env(self.training_env, n_envs, name)
        except EnvNotReproducibleError as error:
            if not self.is_optional:
                raise
            warnings.warn(f"Values are not compared with returns. {error}", stacklevel=2)
        else:
            check_eval_env(self.model, self._env, name)

    def _next_measurement(self) -> int:
        return NEVER if self._env is None else super()._next_measurement()

    def _restore_model(self) -> None:
        if self._env is not None and not hasattr(self, "eval_env"):
            self._env.close()
        self._env = None

    def _measure(self) -> None:
        assert self._env is not None
        seed = int(self._generator().integers(2**31))
        if not self.deterministic:
            reseed(self.model, seed)
        episodes = play(self.model, self._env, self.n_episodes, self.max_steps, self.deterministic, seed)
        predicted, realised = episode_calibration(episodes)
        metrics = calibration_metrics(predicted, realised)
        parts = {name: number for name, number in metrics.items() if name.startswith("error_")}
        self._record({name: number for name, number in metrics.items() if name not in parts})
        self._record({"mean_return": float(np.mean([episode.total for episode in episodes]))})
        self._record(parts, in_table=False)
        subset = slice(None, None, -(-len(predicted) // MAX_POINTS))
        pairs = np.stack([predicted[subset], realised[subset]]).astype(np.float32)
        self._set_picture({"pairs": pairs, "numbers": metrics, "step": self.num_timesteps})

    def _draw(self, data: Any) -> Array:
        from sb3_dqn_ext.callbacks.diagnostics.figures import scatter_image  # matplotlib takes half a second to import

        metrics = data["numbers"]
        listed = [f"{key} {metrics[key]:.3g}" for key in ("bias", "slope", "correlation") if key in metrics]
        predicted, realised = data["pairs"].astype(np.float64)
        return scatter_image(predicted, realised, f"step {data['step']}: {', '.join(listed)}")
