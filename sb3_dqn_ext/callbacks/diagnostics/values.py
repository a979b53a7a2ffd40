"""What the network says of actions."""

from typing import Any

import torch as th

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.metrics import action_gap, changed_share, parameter_distance, value_metrics
from sb3_dqn_ext.callbacks.diagnostics.model_access import q_values, sample_indices, to_network_input

__all__ = ["QValuesCallback"]


class QValuesCallback(Diagnostic):
    """
    Log the Q-values of a fixed set of states, which is drawn once from the replay memory, as Mnih et al. do
    (https://arxiv.org/abs/1312.5602, section 5.1), and how they move. All in the unit of returns.

    - ``values/mean``: the mean over the states of the largest Q-value, ``max_a Q(s, a)``
    - ``values/min``, ``values/max``: the smallest and the largest of all
    - ``values/spread``: the mean over the states of ``max_a Q(s, a) - min_a Q(s, a)``
    - ``values/action_gap``: that of the best minus the second best action (https://arxiv.org/abs/1512.04860)
    - ``values/churn``: the share of states whose greedy action is another than at the look before
      (https://arxiv.org/abs/2206.00730)
    - ``values/target_outputs``: the mean of ``|Q(s, a) - Q_target(s, a)|``; ``values/target_parameters``: the Euclidean
      distance of the two networks' parameters. Both are left out where the model has no target network
    - ``values/histogram``: all Q-values of all states

    :param every: environment steps between two looks
    :param batch_size: how many states
    :raises ArgumentError: if an argument cannot be
    """

    group = "values"

    def __init__(self, every: int = 10_000, batch_size: int = 256) -> None:
        super().__init__(every)
        check_number("batch_size", batch_size, low=1, integer=True)
        self.batch_size = batch_size
        self._states: Any = None  # as they are stored
        self._greedy: Any = None  # what was chosen in each at the last look

    def _forget(self) -> None:
        self._states = self._greedy = None

    def _look(self) -> None:
        model: Any = self.model
        memory = model.replay_buffer
        if self._states is None:
            cells = sample_indices(memory, self.batch_size, self._generator())
            if len(cells) == 0:
                return
            places = cells // memory.n_envs, cells % memory.n_envs
            self._states = map_observation(lambda stored: stored[places], memory.observations)
        states, (online, target) = to_network_input(model, self._states), self._networks
        values = q_values(online, states)
        q = values.double().cpu().numpy()  # (B, A)
        greedy = q.argmax(axis=1)  # (B,)
        self._record(value_metrics(q))
        if q.shape[1] > 1:
            self._record({"action_gap": action_gap(q)})
        if self._greedy is not None:
            self._record({"churn": changed_share(self._greedy, greedy)})
        if target is not online:
            apart = float(th.mean(th.abs(values - q_values(target, states))))
            self._record(
                {"target_outputs": apart, "target_parameters": parameter_distance(online.parameters(), target.parameters())}
            )
        self._record_histogram("histogram", q.ravel())
        self._greedy = greedy
