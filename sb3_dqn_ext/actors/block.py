"""
A block of steps that an actor sends to the learner.

Shapes: R steps, m environments of an actor.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.replay.observations import Obs, write_row

__all__ = ["ActorStep", "Block", "StoredStep", "block_steps", "make_block"]

Array = npt.NDArray[Any]
Info = dict[str, Any]


class ActorStep(NamedTuple):
    """One step of an actor's environments."""

    observations: Obs
    """(m, \\*obs) the observations before the step."""
    actions: Array
    """(m,) the actions."""
    rewards: Array
    """(m,) float32."""
    dones: npt.NDArray[np.bool_]
    """(m,) whether each episode ended."""
    finals: Mapping[int, Any]
    """The final observation of each episode that ended, by the index of the environment."""
    infos: Mapping[int, Info]
    """The infos that contain more than that no time limit has ended the episode, without final observations."""


@dataclass(frozen=True, eq=False)
class Block:
    """
    R steps of an actor. The last ones are lookahead: they are read by the n-step returns of the steps before them, and begin
    the next block, in which they count.

    :param observations: (R + 1, m, \\*obs) the observations before each step, and those after the last one
    :param actions: (R, m) the actions
    :param rewards: (R, m) the rewards
    :param dones: (R, m) whether each episode ended
    :param finals: for each step, see :class:`ActorStep`
    :param infos: for each step, see :class:`ActorStep`
    :param n_own: the number of steps without the lookahead
    :param n_updates: the gradient steps of the weights with which the block began
    :param seconds_waiting: the time that the actor has waited for the learner before the block
    :param td_errors: (n_own, m) absolute TD errors; None (default): the replay buffer needs none
    """

    observations: Obs
    actions: Array
    rewards: Array
    dones: npt.NDArray[np.bool_]
    finals: Sequence[Mapping[int, Any]]
    infos: Sequence[Mapping[int, Info]]
    n_own: int
    n_updates: int
    seconds_waiting: float
    td_errors: npt.NDArray[np.float32] | None = None


class StoredStep(NamedTuple):
    """A step of a block, as the learner stores it."""

    observations: Obs
    """(m, \\*obs) the observations before the step."""
    new_observations: Obs
    """(m, \\*obs) the observations after the step; where an episode ended, the first ones of the next episode."""
    next_observations: Obs
    """(m, \\*obs) the observations after the step; where an episode ended, its final ones."""
    actions: Array
    """(m,) the actions."""
    rewards: Array
    """(m,) the rewards."""
    dones: npt.NDArray[np.bool_]
    """(m,) whether each episode ended."""
    infos: list[Info]
    """(m,) the infos, as SB3's environments return them."""
    td_errors: npt.NDArray[np.float32] | None
    """(m,) the absolute TD errors, or None."""
    is_last: bool
    """Whether the step is the last one before the lookahead."""


def make_block(
    steps: Sequence[ActorStep], last_observations: Obs, n_own: int, n_updates: int, seconds_waiting: float
) -> Block:
    """
    Make a block without TD errors.

    :param steps: R steps
    :param last_observations: (m, \\*obs) the observations after the last step
    :param n_own: see :class:`Block`, as the arguments that follow
    :param n_updates: the gradient steps of the weights
    :param seconds_waiting: the time of waiting
    """
    return Block(
        _stacked([*(step.observations for step in steps), last_observations]),
        np.stack([step.actions for step in steps]),
        np.stack([step.rewards for step in steps]),
        np.stack([step.dones for step in steps]),
        [step.finals for step in steps],
        [step.infos for step in steps],
        n_own,
        n_updates,
        seconds_waiting,
    )


def _stacked(observations: Sequence[Any]) -> Obs:
    first = observations[0]
    if isinstance(first, dict):
        return {key: np.stack([one[key] for one in observations]) for key in first}
    return np.stack(observations)


def block_steps(block: Block) -> Iterator[StoredStep]:
    """
    Iterate over the steps of a block, and then over its lookahead.

    :param block: the block
    """
    for row, (finals, infos) in enumerate(zip(block.finals, block.infos, strict=True)):
        new_observations = _at(block.observations, row + 1)
        next_observations = new_observations
        if finals:
            next_observations = map_observation(np.array, new_observations)
            for env, final in finals.items():
                write_row(next_observations, env, final)
        yield StoredStep(
            _at(block.observations, row),
            new_observations,
            next_observations,
            block.actions[row],
            block.rewards[row],
            block.dones[row],
            [_whole_info(infos.get(env), finals.get(env)) for env in range(block.dones.shape[1])],
            None if block.td_errors is None or row >= block.n_own else block.td_errors[row],
            row == block.n_own - 1,
        )


def _at(observations: Obs, row: int) -> Obs:
    return map_observation(lambda array: array[row], observations)


def _whole_info(info: Info | None, final: Any) -> Info:
    whole = {"TimeLimit.truncated": False} if info is None else dict(info)
    if final is not None:
        whole["terminal_observation"] = final
    return whole
