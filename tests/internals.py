"""Private attributes and methods of DQNExt that tests read or call."""

from typing import Any

import numpy as np
import torch as th

from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.algorithm.exploration import Exploration
from sb3_dqn_ext.batch_source import sample_batch


def drawn_batch(model: Any, size: int, n_batches: int = 1) -> Batch:
    """Draw a batch as a training does."""
    return sample_batch(model, size, n_batches)


def losses_of(model: Any, batch: Batch) -> th.Tensor:
    """Compute the (B,) losses of a batch, with their graph."""
    losses: th.Tensor = model.updater.loss(batch)[0]
    return losses


def n_updates_of(model: Any) -> int:
    """The number of updates so far."""
    return int(model._n_updates)


def update_target_network(model: Any) -> None:
    """Update the target network once, however long its interval is."""
    model._update_target_network()


def apply_changes(model: Any) -> None:
    """Look for changes of the networks, as a training does at its start."""
    model._follow_changes()


def exploration_of(model: Any) -> Exploration:
    """The exploration that was built by name."""
    exploration: Exploration = model.choices.exploration
    return exploration


def set_exploration(model: Any, exploration: Any) -> None:
    """Put another exploration in the place of the one that was built by name."""
    model.choices = model.choices._replace(exploration=exploration)


def exploration_state_of(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The numbers that the exploration keeps from step to step."""
    memory: dict[str, np.ndarray[Any, Any]] = model._exploration_state
    return memory


def last_observations_of(model: Any) -> Any:
    """The observations from which the next step continues."""
    return model._last_obs


def n_episodes_of(model: Any) -> int:
    """The number of episodes that have ended in training."""
    return int(model._episode_num)


def generator_of(model: Any) -> np.random.Generator:
    """The generator of random numbers of the exploration."""
    generator: np.random.Generator = model._generator
    return generator
