"""A diagnostic of Q-values."""

from typing import Any

import torch as th

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.action_masks import is_legal
from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.metrics import action_gap, changed_share, parameter_distance, value_metrics
from sb3_dqn_ext.callbacks.diagnostics.model_access import q_values, read_observations, sample_indices, to_network_input

__all__ = ["QValuesCallback"]


class QValuesCallback(Diagnostic):
    """
    A diagnostic that logs the Q-values of a fixed set of states, and how they change, in the unit of returns. The states are
    drawn once from the replay buffer, as in Mnih et al. (https://arxiv.org/abs/1312.5602, section 5.1).

    - ``values/mean``: the mean over the states of the largest Q-value, ``max_a Q(s, a)``
    - ``values/min``, ``values/max``: the smallest and the largest of all
    - ``values/spread``: the mean over the states of ``max_a Q(s, a) - min_a Q(s, a)``
    - ``values/action_gap``: the mean over the states of the best minus the second best Q-value
      (https://arxiv.org/abs/1512.04860)
    - ``values/churn``: the share of states whose greedy action has changed since the last measurement
      (https://arxiv.org/abs/2206.00730)
    - ``values/target_outputs``: the mean of ``|Q(s, a) - Q_target(s, a)|``; ``values/target_parameters``: the Euclidean
      distance of the two networks' parameters. Both are left out where the model has no target network
    - ``values/histogram``: all Q-values of all states

    :param every: environment steps between two measurements. None (default): about 40 measurements in a run, at most one in
        10,000 steps, but 10 in any run
    :param batch_size: the number of states
    :raises ArgumentError: if an argument is out of its range
    """

    group = "values"

    def __init__(self, every: int | None = None, batch_size: int = 256) -> None:
        super().__init__(every)
        check_number("batch_size", batch_size, low=1, integer=True)
        self.batch_size = batch_size
        self._states: Any = None  # observations as the replay buffer stores them
        self._greedy: Any = None  # the greedy action in each at the last measurement

    def _reset(self) -> None:
        self._states = self._greedy = None

    def _measure(self) -> None:
        model: Any = self.model
        buffer = model.replay_buffer
        if self._states is None:
            indices = sample_indices(buffer, self.batch_size, self._generator())
            if len(indices) == 0:
                return
            self._states = read_observations(buffer, indices)
        states, (online, target) = to_network_input(model, self._states), self._networks
        values = q_values(online, states)
        q = values.double().cpu().numpy()  # (B, A)
        greedy = q.argmax(axis=1)  # (B,)
        self._record(value_metrics(q))
        legal = is_legal(q)  # (B, A)
        with_choice = legal.sum(axis=1) > 1  # (B,)
        if with_choice.any():
            self._record({"action_gap": action_gap(q[with_choice])})
        if self._greedy is not None:
            self._record({"churn": changed_share(self._greedy, greedy)})
        if target is not online:
            apart = float(th.mean(th.abs(values - q_values(target, states))[th.from_numpy(legal)]))
            self._record(
                {"target_outputs": apart, "target_parameters": parameter_distance(online.parameters(), target.parameters())}
            )
        self._record_histogram("histogram", q[legal])
        self._greedy = greedy
