"""With the defaults of all its arguments, DQNExt ends with the same bits as the installed SB3's DQN."""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext._arguments import DQNKwargs
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.saved_model.classes import SimpleLinearSchedule
from tests.parity import (
    Env,
    assert_same,
    assert_same_model,
    assert_same_run,
    dict_cartpole,
    learn,
    several_cartpoles,
    short_cartpole,
)

SMALL: dict[str, Any] = {
    "learning_rate": 1e-3,
    "buffer_size": 128,  # smaller than the run, so that rows are overwritten
    "learning_starts": 20,
    "batch_size": 16,
    "train_freq": 4,
    "target_update_interval": 20,
    "exploration_fraction": 0.5,
    "policy_kwargs": {"net_arch": [16, 16]},
    "seed": 3,
    "device": "cpu",
}


def normalized_cartpoles() -> VecNormalize:
    return VecNormalize(several_cartpoles(1), gamma=0.99)


def small_images() -> gym.Env[Any, Any]:
    env = FakeImageEnv(action_dim=3, screen_height=36, screen_width=36, n_channels=1, discrete=True)
    env.observation_space.seed(0)  # its images are samples of the space
    return env


def bit_flipping() -> gym.Env[Any, Any]:
    return BitFlippingEnv(n_bits=4, continuous=False, max_steps=4)


Case = tuple[str, Callable[[], Env], dict[str, Any]]
CASES: dict[str, Case] = {
    "train_freq a number": ("MlpPolicy", short_cartpole, {}),
    "train_freq in episodes": ("MlpPolicy", short_cartpole, {"train_freq": (2, "episode")}),
    "4 gradient steps": ("MlpPolicy", short_cartpole, {"gradient_steps": 4}),
    "as many gradient steps as env steps": ("MlpPolicy", short_cartpole, {"gradient_steps": -1}),
    "3-step returns": ("MlpPolicy", short_cartpole, {"n_steps": 3}),
    "soft targets": ("MlpPolicy", short_cartpole, {"tau": 0.01, "target_update_interval": 1}),
    "optimize_memory_usage": (
        "MlpPolicy",
        short_cartpole,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "time limits as terminations": (
        "MlpPolicy",
        short_cartpole,
        {"n_steps": 3, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "Dict observations": ("MultiInputPolicy", dict_cartpole, {}),
    "a small CNN": (
        "CnnPolicy",
        small_images,
        {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}}, "gradient_steps": 1, "train_freq": 20},
    ),
    "VecNormalize": ("MlpPolicy", normalized_cartpoles, {}),
    "VecNormalize with 3-step returns": ("MlpPolicy", normalized_cartpoles, {"n_steps": 3}),
    "HER": (
        "MultiInputPolicy",
        bit_flipping,
        {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}},
    ),
    "discrete observations": ("MlpPolicy", lambda: gym.make("FrozenLake-v1", max_episode_steps=10), {}),
    "a learning rate schedule": ("MlpPolicy", short_cartpole, {"learning_rate": SimpleLinearSchedule(1e-3)}),
}


def maker(policy: str, env: Callable[[], Env], kwargs: dict[str, Any]) -> Callable[[type[DQN]], DQN]:
    def make(algorithm: type[DQN]) -> DQN:
        # replay_buffer_kwargs are copied: SB3 writes n_steps into them
        own: dict[str, Any] = {
            key: dict(value) if isinstance(value, dict) else value for key, value in (SMALL | kwargs).items()
        }
        return algorithm(policy, env(), **own)

    return make


@pytest.mark.parametrize("name", CASES)
def test_a_default_run_ends_with_the_bits_of_sb3(name: str) -> None:
    assert_same_run(maker(*CASES[name]), DQNExt)


@pytest.mark.parametrize("name", ["train_freq a number", "soft targets", "Dict observations", "VecNormalize", "HER"])
def test_a_run_that_is_saved_loaded_and_continued_ends_with_the_bits_of_sb3(name: str, tmp_path: Path) -> None:
    assert_same_run(maker(*CASES[name]), DQNExt, steps=200, continue_from=tmp_path)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
@pytest.mark.parametrize("extra", [{}, {"n_steps": 3}, {"optimize_memory_usage": True}])
def test_four_environments_at_epsilon_0_or_1_end_with_the_bits_of_sb3(epsilon: float, extra: dict[str, Any]) -> None:
    if extra.get("optimize_memory_usage"):
        extra = extra | {"replay_buffer_kwargs": {"handle_timeout_termination": False}}
    epsilons = {"exploration_initial_eps": epsilon, "exploration_final_eps": epsilon}
    assert_same_run(maker("MlpPolicy", several_cartpoles, epsilons | extra), DQNExt, steps=600)


def test_four_environments_with_a_shared_draw_end_with_the_bits_of_sb3_at_any_epsilon() -> None:
    def make(algorithm: type[DQN]) -> DQN:
        own: dict[str, Any] = {"exploration_kwargs": {"epsilon_draw": "shared"}} if algorithm is DQNExt else {}
        return algorithm("MlpPolicy", several_cartpoles(), **SMALL, **own)

    assert_same_run(make, DQNExt, steps=600)


def test_two_calls_of_learn_end_with_the_bits_of_sb3() -> None:
    models = []
    for algorithm in (DQNExt, DQN):
        model = algorithm("MlpPolicy", short_cartpole(), **SMALL)
        learn(model, 150)
        learn(model, 150)
        learn(model, 150, reset_num_timesteps=False)
        models.append(model)
    assert_same_model(*models)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_zip_saved_by_sb3_is_loaded_and_continued_with_the_same_bits(n_steps: int, tmp_path: Path) -> None:
    stock = DQN("MlpPolicy", short_cartpole(), **(SMALL | {"n_steps": n_steps}))
    learn(stock, 200)
    stock.save(tmp_path / "stock")
    models = []
    for algorithm in (DQNExt, DQN):
        with warnings.catch_warnings():
            # SB3 warns when it loads what it saved with n_steps, because it stored its own buffer class
            warnings.filterwarnings("ignore", message="`n_steps=")
            model = algorithm.load(tmp_path / "stock", env=short_cartpole())
        learn(model, 200, reset_num_timesteps=False)
        models.append(model)
    assert isinstance(models[0], DQNExt)
    assert_same_model(*models)


def test_the_bits_do_not_depend_on_how_the_arguments_are_passed() -> None:
    by_position = DQNExt("MlpPolicy", short_cartpole(), 1e-3, 128, 20, 16, 1.0, 0.99, 4, seed=0)
    learn(by_position, 100)
    by_name = DQN(
        policy="MlpPolicy",
        env=short_cartpole(),
        learning_rate=1e-3,
        buffer_size=128,
        learning_starts=20,
        batch_size=16,
        tau=1.0,
        gamma=0.99,
        train_freq=4,
        seed=0,
    )
    learn(by_name, 100)
    assert_same_model(by_position, by_name)


def test_the_keyword_arguments_are_those_of_sb3_in_name_and_type() -> None:
    theirs = inspect.get_annotations(DQN.__init__)
    for name in ("policy", "env", "return"):
        del theirs[name]
    assert inspect.get_annotations(DQNKwargs) == theirs


def test_the_signature_is_that_of_sb3_followed_by_our_arguments() -> None:
    theirs, ours = list(inspect.signature(DQN).parameters), list(inspect.signature(DQNExt).parameters)
    assert ours[: len(theirs)] == theirs
    assert ours[len(theirs) :] == [
        "target_policy",
        "target_policy_kwargs",
        "exploration",
        "exploration_kwargs",
        "target_network",
        "target_update_unit",
        "n_epochs",
        "minibatch_size",
        "compile",
        "step_while_learning",
        "pretraining_updates",
        "check_finite",
        "actors",
    ]


def test_the_error_for_a_misspelt_argument_suggests_the_right_one() -> None:
    with pytest.raises(ArgumentError, match=r"'learning_rat'.*Did you mean 'learning_rate'"):
        DQNExt("MlpPolicy", "CartPole-v1", learning_rat=1e-3)  # type: ignore[call-arg]


def test_get_parameters_and_set_parameters_work_as_with_sb3(tmp_path: Path) -> None:
    ours, theirs = (algorithm("MlpPolicy", short_cartpole(), **SMALL) for algorithm in (DQNExt, DQN))
    learn(theirs, 100)
    parameters: dict[str, Any] = theirs.get_parameters()
    assert list(ours.get_parameters()) == list(theirs.get_parameters())
    ours.set_parameters(parameters)
    assert_same(ours.get_parameters(), theirs.get_parameters(), "parameters")
    theirs.save(tmp_path / "theirs.zip")
    again = DQNExt("MlpPolicy", short_cartpole(), **SMALL)
    again.set_parameters(str(tmp_path / "theirs.zip"))
    assert_same(again.get_parameters(), theirs.get_parameters(), "parameters")
    with pytest.raises(ValueError, match="do not match"):
        ours.set_parameters({"policy": parameters["policy"]})


def test_a_loaded_model_continues_in_another_environment_as_with_sb3(tmp_path: Path) -> None:
    models = []
    for algorithm in (DQNExt, DQN):
        model = algorithm("MlpPolicy", short_cartpole(), **SMALL)
        learn(model, 100)
        other = DummyVecEnv([lambda: short_cartpole(30)])
        other.seed(1)
        model.set_env(other)
        learn(model, 100, reset_num_timesteps=False)
        models.append(model)
    assert_same_model(*models)


@pytest.mark.parametrize("deterministic", [True, False])
def test_predictions_have_the_shape_type_and_bits_of_sb3(deterministic: bool) -> None:
    models = [algorithm("MlpPolicy", short_cartpole(), **SMALL) for algorithm in (DQNExt, DQN)]
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    answers = []
    for model in models:
        model.exploration_rate = 0.5
        model.set_random_seed(7)
        single = [model.predict(obs, deterministic=deterministic)[0] for obs in observations]
        batched = [model.predict(obs[None], deterministic=deterministic)[0] for obs in observations]
        whole = model.predict(observations, deterministic=True)[0]
        state = (np.zeros(3),)
        assert model.predict(observations[0], state=state, deterministic=deterministic)[1] is state
        answers.append([*single, *batched, whole])
    assert_same(answers[0], answers[1], "actions")


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["train_freq a number", "3-step returns", "Dict observations", "a small CNN"])
def test_a_default_run_on_cuda_ends_with_the_bits_of_sb3(name: str) -> None:
    policy, env, kwargs = CASES[name]
    assert_same_run(maker(policy, env, kwargs | {"device": "cuda"}), DQNExt)
