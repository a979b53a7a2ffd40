"""
Train in environments of other packages. A test is skipped if its package is not installed.

``make test-ecosystem`` runs these tests in two virtual environments, because pygame and pygame-ce use the same folder.
``make smoke`` runs the tests that need no other package, with any Python.
"""

import importlib
import signal
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3 import DQN

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.errors import ArgumentError
from tests.internals import n_updates_of
from tests.parity import assert_same, assert_same_run
from tests.processes import output, python, write_package

# gymnasium warns that FlappyBird's pipes are outside of its space at first
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*not within the observation space:UserWarning")]

# A user's package: it registers environments that do not register themselves, and contains a network and a callback.
OWN = {
    "__init__": """
from importlib.util import find_spec

import gymnasium as gym

if find_spec("minatar") and "MinAtar/Breakout-v1" not in gym.registry:
    from minatar.gym import register_envs
    register_envs()
""",
    "cnn": """
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


class SmallCNN(BaseFeaturesExtractor):
    def __init__(self, observation_space, features_dim=32):
        super().__init__(observation_space, features_dim)
        self.convolutions = nn.Sequential(nn.Conv2d(observation_space.shape[0], 16, 2), nn.ReLU(), nn.Flatten())
        with th.no_grad():
            width = self.convolutions(th.zeros(1, *observation_space.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(width, features_dim), nn.ReLU())

    def forward(self, observations):
        return self.linear(self.convolutions(observations))
""",
    "killing": """
import os, signal
from stable_baselines3.common.callbacks import BaseCallback


class Kill(BaseCallback):
    def _on_step(self):
        if self.num_timesteps >= int(os.environ.get("KILL_AT", "1000000")):
            os.kill(os.getpid(), signal.SIGKILL)
        return True
""",
    "teams": """
import supersuit
from pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies import parallel_env


def team(n_envs=2):
    env = supersuit.black_death_v3(parallel_env(max_cycles=40))
    env = supersuit.pettingzoo_env_to_vec_env_v1(env)
    return supersuit.concat_vec_envs_v1(env, n_envs, num_cpus=1, base_class="stable_baselines3")
""",
    "prediction": """
import sys

import numpy as np
from sb3_dqn_ext import DQNExt

model = DQNExt.load("model", trust="--trust" in sys.argv)
np.save("actions.npy", model.predict(np.load("observations.npy"), deterministic=True)[0])
""",
}


class World(NamedTuple):
    """
    An environment of another package, and the arguments for training in it.

    :param package: the package
    :param env_id: the id of the environment
    :param wrapper: the dotted name of a wrapper
    :param arguments: the arguments of the algorithm
    """

    package: str
    env_id: str
    wrapper: str | None = None
    arguments: Mapping[str, Any] = MappingProxyType({})

    def config(self) -> dict[str, Any]:
        """Return the block of the environment in a configuration of the zoo."""
        wrapper = {} if self.wrapper is None else {"env_wrapper": self.wrapper}
        return {
            "policy": "MlpPolicy",
            "n_timesteps": STEPS,
            "callback": "mine.killing.Kill",
            **ARGUMENTS,
            **self.arguments,
            **wrapper,
        }


OWN_CNN = {"policy": "CnnPolicy", "policy_kwargs": {"features_extractor_class": "mine.cnn.SmallCNN", "net_arch": [32]}}
WORLDS = {
    "highway": World("highway_env", "highway-fast-v0"),
    "MiniGrid, flat": World("minigrid", "MiniGrid-Empty-5x5-v0", "minigrid.wrappers.FlatObsWrapper"),
    "MiniGrid, a user's network": World("minigrid", "MiniGrid-Empty-5x5-v0", "minigrid.wrappers.ImgObsWrapper", OWN_CNN),
    "MinAtar": World("minatar", "MinAtar/Breakout-v1"),
    "FlappyBird": World("flappy_bird_gymnasium", "FlappyBird-v0"),
    "FrozenLake": World("minigrid", "FrozenLake-v1"),  # gymnasium's own, in one of the virtual environments
    "Taxi": World("minigrid", "Taxi-v4"),
    "CartPole": World("gymnasium", "CartPole-v1"),  # in all, for `make smoke`
}
STEPS = 600
ARGUMENTS: dict[str, Any] = {
    "learning_starts": 50,
    "learning_rate": 1e-3,
    "buffer_size": 500,
    "target_update_interval": 100,
    "exploration_fraction": 0.5,
}


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_package(tmp_path / "mine", **OWN)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)  # a module from the folder of another test
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def world_of(name: str) -> World:
    world = WORLDS[name]
    if find_spec(world.package) is None:
        pytest.skip(f"{world.package} is not installed; make test-ecosystem installs it")
    return world


def made(world: World) -> gym.Env[Any, Any]:
    importlib.import_module(world.package)
    importlib.import_module("mine")
    env = gym.make(world.env_id)
    return named(world.wrapper)(env) if world.wrapper else env


@pytest.mark.parametrize("name", WORLDS)
def test_it_ends_with_the_bits_of_sb3_and_predicts_the_same_in_another_process(name: str, project: Path) -> None:
    world = world_of(name)
    of_policy = dict(world.arguments.get("policy_kwargs", {}))
    if "features_extractor_class" in of_policy:
        of_policy["features_extractor_class"] = named(of_policy["features_extractor_class"])

    def make(algorithm: type[DQN]) -> DQN:
        arguments = {"policy": "MlpPolicy", **ARGUMENTS, **world.arguments, "policy_kwargs": of_policy}
        return algorithm(env=made(world), seed=0, device="cpu", **arguments)

    ours, _ = assert_same_run(make, DQNExt, STEPS)
    check_another_process(ours, project)


def check_another_process(model: DQN, project: Path) -> None:
    """
    Check that a model makes the same predictions after it is loaded in another process.

    :param model: a trained model
    :param project: the folder in which it is saved
    """
    model.save("model")
    observations = np.stack([model.observation_space.sample() for _ in range(50)])
    np.save("observations.npy", observations)
    trust = ["--trust"] if model.policy_kwargs.get("features_extractor_class") else []
    output(python("-m", "mine.prediction", *trust, cwd=project))
    assert_same(np.load("actions.npy"), model.predict(observations, deterministic=True)[0], "actions")


@pytest.mark.parametrize("name", WORLDS)
def test_the_zoo_trains_resumes_after_a_kill_and_enjoys(name: str, project: Path) -> None:
    world = world_of(name)
    Path("mine.yml").write_text(yaml.safe_dump({world.env_id: world.config()}))
    packages = ("--gym-packages", world.package, "mine")
    of_run = ("--algo", "dqn_ext", "--env", world.env_id, *packages, "-f", "logs", "--num-threads", "1")
    train = ("-m", "rl_zoo3.train", *of_run, "-conf", "mine.yml", "--seed", "1", "--save-freq", "200", "--eval-freq", "-1")
    whole, killed = (project / f"logs/dqn_ext/{world.env_id.replace('/', '-')}_{i}" for i in (1, 2))

    output(python(*train, cwd=project))
    assert python(*train, cwd=project, KILL_AT="450").returncode == -signal.SIGKILL
    output(python("-m", "sb3_dqn_ext.zoo", "resume", str(killed), cwd=project))
    assert_same(weights(killed, world), weights(whole, world), "parameters")

    enjoyed = output(python("-m", "rl_zoo3.enjoy", *of_run, "--no-render", "-n", "100", cwd=project))
    assert "Loading" in enjoyed


def weights(folder: Path, world: World) -> dict[str, Any]:
    """Return the final parameters of the run in a folder."""
    name = world.env_id.replace("/", "-")
    return DQNExt.load(folder / f"{name}.zip", device="cpu", trust="policy_kwargs" in world.arguments).get_parameters()


def test_a_team_of_pettingzoo_learns_through_supersuit(project: Path) -> None:
    pytest.importorskip("supersuit")
    model = DQNExt("MlpPolicy", named("mine.teams.team")(), device="cpu", **ARGUMENTS).learn(STEPS)
    assert n_updates_of(model) > 0
    check_another_process(model, project)
    # its vector environment is not one of SB3's: it cannot be restored in the middle of an episode
    with pytest.raises(ArgumentError, match="The environments of a ConcatVecEnv cannot be made resumable"):
        model.learn(STEPS, callback=ExactCheckpointCallback(every=100, path="checkpoints"))
