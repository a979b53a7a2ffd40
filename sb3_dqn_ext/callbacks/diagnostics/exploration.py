"""What is tried, and what is seen by that."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.exploration import EpsilonLadder
from sb3_dqn_ext.callbacks.diagnostics.model_access import is_deterministic, q_values, state_preserved, stored_rows
from sb3_dqn_ext.callbacks.diagnostics.pictures import DrawingDiagnostic
from sb3_dqn_ext.callbacks.diagnostics.visits import count_visits, empty_grid

__all__ = ["ExplorationCallback"]

Array = npt.NDArray[Any]
COMPARISON_INTERVAL = 256  # calls of ``env.step`` between two comparisons with the greedy action
MAX_LISTED_ACTIONS = 18  # actions that have a line each in the log: as many as Atari has


def exploration_rates(model: Any) -> dict[str, float]:
    """
    :param model: the model
    :return: what its exploration is scheduled to do: epsilon, that of each environment, or the temperature
    """
    rate, choices = float(model.exploration_rate), getattr(model, "choices", None)
    exploration = None if choices is None else choices.exploration
    if isinstance(exploration, EpsilonLadder):
        return {f"epsilon_{i}": float(one) for i, one in enumerate(exploration.epsilons(rate, model.n_envs))}
    if exploration is None:  # SB3's
        return {"epsilon": rate}
    name, shown = exploration.log_entry(rate, model.n_envs)
    return {"temperature" if name.endswith("temperature") else "epsilon": float(shown)}


class ExplorationCallback(DrawingDiagnostic):
    """
    Log what is tried.

    - ``exploration/epsilon``, or ``exploration/temperature``: what is scheduled; with ``epsilon_ladder``
      ``exploration/epsilon_0`` ..., of each environment
    - ``exploration/exploratory``: the share of actions that are not the greedy one. A random action is greedy by chance, too:
      with A actions, epsilon-greedy has a share of ``epsilon * (A - 1) / A``. Of the steps since the last look, every 256th
    - ``exploration/action_0`` ...: the share of each action, if there are at most 18; ``exploration/actions``: their histogram
    - ``exploration/visited``: for observations of two numbers, a picture of where they have been since the run began.
      It needs matplotlib

    Actions and observations are those that were stored in the replay memory since the last look, as far as they still are
    there.

    :param every: environment steps between two looks
    :param cells: how fine the picture is, in each direction; an even number
    :raises ArgumentError: if an argument cannot be
    """

    group, picture = "exploration", "visited"

    def __init__(self, every: int = 10_000, cells: int = 60) -> None:
        super().__init__(every)
        check_number("cells", cells, low=2, integer=True)
        self.cells = cells + cells % 2
        self._n_rows_seen = 0  # rows that were stored before the last look
        self._n_compared = self._n_exploratory = 0
        self._visited: Any = None  # counts, and where they begin and end

    def _forget(self) -> None:
        model: Any = self.model
        self._n_rows_seen = model._n_calls
        self._n_compared = self._n_exploratory = 0
        self._visited = None

    def _begin(self) -> None:
        self._is_quiet = is_deterministic(self._networks[0])

    def _next_observation(self) -> int:
        regular = self.num_timesteps + COMPARISON_INTERVAL * self.training_env.num_envs
        return min(regular, self._log_at) if self._log_at > self.num_timesteps else regular

    def _on_run_step(self, seen: Mapping[str, Any]) -> None:
        self._compare(seen)
        self._due = self._next_observation()

    def _after_look(self) -> None:
        self._due = min(self._due, self._log_at)

    def _compare(self, seen: Mapping[str, Any]) -> None:
        """The actions of this step with those that are greedy where they were chosen."""
        model: Any = self.model
        updater = getattr(model, "updater", None)
        by_numpy = None if updater is None else updater.numpy_q_values  # as training chooses then
        if by_numpy is None:
            # to keep the generators takes longer than to look
            with nullcontext() if self._is_quiet else state_preserved(model), th.no_grad():
                q = q_values(self._networks[0], model.policy.obs_to_tensor(model._last_obs)[0]).cpu().numpy()
        else:
            q = by_numpy(model._last_obs)  # (n_envs, A)
        differ = q.argmax(axis=1) != seen["actions"]
        self._n_compared += len(differ)
        self._n_exploratory += int(differ.sum())

    def _look(self) -> None:
        model: Any = self.model
        memory = model.replay_buffer
        found = exploration_rates(model)
        self._record(found, in_table=len(found) == 1)
        if self._n_compared:
            self._record({"exploratory": self._n_exploratory / self._n_compared})
        self._n_compared = self._n_exploratory = 0
        n_new = min(model._n_calls - self._n_rows_seen, stored_rows(memory)[1])
        self._n_rows_seen = model._n_calls
        if n_new == 0:
            return
        rows = (memory.pos - 1 - np.arange(n_new)) % memory.buffer_size  # (n,)
        self._record_actions(memory.actions[rows].ravel().astype(np.int64))
        space = model.observation_space
        if isinstance(space, spaces.Box) and space.shape == (2,):
            self._count(space, memory.observations[rows].reshape(-1, 2))

    def _record_actions(self, actions: Array) -> None:
        """:param actions: (N,)"""
        model: Any = self.model
        n_actions = int(model.action_space.n)
        shares = np.bincount(actions, minlength=n_actions) / len(actions)
        if n_actions <= MAX_LISTED_ACTIONS:
            self._record({f"action_{i}": float(share) for i, share in enumerate(shares)}, in_table=False)
        self._record_histogram("actions", actions)

    def _count(self, space: spaces.Box, points: Array) -> None:
        """:param points: (N, 2)"""
        if self._visited is None:
            self._visited = empty_grid(space, points, self.cells)
        counts, low, high = self._visited
        self._visited = count_visits(counts, low, high, points)
        self._show({"visited": self._visited, "step": self.num_timesteps})

    def _draw(self, data: Any) -> Array:

        counts, low, high = data["visited"]
        return heat_map(counts, low, high, f"step {data['step']}: visited states")
