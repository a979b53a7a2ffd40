"""
The command ``resume RUN_FOLDER``: continue an interrupted training run of the zoo until its original number of steps.

The zoo's manager trains with the arguments in ``run.json``, from the newest checkpoint of the run. No other file is read, and
no content of these files is executed. Classes that ``run.json`` names (wrappers, callbacks, policies) are imported from
Python's search path, as in the original run, and must be subclasses of the class that their place requires.
"""

import argparse
import glob
import importlib
import os
import sys
import warnings

import gymnasium as gym
import torch as th
from stable_baselines3.common.utils import set_random_seed

from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.run_folder.run_file import RunFile
from sb3_dqn_ext.run_folder.user_classes import find_class_names, import_classes, module_not_found_hint
from sb3_dqn_ext.storage.lock import Lock
from sb3_dqn_ext.versions import versions

COMMAND = "python -m sb3_dqn_ext.zoo resume"

# arguments that have an effect only at the start of a run, with their defaults
START_ONLY_ARGUMENTS = {"hyperparams": None, "optimize_hyperparameters": False, "track": False, "trained_agent": ""}

UNTRACKED = (
    "The run was started with --track and is resumed without Weights & Biases. To continue both, call "
    "wandb.init(id=..., resume='allow', sync_tensorboard=True) and then sb3_dqn_ext.__main__.main(['resume', RUN_FOLDER])."
)


def main(arguments: list[str], program: str = COMMAND) -> None:
    """
    Run the command.

    :param arguments: the arguments of its command line
    :param program: the name of the command in help and errors
    """
    parser = argparse.ArgumentParser(
        program,
        description="Continue a training run that was interrupted, to its original end.",
        epilog=f"example:\n  {program} logs/dqn_ext/CartPole-v1_1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help="such as logs/dqn_ext/CartPole-v1_1")
    parser.add_argument("-P", "--progress", action="store_true", help="show a progress bar, as train -P does")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="evaluate expressions in run.json, and import modules from the directory of the run: only for runs that you made",
    )
    options = parser.parse_args(arguments)
    try:
        _resume(os.path.normpath(options.run_folder), options.progress, options.trust)
    except (ArgumentError, CheckpointError) as error:
        sys.exit(f"{program}: {error}")


def _resume(folder: str, progress: bool, trust: bool) -> None:
    run = run_file.read(folder)
    if run.finished is not None:
        print(f"{folder} is finished: it ended at step {run.finished}.")
        return
    if run.obstacle is not None:
        raise CheckpointError(f"{folder} cannot be resumed: {run.obstacle}.")
    checkpoint_folder = os.path.join(folder, run.checkpoints or "")
    if run.checkpoints is None or not glob.glob(os.path.join(glob.escape(checkpoint_folder), "checkpoint_*.json")):
        raise CheckpointError(
            f"{folder} has no checkpoint to resume from: train with --save-freq N, which writes one every N environment steps."
        )
    for name, version in versions().items():
        if run.versions.get(name) != version:
            text = (
                f"The run was started with {name} {run.versions.get(name)} and is resumed with {version}: results may differ."
            )
            warnings.warn(text, stacklevel=2)
    if run.arguments.get("track") and getattr(sys.modules.get("wandb"), "run", None) is None:
        warnings.warn(UNTRACKED, stacklevel=2)
    with Lock(checkpoint_folder):  # held from now on, before the first checkpoint is written
        _train(folder, run, progress, trust)


def _train(folder: str, run: RunFile, progress: bool, trust: bool) -> None:
    """
    Continue the training of a run to its end, and save the model, as ``rl_zoo3.train`` does.

    :param folder: the folder of the run
    :param run: the content of its ``run.json``
    :param progress: True: show a progress bar; False: show it if the run was started with one
    :param trust: True: evaluate expressions in ``run.json``, and import modules from the directory of the run; False: check
        that the run needs neither
    :raises ArgumentError: if the environment is not registered, or the run needs trust and has none
    """
    # Not at the top: the import of the zoo takes 2.5 s and patches gymnasium. The zoo's module is first: the hook on its
    # import imports our manager, which needs that module.
    importlib.import_module("rl_zoo3.exp_manager")
    from sb3_dqn_ext.zoo.manager import ResumedManager, manager_arguments

    if trust:
        sys.path.insert(0, run.directory)
    else:
        check_untrusted_run(run)
    arguments = run.arguments | START_ONLY_ARGUMENTS
    arguments["progress"] = progress or arguments.get("progress", False)
    for module in arguments.get("gym_packages") or []:
        importlib.import_module(module)
    if run.env not in gym.registry:
        raise ArgumentError(f"env={run.env!r} is not registered in gymnasium.")
    set_random_seed(arguments.get("seed", 0))
    if arguments.get("num_threads", -1) > 0:
        th.set_num_threads(arguments["num_threads"])
    print("=" * 10, run.env, "=" * 10)
    print(f"Seed: {arguments.get('seed', 0)}")
    manager = ResumedManager(folder, run, argparse.Namespace(**arguments), **manager_arguments(arguments))
    model, _ = manager.setup_experiment()
    manager.learn(model)
    manager.save_trained_model(model)


def check_untrusted_run(run: RunFile) -> None:
    """
    Check that a run can be resumed without trust in its ``run.json``.

    :param run: the content of the file
    :raises ArgumentError: if a hyperparameter would be evaluated as Python, or names an object of a wrong class
    """
    for key in run_file.EVALUATED_HYPERPARAMETERS:
        if key != "replay_buffer_class" and isinstance(run.hyperparameters.get(key), str):
            raise ArgumentError(f"{key}={run.hyperparameters[key]!r} is an expression, which is evaluated with --trust only.")
    hint = module_not_found_hint(run)
    try:
        for module in run.arguments.get("gym_packages") or []:
            importlib.import_module(module)
        names = list(find_class_names(run.hyperparameters))
    except (ImportError, TypeError, ValueError) as error:
        raise ArgumentError(f"{str(error).rstrip('.')}. {hint}") from error
    import_classes(names, hint)
