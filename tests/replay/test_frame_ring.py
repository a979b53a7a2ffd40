"""Frames that are stored once: batches are compared with those of a buffer that stores whole observations."""

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.callbacks.diagnostics import DiagnosticsCallback
from sb3_dqn_ext.checkpoint.replay import (
    read_rows,
    replay_buffer_state,
    restore_replay_buffer,
    stored_row_range,
)
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.replay import DQNReplayBuffer, device_frames
from sb3_dqn_ext.replay.device_frames import DeviceFrames
from sb3_dqn_ext.replay.frame_ring import FrameRing
from sb3_dqn_ext.replay.stacked_frames import StackedFrames
from tests.parity import assert_same, learn
from tests.paths import ROOT
from tests.processes import output, python

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
    as_tensors: bool = False
    seed: int = 0
    kwargs: dict[str, Any] = {}  # noqa: RUF012


def buffers_of(case: Case, resets: float = 0.05) -> tuple[DQNReplayBuffer, DQNReplayBuffer]:
    """Fill a buffer of frames and a plain one with the same transitions."""
    box: Any = space_of(LAYOUTS[case.layout], case.n_frames)
    vector = spaces.Box(-1, 1, (2,), np.float32)
    space = spaces.Dict(vector=vector, screen=box, single=spaces.Box(0, 255, (3, 4, 5), np.uint8)) if case.as_dict else box
    plain, ours = (
        DQNReplayBuffer(
            case.n_rows * case.n_envs, space, ACTIONS, device="cpu", n_envs=case.n_envs, storage=storage, **case.kwargs
        )
        for storage in ("plain", "frames")
    )
    if case.as_tensors:
        ours.store_frames_on("cpu")
    fill([plain, ours], case, resets)
    return plain, ours


def fill(buffers: list[DQNReplayBuffer], case: Case, resets: float = 0.05) -> None:
    layout, rng = LAYOUTS[case.layout], np.random.default_rng(case.seed)
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
        for buffer in buffers:
            buffer.add(both[0], both[1], *rest)
        for env, stream in enumerate(streams):
            if done[env] or rng.random() < resets:
                stream.reset()


def batch(buffer: DQNReplayBuffer, seed: int) -> Batch:
    np.random.seed(seed)
    return buffer.sample_batch(12, n_batches=2)


def assert_same_batches(plain: DQNReplayBuffer, ours: DQNReplayBuffer, seed: int = 0) -> None:
    can_draw = plain.sampler.replayable()
    if can_draw is None or len(can_draw):
        assert_same(tuple_of_arrays(batch(ours, seed)), tuple_of_arrays(batch(plain, seed)), "batch")
    first, n_rows = plain.replayable_rows()
    rows = (first + np.arange(n_rows)) % plain.buffer_size
    every = (rows[:, None] * plain.n_envs + np.arange(plain.n_envs)).ravel()
    if plain.monte_carlo == 0:
        assert_same(tuple_of_arrays(ours.read(every)), tuple_of_arrays(plain.read(every)), "all transitions")


def empty_like(buffer: DQNReplayBuffer, kwargs: dict[str, Any]) -> DQNReplayBuffer:
    size, n_envs = buffer.buffer_size * buffer.n_envs, buffer.n_envs
    return DQNReplayBuffer(size, buffer.observation_space, ACTIONS, device="cpu", n_envs=n_envs, storage="frames", **kwargs)


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
    {"monte_carlo": 0.5, "n_steps": 2, "gamma": 0.9},
    {"keep_episodes": 2, "gamma": 0.9},
]
CASES = st.builds(
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
    as_tensors=st.booleans(),
    seed=st.integers(0, 2**31),
    kwargs=st.sampled_from(SETTINGS),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=CASES)
def test_batches_equal_those_of_whole_observations(case: Case) -> None:
    assert_same_batches(*buffers_of(case), case.seed)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(case=CASES)
def test_stored_rows_are_restored_in_parts_and_continued(case: Case) -> None:
    check_that_rows_are_restored(case)


def test_rows_are_restored_wherever_the_oldest_frame_is() -> None:
    for n in range(20, 50):
        check_that_rows_are_restored(Case(padding="noise", n_rows=12, n_envs=1, n_steps_added=n, end=0.1, seed=n))


def check_that_rows_are_restored(case: Case) -> None:
    plain, saved = buffers_of(case)
    first, end = stored_row_range(saved)
    middle = (first + end) // 2
    parts = [(start, read_rows(saved, start, stop)) for start, stop in ((first, middle), (middle, end)) if start < stop]
    restored = empty_like(saved, case.kwargs)
    restore_replay_buffer(restored, deepcopy(replay_buffer_state(saved)), parts)
    assert_same_batches(plain, restored)
    for seed in range(3):  # until the restored rows are overwritten
        fill([plain, saved, restored], case._replace(n_steps_added=1 + case.n_rows // 3, seed=seed))
        assert_same_batches(plain, restored)
    assert_same_batches(plain, pickle.loads(pickle.dumps(saved)))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(case=CASES.map(lambda case: case._replace(kwargs={"gamma": 0.9})))
def test_the_number_of_steps_can_be_changed(case: Case) -> None:
    buffers = buffers_of(case)
    for buffer in buffers:
        buffer.set_multistep(3, 0.9)
    assert_same_batches(*buffers)


def test_episodes_of_one_step_take_as_many_frames_as_they_have() -> None:
    case = Case(padding="zeros", n_rows=50, n_envs=2, n_steps_added=1000, end=1.0)
    plain, ours = buffers_of(case)
    assert_same_batches(plain, ours)
    assert stacks_of(ours)[0].nbytes < 1.13 * 100 * 3 * 30 + 100 * 8 * 4  # black, the first and the last frame of 5 x 6 bytes


def test_short_episodes_after_long_ones_are_stored_completely() -> None:
    case = Case(padding="noise", n_rows=50, n_envs=2, n_steps_added=120, end=0.0)
    buffers = buffers_of(case)
    for i in range(40):
        fill(list(buffers), case._replace(end=(0.0, 0.3, 1.0)[i // 3 % 3], n_steps_added=17, seed=i))
        assert_same_batches(*buffers)


def stacks_of(buffer: DQNReplayBuffer) -> list[StackedFrames]:
    assert isinstance(buffer.observation_ring, FrameRing)
    return list(buffer.observation_ring.stacks.values())


def test_an_atari_transition_takes_at_most_seven_and_a_half_kilobytes() -> None:
    assert filled_bytes(2_000) <= 7_500 * 2_000


@pytest.mark.slow  # 3 minutes
def test_a_million_atari_transitions_take_at_most_seven_and_a_half_gigabytes() -> None:
    code = "import resource, tests.replay.test_frame_ring as module; module.filled_bytes({}); "
    code += "print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    empty, million = (int(output(python("-c", code.format(n), cwd=ROOT))) for n in (10, 1_000_000))
    assert million - empty <= 7.5e9


def filled_bytes(n: int) -> int:
    """Fill a buffer with n transitions of 4 x 84 x 84, in episodes of 200 steps. Return the size of its arrays in bytes."""
    buffer = DQNReplayBuffer(n, SCREEN, ACTIONS, device="cpu", storage="frames")
    frames = np.random.default_rng(0).integers(255, size=(100, 84, 84), dtype=np.uint8)
    stack = np.zeros((1, 4, 84, 84), np.uint8)
    for i in range(n + 1000):
        before = stack if i % 200 else np.stack([np.zeros_like(frames[0])] * 3 + [frames[i % 99]])[None]
        stack = np.concatenate([before[:, 1:], frames[None, None, i % 100]], axis=1)
        done = np.array([i % 200 == 199])
        buffer.add(before, stack, np.array([0]), np.array([0.0]), done, [{}])
    arrays = [buffer.actions, buffer.rewards, buffer.dones, buffer.timeouts]
    return stacks_of(buffer)[0].nbytes + sum(array.nbytes for array in arrays)


SCREEN = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def screens(*values: int) -> Any:
    """Return the observation of one environment, with a gray value for each frame."""
    return np.full((1, 84, 84, len(values)), values, np.uint8).transpose(0, 3, 1, 2)


def add(buffer: DQNReplayBuffer, obs: Any, next_obs: Any) -> None:
    buffer.add(obs, next_obs, np.array([0]), np.array([0.0]), np.array([False]), [{}])


def test_what_is_no_stack_is_refused_at_the_first_transition_that_shows_it() -> None:
    message = r"storage='frames' needs .* stacks of frames. .* of shape \(4, 84, 84\) .*VecFrameStack.*storage='plain'"
    buffer = DQNReplayBuffer(100, SCREEN, ACTIONS, device="cpu", storage="frames")
    with pytest.raises(ArgumentError, match=message):
        add(buffer, screens(1, 2, 3, 4), screens(5, 6, 7, 8))
    add(buffer, screens(1, 2, 3, 4), screens(2, 3, 4, 5))
    with pytest.raises(ArgumentError, match=message):
        add(buffer, screens(2, 3, 4, 5), screens(6, 7, 8, 9))
    assert buffer.size() == 1
    add(buffer, screens(2, 3, 4, 5), screens(3, 4, 5, 6))
    assert buffer.read(np.array([1])).next_observations[0, :, 0, 0].tolist() == [3, 4, 5, 6]  # type: ignore[index]


def test_a_part_that_is_no_stack_after_all_is_reported_with_the_remedy() -> None:
    space = spaces.Dict({"map": SCREEN, "screen": SCREEN})
    buffer = DQNReplayBuffer(100, space, ACTIONS, device="cpu", storage="frames")
    stack, after = screens(1, 2, 3, 4), screens(2, 3, 4, 5)
    add(buffer, {"screen": stack, "map": screens(0, 0, 0, 0)}, {"screen": after, "map": screens(0, 0, 0, 0)})
    with pytest.raises(ArgumentError, match=r"of 'map' of shape .*storage=\{'map': 'plain', 'screen': 'frames'\}"):
        add(buffer, {"screen": stack, "map": screens(0, 0, 0, 0)}, {"screen": after, "map": screens(1, 2, 3, 4)})
    named = DQNReplayBuffer(100, space, ACTIONS, device="cpu", storage={"map": "plain", "screen": "frames"})
    add(named, {"screen": stack, "map": stack}, {"screen": after, "map": stack})
    assert isinstance(named.observation_ring, FrameRing)
    assert list(named.observation_ring.stacks) == ["screen"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"storage": "frame"}, r"storage='frame' is not known; it can be one of: frames, plain. Did you mean 'frames'\?"),
        ({"storage": None}, r"storage=None is not known"),
        ({"storage": {"screen": "frames"}}, r"storage={'screen': 'frames'} names parts of a Dict, and .*: use 'frames'"),
        ({"storage": "frames", "optimize_memory_usage": True}, r"optimize_memory_usage=True .* storage='frames'"),
        ({"observation_space": spaces.Box(0, 1, (8,))}, r"storage='frames' needs stacks of frames.*Box\(.*\(8,\).*'plain'"),
        ({"observation_space": spaces.Dict(a=spaces.Discrete(3))}, r"storage='frames' needs stacks of frames.*Dict"),
        (
            {"observation_space": spaces.Dict(screen=SCREEN), "storage": {"scren": "frames"}},
            r"storage has no argument 'scren'.*'screen'",
        ),
        (
            {"observation_space": spaces.Dict(screen=SCREEN), "storage": {"screen": "frame"}},
            r"storage\['screen'\]='frame' is not known.*'frames'",
        ),
        (
            {"observation_space": spaces.Dict(a=spaces.Box(0, 1, (8,))), "storage": {"a": "frames"}},
            r"storage=\{'a': 'frames'\} needs a stack of frames at 'a'",
        ),
    ],
    ids=str,
)
def test_an_invalid_storage_is_refused_when_the_buffer_is_made(kwargs: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"observation_space": SCREEN, "storage": "frames"}
    with pytest.raises(ArgumentError, match=message):
        DQNReplayBuffer(100, action_space=ACTIONS, **defaults | kwargs)


def test_there_are_no_arrays_of_whole_observations() -> None:
    buffer = DQNReplayBuffer(100, SCREEN, ACTIONS, device="cpu", storage="frames")
    for name in ("observations", "next_observations"):
        with pytest.raises(AttributeError, match=r"read transitions with read\(indices\)"):
            getattr(buffer, name)


def stacked_catch(n_envs: int = 2) -> VecEnv:
    return VecFrameStack(make_vec_env("dqn_ext/Catch-v0", n_envs=n_envs, seed=0), 3)


def catch_with_a_new_axis() -> VecEnv:
    def make() -> Any:
        return FrameStackObservation(gym.make("dqn_ext/Catch-v0"), 3)

    env = DummyVecEnv([make])
    env.seed(0)
    return env


QUICK: dict[str, Any] = {"buffer_size": 60, "learning_starts": 20, "batch_size": 8, "seed": 0, "device": "cpu"}


@pytest.mark.parametrize(
    ("algorithm", "make_env"), [(DQNExt, stacked_catch), (DQNExt, catch_with_a_new_axis), (DQN, stacked_catch)]
)
def test_a_training_ends_with_the_bits_of_plain_storage(algorithm: Any, make_env: Any, tmp_path: Path) -> None:
    ends = []
    for storage in ("plain", "frames"):
        kwargs: dict[str, Any] = {"replay_buffer_class": DQNReplayBuffer, "replay_buffer_kwargs": {"storage": storage}}
        model = algorithm("MlpPolicy", make_env(), policy_kwargs={"net_arch": [8]}, **QUICK, **kwargs)
        learn(model, 100)
        learn(model, 50, reset_num_timesteps=False)
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        model.load_replay_buffer(tmp_path / "buffer.pkl")
        learn(model, 100, reset_num_timesteps=False)
        ends.append(model.get_parameters())
    assert_same(ends[1], ends[0], "parameters")


def normalized_catch() -> VecNormalize:
    return VecNormalize(catch_with_a_new_axis(), norm_obs=False, norm_reward=False)


@pytest.mark.parametrize("make_env", [stacked_catch, normalized_catch])
def test_a_training_from_frames_on_a_device_ends_with_the_same_bits(make_env: Any, tmp_path: Path) -> None:
    ends = []
    for as_tensors in (False, True):
        kwargs: dict[str, Any] = {"replay_buffer_kwargs": {"storage": "frames"}, "policy_kwargs": {"net_arch": [8]}}
        model = DQNExt("MlpPolicy", make_env(), **QUICK, **kwargs)
        buffer: Any = model.replay_buffer
        if as_tensors:
            buffer.store_frames_on("cpu")
        learn(model, 100)
        assert isinstance(stacks_of(buffer)[0]._frames, DeviceFrames) is as_tensors
        assert isinstance(buffer.read_next_observations(np.array([3, 4])), np.ndarray)
        ends.append(model.get_parameters())
    assert_same(ends[1], ends[0], "parameters")


def test_stored_frames_are_moved_and_are_arrays_in_copies_and_files() -> None:
    case = Case(n_rows=9, n_steps_added=40)
    plain, ours = buffers_of(case)
    ours.store_frames_on("cpu")
    assert_same_batches(plain, ours)
    copies = [pickle.loads(pickle.dumps(ours)), deepcopy(ours)]
    for copy in copies:
        assert isinstance(stacks_of(copy)[0]._frames, np.ndarray)
    assert isinstance(stacks_of(ours)[0]._frames, DeviceFrames)
    fill([plain, ours, *copies], case._replace(end=1.0, seed=1))  # the rings grow
    for buffer in (ours, *copies):
        assert_same_batches(plain, buffer)
        buffer.reset()
        assert buffer.size() == 0
        fill([buffer], case)


def test_frames_are_copied_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_frames, "PIECE", 3)
    check_that_rows_are_restored(Case(as_tensors=True, n_steps_added=60))


@pytest.mark.parametrize("as_tensors", [False, True])
def test_a_wrong_axis_that_is_possible_takes_little_memory(as_tensors: bool) -> None:
    rng, space = np.random.default_rng(0), spaces.Box(0, 255, (4, 20, 20), np.uint8)
    plain, ours = (DQNReplayBuffer(20_000, space, ACTIONS, device="cpu", storage=name) for name in ("plain", "frames"))
    if as_tensors:
        ours.store_frames_on("cpu")
    frames = rng.integers(255, size=(305, 20, 20), dtype=np.uint8)
    frames[:300, :, [0, 1, 18, 19]] = 0  # with black borders, a step along the last axis may have 18 new frames
    for i in range(4, 305):
        for buffer in (plain, ours):
            add(buffer, frames[None, i - 4 : i], frames[None, i - 3 : i + 1])
        if i == 299:
            ring: Any = ours.observation_ring
            assert [stack.axis for stack in ring._stacks[""]] == [0, 2]
            assert sum(stack._frames.nbytes for stack in ring._stacks[""]) < 1_500_000  # 20,000 steps have 29 million bytes
            assert_same_batches(plain, ours)
    assert stacks_of(ours)[0]._frames.nbytes > 20_000 * 20 * 20
    assert_same_batches(plain, ours)


def test_observations_are_compared_as_they_are_stored() -> None:
    space = spaces.Box(0, 1, (3, 4, 5), np.float32)
    buffer = DQNReplayBuffer(100, space, ACTIONS, device="cpu", storage="frames", n_steps=3, gamma=0.9)
    frames = np.random.default_rng(0).random((20, 4, 5))
    for i in range(3, 20):
        add(buffer, frames[None, i - 3 : i].astype(np.float32), frames[None, i - 2 : i + 1])
    assert buffer.timeouts.sum() == 0
    parts = spaces.Dict(screen=space)
    buffer = DQNReplayBuffer(100, parts, ACTIONS, device="cpu", storage="frames", n_steps=3, gamma=0.9)
    for i in range(3, 20):
        stacks = [frames[None, start : start + 3].astype(np.float32) for start in (i - 3, i - 2)]
        obs, next_obs = ({"screen": stack, "clock": np.array([[i]])} for stack in stacks)
        add(buffer, obs, next_obs)
    assert buffer.timeouts.sum() == 0


@pytest.mark.parametrize("as_tensors", [False, True])
def test_stacks_along_the_last_axis_have_the_order_of_whole_observations(as_tensors: bool) -> None:
    _, ours = buffers_of(Case(layout="colours last", as_tensors=as_tensors))
    batch: Any = ours.sample_batch(4)
    assert batch.observations.is_contiguous()
    assert batch.next_observations.is_contiguous()


def test_a_users_conversion_is_called_for_frames_on_a_device() -> None:
    class HalfPrecision(DQNReplayBuffer):
        def to_torch(self, array: Any, copy: bool = True) -> th.Tensor:
            return th.as_tensor(array).half()

    buffer = HalfPrecision(100, SCREEN, ACTIONS, device="cpu", storage="frames")
    buffer.store_frames_on("cpu")
    add(buffer, screens(1, 2, 3, 4), screens(2, 3, 4, 5))
    batch: Any = buffer.read(np.array([0]))
    assert batch.observations.dtype == batch.next_observations.dtype == th.float16


def test_a_normalization_of_frames_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"storage='frames' does not combine with a VecNormalize"):
        DQNExt("MlpPolicy", VecNormalize(catch_with_a_new_axis()), replay_buffer_kwargs={"storage": "frames"}, **QUICK).learn(
            1
        )


def test_a_device_for_frames_is_checked_when_the_model_is_made() -> None:
    def make(**kwargs: Any) -> None:
        DQNExt("MlpPolicy", stacked_catch(), replay_buffer_kwargs={"storage": "frames", **kwargs}, **QUICK)

    with pytest.raises(ArgumentError, match=r"replay_buffer_kwargs\['device'\]='gpu' is no device of torch"):
        make(device="gpu")
    with pytest.raises(ArgumentError, match=r"replay_buffer_kwargs\['device'\]='auto' .* needs storage='frames'"):
        DQNExt("MlpPolicy", stacked_catch(), replay_buffer_kwargs={"device": "auto"}, **QUICK)
    unsigned = DQNReplayBuffer(100, spaces.Box(0, 9, (4, 8, 8), np.uint16), ACTIONS, device="cpu", storage="frames")
    with pytest.raises(ArgumentError, match=r"observations of uint16 cannot be stored on the device 'cpu'"):
        unsigned.store_frames_on("cpu")
    with pytest.raises(ArgumentError, match=r"device='cpu' .* is where frames are stored: use storage='frames'"):
        DQNReplayBuffer(100, SCREEN, ACTIONS, device="cpu").store_frames_on("cpu")
    with pytest.raises(ArgumentError, match=r"device='gpu' of the replay buffer is no device of torch"):
        DQNReplayBuffer(100, SCREEN, ACTIONS, device="cpu", storage="frames").store_frames_on("gpu")
    make(device="cpu")
    with pytest.warns(
        UserWarning, match=r"replay_buffer_kwargs\['device'\]='cuda' has no effect: the networks are on 'cpu'"
    ) as found:
        make(device="cuda")
    assert found[0].filename == __file__


def test_a_saved_model_contains_its_frames(tmp_path: Path) -> None:
    model = DQNExt("MlpPolicy", stacked_catch(), replay_buffer_kwargs={"storage": "frames"}, **QUICK)
    learn(model, 100)
    model.save(tmp_path / "model", include=["replay_buffer"])
    loaded = DQNExt.load(tmp_path / "model", env=stacked_catch())
    assert_same_batches(model.replay_buffer, loaded.replay_buffer)  # type: ignore[arg-type]
    plain = DQNExt.load(tmp_path / "model", env=stacked_catch(), replay_buffer_kwargs={})
    with pytest.raises(ArgumentError, match=r"has frames, not whole observations"):
        plain.learn(10)


def test_a_checkpoint_of_the_other_storage_is_refused(tmp_path: Path) -> None:
    plain = DQNExt("MlpPolicy", stacked_catch(), **QUICK)
    learn(plain, 40, callback=ExactCheckpointCallback(20, tmp_path))
    frames = DQNExt("MlpPolicy", stacked_catch(), replay_buffer_kwargs={"storage": "frames"}, **QUICK)
    with pytest.raises(CheckpointError, match=r"replay buffer DQNReplayBuffer of 30 rows, and this .* of 30 rows of frames"):
        frames.resume(tmp_path)


def test_diagnostics_read_frames() -> None:
    model = DQNExt("MlpPolicy", stacked_catch(), replay_buffer_kwargs={"storage": "frames"}, **QUICK)
    records = learn(model, 200, callback=DiagnosticsCallback(every=50))
    names = {name for row in records.rows for name in row}
    assert {"values/mean", "replay/age_mean"} <= names
