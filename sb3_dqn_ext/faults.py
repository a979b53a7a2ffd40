"""What ends a run that nobody has stopped, and where it can be gone on with."""

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

__all__ = ["LARGEST", "EnvironmentDiedError", "NonFiniteError", "fault_of_update", "largest_norm", "where_to_go_on"]

LARGEST = 1e15
"""of learning rates and of the norms of gradients: their product and their squares are far inside of float32"""


class NonFiniteError(ArithmeticError):
    """A number that is nan or infinite was about to enter the replay memory or the networks; the message says where from."""


class EnvironmentDiedError(RuntimeError):
    """The process of an environment has ended in the middle of a run; the message says which, and how."""


def largest_norm(max_grad_norm: float | None) -> float:
    """
    :param max_grad_norm: to which norm gradients are clipped, if they are
    :return: the largest norm from which they can be clipped, so that a step is finite
    """
    return math.inf if max_grad_norm is not None and max_grad_norm <= LARGEST else LARGEST


def fault_of_update(loss: float, norm: float, largest: float) -> str | None:
    """
    :param loss: of the batch
    :param norm: of its gradient
    :param largest: see :func:`largest_norm`
    :return: what would leave the finite numbers, None if the update can be made
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the gradient has a norm of {norm}"
    return None if norm <= largest else f"the gradient has a norm of {norm:g}, and is not clipped to {LARGEST:g} or less"


def where_to_go_on(model: Any, callbacks: Iterable[BaseCallback]) -> str:
    """
    :param model: whose run has ended
    :param callbacks: of the run
    :return: a sentence on the newest checkpoint that it has written; empty if it was not to write any
    """
    from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback  # one of its neighbours imports this module
    from sb3_dqn_ext.checkpoint.files import CheckpointError, newest

    saved = getattr(model, "_saved", {})
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
