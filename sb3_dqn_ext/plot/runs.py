"""
Find run folders of the RL Zoo and of SB3, and read their configurations. No pickle is opened, and no YAML file makes Python
objects.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot.run_files import monitor_header
from sb3_dqn_ext.run_folder import run_file

__all__ = ["ALGOS", "EVENT_FILES", "Run", "find_runs", "read_plain_yaml", "read_run"]

Data = dict[str, Any]

EVENT_FILES = "events.out.tfevents.*"
RUN_FILES = {
    "*monitor.csv": "training episodes",
    "evaluations.npz": "evaluations",
    "*.zip": "models",
    EVENT_FILES: "TensorBoard's log",
}
ALGOS = ("dqn_ext", "dqn", "qrdqn")


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder and the configuration of the run."""

    folder: Path
    env_id: str | None = None
    algo: str | None = None
    """The name of the algorithm in the zoo."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """The hyperparameters that the zoo read."""
    config: str = ""
    """A text that is the same for runs that differ only in their seeds; empty if the configuration is unknown."""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the environment, from the command line or the YAML file."""
    obstacle: str | None = None
    """The reason why the environment cannot be made again, if there is one."""
    logs: tuple[Path, ...] = ()
    """Folders that can contain the TensorBoard log of the run."""
    label: str = ""
    """The label of the curve; empty: a label is made from the configuration."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the zoo's command, with the seed that was drawn; those in ``run.json`` have no hyperparameters."""

    @property
    def name(self) -> str:
        """The name of the run folder, with that of the algorithm's folder around it."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}" if folder.parent.name in ALGOS else folder.name


def find_runs(folder: Path | str, argument: str = "RUN_FOLDERS") -> list[Path]:
    """
    Find the run folders in a folder. Folders that contain only TensorBoard logs are found if there are no other run folders.

    :param folder: a run folder, or a folder with run folders at any depth
    :param argument: the name of the argument in the error message
    :return: the run folders, sorted by their paths. A folder in a run folder is not searched
    :raises ArgumentError: if ``folder`` is no folder, or contains no run folder
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArgumentError(f"{argument}={str(folder)!r} must be a folder, and there is none of that name.")
    found = list(_runs_in(folder, RUN_FILES.keys() - {EVENT_FILES})) or list(_runs_in(folder, [EVENT_FILES]))
    if not found:
        patterns = ", ".join(f"{pattern} ({what})" for pattern, what in RUN_FILES.items())
        raise ArgumentError(f"{argument}={str(folder)!r} contains no data of a run: there is none of {patterns}.")
    return found


def _runs_in(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    if any(_has(folder, pattern) for pattern in patterns):
        yield folder
        return
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from _runs_in(child, patterns)


def read_run(folder: Path | str, tensorboard: Path | str | None = None, label: str = "") -> Run:
    """
    Read the configuration of a run from ``run.json``, the zoo's ``config.yml`` and ``args.yml``, and ``monitor.csv``.

    :param folder: the run folder
    :param tensorboard: the folder of the TensorBoard logs, if the run folder does not name it
    :param label: the label of its curve
    """
    folder = Path(folder)
    of_run = _from_run_json(folder) or _from_zoo(folder) or {}
    arguments = of_run.pop("arguments", {})
    header = monitor_header(folder)
    parent = folder.resolve().parent.name
    fields = {"env_id": header.get("env_id"), "algo": parent if parent in ALGOS else None, **of_run}
    # as the zoo's own commands: those of the command line replace those of the YAML file
    fields["env_kwargs"] = arguments.get("env_kwargs") or fields.get("hyperparameters", {}).get("env_kwargs") or {}
    fields["arguments"] = arguments
    if fields.get("config"):
        fields["config"] += _text(fields["env_kwargs"])
    places = [folder] if tensorboard is None else [folder, Path(tensorboard)]
    if arguments.get("tensorboard_log"):
        places += [place / arguments["tensorboard_log"] for place in _started_in(folder, of_run, arguments)]
    fields.pop("directory", None)
    return Run(folder, logs=tuple(places), label=label, **fields)


def _from_run_json(folder: Path) -> Data | None:
    if not (folder / "run.json").is_file():
        return None
    run = run_file.read(folder)
    fields = {"env_id": run.env, "algo": "dqn_ext", "arguments": run.arguments, "directory": run.directory}
    if not run.hyperparameters:  # they could not be stored there
        return {**(_from_zoo(folder) or {}), **fields}
    return {**fields, "hyperparameters": run.hyperparameters, "config": _text(run.hyperparameters)}


def _from_zoo(folder: Path) -> Data | None:
    files = list(folder.glob("*/config.yml"))
    if len(files) != 1:
        return None
    (path,) = files
    arguments = read_plain_yaml(path.with_name("args.yml")) or {}
    fields = {"env_id": arguments.get("env") or _registered_id(path.parent.name), "arguments": arguments}
    if arguments.get("algo"):
        fields["algo"] = arguments["algo"]
    hyperparameters = read_plain_yaml(path)
    if hyperparameters is None:
        return {**fields, "config": path.read_text(), "obstacle": f"{path} contains Python objects, which are not loaded"}
    return {**fields, "hyperparameters": hyperparameters, "config": _text(hyperparameters)}


def read_plain_yaml(path: Path) -> Data | None:
    """
    Read a YAML file of the zoo without making Python objects.

    :param path: the file
    :return: its data; None if it is missing, or contains more than plain data in an ordered dictionary
    """

    class Loader(yaml.SafeLoader):
        """A loader that makes no Python objects."""

    tag = "tag:yaml.org,2002:python/"

    def ordered(loader: Loader, node: Any) -> Data:
        return dict(*loader.construct_sequence(node, deep=True))

    def tuple_of(loader: Loader, node: Any) -> tuple[Any, ...]:
        return tuple(loader.construct_sequence(node, deep=True))

    Loader.add_constructor(f"{tag}object/apply:collections.OrderedDict", ordered)
    Loader.add_constructor(f"{tag}tuple", tuple_of)
    try:
        data = yaml.load(path.read_text(), Loader)
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return None
    return data if isinstance(data, dict) else None


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, default=str)


def _registered_id(name: str) -> str:
    """Return the id of the environment from which the zoo has made the name of a folder."""
    return next((env_id for env_id in gym.registry if env_id.replace("/", "-") == name), name)


def _started_in(folder: Path, fields: Data, arguments: Data) -> list[Path]:
    """Return directories in which the command may have been started."""
    if "directory" in fields:
        return [Path(fields["directory"])]
    log_folder = Path(arguments.get("log_folder") or "")
    above = list(folder.resolve().parents)
    depth = 1 + len(log_folder.parts)  # of LOG_FOLDER/ALGO/RUN
    return [above[depth]] if not log_folder.is_absolute() and depth < len(above) else [Path()]


def _has(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for path in folder.glob(pattern))
