"""A diagnostic of TD errors and of the priorities of replay."""

from typing import Any

import numpy as np

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.metrics import (
    age_group_means,
    effective_sample_size,
    error_metrics,
    largest_weight,
)
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
    A diagnostic that logs the TD errors ``r + discount * max_a Q_target(s', a) - Q(s, a)`` of transitions of the replay
    buffer, in the unit of returns.

    The transitions are drawn uniformly, also where training draws by priority. Their TD errors are those that training would
    compute: over n steps, of normalised rewards, with the model's target policy. Of return distributions, they are those of
    the expectations.

    - ``errors/mean``, ``errors/std``; above 0, the targets are higher than the predictions
    - ``errors/abs_mean``, ``errors/abs_p95``, ``errors/abs_max``: the mean, the 95th percentile and the maximum of the
      absolute errors
    - ``errors/terminal``, ``errors/bootstrapped``: the mean absolute error where the target is a reward only, and where it is
      not. If no terminal transition was drawn, others are drawn among the terminal ones
    - ``errors/age_1_of_4`` ... ``age_4_of_4``: the mean absolute error in the newest quarter of the buffer ... the oldest
    - ``errors/histogram``

    With prioritized replay (https://arxiv.org/abs/1511.05952), also the inequality of its draws:

    - ``errors/effective_sample_size``: ``1 / sum_i P(i)^2``, the number of transitions from which uniform draws would be as
      diverse; ``errors/effective_share``: that number over the number of transitions
    - ``errors/beta``; ``errors/largest_weight``: the largest ``(N P(i))^-beta``, by which all weights are divided

    :param every: environment steps between two measurements. None (default): about 40 measurements in a run, at most one in
        10,000 steps, but 10 in any run
    :param batch_size: the number of transitions in a measurement
    :raises ArgumentError: if an argument is out of its range
    """

    group = "errors"

    def __init__(self, every: int | None = None, batch_size: int = 512) -> None:
        super().__init__(every)
        check_number("batch_size", batch_size, low=1, integer=True)
        self.batch_size = batch_size

    def _measure(self) -> None:
        model: Any = self.model
        buffer, generator = model.replay_buffer, self._generator()
        indices = sample_indices(buffer, self.batch_size, generator)
        if len(indices) == 0:
            return
        batch = read_transitions(model, indices)
        errors = td_errors(model, batch).double().cpu().numpy()  # (B,)
        ended = (batch.discounts == 0).cpu().numpy()  # (B,)
        sizes = np.abs(errors)
        self._record(error_metrics(errors))
        self._record({"terminal": _mean(sizes[ended]) if ended.any() else self._terminal_error(generator)})
        self._record({"bootstrapped": _mean(sizes[~ended])})
        ages = transition_ages(buffer, indices // buffer.n_envs)
        means = age_group_means(sizes, ages, stored_rows(buffer)[1] * buffer.n_envs, N_AGE_GROUPS)
        self._record({f"age_{i}_of_{N_AGE_GROUPS}": mean for i, mean in enumerate(means, 1)}, in_table=False)
        self._record_histogram("histogram", errors)
        priorities = buffer.sampler.priorities() if isinstance(buffer, DQNReplayBuffer) else None
        if priorities is not None:
            self._record(prioritization_metrics(priorities, buffer.sampler.beta(1 - model._current_progress_remaining)))

    def _terminal_error(self, generator: np.random.Generator) -> float | None:
        """Return the mean absolute TD error of stored transitions that ended an episode; None if there are none."""
        model: Any = self.model
        ends = terminal_indices(model.replay_buffer)
        if len(ends) == 0:
            return None
        # SB3's buffers choose the environment of a row at random, so that each index is drawn several times
        batch = read_transitions(model, generator.choice(ends, size=self.batch_size))
        errors = td_errors(model, batch).double().cpu().numpy()
        return _mean(np.abs(errors[(batch.discounts == 0).cpu().numpy()]))


def _mean(sizes: Any) -> float | None:
    return float(sizes.mean()) if len(sizes) else None


def prioritization_metrics(priorities: Priorities, beta: float) -> dict[str, float]:
    """
    Measure the inequality of the probabilities with which transitions are drawn.

    :param priorities: the priorities of all transitions that can be replayed
    :param beta: the exponent of the importance weights
    :return: the metrics by their names
    """
    size = effective_sample_size(priorities.values * priorities.copies)
    return {
        "effective_sample_size": size,
        "effective_share": size / len(priorities.indices),
        "beta": beta,
        "largest_weight": largest_weight(priorities.values, priorities.copies, beta),
    }
