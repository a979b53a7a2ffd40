"""A diagnostic of the replay buffer: the transitions that it contains, and those that training draws."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.callbacks.diagnostics.model_access import sample_rows, transition_ages
from sb3_dqn_ext.callbacks.diagnostics.windowed import WindowedDiagnostic
from sb3_dqn_ext.replay import DQNReplayBuffer

__all__ = ["ReplayHealthCallback"]

Array = npt.NDArray[Any]
MAX_DRAWS = 64
"""the number of latest draws that are measured"""
MAX_REWARD_ROWS = 5_000
"""the largest number of rows whose rewards are measured"""


class SampleMethodHook:
    """
    A replacement of a method of SB3's replay buffers that reads drawn transitions. It passes them to a function.

    A buffer that is saved meanwhile is saved without the replacement.

    :param buffer: the replay buffer
    :param name: the name of its method
    :param function: called with the first argument of the method and its result
    """

    def __init__(self, buffer: Any, name: str, function: Callable[[Array, Any], None]) -> None:
        self._buffer, self._name, self._function = buffer, name, function
        self._method = getattr(buffer, name)
        self._is_needed = True
        setattr(buffer, name, self)

    def __call__(self, drawn: Array, *args: Any, **kwargs: Any) -> Any:
        samples = self._method(drawn, *args, **kwargs)
        if self._is_needed:
            self._function(drawn, samples)
        return samples

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._buffer, self._name)

    def remove(self) -> None:
        """Remove the hook. If a newer hook wraps this one, it is removed with that one."""
        self._is_needed = False
        attributes = vars(self._buffer)
        while isinstance(outermost := attributes.get(self._name), SampleMethodHook) and not outermost._is_needed:
            del attributes[self._name]
            if isinstance(outermost._method, SampleMethodHook):
                attributes[self._name] = outermost._method


class ReplayHealthCallback(WindowedDiagnostic):
    """
    A diagnostic that logs properties of the replay buffer, and of the latest 64 draws of training. These are observed in the
    last fiftieth of the interval, or from one training to the next, if that is longer. If there are none, the next draws are
    observed.

    - ``replay/size``: the number of stored transitions; ``replay/fill``: that number over the capacity
    - ``replay/age_mean``, ``replay/age_median``, ``replay/age_max``: environment steps from the time when drawn transitions
      were stored to the time when they were drawn (https://arxiv.org/abs/2007.06700); ``replay/ages``: their histogram
    - ``replay/terminal_stored``, ``replay/terminal_sampled``: the share of transitions that terminated an episode, without
      those of time limits, among the stored and among the drawn transitions. With SB3's n-step buffer, drawn transitions that
      reached such an end
    - ``replay/reward_mean``, and the histogram ``replay/rewards``: stored rewards of 5000 rows

    For buffers that draw otherwise, such as SB3's HerReplayBuffer, only the stored transitions are measured.

    :param every: environment steps between two measurements. None (default): about 40 measurements in a run, at most one in
        10,000 steps, but 10 in any run
    :raises ArgumentError: if ``every`` is no whole number of at least 1
    """

    group = "replay"

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every)
        # of each draw: indices, the write position of the buffer, None; or rows, the position, and the ends of the transitions
        self._draws: deque[tuple[Any, ...]] = deque(maxlen=MAX_DRAWS)
        self._remove_hook: Callable[[], None] | None = None

    def _prepare(self) -> None:
        self._restore_model()
        self._draws.clear()

    def _start_observing(self) -> None:
        model: Any = self.model
        if self._remove_hook is not None:
            return
        buffer, add = model.replay_buffer, self._add_indices
        if isinstance(buffer, DQNReplayBuffer):
            buffer.sample_hooks.append(add)
            self._remove_hook = partial(buffer.sample_hooks.remove, add)
        else:
            self._remove_hook = SampleMethodHook(buffer, "_get_samples", self._add_samples).remove

    def _has_observations(self) -> bool:
        return bool(self._draws)

    def _restore_model(self) -> None:
        if self._remove_hook is not None:
            self._remove_hook()
        self._remove_hook = None

    def _add_indices(self, indices: Array) -> None:
        model: Any = self.model
        buffer = model.replay_buffer
        stored = indices[indices < buffer.buffer_size * buffer.n_envs]  # the others are demonstrations
        if len(stored):
            self._draws.append((stored, buffer.pos, None))

    def _add_samples(self, rows: Array, samples: Any) -> None:
        model: Any = self.model
        self._draws.append((rows, model.replay_buffer.pos, samples.dones))

    def _measure(self) -> None:
        model: Any = self.model
        buffer = model.replay_buffer
        n_rows = buffer.size()
        if n_rows == 0:
            return
        ended = buffer.dones > buffer.timeouts  # (rows, n_envs)
        self._record({"size": n_rows * buffer.n_envs, "fill": n_rows / buffer.buffer_size})
        self._record({"terminal_stored": float(ended[:n_rows].mean())})
        rows = np.arange(n_rows) if n_rows <= MAX_REWARD_ROWS else sample_rows(buffer, MAX_REWARD_ROWS, self._generator())
        rewards = buffer.rewards[rows].ravel()
        self._record({"reward_mean": float(rewards.mean())})
        self._record_histogram("rewards", rewards)
        if self._draws:
            self._record_draws(buffer, ended)

    def _record_draws(self, buffer: Any, ended: Array) -> None:
        """
        Log the draws of training.

        :param buffer: the replay buffer
        :param ended: (rows, n_envs) whether the step of each transition terminated an episode
        """
        ages, terminal = [], []
        for drawn, pos, dones in self._draws:
            rows = drawn // buffer.n_envs if dones is None else drawn
            ages.append(transition_ages(buffer, rows, pos))
            terminal.append(ended.take(drawn) if dones is None else dones.cpu().numpy().ravel() > 0)
        all_ages = np.concatenate(ages)
        share = float(np.concatenate(terminal).mean())
        self._record(
            {"age_mean": float(all_ages.mean()), "age_median": float(np.median(all_ages)), "age_max": int(all_ages.max())}
        )
        self._record({"terminal_sampled": share})
        self._record_histogram("ages", all_ages)
