"""The base class of callbacks that change the networks every k steps, and the counts of these steps."""

from typing import Any

import numpy as np

from sb3_dqn_ext._validation import check_number, choose
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks
from sb3_dqn_ext.callbacks.run_callback import RunCallback
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["PeriodicCallback", "check_unit", "step_counts"]

COUNTERS = {"gradient_steps": "_n_updates", "env_steps": "num_timesteps"}
"""the attribute of a model that counts the steps of each unit"""
UNIT_SYNONYMS = {"updates": "gradient_steps", "n_updates": "gradient_steps", "steps": "env_steps", "timesteps": "env_steps"}


def check_unit(unit: str) -> None:
    """:raises ArgumentError: if ``unit`` is neither ``"gradient_steps"`` nor ``"env_steps"``"""
    choose("unit", unit, COUNTERS, UNIT_SYNONYMS)


def step_counts(model: Any) -> dict[str, int]:
    """Return the steps of each unit that a model has made."""
    return {unit: getattr(model, name) for unit, name in COUNTERS.items()}


class PeriodicCallback(RunCallback):
    """
    A callback that changes the networks between two rollouts, as soon as they have made another k steps. It does not act
    after the last rollout of a run.

    Its random numbers come from the seed of the model and the number of its earlier acts, so that a resumed run draws the same
    ones, and training draws none other than without the callback. All its attributes are plain data, which checkpoints hold.

    :param every: k, the number of steps
    :param unit: the unit of the steps: ``"gradient_steps"``, or ``"env_steps"``, counted over all environments
    :param until: the last step after which the callback may act; None: there is none
    :raises ArgumentError: if an argument is out of its range; at the start of the run, if the model is no DQN
    """

    def __init__(self, every: int, unit: str, until: int | None) -> None:
        super().__init__()
        check_number("every", every, low=1, integer=True)
        check_unit(unit)
        if until is not None:
            check_number("until", until, low=1, integer=True)
            if until < every:
                raise ArgumentError(f"until={until!r} is below every={every!r}, so that the callback would never act.")
        self.every = every
        self.unit = unit
        self.until = until
        self.seed = 0
        self.n_acts = 0
        """the number of times that the callback has acted"""
        self.n_checked = 0
        """the step of the last check whether the callback has to act"""
        self.acted_at: dict[str, int] = {}
        """the steps of each unit at the last act, or at the start"""

    def _on_run_start(self, continues: bool) -> None:
        model: Any = self.model
        find_networks(model, type(self).__name__)
        if not continues:
            counts = step_counts(model)
            # without a seed, it is drawn from the operating system; a checkpoint holds it
            self.seed = int(np.random.SeedSequence(model.seed).generate_state(1)[0])
            self.n_acts, self.n_checked, self.acted_at = 0, counts[self.unit], counts

    @property
    def is_due(self) -> bool:
        """Whether the callback acts before the next rollout."""
        n_steps: int = getattr(self.model, COUNTERS[self.unit])
        is_over = self.until is not None and n_steps > self.until
        return n_steps // self.every > self.n_checked // self.every and not is_over

    def steps_since_act(self, unit: str) -> int:
        """Return the steps since the last act, or since the start; 0 if an act is due."""
        return 0 if self.is_due else step_counts(self.model)[unit] - self.acted_at[unit]

    def _before_rollout(self) -> None:
        if self.is_due:
            self._act()
            self.n_acts += 1
            self.acted_at = step_counts(self.model)
        self.n_checked = getattr(self.model, COUNTERS[self.unit])

    def _draw_seed(self) -> int:
        """Return the seed of the random numbers of the next act."""
        return int(np.random.SeedSequence((self.seed, self.n_acts)).generate_state(1)[0])

    def _act(self) -> None:
        """Change the networks."""
        raise NotImplementedError
