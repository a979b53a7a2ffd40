"""The base class of samplers: the interface between a sampler and the replay buffer."""

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
    """The (N,) indices of the transitions."""
    values: npt.NDArray[np.float64]
    """The (N,) priorities."""
    copies: npt.NDArray[np.float64]
    """The (N,) numbers of copies."""


class Sampler:
    """
    A sampler: it chooses the stored transitions that are replayed.

    The index of a transition is ``row * n_envs + env``. A subclass must override :meth:`sample`; all other methods have
    defaults. The arguments that a subclass adds follow those of this class, and users pass them in ``sampler_kwargs``.

    :param n_rows: the number of rows of the replay buffer
    :param n_envs: the number of transitions in a row
    :param terminal_copies: the number of times that a terminal transition counts
    :param only_added: whether only transitions that were added and not removed can be replayed; otherwise, all stored ones
    """

    tracks_indices: bool = True
    """Whether the replay buffer has to call :meth:`add` and :meth:`remove` at each step."""
    order_is_random: bool = False
    """Whether each order of the transitions of a batch has the same probability; minibatches are then parts in that order."""
    draws_whole_rows: bool = False
    """Whether a transition is only replayed together with those of all other environments at the same time step."""

    def __init__(self, n_rows: int, n_envs: int, terminal_copies: int = 1, only_added: bool = False) -> None:
        self.n_rows = n_rows
        self.n_envs = n_envs
        self.terminal_copies = terminal_copies
        self.only_added = only_added

    @property
    def uses_td_errors(self) -> bool:
        """Whether the TD errors of each batch are computed for :meth:`update_priorities`: whether it is overridden."""
        return type(self).update_priorities is not Sampler.update_priorities

    def check(self, batch_size: int) -> None:
        """
        Check that batches of a size can be drawn.

        :param batch_size: the batch size B
        :raises ArgumentError: if no batch of this size can ever be drawn
        """

    def check_epochs(self, n_epochs: int) -> None:
        """
        Check that training can iterate over epochs of all transitions instead of drawing batches.

        :param n_epochs: the number of epochs
        :raises ArgumentError: if an :meth:`epoch` does not have the same distribution as :meth:`sample`
        """
        raise ArgumentError(f"n_epochs={n_epochs} needs sampler='uniform' of DQNReplayBuffer, not another sampler.")

    def add(self, indices: Indices, terminal: Bools) -> None:
        """
        Record transitions that can be replayed from now on.

        :param indices: (n,) distinct indices; transitions that were stored there before may have been overwritten
        :param terminal: (n,) whether each counts as terminal
        """

    def add_demonstrations(self, indices: Indices, terminal: Bools) -> None:
        """
        Record the demonstrations, which can be replayed for good. Their indices follow those of all other transitions.

        :param indices: (n,) their indices
        :param terminal: (n,) whether each counts as terminal
        """
        self.add(indices, terminal)

    def remove(self, indices: Indices) -> None:
        """
        Record transitions that can no longer be replayed.

        :param indices: (n,) indices; some may not have been added
        """

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Indices, Weights | None]:
        """
        Draw a batch with numpy's global random generator.

        :param first_row: the first of the stored rows
        :param n_rows: the number of stored rows; they continue at row 0 after the last row of the buffer
        :param batch_size: the batch size B
        :param progress: the fraction of the run that is over, from 0 to 1
        :return: the (B,) indices, and the (B,) importance weights, or None if all are 1
        :raises EmptyReplayError: if no transition can be replayed
        """
        raise NotImplementedError

    def update_priorities(self, indices: Indices, td_errors: npt.NDArray[Any]) -> None:
        """
        Update the sampler with the TD errors of a batch. They are computed only if a sampler overrides this method.

        :param indices: the (B,) indices of the batch
        :param td_errors: the (B,) absolute TD errors, see
            :meth:`~sb3_dqn_ext.algorithm.value_models.ReturnModel.td_errors`
        """

    def epoch(self, first_row: int, n_rows: int) -> Indices:
        """
        List the indices of one epoch.

        :param first_row: the first of the stored rows
        :param n_rows: the number of stored rows
        :return: the indices of all transitions that can be replayed, each once for each of its copies, in no defined order
        """
        raise NotImplementedError

    def replayable(self) -> Indices | None:
        """
        List the transitions that can be replayed, for diagnostics.

        :return: the (N,) indices, each once and in no defined order; None: all that are stored
        """
        return None

    def priorities(self) -> Priorities | None:
        """
        Return the priorities, for diagnostics.

        :return: the priorities; None if the sampler has none
        """
        return None

    def beta(self, progress: float) -> float:
        """
        Return the exponent beta of the importance weights.

        :param progress: the fraction of the run that is over, from 0 to 1
        :return: beta; 0 if the sampler has no importance weights
        """
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """
        Return the state of the sampler for a checkpoint.

        :return: nested plain data and arrays; by default, a copy of all attributes
        """
        return copy.deepcopy(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Restore the state of a sampler that was made with the same arguments.

        :param state: the result of :meth:`state_dict`
        """
        vars(self).update(copy.deepcopy(state))
