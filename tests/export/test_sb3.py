"""Export to SB3: its DQN, and sb3-contrib's QRDQN, load the files in a process that cannot import this package."""

import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.utils import LinearSchedule

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.schedules import LinearSchedule as OurSchedule
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.export.predictions import sample_observations
from sb3_dqn_ext.networks.policies import MlpPolicy
from tests.parity import dict_cartpole
from tests.processes import output, python

# loads each model, prints its predictions and the state of its optimizer, and trains it
ELSEWHERE = """
import json, sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "sb3_dqn_ext":
            raise ImportError("sb3_dqn_ext is not installed here")

sys.meta_path.insert(0, Blocked())
import numpy as np
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv

found = {}
for path in sorted(Path().glob("*.zip")):
    model = (QRDQN if "quantile" in path.stem else DQN).load(path, device="cpu")
    given = dict(np.load(path.with_suffix(".npz")))
    actions = model.predict(given.get("only", given), deterministic=True)[0].tolist()
    moments = [float(state["exp_avg"].double().sum()) for state in model.policy.optimizer.state.values()]
    found[path.stem] = [actions, moments, model.num_timesteps, type(model.policy).__module__]
    if path.stem == "vector":
        model.set_env(model._wrap_env(__import__("gymnasium").make("CartPole-v1")))
        model.learn(50, reset_num_timesteps=False)
        found[path.stem].append(model.num_timesteps)
assert not [name for name in sys.modules if name.startswith("sb3_dqn_ext")]
print(json.dumps(found))
"""
SMALL: dict[str, Any] = {"learning_starts": 10, "batch_size": 8, "buffer_size": 100, "seed": 3, "device": "cpu"}
QUANTILES = {"returns": "quantile", "returns_kwargs": {"n_quantiles": 5}}


def image_env() -> gym.Env[Any, Any]:
    return FakeImageEnv(screen_height=40, screen_width=40, n_channels=2, discrete=True)


def trained(policy: str, env: Any, **kwargs: Any) -> DQNExt:
    return DQNExt(policy, env, **{**SMALL, **kwargs}).learn(30)


def test_other_libraries_load_the_files_and_choose_the_same_actions(tmp_path: Path) -> None:
    models = {
        "vector": trained(
            "MlpPolicy", "CartPole-v1", learning_rate=LinearSchedule(1e-3, 0, 1), policy_kwargs={"net_arch": [16]}
        ),
        "vector_quantile": trained("MlpPolicy", "CartPole-v1", policy_kwargs={"activation_fn": "tanh", **QUANTILES}),
        "image": trained("CnnPolicy", image_env()),
        "image_quantile": trained("CnnPolicy", image_env(), policy_kwargs={"encoder": "nature", **QUANTILES}),
        "dict": trained("MultiInputPolicy", dict_cartpole(), optimize_memory_usage=False),
    }
    for name, model in models.items():
        model.export(tmp_path / f"{name}.zip")
        observations: Any = sample_observations(model.observation_space, 6)
        np.savez(tmp_path / f"{name}.npz", **(observations if isinstance(observations, dict) else {"only": observations}))
    found = json.loads(output(python("-W", "error", "-c", ELSEWHERE, cwd=tmp_path)))
    assert found.keys() == models.keys()
    for name, (actions, moments, steps, module, *_) in found.items():
        model = models[name]
        assert actions == model.predict(sample_observations(model.observation_space, 6), deterministic=True)[0].tolist(), name
        expected = [float(state["exp_avg"].double().sum()) for state in model.policy.optimizer.state.values()]
        assert moments == pytest.approx(expected, abs=0, rel=1e-12)
        assert any(moments)
        assert (steps, module.split(".")[0]) == (
            model.num_timesteps,
            "sb3_contrib" if "quantile" in name else "stable_baselines3",
        )
    assert found["vector"][-1] >= models["vector"].num_timesteps + 50


def test_sb3_continues_a_training_as_from_its_own_file(tmp_path: Path) -> None:
    trained("MlpPolicy", "CartPole-v1").export(tmp_path / "ours.zip")
    DQN("MlpPolicy", "CartPole-v1", **SMALL).learn(30).save(tmp_path / "theirs.zip")
    ours, theirs = (
        DQN.load(tmp_path / name, env=gym.make("CartPole-v1"), device="cpu") for name in ("ours.zip", "theirs.zip")
    )
    assert vars(ours).keys() == vars(theirs).keys()
    for model in (ours, theirs):
        model.set_random_seed(5)
        model.learn(60, reset_num_timesteps=False)
    for one, other in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert th.equal(one, other)


@pytest.mark.parametrize(
    ("policy", "kwargs", "reasons"),
    [
        ("MlpPolicy", {"head": "dueling", "head_arch": [8], "norm": "layer"}, ["head='dueling'", "norm='layer'"]),
        ("MultiHeadPolicy", {}, ["head='multi_head'"]),
        ("MlpPolicy", {"returns": "implicit_quantile"}, ["returns='implicit_quantile'"]),
        ("MlpPolicy", {"noisy": True, "dtype": "float64"}, ["noisy=True", "dtype='float64'"]),
        ("MlpPolicy", {"batch_norm": True}, ["batch_norm=True"]),
        ("CnnPolicy", {"encoder": "small"}, ["encoder='small'"]),
    ],
)
def test_a_network_that_sb3_does_not_have_is_refused_with_all_reasons(
    policy: str, kwargs: dict[str, Any], reasons: list[str], tmp_path: Path
) -> None:
    env = image_env() if policy == "CnnPolicy" else "CartPole-v1"
    model = DQNExt(policy, env, **SMALL, policy_kwargs=kwargs)
    with pytest.raises(UnsupportedError, match=f"^{re.escape(', '.join(reasons))}: neither SB3's DQN"):
        model.export(tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


class Own(MlpPolicy):
    """A policy that only this process has."""


def test_a_policy_of_the_user_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="policy=Own is no policy of SB3's DQN"):
        DQNExt(Own, "CartPole-v1", **SMALL).export(tmp_path / "model.zip")


def test_an_object_of_this_package_is_refused_by_its_name(tmp_path: Path) -> None:
    model = DQNExt("MlpPolicy", "CartPole-v1", **SMALL)
    model.learning_rate = lambda progress: OurSchedule(1e-3, 0.0).value(0, 1)
    with pytest.raises(
        ArgumentError, match=r"^learning_rate and lr_schedule of the model cannot be loaded without sb3_dqn_ext"
    ):
        model.export(tmp_path / "model.zip")


def test_choices_that_only_training_depends_on_are_named(tmp_path: Path) -> None:
    model = DQNExt(
        "MlpPolicy",
        "CartPole-v1",
        **SMALL,
        target_policy="double",
        replay_buffer_kwargs={"sampler": "prioritized", "handle_timeout_termination": False},
        policy_kwargs={"loss": "mse"},
    )
    named = "loss='mse', sampler='prioritized', target_policy='double'"
    with pytest.warns(UserWarning, match=f"^DQN would continue a training without {named}.$"):
        model.export(tmp_path / "model.zip")
    assert DQN.load(tmp_path / "model.zip", buffer_size=1).replay_buffer_kwargs == {"handle_timeout_termination": False}


def test_the_device_of_frames_is_left_out(tmp_path: Path) -> None:
    model = DQNExt("CnnPolicy", FakeImageEnv(), replay_buffer_kwargs={"storage": "frames", "device": "cpu"}, **SMALL)
    with pytest.warns(UserWarning, match=r"without device='cpu', storage='frames'"):
        model.export(tmp_path / "model.zip")
    assert DQN.load(tmp_path / "model.zip").replay_buffer_kwargs == {}


def test_a_model_of_sb3_that_was_loaded_is_exported(tmp_path: Path) -> None:
    dqn = DQN("MlpPolicy", "CartPole-v1", **SMALL)
    dqn.save(tmp_path / "dqn.zip")
    DQNExt.load(tmp_path / "dqn.zip", device="cpu").export(tmp_path / "again.zip")
    again = DQN.load(tmp_path / "again.zip", device="cpu")
    assert type(again.policy) is type(dqn.policy)
    assert isinstance(again.observation_space, spaces.Box)
    for one, other in zip(dqn.policy.parameters(), again.policy.parameters(), strict=True):
        assert th.equal(one, other)
