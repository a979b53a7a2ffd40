"""The RL Zoo's own commands, run from a folder that holds what a user's project often holds: an ``envs/`` package."""

import importlib.util
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sb3_dqn_ext.zoo import default_config
from sb3_dqn_ext.zoo.__main__ import COMMANDS
from sb3_dqn_ext.zoo.commands import ZOO_COMMANDS
from sb3_dqn_ext.zoo.search_space import make_converter
from tests.processes import output, python, write_package

TRAIN = ("-m", "rl_zoo3.train", "--algo", "dqn_ext", "--seed", "1", "-f", "logs")
ENJOY = ("-m", "rl_zoo3.enjoy", "--algo", "dqn_ext", "--no-render", "-f", "logs")
NO_EVALUATION = ("--eval-freq", "-1")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project, whose own ``envs`` must neither hide ours nor be hidden."""
    write_package(tmp_path / "envs", __init__="raise AssertionError('the plugin imported the user\\'s own envs')")
    return tmp_path


def write_config(project: Path, **hyperparameters: Any) -> str:
    """Write a YAML for CartPole-v1 and return its name."""
    config = {"CartPole-v1": {"policy": "MlpPolicy", "n_timesteps": 300, "learning_starts": 50, **hyperparameters}}
    (project / "mine.yml").write_text(yaml.safe_dump(config))
    return "mine.yml"


def test_a_users_folder_called_envs_is_theirs_even_without_an_init(tmp_path: Path) -> None:
    assert "No module named 'envs'" in python("-c", "import envs", cwd=tmp_path).stderr
    write_package(tmp_path / "envs", maze="SIZE = 7")
    assert output(python("-c", "import envs.maze; print(envs.maze.SIZE)", cwd=tmp_path)) == "7\n"


@pytest.mark.parametrize(
    "env",
    [
        *("MountainCar-v0", "LunarLander-v3", "Taxi-v4"),
        *(pytest.param(env, marks=pytest.mark.slow) for env in ("CartPole-v1", "Acrobot-v1")),
    ],
)
def test_the_zoo_trains_an_environment_and_enjoys_the_agent(env: str, project: Path) -> None:
    trained = output(python(*TRAIN, "--env", env, "-n", "300", *NO_EVALUATION, cwd=project))
    assert f"Loading hyperparameters from: {default_config()}" in trained
    assert ("Using 'default' hyperparameters" in trained) == (env == "Taxi-v4")
    assert ("the default block is used. `sb3-dqn-ext advise" in trained) == (env == "Taxi-v4")
    enjoyed = output(python(*ENJOY, "--env", env, "-n", "1001", cwd=project))
    assert f"Loading logs/dqn_ext/{env}_1/{env}.zip" in enjoyed
    assert "Mean reward" in enjoyed


def test_a_wrapper_and_a_policy_of_ours_come_from_yaml_and_evaluation_reports_the_own_reward(project: Path) -> None:
    config = write_config(
        project,
        policy="MultiHeadPolicy",
        env_wrapper=[{"sb3_dqn_ext.envs.TerminalPenalty": {"reward": -50.0}}],
        replay_buffer_kwargs={"terminal_copies": 3},
    )
    output(python(*TRAIN, "-conf", config, "--eval-freq", "150", "--eval-episodes", "2", "--save-replay-buffer", cwd=project))
    run = project / "logs" / "dqn_ext" / "CartPole-v1_1"
    with np.load(run / "evaluations.npz") as evaluations:
        np.testing.assert_array_equal(evaluations["results"], evaluations["ep_lengths"])
    with open(run / "replay_buffer.pkl", "rb") as file:
        buffer = pickle.load(file)
    stored = slice(0, buffer.size())
    np.testing.assert_array_equal(buffer.rewards[stored], np.where(buffer.dones[stored], -50, 1))
    assert buffer.dones[stored].any()
    assert buffer.terminal_copies == 3
    assert "Mean reward" in output(python(*ENJOY, "--env", "CartPole-v1", cwd=project))


@pytest.mark.slow
def test_the_zoo_trains_with_actors_and_resumes(project: Path) -> None:
    actors = {"n_actors": 2, "envs_per_actor": 4, "block_size": 40}
    config = write_config(
        project,
        n_timesteps=400,
        actors=actors,
        env_kwargs={"max_episode_steps": 20},
        vec_env_wrapper="sb3_dqn_ext.vec_env.FastVecEnv",
    )
    options = ("--eval-freq", "100", "--save-freq", "200", "-conf", config)
    output(python(*TRAIN, "--env", "CartPole-v1", *options, cwd=project))
    (run,) = project.glob("logs/dqn_ext/CartPole-v1_1")
    evaluations = np.load(run / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [100, 200, 300, 400]  # 25 calls of 4 environments each
    lengths = [int(line.split(",")[1]) for line in (run / "0.monitor.csv").read_text().splitlines()[2:]]
    assert 200 < sum(lengths) <= 400
    stored = json.loads((run / "run.json").read_text())
    stored["hyperparameters"]["n_timesteps"], stored["finished"] = 600, None  # as if it had been interrupted at step 400
    (run / "run.json").write_text(json.dumps(stored))
    resumed = output(python("-m", "sb3_dqn_ext.zoo", "resume", str(run), cwd=project))
    assert re.search("From step (2|3).. of 600", resumed)  # the last checkpoint
    lengths = [int(line.split(",")[1]) for line in (run / "0.monitor.csv").read_text().splitlines()[2:]]
    assert 400 < sum(lengths) <= 600


def test_the_zoo_continues_from_a_trained_agent(project: Path) -> None:
    config = write_config(project, target_policy="double")
    output(python(*TRAIN, "-conf", config, *NO_EVALUATION, "--save-replay-buffer", cwd=project))
    trained = "logs/dqn_ext/CartPole-v1_1/CartPole-v1.zip"
    again = output(python(*TRAIN, "-conf", config, *NO_EVALUATION, "-i", trained, cwd=project))
    assert "Loading replay buffer" in again
    assert (project / "logs/dqn_ext/CartPole-v1_2/CartPole-v1.zip").is_file()


def test_the_zoo_searches_hyperparameters(project: Path) -> None:
    search = ("-optimize", "--n-trials", "2", "--n-startup-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1")
    output(python(*TRAIN, "-conf", write_config(project), *search, "--no-optim-plots", cwd=project))
    (report,) = (project / "logs" / "dqn_ext").glob("report_CartPole-v1_2-trials-*.csv")
    assert "COMPLETE" in report.read_text()


def test_our_own_command_needs_no_hook(project: Path) -> None:
    train = ("-m", "sb3_dqn_ext.zoo", "train", *TRAIN[2:])
    process = python(*train, "-conf", write_config(project), *NO_EVALUATION, cwd=project, SB3_DQN_EXT_NO_HOOK="1")
    assert "Saving to logs/dqn_ext/CartPole-v1_1" in output(process)
    process = python(*TRAIN, cwd=project, SB3_DQN_EXT_NO_HOOK="1")
    assert "invalid choice: 'dqn_ext'" in process.stderr


def test_every_command_exists_in_the_zoo() -> None:
    zoo = importlib.util.find_spec("rl_zoo3")  # not imported: the zoo patches gymnasium for the tests that follow
    assert zoo is not None
    assert zoo.origin is not None
    folder = Path(zoo.origin).parent
    scripts = [path.relative_to(folder.parent) for path in folder.rglob("*.py") if ".parse_args()" in path.read_text()]
    modules = sorted(".".join(path.with_suffix("").parts) for path in scripts)
    assert sorted(command.module for command in ZOO_COMMANDS.values()) == modules
    assert COMMANDS.keys() == {*ZOO_COMMANDS, "advise", "resume"}


def test_a_sampled_target_policy_does_not_get_the_arguments_of_the_configured_one() -> None:
    configured = {"target_policy": "munchausen", "target_policy_kwargs": {"alpha": 0.5}}
    convert = make_converter(lambda params: {})
    assert (configured | convert({"target_policy": "double"}))["target_policy_kwargs"] == {}
    assert "target_policy_kwargs" not in convert({})  # of an older study, or of dqn


def strings(value: Any) -> Iterator[str]:
    """Every string in a tree of maps and lists, except the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from strings(child)


def test_the_defaults_have_a_budget_and_contain_no_python_code() -> None:
    hyperparameters = yaml.safe_load(Path(default_config()).read_text())
    assert hyperparameters.keys() >= {"default", "atari", "CartPole-v1", "MountainCar-v0", "Acrobot-v1", "LunarLander-v3"}
    for env, entry in hyperparameters.items():
        assert entry["n_timesteps"] > 0, env
        assert not [text for text in strings(entry) if "(" in text], env
