"""What a model is when it comes back from its file, against what SB3's own pickles make of it."""

import base64
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, IdentityEnvMultiBinary
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm import schedules
from sb3_dqn_ext.errors import ArgumentError, CheckpointError, ModelFileError
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.saved_model.classes import SimpleLinearSchedule
from sb3_dqn_ext.saved_model.codecs import CODECS
from sb3_dqn_ext.saved_model.values import pack_value, unpack_value
from sb3_dqn_ext.serialization.tree import NotSerializableError
from tests.internals import last_observations_of, n_updates_of
from tests.parity import Env, assert_same, assert_same_model, dict_cartpole, learn, several_cartpoles, short_cartpole
from tests.paths import ROOT
from tests.processes import output, python, write_package

SMALL: dict[str, Any] = {
    "buffer_size": 100,
    "learning_starts": 10,
    "batch_size": 8,
    "train_freq": 4,
    "target_update_interval": 10,
    "seed": 1,
    "device": "cpu",
}
SMALL_NET: dict[str, Any] = {"net_arch": [8]}


def small_images() -> gym.Env[Any, Any]:
    env = FakeImageEnv(action_dim=3, screen_height=36, screen_width=36, n_channels=1, discrete=True)
    env.observation_space.seed(0)
    return env


def bit_flipping() -> gym.Env[Any, Any]:
    return BitFlippingEnv(n_bits=4, continuous=False, max_steps=4)


class Choices(gym.ObservationWrapper[Any, Any, Any]):
    """CartPole's observation as numbers of choices."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.MultiDiscrete([2, 3], start=[0, 0])

    def observation(self, observation: Any) -> Any:
        return np.array([observation[2] > 0, 1 + np.sign(observation[0])], np.int64)


def choices() -> gym.Env[Any, Any]:
    return Choices(short_cartpole())


def bits() -> gym.Env[Any, Any]:
    env: Any = IdentityEnvMultiBinary(3, 10)
    env.observation_space.seed(0)
    return DiscreteActions(env)


class DiscreteActions(gym.ActionWrapper[Any, Any, Any]):
    """Of an environment whose actions are bits."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = spaces.Discrete(2)

    def action(self, action: Any) -> Any:
        return np.full(3, action)


Case = tuple[str, Callable[[], Env], dict[str, Any]]
CASES: dict[str, Case] = {
    "plain": ("MlpPolicy", short_cartpole, {}),
    "nothing drawn yet": ("MlpPolicy", short_cartpole, {"seed": None}),
    "Dict observations": ("MultiInputPolicy", dict_cartpole, {"n_steps": 3}),
    "images": ("CnnPolicy", small_images, {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}}}),
    "numbers of choices": ("MlpPolicy", choices, {}),
    "bits": ("MlpPolicy", bits, {}),
    "multi head": ("MultiHeadPolicy", short_cartpole, {"policy_kwargs": {**SMALL_NET, "optimizer_per_head": True}}),
    "noisy dueling quantile": (
        "MlpPolicy",
        short_cartpole,
        {
            "policy_kwargs": {**SMALL_NET, "noisy": True, "head": "dueling", "head_arch": [8], "returns": "quantile"},
            "target_policy": "double",
            "exploration": "none",
        },
    ),
    "implicit quantile": ("MlpPolicy", short_cartpole, {"policy_kwargs": {**SMALL_NET, "returns": "implicit_quantile"}}),
    "categorical munchausen": (
        "MlpPolicy",
        short_cartpole,
        {
            "policy_kwargs": {**SMALL_NET, "returns": "categorical", "returns_kwargs": {"v_min": -1.0, "v_max": 20.0}},
            "target_policy": "munchausen",
            "target_policy_kwargs": {"alpha": 0.8},
        },
    ),
    "classes": (
        "MlpPolicy",
        short_cartpole,
        {
            "policy_kwargs": {
                **SMALL_NET,
                "activation_fn": th.nn.Tanh,
                "optimizer_class": th.optim.RMSprop,
                "optimizer_kwargs": {"alpha": 0.95, "centered": True},
            }
        },
    ),
    "names of classes": (
        "MlpPolicy",
        short_cartpole,
        {"policy_kwargs": {**SMALL_NET, "activation_fn": "elu", "optimizer_class": "sgd"}},
    ),
    "prioritized": (
        "MlpPolicy",
        short_cartpole,
        {"replay_buffer_kwargs": {"sampler": "prioritized", "sampler_kwargs": {"alpha": 0.5}, "terminal_copies": 2}},
    ),
    "SB3's memory": ("MlpPolicy", short_cartpole, {"replay_buffer_class": ReplayBuffer}),
    "hindsight": (
        "MultiInputPolicy",
        bit_flipping,
        {
            "replay_buffer_class": HerReplayBuffer,
            "replay_buffer_kwargs": {"n_sampled_goal": 2, "goal_selection_strategy": GoalSelectionStrategy.FINAL},
        },
    ),
    "4 environments that keep their actions": (
        "MlpPolicy",
        several_cartpoles,
        {"exploration": "ez_greedy", "exploration_kwargs": {"mu": 1.5, "schedule": 0.5}},
    ),
    "episodes": ("MlpPolicy", short_cartpole, {"train_freq": (2, "episode"), "gradient_steps": -1}),
    "SB3's linear learning rate": ("MlpPolicy", short_cartpole, {"learning_rate": LinearSchedule(1e-3, 1e-4, 0.5)}),
    "SB3's constant learning rate": ("MlpPolicy", short_cartpole, {"learning_rate": FloatSchedule(ConstantSchedule(1e-3))}),
    "our linear learning rate": ("MlpPolicy", short_cartpole, {"learning_rate": schedules.LinearSchedule(1e-3, 1e-4)}),
    "our constant learning rate": (
        "MlpPolicy",
        short_cartpole,
        {"learning_rate": schedules.ConstantSchedule(1e-3)},
    ),
    "any schedule as a learning rate": (
        "MlpPolicy",
        short_cartpole,
        {"learning_rate": schedules.ProgressSchedule(schedules.ExponentialSchedule(1e-3, 1e-4, 0.1), 60)},
    ),
    "epsilon by points": (
        "MlpPolicy",
        short_cartpole,
        {"exploration_kwargs": {"schedule": schedules.PiecewiseSchedule([[0, 1.0], [40, 0.1]])}},
    ),
    "epsilon by name": (
        "MlpPolicy",
        short_cartpole,
        {
            "exploration_kwargs": {
                "schedule": {"name": "multiplicative", "start": 1.0, "end": 0.1, "factor": 0.99},
                "unit": "actions",
            }
        },
    ),
    "epsilon by an object": (
        "MlpPolicy",
        short_cartpole,
        {"exploration_kwargs": {"schedule": schedules.MultiplicativeSchedule(1.0, 0.1, 0.99)}},
    ),
}


def made(name: str) -> DQNExt:
    policy, env, kwargs = CASES[name]
    own = {key: dict(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
    return DQNExt(policy, env(), **(SMALL | {"policy_kwargs": dict(SMALL_NET)} | own))


def attributes(model: DQN) -> dict[str, Any]:
    """All that a model remembers, in a form that can be compared."""
    left_out = {*model._excluded_save_params(), "q_net", "q_net_target", "lr_schedule", "start_time"}
    return {name: comparable(value) for name, value in vars(model).items() if name not in left_out}


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
        return [type(value), *(comparable(item) for item in value)]
    if isinstance(value, np.random.Generator):
        return comparable(value.bit_generator.state)
    if isinstance(value, spaces.Space):
        own = vars(value)
        return [str(type(value)), {name: comparable(item) for name, item in own.items() if "repr" not in name}]
    if type(value).__module__.startswith(("stable_baselines3", "sb3_dqn_ext")) and hasattr(value, "__dict__"):
        return [str(type(value)), comparable(dict(vars(value)))]
    return value if value is None or isinstance(value, np.ndarray | np.generic | int | float | th.Tensor) else str(value)


def numbers(model: DQN) -> Any:
    """Observations to act on, drawn from the space as it stands in the file."""
    space: Any = unpack_value(pack_value(model.observation_space))
    space.seed(0)
    drawn = [space.sample() for _ in range(20)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([one[key] for one in drawn]) for key in space.spaces}
    return np.stack(drawn)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, DQNExt]]:
    """Models of all cases, trained a little and saved; and where."""
    folder = tmp_path_factory.mktemp("saved")
    trained = {}
    for name in CASES:
        trained[name] = model = made(name)
        if name != "nothing drawn yet":
            learn(model, 60)
        model.save(folder / name)
    return folder, trained


ELSEWHERE = """
import json, sys
from pathlib import Path
from sb3_dqn_ext import DQNExt
from tests.saved_model.test_saved_model import CASES, numbers

found = {}
for name in CASES:
    env = CASES[name][1]() if name == "hindsight" else None
    model = DQNExt.load(Path(sys.argv[1]) / name, env=env)
    actions = model.predict(numbers(model), deterministic=True)[0].tolist()
    found[name] = [actions, model.num_timesteps, model.lr_schedule(0.25), model.exploration_schedule(0.25)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def elsewhere(models: tuple[Path, dict[str, DQNExt]]) -> dict[str, Any]:
    """What they do in another process."""
    said = output(python("-W", "error", "-c", ELSEWHERE, str(models[0]), cwd=ROOT))
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_model_acts_the_same_in_another_process(
    name: str, models: tuple[Path, dict[str, DQNExt]], elsewhere: dict[str, Any]
) -> None:
    model = models[1][name]
    actions, steps, rate, epsilon = elsewhere[name]
    assert actions == model.predict(numbers(model), deterministic=True)[0].tolist()
    assert steps == model.num_timesteps
    assert rate == model.lr_schedule(0.25)
    assert epsilon == model.exploration_schedule(0.25)


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_and_becomes_what_it_would_by_pickles(
    name: str, models: tuple[Path, dict[str, DQNExt]], tmp_path: Path
) -> None:
    folder, trained = models
    DQN.save(trained[name], tmp_path / "pickled")  # SB3's own way, with what was saved by ours
    ways: list[dict[str, Any]] = [
        {"path": folder / name},
        {"path": tmp_path / "pickled", "trust": True},
        {"path": tmp_path / "pickled"},  # read on paper only
    ]
    loaded = [DQNExt.load(env=CASES[name][1](), force_reset=False, **way) for way in ways]
    assert_same(attributes(loaded[0]), attributes(loaded[1]), "by pickles")
    assert_same(attributes(loaded[2]), attributes(loaded[1]), "by what pickles say")
    if trained[name].seed is None:
        return
    continued = [DQNExt.load(env=CASES[name][1](), **way) for way in ways]
    for model in continued:
        model.set_random_seed(7)
        learn(model, 60, reset_num_timesteps=False)
        assert n_updates_of(model) > n_updates_of(trained[name])
    assert_same_model(continued[0], continued[1])
    assert_same_model(continued[2], continued[1])


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_pickled(name: str, models: tuple[Path, dict[str, DQNExt]]) -> None:
    with zipfile.ZipFile(models[0] / f"{name}.zip") as archive:
        names, data = archive.namelist(), archive.read("data").decode("ascii")
    assert set(names) == {
        *("data", "policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"),
        *("_stable_baselines3_version", "system_info.txt"),
    }
    found = json.loads(data)
    text = base64.b64decode(found.pop(":for SB3:")[":serialized:"])
    assert text.startswith(b"FThis is a model of sb3_dqn_ext")  # a "float", at which unpickling ends
    with pytest.raises(ValueError, match=r"load it with sb3_dqn_ext\.DQNExt\.load"):
        pickle.loads(text)
    assert "serialized" not in json.dumps(found)
    assert found[":schema:"] == 2
    assert found["num_timesteps"] == models[1][name].num_timesteps
    assert found["policy_class"] == {"class": f"sb3_dqn_ext.networks.policies.{CASES[name][0]}"}


def test_the_tools_of_sb3_read_the_parameters(models: tuple[Path, dict[str, DQNExt]]) -> None:
    path, model = models[0] / "classes", models[1]["classes"]
    data, parameters, variables = load_from_zip_file(path, load_data=False)
    assert data is None
    assert variables == {}
    assert_same(parameters, model.get_parameters(), "parameters")
    other = DQN(MlpPolicy, short_cartpole(), **(SMALL | {"policy_kwargs": model.policy_kwargs, "seed": 5}))
    other.set_parameters(str(path))
    assert_same(other.get_parameters(), model.get_parameters(), "parameters")
    with pytest.raises(ValueError, match=r"sb3_dqn_ext\.DQNExt\.load"):
        load_from_zip_file(path)


# values


class Warmup:
    """A schedule of the user's, in a module."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.history = [(1, np.arange(3))]

    def __call__(self, progress_remaining: float) -> float:
        return self.rate * (1 - progress_remaining)


class Slotted:
    """Whose attributes are not in a dictionary."""

    __slots__ = ("rate",)

    def __init__(self, rate: float) -> None:
        self.rate = rate


class Counted(dict[str, int]):
    """More than its attributes."""


def half(progress_remaining: float) -> float:
    return progress_remaining / 2


def through_json(value: Any, trust: bool = False) -> Any:
    return unpack_value(json.loads(json.dumps(pack_value(value), allow_nan=False)), trust)


SPACES: dict[str, spaces.Space[Any]] = {
    "a box": spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1e-30, np.inf], np.float32)),
    "a box of one number": spaces.Box(-1.0, 0.1, ()),
    "an empty box": spaces.Box(0, 1, (0, 3)),
    "images": spaces.Box(0, 255, (36, 36, 3), np.uint8),
    "whole numbers without bounds": spaces.Box(-np.inf, np.inf, (2,), np.int64),
    "doubles": spaces.Box(np.array([0.1]), np.array([0.3]), dtype=np.float64),
    "numbers from 2": spaces.Discrete(3, start=2),
    "bits": spaces.MultiBinary(4),
    "bits in rows": spaces.MultiBinary([2, 3]),
    "choices": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[1, 1], [0, -2]])),
    "small choices": spaces.MultiDiscrete([2, 3], np.int32),
    "a dictionary": spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Dict(c=spaces.Box(0, 1))}),
    "in this order": spaces.Dict([("b", spaces.Discrete(2)), ("a", spaces.MultiBinary(2))]),
    "a tuple": spaces.Tuple([spaces.Discrete(2), spaces.Tuple([spaces.Box(0, 1)])]),
}


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("name", SPACES)
def test_a_space_comes_back_with_its_bounds_and_its_generator(name: str, seed: int | None) -> None:
    space = unpack_value(pack_value(SPACES[name]))
    if seed is not None:
        space.seed(seed)
        space.sample()
    other = through_json(space)
    assert other == space == SPACES[name]
    assert list(getattr(other, "spaces", [])) == list(getattr(space, "spaces", []))
    assert_same(comparable(other), comparable(space), name)
    if seed is not None:
        assert repr([other.sample() for _ in range(3)]) == repr([space.sample() for _ in range(3)])


def test_every_kind_of_space_is_among_them() -> None:
    kinds = {type(space).__name__ for space in SPACES.values()}
    assert kinds == set(CODECS) - {"Generator", "TrainFreq", "GoalSelectionStrategy", "ReplayBuffer"}


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            3,
            2**80,
            -0.0,
            float("inf"),
            "\ud800",
            "a\0",
            [],
            (1, (2,)),
            {"a": 1},
            {1: 2, (3, "x"): [4]},
            {"class": 1},
        ),
        *(deque([1, [2]], 3), np.float32(0.1), np.int64(3), np.bool_(True), np.arange(6, dtype=">i2").reshape(2, 3)),
        *(np.empty((0, 3)), np.array(["ab", "c"]), th.arange(3.0), th.ones(2, dtype=th.bfloat16), Path("runs") / "a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_plain_value_comes_back(value: Any) -> None:
    for whole in (value, [value], {"a": value}):
        found = through_json(whole)
        assert repr(found) == repr(whole)
        assert type(found) is type(whole)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda progress: 1e-3, "which no module has by that name"),
        (Slotted(1.0), "whose attributes do not say all about it"),
        (Counted(a=1), "whose attributes do not say all about it"),
        (th.nn.Tanh(), "whose attributes do not say all about it"),
        (np.random.Generator(np.random.MT19937(0)), "generator MT19937"),
        (np.array([None]), "object"),
        ({1, 2}, "set"),
        (short_cartpole().step, "whose attributes do not say all about it"),
    ],
    ids=["lambda", "slots", "a dictionary and more", "a module", "another generator", "objects", "a set", "a method"],
)
def test_what_has_no_name_is_not_stored(value: Any, why: str) -> None:
    for whole in (value, [{"a": value}]):
        with pytest.raises(NotSerializableError, match=why):
            pack_value(whole)


def test_what_holds_itself_is_not_stored() -> None:
    endless: list[Any] = []
    endless += [endless, endless]
    with pytest.raises(NotSerializableError, match="nested deeper"):
        pack_value(endless)


def test_names_of_others_are_found_with_trust_only() -> None:
    for value in (Warmup, half, spaces.Text, json.dumps):
        with pytest.raises(ValueError, match="imported only from files that are trusted"):
            through_json(value)
        assert through_json(value, trust=True) is value
    warmup = through_json(Warmup(0.5), trust=True)
    assert type(warmup) is Warmup
    assert warmup(0.75) == 0.125
    assert repr(warmup.history) == repr(Warmup(1).history)


def test_the_schedule_of_the_zoo_comes_back_by_its_own_formula(tmp_path: Path) -> None:
    """The zoo is not imported for it; where it is imported anyhow, its values are the same to the last bit."""
    script = """
import sys
import numpy as np
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.saved_model.classes import SimpleLinearSchedule

if sys.argv[1] == "save":
    from rl_zoo3.utils import SimpleLinearSchedule as TheirSchedule

    model = DQNExt("MlpPolicy", "CartPole-v1", learning_rate=TheirSchedule("3e-4"), buffer_size=10, batch_size=2, device="cpu")
    model.save("model")
    ours, theirs = SimpleLinearSchedule(3e-4), TheirSchedule("3e-4")
    assert all(ours(p) == theirs(p) for p in np.random.default_rng(0).uniform(size=10_000).tolist())
    model = DQNExt.load("model")
else:
    model = DQNExt.load("model")
    assert not any(name.startswith("rl_zoo3") for name in sys.modules)
assert type(model.learning_rate) is SimpleLinearSchedule
assert model.lr_schedule(0.3) == 0.3 * 3e-4
model.save("model")  # it keeps the zoo's name
"""
    for step in ("save", "load"):
        output(python("-c", script, step, cwd=tmp_path))
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        stored = json.loads(archive.read("data"))["learning_rate"]
    assert stored == {"object": {"class": "rl_zoo3.utils.SimpleLinearSchedule", "attributes": {"initial_value": 3e-4}}}
    assert through_json(SimpleLinearSchedule(0.1)) == SimpleLinearSchedule(0.1)


# what only the user can give


def closure(rate: float) -> Callable[[float], float]:
    """The schedule of SB3's documentation."""
    return lambda progress_remaining: rate * progress_remaining


def test_a_function_without_a_name_is_said_when_the_model_is_made_and_asked_for_when_it_is_trained(tmp_path: Path) -> None:
    kwargs: dict[str, Any] = SMALL | {"learning_rate": closure(1e-3)}
    with pytest.warns(
        UserWarning, match=r"learning_rate \(function .*<lambda>.*custom_objects={'learning_rate': \.\.\.}"
    ) as said:
        model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=SMALL_NET, **kwargs)
    assert len(said) == 1
    assert said[0].filename == __file__
    model.save(tmp_path / "model")  # without another warning
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole(), trust=True)
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert_same(loaded.predict(observations, deterministic=True), model.predict(observations, deterministic=True), "actions")
    loaded.save(tmp_path / "again")
    for path in (tmp_path / "model", tmp_path / "again"):
        loaded = DQNExt.load(path, env=short_cartpole())
        with pytest.raises(
            ArgumentError,
            match=r"needs what was not loaded: learning_rate was not stored: function .*<lambda>.* no module has",
        ) as asked:
            loaded.learn(20)
        assert "trust" not in str(asked.value)  # which would not help
        assert loaded.num_timesteps == 0
        given = DQNExt.load(path, env=short_cartpole(), custom_objects={"learning_rate": half})  # as the message says
        assert given.learn(20).lr_schedule(0.5) == 0.25
        loaded.learning_rate = 1e-2  # the other way that it names
        assert loaded.learn(20).lr_schedule(0.5) == loaded.policy.optimizer.param_groups[0]["lr"] == 1e-2
    assert DQNExt.load(tmp_path / "model", learning_rate=half).lr_schedule(0.5) == 0.25


def test_all_that_is_not_stored_is_said_at_once(tmp_path: Path) -> None:
    model = made("plain")
    model.learning_rate = closure(1e-3)
    model.policy_kwargs["optimizer_kwargs"] = {"betas": {0.9}}
    with pytest.warns(UserWarning, match=r"policy_kwargs .* and learning_rate .*{'policy_kwargs': \.\.\., 'learning_rate'"):
        model.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match=r"policy_kwargs was not stored: .*: give it by .*{'policy_kwargs': \.\.\.}\.$"):
        DQNExt.load(tmp_path / "model")
    own: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}}
    assert DQNExt.load(tmp_path / "model", custom_objects=own).policy_kwargs == own["policy_kwargs"]


class Halving:
    """A schedule of the user's own, for epsilon."""

    def __init__(self, start: float) -> None:
        self.start = start

    def value(self, step: int, total_steps: int) -> float:
        return self.start / 2 ** (step / 20)


@pytest.mark.parametrize("exploration", ["epsilon_greedy", "boltzmann"])
def test_an_exploration_schedule_of_ones_own_is_asked_for_when_the_model_is_trained(exploration: str, tmp_path: Path) -> None:
    key = "temperature" if exploration == "boltzmann" else "schedule"
    kwargs: dict[str, Any] = {"exploration": exploration, "exploration_kwargs": {key: Halving(0.5), "warm_up": False}}
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=dict(SMALL_NET), **SMALL, **kwargs)
    learn(model, 40)
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert loaded.exploration_rate == model.exploration_rate == pytest.approx(0.125, rel=0.1)
    assert loaded.predict(np.zeros((3, 4), np.float32))[0].shape == (3,)  # it explores
    with pytest.raises(
        ArgumentError, match=r"exploration_kwargs names tests\.\S+\.Halving, .*'exploration_kwargs': .* trust=True"
    ):
        loaded.learn(20)
    for way in ({"custom_objects": {"exploration_kwargs": kwargs["exploration_kwargs"]}}, {"trust": True}):
        again = DQNExt.load(tmp_path / "model", env=short_cartpole(), **way)
        learn(again, 20, reset_num_timesteps=False)
        assert again.exploration_rate == pytest.approx(0.0625, rel=0.1)


# classes of the user's that are imported already


class Twice(BaseFeaturesExtractor):
    """Twice the observation, or as many times as it is told."""

    def __init__(self, observation_space: spaces.Box, factor: float = 2.0, activation: type[th.nn.Module] = th.nn.Identity):
        super().__init__(observation_space, observation_space.shape[0])
        self.factor, self.activation = factor, activation()

    def forward(self, observations: th.Tensor) -> th.Tensor:
        scaled: th.Tensor = self.activation(observations * self.factor)
        return scaled


class OwnPolicy(MlpPolicy):
    """A policy of the user's own."""


class StockPolicy(DQNPolicy):
    """A policy of the user's own, of stock SB3."""


class OwnBuffer(ReplayBuffer):
    """A replay buffer of the user's own, with an argument of its own."""

    def __init__(self, *args: Any, tag: Any = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tag = tag


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("whose", [DQN, DQNExt])
def test_classes_that_are_imported_already_need_no_trust(whose: type[DQN], as_text: bool, tmp_path: Path) -> None:
    extractor: Any = f"{__name__}.Twice" if as_text and whose is DQNExt else Twice
    kwargs: dict[str, Any] = {
        "features_extractor_class": extractor,
        "features_extractor_kwargs": {"factor": 3.0, "activation": th.nn.Tanh},
    }
    model = whose(
        OwnPolicy if whose is DQNExt else StockPolicy,
        short_cartpole(),
        policy_kwargs=SMALL_NET | kwargs,
        replay_buffer_class=OwnBuffer,
        replay_buffer_kwargs={"tag": [1, "a"]},
        **SMALL,
    )
    learn(model, 40)
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert_same(loaded.get_parameters(), model.get_parameters(), "parameters")
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert_same(loaded.predict(observations, deterministic=True), model.predict(observations, deterministic=True), "actions")
    assert type(loaded.policy) is type(model.policy)
    assert type(loaded.replay_buffer) is OwnBuffer
    assert loaded.replay_buffer.tag == [1, "a"]
    learn(loaded, 40, reset_num_timesteps=False)
    assert n_updates_of(loaded) > n_updates_of(model)


def test_a_class_of_the_script_that_trained_is_that_of_the_script_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DQNExt(OwnPolicy, short_cartpole(), policy_kwargs=SMALL_NET, **SMALL)
    model.save(tmp_path / "model")
    content = change(tmp_path / "model.zip", lambda data: data | {"policy_class": {"class": "__main__.OwnPolicy"}})
    with pytest.raises(
        ModelFileError, match=r"policy_class names __main__\.OwnPolicy, which your script must define or import"
    ):
        DQNExt.load(io.BytesIO(content))
    monkeypatch.setattr(sys.modules["__main__"], "OwnPolicy", OwnPolicy, raising=False)
    assert type(DQNExt.load(io.BytesIO(content)).policy) is OwnPolicy


@pytest.mark.parametrize("whose", [DQN, DQNExt])
def test_a_replay_buffer_of_ones_own_is_asked_for_when_the_model_is_trained(
    whose: type[DQN], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kwargs: dict[str, Any] = {"replay_buffer_class": OwnBuffer, "replay_buffer_kwargs": {"tag": 5}}
    model = whose("MlpPolicy", short_cartpole(), policy_kwargs=dict(SMALL_NET), **SMALL, **kwargs)
    learn(model, 40)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    with monkeypatch.context() as elsewhere:
        elsewhere.delitem(sys.modules, __name__)
        loaded, other = (DQNExt.load(tmp_path / "model", env=short_cartpole()) for _ in range(2))
        loaded.predict(np.zeros(4, np.float32))
        with pytest.raises(
            ArgumentError,
            match=r"replay_buffer_class names \S+OwnBuffer, which is known once \S+ is imported.*_class': .*trust=True",
        ):
            loaded.learn(20)
        loaded.save(tmp_path / "again")
        given = DQNExt.load(tmp_path / "model", env=short_cartpole(), custom_objects={"replay_buffer_class": OwnBuffer})
        learn(given, 40)
    assert type(given.replay_buffer) is OwnBuffer
    other.load_replay_buffer(tmp_path / "buffer")
    learn(other, 40, reset_num_timesteps=False)
    assert isinstance(other.replay_buffer, OwnBuffer)
    assert other.replay_buffer.pos == 80
    if whose is DQNExt:  # of a pickle, the name is all that is kept
        assert DQNExt.load(tmp_path / "again").replay_buffer.tag == 5  # type: ignore[union-attr]


# what is left out and what is put in


def test_any_attribute_that_is_left_out_is_what_sb3_makes_it() -> None:
    """The default of the constructor, or an error where there is none."""
    trained = {}
    for kind in (DQN, DQNExt):
        trained[kind] = kind("MlpPolicy", short_cartpole(), gamma=0.9, **SMALL)
        learn(trained[kind], 4)
    for name in sorted(vars(trained[DQN]).keys() - {*trained[DQN]._excluded_save_params()}):
        if name not in ("policy_class", "replay_buffer_class"):  # which are others
            assert left_out(trained[DQNExt], name, ModelFileError) == left_out(trained[DQN], name, Exception), name
    with pytest.raises(ModelFileError, match="its data have no policy_class"):
        without(trained[DQNExt], "policy_class")
    several = ["verbose", "learning_rate", "gamma", "policy_kwargs", "seed", "replay_buffer_class", "n_envs"]
    learn(without(trained[DQNExt], *several, env=short_cartpole()), 60)


def without(model: DQN, *names: str, **kwargs: Any) -> DQN:
    """The model, saved and loaded."""
    file = io.BytesIO()
    model.save(file, exclude=names)
    return type(model).load(file, device="cpu", **kwargs)


def left_out(model: DQN, name: str, refusal: type[Exception]) -> Any:
    """What an attribute is that was left out."""
    try:
        value = getattr(without(model, name), name)
    except refusal:
        return "refused"
    return value if isinstance(value, int | float | str | dict | None) else str(type(value))


BUFFERS: dict[str, tuple[Callable[[], Env], dict[str, Any]]] = {
    "plain": (short_cartpole, {}),
    "full": (short_cartpole, {"buffer_size": 30}),
    "n-step of several, optimized": (several_cartpoles, {"n_steps": 3, "optimize_memory_usage": True}),
    "Dict observations": (dict_cartpole, {}),
    "prioritized with copies": (short_cartpole, CASES["prioritized"][2]),
    "episodes": (short_cartpole, {"replay_buffer_kwargs": {"monte_carlo": 0.5, "keep_episodes": 2}}),
    "SB3's": (short_cartpole, {"replay_buffer_class": ReplayBuffer}),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_a_replay_buffer_that_is_put_in_comes_back_and_training_goes_on_with_it(name: str, tmp_path: Path) -> None:
    env, kwargs = BUFFERS[name]
    policy = "MultiInputPolicy" if name == "Dict observations" else "MlpPolicy"
    model = DQNExt(policy, env(), **(SMALL | {"policy_kwargs": dict(SMALL_NET), "learning_starts": 40} | kwargs))
    learn(model, 60)
    model.save(tmp_path / "model", include=["replay_buffer"])
    model.save_replay_buffer(tmp_path / "buffer")  # SB3's own way
    model.save(tmp_path / "bare")
    continued = [DQNExt.load(tmp_path / path, env=env()) for path in ("model", "bare")]
    continued[1].load_replay_buffer(tmp_path / "buffer")
    for other in continued:
        other.set_random_seed(7)
        learn(other, 40, reset_num_timesteps=False)
    assert_same_model(continued[0], continued[1])


def test_a_replay_buffer_that_does_not_fit_is_asked_for_when_the_model_is_trained(tmp_path: Path) -> None:
    model = learn_a_little(made("plain"))
    model.save(tmp_path / "model", include=["replay_buffer"])
    for way in ({"env": several_cartpoles()}, {"env": short_cartpole(), "buffer_size": 50}):
        loaded = DQNExt.load(tmp_path / "model", **way)
        loaded.predict(np.zeros(4, np.float32))
        with pytest.raises(
            ArgumentError, match=r"replay_buffer has 100 rows of 1 environments, not .*'replay_buffer': \.\.\."
        ):
            loaded.learn(20)
        learn(DQNExt.load(tmp_path / "model", custom_objects={"replay_buffer": None}, **way), 20)


def test_a_replay_buffer_that_cannot_be_put_in_is_said_and_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=SMALL_NET, replay_buffer_class=OwnBuffer, **SMALL)
    whys = {"images": "larger than what is read", "own": r"OwnBuffer, which save_replay_buffer\(\) keeps"}
    monkeypatch.setattr("sb3_dqn_ext.saved_model.archive.MAX_DATA", 100_000)
    for name, model in {"images": learn_a_little(made("images")), "own": own}.items():
        with pytest.warns(UserWarning, match=rf"replay_buffer \({whys[name]}\)"):
            model.save(tmp_path / "model", include=["replay_buffer", "env", "device", "policy", "_custom_logger"])
        loaded = DQNExt.load(tmp_path / "model", env=model.env)
        with pytest.raises(ArgumentError, match=f"replay_buffer was not stored: {whys[name]}"):
            loaded.learn(20)


def test_what_a_run_can_do_without_is_not_asked_for(tmp_path: Path) -> None:
    model = learn_a_little(made("plain"))
    model._last_obs = np.array([None])
    model._generator = np.random.Generator(np.random.MT19937(0))
    model.save(tmp_path / "model")  # without a warning
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole(), force_reset=False)
    assert last_observations_of(loaded) is None
    learn(loaded, 20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 80


def learn_a_little(model: DQNExt) -> DQNExt:
    learn(model, 60)
    return model


NETS = """
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

class Scaled(BaseFeaturesExtractor):
    def __init__(self, observation_space, factor=2.0):
        super().__init__(observation_space, features_dim=observation_space.shape[0])
        self.factor = factor

    def forward(self, observations):
        return observations * self.factor

class Swish(th.nn.Module):
    def forward(self, x):
        return x * th.sigmoid(x)

def rate(progress_remaining):
    return 1e-3 * progress_remaining
"""
USER = """
import sys
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.saved_model import ModelFileError

def net():
    from my_nets import Scaled, Swish
    return dict(net_arch=[8], features_extractor_class=Scaled, features_extractor_kwargs=dict(factor=3.0), activation_fn=Swish)
"""


SAVES = """
from user import *
from my_nets import rate

DQNExt("MlpPolicy", "CartPole-v1", learning_rate=rate, policy_kwargs=net(), seed=0, device="cpu").save("model")
"""
LOADS = """
from user import *

def attempt(**kwargs):
    try:
        model = DQNExt.load("model", **kwargs)
    except ValueError as error:
        print(type(error).__name__, error)
    else:
        print(getattr(model.q_net.features_extractor, "factor", None), model.lr_schedule(0.5))
    print("my_nets" in sys.modules)

attempt()
attempt(custom_objects=dict(learning_rate=0.1, policy_kwargs=dict(net_arch=[8])))  # what is given is not looked for
attempt(trust=True)
attempt(policy_kwargs=net(), learning_rate=0.1)
attempt(custom_objects=dict(policy_kwargs=net(), learning_rate=0.1))
attempt(trust=True, policy_kwargs=dict(net_arch=[8]))
attempt(policy_kwargs=dict(net_arch=[8]), learning_rate=0.1)
"""


def test_a_users_own_classes_are_named_and_imported_with_trust_only(tmp_path: Path) -> None:
    write_package(tmp_path / "run", my_nets=NETS, user=USER)
    output(python("-W", "error", "-c", SAVES, cwd=tmp_path / "run"))
    said = output(python("-W", "error", "-c", LOADS, cwd=tmp_path / "run")).splitlines()
    refused = said[0]
    assert refused.startswith("ModelFileError model cannot be loaded: ")
    assert "policy_kwargs names my_nets." in refused
    assert "custom_objects={'policy_kwargs': ...}, or load it with trust=True" in refused
    assert said[1:4] == ["False", "None 0.1", "False"]
    assert said[4:10] == ["3.0 0.0005", "True", "3.0 0.1", "True", "3.0 0.1", "True"]
    assert said[10].startswith("ValueError The specified policy kwargs do not equal the stored policy kwargs.")
    assert said[12].startswith("ModelFileError model cannot be loaded: policy_kwargs names my_nets.")


def test_a_class_that_is_known_may_be_named_by_either_of_its_names(tmp_path: Path) -> None:
    for name in ("torch.nn.Tanh", f"{th.nn.Tanh.__module__}.Tanh"):
        DQNExt("MlpPolicy", "CartPole-v1", policy_kwargs={"activation_fn": name}, device="cpu").save(tmp_path / "model")
        assert any(isinstance(layer, th.nn.Tanh) for layer in DQNExt.load(tmp_path / "model").q_net.modules())


def test_a_name_that_is_not_there_is_said(tmp_path: Path) -> None:
    made("plain").save(tmp_path / "model")
    for name, read in (("learning_rate", ArgumentError), ("policy_class", ModelFileError)):
        node = {"function": "my_package.rates.half"}
        content = change(tmp_path / "model.zip", lambda data, name=name, node=node: data | {name: node})  # type: ignore[misc]
        with pytest.raises(read, match=rf"{name} names my_package\.rates\.half, which cannot be imported here") as said:
            DQNExt.load(io.BytesIO(content), env=short_cartpole(), trust=True).learn(20)
        assert "trust" not in str(said.value)


def change(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """A file with other data."""
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(changed, "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            other.writestr(name, json.dumps(change(json.loads(content))) if name == "data" else content)
    return changed.getvalue()


def test_another_version_is_refused(models: tuple[Path, dict[str, DQNExt]]) -> None:
    content = change(models[0] / "plain.zip", lambda data: data | {":schema:": 3})
    with pytest.raises(ModelFileError, match="has the schema version 3, and this version of sb3_dqn_ext reads 1 to 2 only"):
        DQNExt.load(io.BytesIO(content))


def test_errors_are_those_of_sb3_and_of_checkpoints(tmp_path: Path, models: tuple[Path, dict[str, DQNExt]]) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    for kind in (ModelFileError, ValueError, CheckpointError):
        with pytest.raises(kind, match=r"text\.zip cannot be loaded: it is no zip file"):
            DQNExt.load(tmp_path / "text.zip")
    with pytest.raises(FileNotFoundError, match=r"missing\.zip"):
        DQNExt.load(tmp_path / "missing")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        DQNExt.load(models[0] / "plain", env=dict_cartpole())
    with pytest.raises(ArgumentError, match="custom_objects=3 must be a dict or None"):
        DQNExt.load(models[0] / "plain", custom_objects=3)  # type: ignore[arg-type]


def test_the_system_it_was_saved_on_is_printed(models: tuple[Path, dict[str, DQNExt]], capsys: Any) -> None:
    DQNExt.load(models[0] / "plain", print_system_info=True)
    printed = capsys.readouterr().out
    assert printed.count("Stable-Baselines3:") == 2
    assert "== SAVED MODEL SYSTEM INFO ==" in printed


class WithTensor(DQNExt):
    """A user's own algorithm, which has a tensor beside its networks."""

    def _setup_model(self) -> None:
        super()._setup_model()
        self.log_temperature = th.zeros(2)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        dictionaries, variables = super()._get_torch_save_params()
        return dictionaries, [*variables, "log_temperature"]


def test_tensors_beside_the_networks_come_back(tmp_path: Path) -> None:
    model = WithTensor("MlpPolicy", short_cartpole(), policy_kwargs=dict(SMALL_NET), **SMALL)
    model.log_temperature += th.tensor([1.0, 2.0])
    model.save(tmp_path / "model")
    assert WithTensor.load(tmp_path / "model").log_temperature.tolist() == [1.0, 2.0]
    with pytest.raises(ModelFileError, match=r"it has the parameters \['log_temperature', .*and the model has \['policy', "):
        DQNExt.load(tmp_path / "model")


# zips of SB3's own DQN


def test_a_zip_of_sb3_is_read_without_trust(tmp_path: Path) -> None:
    kwargs = SMALL | {"learning_rate": LinearSchedule(1e-3, 1e-4, 0.5), "n_steps": 3}
    stock = DQN("MlpPolicy", short_cartpole(), policy_kwargs={"net_arch": [8], "activation_fn": th.nn.ELU}, **kwargs)
    learn(stock, 60)
    stock.save(tmp_path / "stock")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`n_steps=")  # SB3 stores its own choice of a buffer
        loaded, trusted = (DQNExt.load(tmp_path / "stock", trust=trust) for trust in (False, True))
    assert_same(attributes(loaded), attributes(trusted), "attributes")
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert_same(loaded.predict(observations, deterministic=True), stock.predict(observations, deterministic=True), "actions")
    assert loaded.policy.activation_fn is th.nn.ELU


def test_a_zip_of_sb3_that_needs_its_pickles_says_so(tmp_path: Path) -> None:
    kwargs: dict[str, Any] = SMALL | {"learning_rate": lambda progress: 1e-3 * progress}
    stock = DQN("MlpPolicy", short_cartpole(), **kwargs)
    stock.my_own = {1, 2}  # type: ignore[attr-defined]
    stock.save(tmp_path / "stock")
    loaded = DQNExt.load(tmp_path / "stock", env=short_cartpole())
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert_same(loaded.predict(observations, deterministic=True), stock.predict(observations, deterministic=True), "actions")
    with pytest.raises(
        ArgumentError,
        match=r"learning_rate .*; my_own .*custom_objects={'learning_rate': \.\.\., 'my_own': \.\.\.}.*trust=True",
    ):
        loaded.learn(20)
    assert DQNExt.load(tmp_path / "stock", trust=True).lr_schedule(0.5) == 5e-4
    given: dict[str, Any] = {"my_own": None, "learning_rate": 0.1}
    for way in ({"custom_objects": given}, given):
        assert DQNExt.load(tmp_path / "stock", env=short_cartpole(), **way).learn(20).lr_schedule(0.5) == 0.1
    loaded.my_own, loaded.learning_rate = None, 0.1  # type: ignore[attr-defined]
    assert loaded.learn(20).lr_schedule(0.5) == 0.1


# writing


def fresh() -> DQNExt:
    return DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=dict(SMALL_NET), **SMALL)


@pytest.mark.parametrize("name", ["model", "model.zip", "model.bin", "a/b/model", "folder", "folder.zip", "v1.5"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_path_means_what_it_means_to_sb3(name: str, as_text: bool, tmp_path: Path) -> None:
    said = []
    for kind in (DQN, DQNExt):
        place = tmp_path / kind.__name__
        (place / "folder").mkdir(parents=True)
        (place / "folder.zip").mkdir()
        path = place / name
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = kind("MlpPolicy", short_cartpole(), policy_kwargs=dict(SMALL_NET), **SMALL)
            model.save(str(path) if as_text else path)
        found = sorted(str(file.relative_to(place)) for file in place.rglob("*"))
        said.append((found, [str(one.message).replace(str(place), "") for one in caught]))
        if path.suffix in ("", ".zip") and "folder" not in name:
            assert kind.load(path).num_timesteps == 0
    assert said[0] == said[1]


def test_a_file_that_is_open_is_written_to_and_read_from(tmp_path: Path) -> None:
    memory = io.BytesIO()
    fresh().save(memory)
    assert DQNExt.load(memory).buffer_size == 100
    with open(tmp_path / "model.bin", "wb") as file:
        fresh().save(file)
        assert not file.closed
    with open(tmp_path / "model.bin", "rb") as file:
        assert DQNExt.load(file).buffer_size == 100
        assert not file.closed


def test_what_is_left_out_and_put_in_is_that_of_sb3(tmp_path: Path) -> None:
    model = fresh()
    model.extra = 3  # type: ignore[attr-defined]
    for kind in (DQN, DQNExt):
        kind.save(model, tmp_path / kind.__name__, exclude=["extra", "verbose"], include=["_custom_logger", "verbose"])
    theirs, ours = (json.loads(zipfile.ZipFile(tmp_path / f"{kind.__name__}.zip").read("data")) for kind in (DQN, DQNExt))
    rebuilt = {"lr_schedule", "exploration_schedule", "batch_norm_stats", "batch_norm_stats_target"}
    assert ours.keys() - {":schema:", ":for SB3:"} == theirs.keys() - rebuilt
    assert "extra" not in ours
    assert {"_custom_logger", "verbose"} <= ours.keys()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "latest.zip").symlink_to("elsewhere/model.zip")
    fresh().save(tmp_path / "latest")
    assert (tmp_path / "latest.zip").is_symlink()
    assert DQNExt.load(tmp_path / "elsewhere" / "model").buffer_size == 100
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_a_full_disk_leaves_the_model_that_was_there(tmp_path: Path) -> None:
    model = fresh()
    model.save(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()
    model.num_timesteps = 7
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # of a file that would be larger, only a half
    try:
        with pytest.raises(OSError, match="File too large"):
            model.save(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [file.name for file in tmp_path.iterdir()] == ["model.zip"]
    assert (tmp_path / "model.zip").read_bytes() == before


SAVE_AGAIN_AND_AGAIN = """
from sb3_dqn_ext import DQNExt
model = DQNExt.load("model")
print("ready", flush=True)
while True:
    model.num_timesteps += 1
    model.save("model")
"""


def test_a_kill_leaves_a_whole_model(tmp_path: Path) -> None:
    fresh().save(tmp_path / "model")
    steps = 0
    for delay in (0.07, 0.21):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_AGAIN_AND_AGAIN],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        with process, process.stdout:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            process.kill()
        loaded = DQNExt.load(tmp_path / "model")
        assert loaded.num_timesteps >= steps
        steps = loaded.num_timesteps
    assert steps > 0
