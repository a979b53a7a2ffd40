"""
What runs have left in their folders: those of the RL Zoo, and those to which SB3's ``Monitor``, ``EvalCallback``, ``save`` and
logger wrote. No pickle is opened, and no YAML that could make objects.

Shapes: S seeds, E points in the course of training, N episodes in each.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.monitor import load_results

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.run_folder import run_file

__all__ = [
    "Curve",
    "Log",
    "Run",
    "Series",
    "evaluations",
    "event_folder",
    "final_score",
    "find_runs",
    "groups_of",
    "lifetime",
    "log_folder",
    "plain_yaml",
    "read_log",
    "read_run",
    "scalars",
    "training_episodes",
]

Array = npt.NDArray[Any]
Data = dict[str, Any]

EVENTS = "events.out.tfevents.*"
FILES = {
    "*monitor.csv": "training episodes",
    "evaluations.npz": "evaluations",
    "*.zip": "models",
    EVENTS: "TensorBoard's log",
}
ALGOS = ("dqn_ext", "dqn", "qrdqn")
LONGEST_LABEL = 60
N_LAST = 100
"""training episodes that are a score where nothing was evaluated"""


class Curve(NamedTuple):
    """Evaluations in the course of training."""

    steps: Array
    """(E,) environment steps"""
    returns: Array
    """(E, N) returns of the evaluation episodes, or (S, E) mean returns of several runs"""


class Series(NamedTuple):
    """What was logged under one name."""

    steps: Array
    """(E,) environment steps"""
    values: Array
    """(E,) numbers"""


class Log(NamedTuple):
    """What TensorBoard was told of a run."""

    scalars: dict[str, Series]
    """by name"""
    images: dict[str, bytes]
    """by name, the last of each: a file of whatever format"""
    texts: dict[str, str]
    """by name, the first of each: a run that is gone on with tells them again"""


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


# -- the files of a run ----------------------------------------------------------------------------------------------------


def evaluations(run_folder: Path | str) -> Curve:
    """
    :param run_folder: holds the ``evaluations.npz`` of SB3's ``EvalCallback``
    :return: (E,) steps and (E, N) returns
    :raises ArgumentError: if the file is damaged
    """
    path = Path(run_folder) / "evaluations.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return Curve(file["timesteps"], file["results"])
    except (BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ArgumentError(f"{path} is damaged, or holds more than the numbers of EvalCallback.") from error


def training_episodes(run_folder: Path | str) -> Curve:
    """
    :param run_folder: holds the ``monitor.csv`` files of SB3's ``Monitor``, one for each environment
    :return: (E,) environment steps at which the training episodes ended, and (E, 1) their returns
    """
    episodes = _results(run_folder)
    return Curve(np.cumsum(episodes["l"].to_numpy(dtype=int)), episodes["r"].to_numpy(dtype=float)[:, None])


def _results(run_folder: Path | str) -> Any:
    """Of the monitors; a line may have been cut off."""
    return load_results(str(run_folder)).dropna(subset=["r", "l", "t"])


def scalars(folder: Path | str) -> dict[str, Series]:
    """
    :param folder: holds TensorBoard's event files of one run
    :return: the numbers that were logged, by name. Where a run went on from before its last entries, these are left out
    """
    return read_log(folder).scalars


def read_log(folder: Path | str) -> Log:
    """
    :param folder: holds TensorBoard's event files of one run
    :return: what is in them, but for histograms
    """
    from tensorboard.backend.event_processing.event_accumulator import (
        COMPRESSED_HISTOGRAMS,
        HISTOGRAMS,
        IMAGES,
        SCALARS,
        TENSORS,
        EventAccumulator,
    )

    # 0 is all of them, 1 the last
    events = EventAccumulator(str(folder), {SCALARS: 0, IMAGES: 1, HISTOGRAMS: 1, COMPRESSED_HISTOGRAMS: 1, TENSORS: 0})
    events.Reload()
    found = {}
    for name in sorted(events.Tags()["scalars"]):
        logged = events.Scalars(name)
        steps = np.array([entry.step for entry in logged])
        latest = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.inf)  # (E,) the first step of all that follow
        stays = steps < latest
        found[name] = Series(steps[stays], np.array([entry.value for entry in logged])[stays])
    images = {name: events.Images(name)[-1].encoded_image_string for name in events.Tags()["images"]}
    tensors = {name: events.Tensors(name)[0].tensor_proto.string_val for name in events.Tags()["tensors"]}
    texts = {
        name.removesuffix("/text_summary"): strings[0].decode("utf-8", "replace")
        for name, strings in tensors.items()
        if name.endswith("/text_summary") and len(strings) == 1
    }
    return Log(found, images, texts)


def final_score(run_folder: Path | str, of_evaluations: bool) -> float:
    """
    :param run_folder: of a run
    :param of_evaluations: whether the last evaluation counts, or the last 100 training episodes
    :return: the mean of their returns
    """
    if of_evaluations:
        return float(evaluations(run_folder).returns[-1].mean())
    return float(training_episodes(run_folder).returns[-N_LAST:].mean())


def _has(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for path in folder.glob(pattern))


# -- what is known of it ---------------------------------------------------------------------------------------------------


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
    found = list(_runs_in(folder, FILES.keys() - {EVENTS})) or list(_runs_in(folder, [EVENTS]))
    if not found:
        looked_for = ", ".join(f"{pattern} ({what})" for pattern, what in FILES.items())
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
    header = _monitor_header(folder)
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
    arguments = plain_yaml(path.with_name("args.yml")) or {}
    known = {"env_id": arguments.get("env") or _registered(path.parent.name), "arguments": arguments}
    if arguments.get("algo"):
        known["algo"] = arguments["algo"]
    hyperparameters = plain_yaml(path)
    if hyperparameters is None:
        return {**known, "config": path.read_text(), "obstacle": f"{path} holds Python objects, which are not made here"}
    return {**known, "hyperparameters": hyperparameters, "config": _text(hyperparameters)}


def plain_yaml(path: Path) -> Data | None:
    """
    :param path: of a file of the zoo
    :return: what it holds; None if it is not there, or holds more than plain data in an ordered dictionary
    """
    import yaml

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
    import sb3_dqn_ext.envs  # noqa: F401  their ids

    return next((env_id for env_id in gym.registry if env_id.replace("/", "-") == name), name)


def _started_in(folder: Path, known: Data, arguments: Data) -> list[Path]:
    """Where the command may have been given."""
    if "directory" in known:
        return [Path(known["directory"])]
    log_folder = Path(arguments.get("log_folder") or "")
    above = list(folder.resolve().parents)
    depth = 1 + len(log_folder.parts)  # of LOG_FOLDER/ALGO/RUN
    return [above[depth]] if not log_folder.is_absolute() and depth < len(above) else [Path()]


def _monitor_header(folder: Path) -> Data:
    """Of the environment that was made first."""
    headers = []
    for path in folder.glob("*monitor.csv"):
        with path.open() as file:
            line = file.readline()
        if line.startswith("#"):
            headers.append(json.loads(line[1:]))
    return min(headers, key=lambda header: float(header["t_start"]), default={})


# -- its TensorBoard log ---------------------------------------------------------------------------------------------------


def log_folder(run: Run) -> Path:
    """
    :param run: a run
    :return: the folder of its event files, see :func:`event_folder`
    :raises ArgumentError: if it has no TensorBoard log, or it is not known where
    """
    folder = event_folder(run)
    if folder is None:
        places = ", ".join(map(str, run.logs))
        raise ArgumentError(f"{run.folder} has no TensorBoard log of its time in {places}: say --tensorboard FOLDER.")
    return folder


def event_folder(run: Run) -> Path | None:
    """
    :param run: a run, whose log may lie among those of others
    :return: the folder of its event files: of those that were begun in the run's time the one whose returns are its own. The
        newest, if the run has no ``monitor.csv``. None if there is none
    """
    begun: dict[Path, float] = {}
    for place in run.logs:
        for path in place.rglob(EVENTS):
            begun[path.parent] = min(begun.get(path.parent, math.inf), _time_in_name(path))
    lived = lifetime(run.folder)
    if lived is None:
        return max(begun, key=lambda folder: begun[folder], default=None)
    start, end = lived
    candidates = [folder for folder in begun if math.floor(start) <= begun[folder] <= end]
    # the zoo's logs lie in folders of their environments
    candidates = [folder for folder in candidates if folder.parent.name == run.env_id] or candidates
    if len(candidates) <= 1:
        return next(iter(candidates), None)
    episodes = training_episodes(run.folder)
    return min(candidates, key=lambda folder: _difference(scalars(folder), episodes))


def _time_in_name(path: Path) -> float:
    """When an event file was begun, in seconds."""
    part = path.name.split(".")[3]
    return float(part) if part.isdigit() else path.stat().st_mtime


def lifetime(folder: Path) -> tuple[float, float] | None:
    """
    :param folder: of a run
    :return: the time at which its environments were made, and that at which their last episode ended, which is infinite if
        none has; in seconds since 1970. None if it has no ``monitor.csv``
    """
    header = _monitor_header(folder)
    if not header:
        return None
    start = float(header["t_start"])
    seconds = _results(folder)["t"].to_numpy(dtype=float)
    return start, start + seconds.max() if len(seconds) else math.inf


def _difference(logged: Mapping[str, Series], episodes: Curve) -> float:
    """Between the mean returns that SB3 has logged and those of training episodes; infinite where none were."""
    if "rollout/ep_rew_mean" not in logged or len(episodes.steps) == 0:
        return math.inf
    steps, means = logged["rollout/ep_rew_mean"]
    ends = np.maximum(np.searchsorted(episodes.steps, steps, side="right"), 1)  # (E,) episodes that had ended
    own = [episodes.returns[max(0, end - 100) : end].mean() for end in ends]  # SB3 logs the mean of 100
    return float(np.mean(np.abs(means - own)))


# -- which of them are seeds of one another --------------------------------------------------------------------------------


def groups_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """
    :param runs: of one environment
    :return: by label, those that have the same label, or else the same algorithm, hyperparameters and arguments of the
        environment. A run of which these are not known is alone
    """
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        key = run.label or ((run.algo, run.config) if run.config else run.folder)
        groups.setdefault(key, []).append(run)
    labels: dict[str, list[Run]] = {}
    for group in groups.values():
        others = [other[0] for other in groups.values() if other[0].algo == group[0].algo and other is not group]
        label = group[0].label or _label(group[0], others)
        labels[label if label not in labels else f"{label} ({group[0].folder})"] = group
    return labels


def _label(run: Run, others: Sequence[Run]) -> str:
    """The algorithm, and the hyperparameters in which a run differs from others."""
    if not run.config:
        return run.name
    algo = run.algo or "?"
    if not others:
        return algo
    settings = [{**one.hyperparameters, **one.env_kwargs} for one in (run, *others)]
    names = sorted({name for one in settings for name in one if any(name not in o or o[name] != one[name] for o in settings)})
    text = ", ".join([algo, *(f"{name}={settings[0][name]}" for name in names if name in settings[0])])
    return text if len(text) <= LONGEST_LABEL else f"{algo}, as {run.folder.name}"
