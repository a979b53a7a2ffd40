"""A callback that writes checkpoints from which a run continues with the same bits."""

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
    A callback that writes checkpoints of all that the run depends on: networks, optimizer, replay buffer, random generators,
    environments in mid-episode, and callbacks. A model of the same arguments that is restored by ``model.resume(path)`` ends
    with the same bits as one that was never interrupted.

    Checkpoints are written between two rollouts, when all transitions are stored and trained on. With a ``train_freq`` of 256
    steps, ``every`` is rounded up to a multiple of 256. If an event callback such as ``EveryNTimesteps`` or ``EvalCallback``
    holds this one, a checkpoint is written after the next event, also after an event in the last rollout. Of the replay
    buffer, only the transitions since the last checkpoint are written.

    The folder is locked during the whole run. At SIGINT (Ctrl-C) and at SIGTERM, one last checkpoint is written before the
    signal has its usual effect. A second signal has its effect immediately.

    :param every: environment steps between two checkpoints, at least
    :param path: the folder of the checkpoints, which is made if necessary
    :param keep: the number of newest checkpoints that are kept
    :param resume_command: the command that continues the run, for messages; None (default): the call of ``model.resume``
    :raises ArgumentError: if an argument is out of its range; at the start of the run, if the model is no DQNExt
    :raises CheckpointError: at the start of the run, if another run writes to the folder, or has left its checkpoints there;
        at a checkpoint, if it cannot be written
    """

    def __init__(self, every: int, path: str | os.PathLike[str], keep: int = 2, resume_command: str | None = None) -> None:
        super().__init__()
        check_number("every", every, low=1, integer=True)
        check_number("keep", keep, low=1, integer=True)
        check_type("path", path, str | os.PathLike, "a folder")
        check_type("resume_command", resume_command, str | None, "a command, or None")
        self.every = every
        self.path = os.fspath(path)
        self.keep = keep
        self.saved_at = 0
        self.is_due = False
        self.resume_command = resume_command

    def code_to_resume(self) -> str:
        """Return the code that continues the run, for messages."""
        return f"model.resume({self.path!r})" if self.resume_command is None else f"`{self.resume_command}`"

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
        # If a callback ends a run, the transitions of its last rollout are not trained on.
        is_event = self.is_due and self.parent is not None  # an event of another callback in the last rollout
        if self.run.is_between_rollouts and (is_event or model.run_state.deferred_signals.is_pending):
            self._save()

    def _save(self) -> None:
        model: Any = self.model
        self.saved_at, self.is_due = model.num_timesteps, False  # before they are saved
        path = model.save_checkpoint(self.path, self.keep)
        if model.run_state.deferred_signals.is_pending:
            print(f"Saved {path}: {self.code_to_resume()} continues from there.", file=sys.stderr, flush=True)


@contextmanager
def checkpoint_session(model: Any, callback: MaybeCallback) -> Iterator[None]:
    """
    Lock the folders of a run's checkpoints during the run, and defer signals to the end of a rollout.

    :param model: a DQNExt
    :param callback: the ``callback`` of ``learn``
    :raises CheckpointError: if another run writes to a folder, or has left its checkpoints there
    """
    model.run_state.callback_states = []
    paths = {one.path for one in all_callbacks(callback) if isinstance(one, ExactCheckpointCallback)}
    with ExitStack() as stack:
        if paths:
            # imported by runs with checkpoints only: it takes 3 % of the time to import this package
            from sb3_dqn_ext.checkpoint.session import locked_folder

            for path in paths:
                stack.enter_context(locked_folder(model, path))
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
    Make the sentence of an error message that names the newest checkpoint of a run.

    :param model: the model, whose run has ended
    :param callbacks: the callbacks of the run
    :return: a space and the sentence. If the run has written no checkpoint yet, the sentence reports that. "" if the run
        writes no checkpoints
    """
    from sb3_dqn_ext.checkpoint.folder import latest_manifest  # imported by runs with checkpoints only

    saved = model.run_state.saved_rows if hasattr(model, "run_state") else {}
    codes = {one.path: one.code_to_resume() for one in callbacks if isinstance(one, ExactCheckpointCallback)}
    folders = dict.fromkeys([*codes, *saved])
    written = []
    for folder in (folder for folder in folders if os.path.abspath(folder) in saved):
        with suppress(CheckpointError):  # the error that ended the run is reported, not this one
            if (path := latest_manifest(folder)) is not None:
                written.append((path, folder))
    if written:
        path, folder = max(written, key=lambda path_and_folder: path_and_folder[0].name)
        code = codes.get(folder, f"model.resume({folder!r})")
        return f" The newest checkpoint of the run is {path}: {code} continues from there."
    return f" The run has written no checkpoint to {next(iter(folders))} yet." if folders else ""
