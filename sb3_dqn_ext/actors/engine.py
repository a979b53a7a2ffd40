"""The interface between the learner and the processes of its actors."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.actors.actor import Orders
from sb3_dqn_ext.actors.block import Block

__all__ = ["Arrival", "Engine"]

Weights = npt.NDArray[np.floating]


class Arrival(NamedTuple):
    """Something that has arrived from an actor: a block, or its end."""

    actor: int
    """the index of the actor"""
    life: int
    """how often the actor had been started before"""
    number: int
    """the number of the block in this life"""
    block: Block | None
    """the block; None if the actor has ended"""
    exit: str = ""
    """the reason why it has ended, as the end of a sentence"""


class Engine(Protocol):
    """A way to run actors."""

    def start(self, actor: int, life: int, seed: int) -> None:
        """
        Start an actor, or start it again.

        :param actor: its index
        :param life: the number of its starts before this one
        :param seed: the seed of its environments and generators
        """

    def broadcast(self, weights: Weights, n_updates: int) -> None:
        """
        Send weights to all actors.

        :param weights: (P,) the weights
        :param n_updates: the gradient steps with which they were learned
        """

    def order(self, orders: Orders) -> None:
        """
        Send orders to all actors.

        :param orders: the orders
        """

    def receive(self, seconds: float) -> Arrival | None:
        """
        Return the next arrival.

        :param seconds: the time to wait for it
        :return: the arrival; None if there is none in this time
        """

    def acknowledge(self, arrival: Arrival) -> None:
        """
        Acknowledge that a block is stored. The actor may then send another one.

        :param arrival: the block
        """

    def n_waiting(self) -> int:
        """Return the number of blocks that have arrived and were not received."""

    def close(self) -> None:
        """End all actors."""
