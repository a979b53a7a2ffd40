"""Episodes of training as they end, and the base class of callbacks that stop at an episode."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sb3_dqn_ext.callbacks.run_callback import RunCallback


class Episode(NamedTuple):
    """An episode, as SB3's Monitor records it."""

    total: float
    """its return, in the reward's unit"""
    length: int
    """steps of its environment"""


def new_record(info: Mapping[str, Any], done: Any, known_records: Collection[Any]) -> Any:
    """
    Find the record of an episode that ends at a step. Environments that reuse the same dictionary at each step leave the
    record in it, so that later steps contain it, too.

    :param info: the info of the step
    :param done: whether an episode ended
    :param known_records: the records of episodes that ended earlier
    :return: SB3's record of the episode, or None
    """
    record = info.get("episode")
    return None if record is None or (not done and record in known_records) else record


class EpisodeFinder:
    """
    A function object that finds the episodes that end at a step.

    :param owner: the name of the callback, for the warning about an episode without a record
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._warned = False

    def __call__(self, locals_: Mapping[str, Any]) -> list[Episode]:
        """
        Find the episodes that end at a step.

        :param locals_: the local variables of SB3's ``collect_rollouts``
        :return: the episodes that ended in any environment at this step
        """
        known_records = locals_["self"].ep_info_buffer or ()
        episodes = []
        for done, info in zip(locals_["dones"], locals_["infos"], strict=True):
            if (record := new_record(info, done, known_records)) is not None:
                episodes.append(Episode(float(record["r"]), int(record["l"])))
            elif done and info.get("game_over", True):  # not only a life of an Atari game
                self._warn_of_missing_record()
        return episodes

    def _warn_of_missing_record(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"An episode ended without a record by SB3's Monitor, and {self._owner} cannot count it. Wrap the "
                "environment in Monitor, or the vector environment in VecMonitor. The warning can be ignored if a wrapper "
                "around Monitor ends episodes early, e.g. at the loss of a life.",
                stacklevel=2,
            )


class StopTrainingAtEpisode(RunCallback):
    """
    The base class of callbacks that stop the training at an episode.

    If an event callback such as ``EveryNTimesteps`` holds one, it counts all episodes, and stops at the next event.
    """

    def __init__(self) -> None:
        super().__init__()
        self._find_ended = EpisodeFinder(type(self).__name__)
        self._new: list[tuple[float, int]] = []  # episodes that have ended since the last ``on_step``

    @property
    def _observes_from(self) -> int:
        return 0

    def _on_run_start(self, continues: bool) -> None:
        self._find_ended = EpisodeFinder(type(self).__name__)
        self._new = []

    def _on_run_step(self, locals_: Mapping[str, Any]) -> None:
        self._new += [(episode.total, episode.length) for episode in self._find_ended(locals_)]  # plain data for checkpoints

    def _on_step(self) -> bool:
        new, self._new = self._new, []
        return not any(self._stops_at(Episode(*episode)) for episode in new)

    def _stops_at(self, episode: Episode) -> bool:
        """
        Decide whether to stop, and log the reason.

        :param episode: the next episode that has ended
        :return: whether to stop
        """
        raise NotImplementedError
