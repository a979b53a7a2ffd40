"""A callback that stops the training when the mean return is high enough."""

from collections import deque

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.episodes import Episode, StopTrainingAtEpisode


class StopTrainingOnMeanReturn(StopTrainingAtEpisode):
    """
    A callback that stops the training when the mean return of the last episodes reaches a threshold.

    These are the episodes of training, with its exploration, as SB3's Monitor records them, in all environments together. The
    mean is logged as ``rollout/stopped_at_mean_return``. The window belongs to this callback, so that it depends neither on
    ``stats_window_size`` nor on earlier runs.

    If an event callback such as ``EveryNTimesteps`` holds it, it counts all episodes, and stops at the next event.

    :param threshold: the mean return at which to stop, in the reward's unit
    :param window: the number of episodes in the mean; the training does not stop before so many have ended
    :raises ArgumentError: if ``threshold`` is not finite, or ``window`` is not a whole number of at least 1
    """

    def __init__(self, threshold: float, window: int) -> None:
        super().__init__()
        check_number("threshold", threshold)
        check_number("window", window, low=1, integer=True)
        self.threshold = threshold
        self._returns: deque[float] = deque(maxlen=window)

    def _on_run_start(self, continues: bool) -> None:
        super()._on_run_start(continues)
        self._returns.clear()

    def _stops_at(self, episode: Episode) -> bool:
        self._returns.append(episode.total)
        if self._reached():
            self._report()
            return True
        return False

    def _mean(self) -> float:
        return sum(self._returns) / len(self._returns)

    def _reached(self) -> bool:
        return len(self._returns) == self._returns.maxlen and self._mean() >= self.threshold

    def _report(self) -> None:
        self.logger.info(
            f"Stopped after {self.num_timesteps} steps: the mean return of the last {len(self._returns)} episodes is "
            f"{self._mean():.2f}, the threshold {self.threshold:.2f}."
        )
        self.logger.record("rollout/stopped_at_mean_return", self._mean())
        self.logger.dump(self.num_timesteps)
