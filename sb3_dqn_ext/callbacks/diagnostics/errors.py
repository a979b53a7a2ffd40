"""How wrong the network is, by its own targets."""

from typing import Any

import numpy as np

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.metrics import age_group_means, effective_sample_size, error_metrics, largest_weight
from sb3_dqn_ext.callbacks.diagnostics.model_access import (
    read_transitions,
    sample_indices,
    stored_rows,
    td_errors,
    terminal_indices,
    transition_ages,
)
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.sampler_base import Priorities

__all__ = ["TDErrorsCallback"]

N_AGE_GROUPS = 4


class TDErrorsCallback(Diagnostic):
    """
    Log the TD errors ``r + discount * max_a Q_target(s', a) - Q(s, a)`` of transitions of the replay memory, all of which are
    drawn equally often, whatever training prefers. They are those that training would see: over n steps, of normalised
    rewards, with the model's target policy; of distributions of returns, their expectations. In the unit of returns.

    - ``errors/mean``, ``errors/std``; above 0, the targets are higher than the predictions
    - ``errors/abs_mean``, ``errors/abs_p95``, ``errors/abs_max``: the mean size, its 95th percentile, and the largest
    - ``errors/terminal``, ``errors/bootstrapped``: the mean size where the target is a reward only, and where it is not. If
      there is no such transition among those that were drawn, further ones are looked for
    - ``errors/age_1_of_4`` ... ``age_4_of_4``: the mean size among the newest quarter of the memory ... the oldest
    - ``errors/histogram``

    With prioritized replay (https://arxiv.org/abs/1511.05952), also how unequal its draws are:

    - ``errors/effective_sample_size``: ``1 / sum_i P(i)^2``, from how many transitions, drawn equally often, the draws would
      be as diverse; ``errors/effective_share``: that over the number there is
    - ``errors/beta``; ``errors/largest_weight``: the largest ``(N P(i))^-beta``, by which all weights are divided

    :param every: environment steps between two looks
    :param batch_size: how many transitions
    :raises ArgumentError: if an argument cannot be
    """

    group = "errors"

    def __init__(self, every: int = 10_000, batch_size: int = 512) -> None:
        super().__init__(every)
        check_number("batch_size", batch_size, low=1, integer=True)
        self.batch_size = batch_size

    def _look(self) -> None:
        model: Any = self.model
        memory, generator = model.replay_buffer, self._generator()
        cells = sample_indices(memory, self.batch_size, generator)
        if len(cells) == 0:
            return
        batch = read_transitions(model, cells)
        errors = td_errors(model, batch).double().cpu().numpy()  # (B,)
        ended = (batch.discounts == 0).cpu().numpy()  # (B,)
        sizes = np.abs(errors)
        self._record(error_metrics(errors))
        self._record({"terminal": _mean(sizes[ended]) if ended.any() else self._of_terminal(generator)})
        self._record({"bootstrapped": _mean(sizes[~ended])})
        rows = cells // memory.n_envs
        parts = age_group_means(sizes, transition_ages(memory, rows), stored_rows(memory)[1] * memory.n_envs, N_AGE_GROUPS)
        self._record({f"age_{i}_of_{N_AGE_GROUPS}": part for i, part in enumerate(parts, 1)}, in_table=False)
        self._record_histogram("histogram", errors)
        priorities = memory.sampler.priorities() if isinstance(memory, DQNReplayBuffer) else None
        if priorities is not None:
            self._record(prioritization_metrics(priorities, memory.sampler.beta(1 - model._current_progress_remaining)))

    def _of_terminal(self, generator: np.random.Generator) -> float | None:
        """The mean size of the errors of stored transitions that ended an episode."""
        model: Any = self.model
        ends = terminal_indices(model.replay_buffer)
        if len(ends) == 0:
            return None
        # of SB3's memories the row can be named, and not the environment: each is asked for several times
        batch = read_transitions(model, generator.choice(ends, size=self.batch_size))
        errors = td_errors(model, batch).double().cpu().numpy()
        return _mean(np.abs(errors[(batch.discounts == 0).cpu().numpy()]))


def _mean(sizes: Any) -> float | None:
    return float(sizes.mean()) if len(sizes) else None


def prioritization_metrics(priorities: Priorities, beta: float) -> dict[str, float]:
    """
    Measure how unequal the probabilities of draws are.

    :param priorities: those of all transitions that can be replayed
    :param beta: the exponent of the importance weights
    :return: the numbers by their names
    """
    size = effective_sample_size(priorities.values * priorities.copies)
    return {
        "effective_sample_size": size,
        "effective_share": size / len(priorities.indices),
        "beta": beta,
        "largest_weight": largest_weight(priorities.values, priorities.copies, beta),
    }
