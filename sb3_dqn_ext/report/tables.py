"""The sections with text and tables: summary, command, configuration and versions."""

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
"""The names of packages in files of SB3, and their names in the page."""
MAX_TEXT_BYTES = 2**16  # bytes


# -- summary ---------------------------------------------------------------------------------------------------------------


def summary_blocks(data: RunData) -> Iterator[Block]:
    """Make the section with the results of the run in numbers."""
    found = [*return_facts(data), *_progress(data)]
    if not found:
        raise ArgumentError(f"{data.run.folder} has neither training episodes nor evaluations nor a log.")
    yield Facts(found)


def return_facts(data: RunData) -> Iterator[Fact]:
    """Make facts on the mean returns of evaluations and of training."""
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
            )  # means of fewer episodes can be high by chance
            yield Fact(
                "Best training return", f"{means[best]:.2f}", f"mean of {N_SCORED_EPISODES} episodes, at step {steps[best]:,}"
            )
        yield Fact(
            "Last training return", f"{means[-1]:.2f}", f"mean of {min(len(means), N_SCORED_EPISODES)} episodes, which explore"
        )


def _progress(data: RunData) -> Iterator[Fact]:
    curves = [data.episodes, data.evaluations, *(data.log.scalars.values() if data.log else ())]
    steps = max((int(curve.steps[-1]) for curve in curves if curve is not None and len(curve.steps)), default=0)
    if steps > 0:
        yield Fact("Environment steps", f"{steps:,}", "at the last entry of its files")
    if data.episodes is not None:
        yield Fact("Training episodes", f"{len(data.episodes.steps):,}", "that are finished")
    lived = lifetime(data.run.folder)
    if lived is not None and math.isfinite(lived[1]):
        seconds = lived[1] - lived[0]
        speed = f"{steps / max(seconds, 1e-9):,.0f} steps per second"
        yield Fact("Time", str(datetime.timedelta(seconds=round(seconds))), speed)


# -- command ---------------------------------------------------------------------------------------------------------------


def command_blocks(data: RunData) -> Iterator[Block]:
    """Make the section with the command that trains the run again, and the command that continues it."""
    yield from data.blocks("command", lambda: _command(data))
    resume = value_or_none(data.problems, "command to continue", lambda: resume_command(data.run.folder))
    if resume is not None:
        yield Text("The run has not ended. This command continues it from its newest checkpoint:")
        yield Code(resume, is_command=True)


def _command(data: RunData) -> Iterator[Block]:
    command = train_command(data.run)
    if command is not None:
        source = data.run.arguments.get("conf_file") or "the zoo's presets"
        note = f"Other values are taken from {source}. The configuration below has all values of the run."
        yield Code(command, is_command=True)
        yield Text(note, is_note=True)
        return
    logged = None if data.log is None else data.log.texts.get("run/command")
    if logged is None:
        raise ArgumentError("it is unknown. The zoo stores it in args.yml and run.json, TensorBoardCallback in the log.")
    yield Text("The command in the log:")
    yield Code(logged.strip(), is_command=True)


# -- configuration ---------------------------------------------------------------------------------------------------------


def configuration_blocks(data: RunData) -> Iterator[Block]:
    """Make the section with hyperparameters, arguments and environment."""
    run, model = data.run, data.model
    if CONFIGURATION in data.problems:
        yield data.missing(CONFIGURATION)
    yield Heading("Hyperparameters")
    if run.hyperparameters:
        yield Table(["name", "value"], {name: [_text(value)] for name, value in run.hyperparameters.items()})
    elif run.config:
        yield Text("The configuration contains Python objects, which are shown as text:")
        yield Code(run.config[:MAX_TEXT_BYTES])
    if model is None:
        yield data.missing(MODEL)
    if model is not None and data.model_file is not None:
        arguments = Table(["argument", "value"], {name: [_text(value)] for name, value in model_arguments(model).items()})
        summary = f"All arguments of the model in {data.model_file.name}"
        yield Details(summary, arguments, is_open=not (run.hyperparameters or run.config))
    yield Heading("Environment")
    yield Table(["", "value"], {name: [_text(value)] for name, value in _environment(data).items() if value})


def _environment(data: RunData) -> dict[str, Any]:
    run, model = data.run, data.model
    found: dict[str, Any] = {"id": run.env_id or "unknown", "arguments": run.env_kwargs}
    names = ("n_envs", "env_wrapper", "vec_env_wrapper", "frame_stack", "normalize")
    found |= {name: run.hyperparameters.get(name) for name in names}
    return found if model is None else {**found, "observations": model.observation_space, "actions": model.action_space}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def version_blocks(data: RunData) -> Iterator[Block]:
    """Make the section with the package versions of the run, beside the present ones if they differ."""
    then, now = _versions_then(data), versions()
    if not then:
        raise ArgumentError("neither run.json nor a model contains them.")
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
