"""What the page says in words and numbers."""

import datetime
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sb3_dqn_ext.callbacks.configuration import arguments_of
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot import runs
from sb3_dqn_ext.plot.intervals import rolling_mean
from sb3_dqn_ext.plot.runs import N_LAST
from sb3_dqn_ext.report.commands import resume_command, train_command
from sb3_dqn_ext.report.page import Html, code, element, joined, table, together
from sb3_dqn_ext.report.run_data import CONFIGURATION, MODEL, Known, attempted
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.versions import versions

__all__ = ["commands", "configuration", "facts", "packages", "returns"]

SYSTEM = {
    "Stable-Baselines3": "stable_baselines3",
    "Gymnasium": "gymnasium",
    "Numpy": "numpy",
    "PyTorch": "torch",
    "Python": "python",
}
"""what SB3 calls the packages in a saved model, and what we call them"""
MAX_TEXT = 2**16  # bytes

Fact = tuple[str, str, str]
"""what it is, how much, and what there is to say of it"""


# -- what came of it -------------------------------------------------------------------------------------------------------


def facts(known: Known) -> Html:
    """What came of the run, in a few numbers."""
    found = [*returns(known), *_progress(known)]
    if not found:
        raise ArgumentError(f"{known.run.folder} has neither training episodes nor evaluations nor a log.")
    cards = [element("div", element("dt", name), element("dd", value, element("small", note))) for name, value, note in found]
    return element("dl", *cards, class_="facts")


def returns(known: Known) -> Iterator[Fact]:
    """Mean returns of evaluations and of training."""
    if known.evaluations is not None:
        steps, found = known.evaluations
        means = found.mean(axis=1)
        best = int(means.argmax())
        yield "Best evaluation", f"{means[best]:.2f}", f"mean of {found.shape[1]} episodes, at step {steps[best]:,}"
        yield "Last evaluation", f"{means[-1]:.2f}", f"at step {steps[-1]:,}"
    if known.episodes is not None:
        steps, found = known.episodes
        means = rolling_mean(found[:, 0], N_LAST)
        if len(means) > N_LAST:
            best = int(means[N_LAST - 1 :].argmax()) + N_LAST - 1  # the mean of a few episodes is high by chance
            yield "Best training return", f"{means[best]:.2f}", f"mean of {N_LAST} episodes, at step {steps[best]:,}"
        yield "Last training return", f"{means[-1]:.2f}", f"mean of {min(len(means), N_LAST)} episodes, which explore"


def _progress(known: Known) -> Iterator[Fact]:
    told = [known.episodes, known.evaluations, *(known.log.scalars.values() if known.log else ())]
    steps = max((int(series.steps[-1]) for series in told if series is not None and len(series.steps)), default=0)
    if steps > 0:
        yield "Environment steps", f"{steps:,}", "as far as its files tell"
    if known.episodes is not None:
        yield "Training episodes", f"{len(known.episodes.steps):,}", "that came to their end"
    lived = runs.lifetime(known.run.folder)
    if lived is not None and math.isfinite(lived[1]):
        seconds = lived[1] - lived[0]
        yield "Time", str(datetime.timedelta(seconds=round(seconds))), f"{steps / max(seconds, 1e-9):,.0f} steps per second"


# -- how to make it again --------------------------------------------------------------------------------------------------


@together
def commands(known: Known) -> Iterator[Html]:
    """How to make the run again, or to go on with it."""
    yield known.attempt("command", lambda: _command(known))
    going_on = attempted(known.problems, "command to go on", lambda: resume_command(known.run.folder))
    if going_on is not None:
        yield element("p", "It has not come to its end. This goes on with it, from its newest checkpoint:")
        yield code(going_on, "command")


def _command(known: Known) -> Html:
    command = train_command(known.run)
    if command is not None:
        source = known.run.arguments.get("conf_file") or "the zoo's presets"
        note = f"What it does not name is taken from {source}. What the run was given is in the configuration below."
        return joined([code(command, "command"), element("p", element("small", note))])
    logged = None if known.log is None else known.log.texts.get("run/command")
    if logged is None:
        raise ArgumentError("it is not known. The zoo keeps it in args.yml and run.json, TensorBoardCallback in the log.")
    return joined([element("p", "As it was logged:"), code(logged.strip(), "command")])


# -- what it was -----------------------------------------------------------------------------------------------------------


@together
def configuration(known: Known) -> Iterator[Html]:
    """Hyperparameters, environment and arguments."""
    run, model = known.run, known.model
    if CONFIGURATION in known.problems:
        yield known.missing(CONFIGURATION)
    yield element("h3", "Hyperparameters")
    if run.hyperparameters:
        yield table(["name", "value"], {name: [_shown(value)] for name, value in run.hyperparameters.items()})
    elif run.config:
        yield element("p", "They hold Python objects, which are not made here:")
        yield code(run.config[:MAX_TEXT])
    if model is None:
        yield known.missing(MODEL)
    if model is not None and known.model_file is not None:
        arguments = table(["argument", "value"], {name: [_shown(value)] for name, value in arguments_of(model).items()})
        title = element("summary", f"All arguments of the model in {known.model_file.name}")
        yield element("details", title, arguments, **({} if run.hyperparameters or run.config else {"open": ""}))
    yield element("h3", "Environment")
    yield table(["", "value"], {name: [_shown(value)] for name, value in _environment(known).items() if value})


def _environment(known: Known) -> dict[str, Any]:
    run, model = known.run, known.model
    found: dict[str, Any] = {"id": run.env_id or "unknown", "arguments": run.env_kwargs}
    names = ("n_envs", "env_wrapper", "vec_env_wrapper", "frame_stack", "normalize")
    found |= {name: run.hyperparameters.get(name) for name in names}
    return found if model is None else {**found, "observations": model.observation_space, "actions": model.action_space}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def packages(known: Known) -> Html:
    """What the run was made with, beside what is here now where that differs."""
    then, now = _versions_then(known), versions()
    if not then:
        raise ArgumentError("neither run.json nor a model tells them.")
    if any(now.get(name, version) != version for name, version in then.items()):
        return table(["package", "of the run", "of this page"], {name: [then[name], now.get(name, "")] for name in then})
    return table(["package", "version"], {name: [version] for name, version in then.items()})


def _versions_then(known: Known) -> dict[str, str]:
    path, folder = known.model_file, known.run.folder
    found: dict[str, str] = {}
    if (folder / "run.json").is_file():
        found = attempted(known.problems, "versions in run.json", lambda: run_file.read(folder).versions) or {}
    if path is not None:
        saved = attempted(known.problems, f"versions in {path.name}", lambda: _system(path)) or {}
        found |= {name: version for name, version in saved.items() if name not in found}
    return found


def _system(model_file: Path) -> dict[str, str]:
    with zipfile.ZipFile(model_file) as archive, archive.open("system_info.txt") as file:
        lines = file.read(MAX_TEXT).decode("utf-8", "replace").splitlines()
    pairs = [line.removeprefix("- ").partition(": ") for line in lines if ": " in line]
    return {SYSTEM.get(name, name): value for name, _, value in pairs}
