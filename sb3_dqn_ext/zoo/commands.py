"""The commands of the RL Zoo, run with ``dqn_ext`` registered, ``--trust``, and an example in their help."""

import argparse
import importlib
import importlib.util
import os
import runpy
import shlex
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym

from sb3_dqn_ext._command_line import HELP_OPTIONS
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.zoo.config import ALGO, exists
from sb3_dqn_ext.zoo.models import take_trust_option

# The package sb3_dqn_ext.zoo, which Python imports before this module, has registered the algorithm.

_ALGO = ("--algo", ALGO)
_TRAIN_FOLDER = ("-f", "logs")


class ZooCommand(NamedTuple):
    """A command of the RL Zoo."""

    module: str
    """the module that ``python -m`` would run"""
    example: str
    """arguments of an example; its runs are those that the example of ``train`` has written"""
    defaults: tuple[str, ...] = ()
    """arguments in front of those of the user, which override them"""
    loads_models: bool = False
    """whether the command takes ``--trust``, as ``DQNExt.load`` does"""


_ENV = "--env CartPole-v1"
_RUNS = (*_ALGO, *_TRAIN_FOLDER)
_PLOT = "-a dqn_ext -e CartPole-v1 -f logs"
ZOO_COMMANDS = {
    "train": ZooCommand("rl_zoo3.train", f"{_ENV} -n 2000 --save-freq 1000", _ALGO, True),
    "enjoy": ZooCommand("rl_zoo3.enjoy", f"{_ENV} -n 500 --no-render", _RUNS, True),
    "record-video": ZooCommand("rl_zoo3.record_video", f"{_ENV} -n 200 -o videos", _RUNS, True),
    "record-training": ZooCommand("rl_zoo3.record_training", f"{_ENV} -n 200 -o videos", _RUNS),
    "benchmark": ZooCommand("rl_zoo3.benchmark", "--log-dir logs --no-hub -n 500"),
    "load-from-hub": ZooCommand("rl_zoo3.load_from_hub", f"--algo dqn {_ENV} -f logs -orga sb3", _ALGO),
    "push-to-hub": ZooCommand("rl_zoo3.push_to_hub", f"{_ENV} -f logs -orga YOUR_NAME", _ALGO),
    "all-plots": ZooCommand("rl_zoo3.plots.all_plots", f"{_PLOT} --no-display -o results"),
    "plot-from-file": ZooCommand("rl_zoo3.plots.plot_from_file", "-i results.pkl -l dqn_ext -o results.svg"),
    "plot-train": ZooCommand("rl_zoo3.plots.plot_train", _PLOT),
}
TAKES_PACKAGES = ("train", "enjoy", "record-video")
"""the commands that take ``--gym-packages``; the zoo's ``record_video`` does not"""


def main(arguments: list[str], program: str) -> None:
    """
    Run a command of the zoo in this process, as ``python -m`` would.

    :param arguments: the name of the command, and the arguments that the zoo's own command gets
    :param program: the name of the command in its help and errors
    """
    name, *rest = arguments
    command = ZOO_COMMANDS[name]
    os.environ.pop("SB3_DQN_EXT_NO_HOOK", None)  # record_training starts Python for record_video
    words = take_trust_option(rest) if command.loads_models else rest
    packages, others = split_packages(words) if name in TAKES_PACKAGES else ([], words)
    try:
        if name == "record-video":  # the zoo's command does not import them
            for module in packages:
                importlib.import_module(module)
            words = others
        sys.argv = [program, *command.defaults, *words]
        runpy.run_module(command.module, run_name="__main__")
    except Exception as error:
        text = describe_wrong_argument(error, packages)
        if text is None:
            raise
        sys.exit(f"{program}: {text}")
    except SystemExit:
        if any(option in rest for option in HELP_OPTIONS):
            print(additional_help(command, program))
        raise


def split_packages(arguments: list[str]) -> tuple[list[str], list[str]]:
    """
    Return the modules of ``--gym-packages``, and the other arguments.

    :param arguments: the command line
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--gym-packages", nargs="+", default=[])
    options, others = parser.parse_known_args(arguments)
    return options.gym_packages, others


def describe_wrong_argument(error: Exception, packages: Iterable[str]) -> str | None:
    """
    Describe an error in one line if a wrong argument of the command line is its cause.

    :param error: an error of a command
    :param packages: the modules of ``--gym-packages``
    :return: the text; None: another cause, of which the traceback is needed
    """
    if isinstance(error, ArgumentError | CheckpointError | gym.error.DependencyNotInstalled):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        missing = [module for module in packages if not exists(module)]
        return f"--gym-packages: no module of the name {missing[0]!r} is found." if missing else None
    zoo, registration = folder_of("rl_zoo3"), folder_of("gymnasium") / "envs/registration.py"
    frames = traceback.extract_tb(error.__traceback__)
    if any(frame.name == "__call__" and Path(frame.filename) == zoo / "utils.py" for frame in frames):
        # of the class that evaluates the arguments
        return f"{error}: -params, --env-kwargs and others take key:value, for example gamma:0.98 \"target_policy:'double'\""
    raised_in = Path(frames[-1].filename)
    is_check = zoo in raised_in.parents and str(frames[-1].line).startswith(("raise ", "assert "))
    cause = traceback.extract_tb(error.__cause__.__traceback__) if error.__cause__ is not None else frames
    is_call = Path(cause[-1].filename) == registration  # and not the constructor of the environment
    if (is_check and isinstance(error, ValueError | AssertionError)) or (
        raised_in == registration and is_call and isinstance(error, TypeError | gym.error.Error)
    ):
        return str(error) or None
    return None


def folder_of(package: str) -> Path:
    """Return the folder of an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def additional_help(command: ZooCommand, program: str) -> str:
    """
    Return the text that follows the zoo's own help of a command.

    :param command: the command
    :param program: the name of the command in the example
    """
    trust = "\n  --trust               load models with trust=True: only for runs that you made"
    defaults = f"\n  {shlex.join(command.defaults)}    unless given" if command.defaults else ""
    also = f"\nwith sb3_dqn_ext:{defaults}{trust if command.loads_models else ''}\n" if command.defaults else ""
    return f"{also}\nexample:\n  {program} {command.example}"
