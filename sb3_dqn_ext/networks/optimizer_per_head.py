"""A separate optimizer for each action."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_dqn_ext.algorithm.batches import Batch

__all__ = ["OptimizerPerHead"]


class OptimizerPerHead(th.optim.Optimizer):
    """
    One optimizer for each head, over the trunk and the layers of one action.

    The gradients of one head do not enter the running averages of another, as if each head were a separate model with a shared
    trunk.

    :param optimizers: one optimizer for each action
    """

    def __init__(self, optimizers: Sequence[th.optim.Optimizer]) -> None:
        # torch's constructor is not called: it requires that each parameter is in one group
        self.optimizers = list(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The parameter groups of all optimizers, so that a learning rate that is set here applies to them."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def split_batch(self, batch: Batch) -> Iterator[tuple[th.optim.Optimizer, Batch]]:
        """
        Split a batch by action.

        :param batch: B transitions
        :return: for each action in the batch, its optimizer and its transitions
        """
        actions = batch.actions.cpu().numpy()  # (B,), copied once, as each copy would wait for the GPU
        for action, optimizer in enumerate(self.optimizers):
            chosen = np.flatnonzero(actions == action)
            if len(chosen):
                yield optimizer, batch.select(chosen)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """
        Clear the gradients of all heads.

        :param set_to_none: whether the gradients are removed (default) or filled with zeros
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all optimizers."""
        return {"heads": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """
        Restore the state of all optimizers.

        :param state_dict: the result of :meth:`state_dict`
        """
        for optimizer, state in zip(self.optimizers, state_dict["heads"], strict=True):
            optimizer.load_state_dict(state)

    # torch's methods for pickling require the attributes that its constructor makes

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __repr__(self) -> str:
        return f"OptimizerPerHead({self.optimizers!r})"
