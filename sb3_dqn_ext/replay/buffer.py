"""The replay memory of DQNExt, which stock SB3 algorithms can use as well."""

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_dqn_ext._validation import build, check_number, check_type, choose
from sb3_dqn_ext.algorithm.batches import Batch, each, from_sb3, joined
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay.index_set import Cells, nothing_to_replay
from sb3_dqn_ext.replay.multistep import Fold, MonteCarlo, NStep, OneStep
from sb3_dqn_ext.replay.samplers import SAMPLERS, SYNONYMS, Sampler, Uniform

Array = npt.NDArray[Any]
Obs = Array | dict[str, Array]

TERMINAL_ON: dict[str, Callable[[Array, Array], Array]] = {
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


def write(stored: Obs, row: int, obs: Obs) -> None:
    """
    :param stored: (rows, \\*shape) an array, or a dictionary of arrays
    :param row: which row of it
    :param obs: what to write there, \\*shape or as many numbers
    """
    if isinstance(stored, dict):
        for key, array in stored.items():
            write(array, row, cast(dict[str, Array], obs)[key])
    else:
        shape = stored.shape[1:]
        stored[row] = obs if isinstance(obs, np.ndarray) and obs.shape == shape else np.reshape(cast(Array, obs), shape)


def _at(cells: Cells, stored: Array) -> Array:
    """(B,) cells and (rows, n_envs, \\*shape) -> (B, \\*shape)"""
    return stored.reshape(-1, *stored.shape[2:]).take(cells, axis=0)


def _parts(obs: Obs) -> list[Array]:
    return list(obs.values()) if isinstance(obs, dict) else [obs]


def _is_same(stored: Array, given: Array) -> bool:
    if stored.nbytes < 4096:  # where copies are quicker than two calls
        return np.asarray(given, stored.dtype).tobytes() == stored.tobytes()
    return bool((np.reshape(given, stored.shape) == stored).all())


def _differing(stored: Array, given: Array) -> npt.NDArray[np.bool_]:
    """(n_envs, \\*shape) twice -> (n_envs,) where they are not the same bits, so that nan equals nan"""
    given = np.ascontiguousarray(given, stored.dtype)
    a, b = (array.view(np.uint8).reshape(len(stored), -1) for array in (given, stored))  # (n_envs, bytes)
    differs: npt.NDArray[np.bool_] = (a != b).any(axis=1)
    return differs


@lru_cache
def _make_fold(n_steps: int, gamma: float, monte_carlo: float) -> Fold:
    bootstrapped = OneStep(gamma) if n_steps == 1 else NStep(n_steps, gamma)
    return bootstrapped if monte_carlo == 0 else MonteCarlo(monte_carlo, gamma, bootstrapped)


@lru_cache
def _own_methods(kind: type["DQNReplayBuffer"]) -> set[str]:
    names = ("sample", "_get_samples")
    return {name for name in names if getattr(kind, name) is not getattr(DQNReplayBuffer, name)}


class DQNReplayBuffer(ReplayBuffer):
    """
    A replay memory whose rows are drawn by a *sampler* and read through a *fold*.

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
    :param n_steps: how many rewards are folded into one
    :param gamma: the discount factor; may be left out when ``n_steps`` is 1 and a stock algorithm applies its own
    :param sampler: which transitions are replayed: ``"uniform"``; ``"prioritized"``, by their errors
        (https://arxiv.org/abs/1511.05952); or ``"rows"``, one stored moment with all its environments. What weights its
        transitions or learns from errors works in :class:`~sb3_dqn_ext.DQNExt` and not in a stock algorithm: ``prioritized``,
        and ``rows`` with ``terminal_copies``
    :param sampler_kwargs: arguments of the sampler: ``replace`` (``uniform``, ``rows``); ``alpha``, ``beta``, ``beta_end`` and
        ``eps`` (``prioritized``, see :class:`~sb3_dqn_ext.replay.Prioritized`)
    :param terminal_copies: how many times a transition that ended its episode stands in the memory
    :param terminal_on: which ends that means: ``"terminated"``, ``"truncated"`` or ``"done"`` (both)
    :param monte_carlo: the share of the realised discounted return in what is learned, the rest is the n-step return; while it
        is not 0, only episodes that have ended are replayed
    :param keep_episodes: how many of the latest ended episodes can be replayed, over all environments; all if None
    :raises ArgumentError: if an argument cannot work
    """

    optimize_memory_usage: bool
    _progress: float | None = None
    """the progress of the run while DQNExt samples by way of a subclass"""
    _drawn: tuple[Cells, Array] | None = None
    """the (B,) cells and weights of the sample that is being read"""

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
        sampler: str = "uniform",
        sampler_kwargs: Mapping[str, Any] | None = None,
        terminal_copies: int = 1,
        terminal_on: str = "terminated",
        monte_carlo: float = 0.0,
        keep_episodes: int | None = None,
    ) -> None:
        for name, count in {"buffer_size": buffer_size, "n_envs": n_envs, "n_steps": n_steps}.items():
            check_number(name, count, low=1, integer=True)
        check_type("optimize_memory_usage", optimize_memory_usage, bool, "True or False")
        check_number("terminal_copies", terminal_copies, low=1, integer=True)
        check_type("handle_timeout_termination", handle_timeout_termination, bool, "True or False")
        check_type("sampler_kwargs", {} if sampler_kwargs is None else sampler_kwargs, Mapping, "a mapping of arguments")
        check_number("monte_carlo", monte_carlo, low=0, high=1)
        if keep_episodes is not None:
            check_number("keep_episodes", keep_episodes, low=1, integer=True)
            if sampler == "rows" and keep_episodes < n_envs:
                raise ArgumentError(
                    f"keep_episodes={keep_episodes} leaves sampler='rows' no row that is whole: it must be at least "
                    f"n_envs={n_envs}."
                )
        if gamma is not None:
            check_number("gamma", gamma, low=0, high=1)
        elif n_steps > 1 or monte_carlo > 0:
            raise ArgumentError(f"n_steps={n_steps}, monte_carlo={monte_carlo} need a gamma beside, for example gamma=0.99.")
        # not ReplayBuffer's: it would allocate, and it forbids what this class allows
        super(ReplayBuffer, self).__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        if self.buffer_size < n_steps + optimize_memory_usage:
            raise ArgumentError(
                f"buffer_size={buffer_size} leaves {self.buffer_size} rows for each of {n_envs} environments, "
                f"too few for n_steps={n_steps} and optimize_memory_usage={optimize_memory_usage}."
            )
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps = n_steps
        self.gamma = gamma
        choose("terminal_on", terminal_on, TERMINAL_ON, {"termination": "terminated", "both": "done"})
        self.terminal_on = terminal_on
        self.terminal_copies = terminal_copies
        self.monte_carlo = monte_carlo
        self.keep_episodes = keep_episodes
        self._sampler_choice = sampler, dict(sampler_kwargs or {})
        self.sampler = self._make_sampler()
        # with optimize_memory_usage: the last observation of each episode, by cell
        self._last_observations: dict[int, Obs] = {}
        # rows stored so far, and steps in the open episode of each environment; with keep_episodes: the latest ended ones,
        # each as the first of these rows, the one behind its last, and the environment
        self.n_added = 0
        self._open_steps = np.zeros(n_envs, dtype=np.int64)
        self._ended: deque[tuple[int, int, int]] = deque()
        self._warn_if_too_large()

    # the arrays of SB3's buffers, made when they are first used

    @cached_property
    def observations(self) -> Obs:  # type: ignore[override]
        """(rows, n_envs, \\*obs)"""
        return self._zeros_like_observations()

    @cached_property
    def next_observations(self) -> Obs:  # type: ignore[override]
        """(rows, n_envs, \\*obs), unless ``optimize_memory_usage``"""
        return self._zeros_like_observations()

    @cached_property
    def actions(self) -> Array:  # type: ignore[override]
        """(rows, n_envs, 1)"""
        return np.zeros(
            (self.buffer_size, self.n_envs, self.action_dim), dtype=self._maybe_cast_dtype(self.action_space.dtype)
        )

    @cached_property
    def rewards(self) -> Array:  # type: ignore[override]
        """(rows, n_envs)"""
        return np.zeros((self.buffer_size, self.n_envs), dtype=np.float32)

    @cached_property
    def dones(self) -> Array:  # type: ignore[override]
        """(rows, n_envs), 1 where an episode ended, for whatever reason"""
        return np.zeros((self.buffer_size, self.n_envs), dtype=np.float32)

    @cached_property
    def timeouts(self) -> Array:  # type: ignore[override]
        """(rows, n_envs), 1 where a time limit ended it"""
        return np.zeros((self.buffer_size, self.n_envs), dtype=np.float32)

    @cached_property
    def returns(self) -> Array:
        """(rows, n_envs) with ``monte_carlo``: discounted sum of the rewards up to the end of an episode that has ended"""
        return np.zeros((self.buffer_size, self.n_envs), dtype=np.float32)

    @cached_property
    def ends(self) -> Array:
        """(rows, n_envs) with ``monte_carlo``: the row in which the episode ended, once it has"""
        return np.zeros((self.buffer_size, self.n_envs), dtype=np.int64)

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
        if self._joins_rows and self.n_added > 0:
            self._truncate_what_is_not_continued(obs)
        row, done = self.pos, np.asarray(done, dtype=bool)  # environments may have 0 and 1, which are no index
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos], dtype=bool)
        if done.ndim + truncated.ndim > 2:
            done, truncated = done.ravel(), truncated.ravel()
        write(self.observations, row, obs)
        if self.optimize_memory_usage:
            write(self.observations, (row + 1) % self.buffer_size, next_obs)
        else:
            write(self.next_observations, row, next_obs)
        self.actions[row] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[row] = reward
        self.dones[row] = done
        # always written: what stood here may have been truncated; an info that is used again may still tell of an earlier end
        self.timeouts[row] = truncated & done if self.handle_timeout_termination else 0
        self.pos = (row + 1) % self.buffer_size
        self.full = self.full or self.pos == 0
        self.n_added += 1

        if self.sampler.told:
            self._tell(row, done, truncated)
        if self.optimize_memory_usage:
            self._keep_last_observations(row, next_obs, done)
            # the oldest row's own observation has just become the newest row's next one
            self.sampler.removed(self._cells_of(self.pos))

    def _tell(self, row: int, done: Array, truncated: Array) -> None:
        """Tell the sampler what was written into a row, as soon as it can be replayed."""
        cells, terminal = self._cells_of(row), TERMINAL_ON[self.terminal_on](done, truncated)
        if self.monte_carlo > 0:
            self.sampler.removed(cells)  # what stood here; it comes back when its episode has ended
        else:
            self.sampler.added(cells, terminal)
        if self._by_episodes:
            self._open_steps += 1
            for env in np.flatnonzero(done).tolist():
                self._end_episode(row, env, bool(terminal[env]))

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.sampler = self._make_sampler()
        self._last_observations.clear()
        self.n_added = 0
        self._open_steps[:] = 0
        self._ended.clear()

    def sample_batch(
        self, batch_size: int, env: VecNormalize | None = None, progress: float = 0.0, n_batches: int = 1
    ) -> Batch:
        """
        Draw transitions and fold them.

        :param batch_size: B
        :param env: what normalizes observations and rewards, if anything does
        :param progress: how much of the run is over, from 0 to 1, for samplers that change with it
        :param n_batches: n, how many batches to draw, each as if it were the only one
        :return: n * B transitions, one batch after the other
        """
        if self._has_own("sample"):
            return joined([self._batch_by_sample(batch_size, env, progress) for _ in range(n_batches)])
        draws = [self._draw(batch_size, progress) for _ in range(n_batches)]
        cells, weights = draws[0] if n_batches == 1 else (np.concatenate(parts) for parts in zip(*draws, strict=True))
        return self._batch_at(cells, weights, env)

    def _has_own(self, method: str) -> bool:
        """Whether a subclass, or the user's assignment, has put another method in the place of this one's."""
        return method in self.__dict__ or method in _own_methods(type(self))

    def _batch_by_sample(self, batch_size: int, env: VecNormalize | None, progress: float) -> Batch:
        """A batch as ``sample`` returns it, with the indices and weights of what was drawn for it."""
        self._progress, self._drawn = progress, None
        try:
            batch, drawn = from_sb3(self.sample(batch_size, env), self._discount), self._drawn
        finally:
            self._progress = self._drawn = None
        if drawn is None or len(drawn[0]) != len(batch.actions):
            return batch  # it draws by itself
        return batch._replace(weights=self._converter()(drawn[1]), cells=drawn[0])

    def _batch_at(self, cells: Cells, weights: Array, env: VecNormalize | None) -> Batch:
        """(B,) cells and weights -> B transitions"""
        if not self._has_own("_get_samples"):
            return self._read(cells, weights, env)
        self._drawn = cells, weights
        try:
            batch = from_sb3(self._get_samples(cells // self.n_envs, env), self._discount)
        finally:
            self._drawn = None
        return batch._replace(weights=self._converter()(weights), cells=cells)

    def _draw(self, batch_size: int, progress: float) -> tuple[Cells, Array]:
        """(B,) cells and weights"""
        return self.sampler.draw(*self._valid_rows(), batch_size, progress)

    def epoch(self, cells: Cells, batch_size: int, env: VecNormalize | None = None) -> Iterator[Batch]:
        """
        Go once through transitions, in random order.

        :param cells: where they lie
        :param batch_size: B; the last batch is what is left
        :param env: what normalizes observations and rewards, if anything does
        """
        shuffled = np.random.permutation(cells)
        for start in range(0, len(cells), batch_size):
            batch = shuffled[start : start + batch_size]
            yield self._batch_at(batch, np.ones(len(batch), dtype=np.float32), env)

    def every_cell(self) -> Cells:
        """All that can be replayed, as often as it stands in the memory; in no order."""
        assert isinstance(self.sampler, Uniform)
        cells = self.sampler.every(*self._valid_rows())
        if len(cells) == 0:
            raise nothing_to_replay()
        return cells

    def actions_at(self, cells: Cells) -> Array:
        """(B,) cells -> (B,) the actions that were taken there"""
        return self.actions.take(cells)

    def _read(self, cells: Cells, weights: Array, env: VecNormalize | None) -> Batch:
        """(B,) cells and weights -> B folded transitions"""
        if self.monte_carlo > 0 and env is not None and env.norm_reward:
            raise ArgumentError(
                "monte_carlo stores realised returns, which VecNormalize cannot rescale: use norm_reward=False."
            )
        fold, to_torch = _make_fold(self.n_steps, self._discount, self.monte_carlo), self._converter()
        folded = fold(self, cells, lambda rewards: self._normalize_reward(rewards, env))

        def obs_to_torch(obs: Obs) -> PyTorchObs:
            return cast(PyTorchObs, each(to_torch, obs if env is None else self._normalize_obs(obs, env)))

        return Batch(
            observations=obs_to_torch(each(partial(_at, cells), self.observations)),
            actions=to_torch(self.actions.take(cells)).long(),
            rewards=to_torch(folded.rewards),
            discounts=to_torch(folded.discounts),
            next_observations=obs_to_torch(self._next_observations_of(folded.last)),
            weights=to_torch(weights),
            cells=cells,
        )

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        Draw transitions in the form that SB3's algorithms read.

        :param batch_size: B
        :param env: what normalizes observations and rewards, if anything does
        :return: (B, 1) actions, rewards, dones and discounts; no discounts if the buffer was given no ``gamma``
        :raises ArgumentError: if the sampler weights what it draws, which these samples cannot tell
        """
        for_dqn_ext = self._progress is not None  # which has its own ways to weights and errors
        if not for_dqn_ext and (self.sampler.weighted or self.sampler.wants_errors):
            copies = f" with terminal_copies={self.terminal_copies}" if self._sampler_choice[0] == "rows" else ""
            raise ArgumentError(
                f"sampler={self._sampler_choice[0]!r}{copies} weights its transitions, which only DQNExt reads: a stock "
                "algorithm would learn something else. Use DQNExt, or sampler='uniform'."
            )
        cells, weights = self._draw(batch_size, self._progress or 0.0)
        self._drawn = cells, weights
        try:
            return self._get_samples(cells // self.n_envs, env)
        finally:
            self._drawn = (cells, weights) if for_dqn_ext else None

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
            cells = drawn[0]
        else:
            cells = batch_inds * self.n_envs + np.random.randint(0, self.n_envs, size=len(batch_inds))
        batch = self._read(cells, np.ones(len(cells), dtype=np.float32), env)
        samples = DictReplayBufferSamples if isinstance(batch.observations, dict) else ReplayBufferSamples
        discounts = batch.discounts.unsqueeze(1)
        return samples(
            observations=batch.observations,  # type: ignore[arg-type]
            actions=batch.actions.unsqueeze(1),
            next_observations=batch.next_observations,  # type: ignore[arg-type]
            dones=(discounts == 0).to(discounts.dtype),
            rewards=batch.rewards.unsqueeze(1),
            discounts=None if self.gamma is None else discounts,
        )

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

    def follow(self, n_steps: int, gamma: float) -> None:
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
            self._truncate_at_seams()

    def _truncate_at_seams(self) -> None:
        """End the stored episodes whose environments were reset in mid-episode, which did not matter to one-step returns."""
        rows = (self.pos - self.size() + np.arange(self.size())) % self.buffer_size  # from the oldest to the newest
        for row, following in pairwise(rows.tolist()):
            parts = zip(_parts(self.next_observations), _parts(self.observations), strict=True)
            is_seam = np.any([_differing(after[row], obs[following]) for after, obs in parts], axis=0)  # (n_envs,)
            self.timeouts[row, is_seam & (self.dones[row] == 0)] = 1

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

    def _make_sampler(self) -> Sampler:
        name, kwargs = self._sampler_choice
        of_this_memory = (self.buffer_size, self.n_envs, self.terminal_copies, self._by_episodes)
        samplers = {name: partial(factory, *of_this_memory) for name, factory in SAMPLERS.items()}
        return build("sampler", name, samplers, kwargs, SYNONYMS)

    def _end_episode(self, row: int, env: int, terminal: bool) -> None:
        """
        :param row: the row of the last step
        :param env: the environment
        :param terminal: whether that step counts as terminal
        """
        length = min(int(self._open_steps[env]), self.buffer_size - self.optimize_memory_usage)
        self._open_steps[env] = 0
        if self.monte_carlo > 0:
            rows = (row - np.arange(length)) % self.buffer_size  # (T,) from the last step to the first
            total = 0.0
            for i in rows:
                total = self.rewards[i, env] + cast(float, self.gamma) * total
                self.returns[i, env] = total
            self.ends[rows, env] = row
            self.sampler.added(rows * self.n_envs + env, terminal & (np.arange(length) == 0))
        if self.keep_episodes is not None:
            self._ended.append((self.n_added - length, self.n_added, env))
            if len(self._ended) > self.keep_episodes:
                first, end, env = self._ended.popleft()
                still_stored = np.arange(max(first, self.n_added - self.buffer_size), end)
                self.sampler.removed(still_stored % self.buffer_size * self.n_envs + env)

    def truncate_open_episodes(self, envs: npt.NDArray[np.bool_] | None = None) -> None:
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
            if self.optimize_memory_usage:  # the next row is about to be written over
                last = each(lambda obs, env=env: np.array(obs[self.pos, env]), self.observations)  # type: ignore[misc]
                self._last_observations[row * self.n_envs + env] = last
            if self._by_episodes and self._open_steps[env] > 0:
                self._end_episode(row, env, terminal=False)

    def _truncate_what_is_not_continued(self, obs: Obs) -> None:
        """End the open episodes whose newest next observations are not these: (n_envs, \\*obs) those of the coming row."""
        if self.optimize_memory_usage:
            stored, row = self.observations, self.pos
        else:
            stored, row = self.next_observations, self.pos - 1
        if isinstance(stored, dict):
            pairs = [(array[row], cast(dict[str, Array], obs)[key]) for key, array in stored.items()]
        else:
            pairs = [(stored[row], cast(Array, obs))]
        differing = [pair for pair in pairs if not _is_same(*pair)]  # none, in nearly all steps
        if differing:
            self.truncate_open_episodes(np.any([_differing(*pair) for pair in differing], axis=0))

    def _valid_rows(self) -> tuple[int, int]:
        """The first row that can be replayed, and how many can."""
        if self.full and self.optimize_memory_usage:
            return self.pos + 1, self.buffer_size - 1  # the row at ``pos`` has lost its own observation
        return 0, self.size()

    def _cells_of(self, row: int) -> Cells:
        """(n_envs,)"""
        return np.arange(row * self.n_envs, (row + 1) * self.n_envs)

    def _zeros_like_observations(self) -> Obs:
        shape = (self.buffer_size, self.n_envs)
        if isinstance(self.observation_space, spaces.Dict):
            shapes = cast(dict[str, tuple[int, ...]], self.obs_shape)
            return {
                key: np.zeros((*shape, *shapes[key]), dtype=space.dtype)
                for key, space in self.observation_space.spaces.items()
            }
        return np.zeros((*shape, *self.obs_shape), dtype=self.observation_space.dtype)

    def _keep_last_observations(self, row: int, next_obs: Obs, done: Array) -> None:
        for env, cell in enumerate(self._cells_of(row).tolist()):
            self._last_observations.pop(cell, None)
            if done[env]:
                self._last_observations[cell] = each(lambda obs, env=env: np.array(obs[env]), next_obs)  # type: ignore[misc]

    def _next_observations_of(self, cells: Array) -> Obs:
        """(B,) cells -> (B, \\*obs) the observations after their steps."""
        if not self.optimize_memory_usage:
            return each(partial(_at, cells), self.next_observations)
        following = (cells + self.n_envs) % (self.buffer_size * self.n_envs)
        next_obs = each(partial(_at, following), self.observations)
        for i, cell in enumerate(cells.tolist()):
            last = self._last_observations.get(cell)
            if last is not None:
                write(next_obs, i, last)
        return next_obs

    def _converter(self) -> Callable[[Array], th.Tensor]:
        """Make tensors of arrays that were gathered for them, and which they then hold."""
        is_own = type(self).to_torch is not ReplayBuffer.to_torch or "to_torch" in self.__dict__
        is_plain = self.device.type == "cpu" and not is_own
        return th.from_numpy if is_plain else partial(self.to_torch, copy=False)

    def _warn_if_too_large(self) -> None:
        try:
            import psutil
        except ImportError:
            return
        needed = self._bytes_needed()
        available = psutil.virtual_memory().available
        if needed > available:
            warnings.warn(
                "This system does not have apparently enough memory to store the complete "
                f"replay buffer {needed / 1e9:.2f}GB > {available / 1e9:.2f}GB",
                stacklevel=3,
            )

    def _bytes_needed(self) -> int:
        dict_space = isinstance(self.observation_space, spaces.Dict)
        parts = self.observation_space.spaces.values() if dict_space else [self.observation_space]  # type: ignore[attr-defined]
        shapes = self.obs_shape.values() if isinstance(self.obs_shape, dict) else [self.obs_shape]
        obs = sum(math.prod(shape) * np.dtype(part.dtype).itemsize for shape, part in zip(shapes, parts, strict=True))
        per_cell = obs * (1 if self.optimize_memory_usage else 2) + self.action_dim * 8 + 3 * 4
        return self.buffer_size * self.n_envs * int(per_cell)


def truncate_open_episodes(buffer: ReplayBuffer, envs: npt.NDArray[np.bool_] | None = None) -> None:
    """
    End episodes after their newest step, because their environments are reset in mid-episode.

    With SB3's buffers the steps are marked as ``HerReplayBuffer.truncate_last_trajectory`` does it: as ends at a time limit,
    which are terminations with ``handle_timeout_termination=False``. Those that join no rows stay as they are.

    :param buffer: a replay buffer
    :param envs: (n_envs,) which environments; all if None, or if it is a HerReplayBuffer
    """
    if isinstance(buffer, DQNReplayBuffer):
        buffer.truncate_open_episodes(envs)
    elif isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The last trajectory in the replay buffer will be truncated")
            buffer.truncate_last_trajectory()
    elif isinstance(buffer, NStepReplayBuffer) or getattr(buffer, "optimize_memory_usage", False):
        newest = buffer.pos - 1
        is_open = (buffer.dones[newest] == 0) & (buffer.size() > 0) & (True if envs is None else envs)  # (n_envs,)
        buffer.dones[newest, is_open] = 1
        if buffer.handle_timeout_termination:
            buffer.timeouts[newest, is_open] = 1
