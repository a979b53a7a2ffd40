"""What the page says in words and numbers."""

import datetime
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sb3_dqn_ext.callbacks.configuration import model_arguments
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot.intervals import rolling_mean
from sb3_dqn_ext.plot.run_files import N_SCORED_EPISODES, lifetime
from sb3_dqn_ext.report.blocks import Block, Code, Details, Fact, Facts, Heading, Table, Text
from sb3_dqn_ext.report.commands import resume_command, train_command
from sb3_dqn_ext.report.run_data import CONFIGURATION, MODEL, RunData, value_or_none
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.versions import versions

__all__ = ["command_blocks", "configuration_blocks", "return_facts", "summary_blocks", "version_blocks"]

SYSTEM_INFO_NAMES = {
    "Stable-Baselines3": "stable_baselines3",
    "Gymnasium": "gymnasium",
    "Numpy": "numpy",
    "PyTorch": "torch",
    "Python": "python",
}
"""what SB3 calls the packages in a saved model, and what we call them"""
MAX_TEXT_BYTES = 2**16  # bytes


# -- what came of it -------------------------------------------------------------------------------------------------------


def summary_blocks(data: RunData) -> Iterator[Block]:
    """What came of the run, in a few numbers."""
    found = [*return_facts(data), *_progress(data)]
    if not found:
        raise ArgumentError(f"{data.run.folder} has neither training episodes nor evaluations nor a log.")
    yield Facts(found)


def return_facts(data: RunData) -> Iterator[Fact]:
    """Mean returns of evaluations and of training."""
    if data.evaluations is not None:
        steps, found = data.evaluations
        means = found.mean(axis=1)
        best = int(means.argmax())
        yield Fact("Best evaluation", f"{means[best]:.2f}", f"mean of {found.shape[1]} episodes, at step {steps[best]:,}")
        yield Fact("Last evaluation", f"{means[-1]:.2f}", f"at step {steps[-1]:,}")
    if data.episodes is not None:
        steps, found = data.episodes
        means = rolling_mean(found[:, 0], N_SCORED_EPISODES)
        if len(means) > N_SCORED_EPISODES:
            best = (
                int(means[N_SCORED_EPISODES - 1 :].argmax()) + N_SCORED_EPISODES - 1
            )  # the mean of a few episodes is high by chance
            yield Fact(
                "Best training return", f"{means[best]:.2f}", f"mean of {N_SCORED_EPISODES} episodes, at step {steps[best]:,}"
            )
        yield Fact(
            "Last training return", f"{means[-1]:.2f}", f"mean of {min(len(means), N_SCORED_EPISODES)} episodes, which explore"
        )


def _progress(data: RunData) -> Iterator[Fact]:
    told = [data.episodes, data.evaluations, *(data.log.scalars.values() if data.log else ())]
    steps = max((int(series.steps[-1]) for series in told if series is not None and len(series.steps)), default=0)
    if steps > 0:
        yield Fact("Environment steps", f"{steps:,}", "as far as its files tell")
    if data.episodes is not None:
        yield Fact("Training episodes", f"{len(data.episodes.steps):,}", "that came to their end")
    lived = lifetime(data.run.folder)
    if lived is not None and math.isfinite(lived[1]):
        seconds = lived[1] - lived[0]
        speed = f"{steps / max(seconds, 1e-9):,.0f} steps per second"
        yield Fact("Time", str(datetime.timedelta(seconds=round(seconds))), speed)


# -- how to make it again --------------------------------------------------------------------------------------------------


def command_blocks(data: RunData) -> Iterator[Block]:
    """How to make the run again, or to go on with it."""
    yield from data.blocks("command", lambda: _command(data))
    going_on = value_or_none(data.problems, "command to go on", lambda: resume_command(data.run.folder))
    if going_on is not None:
        yield Text("It has not come to its end. This goes on with it, from its newest checkpoint:")
        yield Code(going_on, is_command=True)


def _command(data: RunData) -> Iterator[Block]:
    command = train_command(data.run)
    if command is not None:
        source = data.run.arguments.get("conf_file") or "the zoo's presets"
        note = f"What it does not name is taken from {source}. What the run was given is in the configuration below."
        yield Code(command, is_command=True)
        yield Text(note, is_note=True)
        return
    logged = None if data.log is None else data.log.texts.get("run/command")
    if logged is None:
        raise ArgumentError("it is not known. The zoo keeps it in args.yml and run.json, TensorBoardCallback in the log.")
    yield Text("As it was logged:")
    yield Code(logged.strip(), is_command=True)


# -- what it was -----------------------------------------------------------------------------------------------------------


def configuration_blocks(data: RunData) -> Iterator[Block]:
    """Hyperparameters, environment and arguments."""
    run, model = data.run, data.model
    if CONFIGURATION in data.problems:
        yield data.missing(CONFIGURATION)
    yield Heading("Hyperparameters")
    if run.hyperparameters:
        yield Table(["name", "value"], {name: [_shown(value)] for name, value in run.hyperparameters.items()})
    elif run.config:
        yield Text("They hold Python objects, which are not made here:")
        yield Code(run.config[:MAX_TEXT_BYTES])
    if model is None:
        yield data.missing(MODEL)
    if model is not None and data.model_file is not None:
        arguments = Table(["argument", "value"], {name: [_shown(value)] for name, value in model_arguments(model).items()})
        summary = f"All arguments of the model in {data.model_file.name}"
        yield Details(summary, arguments, is_open=not (run.hyperparameters or run.config))
    yield Heading("Environment")
    yield Table(["", "value"], {name: [_shown(value)] for name, value in _environment(data).items() if value})


def _environment(data: RunData) -> dict[str, Any]:
    run, model = data.run, data.model
    found: dict[str, Any] = {"id": run.env_id or "unknown", "arguments": run.env_kwargs}
    names = ("n_envs", "env_wrapper", "vec_env_wrapper", "frame_stack", "normalize")
    found |= {name: run.hyperparameters.get(name) for name in names}
    return found if model is None else {**found, "observations": model.observation_space, "actions": model.action_space}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def version_blocks(data: RunData) -> Iterator[Block]:
    """What the run was made with, beside what is here now where that differs."""
    then, now = _versions_then(data), versions()
    if not then:
        raise ArgumentError("neither run.json nor a model tells them.")
    if any(now.get(name, version) != version for name, version in then.items()):
        yield Table(["package", "of the run", "of this page"], {name: [then[name], now.get(name, "")] for name in then})
    else:
        yield Table(["package", "version"], {name: [version] for name, version in then.items()})


def _versions_then(data: RunData) -> dict[str, str]:
    path, folder = data.model_file, data.run.folder
    found: dict[str, str] = {}
    if (folder / "run.json").is_file():
        found = value_or_none(data.problems, "versions in run.json", lambda: run_file.read(folder).versions) or {}
    if path is not None:
        saved = value_or_none(data.problems, f"versions in {path.name}", lambda: _system(path)) or {}
        found |= {name: version for name, version in saved.items() if name not in found}
    return found


def _system(model_file: Path) -> dict[str, str]:
    with zipfile.ZipFile(model_file) as archive, archive.open("system_info.txt") as file:
        lines = file.read(MAX_TEXT_BYTES).decode("utf-8", "replace").splitlines()
    pairs = [line.removeprefix("- ").partition(": ") for line in lines if ": " in line]
    return {SYSTEM_INFO_NAMES.get(name, name): value for name, _, value in pairs}
