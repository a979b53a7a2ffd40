"""
The tests of Stable-Baselines3, sb3-contrib and the RL Zoo, with our classes in place of theirs.

The tests are taken from the source distributions of the versions that are installed, or from the folder that
``SB3_TESTS``, ``CONTRIB_TESTS`` or ``ZOO_TESTS`` names: a source distribution or a checkout.
"""

import json
import os
import re
import shutil
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.paths import ROOT
from tests.processes import output, python

pytestmark = pytest.mark.slow

Outcomes = dict[str, tuple[str, str]]

# Tests that pass for the replaced class and cannot pass for ours, with the reason.
OWN_NUMBERS = "a random number for each environment decides on exploration, so a seed has another course"
DIFFERENT = {
    "sb3": {
        "tests/test_n_step_replay.py::test_run[DQN]": "requires an NStepReplayBuffer, which DQNExt does not need",
        "tests/test_callbacks.py::test_eval_callback_logs_are_written_with_the_correct_timestep": "reads the folder DQN_1",
        "tests/test_her.py::test_performance_her[10]": OWN_NUMBERS,
    },
    "contrib": {},
    "zoo": {},
}
# Its outcome depends on the load of the machine.
TIMED = "tests/test_logger.py::test_fps_logger[DQN]"


def source_of(package: str, variable: str, folder: Path) -> Path:
    """
    Download the source distribution of a package, unless there is a folder with its source.

    :param package: an installed package
    :param variable: the environment variable that may contain such a folder
    :param folder: the folder for the download
    :return: the folder of the source
    """
    if variable in os.environ:
        return Path(os.environ[variable]).resolve()
    pin = f"{package}=={version(package)}"
    output(python("-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", ".", pin, cwd=folder))
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return Path(str(archive).removesuffix(".tar.gz"))


def outcomes(folder: Path, *arguments: str) -> Outcomes:
    """
    Run the tests of another project.

    :param folder: a folder that contains the tests in a folder ``tests``
    :param arguments: the arguments of ``tests.stand_in``
    :return: the outcome of each test, and the last line of its error
    """
    written, programs = folder / "outcomes.json", folder / "programs"
    programs.mkdir()
    (programs / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    environment = {
        "PYTHONPATH": str(ROOT),
        # the zoo runs both programs by name
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(programs), os.environ["PATH"]]),
        # rendering without a screen
        "DISPLAY": os.environ.get("DISPLAY", ":none"),
        "SDL_VIDEODRIVER": "dummy",
    }
    pytest_arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "tests.stand_in", f"--outcomes={written}"]
    process = python("-m", "pytest", *pytest_arguments, *arguments, "tests", cwd=folder, **environment)
    assert written.exists(), process.stdout + process.stderr
    print(process.stdout)
    return {name: (outcome, line) for name, (outcome, line) in json.loads(written.read_text()).items()}


def check(theirs: Outcomes, ours: Outcomes, different: dict[str, str], at_least: int) -> None:
    """
    Check that the tests have the same outcomes with our class.

    :param theirs: the outcomes with the original class
    :param ours: the outcomes with ours
    :param different: the tests with different outcomes, and the reasons
    :param at_least: the least number of tests that pass with the original class
    :raises AssertionError: if another test has a different outcome, or one of those has not
    """
    passed = {name for name, (outcome, _) in theirs.items() if outcome == "passed"} - {TIMED}
    assert len(passed) >= at_least, theirs
    failing = {name: ours.get(name, ("missing", "")) for name in passed if ours.get(name, ("missing", ""))[0] != "passed"}
    assert failing.keys() == different.keys(), json.dumps(failing, indent=1)


@pytest.mark.parametrize(
    ("suite", "package", "taken", "at_least"),
    [
        ("sb3", "stable_baselines3", "stable_baselines3.DQN", 60),
        ("contrib", "sb3_contrib", "sb3_contrib.QRDQN", 25),
    ],
)
def test_tests_that_pass_for_the_replaced_class_pass_for_ours(
    suite: str, package: str, taken: str, at_least: int, tmp_path: Path
) -> None:
    source = source_of(package, f"{suite.upper()}_TESTS", tmp_path)
    for one in ("theirs", "ours"):  # without the package beside the tests
        shutil.copytree(source / "tests", tmp_path / one / "tests")
        shutil.copy(source / "pyproject.toml", tmp_path / one)
    theirs = outcomes(tmp_path / "theirs", f"--of={taken}")
    ours = outcomes(tmp_path / "ours", f"--of={taken}", "--ours")
    check(theirs, ours, DIFFERENT[suite], at_least)


# The zoo's tests contain command lines with an algorithm. Another algorithm is substituted in each place, and environments
# with discrete actions.
ALGORITHM = r"(?<![\w.])(?:ppo_lstm|ppo|a2c|dqn|sac|td3|ddpg|tqc)(?![\w.])"
READ_AS = {
    r"hyperparams/a2c\.yml": "hyperparams/dqn.yml",
    r"n_steps:50 n_epochs:2": "n_steps:5",
    r"stable_baselines3\.ppo\.MlpPolicy": "stable_baselines3.dqn.MlpPolicy",
    r"BipedalWalkerHardcore-v3": "LunarLander-v3",
    r"MountainCarContinuous-v0": "MountainCar-v0",
    r"--algo ppo --env Pendulum-v1": "--algo ppo --env MountainCar-v0",  # its configuration contains CartPole only
    r"Pendulum-v1|CartPoleNoVel-v1|parking-v0": "CartPole-v1",
    r"env-kwargs g:[58]\.0": "env-kwargs sutton_barto_reward:True",
    r"trained_models\.update\(get_hf_trained_models\(\)\)": "",  # the hub
}
# Short versions of files that are in the zoo's repository and not in its source distribution.
COMMAND = "from rl_zoo3.{0} import {1}\n\nif __name__ == '__main__':\n    {1}()\n"
ZOO_FILES = {
    "train.py": COMMAND.format("train", "train"),
    "enjoy.py": COMMAND.format("enjoy", "enjoy"),
    "scripts/parse_study.py": """
import pickle, sys
assert pickle.load(open(sys.argv[sys.argv.index("-i") + 1], "rb")).trials
""",
    "hyperparams/python/ppo_config_example.py": """
hyperparams = {"MountainCar-v0": dict(n_timesteps=1000, policy="MlpPolicy", normalize=True, policy_kwargs=dict(net_arch=[16]))}
""",
    "tests/test_config.yml": """
CartPole-v1:
  n_envs: 8
  n_timesteps: !!float 1e6
  policy: 'MlpPolicy'
  env_kwargs:
    sutton_barto_reward: true
""",
    "tests/dummy_env/test_env/__init__.py": """
from gymnasium.envs.registration import register
register("TestEnv-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)
""",
    "tests/dummy_env/test_env/config.py": 'hyperparams = {"TestEnv-v0": {"policy": "MlpPolicy", "n_timesteps": 2000}}\n',
}


def zoo_tests(source: Path, folder: Path, algorithm: str) -> Path:
    """
    Copy the zoo's tests for another algorithm, and train a model for them.

    :param source: the zoo's source
    :param folder: the folder for the tests
    :param algorithm: the algorithm that the tests run
    :return: ``folder``
    """
    for name in ("tests", "hyperparams", "scripts"):
        if (source / name).exists():
            shutil.copytree(source / name, folder / name)
    shutil.copy(source / "pyproject.toml", folder)
    for name, text in ZOO_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "tests/test_wrappers.py").unlink()  # tests environments of MuJoCo, and no algorithm
    for file in folder.glob("tests/test_*.py"):
        text = file.read_text()
        for old, new in {**READ_AS, ALGORITHM: algorithm}.items():
            text = re.sub(old, new, text)
        file.write_text(text)
    arguments = ["--algo", algorithm, "--env", "CartPole-v1", "-n", "500", "-f", "rl-trained-agents"]
    output(python("train.py", *arguments, cwd=folder))
    return folder


def test_tests_of_the_zoo_that_pass_for_dqn_pass_for_dqn_ext(tmp_path: Path) -> None:
    source = source_of("rl_zoo3", "ZOO_TESTS", tmp_path)
    theirs = outcomes(zoo_tests(source, tmp_path / "dqn", "dqn"))
    ours = outcomes(zoo_tests(source, tmp_path / "dqn_ext", "dqn_ext"))
    check(theirs, {name.replace("dqn_ext", "dqn"): outcome for name, outcome in ours.items()}, DIFFERENT["zoo"], 25)
