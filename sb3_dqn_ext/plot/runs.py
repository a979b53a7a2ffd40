"""
Run folders, and what is known of their runs: those of the RL Zoo, and those to which SB3 wrote. No pickle is opened, and no
YAML that could make objects.
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
    """A run folder, and what is known of the run."""

    folder: Path
    env_id: str | None = None
    algo: str | None = None
    """as the zoo calls it"""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """as the zoo read them"""
    config: str = ""
    """all that makes the run another one than its neighbours, but for the seed; empty if that is not known"""
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    obstacle: str | None = None
    """why its environment cannot be made again, if it cannot"""
    logs: tuple[Path, ...] = ()
    """folders in or below which its TensorBoard log may be"""
    label: str = ""
    """what its curve is called, if that was said"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """of the zoo's command, with the seed that was drawn; those of ``run.json`` are without hyperparameters"""

    @property
    def name(self) -> str:
        """Of the folder, and of that of the algorithm around it."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}" if folder.parent.name in ALGOS else folder.name


def find_runs(folder: Path | str, argument: str = "RUN_FOLDERS") -> list[Path]:
    """
    :param folder: a run folder, or one that holds some, however deep
    :param argument: what it is called where it was given, for the message
    :return: the run folders
    :raises ArgumentError: if there is none
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArgumentError(f"{argument}={str(folder)!r} must be a folder, and there is none of that name.")
    found = list(_runs_in(folder, RUN_FILES.keys() - {EVENT_FILES})) or list(_runs_in(folder, [EVENT_FILES]))
    if not found:
        looked_for = ", ".join(f"{pattern} ({what})" for pattern, what in RUN_FILES.items())
        raise ArgumentError(f"{argument}={str(folder)!r} holds nothing that can be drawn: there is none of {looked_for}.")
    return found


def _runs_in(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    if any(_has(folder, pattern) for pattern in patterns):
        yield folder
        return
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from _runs_in(child, patterns)


def read_run(folder: Path | str, tensorboard: Path | str | None = None, label: str = "") -> Run:
    """
    :param folder: of the run
    :param tensorboard: where TensorBoard's logs are, if the run does not tell
    :param label: what its curve is called
    :return: what is known of it, from ``run.json``, the zoo's ``config.yml`` and ``args.yml``, and ``monitor.csv``
    """
    folder = Path(folder)
    of_run = _from_run_json(folder) or _from_zoo(folder) or {}
    arguments = of_run.pop("arguments", {})
    header = monitor_header(folder)
    parent = folder.resolve().parent.name
    known = {"env_id": header.get("env_id"), "algo": parent if parent in ALGOS else None, **of_run}
    known["env_kwargs"] = arguments.get("env_kwargs") or {}
    known["arguments"] = arguments
    if known.get("config"):
        known["config"] += _text(known["env_kwargs"])
    places = [folder] if tensorboard is None else [folder, Path(tensorboard)]
    if arguments.get("tensorboard_log"):
        places += [place / arguments["tensorboard_log"] for place in _started_in(folder, of_run, arguments)]
    known.pop("directory", None)
    return Run(folder, logs=tuple(places), label=label, **known)


def _from_run_json(folder: Path) -> Data | None:
    if not (folder / "run.json").is_file():
        return None
    run = run_file.read(folder)
    known = {"env_id": run.env, "algo": "dqn_ext", "arguments": run.arguments, "directory": run.directory}
    if not run.hyperparameters:  # they could not be stored there
        return {**(_from_zoo(folder) or {}), **known}
    return {**known, "hyperparameters": run.hyperparameters, "config": _text(run.hyperparameters)}


def _from_zoo(folder: Path) -> Data | None:
    files = list(folder.glob("*/config.yml"))
    if len(files) != 1:
        return None
    (path,) = files
    arguments = read_plain_yaml(path.with_name("args.yml")) or {}
    known = {"env_id": arguments.get("env") or _registered(path.parent.name), "arguments": arguments}
    if arguments.get("algo"):
        known["algo"] = arguments["algo"]
    hyperparameters = read_plain_yaml(path)
    if hyperparameters is None:
        return {**known, "config": path.read_text(), "obstacle": f"{path} holds Python objects, which are not made here"}
    return {**known, "hyperparameters": hyperparameters, "config": _text(hyperparameters)}


def read_plain_yaml(path: Path) -> Data | None:
    """
    :param path: of a file of the zoo
    :return: what it holds; None if it is not there, or holds more than plain data in an ordered dictionary
    """

    class Loader(yaml.SafeLoader):
        """Makes no objects."""

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


def _registered(name: str) -> str:
    """The id of an environment of which the zoo has made a folder's name."""
    return next((env_id for env_id in gym.registry if env_id.replace("/", "-") == name), name)


def _started_in(folder: Path, known: Data, arguments: Data) -> list[Path]:
    """Where the command may have been given."""
    if "directory" in known:
        return [Path(known["directory"])]
    log_folder = Path(arguments.get("log_folder") or "")
    above = list(folder.resolve().parents)
    depth = 1 + len(log_folder.parts)  # of LOG_FOLDER/ALGO/RUN
    return [above[depth]] if not log_folder.is_absolute() and depth < len(above) else [Path()]


def _has(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for path in folder.glob(pattern))
