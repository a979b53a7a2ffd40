"""Wrong arguments on the command line: one line each, and no folder that later commands would take for a run."""

import json
import re

import pytest

from tests.processes import output, python

# Many commands in one process, which imports the zoo once.
RUN_ALL = """
import contextlib, io, json, os, runpy, sys, traceback
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
TRAIN = ("train", "--env", "CartPole-v1", "-n", "60", "--eval-freq", "-1")
NOWHERE = ("--gym-packages", "nowhere")

WRONG = {
    "no file": ((*TRAIN, "-conf", "nowhere.yml"), r"conf='nowhere.yml' cannot be read: .*No such file or directory.*"),
    "no block": ((*TRAIN, "-conf", "other.yml"), "Hyperparameters not found for dqn_ext-CartPole-v1 in other.yml"),
    "no package": ((*TRAIN, *NOWHERE), "--gym-packages: No module named 'nowhere'"),
    "no package to advise": (("advise", "CartPole-v1", *NOWHERE), "--gym-packages: No module named 'nowhere'"),
    "no package to record": (("record-video", "--env", "A-v1", *NOWHERE), "--gym-packages: No module named 'nowhere'"),
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


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[str]]]:
    """The end of each command, and the folders of runs after it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "other.yml").write_text("MountainCar-v0: {n_timesteps: 100, policy: MlpPolicy}\n")
    commands = {**{name: command for name, (command, _) in WRONG.items()}, "short": (*TRAIN, "-params", "learning_starts:60")}
    results = json.loads(output(python("-W", "ignore", "-c", RUN_ALL, json.dumps([*commands.values()]), cwd=folder)))
    return dict(zip(commands, results, strict=True))


@pytest.mark.xdist_group("wrong arguments")
def test_a_wrong_argument_is_one_line(ends: dict[str, tuple[str, list[str]]]) -> None:
    for name, (_, message) in WRONG.items():
        end, _ = ends[name]
        assert re.fullmatch(f"prog: {message}", end), (name, end)


@pytest.mark.xdist_group("wrong arguments")
def test_only_a_run_that_began_has_a_folder(ends: dict[str, tuple[str, list[str]]]) -> None:
    *failed, (printed, runs) = ends.values()
    assert [folders for _, folders in failed] == [[]] * len(WRONG)
    assert runs == ["CartPole-v1_1"]
    assert "n_timesteps=60 is not greater than learning_starts=60: nothing is learned." in printed.splitlines()
