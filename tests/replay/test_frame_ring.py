"""Frames that are stored once: batches are compared with those of a buffer that stores whole observations."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.parity import assert_same

ACTIONS = spaces.Discrete(3)


class Layout(NamedTuple):
    """A way to stack frames: ``n_frames`` frames of ``frame`` along an axis, which exists in a frame if ``joins`` is True."""

    frame: tuple[int, ...]
    axis: int
    joins: bool
    dtype: Any = np.uint8

    def stack(self, frames: list[Any]) -> Any:
        return np.concatenate(frames, self.axis) if self.joins else np.stack(frames, self.axis)


LAYOUTS = {
    "FrameStackObservation": Layout((3, 2), 0, False),
    "FrameStackObservation of colours": Layout((3, 2, 3), 0, False),
    "FrameStackObservation of vectors": Layout((3,), 0, False, np.float32),
    "channels first": Layout((1, 5, 6), 0, True),
    "channels last": Layout((5, 6, 1), 2, True),
    "colours first": Layout((3, 13, 14), 0, True),
    "colours last": Layout((13, 14, 3), 2, True),
    "truth values": Layout((1, 5, 6), 0, True, np.bool_),
    "matrices": Layout((4, 2), 1, True, np.float64),
}


class Stream:
    """A stream of transitions of stacked frames, as one environment returns them."""

    def __init__(self, layout: Layout, n_frames: int, padding: str, rng: np.random.Generator, levels: int) -> None:
        self.layout, self.n_frames, self.padding, self.rng, self.levels = layout, n_frames, padding, rng, levels
        self.reset()

    def frame(self) -> Any:
        values = self.rng.integers(self.levels, size=self.layout.frame)
        if self.layout.dtype in (np.float32, np.float64) and self.levels > 2:
            return np.where(values == 0, np.nan, values).astype(self.layout.dtype)
        return values.astype(self.layout.dtype)

    def reset(self) -> None:
        first = self.frame()
        before = {"zeros": np.zeros_like(first), "first": first, "noise": self.frame()}[self.padding]
        self.frames = [before] * (self.n_frames - 1) + [first]

    def observation(self) -> Any:
        return self.layout.stack(self.frames)

    def step(self) -> tuple[Any, Any]:
        """Return the observations before and after a step."""
        before = self.observation()
        self.frames = [*self.frames[1:], self.frame()]
        return before, self.observation()


def space_of(layout: Layout, n_frames: int) -> spaces.Box:
    shape = layout.stack([np.zeros(layout.frame)] * n_frames).shape
    high = 1 if layout.dtype is np.bool_ else 255
    return spaces.Box(0, high, shape, layout.dtype)


class Case(NamedTuple):
    layout: str = "channels first"
    n_frames: int = 4
    padding: str = "zeros"
    n_envs: int = 2
    n_rows: int = 9
    n_steps_added: int = 40
    end: float = 0.2  # the probability that a step ends its episode
    levels: int = 200
    as_dict: bool = False
    seed: int = 0
    kwargs: dict[str, Any] = {}  # noqa: RUF012


def buffers_of(case: Case, resets: float = 0.05) -> tuple[DQNReplayBuffer, DQNReplayBuffer]:
    """Fill a buffer of frames and a plain one with the same transitions."""
    layout, rng = LAYOUTS[case.layout], np.random.default_rng(case.seed)
    box: Any = space_of(layout, case.n_frames)
    vector = spaces.Box(-1, 1, (2,), np.float32)
    space = spaces.Dict(vector=vector, screen=box, single=spaces.Box(0, 255, (3, 4, 5), np.uint8)) if case.as_dict else box
    plain, ours = (
        DQNReplayBuffer(
            case.n_rows * case.n_envs, space, ACTIONS, device="cpu", n_envs=case.n_envs, storage=storage, **case.kwargs
        )
        for storage in ("plain", "frames")
    )
    streams = [Stream(layout, case.n_frames, case.padding, rng, case.levels) for _ in range(case.n_envs)]
    for _ in range(case.n_steps_added):
        seen: Any = zip(*(stream.step() for stream in streams), strict=True)
        both: list[Any] = list(map(np.stack, seen))
        done, truncated = rng.random((2, case.n_envs)) < ((case.end,), (0.5,))
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(each)} for each in truncated & done]
        rest: Any = rng.integers(3, size=case.n_envs), rng.normal(size=case.n_envs), done, infos
        if case.as_dict:
            both = [
                {
                    "vector": rng.normal(size=(case.n_envs, 2)),
                    "screen": screen,
                    "single": rng.integers(255, size=(case.n_envs, 3, 4, 5)),
                }
                for screen in both
            ]
        for buffer in (plain, ours):
            buffer.add(both[0], both[1], *rest)
        for env, stream in enumerate(streams):
            if done[env] or rng.random() < resets:
                stream.reset()
    return plain, ours


def batch(buffer: DQNReplayBuffer, seed: int) -> Batch:
    np.random.seed(seed)
    return buffer.sample_batch(12, n_batches=2)


def assert_same_batches(plain: DQNReplayBuffer, ours: DQNReplayBuffer, seed: int = 0) -> None:
    assert_same(tuple_of_arrays(batch(ours, seed)), tuple_of_arrays(batch(plain, seed)), "batch")
    first, n_rows = plain.replayable_rows()
    rows = (first + np.arange(n_rows)) % plain.buffer_size
    every = (rows[:, None] * plain.n_envs + np.arange(plain.n_envs)).ravel()
    if plain.monte_carlo == 0:
        assert_same(tuple_of_arrays(ours.read(every)), tuple_of_arrays(plain.read(every)), "all transitions")


def tuple_of_arrays(read: Batch) -> tuple[Any, ...]:
    def numpy(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numpy(each) for key, each in value.items()}
        return value.numpy() if hasattr(value, "numpy") else value

    return tuple(map(numpy, read))


SETTINGS: list[dict[str, Any]] = [
    {},
    {"n_steps": 3, "gamma": 0.9},
    {"terminal_copies": 3, "terminal_on": "done"},
    {"sampler": "prioritized"},
    {"sampler": "vector_steps", "n_steps": 2, "gamma": 0.9},
    {"handle_timeout_termination": False, "n_steps": 2, "gamma": 0.9},
]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    case=st.builds(
        Case,
        layout=st.sampled_from(sorted(LAYOUTS)),
        n_frames=st.integers(2, 5),
        padding=st.sampled_from(["zeros", "first", "noise"]),
        n_envs=st.integers(1, 3),
        n_rows=st.integers(3, 14),
        n_steps_added=st.integers(1, 60),
        end=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        levels=st.sampled_from([1, 2, 200]),
        as_dict=st.booleans(),
        seed=st.integers(0, 2**31),
        kwargs=st.sampled_from(SETTINGS),
    )
)
def test_batches_equal_those_of_whole_observations(case: Case) -> None:
    assert_same_batches(*buffers_of(case), case.seed)


@pytest.mark.parametrize("message", [""])
def test_x(message: str) -> None:
    with pytest.raises(ArgumentError, match=r"storage='frame' is not known.*Did you mean 'frames'"):
        DQNReplayBuffer(10, space_of(LAYOUTS["channels first"], 4), ACTIONS, storage="frame")
