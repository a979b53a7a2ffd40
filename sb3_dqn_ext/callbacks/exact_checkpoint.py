"""Checkpoints from which a run goes on as if it had never stopped."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_dqn_ext._validation import check_number, check_type
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.run_callback import RunCallback
from sb3_dqn_ext.errors import ArgumentError, CheckpointError


class ExactCheckpointCallback(RunCallback):
    """
    Write a checkpoint of all that the run depends on, every so often: networks, optimizer, replay memory, generators of random
    numbers, environments in mid-episode, callbacks. A model of the same arguments that takes it over by ``model.resume(path)``
    ends with the same bits as one that was never interrupted.

    It is written between two rollouts, when all that was stepped is stored and learned from: with a ``train_freq`` of 256
    steps, ``every`` is rounded up to those. Held by an event callback such as ``EveryNTimesteps`` or ``EvalCallback``, it is
    written after the next event, also after one in the last rollout. Of the replay memory, only what was added since the last
    checkpoint is written.

    The folder is locked for the whole run. At SIGINT (Ctrl-C) and at SIGTERM one last checkpoint is written before they do
    what they do without; a second one does it at once.

    :param every: environment steps between two checkpoints, at least
    :param path: the folder of the checkpoints; it is made if need be
    :param keep: how many of the newest stay
    :raises ArgumentError: if a number cannot be; at the start of the run, if the model is no DQNExt
    :raises CheckpointError: at the start of the run, if another one writes to the folder, or has left its checkpoints there;
        at a checkpoint, if it cannot be written
    """

    def __init__(self, every: int, path: str | os.PathLike[str], keep: int = 2) -> None:
        super().__init__()
        check_number("every", every, low=1, integer=True)
        check_number("keep", keep, low=1, integer=True)
        check_type("path", path, str | os.PathLike, "a folder")
        self.every = every
        self.path = os.fspath(path)
        self.keep = keep
        self.saved_at = 0
        self.is_due = False

    def _on_run_start(self, continues: bool) -> None:
        model: Any = self.model
        if not hasattr(model, "save_checkpoint"):
            raise ArgumentError(f"ExactCheckpointCallback needs a DQNExt, not {type(model).__name__}.")
        self.saved_at, self.is_due = model.num_timesteps, False

    def _on_step(self) -> bool:
        self.is_due |= self.num_timesteps >= self.saved_at + self.every
        return True

    def _before_rollout(self) -> None:
        model: Any = self.model
        if self.is_due or model.run_state.deferred_signals.is_pending:
            self._save()
        model.run_state.deferred_signals.deliver()

    def _on_training_end(self) -> None:
        model: Any = self.model
        # After a callback has ended a run, what its last rollout collected is not learned from.
        is_asked = self.is_due and self.parent is not None  # by the event of another callback, in the last rollout
        if self.run.is_between_rollouts and (is_asked or model.run_state.deferred_signals.is_pending):
            self._save()

    def _save(self) -> None:
        model: Any = self.model
        self.saved_at, self.is_due = model.num_timesteps, False  # before they are saved with the rest
        path = model.save_checkpoint(self.path, self.keep)
        if model.run_state.deferred_signals.is_pending:
            print(f"Saved {path}: model.resume({self.path!r}) goes on from there.", file=sys.stderr, flush=True)


@contextmanager
def checkpoint_session(model: Any, callback: MaybeCallback) -> Iterator[None]:
    """
    The whole of a run: nobody else writes to the folders of its checkpoints, and no signal interrupts it in a rollout.

    :param model: a DQNExt
    :param callback: what ``learn`` takes
    :raises CheckpointError: if another run writes to a folder, or has left its checkpoints there
    """
    model.run_state.callback_states = []
    paths = {one.path for one in all_callbacks(callback) if isinstance(one, ExactCheckpointCallback)}
    with ExitStack() as stack:
        if paths:
            # Only runs with checkpoints import it: it would add 3 % to the time that the import of this package takes.

            for path in paths:
                stack.enter_context(claimed(model, path))
            stack.enter_context(model.run_state.deferred_signals)
        try:
            yield
        finally:
            if paths:
                from sb3_dqn_ext.checkpoint.training import callback_states

                with suppress(Exception):  # callbacks may have closed their environments
                    model.run_state.callback_states = callback_states(callback)


def resume_hint(model: Any, callbacks: Iterable[BaseCallback]) -> str:
    """
    :param model: whose run has ended
    :param callbacks: of the run
    :return: a sentence on the newest checkpoint that it has written; empty if it was not to write any
    """

    saved = model.run_state.saved_rows if hasattr(model, "run_state") else {}
    folders = dict.fromkeys([one.path for one in callbacks if isinstance(one, ExactCheckpointCallback)] + list(saved))
    written = []
    for folder in (folder for folder in folders if os.path.abspath(folder) in saved):
        with suppress(CheckpointError):  # the error that ended the run is the one to tell
            if (path := newest(folder)) is not None:
                written.append((path, folder))
    if written:
        path, folder = max(written, key=lambda place: place[0].name)
        return f" The newest checkpoint of the run is {path}: model.resume({folder!r}) goes on from there."
    return f" The run has written no checkpoint to {next(iter(folders))} yet." if folders else ""
