"""Subclasses of the zoo's ``ExperimentManager`` with which a training run of ``dqn_ext`` can be resumed."""

import argparse
import functools
import inspect
import os
import shlex
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pprint import pprint
from typing import Any

from rl_zoo3 import exp_manager
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext._validation import resolve_class
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback
from sb3_dqn_ext.checkpoint.envs import add_replay_wrapper
from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.run_folder.run_file import RunFile
from sb3_dqn_ext.versions import versions
from sb3_dqn_ext.zoo.config import ALGO, check_source, default_config, has_own_block
from sb3_dqn_ext.zoo.models import allow_classes_of_pretrained_model
from sb3_dqn_ext.zoo.network_choice import network_arguments

Hyperparameters = dict[str, Any]

OVERRIDDEN_METHODS = (
    *("read_hyperparameters", "setup_experiment", "create_log_folder", "create_callbacks", "create_envs"),
    *("learn", "save_trained_model"),
    *("_load_pretrained_agent", "_preprocess_action_noise", "_save_config"),
)
"""methods of the zoo's manager that the classes of this module override"""


# arguments of the zoo's manager that have another name on the command line
COMMAND_LINE_NAMES = {
    "config": "conf_file",
    "n_eval_episodes": "eval_episodes",
    "show_progress": "progress",
    "vec_env_type": "vec_env",
}


def manager_arguments(command_line: Mapping[str, Any]) -> dict[str, Any]:
    """
    Select the arguments of a command line that the zoo's manager takes.

    :param command_line: the arguments of ``rl_zoo3.train`` by name
    :return: the arguments of the manager by its own names, without ``args``, ``algo`` and ``env_id``
    """
    names = inspect.signature(ExperimentManager).parameters.keys() - {"args", "algo", "env_id"}
    by_name = {name: COMMAND_LINE_NAMES.get(name, name) for name in names}
    return {name: command_line[other] for name, other in by_name.items() if other in command_line}


def is_supported_manager(manager: type) -> bool:
    """
    Return whether a manager has the methods and the arguments that the classes of this module need.

    :param manager: the zoo's ``ExperimentManager``, which may differ in other versions of the zoo
    """
    arguments = inspect.signature(manager).parameters.keys()
    return {"algo", "config"} <= arguments and all(hasattr(manager, name) for name in OVERRIDDEN_METHODS)


class TrainingEnd(BaseCallback):
    """A callback that records whether training ended regularly: the zoo's ``learn`` also returns after an interrupt."""

    reached = False
    """whether training has ended"""

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.reached = True


class DQNExtManager(ExperimentManager):
    """
    A manager that writes a ``run.json`` for runs of ``dqn_ext``, and an exact checkpoint every ``--save-freq`` steps.

    For other algorithms, and for searches of hyperparameters, it does the same as the zoo's manager.

    :param args: the arguments of the command line
    :param algo: the name of the algorithm
    :param env_id: the environment
    :param arguments: further positional arguments of the zoo's manager
    :param options: further keyword arguments of the zoo's manager
    """

    def __init__(self, args: argparse.Namespace, algo: str, env_id: str, *arguments: Any, **options: Any) -> None:
        if algo == ALGO and not options.get("config"):
            options["config"] = default_config()
        super().__init__(args, algo, env_id, *arguments, **options)
        self.writes_run_file = algo == ALGO and not self.optimize_hyperparameters
        self.stored_hyperparameters: Hyperparameters = {}
        self.obstacle: str | None = None
        """the reason why the run cannot be resumed; None: it can"""
        self.checkpoints: str | None = None
        """the folder of exact checkpoints, relative to the run folder; None: no checkpoints"""
        self.envs_per_call = 1
        """the environments of the training whose steps are one call of a callback, relative to ``n_envs``"""
        self.run: RunFile | None = None
        self.training_end = TrainingEnd()
        self.made_folder = False
        """whether this process has made the run folder"""

    def read_hyperparameters(self) -> tuple[Hyperparameters, Hyperparameters]:
        """Check the file of hyperparameters, and store them as plain data before the zoo builds objects from them."""
        if self.algo == ALGO:
            check_source(self.config)
        env_id = str(self.env_name.gym_id)
        if self.config == default_config() and not (self._is_atari or has_own_block(env_id)):
            print(f"{env_id} has no block: the default block is used. `sb3-dqn-ext advise {env_id}` prints a tailored one.")
        try:
            hyperparameters, saved = super().read_hyperparameters()
        except KeyError as error:
            if error.args != ("atari",):
                raise
            raise ArgumentError(f"conf={self.config!r} has no block {env_id!r}, and none of the name 'atari'.") from None
        self._count_environments(hyperparameters)
        if self.writes_run_file:
            self._store_hyperparameters(saved)
        return hyperparameters, saved

    def setup_experiment(self) -> tuple[BaseAlgorithm, Hyperparameters] | None:
        """
        Set up the run as the zoo does. After an error, the folder that the zoo has made is removed, at which ``enjoy`` and
        ``record_video`` would look for the newest model.

        :return: the model and its hyperparameters; None: a search
        """
        try:
            results: tuple[BaseAlgorithm, Hyperparameters] | None = super().setup_experiment()
        except BaseException:
            if self.made_folder and not os.path.exists(os.path.join(self.save_path, run_file.FILE_NAME)):
                shutil.rmtree(self.save_path, ignore_errors=True)
            raise
        model = None if results is None else results[0]
        if isinstance(model, DQNExt) and self.n_timesteps <= model.learning_starts:
            starts = model.learning_starts
            print(
                f"n_timesteps={self.n_timesteps} is not greater than learning_starts={starts}, the steps before any training."
            )
        return results

    def create_log_folder(self) -> None:
        """Make the run folder, unless another run has made it at the same time."""
        if self.algo == ALGO:
            os.makedirs(os.path.dirname(os.path.abspath(self.save_path)), exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self.save_path)
                self.made_folder = True
        super().create_log_folder()  # type: ignore[no-untyped-call]

    def _count_environments(self, hyperparameters: Mapping[str, Any]) -> None:
        actors = hyperparameters.get("actors")
        if self.algo == ALGO and isinstance(actors, Mapping):
            self.envs_per_call = actors.get("envs_per_actor", 1)

    def _store_hyperparameters(self, hyperparameters: Hyperparameters) -> None:
        if self.continue_training:
            self.obstacle = "it was started from a trained agent (-i), which its checkpoints do not contain"
        try:
            self.stored_hyperparameters = run_file.evaluate_and_encode(hyperparameters, vars(exp_manager))
        except Exception as error:  # any error of an expression; the zoo will evaluate it again and raise it
            self.obstacle = self.obstacle or f"its hyperparameters cannot be stored: {error}"

    def _preprocess_action_noise(
        self, hyperparams: Hyperparameters, saved_hyperparams: Hyperparameters, env: VecEnv
    ) -> Hyperparameters:
        """
        Choose the policy if the configuration has none. The zoo calls this method between the construction of the environments
        and that of the model.
        """
        if self.algo == ALGO and "policy" not in hyperparams:
            # A search replaces policy_kwargs, and with them an encoder.
            kwargs = hyperparams.get("policy_kwargs") or {}
            chosen = network_arguments(env.observation_space, kwargs, not self.optimize_hyperparameters)
            print(f"The configuration has no policy. For {env.observation_space}: {chosen}")
            for arguments in (hyperparams, saved_hyperparams):
                arguments.update(chosen)
            if self.stored_hyperparameters:
                self.stored_hyperparameters |= run_file.encode(chosen)
        return dict(super()._preprocess_action_noise(hyperparams, saved_hyperparams, env))

    def create_callbacks(self) -> None:
        """Create the zoo's callbacks, and one for exact checkpoints unless the configuration contains one."""
        added = self._add_checkpoints() if self.writes_run_file else []
        n_envs = self.n_envs
        self.n_envs = n_envs * self.envs_per_call  # the zoo divides the intervals of callbacks by it
        super().create_callbacks()  # type: ignore[no-untyped-call]
        self.n_envs = n_envs
        self.callbacks.extend(added)

    def _add_checkpoints(self) -> list[ExactCheckpointCallback]:
        """Move the checkpoints into the run folder, and return the callbacks to add: one, or none."""
        named = [one for one in all_callbacks(self.callbacks) if isinstance(one, ExactCheckpointCallback)]
        added = [ExactCheckpointCallback(self.save_freq, "checkpoints")] if not named and self.save_freq > 0 else []
        callbacks = named + added
        self.checkpoints = callbacks[0].path if callbacks else None
        for callback in callbacks:
            callback.path = os.path.join(self.save_path, callback.path)
        return added

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """
        Create environments. If the run writes checkpoints, each single environment is wrapped in a ReplayWrapper, which makes
        its state storable.

        :param n_envs: the number of environments
        :param eval_env: whether the environments are for evaluation
        :param no_log: whether the environments write no monitor files
        """
        wrapper = self.env_wrapper
        if self.algo == ALGO and not vars(self.args).get("eval_env_kwargs"):
            self.eval_env_kwargs = self.env_kwargs  # the zoo would leave out env_kwargs of the configuration
        if self.checkpoints is not None:
            self.env_wrapper = functools.partial(add_replay_wrapper, wrapper=wrapper)
        try:
            return super().create_envs(n_envs, eval_env, no_log)
        finally:
            self.env_wrapper = wrapper

    def _load_pretrained_agent(self, hyperparams: Hyperparameters, env: VecEnv) -> BaseAlgorithm:
        """Load the model of ``train -i``, whose file may name classes of both runs."""
        if self.writes_run_file:
            allow_classes_of_pretrained_model(self.trained_agent, self.stored_hyperparameters)
        return super()._load_pretrained_agent(hyperparams, env)

    def _save_config(self, saved_hyperparams: Hyperparameters) -> None:
        super()._save_config(saved_hyperparams)
        if self.writes_run_file:
            self.run = self._run_file()
            run_file.write(self.save_path, self.run)
            self._name_resume_command()
            if self.run.checkpoints is not None and self.run.obstacle is not None:
                text = f"`python -m sb3_dqn_ext.zoo resume` will not continue this run: {self.run.obstacle}."
                warnings.warn(text, stacklevel=2)

    def _name_resume_command(self) -> None:
        """Let the messages of the callbacks that write checkpoints name the command that continues the run."""
        if self.run is not None and self.run.obstacle is None:
            for callback in all_callbacks(self.callbacks):
                if isinstance(callback, ExactCheckpointCallback):
                    callback.resume_command = f"sb3-dqn-ext resume {shlex.quote(self.save_path)}"

    def _run_file(self) -> RunFile:
        """Return the content of ``run.json`` for this run."""
        arguments = {key: value for key, value in vars(self.args).items() if key != "hyperparams"}
        if arguments.get("tensorboard_log"):
            arguments["tensorboard_log"] = os.path.abspath(arguments["tensorboard_log"])
        try:
            arguments = run_file.encode(arguments)
        except TypeError as error:
            arguments, self.obstacle = {}, f"its arguments cannot be stored: {error}"
        return RunFile(
            env=str(self.env_name.gym_id),
            directory=os.getcwd(),
            arguments=arguments,
            hyperparameters=self.stored_hyperparameters,
            checkpoints=self.checkpoints,
            obstacle=self.obstacle,
            finished=None,
            versions=versions(),
        )

    def learn(self, model: BaseAlgorithm) -> None:
        """Train the model, and record whether training ended regularly."""
        if self.checkpoints is not None:
            self.callbacks.append(
                self.training_end
            )  # not at index 0: after an interrupt, the zoo ends the first callback itself
        super().learn(model)

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """Save the model, and mark the run as finished if training ended regularly."""
        super().save_trained_model(model)
        if self.run is not None and self.training_end.reached:
            run_file.mark_finished(self.save_path, self.run, model.num_timesteps)


class ResumedManager(DQNExtManager):
    """
    A manager that resumes a run from its newest checkpoint, in the folder of the run.

    :param folder: the run folder
    :param run: the content of its ``run.json``
    :param args: the arguments of the command line
    :param options: keyword arguments of the zoo's manager
    """

    def __init__(self, folder: str, run: RunFile, args: argparse.Namespace, **options: Any) -> None:
        super().__init__(args, ALGO, run.env, **options)
        self.save_path = folder
        self.params_path = f"{folder}/{self.env_name}"
        self.resumed_run = run

    def read_hyperparameters(self) -> tuple[Hyperparameters, Hyperparameters]:
        """Return the hyperparameters in ``run.json``."""
        hyperparameters = run_file.decode(self.resumed_run.hyperparameters)
        replay = hyperparameters.get("replay_buffer_class")
        if isinstance(replay, str) and "." in replay:
            hyperparameters["replay_buffer_class"] = resolve_class("replay_buffer_class", replay, {})
        self._count_environments(hyperparameters)
        print(f"Resuming {self.save_path}")
        pprint(hyperparameters)
        return hyperparameters, OrderedDict(hyperparameters)

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """Create environments whose monitors append to the files of episodes of the run."""
        self.monitor_kwargs = {**self.monitor_kwargs, "override_existing": False}
        return super().create_envs(n_envs, eval_env, no_log)

    def _save_config(self, saved_hyperparams: Hyperparameters) -> None:
        """Keep the configuration files of the run unchanged."""
        self.run = self.resumed_run
        self._name_resume_command()
        print(f"Log path: {self.save_path}")

    def setup_experiment(self) -> tuple[BaseAlgorithm, Hyperparameters]:
        """
        Set up the run as the zoo does, load the newest checkpoint into the model, and print its step.

        :return: the model and its hyperparameters
        """
        results = super().setup_experiment()
        assert results is not None, "a resumed run is not a search"
        model, hyperparameters = results
        assert isinstance(model, DQNExt)
        model.resume(os.path.join(self.save_path, str(self.resumed_run.checkpoints)))
        print(f"From step {model.num_timesteps} of {self.n_timesteps}")
        return model, hyperparameters
