"""
Measure an answer to each of the questions at the end of the tutorial on Monte-Carlo returns.

Its preset is trained with one change at a time, with seeds 0 to 4. Each finished run becomes a row of
docs/results/tutorial_questions.csv. Runs that have a row are not repeated: delete the rows that are out of date.
"""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks.rows import RESULTS, run_missing
from benchmarks.runs import train
from benchmarks.tutorials.__main__ import CONFIGS
from benchmarks.tutorials.calibration import ALGO
from benchmarks.tutorials.measure import Key, Places
from benchmarks.tutorials.row_statistics import Numbers, Rows, format_number, median_and_range
from benchmarks.tutorials.specs import BY_NAME as TUTORIALS
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.plot import rolling_mean, training_episodes
from sb3_dqn_ext.sweep import Row, select_rows
from sb3_dqn_ext.sweep.evaluation import EVALUATION_SEED, fresh_env, play
from sb3_dqn_ext.sweep.processes import ONE_THREAD
from sb3_dqn_ext.sweep.report import difference_interval, median

TUTORIAL = TUTORIALS["monte_carlo_multi_head"]
ENV = TUTORIAL.env_id
LAST = f"{ENV}.zip"
WINDOW = 100  # episodes of training in a mean
N_EPISODES = 50

QUESTIONS = {
    "epochs": "epochs of a fit (10)",
    "gamma": "gamma (0.9)",
    "epsilon": "epsilon in training (0.1)",
    "activation": "activation (ReLU)",
    "forgetting": "games that are learned from (the latest 10)",
    "velocities": "velocities of cart and pole (seen)",
    "play": "actions of the trained model (greedy)",
    "learning_rate": "learning rate (0.001)",
    "optimizer": "optimizer (Adam, 0.001)",
}
"""The subject of each question, with the value of the preset in brackets."""

NOTES = f"""\
The preset, and variants with one change; the value of the preset is in brackets. Cells are medians (ranges) over seeds: of the
mean return of the last model in {N_EPISODES} fresh episodes (greedy by default), and of the mean of {WINDOW} successive
returns of training, the last and the best ones. The comparison with the preset is the 95 % bootstrap interval of the
difference of the medians: *more* or *less* if 0 is outside. With so few seeds the intervals are rough, and among many
comparisons some are clear by chance.
"""


@dataclass(frozen=True)
class Setting:
    """
    A variant of the preset that answers a question.

    :param question: a key of ``QUESTIONS``
    :param name: a description of the change
    :param changes: new values of hyperparameters; dots separate the names of nested ones
    :param wrapper: an additional wrapper of the environment
    :param exploration: the exploration with which the last model of the preset plays, with ``exploration_kwargs`` and
        ``exploration_rate``; nothing is trained then
    """

    question: str
    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    wrapper: str | None = None
    exploration: Mapping[str, Any] | None = None

    @property
    def file_name(self) -> str:
        """A name for files and folders: the question and the name, with unsafe characters replaced."""
        return re.sub(r"[^a-z0-9.]+", "_", f"{self.question}_{self.name}".lower())


PRESET = Setting("preset", "as it is")
SETTINGS = [
    Setting("epochs", "1", {"n_epochs": 1}),
    Setting("epochs", "30", {"n_epochs": 30}),
    Setting("gamma", "0.5", {"gamma": 0.5}),
    Setting("gamma", "0.99", {"gamma": 0.99}),
    Setting("epsilon", "0.02", {"exploration_kwargs.schedule": 0.02}),
    Setting("epsilon", "0.3", {"exploration_kwargs.schedule": 0.3}),
    Setting("activation", "tanh", {"policy_kwargs.activation_fn": "tanh"}),
    Setting("forgetting", "all", {"replay_buffer_kwargs.keep_episodes": None, "buffer_size": 80_200}),
    Setting("velocities", "hidden", wrapper="sb3_dqn_ext.envs.hidden_velocities.HiddenVelocities"),
    Setting(
        "play",
        "at random with probability 0.1, as in training",
        exploration={"exploration": "epsilon_greedy", "exploration_kwargs": {"schedule": 0.1}, "exploration_rate": 0.1},
    ),
    Setting(
        "play",
        "drawn from the softmax of the values / 0.1",
        exploration={"exploration": "boltzmann", "exploration_kwargs": {"temperature": 0.1}, "exploration_rate": 0.1},
    ),
    Setting("learning_rate", "0.01", {"learning_rate": 0.01}),
    Setting("learning_rate", "0.0001", {"learning_rate": 0.0001}),
    Setting(
        "optimizer",
        "SGD, 0.01",
        {"learning_rate": 0.01, "policy_kwargs.optimizer_class": "sgd", "policy_kwargs.optimizer_kwargs": {}},
    ),
]
BY_NAME = {(setting.question, setting.name): setting for setting in [PRESET, *SETTINGS]}


class Measure(NamedTuple):
    """A column of the table, and the columns of the rows with its values, of which the first non-empty one counts."""

    label: str
    columns: tuple[str, ...]


MEASURES = (
    Measure("return of the last model", ("stochastic_last", "greedy_last")),
    Measure(f"last {WINDOW} of training", ("last_100",)),
    Measure(f"best {WINDOW} of training", ("best_100",)),
)


# -- runs ------------------------------------------------------------------------------------------------------------------


def apply_setting(hyperparams: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """
    Return a changed copy of the preset's hyperparameters.

    :param hyperparams: the hyperparameters of the preset
    :param setting: the changes
    """
    result = deepcopy(dict(hyperparams))
    for path, value in setting.changes.items():
        *parents, name = path.split(".")
        inside = result
        for parent in parents:
            inside = inside[parent]
        inside[name] = deepcopy(value)
    if setting.wrapper is not None:
        result["env_wrapper"].append(setting.wrapper)
    return result


class Trial(NamedTuple):
    """The key of a row: a training, or games of a trained model."""

    question: str
    setting: str
    seed: int


def plan(questions: Sequence[str], seeds: Sequence[int]) -> list[Trial]:
    """
    List the trials of the preset and of the settings, all with the first seed before any with the second.

    :param questions: keys of ``QUESTIONS``
    :param seeds: the seeds of the runs
    """
    settings = [PRESET, *(setting for setting in SETTINGS if setting.question in questions)]
    return [Trial(setting.question, setting.name, seed) for seed in seeds for setting in settings]


def train_setting(setting: Setting, seed: int, places: Places, steps: int | None) -> Path:
    """
    Train one model, and return its run folder.

    :param setting: the changes of the preset
    :param seed: the seed of the run
    :param places: the folders of the preset and of the run folder
    :param steps: the number of environment steps; None: that of the preset
    """
    folder = places.runs / Key(TUTORIAL.name, setting.file_name, seed).folder
    folder.mkdir(parents=True, exist_ok=True)
    preset = yaml.safe_load((places.configs / f"{TUTORIAL.name}.yml").read_text())
    config = folder / f"{setting.file_name}.yml"
    config.write_text(yaml.safe_dump({ENV: apply_setting(preset[ENV], setting)}))
    arguments = ["-conf", str(config), "--eval-freq", "-1", *([] if steps is None else ["-n", str(steps)])]
    return train(ALGO, ENV, seed, folder, *arguments, **ONE_THREAD)


def measure_trial(key: Trial, places: Places, steps: int | None) -> Row:
    """
    Train and evaluate one model, or evaluate the model of the preset with another exploration, and return the row.

    :param key: the trial
    :param places: the folders of the preset and of the run folders
    :param steps: the number of environment steps; None: that of the preset
    """
    setting, seed = BY_NAME[key.question, key.setting], key.seed
    row = {**key._asdict(), "seed": str(seed)}
    row |= dict.fromkeys(("greedy_last", "stochastic_last", "best_100", "last_100"), "")
    if setting.exploration is not None:
        run = places.run(Key(TUTORIAL.name, PRESET.file_name, seed)) or train_setting(PRESET, seed, places, steps)
        return row | {"stochastic_last": f"{stochastic_return(run, setting.exploration, seed):.2f}"}
    run = train_setting(setting, seed, places, steps)
    returns = training_episodes(run).returns[:, 0]
    return row | {
        "greedy_last": f"{play(run, ALGO, ENV, seed, N_EPISODES).mean():.2f}",
        "best_100": f"{best_mean(returns, WINDOW):.2f}",
        "last_100": f"{returns[-WINDOW:].mean():.2f}",
    }


def best_mean(returns: Numbers, window: int) -> float:
    """
    Return the largest rolling mean.

    :param returns: (E,) returns of the episodes of training
    :param window: the number of successive episodes in the mean; all if there are fewer
    """
    return float(rolling_mean(returns, window)[min(window, len(returns)) - 1 :].max())


def stochastic_return(run: Path, exploration: Mapping[str, Any], seed: int) -> float:
    """
    Return the mean return of the last model of a run with exploration.

    :param run: the run folder
    :param exploration: the exploration
    :param seed: the seed of the training
    """
    model = DQNExt.load(run / LAST, device="cpu", custom_objects=dict(exploration))
    model.set_random_seed(EVALUATION_SEED + seed)
    env = fresh_env(run, ENV, seed)
    returns, _ = evaluate_policy(model, env, N_EPISODES, deterministic=False, return_episode_rewards=True)
    env.close()
    return float(np.mean(returns))


# -- the table -------------------------------------------------------------------------------------------------------------


def values(rows: Iterable[Row], measure: Measure) -> Numbers:
    """
    Return the values of a measure.

    :param rows: the rows of one setting
    :param measure: the measure
    :return: (S,) values; seeds without one are left out
    """
    cells = [next(filter(None, (row[column] for column in measure.columns)), "") for row in rows]
    return np.array([float(cell) for cell in cells if cell])


def compare_with_preset(tried: Numbers, preset: Numbers) -> str:
    """
    Return a comparison in words, with the 95 % interval of the difference of the medians.

    :param tried: (S,) values of a setting
    :param preset: (S,) values of the preset
    """
    if min(len(tried), len(preset)) < 2:
        return "needs two seeds" if len(tried) else ""
    low, high = difference_interval(tried, preset, median)
    word = "more" if low > 0 else "less" if high < 0 else "no clear difference"
    return f"{word} ({format_number(low)} to {format_number(high)})"


def line(setting: Setting, rows: Rows) -> str:
    """
    Return a line of the table.

    :param setting: the setting, which has rows
    :param rows: the rows of all settings
    """
    preset = select_rows(rows, question=PRESET.question, setting=PRESET.name)
    tried = select_rows(rows, question=setting.question, setting=setting.name)
    cells = [QUESTIONS.get(setting.question, "the preset"), setting.name, str(len(tried))]
    for measure in MEASURES:
        cells.append(median_and_range(values(tried, measure), digits=1))
        cells.append("" if setting is PRESET else compare_with_preset(values(tried, measure), values(preset, measure)))
    return f"| {' | '.join(cells)} |"


def table(rows: Rows) -> str:
    """
    Return a Markdown table of the settings that have rows.

    :param rows: the rows of all settings
    """
    heads = ["question", "setting", "seeds"]
    heads += [cell for measure in MEASURES for cell in (measure.label, "compared with the preset")]
    there = {(row["question"], row["setting"]) for row in rows}
    lines = [line(setting, rows) for setting in [PRESET, *SETTINGS] if (setting.question, setting.name) in there]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]) + "\n"


def fill_page(page: str, text: str) -> str:
    """
    Return a page with new text between its markers ``<!-- questions -->`` and ``<!-- /questions -->``.

    :param page: the page of the tutorial
    :param text: the text
    """
    return re.sub(
        r"(<!-- questions -->\n).*?(<!-- /questions -->)", lambda found: found[1] + text + found[2], page, flags=re.DOTALL
    )


def write(rows: Rows, results: Path, page: Path) -> str:
    """
    Write the page of results, fill in the page of the tutorial, and return the text.

    :param rows: the rows of all settings
    :param results: the folder that gets tutorial_questions.md
    :param page: the page of the tutorial, which may be missing
    """
    text = f"{NOTES}\n{table(rows)}"
    (results / "tutorial_questions.md").write_text(f"# The questions of the tutorial on Monte-Carlo returns\n\n{text}")
    if page.is_file():
        page.write_text(fill_page(page.read_text(), text))
    return text


# -- the command -----------------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Parse the command line.

    :param arguments: the command line; None: that of this process
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorials.questions", description=__doc__)
    parser.add_argument(
        "--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), metavar="NAME", help=", ".join(QUESTIONS)
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--steps", type=int, help="environment steps of each run, for a short trial")
    parser.add_argument("--runs", type=Path, default=Path("runs/tutorial_questions"), help="folder of the zoo's run folders")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the results, with the folder tutorials beside it"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    :param arguments: the command line; None: that of this process
    """
    args = parse(arguments)
    # short trials have their own folder, so that their models are not used as those of the preset
    places = Places(CONFIGS, args.runs if args.steps is None else args.runs / f"{args.steps}_steps")
    path = args.results / "tutorial_questions.csv"
    tries = plan(args.questions, args.seeds)
    trainings = [key for key in tries if BY_NAME[key.question, key.setting].exploration is None]
    games = [key for key in tries if key not in trainings]
    run = partial(measure_trial, places=places, steps=args.steps)
    run_missing(path, Trial._fields, trainings, run, args.jobs)
    # Games follow the trainings, whose models they use. One at a time: two games would both train a missing model.
    rows = run_missing(path, Trial._fields, games, run, jobs=1)
    print(write(rows, args.results, page=args.results.parent / "tutorials" / f"{TUTORIAL.name}.md"))


if __name__ == "__main__":
    main()
