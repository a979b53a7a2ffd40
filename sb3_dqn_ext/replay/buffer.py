"""The replay buffer of DQNExt. Stock SB3 algorithms can use it as well."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqn_ext._validation import check_number, check_type, choose
from sb3_dqn_ext.algorithm.batches import (
    Batch,
    concatenate_batches,
    copy_to_device,
    from_sb3,
    map_observation,
    move_batch,
    to_sb3,
)
from sb3_dqn_ext.errors import ArgumentError, EmptyReplayError
from sb3_dqn_ext.replay.checks import (
    check_counts,
    check_discounting,
    check_draw,
    check_flags,
    check_keep_episodes,
    check_rows,
    warn_if_too_large,
)
from sb3_dqn_ext.replay.demonstrations import (
    check_demonstration_arguments,
    check_sampler,
    fill,
    load_demonstrations,
    merge,
    merge_arrays,
)
from sb3_dqn_ext.replay.device_frames import to_array
from sb3_dqn_ext.replay.episodes import EpisodeTracker
from sb3_dqn_ext.replay.frame_ring import FrameRing, make_observation_ring
from sb3_dqn_ext.replay.index_set import Indices
from sb3_dqn_ext.replay.lambda_returns import LambdaReturns
from sb3_dqn_ext.replay.multistep import make_multistep_return, monte_carlo_returns
from sb3_dqn_ext.replay.observations import Obs
from sb3_dqn_ext.replay.packed_masks import PackedMasks, pack_masks
from sb3_dqn_ext.replay.sampler_base import Sampler
from sb3_dqn_ext.replay.samplers import SAMPLERS, make_sampler

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]

TERMINAL_MASKS: dict[str, Callable[[Bools, Bools], Bools]] = {
    "terminated": lambda done, truncated: done & ~truncated,
    "truncated": lambda done, truncated: done & truncated,
    "done": lambda done, truncated: done,
}
"""For each value of ``terminal_on``: the function of (done, truncated) that returns which transitions count as terminal."""

DEFAULT_SETTINGS: dict[str, Any] = {
    "sampler": "uniform",
    "sampler_kwargs": {},
    "terminal_copies": 1,
    "terminal_on": None,
    "monte_carlo": 0.0,
    "keep_episodes": None,
    "td_lambda": None,
    "demonstrations": False,
}
"""The result of :meth:`DQNReplayBuffer.settings` for a buffer that was made with the default arguments."""


@lru_cache
def _overridden_methods(kind: type["DQNReplayBuffer"]) -> set[str]:
    """Return which of the methods that read samples a subclass overrides."""
    names = ("sample", "_get_samples")
    return {name for name in names if getattr(kind, name) is not getattr(DQNReplayBuffer, name)}


def _is_overridden(buffer: "DQNReplayBuffer", method: str) -> bool:
    """Return whether a subclass overrides a method, or the user has assigned another one to the object."""
    return method in vars(buffer) or method in _overridden_methods(type(buffer))


def _has_own_to_torch(buffer: ReplayBuffer) -> bool:
    return type(buffer).to_torch is not ReplayBuffer.to_torch or "to_torch" in vars(buffer)


def _tensor_converter(buffer: ReplayBuffer) -> Callable[[Array], th.Tensor]:
    """Return a function that turns a freshly gathered array into a tensor. On the CPU, both share their data."""
    if _has_own_to_torch(buffer):
        return partial(buffer.to_torch, copy=False)
    return th.from_numpy if buffer.device.type == "cpu" else partial(copy_to_device, device=buffer.device)


def _optional_tensor(to_torch: Callable[[Array], th.Tensor], weights: Weights | None) -> th.Tensor | None:
    return None if weights is None else to_torch(weights)


def _as_arrays(obs: Obs) -> Obs:
    """Return observations with the frames that are on a device as arrays."""
    return cast(Obs, map_observation(to_array, obs))


def _lazy_zeros(dtype: npt.DTypeLike) -> cached_property[Array]:
    """Make an attribute that is an array of (rows, n_envs) zeros. The array is allocated at its first use."""
    return cached_property(lambda buffer: np.zeros((buffer.buffer_size, buffer.n_envs), dtype=dtype))


class DQNReplayBuffer(ReplayBuffer):
    """
    A replay buffer with a choice of samplers and multi-step returns.

    A *sampler* chooses the transitions of a batch. A *multi-step return* turns each of them into an n-step transition when it
    is read. At its defaults, the buffer stores the same arrays as SB3's buffers and draws the same random numbers. Unlike
    SB3's buffers, it supports n-step returns and ``optimize_memory_usage`` with Dict observations, with time limits, and with
    each other. The arrays are allocated when the first transition is stored.

    Example with a stock SB3 algorithm: ``DQN("MlpPolicy", env, replay_buffer_class=DQNReplayBuffer,
    replay_buffer_kwargs={"terminal_copies": 4})``. For n-step returns, pass ``n_steps`` and ``gamma`` there as well.

    :param buffer_size: the number of transitions that are kept, over all environments
    :param observation_space: the observation space
    :param action_space: the action space
    :param device: the PyTorch device of the samples
    :param n_envs: the number of parallel environments
    :param optimize_memory_usage: whether each observation is stored once, instead of also as the next observation of the row
        before. The final observation of each episode is stored separately.
    :param handle_timeout_termination: whether returns bootstrap at time limits
        (https://github.com/DLR-RM/stable-baselines3/issues/284)
    :param n_steps: the number n of rewards in an n-step return
    :param gamma: the discount factor; optional if ``n_steps`` is 1 and a stock algorithm applies its own discount factor
    :param sampler: the sampler that chooses the transitions: ``"uniform"``; ``"prioritized"``, in proportion to priorities
        (https://arxiv.org/abs/1511.05952); ``"vector_steps"``, whole time steps of all environments; or your own
        :class:`~sb3_dqn_ext.replay.Sampler`: a class, an object or a dotted name. A stock algorithm refuses samplers that
            return importance weights or use TD errors: ``"prioritized"``, and ``"vector_steps"`` with ``terminal_copies``.
    :param sampler_kwargs: the arguments of the sampler: ``replace`` (``uniform``, ``vector_steps``); ``alpha``, ``beta``,
        ``beta_end``, ``eps`` and ``eps_demonstrations`` (``prioritized``, see :class:`~sb3_dqn_ext.replay.Prioritized`)
    :param terminal_copies: the number of times that a terminal transition counts when transitions are drawn
    :param terminal_on: the transitions that count as terminal: ``"terminated"``, ``"truncated"`` or ``"done"`` (both)
    :param monte_carlo: the share of the Monte-Carlo return in the learned return; the rest is the n-step return. If it is
        above 0, only episodes that have ended are replayed.
    :param keep_episodes: the number of latest ended episodes that can be replayed, over all environments; None (default): all
    :param td_lambda: lambda of lambda returns, in [0, 1]: the return of a step mixes n-step returns of all n, up to the newest
        step, with weights in proportion to ``td_lambda**n``. They bootstrap from the values that DQNExt has predicted when it
        acted. None (default): ``n_steps`` defines the return
    :param storage: the storage of observations: ``"plain"``, or ``"frames"``, which stores each frame of stacked observations
        once. In a Dict, ``"frames"`` applies to all parts that are stacks; ``{"image": "frames"}`` names them.
    :param demonstrations: transitions that are replayed beside the collected ones and never overwritten, in addition to
        ``buffer_size``: a file, a replay buffer, a data set or an iterable, see
        :func:`~sb3_dqn_ext.demonstrations.load_transitions`. They are read when they are needed first. ``"uniform"`` draws
        from all transitions alike; ``"prioritized"`` prefers demonstrations by ``eps_demonstrations``
    :param action_masks: whether the part ``action_mask`` of a Dict is stored as packed bits
    :raises ArgumentError: if an argument is invalid, or arguments contradict each other
    """

    optimize_memory_usage: bool
    packed_masks: PackedMasks | None = None
    """The storage of action masks; None without ``action_masks``."""
    lookahead: int = 0
    """The number of steps after each block of steps that are not replayed, see :meth:`set_lookahead`."""
    _progress: float | None = None
    """The progress of the run while DQNExt samples through an overridden method of a subclass."""
    _demonstrations_source: Any = None
    """The argument ``demonstrations``."""
    _current_draw: tuple[Indices, Weights | None] | None = None
    """The (B,) indices and weights of the sample that is being read."""

    # The names and shapes of these arrays are those of SB3's buffers.
    rewards = _lazy_zeros(np.float32)
    """The (rows, n_envs) rewards."""
    dones = _lazy_zeros(np.float32)
    """The (rows, n_envs) flags of steps that ended an episode, for any reason."""
    timeouts = _lazy_zeros(np.float32)
    """The (rows, n_envs) flags of steps at which a time limit ended the episode."""
    returns = _lazy_zeros(np.float32)
    """The (rows, n_envs) Monte-Carlo returns of ended episodes; used with ``monte_carlo``."""
    ends = _lazy_zeros(np.int64)
    """The (rows, n_envs) rows of the last steps of ended episodes; used with ``monte_carlo``."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        n_steps: int = 1,
        gamma: float | None = None,
        sampler: str | type[Sampler] | Sampler = "uniform",
        sampler_kwargs: Mapping[str, Any] | None = None,
        terminal_copies: int = 1,
        terminal_on: str = "terminated",
        monte_carlo: float = 0.0,
        keep_episodes: int | None = None,
        storage: str | Mapping[str, str] = "plain",
        td_lambda: float | None = None,
        demonstrations: Any = None,
        action_masks: bool = False,
    ) -> None:
        check_counts(buffer_size=buffer_size, n_envs=n_envs, n_steps=n_steps, terminal_copies=terminal_copies)
        check_flags(optimize_memory_usage=optimize_memory_usage, handle_timeout_termination=handle_timeout_termination)
        check_type("sampler_kwargs", {} if sampler_kwargs is None else sampler_kwargs, Mapping, "a mapping of arguments")
        choose("terminal_on", terminal_on, TERMINAL_MASKS, {"termination": "terminated", "both": "done"})
        check_discounting(n_steps, gamma, monte_carlo, td_lambda)
        check_demonstration_arguments(demonstrations, td_lambda, sampler_kwargs or {})
        # ReplayBuffer.__init__ is skipped: it allocates all arrays and refuses arguments that this class supports
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        check_rows(self.buffer_size, buffer_size, n_envs, n_steps, optimize_memory_usage)
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps = n_steps
        self.gamma = gamma
        self.terminal_on = terminal_on
        self.terminal_copies = terminal_copies
        self.monte_carlo = monte_carlo
        self.keep_episodes = keep_episodes
        self.td_lambda = td_lambda
        self.sample_hooks: list[Callable[[Indices], None]] = []
        """Functions that are called with the (B,) indices of each batch that is read. They are not saved."""
        self._sampler_choice = sampler, dict(sampler_kwargs or {})
        self._storage = storage
        self._demonstrations_source = demonstrations
        self.packed_masks = pack_masks(observation_space, action_space) if action_masks else None
        stored_space = observation_space if self.packed_masks is None else self.packed_masks.space
        self.observation_ring = make_observation_ring(storage, stored_space, self.buffer_size, n_envs, optimize_memory_usage)
        self._clear()
        warn_if_too_large(self.buffer_size * n_envs, self.observation_ring.transition_bytes, self.action_dim)

    def _clear(self) -> None:
        vars(self).pop("sampler", None)
        if self._demonstrations_source is None:
            self.sampler = self._make_sampler()
        self.n_added = 0
        """The number of rows that were stored since the buffer was made, overwritten ones included."""
        self.episodes = EpisodeTracker(self.n_envs, self.keep_episodes)
        self.lambda_returns = None if self.td_lambda is None else LambdaReturns(self.td_lambda, self.buffer_size, self.n_envs)
        """The lambda returns of the stored steps; None without ``td_lambda``."""
        self.observation_ring.clear()

    def _make_sampler(self) -> Sampler:
        choice, kwargs = self._sampler_choice
        n, first = self._n_demonstrations, self.buffer_size * self.n_envs
        # the last row of demonstrations may be incomplete
        only_added = self._tracks_episodes or self.lookahead > 0 or n % self.n_envs > 0
        rows = self.buffer_size + self._demonstration_rows
        sampler = make_sampler(choice, kwargs, rows, self.n_envs, self.terminal_copies, only_added)
        check_keep_episodes(self.keep_episodes, self.n_envs, sampler, choice)
        if self.demonstrations is not None:
            check_sampler(sampler, choice)
            done, truncated = (array[:n, 0] > 0 for array in (self.demonstrations.dones, self.demonstrations.timeouts))
            sampler.add_demonstrations(first + np.arange(n), TERMINAL_MASKS[self.terminal_on](done, truncated))
        return sampler

    @cached_property
    def sampler(self) -> Sampler:
        """The sampler. Demonstrations are read when it is made."""
        return self._make_sampler()

    @cached_property
    def demonstrations(self) -> "DQNReplayBuffer | None":
        """The replay buffer of the demonstrations, as transitions of one environment; None if there are none."""
        if self._demonstrations_source is None:
            return None
        action_masks = self.packed_masks is not None
        transitions = load_demonstrations(self._demonstrations_source, self.observation_space, self.action_space, action_masks)
        buffer = DQNReplayBuffer(
            max(len(transitions), self.n_steps),
            self.observation_space,
            self.action_space,
            self.device,
            handle_timeout_termination=self.handle_timeout_termination,
            n_steps=self.n_steps,
            gamma=self.gamma,
            monte_carlo=self.monte_carlo,
            storage=self._storage,
            action_masks=action_masks,
        )
        fill(buffer, transitions)
        return buffer

    @property
    def _n_demonstrations(self) -> int:
        return 0 if self.demonstrations is None else self.demonstrations.size()

    @property
    def _demonstration_rows(self) -> int:
        """The number of rows of the sampler that are filled with demonstrations, after those of the ring."""
        return -(-self._n_demonstrations // self.n_envs)

    @property
    def observations(self) -> Obs:  # type: ignore[override]
        """The (rows, n_envs, \\*obs) observations before the steps; not available with frames."""
        return self.observation_ring.observations

    @property
    def next_observations(self) -> Obs:  # type: ignore[override]
        """The (rows, n_envs, \\*obs) observations after the steps; not with frames or ``optimize_memory_usage``."""
        return self.observation_ring.next_observations

    @cached_property
    def actions(self) -> Array:  # type: ignore[override]
        """The (rows, n_envs, 1) actions."""
        shape = self.buffer_size, self.n_envs, self.action_dim
        return np.zeros(shape, dtype=self._maybe_cast_dtype(self.action_space.dtype))

    def add(
        self,
        obs: Obs,
        next_obs: Obs,
        action: Array,
        reward: Array,
        done: Array,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Store one transition of every environment.

        :param obs: the (n_envs, \\*obs) observations before the step
        :param next_obs: the (n_envs, \\*obs) observations after the step; where an episode ended, its final observation and
            not the first one of the next episode
        :param action: the (n_envs,) actions
        :param reward: the (n_envs,) rewards
        :param done: (n_envs,) whether each episode ended, for any reason
        :param infos: one dictionary for each environment; ``TimeLimit.truncated`` is read
        :raises ArgumentError: if there are transitions of another number of environments; nothing is stored then
        """
        if len(done) != self.n_envs:  # a replay buffer that was loaded for other environments
            raise ArgumentError(
                f"The replay buffer stores transitions of {self.n_envs} environments, and there are {len(done)}: make as "
                "many environments, or train with a new replay buffer."
            )
        if self.packed_masks is not None:
            obs, next_obs = self.packed_masks.pack(obs), self.packed_masks.pack(next_obs)
        row = self.pos
        if self.lambda_returns is not None:
            self.lambda_returns.write(row)
        discontinued = None
        if self.n_added and (self._reads_following_rows or self.observation_ring.shares_rows):
            discontinued = self.observation_ring.discontinued_envs(row, obs)
            if discontinued is not None:
                self.truncate_open_episodes(discontinued)
        done = truncated = np.asarray(done, dtype=bool).reshape(-1)  # 0 and 1 would be read as indices
        if np.count_nonzero(done):  # otherwise skip infos: a reused one may hold an earlier truncation
            truncated = np.zeros_like(done)
            for env in done.nonzero()[0].tolist():
                truncated[env] = bool(infos[env].get("TimeLimit.truncated", False))
        self.observation_ring.write(row, obs, next_obs, done, discontinued)
        self.actions[row] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[row] = reward
        self.dones[row] = done
        self.timeouts[row] = truncated if self.handle_timeout_termination else 0  # overwrites old marks
        self.pos = (row + 1) % self.buffer_size
        self.full = self.full or self.pos == 0
        self.n_added += 1

        if self.sampler.tracks_indices:
            self._update_sampler(row, done, TERMINAL_MASKS[self.terminal_on](done, truncated))

    def store_frames_on(self, device: th.device | str) -> None:
        """
        Move the stored frames to a device, for example a GPU with enough memory, and store later ones there. Batches are
        then read there. Demonstrations stay where they are.

        :param device: the device
        :raises ArgumentError: if the buffer does not store frames, or if torch has no such device, or not for this data type
        """
        ring = self.observation_ring
        if not isinstance(ring, FrameRing):
            raise ArgumentError(f"device={str(device)!r} of a replay buffer is where frames are stored: use storage='frames'.")
        try:
            found = th.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ArgumentError(f"device={str(device)!r} of the replay buffer is no device of torch: {reason}.") from error
        ring.move_to(found)

    def set_lookahead(self, n: int) -> None:
        """
        Prepare an empty buffer for blocks of steps, each with steps after it that are not replayed.

        :param n: the number of steps after each block
        """
        self.lookahead = n
        self._clear()

    def exclude_newest(self) -> None:
        """Exclude the newest step from replay. Earlier steps read it for their returns. :meth:`set_lookahead` was called."""
        row = (self.pos - 1) % self.buffer_size
        self.sampler.remove(np.arange(row * self.n_envs, (row + 1) * self.n_envs))

    def _update_sampler(self, row: int, done: Bools, terminal: Bools) -> None:
        """
        Report to the sampler which transitions can be replayed after a row is written, and which no longer.

        With Monte-Carlo returns, transitions are added at the ends of their episodes. The records of episodes are updated as
        well.

        :param row: the row that was written
        :param done: (n_envs,) whether the step ended an episode
        :param terminal: (n_envs,) whether the episode ended by termination
        """
        indices: Indices = np.arange(row * self.n_envs, (row + 1) * self.n_envs)
        if self.monte_carlo > 0:
            self.sampler.remove(indices)  # overwritten; added when their episodes have ended
        else:
            self.sampler.add(indices, terminal)
        if self._tracks_episodes:
            self.episodes.open_steps += 1
            for env in done.nonzero()[0].tolist():
                self._end_episode(env, bool(terminal[env]))
        if self.optimize_memory_usage:
            # the observations of the oldest row were overwritten by the next observations of the newest row
            self.sampler.remove((indices + self.n_envs) % (self.buffer_size * self.n_envs))

    def _end_episode(self, env: int, terminal: bool) -> None:
        """
        Record that the newest step of an environment ended its episode.

        :param env: the index of the environment
        :param terminal: whether that step counts as terminal, see ``terminal_on``
        """
        episode = self.episodes.end_episode(env, self.n_added, self.buffer_size - self.optimize_memory_usage)
        if self.monte_carlo > 0:
            rows = np.arange(episode.first, episode.end) % self.buffer_size  # (T,)
            self.returns[rows, env] = monte_carlo_returns(self.rewards[rows, env], self._discount)
            self.ends[rows, env] = rows[-1:]
            self.sampler.add(rows[::-1] * self.n_envs + env, terminal & (np.arange(len(rows)) == 0))
        evicted = self.episodes.add_ended(episode)
        if evicted is not None:
            still_stored = np.arange(max(evicted.first, self.n_added - self.buffer_size), evicted.end)
            self.sampler.remove(still_stored % self.buffer_size * self.n_envs + evicted.env)

    def reset(self) -> None:
        """Remove all transitions, episodes and priorities."""
        super().reset()
        self._clear()

    def sample_batch(
        self, batch_size: int, env: VecNormalize | None = None, progress: float = 0.0, n_batches: int = 1
    ) -> Batch:
        """
        Draw batches of n-step transitions.

        :param batch_size: the batch size B
        :param env: the VecNormalize wrapper that normalizes observations and rewards; None (default): no normalization
        :param progress: the fraction of the run that is over, from 0 to 1, for samplers with schedules
        :param n_batches: the number of batches N. The sampler is called once for each of them
        :return: the N * B transitions, one batch after the other
        :raises EmptyReplayError: if no transition can be replayed
        """
        if _is_overridden(self, "sample"):
            return concatenate_batches([self._batch_by_sample(batch_size, env, progress) for _ in range(n_batches)])
        rows = self._drawn_rows()
        if n_batches == 1:
            return self._batch_at(*self._draw(*rows, batch_size, progress), env)
        indices, weights = zip(*(self._draw(*rows, batch_size, progress) for _ in range(n_batches)), strict=True)
        all_weights = None if weights[0] is None else np.concatenate(cast(tuple[Weights, ...], weights))
        return self._batch_at(np.concatenate(indices), all_weights, env)

    def _draw(self, first_row: int, n_rows: int, batch_size: int, progress: float) -> tuple[Indices, Weights | None]:
        """Draw (B,) indices and weights with the sampler; those of a user's own sampler are checked."""
        drawn = self.sampler.sample(first_row, n_rows, batch_size, progress)
        if type(self.sampler) not in SAMPLERS.values():
            sizes = self.buffer_size + self._demonstration_rows, self.n_envs
            check_draw(type(self.sampler).__name__, drawn, batch_size, (first_row, n_rows), sizes)
        return drawn

    def _batch_by_sample(self, batch_size: int, env: VecNormalize | None, progress: float) -> Batch:
        """Draw a batch by the overridden ``sample``, and add the indices and weights that the sampler drew for it."""
        self._progress, self._current_draw = progress, None
        try:
            batch, drawn = from_sb3(self.sample(batch_size, env), self._discount), self._current_draw
        finally:
            self._progress = self._current_draw = None
        if drawn is None or len(drawn[0]) != len(batch.actions):
            return batch  # the overridden method did not use the sampler
        return self._with_draw(batch, *drawn)

    def _batch_at(self, indices: Indices, weights: Weights | None, env: VecNormalize | None) -> Batch:
        """
        Read the transitions at some indices as a batch. If a subclass or a user overrides ``_get_samples``, it reads the
        transitions.

        :param indices: (B,) indices
        :param weights: (B,) importance weights; None: all are 1
        :param env: the VecNormalize wrapper that normalizes observations and rewards; None: no normalization
        :return: the B transitions
        """
        if not _is_overridden(self, "_get_samples"):
            return self._read_with_hooks(indices, weights, env)
        self._current_draw = indices, weights
        try:
            batch = from_sb3(self._get_samples(indices // self.n_envs, env), self._discount)
        finally:
            self._current_draw = None
        return self._with_draw(batch, indices, weights)

    def _with_draw(self, batch: Batch, indices: Indices, weights: Weights | None) -> Batch:
        """Return a batch with the (B,) indices and weights that were drawn for it, and the flags of demonstrations."""
        to_torch = _tensor_converter(self)
        flags = None if self.demonstrations is None else to_torch(indices >= self.buffer_size * self.n_envs)
        return batch._replace(weights=_optional_tensor(to_torch, weights), demonstrations=flags, indices=indices)

    def epoch(
        self,
        indices: Indices,
        batch_size: int,
        env: VecNormalize | None = None,
        n_batches: Callable[[int], int] = lambda n_left: 1,
    ) -> Iterator[tuple[Batch, int]]:
        """
        Iterate once over transitions in random order.

        :param indices: the (N,) indices of the transitions
        :param batch_size: the batch size B; the last batch has the remaining transitions
        :param env: the VecNormalize wrapper that normalizes observations and rewards; None (default): no normalization
        :param n_batches: a function that returns how many of the remaining whole batches are concatenated; by default 1
        :return: concatenated batches, and their number
        """
        shuffled, start = np.random.permutation(indices), 0
        while start < len(indices):
            n_whole = (len(indices) - start) // batch_size
            n = n_batches(n_whole) if n_whole else 1
            yield self._batch_at(shuffled[start : start + n * batch_size], None, env), n
            start += n * batch_size

    def all_indices(self) -> Indices:
        """
        List the indices of one epoch.

        :return: the (N,) indices of all transitions that can be replayed, each once for each of its copies, in no defined
            order
        :raises EmptyReplayError: if no transition can be replayed
        """
        indices = self.sampler.epoch(*self._drawn_rows())
        if len(indices) == 0:
            raise EmptyReplayError
        return indices

    def _read_with_hooks(self, indices: Indices, weights: Weights | None, env: VecNormalize | None) -> Batch:
        """Call the sample hooks, then read the transitions."""
        for hook in self.sample_hooks:
            hook(indices)
        return self.read(indices, weights, env)

    def read(self, indices: Indices, weights: Weights | None = None, env: VecNormalize | None = None) -> Batch:
        """
        Read transitions as training does, without calling the sample hooks.

        :param indices: the (B,) indices of the transitions
        :param weights: the (B,) importance weights; None (default): all are 1
        :param env: the VecNormalize wrapper that normalizes observations and rewards; None (default): no normalization
        :return: B n-step transitions
        :raises ArgumentError: if rewards are normalized and ``monte_carlo`` or ``td_lambda`` is used
        """
        if self.demonstrations is None:
            return self._read_ring(indices, weights, env)
        is_demonstration, own, demonstrated = self._split(indices)
        if len(own) == 0:
            batch = self.demonstrations.read(demonstrated, None, env)
        elif len(demonstrated) == 0:
            batch = self._read_ring(own, None, env)
        else:
            parts = self._read_ring(own, None, env), self.demonstrations.read(demonstrated, None, env)
            batch = merge(is_demonstration, *parts)
        return self._with_draw(batch, indices, weights)

    def actions_at(self, indices: Indices) -> Array:
        """
        Read actions.

        :param indices: the (B,) indices of the transitions
        :return: the (B,) actions
        """
        return cast(Array, self._gather(indices, lambda buffer, some: buffer.actions.take(some)))

    def read_observations(self, indices: Indices) -> Obs:
        """
        Read the observations before steps.

        :param indices: the (B,) indices of the steps
        :return: the (B, \\*obs) observations, as copies
        """
        return self._gather(indices, DQNReplayBuffer._observations_at)

    def read_next_observations(self, indices: Indices) -> Obs:
        """
        Read the observations after steps.

        :param indices: the (B,) indices of the steps
        :return: the (B, \\*obs) observations, as copies
        """
        return self._gather(indices, DQNReplayBuffer._next_observations_at)

    def _gather(self, indices: Indices, read: Callable[["DQNReplayBuffer", Indices], Obs]) -> Obs:
        """Read B rows with a function that reads those of this buffer, or of that of the demonstrations."""
        if self.demonstrations is None:
            return _as_arrays(read(self, indices))
        is_demonstration, own, demonstrated = self._split(indices)
        return merge_arrays(is_demonstration, _as_arrays(read(self, own)), read(self.demonstrations, demonstrated))

    def _split(self, indices: Indices) -> tuple[Bools, Indices, Indices]:
        """Return which of B indices are demonstrations, the other indices, and those in the buffer of demonstrations."""
        first = self.buffer_size * self.n_envs
        is_demonstration = indices >= first
        return is_demonstration, indices[~is_demonstration], indices[is_demonstration] - first

    def _observations_at(self, indices: Indices) -> Obs:
        return self._unpacked(self.observation_ring.gather_observations(indices))

    def _next_observations_at(self, indices: Indices) -> Obs:
        return self._unpacked(self.observation_ring.gather_next(indices))

    def _read_ring(self, indices: Indices, weights: Weights | None, env: VecNormalize | None) -> Batch:
        """Read transitions that are no demonstrations."""
        # batches for a GPU are moved there by one copy
        is_moved = self.device.type != "cpu" and not _has_own_to_torch(self)
        to_torch = th.from_numpy if is_moved else _tensor_converter(self)
        rewards, discounts, last = self._returns_at(indices, env)
        actions = to_torch(self.actions.take(indices).astype(np.int64, copy=False))

        def obs_to_torch(obs: Obs) -> PyTorchObs:
            if env is not None and (env.norm_obs or type(env) is not VecNormalize):
                obs = self._normalize_obs(_as_arrays(obs), env)
            elif _has_own_to_torch(self):
                obs = _as_arrays(obs)
            # frames on a device are tensors already
            return cast(
                PyTorchObs,
                map_observation(lambda part: part.to(self.device) if isinstance(part, th.Tensor) else to_torch(part), obs),
            )

        batch = Batch(
            observations=obs_to_torch(self._observations_at(indices)),
            actions=actions if actions.dtype == th.int64 else actions.long(),  # a user's to_torch may change the type
            rewards=to_torch(rewards),
            discounts=to_torch(discounts),
            next_observations=None if last is None else obs_to_torch(self._next_observations_at(last)),
            weights=_optional_tensor(to_torch, weights),
            demonstrations=None,
            indices=indices,
        )
        return move_batch(batch, self.device) if is_moved else batch

    def _unpacked(self, obs: Obs) -> Obs:
        return obs if self.packed_masks is None else self.packed_masks.unpack(obs)

    def _returns_at(self, indices: Indices, env: VecNormalize | None) -> tuple[Array, Array, Indices | None]:
        """Return the (B,) rewards and discounts of multi-step returns, and the indices of their last steps, if they matter."""
        self.check_normalization(env)
        if self.lambda_returns is not None:
            returns = self.lambda_returns.take(self, indices, self._discount, self.n_added)
            return returns, np.zeros_like(returns), None
        multistep_return = make_multistep_return(self.n_steps, self._discount, self.monte_carlo)
        return multistep_return(self, indices, lambda rewards: self._normalize_reward(rewards, env))

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        Draw transitions in the format of SB3's algorithms.

        :param batch_size: the batch size B
        :param env: the VecNormalize wrapper that normalizes observations and rewards; None (default): no normalization
        :return: samples with (B, 1) actions, rewards, dones and discounts; without discounts if the buffer has no ``gamma``
        :raises ArgumentError: if the sampler uses TD errors or importance weights, which this format cannot hold
        """
        for_dqn_ext = self._progress is not None  # DQNExt gets weights and TD errors another way
        indices, weights = self._current_draw = self._draw(*self._drawn_rows(), batch_size, self._progress or 0.0)
        try:
            if not for_dqn_ext and (weights is not None or self.sampler.uses_td_errors):
                copies = f" with terminal_copies={self.terminal_copies}" if self.sampler.draws_whole_rows else ""
                raise ArgumentError(
                    f"sampler={self._sampler_choice[0]!r}{copies} weights its transitions, which a stock algorithm "
                    "ignores: it would learn another objective. Use DQNExt, or sampler='uniform'."
                )
            return self._get_samples(indices // self.n_envs, env)
        finally:
            self._current_draw = (indices, weights) if for_dqn_ext else None

    def _get_samples(  # type: ignore[override]
        self, batch_inds: Array, env: VecNormalize | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        Read transitions. As with SB3's buffers, subclasses can override this method to change the samples. With ``td_lambda``,
        their ``next_observations`` are None.

        :param batch_inds: the (B,) rows. The environment of each transition is the one that the sampler has drawn; for rows
            that the sampler has not drawn, it is drawn here.
        :param env: the VecNormalize wrapper that normalizes observations and rewards; None (default): no normalization
        :return: the samples, see :meth:`sample`
        """
        drawn = self._current_draw
        if drawn is not None and len(drawn[0]) == len(batch_inds) and (drawn[0] // self.n_envs == batch_inds).all():
            indices = drawn[0]
        else:
            indices = batch_inds * self.n_envs + np.random.randint(0, self.n_envs, size=len(batch_inds))
        return to_sb3(self._read_with_hooks(indices, None, env), with_discounts=self.gamma is not None)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that determine what is replayed, except ``n_steps`` and ``gamma``."""
        sampler, sampler_kwargs = self._sampler_choice
        return {
            "sampler": type(sampler) if isinstance(sampler, Sampler) else sampler,
            "sampler_kwargs": sampler_kwargs,
            "terminal_copies": self.terminal_copies,
            "terminal_on": self.terminal_on if self.terminal_copies > 1 else None,  # otherwise without effect
            "monte_carlo": self.monte_carlo,
            "keep_episodes": self.keep_episodes,
            "td_lambda": self.td_lambda,
            "demonstrations": self._demonstrations_source is not None,
        }

    def set_multistep(self, n_steps: int, gamma: float) -> None:
        """
        Set the n-step return by which stored transitions are read from now on.

        When returns begin to span several rows, the steps before a reset in mid-episode are marked as truncated in the stored
        transitions.

        :param n_steps: the number n of rewards
        :param gamma: the discount factor
        :raises ArgumentError: if a value is out of its range, ``n_steps`` is too large for the number of rows, or the buffer
            contains Monte-Carlo returns for another ``gamma``
        """
        if (n_steps, gamma) == (self.n_steps, self.gamma):
            return
        check_number("n_steps", n_steps, low=1, integer=True)
        check_discounting(n_steps, gamma, self.monte_carlo, self.td_lambda)
        if self.monte_carlo > 0 and self.gamma not in (None, gamma) and self.size():
            raise ArgumentError(
                f"gamma={gamma!r} does not fit the replay buffer, whose Monte-Carlo returns are discounted by {self.gamma!r}: "
                "change gamma only while it is empty, or set monte_carlo=0."
            )
        if self.buffer_size < n_steps + self.optimize_memory_usage:
            raise ArgumentError(f"n_steps={n_steps} is too large for {self.buffer_size} rows in the replay buffer.")
        read_following_rows_before, self.n_steps, self.gamma = self._reads_following_rows, n_steps, gamma
        if vars(self).get("demonstrations") is not None:
            self.demonstrations.set_multistep(n_steps, gamma)  # type: ignore[union-attr]
        if self._reads_following_rows and not read_following_rows_before:
            # one-step returns needed no mark where environments were reset in mid-episode; returns over several rows do
            rows = (self.pos - self.size() + np.arange(self.size())) % self.buffer_size  # oldest first
            for row, is_discontinuous in self.observation_ring.stored_discontinuities(rows):
                self.timeouts[row, is_discontinuous & (self.dones[row] == 0)] = 1

    def truncate_open_episodes(self, envs: Bools | None = None) -> None:
        """
        Mark the newest step of each open episode as truncated, because its environment is reset in mid-episode.

        n-step and Monte-Carlo returns then end at that step and bootstrap from the observation after it. :meth:`add` calls
        this method when a new observation differs from the next observation of the previous step. If no return reads more
        than one row, nothing needs to be marked and nothing is changed.

        :param envs: (n_envs,) which environments are reset; None (default): all
        """
        if not self._reads_following_rows or self.size() == 0:
            return
        row = (self.pos - 1) % self.buffer_size
        is_open = (self.dones[row] == 0) & (self.timeouts[row] == 0)  # (n_envs,)
        for env in np.flatnonzero(is_open if envs is None else is_open & envs).tolist():
            self.timeouts[row, env] = 1
            self.observation_ring.keep_final_observation(row, env)
            if self._tracks_episodes and self.episodes.open_steps[env] > 0:
                self._end_episode(env, terminal=False)

    def check_normalization(self, env: VecNormalize | None) -> None:
        """
        Check that rewards can be normalized when they are read.

        :param env: the VecNormalize wrapper; None: no normalization
        :raises ArgumentError: if rewards are normalized and ``monte_carlo`` or ``td_lambda`` is used
        """
        if env is None or not env.norm_reward or (self.monte_carlo == 0 and self.td_lambda is None):
            return
        name = "monte_carlo" if self.monte_carlo > 0 else "td_lambda"
        raise ArgumentError(f"{name} stores returns, which VecNormalize cannot rescale: use norm_reward=False.")

    def replayable_rows(self) -> tuple[int, int]:
        """
        Return the range of rows that can be replayed. The sampler may exclude single transitions of it.

        :return: the first row, and the number of rows; the range continues at row 0 after the last row of the buffer
        """
        if self.full and self.optimize_memory_usage:
            return self.pos + 1, self.buffer_size - 1  # the observations of the row at ``pos`` are overwritten
        return 0, self.size()

    def _drawn_rows(self) -> tuple[int, int]:
        """Return the range of rows from which the sampler draws: :meth:`replayable_rows` with those of demonstrations."""
        first, n_rows = self.replayable_rows()
        n_demonstrated = self._demonstration_rows
        # the rows of demonstrations follow the last row of the ring, and precede its first one
        return (first or self.buffer_size, n_rows + n_demonstrated) if n_demonstrated else (first, n_rows)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"sample_hooks": []}

    @property
    def _discount(self) -> float:
        # a user's schedule can return a np.float64, with which numpy computes float64 batches
        return 1.0 if self.gamma is None else float(self.gamma)

    @property
    def _tracks_episodes(self) -> bool:
        """Whether the episodes of the stored rows are tracked."""
        return self.monte_carlo > 0 or self.keep_episodes is not None

    @property
    def _reads_following_rows(self) -> bool:
        """Whether reading a transition also reads the rows after it, which must then belong to the same episode."""
        return self.n_steps > 1 or self.td_lambda is not None or self.optimize_memory_usage or self._tracks_episodes
