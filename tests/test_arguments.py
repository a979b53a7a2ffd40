"""Wrong arguments: one error at construction, with the argument, its value and the allowed values."""

import re
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import FakeImageEnv, IdentityEnvBox
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize, VecTransposeImage
from stable_baselines3.dqn import MlpPolicy as SB3MlpPolicy

from sb3_dqn_ext import DQNExt, callbacks
from sb3_dqn_ext._other_names import EQUIVALENT_CODE
from sb3_dqn_ext._validation import equivalent_code, parameters_of
from sb3_dqn_ext.algorithm.exploration import EXPLORATIONS
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.envs import TerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast import compilation
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.samplers import SAMPLERS
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.internals import n_updates_of
from tests.parity import dict_cartpole, several_cartpoles, short_cartpole

SMALL: dict[str, Any] = {"buffer_size": 200, "learning_starts": 5, "batch_size": 8, "seed": 1, "device": "cpu"}


def make(**kwargs: Any) -> DQNExt:
    policy, env = kwargs.pop("policy", "MlpPolicy"), kwargs.pop("env", None) or short_cartpole()
    return DQNExt(policy, env, **(SMALL | kwargs))


class TupleObservations(gym.Env[Any, Any]):
    """An environment with observations that no policy of SB3 supports."""

    observation_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])
    action_space = spaces.Discrete(2)


class Observed(gym.Env[Any, Any]):
    """An environment with a given observation space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: Any) -> None:
        self.observation_space = space


def no_number(progress_remaining: float) -> Any:
    return "x"


VECTOR = spaces.Box(-1, 1, (2,))
IMAGE = spaces.Box(0, 255, (20, 20, 3), np.uint8)
A_LIST_OF_ENVIRONMENTS: Any = [short_cartpole()]
CASES: list[tuple[dict[str, Any], str]] = [
    # names of other libraries, and arguments of DQNExt at another level
    (
        {"prioritized_replay": True},
        r"no argument 'prioritized_replay'; in DQNExt it is written replay_buffer_kwargs=\{'sampler': 'prioritized'\}",
    ),
    ({"lr": 1e-3}, r"no argument 'lr'; in DQNExt it is written learning_rate="),
    ({"use_double": True}, r"in DQNExt it is written target_policy='double'"),
    ({"sampler": "prioritized"}, r"in DQNExt it is written replay_buffer_kwargs=\{'sampler'"),
    ({"policy_kwargs": {"dueling": True}}, r"policy_kwargs of MlpPolicy has no argument 'dueling'.*=\{'head': 'dueling'"),
    ({"policy_kwargs": {"n_quantiles": 25}}, r"in DQNExt it is written .*'returns': 'quantile'"),
    ({"policy_kwargs": {"target_policy": "double"}}, r"in DQNExt it is written target_policy='double'"),
    ({"exploration_kwargs": {"exploration_fraction": 0.5}}, r"in DQNExt it is written exploration_initial_eps="),
    ({"total_timesteps": 100}, r"in DQNExt it is written model.learn\(total_timesteps=100_000\)"),
    # numbers that YAML reads as strings
    ({"learning_rate": "1e-3"}, r"learning_rate='1e-3' must be a finite number.* It is a string; write 0.001"),
    ({"buffer_size": "1e5"}, r"It is a string; write 100000\."),
    ({"buffer_size": 1e5}, r"It is a float; write 100000\."),
    ({"exploration_kwargs": {"schedule": "1e-2"}}, r"It is a string; write 0.01\."),
    # values that SB3 refuses later, or never
    (
        {"learning_rate": lambda step, total: 1e-3},
        r"learning_rate=.* must be a number, or a function of the remaining progress",
    ),
    ({"learning_rate": no_number}, r"no network with its optimizer can be built .*could not convert string to float: 'x'"),
    ({"max_grad_norm": None}, r"max_grad_norm=None must be a number above 0; for no clipping write float\('inf'\)"),
    ({"max_grad_norm": -1}, r"max_grad_norm=-1 must be a number above 0"),
    ({"seed": -1}, r"seed=-1 must be a whole number in \[0, 4294967295\]"),
    ({"device": "gpu"}, r"device='gpu' must be .* Did you mean 'cuda'\?"),
    ({"replay_buffer_class": "HerReplayBuffer"}, r"replay_buffer_class='HerReplayBuffer' must be None or a class"),
    ({"policy_kwargs": {"optimizer_kwargs": {"amsgrad": "no"}}}, r"optimizer_kwargs\['amsgrad'\]='no' must be True or False"),
    ({"exploration_kwargs": {"schedule": "lin"}}, r"schedule='lin' must be a schedule, a number, or a mapping"),
    # policies and environments
    ({"policy": 5}, r"policy=5 must be a class of policies, or one of: CnnPolicy, MlpPolicy"),
    ({"policy": ActorCriticPolicy}, r"policy=ActorCriticPolicy has no q_net.* MlpPolicy"),
    ({"policy": "CartPole-v1", "env": "MlpPolicy"}, r"are in the wrong order: DQNExt\(policy, env\)"),
    ({"policy": short_cartpole(), "env": "MlpPolicy"}, r"are in the wrong order"),
    ({"env": short_cartpole}, r"env=.* is not an environment.* for functions that make environments write DummyVecEnv"),
    ({"env": Observed}, r"this is a class: write Observed\(\)"),
    ({"env": A_LIST_OF_ENVIRONMENTS}, r"env=\[.*is not an environment"),
    ({"env": gym.make_vec("CartPole-v1", 2)}, r"is not an environment.*\.make_fast_vec_env\(id, n_envs\)"),
    ({"env": dict_cartpole()}, r"You must use `MultiInputPolicy`"),
    ({"policy": "MultiInputPolicy"}, r"policy='MultiInputPolicy' reads Dict observations, not Box"),
    ({"target_policy": "ddqn"}, r"target_policy='ddqn' is not known.*double, greedy.*'double'"),
    ({"target_policy_kwargs": {"alpha": 1}}, r"target_policy_kwargs has no argument 'alpha'.* target_policy='munchausen', "),
    (
        {"target_policy": "munchausen", "target_policy_kwargs": {"tau": 0.1}},
        r"target_policy_kwargs has no argument 'tau'.*temperature",
    ),
    ({"exploration": "eps_greedy"}, r"exploration='eps_greedy'.*'epsilon_greedy'"),
    ({"exploration_kwargs": {"coin": "shared"}}, r"exploration_kwargs has no argument 'coin'; .*'epsilon_draw': 'shared'"),
    ({"exploration_kwargs": {"epsilon_draw": "per-env"}}, r"epsilon_draw='per-env'.*'per_env'"),
    ({"exploration_kwargs": {"schedule": {"name": "exponental"}}}, r"'exponental'.*'exponential'"),
    (
        {"exploration_kwargs": {"schedule": 0.1}, "exploration_fraction": 0.5},
        r"exploration_fraction has no effect beside exploration_kwargs\['schedule'\]",
    ),
    ({"target_update_unit": "gradient_step"}, r"target_update_unit='gradient_step'.*'gradient_steps'"),
    ({"tau": 1.5}, r"tau=1.5 must be a finite number in \[0, 1\]"),
    ({"gamma": -0.1}, r"gamma=-0.1 must be a finite number in \[0, 1\]"),
    ({"replay_buffer_kwargs": {"terminal_copy": 2}}, r"'terminal_copy'.*'terminal_copies'"),
    (
        {"replay_buffer_kwargs": {"n_steps": 3}},
        r"replay_buffer_kwargs has no argument 'n_steps'; in DQNExt it is written n_steps=3",
    ),
    (
        {"replay_buffer_class": ReplayBuffer, "replay_buffer_kwargs": {"terminal_copies": 2}},
        r"terminal_copies.*=2 is an argument of DQNReplayBuffer and has no effect on replay_buffer_class=ReplayBuffer",
    ),
    ({"policy_kwargs": {"head": "multihead"}}, r"head='multihead'.*'multi_head'"),
    ({"policy_kwargs": {"head": "multi_head"}}, r"head_arch, for example \[64\]"),
    ({"policy_kwargs": {"head_arch": [8]}}, r"head_arch=\[8\] has no effect with head='shared'"),
    ({"policy_kwargs": {"loss": "hubert"}}, r"loss='hubert'.*'huber'"),
    ({"policy_kwargs": {"returns": "expectd"}}, r"returns='expectd'.*'expected'"),
    ({"policy_kwargs": {"returns": "C51"}}, r"returns='C51' is not known.*'categorical'"),
    ({"policy_kwargs": {"returns": "distributional"}}, r"'categorical'\?"),
    ({"policy_kwargs": {"returns": "qrdqn"}}, r"Did you mean 'quantile'"),
    ({"policy_kwargs": {"returns": "iqn"}}, r"'implicit_quantile'\?"),
    ({"policy_kwargs": {"head": "d3qn"}}, r"head='d3qn' is not known.*'dueling'\?"),
    ({"policy_kwargs": {"head": "action_input"}}, r"head='action_input' needs .* head_arch, for example \[64\]"),
    ({"policy_kwargs": {"returns": "quantile", "head_arch": [8]}}, r"head_arch=\[8\] has no effect with head='shared'"),
    ({"policy_kwargs": {"returns": "categorical"}}, r"returns='categorical' needs .*v_min and v_max"),
    (
        {"policy_kwargs": {"returns": "categorical", "returns_kwargs": {"v_min": 1, "v_max": 1}}},
        r"v_min=1 must be below v_max=1",
    ),
    (
        {"policy_kwargs": {"returns": "categorical", "returns_kwargs": {"v_min": 0, "v_max": 1, "n_atoms": 1}}},
        r"n_atoms=1 must be a whole number in \[2, inf\]",
    ),
    ({"policy_kwargs": {"returns": "quantile", "returns_kwargs": {"n_quantiles": 0}}}, r"n_quantiles=0 must be a whole"),
    ({"policy_kwargs": {"returns": "quantile", "returns_kwargs": {"kappa": -1}}}, r"kappa=-1 must be a finite number"),
    (
        {"policy_kwargs": {"returns": "implicit_quantile", "returns_kwargs": {"n_policy_quantiles": 1.5}}},
        r"n_policy_quantiles=1.5 must be a whole number",
    ),
    (
        {"policy_kwargs": {"returns": "implicit_quantile", "returns_kwargs": {"embeding_dim": 8}}},
        r"returns_kwargs has no argument 'embeding_dim'.*'embedding_dim'",
    ),
    (
        {"policy_kwargs": {"returns": "quantile", "loss": "mse"}},
        r"loss='mse' has no effect with returns='quantile', which has its own loss",
    ),
    (
        {"policy_kwargs": {"returns": "quantile", "fitted_actions": "all"}},
        r"fitted_actions='all' needs returns='expected', not 'quantile'",
    ),
    ({"policy_kwargs": {"fitted_actions": "every"}}, r"fitted_actions='every' is not known; it can be one of: all, taken"),
    ({"policy_kwargs": {"noisy": "yes"}}, r"noisy='yes' must be True or False"),
    ({"policy_kwargs": {"noisy_kwargs": {"sigma0": 0.1}}}, r"noisy_kwargs=.* has no effect beside noisy=False"),
    ({"policy_kwargs": {"noisy": True, "noisy_kwargs": {"sigma": 1}}}, r"noisy_kwargs has no argument 'sigma'.*'sigma0'"),
    ({"policy_kwargs": {"noisy": True, "noisy_kwargs": {"sigma0": -1}}}, r"sigma0=-1 must be a finite number"),
    ({"policy_kwargs": {"noisy_kwargs": 0.5}}, r"noisy_kwargs=0.5 must be a mapping of arguments"),
    ({"policy_kwargs": {"dtype": "double"}}, r"dtype='double' is not known.*'float64'\?"),
    ({"policy_kwargs": {"init": "glorot"}}, r"init='glorot' is not known.*'keras'\?"),
    ({"policy_kwargs": {"batch_norm": 1}}, r"batch_norm=1 must be True or False"),
    ({"policy_kwargs": {"batch_norm": True, "net_arch": []}}, r"batch_norm=True has no effect on a trunk without layers"),
    ({"policy_kwargs": {"batch_norm": True}, "batch_size": 1}, r"batch_size=1 is too small for batch normalisation"),
    ({"policy_kwargs": {"activation_fn": "rellu"}}, r"activation_fn='rellu'.*'relu'"),
    (
        {"policy_kwargs": {"optimizer_class": "torch.optim.Adamm"}},
        r"optimizer_class='torch.optim.Adamm' cannot be imported",
    ),
    ({"policy_kwargs": {"optimizer_class": "torch.optim.lr_scheduler"}}, r"is not a class"),
    # names
    ({"policy": "MultiHead"}, r"policy='MultiHead' is not known.*'MultiHeadPolicy'"),
    ({"learning_rat": 1e-3}, r"DQNExt\(\) has no argument 'learning_rat'.*'learning_rate'"),
    ({"policy_kwargs": {"net_archs": [8]}}, r"policy_kwargs of MlpPolicy has no argument 'net_archs'.*'net_arch'"),
    ({"policy": SB3MlpPolicy, "policy_kwargs": {"head": "multi_head"}}, r"policy_kwargs of DQNPolicy has no argument 'head'"),
    ({"policy_kwargs": {"returns_kwargs": {"n_atoms": 51}}}, r"returns_kwargs has no argument 'n_atoms'.*'categorical'"),
    ({"policy_kwargs": {"optimizer_kwargs": {"epsilon": 1e-7}}}, r"optimizer_kwargs has no argument 'epsilon'.*'eps'"),
    (
        {"policy_kwargs": {"optimizer_kwargs": {"lr": 1e-3}}},
        r"optimizer_kwargs has no argument 'lr'; in DQNExt it is written learning_rate=0.001",
    ),
    ({"policy_kwargs": {"optimizer_kwargs": {"eps": -1}}}, r"optimizer_kwargs=\{'eps': -1\}.*Invalid epsilon value: -1"),
    (
        {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}}},
        r"features_extractor_kwargs has no argument 'features_dim'",
    ),
    ({"exploration_kwargs": {"schedule": {"name": "linear", "begin": 1}}}, r"schedule linear has no argument 'begin'"),
    ({"exploration_kwargs": {"schedule": {"name": "linear", "start": 1}}}, r"schedule linear misses: end"),
    # numbers
    ({"buffer_size": 1.5}, r"buffer_size=1.5 must be a whole number"),
    ({"buffer_size": 0}, r"buffer_size=0 must be a whole number in \[1, inf\]"),
    ({"batch_size": "32"}, r"batch_size='32' must be a whole number"),
    ({"gradient_steps": -2}, r"gradient_steps=-2 must be a whole number in \[-1, inf\]"),
    ({"n_steps": 0}, r"n_steps=0 must be a whole number"),
    ({"learning_starts": -1}, r"learning_starts=-1 must be a finite number in \[0, inf\]"),
    ({"target_update_interval": 0}, r"target_update_interval=0 must be a finite number in \[1, inf\]"),
    ({"tau": float("nan")}, r"tau=nan must be a finite number in \[0, 1\]"),
    ({"exploration_fraction": 2}, r"exploration_fraction=2 must be a finite number in \[0, 1\]"),
    ({"exploration_final_eps": -0.1}, r"exploration_final_eps=-0.1 must be"),
    ({"replay_buffer_kwargs": {"monte_carlo": -0.5}}, r"monte_carlo=-0.5 must be a finite number in \[0, 1\]"),
    ({"replay_buffer_kwargs": {"terminal_copies": 0}}, r"terminal_copies=0 must be a whole number in \[1, inf\]"),
    ({"replay_buffer_kwargs": {"terminal_copies": 2.0}}, r"terminal_copies=2.0 must be a whole number"),
    ({"policy_kwargs": {"net_arch": [64, 0]}}, r"a layer of net_arch=0 must be a whole number in \[1, inf\]"),
    ({"n_steps": 500}, r"buffer_size=200 leaves 200 rows for each of 1 environments, too few for n_steps=500"),
    ({"batch_size": 300}, r"batch_size=300 must not be greater than buffer_size=200"),
    # types
    ({"target_network": "false"}, r"target_network='false' must be True or False"),
    ({"optimize_memory_usage": 1}, r"optimize_memory_usage=1 must be True or False"),
    ({"exploration_kwargs": "linear"}, r"exploration_kwargs='linear' must be a mapping of arguments"),
    ({"replay_buffer_kwargs": [1]}, r"replay_buffer_kwargs=\[1\] must be a mapping of arguments"),
    ({"replay_buffer_kwargs": {"sampler": "per"}}, r"sampler='per' is not known.*'prioritized'"),
    (
        {"replay_buffer_kwargs": {"sampler": "prioritized", "sampler_kwargs": {"alfa": 0.6}}},
        r"sampler_kwargs has no argument 'alfa'.*'alpha'",
    ),
    ({"replay_buffer_kwargs": {"sampler_kwargs": 3}}, r"sampler_kwargs=3 must be a mapping of arguments"),
    ({"policy_kwargs": {"net_arch": 64}}, r"net_arch=64 must be a list of layer sizes, for example \[64, 64\]"),
    ({"policy_kwargs": {"normalize_images": "yes"}}, r"normalize_images='yes' must be True or False"),
    (
        {"exploration_kwargs": {"schedule": "linear"}},
        r"schedule='linear' must be a schedule, a number, or a mapping.* Did you mean \{'name': 'linear', 'start': 1.0, ",
    ),
    # spaces
    ({"env": IdentityEnvBox()}, r"The algorithm only supports .*Discrete.* as action spaces but Box"),
    ({"env": "Pendulum-v1"}, r"The algorithm only supports .*Discrete.* as action spaces but Box"),
    ({"policy": "CnnPolicy"}, r"You should use NatureCNN only with images"),
    ({"policy": "MultiHeadPolicy", "env": dict_cartpole()}, r"for Dict observations use policy='MultiInputPolicy'"),
    # arguments without effect
    (
        {"exploration": "none", "exploration_kwargs": {"schedule": 0.1}},
        r"\['schedule'\] has no effect beside exploration='none'",
    ),
]


def identifier(case: Any) -> str | None:
    if not isinstance(case, dict):
        return ""
    return ", ".join(f"{key}={value!r}" if isinstance(value, str | int | float | dict) else key for key, value in case.items())


@pytest.mark.parametrize(("kwargs", "message"), CASES, ids=identifier)
def test_a_wrong_argument_is_named_with_what_is_allowed(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"exploration": "none", "exploration_final_eps": 0.1},
            r"exploration_final_eps has no effect beside exploration='none'",
        ),
        ({"target_network": False, "tau": 0.1}, r"tau has no effect beside target_network=False"),
        (
            {"target_network": False, "target_update_unit": "gradient_steps"},
            r"target_update_unit has no effect beside target_network=False",
        ),
        ({"replay_buffer_kwargs": {"monte_carlo": 1}, "n_steps": 3}, r"n_steps=3 has no effect beside monte_carlo=1"),
        ({"replay_buffer_kwargs": {"terminal_on": "done"}}, r"terminal_on'\] has no effect beside terminal_copies=1"),
        ({"replay_buffer_class": ReplayBuffer, "n_steps": 2}, r"`n_steps=2` is ignored"),
    ],
    ids=identifier,
)
def test_an_argument_without_effect_is_answered_with_a_warning(kwargs: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        make(**kwargs)


# SB3's own tests, and projects, catch these
@pytest.mark.parametrize(
    ("n_envs", "kwargs", "message"),
    [
        (1, {"train_freq": 100}, None),
        (
            1,
            {"train_freq": 101},
            "gradient_steps=1 for 101 transitions (train_freq=101, n_envs=1) is fewer than one gradient step per 100",
        ),
        (2, {"train_freq": 50}, None),
        (2, {"train_freq": 51}, "gradient_steps=1 for 102 transitions (train_freq=51, n_envs=2) is fewer than"),
        (1, {"train_freq": 250, "gradient_steps": 3}, None),
        (1, {"train_freq": 250, "gradient_steps": 2}, "fewer than one gradient step per 100 transitions"),
        (1, {"train_freq": 800, "batch_size": 32, "minibatch_size": 4}, None),
        (1, {"train_freq": 801, "batch_size": 32, "minibatch_size": 4}, "fewer than one gradient step per 100 transitions"),
        (1, {"train_freq": 1, "batch_size": 32, "minibatch_size": 1}, None),
        (1, {"train_freq": 1, "gradient_steps": 0}, "gradient_steps=0 for 1 transitions"),
        (1, {"train_freq": 1, "gradient_steps": 10}, None),
        (
            1,
            {"train_freq": 1, "gradient_steps": 11},
            "gradient_steps=11 for 1 transitions (train_freq=1, n_envs=1) is more than 10 gradient steps",
        ),
        (2, {"train_freq": 2, "gradient_steps": 40}, None),
        (
            2,
            {"train_freq": 2, "gradient_steps": 41},
            "gradient_steps=41 for 4 transitions (train_freq=2, n_envs=2) is more than",
        ),
        # as many gradient steps as transitions
        (2, {"train_freq": 1_000, "gradient_steps": -1}, None),
        # the number of transitions, or of gradient steps, is not known
        (1, {"train_freq": (1_000, "episode")}, None),
        (1, {"train_freq": (1, "episode"), "gradient_steps": 1_000}, None),
        (1, {"train_freq": 1_000, "n_epochs": 1}, None),
    ],
)
def test_an_unusual_ratio_of_gradient_steps_to_transitions_gives_a_warning(
    n_envs: int, kwargs: dict[str, Any], message: str | None
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(env=several_cartpoles(n_envs), **kwargs)
    assert len(caught) == (message is not None)
    assert all(str(message) in str(warning.message) and warning.filename == __file__ for warning in caught)


def test_a_loaded_model_gives_no_warning_of_its_ratio(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="fewer than one gradient step"):
        make(train_freq=500).save(tmp_path / "model")
    DQNExt.load(tmp_path / "model")
    DQNExt.load(tmp_path / "model", env=short_cartpole())


@pytest.mark.parametrize(
    ("policy", "env", "message"),
    [
        ("MlpPolicy", TupleObservations(), r"Tuple"),
        ("MlpPolicy", Observed(spaces.Text(5)), r"Text.* observation space is not supported"),
        ("MlpPolicy", Observed(spaces.Box(-1, 1, ())), r"of shape \(\) are not supported"),
        ("MultiInputPolicy", Observed(spaces.Dict({"a": spaces.Dict({"b": VECTOR})})), r"Nested observation spaces"),
        ("MultiInputPolicy", Observed(spaces.Dict({"a.b": VECTOR})), r"key 'a\.b' .* cannot name a layer"),
        ("MultiInputPolicy", Observed(spaces.Dict({"keys": VECTOR})), r"key 'keys' .* cannot name a layer"),
        ("CnnPolicy", Observed(IMAGE), r"\(3, 20, 20\) are too small for NatureCNN, which needs 36 x 36 pixels"),
        ("MultiInputPolicy", Observed(spaces.Dict({"a": IMAGE})), r"too small for NatureCNN"),
        ("CnnPolicy", Observed(VECTOR), r"NatureCNN only with images"),
        ("MlpPolicy", IdentityEnvBox(), r"only supports .*Discrete.* as action spaces but Box"),
        (
            "MlpPolicy",
            gym.wrappers.TransformAction(short_cartpole(), lambda action: action - 5, spaces.Discrete(2, start=5)),
            r"Discrete\(2, start=5\) must begin at 0.*TransformAction, which adds 5",
        ),
    ],
    ids=lambda value: str(getattr(value, "observation_space", ""))[:40],
)
def test_spaces_and_images_that_cannot_be_used_are_refused_by_an_assertion_too(policy: str, env: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        make(policy=policy, env=env)
    assert isinstance(caught.value, ArgumentError)
    assert isinstance(caught.value, NotImplementedError)


WRONG: list[Any] = [None, "x", -1, float("nan"), float("inf"), 1.5, [], {}, True]


def nested(path: str, name: str, value: Any) -> dict[str, Any]:
    """``nested("policy_kwargs noisy_kwargs", "sigma0", 1)`` is ``{"policy_kwargs": {"noisy_kwargs": {"sigma0": 1}}}``."""
    found: Any = {name: value}
    for level in reversed(path.split()):
        found = {level: found}
    return dict(found)


# path of the arguments, their function, and arguments of the function that DQNExt gives itself
GIVEN = {"observation_space", "action_space", "lr_schedule", "device", "n_envs", "optimize_memory_usage", "gamma"}
LEVELS: dict[str, tuple[Iterable[Any], set[str]]] = {
    "": ([DQNExt], set()),
    "policy_kwargs": ([MlpPolicy], GIVEN),
    "replay_buffer_kwargs": ([DQNReplayBuffer], {*GIVEN, "n_steps", "buffer_size"}),
    "exploration_kwargs": (EXPLORATIONS.values(), set()),
}
NESTED: dict[str, tuple[Iterable[Any], set[str]]] = {
    "policy_kwargs returns_kwargs": (RETURN_MODELS.values(), {"loss"}),
    "replay_buffer_kwargs sampler_kwargs": (SAMPLERS.values(), {"n_rows", "n_envs", "terminal_copies", "only_added"}),
    "target_policy_kwargs": (TARGET_POLICIES.values(), set()),
}


def arguments_of(path: str) -> list[str]:
    kinds, given = (LEVELS | NESTED)[path]
    return [name for name in dict.fromkeys(name for kind in kinds for name in parameters_of(kind)) if name not in given]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("path", "name"), [(path, name) for path in LEVELS for name in arguments_of(path)])
def test_a_wrong_value_of_any_argument_is_refused_at_construction_or_trains(
    path: str, name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # "x" is a folder of logs
    for value in WRONG:
        if name == "compile" and value in (True, {}):
            continue  # allowed, but slow
        arguments = {"policy": "MlpPolicy", "env": short_cartpole(), **SMALL, **nested(path, name, value)}
        try:
            model = DQNExt(**arguments)
        except (ArgumentError, gym.error.NameNotFound):
            continue
        model.learn(10)
        only_ours = name == "optimize_memory_usage" or (name == "features_extractor_class" and value is None)
        assert only_ours or is_taken_by_dqn(arguments), value


def is_taken_by_dqn(arguments: dict[str, Any]) -> bool:
    """Return whether SB3's DQN accepts those of the arguments that it has."""
    known = {name: value for name, value in arguments.items() if name in parameters_of(DQN)}
    for name, kind in {"policy_kwargs": SB3MlpPolicy, "replay_buffer_kwargs": ReplayBuffer}.items():
        mapping = known.get(name)
        if isinstance(mapping, dict):
            known[name] = {key: value for key, value in mapping.items() if key in parameters_of(kind)}
    DQN(**known)
    return True


def test_numbers_of_numpy_are_numbers() -> None:
    numbers = {
        "learning_rate": np.float32(1e-3),
        "buffer_size": np.int64(100),
        "max_grad_norm": np.float32(5),
        "stats_window_size": np.int32(7),
        "verbose": np.int8(0),
        "seed": np.int64(3),
        "train_freq": np.int64(4),
        "optimize_memory_usage": np.bool_(False),
        "exploration_kwargs": {"schedule": np.float32(0.5)},
        "policy_kwargs": {"net_arch": [np.int64(8)], "noisy": np.bool_(False)},
    }
    assert make(**numbers).learn(12)._n_updates > 0


def test_a_policy_may_be_bound_to_arguments() -> None:
    with pytest.warns(UserWarning, match="Not all of the model can be stored"):
        assert make(policy=partial(SB3MlpPolicy, net_arch=[8])).q_net.net_arch == [8]


NEEDS_MORE = (
    *(
        "model.",
        "DQNExt(",
        "HerReplayBuffer",
        "nature_cnn",
        "encoder",
        "frames",
        "device",
        "tensorboard_log",
        "compile",
        "masks",
        "demonstrations",
        "large_margin",
        "pretraining",
    ),
)
"""parts of code that needs goals, images, a GPU ..."""


@pytest.mark.filterwarnings("error")
def test_what_an_error_says_to_write_builds_a_model() -> None:
    for code, _ in EQUIVALENT_CODE:
        if not any(word in code for word in NEEDS_MORE):
            make(**({"buffer_size": 2000} | eval(f"dict({code})")))


@pytest.mark.parametrize("path", [*LEVELS, *NESTED])
def test_an_argument_at_another_level_is_answered_with_its_own(path: str) -> None:
    for name in arguments_of(path):
        if name not in ("policy", "env", "_init_setup_model", "eps"):  # eps is epsilon elsewhere
            assert re.search(rf"\b{name}\b", str(equivalent_code("elsewhere", name, []))), name


WRAPPED: dict[str, tuple[str, Callable[[], VecEnv], Callable[[], VecEnv]]] = {
    "VecFrameStack": (
        "MlpPolicy",
        lambda: VecFrameStack(VecNormalize(DummyVecEnv([short_cartpole])), 2),
        lambda: VecNormalize(VecFrameStack(DummyVecEnv([short_cartpole]), 2)),
    ),
    "VecTransposeImage": (  # SB3 adds it
        "CnnPolicy",
        lambda: VecNormalize(DummyVecEnv([FakeImageEnv]), norm_obs=False),
        lambda: VecNormalize(VecTransposeImage(DummyVecEnv([FakeImageEnv])), norm_obs=False),
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_around_vec_normalize_that_changes_observations_is_refused(name: str) -> None:
    """SB3's DQN would store the observations before both wrappers, of another shape."""
    policy, outside, inside = WRAPPED[name]
    with pytest.raises(ArgumentError, match=rf"{name} around VecNormalize .* VecNormalize\({name}\(\.\.\.\)\)"):
        DQNExt(policy, outside())
    DQNExt(policy, inside(), buffer_size=100, learning_starts=10, device="cpu").learn(20)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), "-50", None])
def test_a_reward_that_is_no_finite_number_is_refused(reward: Any) -> None:
    with pytest.raises(ArgumentError, match=r"reward=.* must be a finite number"):
        TerminalPenalty(short_cartpole(), reward=reward)


def test_a_wrong_argument_at_load_is_refused_just_so(tmp_path: Any) -> None:
    make().save(tmp_path / "model")
    for kwargs, message in (
        ({"target_policy": "doubel"}, "'double'"),
        ({"tau": 3}, "tau=3"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            DQNExt.load(tmp_path / "model", env=short_cartpole(), **kwargs)
    # a replay buffer for one transition is enough to predict
    small = DQNExt.load(tmp_path / "model", env=short_cartpole(), buffer_size=1)
    small.predict(np.zeros(4, dtype=np.float32))
    with pytest.raises(ArgumentError, match="batch_size=8 must not be greater than"):
        small.learn(10)


OTHER_ALGORITHMS = {
    "PPO": ("CartPole-v1", {"n_steps": 8, "batch_size": 8}),
    "A2C": ("CartPole-v1", {}),
    "SAC": ("Pendulum-v1", {"buffer_size": 10}),
    "QRDQN": ("CartPole-v1", {"buffer_size": 10}),
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", OTHER_ALGORITHMS)
def test_a_model_of_another_algorithm_is_called_one(name: str, trust: bool, tmp_path: Any) -> None:
    env, arguments = OTHER_ALGORITHMS[name]
    algorithm: Any = getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)
    algorithm("MlpPolicy", env, device="cpu", **arguments).save(tmp_path / "model")
    with pytest.raises(
        ValueError, match=rf"model cannot be loaded: it contains a model of {name} .*DQNExt loads models of DQN"
    ):
        DQNExt.load(tmp_path / "model", trust=trust)


def test_the_error_of_sb3_at_our_models_names_this_library(tmp_path: Any) -> None:
    model = make()
    model.save(tmp_path / "model")
    for algorithm in (DQN, stable_baselines3.PPO):
        with pytest.raises(ValueError, match=r"load it with sb3_dqn_ext\.DQNExt\.load\(path\)"):
            algorithm.load(tmp_path / "model")
    stock = DQN("MlpPolicy", short_cartpole(), device="cpu")
    stock.set_parameters(tmp_path / "model")  # the parameters stay readable
    observation = np.full(4, 0.1, np.float32)
    assert stock.predict(observation, deterministic=True)[0] == model.predict(observation, deterministic=True)[0]


@pytest.mark.parametrize("deterministic", [False, True])
def test_predict_explains_what_reset_returns_and_takes_a_list(deterministic: bool) -> None:
    model = make()
    with pytest.raises(ValueError, match="You have passed a tuple to the predict"):
        model.predict(short_cartpole().reset(seed=0), deterministic=deterministic)  # type: ignore[arg-type]
    model.exploration_rate = 0.0
    observations = [[0.1, 0.2, 0.3, 0.4], [-0.4, -0.3, -0.2, -0.1]]
    expected = DQN("MlpPolicy", short_cartpole(), **SMALL).predict(np.array(observations), deterministic=True)[0]
    actions: Any = model.predict(observations, deterministic=deterministic)[0]  # type: ignore[arg-type]
    assert actions.tolist() == expected.tolist()
    assert model.predict(observations[0], deterministic=deterministic)[0] == expected[0]  # type: ignore[arg-type]


def test_a_model_without_an_environment_says_so(tmp_path: Any) -> None:
    with pytest.raises(ArgumentError, match=r"env=None is not an environment.*only DQNExt.load\(\) makes a model without one"):
        DQNExt("MlpPolicy", None)  # type: ignore[arg-type]
    make().save(tmp_path / "model")
    model = DQNExt.load(tmp_path / "model")
    with pytest.raises(
        ArgumentError, match=r"env='CartPole-v1' is not an environment.* write gymnasium.make\('CartPole-v1'\)"
    ):
        model.set_env("CartPole-v1")  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=r"set_env\(env\)"):
        model.learn(10)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: callbacks.ExactCheckpointCallback(every=10, path=5), r"path=5 must be a folder"),  # type: ignore[arg-type]
        (lambda: callbacks.EpisodeVideoCallback(folder=5), r"folder=5 must be a folder, or None"),  # type: ignore[arg-type]
        (lambda: callbacks.ValueCalibrationCallback(eval_env="CartPole-v1"), r"write gymnasium.make\('CartPole-v1'\)"),  # type: ignore[arg-type]
        (lambda: callbacks.EpsilonScheduleCallback(-0.5), r"schedule at step 0=-0.5 must be"),
        (lambda: callbacks.SummaryCallback(verbose="yes"), r"verbose='yes' must be a whole number"),  # type: ignore[arg-type]
        (lambda: make_fast_vec_env("CartPole-v1", env_kwargs=0), r"env_kwargs=0 must be a mapping"),  # type: ignore[arg-type]
        (lambda: DQNReplayBuffer(0, VECTOR, spaces.Discrete(2)), r"buffer_size=0 must be a whole number in \[1, inf\]"),
        (lambda: DQNReplayBuffer(9, VECTOR, spaces.Discrete(2), n_envs=0), r"n_envs=0 must be a whole number"),
    ],
)
def test_the_parts_check_their_arguments_too(make_it: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_it()


def test_compiling_is_announced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with compilation.announce_compilation(verbose=1):
        assert "Compiling" in capsys.readouterr().out
    with compilation.announce_compilation(verbose=0):
        assert capsys.readouterr() == ("", "")
    # a long compilation is announced also without verbose
    monkeypatch.setattr(compilation, "SECONDS_BEFORE_MESSAGE", 0.0)
    with compilation.announce_compilation(verbose=0):
        for _ in range(500):
            if "Compiling" in (said := capsys.readouterr().err):
                break
            time.sleep(0.01)
    assert "Compiling" in said


def kwargs_of(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate mappings with some of these keys, some of them misspelt, and some with a value of another type."""
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 3), st.floats(-2, 2), st.text(max_size=3), st.just([]), st.just({})
    )
    right = st.fixed_dictionaries({}, optional=values)
    return st.one_of(
        right,
        right,
        st.fixed_dictionaries({}, optional={key: st.one_of(value, odd) for key, value in values.items()}),
        st.dictionaries(st.sampled_from([*values, *(key[:-1] for key in values), "x"]), odd, max_size=2),
    )


SCHEDULE = st.one_of(
    st.floats(0, 1),
    kwargs_of(
        name=st.sampled_from(["linear", "constant", "exponential", "geometric", "multiplicative", "piecewise", "step"]),
        start=st.floats(0, 1),
        end=st.floats(0, 1),
        end_fraction=st.floats(0, 1),
        rate=st.floats(-1, 1),
        factor=st.floats(0, 1.5),
        steps=st.integers(0, 50),
        val=st.floats(0, 1),
        points=st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), max_size=3),
    ),
)
UNIT = st.sampled_from(["env_steps", "actions"])
ARCH = st.lists(st.integers(1, 8), max_size=2)
QUANTILES = {"n_quantiles": st.integers(1, 5), "kappa": st.floats(0, 2)}
FRACTIONS = {"n_policy_quantiles": st.integers(1, 4), "embedding_dim": st.integers(1, 3)}


def named(choice: str, name: str, kwargs: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate a choice and its arguments."""
    return st.fixed_dictionaries({choice: st.just(name), kwargs: values})


NETWORK_PARTS: list[st.SearchStrategy[dict[str, Any]]] = [
    st.one_of(
        kwargs_of(head=st.sampled_from(["shared", "multi_head", "dueling", "action_input"]), head_arch=ARCH),
        *(named("head", name, "head_arch", ARCH) for name in ("multi_head", "dueling", "action_input")),
    ),
    st.one_of(
        kwargs_of(loss=st.sampled_from(["huber", "mse"]), fitted_actions=st.sampled_from(["taken", "all"])),
        kwargs_of(returns=st.sampled_from(["expected", "categorical", "quantile"]), returns_kwargs=kwargs_of(**QUANTILES)),
        named("returns", "categorical", "returns_kwargs", kwargs_of(n_atoms=st.integers(2, 5), v_min=st.floats(-9, 9))),
        named("returns", "categorical", "returns_kwargs", st.fixed_dictionaries({"v_min": st.just(0), "v_max": st.just(9)})),
        named("returns", "quantile", "returns_kwargs", kwargs_of(**QUANTILES)),
        named("returns", "implicit_quantile", "returns_kwargs", kwargs_of(**QUANTILES, **FRACTIONS)),
    ),
    st.one_of(
        kwargs_of(noisy=st.booleans(), noisy_kwargs=kwargs_of(sigma0=st.floats(0, 1))),
        st.fixed_dictionaries({"noisy": st.just(True)}, optional={"noisy_kwargs": kwargs_of(sigma0=st.floats(0, 1))}),
    ),
    kwargs_of(
        net_arch=ARCH,
        dtype=st.sampled_from(["float32", "float64"]),
        init=st.sampled_from(["torch", "keras"]),
        batch_norm=st.booleans(),
        norm=st.sampled_from(["none", "layer", "sb3_dqn_ext.networks.norms.layer_norm"]),
        activation_fn=st.sampled_from(["relu", "tanh", "torch.nn.ELU", "torch.nn.Nothing"]),
    ),
    kwargs_of(
        optimizer_class=st.sampled_from(["adam", "sgd", "rmsprop"]),
        optimizer_kwargs=kwargs_of(eps=st.floats(1e-8, 1e-3), weight_decay=st.floats(0, 0.1), momentum=st.floats(0, 0.9)),
    ),
]
NETWORK = st.tuples(*NETWORK_PARTS).map(lambda parts: {key: value for part in parts for key, value in part.items()})
MEMORY = kwargs_of(
    sampler=st.sampled_from(["uniform", "prioritized", "vector_steps"]),
    sampler_kwargs=kwargs_of(
        replace=st.booleans(), alpha=st.floats(0, 1), beta=st.floats(0, 1), beta_end=st.floats(0, 1), eps=st.floats(0, 1)
    ),
    terminal_copies=st.integers(0, 5),
    terminal_on=st.sampled_from(["terminated", "truncated", "done"]),
    handle_timeout_termination=st.booleans(),
    monte_carlo=st.floats(0, 1.2),
    keep_episodes=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    policy_kwargs=NETWORK,
    replay_buffer_kwargs=MEMORY,
    exploration=st.sampled_from(["epsilon_greedy", "ez_greedy", "epsilon_ladder", "boltzmann", "none"]),
    exploration_kwargs=st.one_of(
        kwargs_of(epsilon_draw=st.sampled_from(["per_env", "shared"]), schedule=SCHEDULE, unit=UNIT),
        kwargs_of(mu=st.floats(1, 3), max_duration=st.integers(1, 100), schedule=SCHEDULE),
        kwargs_of(alpha=st.floats(0, 9), schedule=SCHEDULE),
        kwargs_of(temperature=SCHEDULE, unit=UNIT),
    ),
    target_policy=st.sampled_from(["greedy", "double", "munchausen"]),
    target_policy_kwargs=kwargs_of(alpha=st.floats(0, 1), temperature=st.floats(1e-6, 2), clip=st.floats(-2, 0)),
)
def test_any_mapping_builds_a_model_that_trains_or_is_answered_with_our_error(**kwargs: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has no effect", category=UserWarning)
        try:
            model = make(train_freq=1, **kwargs)
        except ArgumentError:
            return
        # with monte_carlo, an episode must have ended before there is anything to learn from
        model.learning_starts = 20
        model.learn(40)
    assert n_updates_of(model) > 0


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(policy_kwargs=NETWORK)
def test_any_network_trains_or_is_answered_with_our_error(policy_kwargs: dict[str, Any]) -> None:
    try:
        model = make(train_freq=4, policy_kwargs=policy_kwargs)
    except ArgumentError:
        return
    model.learn(16)
    assert n_updates_of(model) > 0
