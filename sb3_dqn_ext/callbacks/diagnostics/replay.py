"""What lies in the replay memory, and what is drawn from it."""

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
MAX_DRAWS = 64  # that are remembered
MAX_REWARD_ROWS = 5_000  # rows that are looked at


class SampleMethodHook:
    """
    Takes the place of a method of a replay memory of SB3 that reads what was drawn, and tells what it reads.

    A memory that is saved meanwhile is saved without it.

    :param memory: the replay memory
    :param name: of its method
    :param tell: is told what is read, and what was read from there
    """

    def __init__(self, memory: Any, name: str, tell: Callable[[Array, Any], None]) -> None:
        self._memory, self._name, self._tell = memory, name, tell
        self._method = getattr(memory, name)
        self._is_needed = True
        setattr(memory, name, self)

    def __call__(self, places: Array, *args: Any, **kwargs: Any) -> Any:
        read = self._method(places, *args, **kwargs)
        if self._is_needed:
            self._tell(places, read)
        return read

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._memory, self._name)

    def leave(self) -> None:
        """Let the memory be, unless another one has come around, which will be the last to leave."""
        self._is_needed = False
        held = vars(self._memory)
        while isinstance(outermost := held.get(self._name), SampleMethodHook) and not outermost._is_needed:
            del held[self._name]
            if isinstance(outermost._method, SampleMethodHook):
                held[self._name] = outermost._method


class ReplayHealthCallback(WindowedDiagnostic):
    """
    Log what lies in the replay memory, and what training has drawn from it: the latest 64 draws of the last fiftieth of the
    time between two looks, or from one training to the next, if that is longer; where there were none, the next ones.

    - ``replay/size``: transitions that are stored; ``replay/fill``: that over how many can be
    - ``replay/age_mean``, ``replay/age_median``, ``replay/age_max``: environment steps since the drawn transitions were
      stored, at the time they were drawn (https://arxiv.org/abs/2007.06700); ``replay/ages``: their histogram
    - ``replay/terminal_stored``, ``replay/terminal_sampled``: the share of transitions that ended an episode, other than by a
      time limit, of those that are stored and of those that were drawn (with SB3's n-step memory: that reached such an end)
    - ``replay/reward_mean``, and the histogram ``replay/rewards``: rewards as they are stored, of 5000 rows

    Of memories that draw in a way of their own, such as SB3's HerReplayBuffer, only what is stored is logged.

    :param every: environment steps between two looks
    :raises ArgumentError: if it cannot be
    """

    group = "replay"

    def __init__(self, every: int = 10_000) -> None:
        super().__init__(every)
        # of each: what was read, the write position at that time, and whether it had ended if the places do not tell
        self._draws: deque[tuple[Any, ...]] = deque(maxlen=MAX_DRAWS)
        self._stop_watching: Callable[[], None] | None = None

    def _begin(self) -> None:
        self._put_back()
        self._draws.clear()

    def _watch(self) -> None:
        model: Any = self.model
        if self._stop_watching is not None:
            return
        memory, note = model.replay_buffer, self._note_indices
        if isinstance(memory, DQNReplayBuffer):
            memory.sample_hooks.append(note)
            self._stop_watching = partial(memory.sample_hooks.remove, note)
        else:
            self._stop_watching = SampleMethodHook(memory, "_get_samples", self._note_samples).leave

    def _has_seen(self) -> bool:
        return bool(self._draws)

    def _put_back(self) -> None:
        if self._stop_watching is not None:
            self._stop_watching()
        self._stop_watching = None

    def _note_indices(self, indices: Array) -> None:
        model: Any = self.model
        self._draws.append((indices, model.replay_buffer.pos, None))

    def _note_samples(self, rows: Array, samples: Any) -> None:
        model: Any = self.model
        self._draws.append((rows, model.replay_buffer.pos, samples.dones))

    def _look(self) -> None:
        model: Any = self.model
        memory = model.replay_buffer
        n_rows = memory.size()
        if n_rows == 0:
            return
        ended = memory.dones > memory.timeouts  # (rows, n_envs)
        self._record({"size": n_rows * memory.n_envs, "fill": n_rows / memory.buffer_size})
        self._record({"terminal_stored": float(ended[:n_rows].mean())})
        rows = np.arange(n_rows) if n_rows <= MAX_REWARD_ROWS else sample_rows(memory, MAX_REWARD_ROWS, self._generator())
        rewards = memory.rewards[rows].ravel()
        self._record({"reward_mean": float(rewards.mean())})
        self._record_histogram("rewards", rewards)
        if self._draws:
            self._record_draws(memory, ended)

    def _record_draws(self, memory: Any, ended: Array) -> None:
        """:param ended: (rows, n_envs)"""
        ages, terminal = [], []
        for places, pos, dones in self._draws:
            rows = places // memory.n_envs if dones is None else places
            ages.append(transition_ages(memory, rows, pos))
            terminal.append(ended.take(places) if dones is None else dones.cpu().numpy().ravel() > 0)
        of_all = np.concatenate(ages)
        share = float(np.concatenate(terminal).mean())
        self._record({"age_mean": float(of_all.mean()), "age_median": float(np.median(of_all)), "age_max": int(of_all.max())})
        self._record({"terminal_sampled": share})
        self._record_histogram("ages", of_all)
