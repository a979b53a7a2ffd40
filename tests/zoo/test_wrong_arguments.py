"""Wrong arguments on the command line: one line each, and no folder that later commands would take for a run."""

import json
import re

import pytest

from tests.processes import output, python

# Many commands in one process, which imports the zoo once.
RUN_ALL = """
import contextlib, io, json, os, sys
from sb3_dqn_ext.zoo import commands
from sb3_dqn_ext.zoo.advise.__main__ import main as advise
ends = []
for name, *arguments in json.loads(sys.argv[1]):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            advise(arguments, "prog") if name == "advise" else commands.main([name, *arguments], "prog")
        end = printed.getvalue()
    except SystemExit as error:
        end = str(error.code)
    except Exception as error:
        end = f"a traceback: {error!r}"
    ends.append((end, sorted(os.listdir("logs/dqn_ext")) if os.path.exists("logs/dqn_ext") else []))
print(json.dumps(ends))
"""
NO_EVALUATION = ("--eval-freq", "-1", "--gym-packages", "my_envs")
TRAIN = ("train", "--env", "CartPole-v1", "-n", "60", "--eval-freq", "-1")
NOWHERE = ("--gym-packages", "nowhere")
NO_PACKAGE = "--gym-packages: no module of the name 'nowhere' is found."

# Environments with faults, which are no wrong arguments.
MY_ENVS = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv

class FaultAtStart(CartPoleEnv):
    def __init__(self, render_mode=None):
        self.n = 1 + None

class FaultAtStep(CartPoleEnv):
    def step(self, action):
        raise ValueError("a fault of the environment")

gym.register("FaultAtStart-v0", FaultAtStart)
gym.register("FaultAtStep-v0", FaultAtStep)
"""

WRONG = {
    "no file": ((*TRAIN, "-conf", "nowhere.yml"), r"conf='nowhere.yml' cannot be read: .*No such file or directory.*"),
    "no block": ((*TRAIN, "-conf", "other.yml"), "Hyperparameters not found for dqn_ext-CartPole-v1 in other.yml"),
    "no block of a game": (
        ("train", "--env", "ALE/Pong-v5", "-conf", "other.yml"),
        "conf='other.yml' has no block 'ALE/Pong-v5', and none of the name 'atari'.",
    ),
    "no package": ((*TRAIN, *NOWHERE), NO_PACKAGE),
    "no package in a package": ((*TRAIN, "--gym-packages=nowhere.envs"), NO_PACKAGE.replace("nowhere", "nowhere.envs")),
    "no package to advise": (("advise", "CartPole-v1", *NOWHERE), NO_PACKAGE),
    "no package to record": (("record-video", "--env", "A-v1", *NOWHERE), NO_PACKAGE),
    "no suffix": ((*TRAIN, "-conf", "nowhere"), "conf='nowhere' is not found: it can be a file that ends with .yml .*"),
    "no module": ((*TRAIN, "-conf", "nowhere.py"), "conf='nowhere.py' cannot be read: there is no such file."),
    "an equals sign to advise": (("advise", "CartPole-v1", "--env-kwargs", "a=1"), ".*take key:value, for example .*"),
    "no environment": (("train", "--env", "CartPol-v1"), "CartPol-v1 not found in gym registry, .* CartPole-v1.*"),
    "an equals sign": ((*TRAIN, "-params", "gamma=0.9"), ".*take key:value, for example gamma:0.98 .*"),
    "no quotes": ((*TRAIN, "-params", "target_policy:double"), "name 'double' is not defined: .*take key:value.*"),
    "no argument of the environment": ((*TRAIN, "--env-kwargs", "size:3"), ".*unexpected keyword argument 'size'.*"),
    "no hyperparameter": ((*TRAIN, "-params", "gama:0.9"), r"DQNExt\(\) has no argument 'gama'; .* Did you mean 'gamma'\?"),
    "no argument of the policy": (
        (*TRAIN, "-params", "policy_kwargs:dict(hed='dueling')"),
        r"policy_kwargs of MlpPolicy has no argument 'hed'; .* Did you mean 'head'\?",
    ),
    "no model to go on with": ((*TRAIN, "-i", "nowhere.zip"), "The trained_agent must be a valid path to a .zip file"),
    "no run": (("enjoy", "--env", "CartPole-v1", "-f", "nowhere"), "The nowhere/dqn_ext folder was not found"),
}

FAULTS = {
    "at the start": (("FaultAtStart-v0", "-conf", "mine.yml"), "a traceback: TypeError.*unsupported operand"),
    "at a step": (("FaultAtStep-v0", "-conf", "mine.yml"), "a traceback: ValueError.*a fault of the environment"),
}
CONFIG = "{n_timesteps: 60, learning_starts: 10, policy: MlpPolicy}"


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[str]]]:
    """The end of each command, and the folders of runs after it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "other.yml").write_text("MountainCar-v0: {n_timesteps: 100, policy: MlpPolicy}\n")
    (folder / "mine.yml").write_text("".join(f"{name}-v0: {CONFIG}\n" for name in ("FaultAtStart", "FaultAtStep")))
    (folder / "my_envs.py").write_text(MY_ENVS)
    commands = {name: command for name, (command, _) in WRONG.items()}
    commands |= {name: ("train", *NO_EVALUATION, "--env", *options) for name, (options, _) in FAULTS.items()}
    commands["short"] = (*TRAIN, "-params", "learning_starts:60")
    results = json.loads(output(python("-W", "ignore", "-c", RUN_ALL, json.dumps([*commands.values()]), cwd=folder)))
    return dict(zip(commands, results, strict=True))


@pytest.mark.xdist_group("wrong arguments")
def test_a_wrong_argument_is_one_line(ends: dict[str, tuple[str, list[str]]]) -> None:
    for name, (_, message) in WRONG.items():
        end, _ = ends[name]
        assert re.fullmatch(f"prog: {message}", end), (name, end)


@pytest.mark.xdist_group("wrong arguments")
def test_only_a_run_that_began_has_a_folder(ends: dict[str, tuple[str, list[str]]]) -> None:
    assert [ends[name][1] for name in (*WRONG, "at the start")] == [[]] * (len(WRONG) + 1)
    assert ends["at a step"][1] == ["FaultAtStep-v0_1"]
    printed, runs = ends["short"]
    assert runs == ["CartPole-v1_1", "FaultAtStep-v0_1"]
    line = "n_timesteps=60 is not greater than learning_starts=60, the steps before any training."
    assert line in printed.splitlines()


@pytest.mark.xdist_group("wrong arguments")
def test_a_fault_of_the_user_keeps_its_traceback(ends: dict[str, tuple[str, list[str]]]) -> None:
    for name, (_, message) in FAULTS.items():
        assert re.match(message, ends[name][0]), (name, ends[name][0])
