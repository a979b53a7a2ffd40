"""
Transitions that were recorded beforehand: demonstrations, logs of other agents, data sets.

Shapes: T transitions, N environments.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import get_obs_shape

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.serialization.names import qualified_name
from sb3_dqn_ext.serialization.sb3_pickle import RecordedCall, describe_pickle, recorded_array

__all__ = [
    "SpacesEnv",
    "Transitions",
    "check_spaces",
    "from_episode",
    "join",
    "load_transitions",
    "read_minari",
    "read_npz",
    "read_replay_buffer",
    "write_npz",
]

Array = npt.NDArray[Any]
Obs = Array | dict[str, Array]

SB3_BUFFERS = [qualified_name(kind) for kind in (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer)]


@dataclass(frozen=True, eq=False, repr=False)
class Transitions:
    """T transitions in the order in which they happened, one episode after the other."""

    observations: Obs
    """The (T, \\*obs) observations before the steps; a dictionary of such arrays for a Dict space."""
    actions: Array
    """The (T,) actions."""
    rewards: Array
    """The (T,) rewards."""
    next_observations: Obs
    """The (T, \\*obs) observations after the steps; at the end of an episode, its final observation."""
    terminated: Array
    """(T,) whether each step terminated its episode."""
    truncated: Array
    """(T,) whether the episode ends with the step for another reason, such as a time limit."""

    def __len__(self) -> int:
        return len(self.actions)

    def __repr__(self) -> str:
        return f"Transitions of {len(self)} steps"

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name; those of a Dict observation have names such as ``"observations/position"``."""
        named = ((name, _by_key(value)) for name, value in vars(self).items())
        return {f"{name}/{key}" if key else name: array for name, parts in named for key, array in parts.items()}


def _by_key(obs: Any) -> dict[str, Array]:
    return {key: np.asarray(part) for key, part in obs.items()} if isinstance(obs, Mapping) else {"": np.asarray(obs)}


def _map(function: Any, *observations: Any) -> Obs:
    """Apply a function to arrays, or to the arrays with the same key of dictionaries."""
    if isinstance(observations[0], Mapping):
        return {key: function(*(np.asarray(one[key]) for one in observations)) for key in observations[0]}
    result: Array = function(*map(np.asarray, observations))
    return result


def from_episode(observations: Any, actions: Any, rewards: Any, terminated: Any, truncated: Any) -> Transitions:
    """
    Return the transitions of an episode. If its last step has no end, it is marked as truncated: it continues unrecorded.

    :param observations: the (T + 1, \\*obs) observations, from the first to the final one: an array, a list of observations,
        or a dictionary of arrays
    :param actions: the (T,) actions
    :param rewards: the (T,) rewards
    :param terminated: (T,) whether each step terminated the episode
    :param truncated: (T,) whether each step truncated the episode
    :return: the transitions
    :raises ArgumentError: if the arrays have other lengths
    """
    if isinstance(observations, list | tuple):
        observations = _stacked(observations)
    before, after = _map(lambda array: array[:-1], observations), _map(lambda array: array[1:], observations)
    return _checked(before, actions, rewards, after, terminated, truncated)


def _checked(*fields: Any) -> Transitions:
    """Make transitions of arrays or lists, check their lengths, and mark the last one as the end of its episode."""
    observations, actions, rewards, next_observations, terminated, truncated = fields
    made = Transitions(
        _map(np.array, observations),
        np.array(actions),
        np.array(rewards, dtype=np.float64),
        _map(np.array, next_observations),
        np.array(terminated, dtype=bool),
        np.array(truncated, dtype=bool),
    )
    lengths = {name: array.shape[:1] for name, array in made.arrays().items()}
    if len(set(lengths.values())) > 1 or not made.actions.shape or len(made) == 0:
        found = ", ".join(f"{name}: {shape[0] if shape else 'no'} rows" for name, shape in lengths.items())
        raise ArgumentError(
            f"transitions need as many rows in each array, and at least one; there are {found}. Episodes have one observation "
            "more than actions."
        )
    made.truncated[-1] |= not made.terminated[-1]
    return made


def join(parts: Iterable[Transitions]) -> Transitions:
    """
    Join transitions of several sources.

    :param parts: the transitions; the last one of each is the end of its episode
    :return: all transitions
    :raises ArgumentError: if there are none, or their observations are of different kinds
    """
    found = list(parts)
    if not found:
        raise ArgumentError("there are no transitions: an empty list or data set was given.")
    shapes = [{name: array.shape[1:] for name, array in part.arrays().items()} for part in found]
    other = next((one for one in shapes if one != shapes[0]), None)
    if other is not None:
        raise ArgumentError(f"transitions of different shapes cannot be joined: {shapes[0]} and {other}.")
    return Transitions(*(_map(lambda *arrays: np.concatenate(arrays), *some) for some in _fields(found)))  # type: ignore[arg-type]


def _fields(parts: Iterable[Transitions]) -> Iterable[tuple[Any, ...]]:
    return zip(*(vars(part).values() for part in parts), strict=True)


def write_npz(path: str | os.PathLike[str], transitions: Transitions) -> None:
    """
    Write transitions to a file of numpy.

    :param path: the file, whose name ends with ``.npz``
    :param transitions: the transitions
    """
    np.savez_compressed(os.fspath(path), **transitions.arrays())  # type: ignore[arg-type]


def read_npz(path: str | os.PathLike[str]) -> Transitions:
    """
    Read transitions from a file of numpy, without unpickling.

    :param path: a file with the arrays ``observations``, ``actions``, ``rewards``, ``terminated`` and ``truncated``, and
        ``next_observations``; without the latter, it is one episode, with one observation more. The arrays of a Dict
        observation are named ``observations/KEY``
    :return: the transitions
    :raises ArgumentError: if there is no such file, or an array is missing
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise ArgumentError(f"demonstrations={os.fspath(path)!r} cannot be read: {error}") from error
    missing = {"actions", "rewards", "terminated", "truncated"} - arrays.keys()
    observations, next_observations = (_observations(arrays, name) for name in ("observations", "next_observations"))
    if missing or observations is None:
        names = ", ".join(sorted({*missing, *(["observations"] if observations is None else [])}))
        raise ArgumentError(f"demonstrations={os.fspath(path)!r} has no array {names}; it has {', '.join(arrays)}.")
    rest = [arrays[name] for name in ("terminated", "truncated")]
    if next_observations is None:
        return from_episode(observations, arrays["actions"], arrays["rewards"], *rest)
    return _checked(observations, arrays["actions"], arrays["rewards"], next_observations, *rest)


def _observations(arrays: Mapping[str, Array], name: str) -> Obs | None:
    """Return the observations of a name, or the dictionary of those whose names begin with it; None if there are none."""
    parts = {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
    return parts or arrays.get(name)


def read_minari(dataset: Any) -> Transitions:
    """
    Read a data set of Minari (https://minari.farama.org). Nothing is downloaded.

    :param dataset: a ``MinariDataset``, or the id of one that is on this machine, such as ``"mountaincar/energy-v0"``
    :return: the transitions of all its episodes
    :raises ArgumentError: if Minari is not installed, or there is no such data set on this machine
    """
    if isinstance(dataset, str):
        try:
            import minari  # an optional dependency
        except ImportError as error:
            raise ArgumentError(
                f"demonstrations={dataset!r} is no file that ends with .npz or .pkl. If it is a data set of Minari, install "
                "it: pip install 'sb3-dqn-ext[minari]'."
            ) from error
        try:
            dataset = minari.load_dataset(dataset)
        except (OSError, ValueError, AttributeError) as error:
            raise ArgumentError(
                f"demonstrations={dataset!r} is no file that ends with .npz or .pkl, and no data set of Minari on this "
                f"machine: {error} A data set of Minari's server is loaded by: minari download {dataset}"
            ) from error
    return join(
        from_episode(one.observations, one.actions, one.rewards, one.terminations, one.truncations)
        for one in dataset.iterate_episodes()
    )


def read_replay_buffer(source: Any) -> Transitions:
    """
    Read the content of a replay buffer of SB3, oldest transitions first, one environment after the other.

    :param source: a replay buffer, or a file that ``model.save_replay_buffer()`` of SB3 has written. The file is a pickle: its
        arrays are read, and none of its code is run
    :return: the transitions
    :raises ArgumentError: if the buffer is empty, or the file holds another object
    """
    buffer = source if isinstance(source, ReplayBuffer) else _described_buffer(source)
    # with optimize_memory_usage, the oldest observation of a full buffer is overwritten
    n_rows = buffer.buffer_size - buffer.optimize_memory_usage if buffer.full else buffer.pos
    if n_rows == 0:
        raise ArgumentError(f"demonstrations={source!r} is an empty replay buffer.")
    rows = (buffer.pos - n_rows + np.arange(n_rows)) % buffer.buffer_size
    return join(_transitions_of_env(buffer, rows, env) for env in range(buffer.n_envs))


def _transitions_of_env(buffer: Any, rows: Array, env: int) -> Transitions:
    dones, timeouts = buffer.dones[rows, env] > 0, buffer.timeouts[rows, env] > 0
    if hasattr(buffer, "read_next_observations"):  # a DQNReplayBuffer, which may store frames and packed masks
        indices = rows * buffer.n_envs + env
        before, after = buffer.read_observations(indices), buffer.read_next_observations(indices)
    else:
        following = (buffer.observations, (rows + 1) % buffer.buffer_size)
        after, its_rows = following if buffer.optimize_memory_usage else (buffer.next_observations, rows)
        before, after = (
            _map(lambda array, at=at: array[at, env], obs) for obs, at in ((buffer.observations, rows), (after, its_rows))
        )
    # a reset in mid-episode is a time limit without an end
    return _checked(before, buffer.actions[rows, env, 0], buffer.rewards[rows, env], after, dones & ~timeouts, timeouts)


@dataclass
class _DescribedBuffer:
    """The attributes of a pickled replay buffer."""

    buffer_size: int
    n_envs: int
    pos: int
    full: bool
    optimize_memory_usage: bool
    observations: Obs
    next_observations: Obs
    actions: Array
    rewards: Array
    dones: Array
    timeouts: Array


def _described_buffer(path: Any) -> _DescribedBuffer:
    """Read the arrays of a pickled replay buffer of SB3 without running the pickle."""
    try:
        with open(path, "rb") as file:
            node = describe_pickle(file.read())
        if not isinstance(node, RecordedCall) or node.name not in SB3_BUFFERS:
            raise ValueError(f"it holds {getattr(node, 'name', type(node).__name__)}, not one of {', '.join(SB3_BUFFERS)}")
        state = dict(node.state.pairs)
        names = _DescribedBuffer.__dataclass_fields__
        return _DescribedBuffer(**{name: _described_value(state.get(name)) for name in names})
    except Exception as error:  # forged bytes can raise any error
        raise ArgumentError(
            f"demonstrations={os.fspath(path)!r} cannot be read as a replay buffer of SB3: {error!r}. A replay buffer of "
            "another class can be given as an object."
        ) from error


def _described_value(node: Any) -> Any:
    if isinstance(node, RecordedCall) and node.name == "builtins.dict":
        return {key: recorded_array(part) for key, part in node.pairs}
    return recorded_array(node) if isinstance(node, RecordedCall) else node


def load_transitions(source: Any) -> Transitions:
    """
    Load transitions.

    :param source: :class:`Transitions`; a file that ends with ``.npz`` (:func:`read_npz`) or ``.pkl``
        (:func:`read_replay_buffer`); a replay buffer; a data set of Minari or its id (:func:`read_minari`); an iterable of
        tuples (observation, action, reward, next observation, terminated, truncated); or an iterable of the others
    :return: the transitions
    :raises ArgumentError: if it is none of these, or cannot be read
    """
    if isinstance(source, Transitions):
        return source
    if isinstance(source, ReplayBuffer):
        return read_replay_buffer(source)
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        readers: dict[str, Callable[[Any], Transitions]] = {".npz": read_npz, ".pkl": read_replay_buffer}
        read: Callable[[Any], Transitions] = readers.get(os.path.splitext(path)[1], read_minari)
        return read(path)
    if hasattr(source, "iterate_episodes"):
        return read_minari(source)
    if not isinstance(source, Iterable) or isinstance(source, Mapping):
        raise ArgumentError(
            f"demonstrations={source!r} must be a file (.npz, .pkl), a replay buffer, a data set of Minari or its id, "
            "Transitions, or an iterable of tuples (observation, action, reward, next observation, terminated, truncated)."
        )
    return _load_items(iter(source))


def _load_items(items: Any) -> Transitions:
    first = next(items, None)
    everything = chain([] if first is None else [first], items)
    if not isinstance(first, tuple):
        return join(map(load_transitions, everything))
    steps = list(everything)
    if any(not isinstance(step, tuple) or len(step) != 6 for step in steps):
        raise ArgumentError(
            "an iterable of transitions must hold tuples (observation, action, reward, next observation, terminated, "
            f"truncated); it holds {next(step for step in steps if not isinstance(step, tuple) or len(step) != 6)!r}."
        )
    observations, actions, rewards, next_observations, terminated, truncated = zip(*steps, strict=True)
    return _checked(_stacked(observations), actions, rewards, _stacked(next_observations), terminated, truncated)


def _stacked(observations: Any) -> Obs:
    """Return observations, which may be dictionaries, as arrays."""
    return _map(lambda *arrays: np.stack(arrays), *observations)


def check_spaces(transitions: Transitions, observation_space: spaces.Space[Any], action_space: spaces.Discrete) -> None:
    """
    Check that transitions are those of an environment with given spaces.

    :param transitions: the transitions
    :param observation_space: the observation space of the model, as its policy reads it
    :param action_space: the action space
    :raises ArgumentError: if shapes or actions do not fit
    """
    parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    found = _by_key(transitions.observations)
    if found.keys() != parts.keys():
        raise ArgumentError(f"demonstrations with observations of {sorted(found)} do not fit {observation_space}.")
    for key, part in parts.items():
        wanted, shape = get_obs_shape(part), found[key].shape[1:]
        if shape != wanted and not (wanted == (1,) and shape == ()):
            swapped = len(shape) == 3 and (shape[2], *shape[:2]) == wanted
            hint = " Move the channels first, as SB3 does: np.moveaxis(observations, -1, 1)." if swapped else ""
            raise ArgumentError(
                f"demonstrations with observations of shape {shape} do not fit {part}, whose is {wanted}.{hint}"
            )
    actions = transitions.actions
    if actions.dtype.kind not in "iu" or actions.size != len(actions) or actions.min() < 0 or actions.max() >= action_space.n:
        raise ArgumentError(
            f"demonstrations with actions of {actions.dtype} and shape {actions.shape[1:]} from {actions.min()} to "
            f"{actions.max()} do not fit {action_space}."
        )


class SpacesEnv(gym.Env[Any, Any]):
    """
    An environment that has spaces and makes no step, to make a model that learns from data alone.

    :param observation_space: the observation space
    :param action_space: the action space
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Return any observation: a training without steps does not read it."""
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        """:raises ArgumentError: always"""
        raise ArgumentError("this environment has spaces only: a model of it learns by learn_offline(), not by learn().")
