"""What the model predicts, beside what comes of it."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext._validation import check_number, check_type
from sb3_dqn_ext.callbacks.diagnostics.evaluation import episode_calibration, play
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import EnvNotReproducibleError, check_eval_env, make_eval_env, vectorize
from sb3_dqn_ext.callbacks.diagnostics.metrics import calibration_metrics
from sb3_dqn_ext.callbacks.diagnostics.model_access import reseed
from sb3_dqn_ext.callbacks.diagnostics.pictures import DrawingDiagnostic
from sb3_dqn_ext.callbacks.run_callback import NEVER

__all__ = ["ValueCalibrationCallback"]

Array = npt.NDArray[Any]
MAX_ENVS = 16  # environments of its own that are stepped together
MAX_POINTS = 20_000  # points


class ValueCalibrationCallback(DrawingDiagnostic):
    """
    Play some episodes in environments of its own, and compare what the network predicts of each action with the discounted
    return that followed: the picture of Mnih et al.'s successors, such as https://arxiv.org/abs/1509.06461, figure 3.

    Both are in the unit that the network learns: of normalised rewards, if a VecNormalize normalises them. An episode that a
    time limit cuts off counts the value of its last observation, so what is realised near a limit is predicted for the larger
    part. Munchausen targets hold an entropy that returns do not.

    - ``calibration/predicted``, ``calibration/realised``: means over all steps of the episodes
    - ``calibration/bias``: the mean of predicted minus realised; above 0, values are overestimated
    - ``calibration/slope``: by how much the return rises where the prediction is higher by 1 (least squares). It is 1 for true
      values, also where returns are random; below 1, differences between states are overrated
    - ``calibration/correlation``: Pearson's
    - ``calibration/error_1_of_5`` ... ``error_5_of_5``: the bias among the steps with the lowest fifth of returns ... the
      highest fifth
    - ``calibration/mean_return``: the mean sum of rewards, not discounted, not normalised: a policy that has collapsed
      predicts its own failure perfectly
    - ``calibration/scatter``: a picture, with a point for each step. It needs matplotlib

    Slope and correlation are left out where all predictions, or returns, are the same.

    :param every: environment steps of training between two comparisons
    :param n_episodes: how many episodes to play
    :param eval_env: where to play; by default environments like those of training, made by ``gymnasium.make`` with the same
        wrappers. They are seeded anew for each comparison
    :param deterministic: whether actions are greedy, or those of training, with its exploration
    :param max_steps: after how many steps an episode is cut off
    :raises ArgumentError: if an argument cannot be; at the start of the run, if no environments like those of training can be
        made, or the model cannot play in ``eval_env``
    """

    group, picture = "calibration", "scatter"
    eval_env: VecEnv
    is_optional = False
    """whether there is a warning in place of an error where no environments like those of training can be made"""

    def __init__(
        self,
        every: int = 50_000,
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
        if eval_env is not None:  # a checkpoint looks for what has this name
            self.eval_env = vectorize(eval_env)
        self._env: VecEnv | None = None

    def _begin(self) -> None:
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

    def _next_look(self) -> int:
        return NEVER if self._env is None else super()._next_look()

    def _put_back(self) -> None:
        if self._env is not None and not hasattr(self, "eval_env"):
            self._env.close()
        self._env = None

    def _look(self) -> None:
        assert self._env is not None
        seed = int(self._generator().integers(2**31))
        if not self.deterministic:
            reseed(self.model, seed)
        episodes = play(self.model, self._env, self.n_episodes, self.max_steps, self.deterministic, seed)
        predicted, realised = episode_calibration(episodes)
        numbers = calibration_metrics(predicted, realised)
        parts = {name: number for name, number in numbers.items() if name.startswith("error_")}
        self._record({name: number for name, number in numbers.items() if name not in parts})
        self._record({"mean_return": float(np.mean([episode.total for episode in episodes]))})
        self._record(parts, in_table=False)
        few = slice(None, None, -(-len(predicted) // MAX_POINTS))
        pairs = np.stack([predicted[few], realised[few]]).astype(np.float32)
        self._show({"pairs": pairs, "numbers": numbers, "step": self.num_timesteps})

    def _draw(self, data: Any) -> Array:

        shown = [f"{key} {data['numbers'][key]:.3g}" for key in ("bias", "slope", "correlation") if key in data["numbers"]]
        predicted, realised = data["pairs"].astype(np.float64)
        return scatter(predicted, realised, f"step {data['step']}: {', '.join(shown)}")
