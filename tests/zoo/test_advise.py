"""The command ``advise``, and the default block of an environment that the configurations do not contain."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ale_py
import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TimeLimit, TransformAction

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.envs import ActionMaskInObservation
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.networks.encoders import ENCODERS
from sb3_dqn_ext.zoo.advise.__main__ import (
    atari_kwargs,
    choose_preprocessing,
    describe_space,
    find_masks,
    find_spec,
    render_block,
    to_yaml,
)
from sb3_dqn_ext.zoo.advise.env_facts import EnvFacts, measure
from sb3_dqn_ext.zoo.advise.rules import ACTION_MASKS, ATARI_WRAPPER, CLIP_REWARD, WARP_FRAME, Line, advise
from sb3_dqn_ext.zoo.config import check_config
from sb3_dqn_ext.zoo.network_choice import network_arguments
from tests.internals import n_updates_of
from tests.pages import DOCS, blocks
from tests.processes import output, python

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
BOOL: Any = np.bool_
MINATAR = spaces.Box(0, 1, (10, 10, 4), BOOL)


def image(*shape: int) -> spaces.Box:
    """The space of images with values of uint8."""
    return spaces.Box(0, 255, shape, np.uint8)


# -- network ---------------------------------------------------------------------------------------------------------------


class Scripted(gym.Env[Any, Any]):
    """An environment whose steps are given as pairs of a reward and whether the episode ends with the step."""

    def __init__(self, space: spaces.Space[Any] = VECTOR, steps: tuple[tuple[float, bool], ...] = ((1.0, False),)) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(3)
        self.steps, self.n_steps = steps, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward, terminated = self.steps[self.n_steps % len(self.steps)]
        self.n_steps += 1
        return self.observation_space.sample(), reward, terminated, False, {}


@pytest.mark.parametrize(
    ("space", "policy", "encoder", "without_encoder"),
    [
        (VECTOR, "MlpPolicy", None, "MlpPolicy"),
        (spaces.Discrete(5), "MlpPolicy", None, "MlpPolicy"),
        (spaces.Box(0, 255, (6, 7), np.uint8), "MlpPolicy", None, "MlpPolicy"),
        (spaces.Box(0, 1, (2, 2, 1), np.float32), "MlpPolicy", None, "MlpPolicy"),
        (MINATAR, "CnnPolicy", "minatar", "MlpPolicy"),
        (image(23, 30, 3), "CnnPolicy", "minatar", "MlpPolicy"),
        (image(24, 24, 3), "CnnPolicy", "small", "MlpPolicy"),
        (image(3, 42, 50), "CnnPolicy", "small", "CnnPolicy"),
        (image(84, 84, 1), "CnnPolicy", "nature", "CnnPolicy"),
        (spaces.Box(0, 1, (64, 64, 3), np.float32), "CnnPolicy", "nature", "MlpPolicy"),
        (spaces.Dict(a=VECTOR), "MultiInputPolicy", None, "MultiInputPolicy"),
        (spaces.Dict(a=VECTOR, b=image(84, 84, 1), c=image(7, 7, 3)), "MultiInputPolicy", "minatar", "MultiInputPolicy"),
    ],
    ids=str,
)
def test_the_network_suits_the_observations(
    space: spaces.Space[Any], policy: str, encoder: str | None, without_encoder: str
) -> None:
    chosen = network_arguments(space, {}, True)
    assert chosen == {"policy": policy, **({"policy_kwargs": {"encoder": encoder}} if encoder else {})}
    model = DQNExt(env=Scripted(space), buffer_size=40, device="cpu", **chosen)
    model.predict(model.observation_space.sample())
    if encoder is not None and not isinstance(space, spaces.Dict):
        assert isinstance(model.q_net.features_extractor, ENCODERS[encoder])
    # a search of hyperparameters replaces policy_kwargs
    assert network_arguments(space, {}, False) == {"policy": without_encoder}
    if space != spaces.Dict(a=VECTOR, b=image(84, 84, 1), c=image(7, 7, 3)):  # SB3's NatureCNN does not support them
        DQNExt(without_encoder, Scripted(space), buffer_size=40, device="cpu")


def test_arguments_of_the_policy_are_kept_and_an_extractor_replaces_the_encoder() -> None:
    both = {"policy": "CnnPolicy", "policy_kwargs": {"net_arch": [8], "encoder": "minatar"}}
    assert network_arguments(MINATAR, {"net_arch": [8]}, True) == both
    given = {"encoder": "impala"}
    assert network_arguments(MINATAR, given, True) == {"policy": "CnnPolicy", "policy_kwargs": given}
    given = {"features_extractor_class": "my.Extractor"}
    assert network_arguments(MINATAR, given, True) == {"policy": "MlpPolicy", "policy_kwargs": given}


# -- facts -----------------------------------------------------------------------------------------------------------------


def test_facts_are_counted_in_random_steps() -> None:
    steps = ((0.0, False), (2.0, False), (0.0, True), (-3.0, False))
    facts = measure(TimeLimit(Scripted(steps=steps), 3), 20)
    # Steps 3, 7, 11, 15 and 19 terminate, step 3 at the limit; steps 6, 10, 14 and 18 are the third ones of their episodes.
    assert facts == EnvFacts(VECTOR, 3, None, False, 20, 5, 4, -3.0, 2.0, 0.0, 0.5, 0.5, facts.max_abs_observations)
    (size,) = facts.max_abs_observations.values()
    assert 0.5 < size <= 1
    assert (facts.max_abs_reward, facts.episode_length, facts.is_sparse) == (3, 20 / 9, False)


def test_truncations_and_the_time_limit_are_found() -> None:
    facts = measure(gym.make("MountainCar-v0"), 450)
    assert (facts.max_episode_steps, facts.n_truncations, facts.n_terminations) == (200, 2, 0)
    assert (facts.min_reward, facts.max_reward, facts.usual_reward, facts.usual_share) == (-1, -1, -1, 1)
    assert facts.is_sparse
    assert not measure(gym.make("CartPole-v1"), 200).is_sparse  # all rewards are equal, and episodes terminate
    assert measure(FrameStackObservation(Scripted(), 2), 5).is_stacked


@pytest.mark.parametrize(
    ("step", "other", "informative_share"),
    [
        ((0.0, False), (1.0, True), 0.02),  # a goal
        ((-0.1, False), (1.0, True), 0.02),  # a goal, and a penalty of each step
        ((-1.0, False), (-1.0, True), 0.02),  # the sooner, the better
        ((1.0, False), (1.0, True), 0.02),  # the later, the better
        ((0.0, False), (0.0, True), 0.0),  # no return was better than another
        ((-0.1, False), (1.0, False), 0.02),
    ],
)
def test_steps_that_make_a_difference(step: tuple[float, bool], other: tuple[float, bool], informative_share: float) -> None:
    facts = measure(Scripted(steps=(*[step] * 49, other)), 100)
    assert (facts.usual_reward, facts.informative_share) == (step[0], informative_share)


def test_magnitudes_of_the_vectors_in_a_dict() -> None:
    parts = {"speed": spaces.Box(-50, 50, (3,)), "angle": VECTOR, "gear": spaces.Discrete(4), "view": MINATAR}
    sizes = measure(Scripted(spaces.Dict(parts)), 50).max_abs_observations
    assert set(sizes) == {"speed", "angle"}
    assert 25 < sizes["speed"] <= 50
    assert 0.5 < sizes["angle"] <= 1


def test_facts_are_those_of_the_seed() -> None:
    first, again, other = (measure(gym.make("CartPole-v1"), 200, seed) for seed in (1, 1, 2))
    assert first == again != other


class Masked(Scripted):
    """An environment in which one action is legal at a time, another one after each step."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().reset(seed=seed)
        return observation, {"action_mask": self.mask}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.mask[action] == 1
        return (*super().step(action)[:4], {"action_mask": self.mask})

    @property
    def mask(self) -> npt.NDArray[np.int8]:
        mask = np.zeros(3, np.int8)
        mask[self.n_steps % 3] = 1
        return mask


class MaskedByMethod(Masked):
    def action_masks(self) -> npt.NDArray[np.int8]:
        return self.mask


@pytest.mark.parametrize(("env", "source"), [(Masked(), "info"), (MaskedByMethod(), "method")])
def test_random_steps_are_legal(env: gym.Env[Any, Any], source: str) -> None:
    assert list(find_masks(env, 0)) == [{ACTION_MASKS: {"source": source}}]
    wrapped = ActionMaskInObservation(env, source)
    assert list(find_masks(wrapped, 0)) == []  # the observations contain the masks
    facts = measure(wrapped, 20)
    assert (facts.has_masks, facts.observation_space, set(facts.max_abs_observations)) == (True, VECTOR, {"observation"})
    assert list(find_masks(Scripted(), 0)) == []


def test_what_a_dqn_does_not_support_is_one_error() -> None:
    with pytest.raises(UnsupportedError, match=r"supports .*Discrete'>,\).*but Box\(-2.0, 2.0, \(1,\), float32\)"):
        measure(gym.make("Pendulum-v1"))
    with pytest.raises(UnsupportedError, match=r"^the action space Discrete\(3, start=1\) must begin at 0"):
        measure(TransformAction(Scripted(), lambda action: action - 1, spaces.Discrete(3, start=1)))
    matrix = spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]))
    for space in (spaces.Tuple([VECTOR]), spaces.Dict(a=spaces.Dict(b=VECTOR)), matrix):
        with pytest.raises(UnsupportedError, match="supported"):
            measure(Scripted(space))
    with pytest.raises(
        ArgumentError, match=r"^env='CartPol-v1' is not registered in gymnasium\. Did you mean 'CartPole-v1' or '"
    ):
        find_spec("CartPol-v1")
    with pytest.raises(ArgumentError, match=r"^env='qqq' is not registered in gymnasium\. --gym-packages imports"):
        find_spec("qqq")


# -- rules -----------------------------------------------------------------------------------------------------------------

USUAL = EnvFacts(
    observation_space=VECTOR,
    n_actions=3,
    max_episode_steps=500,
    is_stacked=False,
    n_random_steps=2_000,
    n_terminations=20,
    n_truncations=0,
    min_reward=-1.0,
    max_reward=1.0,
    usual_reward=0.0,
    usual_share=0.5,
    informative_share=0.5,
    max_abs_observations={None: 1.0},
)
SPARSE = {"n_steps": 5, "exploration": "ez_greedy", "exploration_kwargs.mu": 1.5, "exploration_fraction": 0.3}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"policy": "MlpPolicy", "n_timesteps": 100_000, "n_steps": 3, "target_policy": "double", "gamma": 0.99}),
        ({}, {"normalize": None, "exploration": None, "exploration_kwargs.mu": None, "policy_kwargs.loss": None}),
        ({"max_episode_steps": 1000}, {"n_timesteps": 200_000}),
        ({"max_episode_steps": 100_000}, {"n_timesteps": 1_000_000}),
        ({"informative_share": 0.002, "usual_reward": 1.0}, {"exploration": None}),
        ({"informative_share": 0.002, "usual_reward": 1.0, "n_terminations": 0}, SPARSE),
        ({"informative_share": 0.002}, {**SPARSE, "n_timesteps": 200_000, "gamma": 0.99}),
        ({"informative_share": 0.0, "n_terminations": 0}, {**SPARSE, "gamma": 0.995}),
        ({"informative_share": 0.0, "n_terminations": 0, "n_truncations": 10}, {**SPARSE, "gamma": 0.99}),
        ({"max_reward": 20.0}, {"normalize": None, "policy_kwargs.loss": "huber"}),
        ({"min_reward": -350.0}, {"normalize": {"norm_obs": False, "norm_reward": True}, "policy_kwargs.loss": None}),
        ({"max_reward": 1e-3, "min_reward": 0.0}, {"normalize": {"norm_obs": False, "norm_reward": True}}),
        ({"max_reward": 0.0, "min_reward": 0.0}, {"normalize": None}),
        ({"max_abs_observations": {None: 40.0}}, {"normalize": {"norm_obs": True, "norm_reward": False}}),
        (
            {"max_abs_observations": {"speed": 40.0, "angle": 1.0}},
            {"normalize": {"norm_obs": True, "norm_reward": False, "norm_obs_keys": ["speed"]}},
        ),
        ({"observation_space": MINATAR}, {"policy_kwargs.encoder": "minatar", "frame_stack": None, "n_timesteps": 1_000_000}),
        ({"observation_space": MINATAR}, {"target_policy": "munchausen", "policy_kwargs.head": None, "batch_size": 32}),
        ({"observation_space": MINATAR, "max_reward": 5.0}, {"target_policy": "double"}),
        ({"observation_space": image(84, 84, 1)}, {"frame_stack": 4, "replay_buffer_kwargs.storage": "frames"}),
        ({"observation_space": image(84, 84, 1), "max_reward": 500.0}, {"normalize": None, "env_wrapper": [CLIP_REWARD]}),
        ({"observation_space": image(4, 84, 84), "max_reward": 500.0}, {"env_wrapper": None}),
        ({"observation_space": image(20, 20, 3), "max_reward": 500.0}, {"normalize": None, "env_wrapper": [CLIP_REWARD]}),
        ({"observation_space": MINATAR, "max_reward": 500.0}, {"normalize": {"norm_obs": False, "norm_reward": True}}),
        (
            {"observation_space": spaces.Dict(a=VECTOR, b=image(20, 20, 3)), "max_abs_observations": {"a": 40.0}},
            {"normalize": None},
        ),
        ({"preprocessing": (WARP_FRAME,)}, {"env_wrapper": [WARP_FRAME]}),
        ({"env_kwargs": {"a": 1}}, {"env_kwargs": {"a": 1}}),
        ({"max_episode_steps": None}, {"env_kwargs": {"max_episode_steps": 1_000}}),
        ({"max_episode_steps": None, "n_terminations": 0}, {"env_kwargs": {"max_episode_steps": 1_000}}),
        ({"max_episode_steps": None, "n_terminations": 4}, {"env_kwargs": {"max_episode_steps": 5_000}}),
        ({"max_episode_steps": None, "n_truncations": 4}, {"env_kwargs": None}),
        ({"max_episode_steps": None, "is_atari": True}, {"env_kwargs": None}),
        ({"observation_space": spaces.Box(0, 1, (1, 84, 84), np.float32)}, {"frame_stack": None}),
        ({"observation_space": spaces.Box(0, 1, (84, 84, 1), np.float32)}, {"frame_stack": 4}),
        (
            {"observation_space": spaces.Dict(a=VECTOR, b=image(4, 84, 84)), "is_stacked": True},
            {"replay_buffer_kwargs.storage": {"b": "frames"}},
        ),
        ({"observation_space": image(4, 84, 84)}, {"frame_stack": None, "replay_buffer_kwargs.storage": None}),
        ({"observation_space": image(4, 84, 84), "is_stacked": True}, {"replay_buffer_kwargs.storage": "frames"}),
        ({"observation_space": image(4, 84, 84), "is_stacked": True}, {"frame_stack": None, "buffer_size": 100_000}),
        ({"observation_space": image(4, 84, 84)}, {"buffer_size": 35_000}),  # 2 * 28,224 bytes each, in 2 GB
        ({"has_masks": True}, {"policy_kwargs.action_masks": True, "normalize": None}),
        ({"has_masks": True, "observation_space": image(84, 84, 1)}, {"frame_stack": None}),
        ({"preprocessing": ({ACTION_MASKS: {"source": "info"}},)}, {"env_wrapper": [{ACTION_MASKS: {"source": "info"}}]}),
        ({"observation_space": spaces.Discrete(5)}, {"policy": "MlpPolicy", "policy_kwargs.net_arch": [256, 256]}),
        ({"observation_space": spaces.Dict(a=VECTOR)}, {"policy": "MultiInputPolicy", "policy_kwargs.net_arch": [256, 256]}),
        ({"observation_space": spaces.Dict(a=VECTOR, b=MINATAR)}, {"policy_kwargs.net_arch": [256], "frame_stack": None}),
    ],
)
def test_the_rules(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    lines = {line.key: line.value for line in advise(replace(USUAL, **changes))}
    assert {key: lines.get(key) for key in expected} == expected


def test_games_of_ale_and_large_coloured_images_are_made_smaller() -> None:
    gym.register_envs(ale_py)
    assert choose_preprocessing(image(210, 160, 3), True) == (ATARI_WRAPPER,)
    assert choose_preprocessing(VECTOR, True) == ()  # its RAM
    assert choose_preprocessing(image(120, 160, 3), False) == (WARP_FRAME,)
    for space in (image(96, 96, 3), image(120, 160, 4), spaces.Box(0, 1, (120, 160, 3), np.float32), VECTOR):
        assert choose_preprocessing(space, False) == ()
    assert atari_kwargs(find_spec("ALE/Pong-v5"), {}) == {"frameskip": 1}  # the wrapper skips frames
    assert atari_kwargs(find_spec("ALE/Pong-v5"), {"obs_type": "ram"}) == {}  # without a wrapper, the game skips frames
    assert atari_kwargs(find_spec("PongNoFrameskip-v4"), {}) == {}


def test_the_number_of_steps_can_be_given() -> None:
    lines = {line.key: line.value for line in advise(USUAL, 5_000)}
    assert (lines["n_timesteps"], lines["buffer_size"], lines["learning_starts"]) == (5_000, 5_000, 100)
    assert {line.key: line.value for line in advise(USUAL, 10)}["buffer_size"] == 1_000  # a batch fits in


def test_reasons_contain_what_was_measured() -> None:
    few_rewards: dict[str, Any] = {"usual_reward": -0.1, "usual_share": 0.998, "informative_share": 0.002}
    few_rewards["max_abs_observations"] = {"speed": 40.0, "angle": 1.0}
    reasons = {line.key: line.reason for line in advise(replace(USUAL, **few_rewards, min_reward=-350.0))}
    assert reasons["n_steps"] == "rewards were -0.1 in 99.8 % of 2,000 random steps, with 20 terminations: longer returns"
    assert reasons["normalize"] == "the largest |reward| was 350, the largest |observation| in 'speed' was 40"
    reasons = {line.key: line.reason for line in advise(replace(USUAL, max_episode_steps=100_000))}
    assert reasons["n_timesteps"] == "environment steps; 10 episodes of 100,000 steps"
    endless = replace(USUAL, max_episode_steps=None, n_terminations=0, informative_share=0.0)
    reasons = {line.key: line.reason for line in advise(endless)}
    assert reasons["gamma"] == "per step; sparse rewards and no end of an episode: a horizon of 200 steps"
    assert reasons["env_kwargs"] == "a time limit, so that each evaluation ends"


def test_numbers_that_are_not_finite_are_reported() -> None:
    with pytest.raises(ArgumentError, match=r"the reward of random step 2 is nan"):
        measure(Scripted(steps=((1.0, False), (np.nan, False))))
    env = Scripted()
    env.observation_space.sample = lambda *_: np.full(3, np.inf, np.float32)  # type: ignore[method-assign]
    with pytest.raises(ArgumentError, match=r"the largest \|observation\| of random step 1 is inf"):
        measure(env)


# -- YAML ------------------------------------------------------------------------------------------------------------------


def every_kind_of_facts() -> Iterator[EnvFacts]:
    spaces_ = (VECTOR, MINATAR, image(84, 84, 3), spaces.Discrete(4), spaces.Dict(a=VECTOR, b=image(50, 50, 3)))
    for space in spaces_:
        for share in (0.0, 0.002, 0.5):
            yield replace(USUAL, observation_space=space, informative_share=share, max_reward=700.0)


def test_every_configuration_is_valid_and_each_line_has_a_reason(tmp_path: Path) -> None:
    for facts in every_kind_of_facts():
        lines = advise(facts)
        text = list(render_block("a/B-v0", lines))
        (tmp_path / "my.yml").write_text("\n".join(text))
        check_config(tmp_path / "my.yml")
        block = yaml.safe_load("\n".join(text))["a/B-v0"]
        for key, value, reason in lines:
            outer, _, inner = key.rpartition(".")
            assert (block[outer] if outer else block)[inner] == value
            assert reason
        assert all("  # " in line for line in text if not line.endswith(":"))


def test_values_and_spaces_are_written_in_one_line() -> None:
    for value in (100_000, 0.5, True, "x: #", None, [1, "a.B"], {"a": {"b": [1.5]}}, [{"a.B": {"c": 1}}], "y" * 300):
        assert yaml.safe_load(to_yaml(value)) == value
        assert "\n" not in to_yaml(value)
    with pytest.raises(ArgumentError, match=r"cannot be written to YAML, which contains plain data only"):
        list(render_block("A-v0", [Line("env_kwargs", {"a": object()}, "")]))
    assert describe_space(spaces.Box(np.zeros(300, np.float32), np.arange(1, 301, dtype=np.float32))) == "Box(300,) float32"
    assert describe_space(spaces.Dict(a=image(3, 4, 5), b=spaces.Discrete(2))) == "Dict(a: Box(3, 4, 5) uint8, b: Discrete(2))"


def test_the_page_of_the_zoo_shows_the_output_of_the_command() -> None:
    (shown,) = [block.text for block in blocks(DOCS / "zoo.md", "yaml") if "ez_greedy" in block.text]
    lines = render_block("MountainCar-v0", advise(measure(gym.make("MountainCar-v0"))))
    assert shown == "".join(f"{line}\n" for line in lines)


# -- the commands in a user's folder ---------------------------------------------------------------------------------------

MY_ENVS = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces

print("a message of a module")

class Screens(gym.Env):
    """Random images, numbers or both, with a reward every k steps."""

    def __init__(self, kind="image", side=10, k=5):
        images = spaces.Box(0, 255, (side, side, 3), np.uint8)
        numbers = spaces.Box(-np.inf, np.inf, (2,))
        parts = spaces.Dict(image=spaces.Box(0, 255, (1, 8, 8), np.uint8), numbers=spaces.Box(-50, 50, (2,)))
        self.observation_space = {"image": images, "numbers": numbers, "dict": parts}[kind]
        self.action_space = spaces.Discrete(3)
        self.k = k

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), float(self.t % self.k == 0), self.t == 20, False, {}

gym.register("mine/Images-v0", Screens)
gym.register("mine/Numbers-v0", Screens, kwargs={"kind": "numbers"})
gym.register("mine/Dict-v0", Screens, kwargs={"kind": "dict"})
gym.register("mine/Rare-v0", Screens, kwargs={"kind": "numbers", "k": 1000}, max_episode_steps=50)
'''

# Many commands in one process, which imports the zoo once. The output of each is written to files with its number.
RUN_ALL = """
import contextlib, json, runpy, sys
from sb3_dqn_ext.zoo.advise.__main__ import main
try:
    main(["CartPol-v1"], "prog advise")
except SystemExit as error:
    print(error.code)
for number, (advice, training) in enumerate(json.loads(sys.argv[1])):
    if advice:
        with open(f"{number}.yml", "w") as file, contextlib.redirect_stdout(file):
            main(advice, "prog advise")
        training += ["-conf", f"{number}.yml"]
    with open(f"{number}.txt", "w") as file, contextlib.redirect_stdout(file):
        sys.argv = ["train", "--algo", "dqn_ext", "--gym-packages", "my_envs", "--eval-episodes", "1", *training]
        runpy.run_module("rl_zoo3.train", run_name="__main__")
"""


class Project(NamedTuple):
    """A user's folder with runs."""

    folder: Path
    printed: str

    def model(self, env: str, number: int) -> DQNExt:
        return DQNExt.load(self.folder / f"logs/dqn_ext/{env}_{number}/{env}.zip", device="cpu")

    def text(self, number: int, suffix: str) -> str:
        return (self.folder / f"{number}.{suffix}").read_text()


def advised(env: str, *options: str) -> tuple[list[str], list[str]]:
    """Return the arguments of advise, and those of a training with its configuration."""
    advice = [env, "--gym-packages", "my_envs", "-n", "120", "--random-steps", "200", *options]
    return advice, ["--env", env, "--eval-freq", "60", "-params", "compile:False"]


def by_default(env: str, *params: str) -> tuple[list[str], list[str]]:
    """Return the arguments of a training without a configuration."""
    return [], ["--env", env, "-n", "120", "--eval-freq", "-1", "-params", "learning_starts:60", *params]


TRAININGS = [
    advised("CartPole-v1"),
    advised("mine/Images-v0", "--env-kwargs", "side:24"),
    advised("mine/Rare-v0"),
    by_default("mine/Numbers-v0"),
    by_default("mine/Images-v0"),
    by_default("mine/Dict-v0", "policy_kwargs:dict(net_arch=[16])"),
    advised("Taxi-v4"),
    advised("mine/Dict-v0"),
]

in_one_process = pytest.mark.xdist_group("advise")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A folder in which all trainings were run."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "my_envs.py").write_text(MY_ENVS)
    return Project(folder, output(python("-W", "ignore", "-c", RUN_ALL, json.dumps(TRAININGS), cwd=folder)))


@in_one_process
def test_configurations_train_as_they_are(project: Project) -> None:
    for number in range(3):
        assert f"Loading hyperparameters from: {number}.yml" in project.text(number, "txt")
        assert "Using 'default' hyperparameters" not in project.text(number, "txt")
    vector = project.model("CartPole-v1", 1)
    assert (vector.policy_kwargs, vector.num_timesteps, n_updates_of(vector) > 50) == (
        {"net_arch": [256, 256], "norm": "layer"},
        120,
        True,
    )
    stacked = project.model("mine-Images-v0", 1)  # evaluated with the arguments of the environment in the file
    assert stacked.observation_space.shape == (12, 24, 24)
    assert stacked.policy_kwargs == {"encoder": "small", "head": "dueling", "norm": "layer"}
    assert project.model("mine-Rare-v0", 1).exploration == "ez_greedy"
    run = project.folder / "logs/dqn_ext/mine-Dict-v0_2/mine-Dict-v0"
    assert set(pickle.loads((run / "vecnormalize.pkl").read_bytes()).obs_rms) == {"numbers"}


@in_one_process
def test_action_masks_are_found_and_used(project: Project) -> None:
    model = project.model("Taxi-v4", 1)
    assert model.policy_kwargs == {"net_arch": [256, 256], "norm": "layer", "action_masks": True}
    assert isinstance(model.observation_space, spaces.Dict)
    assert "# Discrete(500) observations, 6 actions with action masks, a time limit of 200 steps." in project.text(6, "yml")


@in_one_process
def test_comments_describe_the_environment(project: Project) -> None:
    comments = [line for line in project.text(2, "yml").splitlines() if line.startswith("# ")]
    assert comments == [
        "# A starting configuration. With this text in my_config.yml: "
        "sb3-dqn-ext train --env mine/Rare-v0 -conf my_config.yml --gym-packages my_envs",
        "# Box(2,) float32 observations, 3 actions, a time limit of 50 steps.",
        "# 200 random steps: rewards from 0 to 0, most often 0 (100 %);",
        "# 10 episodes ended, 10 of them by termination.",
    ]
    own = "# zoo_configs/dqn_ext.yml has a block for CartPole-v1, which is used without -conf."
    assert own in project.text(0, "yml").splitlines()


@in_one_process
def test_an_unknown_id_is_one_line(project: Project) -> None:
    (line,) = project.printed.splitlines()
    assert line.startswith("prog advise: env='CartPol-v1' is not registered in gymnasium. Did you mean 'CartPole-v1' or '")


@in_one_process
@pytest.mark.parametrize(
    ("number", "env", "n_run", "policy", "policy_kwargs"),
    [
        (3, "mine-Numbers-v0", 1, "MlpPolicy", None),
        (4, "mine-Images-v0", 2, "CnnPolicy", {"encoder": "minatar"}),
        (5, "mine-Dict-v0", 1, "MultiInputPolicy", {"net_arch": [16], "encoder": "minatar"}),
    ],
)
def test_the_default_block_trains_any_observations(
    project: Project, number: int, env: str, n_run: int, policy: str, policy_kwargs: dict[str, Any] | None
) -> None:
    env_id = env.replace("-", "/", 1)
    hint = f"{env_id} has no block: the default block is used. `sb3-dqn-ext advise {env_id}` prints a tailored one."
    assert project.text(number, "txt").splitlines().count(hint) == 1
    assert project.text(number, "txt").count("Using 'default' hyperparameters") == 1
    model = project.model(env, n_run)
    assert type(model.policy).__name__ == policy
    assert model.policy_kwargs == (policy_kwargs or {})
    assert (model.target_policy, model.n_steps, model.target_update_unit) == ("double", 3, "gradient_steps")
    run = project.folder / f"logs/dqn_ext/{env}_{n_run}"
    stored = json.loads((run / "run.json").read_text())["hyperparameters"]
    saved = yaml.load((run / env / "config.yml").read_text(), yaml.UnsafeLoader)
    for hyperparameters in (stored, dict(saved)):
        assert (hyperparameters["policy"], hyperparameters.get("policy_kwargs")) == (policy, policy_kwargs)
