"""A diagnostic of exploration: the actions that are tried, and the states that are visited."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.exploration import EpsilonLadder
from sb3_dqn_ext.callbacks.diagnostics.model_access import (
    is_deterministic,
    is_offline,
    q_values,
    state_preserved,
    stored_rows,
)
from sb3_dqn_ext.callbacks.diagnostics.pictures import DrawingDiagnostic
from sb3_dqn_ext.callbacks.diagnostics.visits import count_visits, empty_grid

__all__ = ["ExplorationCallback"]

Array = npt.NDArray[Any]
COMPARISON_INTERVAL = 256
"""the number of calls of ``env.step`` between two comparisons with the greedy actions"""
MAX_LISTED_ACTIONS = 18
"""the largest number of actions that are logged one by one: Atari has so many"""


def exploration_rates(model: Any) -> dict[str, float]:
    """
    Return the exploration rates that a model is scheduled to use now.

    :param model: the model
    :return: epsilon, the epsilon of each environment, or the temperature
    """
    rate, choices = float(model.exploration_rate), getattr(model, "choices", None)
    exploration = None if choices is None else choices.exploration
    if isinstance(exploration, EpsilonLadder):
        actors = getattr(model, "actors", None)  # each actor has one epsilon
        n = model.n_envs if actors is None else actors["n_actors"]
        return {f"epsilon_{i}": float(one) for i, one in enumerate(exploration.epsilons(rate, n))}
    if exploration is None:  # SB3's
        return {"epsilon": rate}
    name, rate_used = exploration.log_entry(rate, model.n_envs)
    return {"temperature" if name.endswith("temperature") else "epsilon": float(rate_used)}


class ExplorationCallback(DrawingDiagnostic):
    """
    A diagnostic that logs the actions that are tried.

    - ``exploration/epsilon``, or ``exploration/temperature``: the scheduled rate; with ``epsilon_ladder``
      ``exploration/epsilon_0`` ..., the rate of each environment, or of each actor
    - ``exploration/exploratory``: the share of actions that are not the greedy one, in every 256th step since the last
      measurement. A random action can be the greedy one by chance: with A actions, the share of epsilon-greedy is
      ``epsilon * (A - 1) / A``
    - ``exploration/action_0`` ...: the share of each action, if there are at most 18; ``exploration/actions``: their histogram
    - ``exploration/visited``: for observations of two components, a picture of how often each was visited since the run began.
      It needs matplotlib

    Actions and observations are those that were stored in the replay buffer since the last measurement, as far as it still
    contains them.

    :param every: environment steps between two measurements. None (default): about 40 measurements in a run, at most one in
        10,000 steps, but 10 in any run
    :param cells: the resolution of the picture in each direction: an even number of cells
    :raises ArgumentError: if an argument is out of its range
    """

    group, picture = "exploration", "visited"

    def __init__(self, every: int | None = None, cells: int = 60) -> None:
        super().__init__(every)
        check_number("cells", cells, low=2, integer=True)
        self.cells = cells + cells % 2
        self._n_rows_read = 0  # the number of rows that were stored before the last measurement
        self._n_compared = self._n_exploratory = 0
        self._visited: Any = None  # a VisitGrid

    def _reset(self) -> None:
        model: Any = self.model
        self._n_rows_read = model._n_calls
        self._n_compared = self._n_exploratory = 0
        self._visited = None

    def _prepare(self) -> None:
        self._is_deterministic = is_deterministic(self._networks[0])

    def _next_observation(self) -> int:
        regular = self.num_timesteps + COMPARISON_INTERVAL * self.training_env.num_envs
        return min(regular, self._measurement_due) if self._measurement_due > self.num_timesteps else regular

    def _on_run_step(self, locals_: Mapping[str, Any]) -> None:
        if not is_offline(self.model):
            self._compare(locals_)
        self._observation_due = self._next_observation()

    def _after_measurement(self) -> None:
        self._observation_due = min(self._observation_due, self._measurement_due)

    def _compare(self, locals_: Mapping[str, Any]) -> None:
        """Compare the actions of this step with the greedy actions at the observations before it."""
        model: Any = self.model
        updater = getattr(model, "updater", None)
        numpy_q_values = None if updater is None else updater.numpy_q_values  # training chooses by it, too
        if numpy_q_values is None:
            # preserving the state takes longer than the comparison
            with nullcontext() if self._is_deterministic else state_preserved(model), th.no_grad():
                q = q_values(self._networks[0], model.policy.obs_to_tensor(model._last_obs)[0]).cpu().numpy()
        else:
            q = numpy_q_values(model._last_obs)  # (n_envs, A)
        differ = q.argmax(axis=1) != locals_["actions"]
        self._n_compared += len(differ)
        self._n_exploratory += int(differ.sum())

    def _measure(self) -> None:
        model: Any = self.model
        if is_offline(model):
            return
        buffer = model.replay_buffer
        rates = exploration_rates(model)
        self._record(rates, in_table=len(rates) == 1)
        if self._n_compared:
            self._record({"exploratory": self._n_exploratory / self._n_compared})
        self._n_compared = self._n_exploratory = 0
        n_new = min(model._n_calls - self._n_rows_read, stored_rows(buffer)[1])
        self._n_rows_read = model._n_calls
        if n_new == 0:
            return
        rows = (buffer.pos - 1 - np.arange(n_new)) % buffer.buffer_size  # (n,)
        self._record_actions(buffer.actions[rows].ravel().astype(np.int64))
        space = model.observation_space
        if isinstance(space, spaces.Box) and space.shape == (2,):
            self._count_visits(space, buffer.observations[rows].reshape(-1, 2))

    def _record_actions(self, actions: Array) -> None:
        """
        Log the share of each action.

        :param actions: (N,) the actions since the last measurement
        """
        model: Any = self.model
        n_actions = int(model.action_space.n)
        shares = np.bincount(actions, minlength=n_actions) / len(actions)
        if n_actions <= MAX_LISTED_ACTIONS:
            self._record({f"action_{i}": float(share) for i, share in enumerate(shares)}, in_table=False)
        self._record_histogram("actions", actions)

    def _count_visits(self, space: spaces.Box, points: Array) -> None:
        """
        Add visits to the grid, which the first call makes, and draw its picture.

        :param space: the space of the observations, which have two components
        :param points: (N, 2) the observations since the last measurement
        """
        if self._visited is None:
            self._visited = empty_grid(space, points, self.cells)
        counts, low, high = self._visited
        self._visited = count_visits(counts, low, high, points)
        self._set_picture({"visited": self._visited, "step": self.num_timesteps})

    def _draw(self, data: Any) -> Array:
        from sb3_dqn_ext.callbacks.diagnostics.figures import heat_map_image  # matplotlib takes half a second to import

        counts, low, high = data["visited"]
        return heat_map_image(counts, low, high, f"step {data['step']}: visited states")
