"""The commands that train a run again or continue it."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sb3_dqn_ext.plot.runs import Run, read_plain_yaml
from sb3_dqn_ext.run_folder import run_file

__all__ = ["OPTION_DEFAULTS", "resume_command", "train_command"]

OPTION_DEFAULTS: dict[str, Any] = {
    "algo": None,
    "env": None,
    "conf_file": None,
    "hyperparams": None,
    "env_kwargs": None,
    "eval_env_kwargs": None,
    "gym_packages": [],
    "n_timesteps": -1,
    "seed": -1,
    "eval_freq": 25000,
    "eval_episodes": 5,
    "n_eval_envs": 1,
    "save_freq": -1,
    "save_replay_buffer": False,
    "trained_agent": "",
    "log_folder": "logs",
    "tensorboard_log": "",
    "log_interval": -1,
    "vec_env": "dummy",
    "device": "auto",
    "num_threads": -1,
    "verbose": 1,
    "progress": False,
    "uuid": False,
}
"""The options of the zoo's training command and their defaults, without those for tracking and hyperparameter search."""


def train_command(run: Run) -> str | None:
    """
    Return the command that trains a run again, in several lines.

    :param run: a run of the zoo
    :return: the command; None if the algorithm, the environment or the arguments of the run are unknown
    """
    arguments = {**run.arguments, "algo": run.algo, "env": run.env_id}
    if not run.arguments or run.algo is None or run.env_id is None:
        return None
    if "hyperparams" not in arguments:  # run.json has the resulting hyperparameters instead of this argument
        files = list(run.folder.glob("*/args.yml"))
        given = read_plain_yaml(files[0]) if len(files) == 1 else None
        more = {"hyperparams": run.hyperparameters} if given is None else given
        arguments |= {name: more[name] for name in ("hyperparams", "tensorboard_log") if name in more}
    options = [_option(name, arguments[name]) for name in OPTION_DEFAULTS if _is_given(name, arguments)]
    lines = [["python", "-m", "rl_zoo3.train", *options[0], *options[1]], *options[2:]]
    return " \\\n    ".join(shlex.join(words) for words in lines)


def _is_given(name: str, arguments: Mapping[str, Any]) -> bool:
    return name in arguments and arguments[name] not in (OPTION_DEFAULTS[name], None, {})


def _option(name: str, value: Any) -> list[str]:
    return [f"--{name.replace('_', '-')}", *_words(value)]


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (f"{key}:{item!r}" for key, item in value.items())
    elif isinstance(value, list):
        yield from map(str, value)
    elif value is not True:
        yield str(value)


def resume_command(folder: Path) -> str | None:
    """
    Return the command that continues a run.

    :param folder: the run folder
    :return: the command, None if the run has ended or cannot be continued
    """
    if not (folder / "run.json").is_file():
        return None
    run = run_file.read(folder)
    if run.checkpoints is None or run.finished is not None or run.obstacle is not None:
        return None
    if not any((folder / run.checkpoints).glob("checkpoint_*.json")):
        return None
    return shlex.join(["python", "-m", "sb3_dqn_ext.zoo", "resume", str(folder)])
