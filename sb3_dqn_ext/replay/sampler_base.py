"""The base class of samplers, which is also the contract between a sampler and the replay buffer."""

import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay.index_set import Indices

__all__ = ["Bools", "Priorities", "Sampler", "Weights"]

Bools = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]


class Priorities(NamedTuple):
    """The priorities of the N transitions that can be replayed."""

    indices: Indices
    """(N,)"""
    values: npt.NDArray[np.float64]
    """(N,) their priorities"""
    copies: npt.NDArray[np.float64]
    """(N,) how many times each counts"""


class Sampler:
    """
    Decides which of the stored transitions are replayed.

    An index is that of one transition: ``row * n_envs + env``. A subclass has to override :meth:`sample`; everything else has
    a default. Arguments of its own are keywords after those of this class, and are given as ``sampler_kwargs``.

    :param n_rows: number of rows of the replay buffer
    :param n_envs: number of transitions in a row
    :param terminal_copies: how often a transition that ended an episode counts
    :param only_added: whether there are stored rows that cannot be replayed: only what was added and not removed can be then
    """

    tracks_indices: bool = True
    """whether :meth:`add` and :meth:`remove` have to be called at each step"""
    draws_whole_rows: bool = False
    """whether a transition is only replayed together with those of all other environments at the same time step"""

    def __init__(self, n_rows: int, n_envs: int, terminal_copies: int = 1, only_added: bool = False) -> None:
        self.n_rows = n_rows
        self.n_envs = n_envs
        self.terminal_copies = terminal_copies
        self.only_added = only_added

    @property
    def uses_td_errors(self) -> bool:
        """Whether the TD errors of each batch have to be computed for :meth:`update_priorities`."""
        return type(self).update_priorities is not Sampler.update_priorities

    def check(self, batch_size: int) -> None:
        """
        Check that batches can be drawn.

        :param batch_size: B
        :raises ArgumentError: if no batch of this size can ever be drawn
        """

    def check_epochs(self, n_epochs: int) -> None:
        """
        Check that a training can go through all transitions in place of draws.

        :param n_epochs: how many times it does so
        :raises ArgumentError: if :meth:`epoch` is not what this sampler would draw in the long run
        """
        raise ArgumentError(f"n_epochs={n_epochs} needs sampler='uniform' of DQNReplayBuffer, not another sampler.")

    def add(self, indices: Indices, terminal: Bools) -> None:
        """
        Take note of transitions that can be replayed from now on.

        :param indices: (n,) different indices, whose older transitions may have been overwritten
        :param terminal: (n,) whether each ended an episode by its own step
        """

    def remove(self, indices: Indices) -> None:
        """
        Take note of transitions that can no longer be replayed.

        :param indices: (n,) indices; some may not have been added
        """

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Indices, Weights | None]:
        """
        Draw a batch, by numpy's global generator.

        :param first_row: the first of the stored rows
        :param n_rows: how many rows are stored from there on; behind the last row of the buffer comes its first one
        :param batch_size: B
        :param progress: how much of the run is over, from 0 to 1
        :return: (B,) indices, and (B,) importance weights, None if all are 1
        """
        raise NotImplementedError

    def update_priorities(self, indices: Indices, td_errors: npt.NDArray[Any]) -> None:
        """
        Learn from the errors of a batch. They are computed only for samplers that override this method.

        :param indices: (B,) the indices of the batch
        :param td_errors: (B,) how wrong the prediction of each was, see
            :meth:`~sb3_dqn_ext.algorithm.value_models.ReturnModel.absolute_errors`
        """

    def epoch(self, first_row: int, n_rows: int) -> Indices:
        """
        List the indices of one epoch.

        :param first_row: the first of the stored rows
        :param n_rows: how many rows are stored from there on
        :return: all indices that can be replayed, each as often as it counts, in no order
        """
        raise NotImplementedError

    def replayable(self) -> Indices | None:
        """
        List what can be replayed, for diagnostics.

        :return: (N,) the indices, each once and in no order; None if it is all that is stored
        """
        return None

    def priorities(self) -> Priorities | None:
        """
        List the priorities, for diagnostics.

        :return: None if the sampler has none
        """
        return None

    def beta(self, progress: float) -> float:
        """
        Return the exponent of the importance weights.

        :param progress: how much of the run is over, from 0 to 1
        :return: 0 if there are no such weights
        """
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """
        Return what a checkpoint has to hold so that a new sampler continues as this one.

        :return: nested plain data and arrays; by default, a copy of all attributes
        """
        return copy.deepcopy(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Continue as another sampler that was made by the same arguments.

        :param state: what its :meth:`state_dict` returned
        """
        vars(self).update(copy.deepcopy(state))
