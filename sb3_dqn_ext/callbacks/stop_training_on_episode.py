"""A callback that stops the training at the first episode that is good enough."""

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.episodes import Episode, StopTrainingAtEpisode
from sb3_dqn_ext.errors import ArgumentError


class StopTrainingOnEpisode(StopTrainingAtEpisode):
    """
    A callback that stops the training at the first episode that meets all of the given limits.

    It is an episode of training, with its exploration, as SB3's Monitor records it, in any environment. Its return and its
    length are logged as ``rollout/stopped_at_return`` and ``rollout/stopped_at_length``. For a mean of several episodes see
    :class:`~sb3_dqn_ext.callbacks.StopTrainingOnMeanReturn`; SB3's ``StopTrainingOnMaxEpisodes`` stops at a number of them.

    If an event callback such as ``EveryNTimesteps`` holds it, it counts all episodes, and stops at the next event.

    :param min_return: the smallest return, in the reward's unit
    :param min_length: the smallest number of steps: for tasks such as balancing a pole
    :param max_length: the largest number of steps: for tasks with a goal to reach
    :raises ArgumentError: if there is no limit, or a number is out of its range
    """

    def __init__(self, min_return: float | None = None, min_length: int | None = None, max_length: int | None = None) -> None:
        super().__init__()
        if min_return is None and min_length is None and max_length is None:
            raise ArgumentError("StopTrainingOnEpisode needs one of min_return, min_length and max_length.")
        if min_return is not None:
            check_number("min_return", min_return)
        for name, length in {"min_length": min_length, "max_length": max_length}.items():
            if length is not None:
                check_number(name, length, low=1, integer=True)
        if min_length is not None and max_length is not None and min_length > max_length:
            raise ArgumentError(f"min_length={min_length} must not be more than max_length={max_length}.")
        self.min_return = min_return
        self.min_length = min_length
        self.max_length = max_length

    def _stops_at(self, episode: Episode) -> bool:
        if self._is_enough(episode):
            self._report(episode)
            return True
        return False

    def _is_enough(self, episode: Episode) -> bool:
        return (
            (self.min_return is None or episode.total >= self.min_return)
            and (self.min_length is None or episode.length >= self.min_length)
            and (self.max_length is None or episode.length <= self.max_length)
        )

    def _report(self, episode: Episode) -> None:
        self.logger.info(
            f"Stopped after {self.num_timesteps} steps: an episode of {episode.length} steps has a return of {episode.total}."
        )
        self.logger.record("rollout/stopped_at_return", episode.total)
        self.logger.record("rollout/stopped_at_length", episode.length)
        self.logger.dump(self.num_timesteps)
