"""
``python -m sb3_dqn_ext.zoo resume RUN_FOLDER``: go on with a run of the zoo that was interrupted, to its original end.

It is the zoo's own training with the arguments of the run. What it was started with stands in its ``run.json``, all that came
after in its checkpoints; nothing else is read, and neither is ever executed. Classes that ``run.json`` names (wrappers,
callbacks, policies) are imported from where Python finds modules, as in the first run, and must be of the right kind.
"""

import argparse
import functools
import glob
import importlib
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pprint import pprint
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback

from sb3_dqn_ext._validation import named_class
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.storage.lock import Lock
from sb3_dqn_ext.versions import versions
from sb3_dqn_ext.zoo import run_file
from sb3_dqn_ext.zoo.own_classes import ALGO, hint_of, import_classes, load_pretrained_agent, names_in
from sb3_dqn_ext.zoo.run_file import RunFile

__all__ = ["check_names", "main", "patch"]

COMMAND = "python -m sb3_dqn_ext.zoo resume"


@dataclass(frozen=True)
class Resumed:
    """A run that is gone on with."""

    folder: str
    run: RunFile


# -- the command -----------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> None:
    """
    :param arguments: of the command
    """
    parser = argparse.ArgumentParser(prog=COMMAND, description="Go on with a run that was interrupted, to its original end.")
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help="such as logs/dqn_ext/CartPole-v1_1")
    parser.add_argument("-P", "--progress", action="store_true", help="show a progress bar, as train -P does")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import and evaluate whatever run.json says, from the directory it names, too: only for runs of your own",
    )
    options = parser.parse_args(arguments)
    try:
        _go_on(os.path.normpath(options.run_folder), options.progress, options.trust)
    except (ArgumentError, CheckpointError) as error:
        sys.exit(f"{COMMAND}: {error}")


def _go_on(folder: str, progress: bool, trust: bool) -> None:
    run = run_file.read(folder)
    if run.finished is not None:
        print(f"{folder} is finished: it came to its end at step {run.finished}.")
        return
    if run.obstacle is not None:
        raise CheckpointError(f"{folder} cannot be gone on with: {run.obstacle}.")
    place = os.path.join(folder, run.checkpoints or "")
    if run.checkpoints is None or not glob.glob(os.path.join(glob.escape(place), "checkpoint_*.json")):
        raise CheckpointError(
            f"{folder} has no checkpoint to go on from: train with --save-freq N, which writes one every N environment steps."
        )
    for name, version in versions().items():
        if run.versions.get(name) != version:
            text = f"The run was started with {name} {run.versions.get(name)} and goes on with {version}: its bits may differ."
            warnings.warn(text, stacklevel=2)
    with Lock(place):  # also while nothing is written yet
        _train(folder, run, progress, trust)


def _train(folder: str, run: RunFile, progress: bool, trust: bool) -> None:
    train = importlib.import_module("rl_zoo3.train")
    if trust:
        sys.path.insert(0, run.directory)
    else:
        check_names(run)
    of_this_time = {"hyperparams": None, "optimize_hyperparameters": False, "track": False, "trained_agent": ""}
    namespace = argparse.Namespace(**{**run.arguments, **of_this_time, "algo": ALGO, "env": run.env})
    namespace.progress = progress or run.arguments.get("progress", False)
    namespace.resumed = Resumed(folder, run)
    # its command line, so to say
    vars(train)["argparse"] = SimpleNamespace(ArgumentParser=functools.partial(_parser_of, namespace))
    train.train()


def _parser_of(given: argparse.Namespace) -> argparse.ArgumentParser:
    """One that finds the given arguments, and the defaults of those that were not there when the run was started."""
    parser = argparse.ArgumentParser()
    parse = parser.parse_args
    vars(parser)["parse_args"] = lambda: argparse.Namespace(**{**vars(parse([])), **vars(given)})
    return parser


def check_names(run: RunFile) -> None:
    """:raises ArgumentError: if a hyperparameter would be evaluated as Python, or names something that must not be called"""
    for key in run_file.EVALUATED:
        if key != "replay_buffer_class" and isinstance(run.hyperparameters.get(key), str):
            raise ArgumentError(f"{key}={run.hyperparameters[key]!r} is an expression, which is evaluated with --trust only.")
    hint = hint_of(run)
    try:
        for module in run.arguments.get("gym_packages") or []:
            importlib.import_module(module)
        names = list(names_in(run.hyperparameters))
    except (ImportError, TypeError, ValueError) as error:
        raise ArgumentError(f"{str(error).rstrip('.')}. {hint}") from error
    import_classes(names, hint)
    if run.env not in gym.registry:
        raise ArgumentError(f"env={run.env!r} is not known to gymnasium.")


# -- what the zoo does differently for dqn_ext -----------------------------------------------------------------------------

Theirs = Callable[..., Any]


def patch(exp_manager: ModuleType) -> None:
    """
    Let the zoo's runs of dqn_ext leave a ``run.json``, write exact checkpoints at every ``--save-freq``, and be gone on with.

    :param exp_manager: ``rl_zoo3.exp_manager``; one that has other places than these stays as it is
    """
    manager: Any = exp_manager.ExperimentManager
    ours = (read_hyperparameters, setup_experiment, create_callbacks, create_envs, _save_config, learn, save_trained_model)
    by_name: dict[str, Theirs] = {function.__name__: function for function in ours}
    by_name["_load_pretrained_agent"] = load_pretrained_agent
    if all(hasattr(manager, name) for name in by_name):
        for name, function in by_name.items():
            setattr(manager, name, _for_us(getattr(manager, name), function))


def _for_us(theirs: Theirs, ours: Theirs) -> Theirs:
    @functools.wraps(theirs)
    def method(manager: Any, *args: Any, **kwargs: Any) -> Any:
        if manager.algo != ALGO or manager.optimize_hyperparameters:
            return theirs(manager, *args, **kwargs)
        return ours(functools.partial(theirs, manager), manager, *args, **kwargs)

    return method


def _resumed(manager: Any) -> Resumed | None:
    """The run that a manager goes on with, if it does."""
    return getattr(manager.args, "resumed", None)


def read_hyperparameters(theirs: Theirs, manager: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the run that is gone on with; or note them, before the zoo makes objects of them."""
    resumed = _resumed(manager)
    if resumed is None:
        hyperparameters, saved = theirs()
        manager.noted, manager.obstacle = _noted(manager, saved)
        return hyperparameters, saved
    hyperparameters = run_file.decoded(resumed.run.hyperparameters)
    replay = hyperparameters.get("replay_buffer_class")
    if isinstance(replay, str) and "." in replay:
        hyperparameters["replay_buffer_class"] = named_class("replay_buffer_class", replay, {})
    print(f"Going on with {resumed.folder}")
    pprint(hyperparameters)
    return hyperparameters, OrderedDict(hyperparameters)


def _noted(manager: Any, hyperparameters: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The hyperparameters as data, and what is in the way of going on with them."""
    obstacle = (
        "it went on with a trained agent (-i), which is no part of its checkpoints" if manager.continue_training else None
    )
    try:
        return run_file.data_of(hyperparameters, vars(sys.modules["rl_zoo3.exp_manager"])), obstacle
    except Exception as error:  # of an expression; the zoo is about to evaluate it, too
        return {}, obstacle or f"its hyperparameters cannot be stored: {error}"


def setup_experiment(theirs: Theirs, manager: Any) -> Any:
    """As the zoo does, in the folder of the run that is gone on with, and from its newest checkpoint."""
    resumed = _resumed(manager)
    if resumed is not None:
        manager.save_path = resumed.folder
        manager.params_path = f"{resumed.folder}/{manager.env_name}"
    results = theirs()
    if resumed is not None:
        model, _ = results
        model.resume(os.path.join(resumed.folder, str(resumed.run.checkpoints)))
        print(f"From step {model.num_timesteps} of {manager.n_timesteps}")
    return results


def create_callbacks(theirs: Theirs, manager: Any) -> None:
    """The zoo's, and one that writes exact checkpoints, unless the configuration names one."""
    checkpoints = [one for one in all_callbacks(manager.callbacks) if isinstance(one, ExactCheckpointCallback)]
    added = []
    if not checkpoints and manager.save_freq > 0:
        added = checkpoints = [ExactCheckpointCallback(manager.save_freq, "checkpoints")]
    manager.checkpoints = checkpoints[0].path if checkpoints else None
    for one in checkpoints:
        one.path = os.path.join(manager.save_path, one.path)
    theirs()
    manager.callbacks.extend(added)


def create_envs(theirs: Theirs, manager: Any, *args: Any, **kwargs: Any) -> Any:
    """Environments that can be asked for their states, in whichever process, and files of episodes that are gone on with."""
    if _resumed(manager) is not None:
        manager.monitor_kwargs = {**manager.monitor_kwargs, "override_existing": False}
    if getattr(manager, "checkpoints", None) is None:
        return theirs(*args, **kwargs)
    from sb3_dqn_ext.checkpoint.envs import resumable

    wrapper = manager.env_wrapper
    manager.env_wrapper = functools.partial(resumable, wrapper=wrapper)
    try:
        return theirs(*args, **kwargs)
    finally:
        manager.env_wrapper = wrapper


def _save_config(theirs: Theirs, manager: Any, saved_hyperparams: dict[str, Any]) -> None:
    """Also as ``run.json``."""
    resumed = _resumed(manager)
    if resumed is not None:
        manager.run = resumed.run
        print(f"Log path: {manager.save_path}")
        return
    theirs(saved_hyperparams)
    arguments = {key: value for key, value in vars(manager.args).items() if key != "hyperparams"}
    if arguments.get("tensorboard_log"):
        arguments["tensorboard_log"] = os.path.abspath(arguments["tensorboard_log"])
    try:
        arguments = run_file.encoded(arguments)
    except TypeError as error:
        arguments, manager.obstacle = {}, f"its arguments cannot be stored: {error}"
    manager.run = RunFile(
        env=str(manager.env_name.gym_id),
        directory=os.getcwd(),
        arguments=arguments,
        hyperparameters=manager.noted,
        checkpoints=getattr(manager, "checkpoints", None),
        obstacle=manager.obstacle,
        finished=None,
        versions=versions(),
    )
    run_file.write(manager.save_path, manager.run)
    if manager.run.checkpoints is not None and manager.obstacle is not None:
        warnings.warn(f"`{COMMAND}` will not go on with this run: {manager.obstacle}.", stacklevel=2)


class Ended(BaseCallback):
    """
    Tells that the training came to its end.

    :param manager: is told
    """

    def __init__(self, manager: Any) -> None:
        super().__init__()
        self.manager = manager

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.manager.has_ended = True


def learn(theirs: Theirs, manager: Any, model: Any) -> None:
    """As the zoo does, which lets nobody know whether it was interrupted."""
    manager.has_ended = False
    if manager.run.checkpoints is not None:
        manager.callbacks.append(Ended(manager))  # not the first, whose end the zoo calls in any case
    theirs(model)


def save_trained_model(theirs: Theirs, manager: Any, model: Any) -> None:
    """And note that there is nothing left to do."""
    theirs(model)
    if getattr(manager, "has_ended", False):
        run_file.finish(manager.save_path, manager.run, model.num_timesteps)
