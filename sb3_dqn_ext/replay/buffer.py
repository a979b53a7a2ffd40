"""The replay buffer of DQNExt, which stock SB3 algorithms can use as well."""

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
from sb3_dqn_ext.algorithm.batches import Batch, concatenate_batches, from_sb3, map_observation, to_sb3
from sb3_dqn_ext.errors import ArgumentError, EmptyReplayError
from sb3_dqn_ext.replay.checks import (
    check_counts,
    check_discounting,
    check_flags,
    check_keep_episodes,
    check_rows,
    warn_if_too_large,
)
from sb3_dqn_ext.replay.episodes import EpisodeTracker
from sb3_dqn_ext.replay.index_set import Indices
from sb3_dqn_ext.replay.multistep import make_multistep_return, monte_carlo_returns
from sb3_dqn_ext.replay.observations import Obs, ObservationRing, gather
from sb3_dqn_ext.replay.sampler_base import Sampler
from sb3_dqn_ext.replay.samplers import make_sampler

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]

TERMINAL_MASKS: dict[str, Callable[[Bools, Bools], Bools]] = {
    "terminated": lambda done, truncated: done & ~truncated,
    "truncated": lambda done, truncated: done & truncated,
    "done": lambda done, truncated: done,
}


DEFAULT_SETTINGS: dict[str, Any] = {
    "sampler": "uniform",
    "sampler_kwargs": {},
    "terminal_copies": 1,
    "terminal_on": None,
    "monte_carlo": 0.0,
    "keep_episodes": None,
}
"""what :meth:`DQNReplayBuffer.settings` returns where no argument is given"""


@lru_cache
def _own_methods(kind: type["DQNReplayBuffer"]) -> set[str]:
    names = ("sample", "_get_samples")
    return {name for name in names if getattr(kind, name) is not getattr(DQNReplayBuffer, name)}


def _has_own(buffer: "DQNReplayBuffer", method: str) -> bool:
    """Return whether a subclass, or the user's assignment, has put another method in the place of DQNReplayBuffer's."""
    return method in vars(buffer) or method in _own_methods(type(buffer))


def _converter(buffer: ReplayBuffer) -> Callable[[Array], th.Tensor]:
    """Return a function to make tensors of arrays that were gathered for them, and which they then hold."""
    is_own = type(buffer).to_torch is not ReplayBuffer.to_torch or "to_torch" in vars(buffer)
    is_plain = buffer.device.type == "cpu" and not is_own
    return th.from_numpy if is_plain else partial(buffer.to_torch, copy=False)


def _or_none(to_torch: Callable[[Array], th.Tensor], weights: Weights | None) -> th.Tensor | None:
    return None if weights is None else to_torch(weights)


def _lazy_zeros(dtype: npt.DTypeLike) -> cached_property[Array]:
    """Make an attribute that is an array of (rows, n_envs) zeros, and takes memory when it is first used."""
    return cached_property(lambda buffer: np.zeros((buffer.buffer_size, buffer.n_envs), dtype=dtype))


class DQNReplayBuffer(ReplayBuffer):
    """
    A replay buffer whose transitions are drawn by a *sampler* and summed up over several steps by a *multi-step return*.

    It stores what SB3's buffers store and, at its defaults, draws the same random numbers. Unlike them, it takes n-step
    returns and ``optimize_memory_usage`` with Dict observations, with each other, and with time limits.
    Memory is taken when the first transition is stored.

    To use it in a stock SB3 algorithm: ``DQN("MlpPolicy", env, replay_buffer_class=DQNReplayBuffer,
    replay_buffer_kwargs={"terminal_copies": 4})``; for n-step returns name ``n_steps`` and ``gamma`` there as well.

    :param buffer_size: how many transitions are kept, over all environments
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: PyTorch device of the samples
    :param n_envs: Number of parallel environments
    :param optimize_memory_usage: keep each observation once, not also as the next one of the row before;
        the last observation of an episode is kept beside
    :param handle_timeout_termination: bootstrap at time limits (https://github.com/DLR-RM/stable-baselines3/issues/284)
    :param n_steps: how many rewards are summed up in one transition
    :param gamma: the discount factor; may be left out when ``n_steps`` is 1 and a stock algorithm applies its own
    :param sampler: which transitions are replayed: ``"uniform"``; ``"prioritized"``, by their errors
        (https://arxiv.org/abs/1511.05952); ``"rows"``, one time step with all its environments; or a subclass of
        :class:`~sb3_dqn_ext.replay.Sampler`. What weights its transitions or learns from errors works in
        :class:`~sb3_dqn_ext.DQNExt` and not in a stock algorithm: ``prioritized``, and ``rows`` with ``terminal_copies``
    :param sampler_kwargs: arguments of the sampler: ``replace`` (``uniform``, ``rows``); ``alpha``, ``beta``, ``beta_end`` and
        ``eps`` (``prioritized``, see :class:`~sb3_dqn_ext.replay.Prioritized`)
    :param terminal_copies: how many times a transition that ended its episode stands in the replay buffer
    :param terminal_on: which ends that means: ``"terminated"``, ``"truncated"`` or ``"done"`` (both)
    :param monte_carlo: the share of the realised discounted return in what is learned, the rest is the n-step return; while it
        is not 0, only episodes that have ended are replayed
    :param keep_episodes: how many of the latest ended episodes can be replayed, over all environments; all if None
    :raises ArgumentError: if an argument cannot work
    """

    optimize_memory_usage: bool
    _progress: float | None = None
    """the progress of the run while DQNExt samples by way of a subclass"""
    _drawn: tuple[Indices, Weights | None] | None = None
    """the (B,) indices and weights of the sample that is being read"""

    # the arrays of SB3's buffers
    rewards = _lazy_zeros(np.float32)
    """(rows, n_envs)"""
    dones = _lazy_zeros(np.float32)
    """(rows, n_envs), 1 where an episode ended, for whatever reason"""
    timeouts = _lazy_zeros(np.float32)
    """(rows, n_envs), 1 where a time limit ended it"""
    returns = _lazy_zeros(np.float32)
    """(rows, n_envs) with ``monte_carlo``: discounted sum of the rewards up to the end of an episode that has ended"""
    ends = _lazy_zeros(np.int64)
    """(rows, n_envs) with ``monte_carlo``: the row in which the episode ended, once it has"""

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
        sampler: str | type[Sampler] = "uniform",
        sampler_kwargs: Mapping[str, Any] | None = None,
        terminal_copies: int = 1,
        terminal_on: str = "terminated",
        monte_carlo: float = 0.0,
        keep_episodes: int | None = None,
    ) -> None:
        check_counts(buffer_size=buffer_size, n_envs=n_envs, n_steps=n_steps, terminal_copies=terminal_copies)
        check_flags(optimize_memory_usage=optimize_memory_usage, handle_timeout_termination=handle_timeout_termination)
        check_type("sampler_kwargs", {} if sampler_kwargs is None else sampler_kwargs, Mapping, "a mapping of arguments")
        choose("terminal_on", terminal_on, TERMINAL_MASKS, {"termination": "terminated", "both": "done"})
        check_discounting(n_steps, gamma, monte_carlo)
        # not ReplayBuffer's: it would allocate, and it forbids what this class allows
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
        self.sample_hooks: list[Callable[[Indices], None]] = []
        """functions that are called with the indices of what is drawn, each time that it is read; they are not saved"""
        self._sampler_choice = sampler, dict(sampler_kwargs or {})
        self.observation_ring = ObservationRing(observation_space, self.buffer_size, n_envs, optimize_memory_usage)
        self._start_empty()
        check_keep_episodes(keep_episodes, n_envs, self.sampler, sampler)
        warn_if_too_large(self.buffer_size * n_envs, observation_space, 2 - optimize_memory_usage, self.action_dim)

    def _start_empty(self) -> None:
        self.sampler = make_sampler(
            *self._sampler_choice, self.buffer_size, self.n_envs, self.terminal_copies, self._by_episodes
        )
        self.n_added = 0
        """number of rows that were ever stored"""
        self.episodes = EpisodeTracker(self.n_envs, self.keep_episodes)
        self.observation_ring.final_observations.clear()

    @property
    def observations(self) -> Obs:  # type: ignore[override]
        """(rows, n_envs, \\*obs)"""
        return self.observation_ring.observations

    @property
    def next_observations(self) -> Obs:  # type: ignore[override]
        """(rows, n_envs, \\*obs), unless ``optimize_memory_usage``"""
        return self.observation_ring.next_observations

    @cached_property
    def actions(self) -> Array:  # type: ignore[override]
        """(rows, n_envs, 1)"""
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

        :param obs: (n_envs, \\*obs)
        :param next_obs: (n_envs, \\*obs), the true last observation where an episode ended
        :param action: (n_envs,)
        :param reward: (n_envs,)
        :param done: (n_envs,)
        :param infos: one dictionary for each environment; ``TimeLimit.truncated`` is read
        """
        row = self.pos
        if self.n_added and self._joins_rows:
            discontinued = self.observation_ring.discontinued_envs(row, obs)
            if discontinued is not None:
                self.truncate_open_episodes(discontinued)
        done = truncated = np.asarray(done, dtype=bool).reshape(-1)  # environments may have 0 and 1, which are no index
        if np.count_nonzero(done):  # else no info matters: one that is used again may still hold an earlier truncation
            truncated = done & np.array([info.get("TimeLimit.truncated", False) for info in infos], dtype=bool).reshape(-1)
        self.observation_ring.write(row, obs, next_obs, done)
        self.actions[row] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[row] = reward
        self.dones[row] = done
        self.timeouts[row] = truncated if self.handle_timeout_termination else 0  # what stood here may have been truncated
        self.pos = (row + 1) % self.buffer_size
        self.full = self.full or self.pos == 0
        self.n_added += 1

        if self.sampler.tracks_indices:
            self._update_sampler(row, done, TERMINAL_MASKS[self.terminal_on](done, truncated))

    def _update_sampler(self, row: int, done: Bools, terminal: Bools) -> None:
        """Give the sampler what was written into a row, once it can be replayed."""
        indices: Indices = np.arange(row * self.n_envs, (row + 1) * self.n_envs)
        if self.monte_carlo > 0:
            self.sampler.remove(indices)  # what stood here; it comes back when its episode has ended
        else:
            self.sampler.add(indices, terminal)
        if self._by_episodes:
            self.episodes.open_steps += 1
            for env in done.nonzero()[0].tolist():
                self._end_episode(env, bool(terminal[env]))
        if self.optimize_memory_usage:
            # the oldest row's own observation has just become the newest row's next one
            self.sampler.remove((indices + self.n_envs) % (self.buffer_size * self.n_envs))

    def _end_episode(self, env: int, terminal: bool) -> None:
        """
        End an episode by the newest step.

        :param env: the environment
        :param terminal: whether that step counts as terminal
        """
        episode = self.episodes.end_episode(env, self.n_added, self.buffer_size - self.optimize_memory_usage)
        if self.monte_carlo > 0:
            rows = np.arange(episode.first, episode.end) % self.buffer_size  # (T,)
            self.returns[rows, env] = monte_carlo_returns(self.rewards[rows, env], cast(float, self.gamma))
            self.ends[rows, env] = rows[-1:]
            self.sampler.add(rows[::-1] * self.n_envs + env, terminal & (np.arange(len(rows)) == 0))
        forgotten = self.episodes.add_ended(episode)
        if forgotten is not None:
            still_stored = np.arange(max(forgotten.first, self.n_added - self.buffer_size), forgotten.end)
            self.sampler.remove(still_stored % self.buffer_size * self.n_envs + forgotten.env)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._start_empty()

    def sample_batch(
        self, batch_size: int, env: VecNormalize | None = None, progress: float = 0.0, n_batches: int = 1
    ) -> Batch:
        """
        Draw transitions, and sum up their steps.

        :param batch_size: B
        :param env: what normalizes observations and rewards, if anything does
        :param progress: how much of the run is over, from 0 to 1, for samplers that change with it
        :param n_batches: n, how many batches to draw, each as if it were the only one
        :return: n * B transitions, one batch after the other
        """
        if _has_own(self, "sample"):
            return concatenate_batches([self._batch_by_sample(batch_size, env, progress) for _ in range(n_batches)])
        rows = self.replayable_rows()
        if n_batches == 1:
            return self._batch_at(*self.sampler.sample(*rows, batch_size, progress), env)
        indices, weights = zip(*(self.sampler.sample(*rows, batch_size, progress) for _ in range(n_batches)), strict=True)
        all_weights = None if weights[0] is None else np.concatenate(cast(tuple[Weights, ...], weights))
        return self._batch_at(np.concatenate(indices), all_weights, env)

    def _batch_by_sample(self, batch_size: int, env: VecNormalize | None, progress: float) -> Batch:
        """Return a batch by way of ``sample``, with the indices and weights of what was drawn for it."""
        self._progress, self._drawn = progress, None
        try:
            batch, drawn = from_sb3(self.sample(batch_size, env), self._discount), self._drawn
        finally:
            self._progress = self._drawn = None
        if drawn is None or len(drawn[0]) != len(batch.actions):
            return batch  # it draws by itself
        return batch._replace(weights=_or_none(_converter(self), drawn[1]), indices=drawn[0])

    def _batch_at(self, indices: Indices, weights: Weights | None, env: VecNormalize | None) -> Batch:
        """(B,) indices and weights -> B transitions"""
        if not _has_own(self, "_get_samples"):
            return self._read_drawn(indices, weights, env)
        self._drawn = indices, weights
        try:
            batch = from_sb3(self._get_samples(indices // self.n_envs, env), self._discount)
        finally:
            self._drawn = None
        return batch._replace(weights=_or_none(_converter(self), weights), indices=indices)

    def epoch(self, indices: Indices, batch_size: int, env: VecNormalize | None = None) -> Iterator[Batch]:
        """
        Go once through transitions, in random order.

        :param indices: of which transitions
        :param batch_size: B; the last batch is what is left
        :param env: what normalizes observations and rewards, if anything does
        """
        shuffled = np.random.permutation(indices)
        for start in range(0, len(indices), batch_size):
            yield self._batch_at(shuffled[start : start + batch_size], None, env)

    def all_indices(self) -> Indices:
        """
        List the indices of an epoch.

        :return: all that can be replayed, each as often as it stands in the replay buffer, in no order
        :raises EmptyReplayError: if there is nothing
        """
        indices = self.sampler.epoch(*self.replayable_rows())
        if len(indices) == 0:
            raise EmptyReplayError
        return indices

    def _read_drawn(self, indices: Indices, weights: Weights | None, env: VecNormalize | None) -> Batch:
        for hook in self.sample_hooks:
            hook(indices)
        return self.read(indices, weights, env)

    def read(self, indices: Indices, weights: Weights | None = None, env: VecNormalize | None = None) -> Batch:
        """
        Read transitions as training does. No hook is called.

        :param indices: (B,) where they are
        :param weights: (B,) their importance weights; None if all are 1
        :param env: what normalizes observations and rewards, if anything does
        :return: B transitions
        """
        if self.monte_carlo > 0 and env is not None and env.norm_reward:
            raise ArgumentError(
                "monte_carlo stores realised returns, which VecNormalize cannot rescale: use norm_reward=False."
            )
        to_torch = _converter(self)
        multistep_return = make_multistep_return(self.n_steps, self._discount, self.monte_carlo)
        rewards, discounts, last = multistep_return(self, indices, lambda rewards: self._normalize_reward(rewards, env))

        def obs_to_torch(obs: Obs) -> PyTorchObs:
            return cast(PyTorchObs, map_observation(to_torch, obs if env is None else self._normalize_obs(obs, env)))

        return Batch(
            observations=obs_to_torch(gather(self.observation_ring.observations, indices)),
            actions=to_torch(self.actions.take(indices)).long(),
            rewards=to_torch(rewards),
            discounts=to_torch(discounts),
            next_observations=obs_to_torch(self.observation_ring.gather_next(last)),
            weights=_or_none(to_torch, weights),
            indices=indices,
        )

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        Draw transitions in the form that SB3's algorithms read.

        :param batch_size: B
        :param env: what normalizes observations and rewards, if anything does
        :return: (B, 1) actions, rewards, dones and discounts; no discounts if the buffer was given no ``gamma``
        :raises ArgumentError: if the sampler weights what it draws, for which these samples have no place
        """
        for_dqn_ext = self._progress is not None  # which has its own ways to weights and errors
        indices, weights = self._drawn = self.sampler.sample(*self.replayable_rows(), batch_size, self._progress or 0.0)
        try:
            if not for_dqn_ext and (weights is not None or self.sampler.uses_td_errors):
                copies = f" with terminal_copies={self.terminal_copies}" if self.sampler.draws_whole_rows else ""
                raise ArgumentError(
                    f"sampler={self._sampler_choice[0]!r}{copies} weights its transitions, which only DQNExt reads: a stock "
                    "algorithm would learn something else. Use DQNExt, or sampler='uniform'."
                )
            return self._get_samples(indices // self.n_envs, env)
        finally:
            self._drawn = (indices, weights) if for_dqn_ext else None

    def _get_samples(  # type: ignore[override]
        self, batch_inds: Array, env: VecNormalize | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        Read transitions, in the place where SB3's buffers do: subclasses can change what was read.

        :param batch_inds: (B,) rows; of which environment each transition is, the sampler has decided, or chance decides
        :param env: what normalizes observations and rewards, if anything does
        :return: see :meth:`sample`
        """
        drawn = self._drawn
        if drawn is not None and len(drawn[0]) == len(batch_inds) and (drawn[0] // self.n_envs == batch_inds).all():
            indices = drawn[0]
        else:
            indices = batch_inds * self.n_envs + np.random.randint(0, self.n_envs, size=len(batch_inds))
        return to_sb3(self._read_drawn(indices, None, env), with_discounts=self.gamma is not None)

    def settings(self) -> dict[str, Any]:
        """:return: the arguments that decide which transitions are replayed, and as what, but for ``n_steps`` and ``gamma``"""
        sampler, sampler_kwargs = self._sampler_choice
        return {
            "sampler": sampler,
            "sampler_kwargs": sampler_kwargs,
            "terminal_copies": self.terminal_copies,
            "terminal_on": self.terminal_on if self.terminal_copies > 1 else None,  # it has no effect
            "monte_carlo": self.monte_carlo,
            "keep_episodes": self.keep_episodes,
        }

    def set_multistep(self, n_steps: int, gamma: float) -> None:
        """
        Read what is stored with another n and another discount factor from now on.

        :param n_steps: n
        :param gamma: the discount factor
        :raises ArgumentError: if it cannot be read so
        """
        if (n_steps, gamma) == (self.n_steps, self.gamma):
            return
        check_number("n_steps", n_steps, low=1, integer=True)
        check_number("gamma", gamma, low=0, high=1)
        if self.monte_carlo > 0 and self.gamma not in (None, gamma) and self.size():
            raise ArgumentError(
                f"gamma={gamma!r} does not fit the replay buffer, whose Monte-Carlo returns are discounted by {self.gamma!r}: "
                "change gamma only while it is empty, or set monte_carlo=0."
            )
        if self.buffer_size < n_steps + self.optimize_memory_usage:
            raise ArgumentError(f"n_steps={n_steps} is too large for {self.buffer_size} rows in the replay buffer.")
        joined_before, self.n_steps, self.gamma = self._joins_rows, n_steps, gamma
        if self._joins_rows and not joined_before:
            # the environments may have been reset in mid-episode, which did not matter to one-step returns
            rows = (self.pos - self.size() + np.arange(self.size())) % self.buffer_size  # from the oldest to the newest
            for row, is_seam in self.observation_ring.stored_discontinuities(rows):
                self.timeouts[row, is_seam & (self.dones[row] == 0)] = 1

    def truncate_open_episodes(self, envs: Bools | None = None) -> None:
        """
        End episodes after their newest step, as a time limit does, because their environments are reset in mid-episode.
        Returns then end there and bootstrap from the last observation.

        :meth:`add` calls this by itself where an observation is not the next observation of the step before. One-step returns
        need no such mark: where rows are not joined, they stay as they are.

        :param envs: (n_envs,) which environments; all if None
        """
        if not self._joins_rows or self.size() == 0:
            return
        row = (self.pos - 1) % self.buffer_size
        is_open = (self.dones[row] == 0) & (self.timeouts[row] == 0)  # (n_envs,)
        for env in np.flatnonzero(is_open if envs is None else is_open & envs).tolist():
            self.timeouts[row, env] = 1
            self.observation_ring.keep_final_observation(row, env)
            if self._by_episodes and self.episodes.open_steps[env] > 0:
                self._end_episode(env, terminal=False)

    def replayable_rows(self) -> tuple[int, int]:
        """
        Return the range of rows that can be replayed, as far as it is the same for all environments.

        :return: the first row, and how many rows there are from there on
        """
        if self.full and self.optimize_memory_usage:
            return self.pos + 1, self.buffer_size - 1  # the row at ``pos`` has lost its own observation
        return 0, self.size()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"sample_hooks": []}

    @property
    def _discount(self) -> float:
        return 1.0 if self.gamma is None else self.gamma

    @property
    def _by_episodes(self) -> bool:
        """Whether it matters which episode a row belongs to."""
        return self.monte_carlo > 0 or self.keep_episodes is not None

    @property
    def _joins_rows(self) -> bool:
        """Whether what is read from a row depends on the rows after it, which must then belong to the same episode."""
        return self.n_steps > 1 or self.optimize_memory_usage or self._by_episodes
