"""
Measures an answer to each of the questions that the tutorial on Monte-Carlo returns ends with.

Its preset is trained with one thing changed at a time, with seeds 0 to 4. Each finished run is a row of
docs/results/tutorial_questions.csv; what has a row is not run again. Delete the rows of what has changed.
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

from benchmarks.compiled import interval
from benchmarks.processes import ONE_THREAD
from benchmarks.rows import RESULTS, Row, run_missing, select_rows
from benchmarks.runs import EVALUATION_SEED, fresh_env, mean_return, train
from benchmarks.tutorials.__main__ import CONFIGS
from benchmarks.tutorials.calibration import ALGO
from benchmarks.tutorials.measure import Key, Places
from benchmarks.tutorials.row_statistics import Numbers, Rows, format_number, median_and_range
from benchmarks.tutorials.specs import BY_NAME as TUTORIALS
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.plot import rolling_mean, training_episodes

TUTORIAL = TUTORIALS["monte_carlo_multi_head"]
ENV = TUTORIAL.env_id
LAST = f"{ENV}.zip"
WINDOW = 100  # episodes of training in a mean
N_EPISODES = 50

# for each question what is asked, and in brackets what the preset has
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

NOTES = f"""\
The preset, and with one thing changed; in brackets what the preset has. Median (range) over seeds: the mean return of the
last model in {N_EPISODES} fresh episodes, greedy where nothing else is said, and the mean of {WINDOW} returns of training in a
row, of the last and of the best ones. Beside each, the 95 % bootstrap interval of its median less the preset's: *more* or
*less* where 0 is outside. With so few seeds the intervals are rough, and of many comparisons some are clear by chance.
"""


@dataclass(frozen=True)
class Setting:
    """
    What is tried for a question.

    :param question: a key of ``QUESTIONS``
    :param name: what is changed, in words
    :param changes: new values of hyperparameters of the preset, those inside others after dots
    :param wrapper: one more around the environment
    :param exploration: how the last model of the preset plays, with ``exploration_kwargs`` and ``exploration_rate``; nothing
        is trained then
    """

    question: str
    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    wrapper: str | None = None
    exploration: Mapping[str, Any] | None = None

    @property
    def file_name(self) -> str:
        """Both names, without what a file should not be called."""
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
    """A column of the table, and those of the rows that it is made of; the first that is filled counts."""

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
    :param hyperparams: of the preset
    :param setting: what is to be different
    :return: hyperparameters of their own
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
    """The training, or the games, that a row is about."""

    question: str
    setting: str
    seed: int


def plan(questions: Sequence[str], seeds: Sequence[int]) -> list[Trial]:
    """
    :param questions: keys of ``QUESTIONS``
    :param seeds: of the runs
    :return: the preset and what is tried for these questions; all with the first seed before any with the second
    """
    settings = [PRESET, *(setting for setting in SETTINGS if setting.question in questions)]
    return [Trial(setting.question, setting.name, seed) for seed in seeds for setting in settings]


def train_setting(setting: Setting, seed: int, places: Places, steps: int | None) -> Path:
    """
    Train one model.

    :param setting: what is different from the preset
    :param seed: of the run
    :param places: where the preset is, and where the run folder is to be
    :param steps: environment steps, if not those of the preset
    :return: the run folder
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
    Train and judge one model, or judge that of the preset as it plays otherwise.

    :param key: what is tried
    :param places: where the preset is, and where run folders are
    :param steps: environment steps, if not those of the preset
    :return: its row
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
        "greedy_last": f"{mean_return(run, ALGO, ENV, LAST, N_EPISODES, seed):.2f}",
        "best_100": f"{best_mean(returns, WINDOW):.2f}",
        "last_100": f"{returns[-WINDOW:].mean():.2f}",
    }


def best_mean(returns: Numbers, window: int) -> float:
    """
    :param returns: (E,) of the episodes of training
    :param window: how many in a row are taken together; all if there are fewer
    :return: the largest of their means
    """
    return float(rolling_mean(returns, window)[min(window, len(returns)) - 1 :].max())


def stochastic_return(run: Path, exploration: Mapping[str, Any], seed: int) -> float:
    """
    :param run: a run folder
    :param exploration: how its last model plays
    :param seed: the seed it was trained with
    :return: the mean return of fresh episodes, the same number of them as are played greedily
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
    :param rows: of one setting
    :param measure: what of them
    :return: (S,) where it was measured
    """
    cells = [next(filter(None, (row[column] for column in measure.columns)), "") for row in rows]
    return np.array([float(cell) for cell in cells if cell])


def compare_with_preset(tried: Numbers, preset: Numbers) -> str:
    """
    :param tried: (S,) values of a setting
    :param preset: (S,) values of the preset
    :return: whether the setting has more, with the 95 % interval of the difference of the medians
    """
    if min(len(tried), len(preset)) < 2:
        return "needs two seeds" if len(tried) else ""
    low, high = interval(tried, preset)
    word = "more" if low > 0 else "less" if high < 0 else "no clear difference"
    return f"{word} ({format_number(low)} to {format_number(high)})"


def line(setting: Setting, rows: Rows) -> str:
    """
    :param setting: one that has rows
    :param rows: of all settings
    :return: its line of the table
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
    :param rows: of all settings
    :return: a Markdown table of those that have rows
    """
    heads = ["question", "setting", "seeds", *(cell for measure in MEASURES for cell in (measure.label, "beside the preset"))]
    there = {(row["question"], row["setting"]) for row in rows}
    lines = [line(setting, rows) for setting in [PRESET, *SETTINGS] if (setting.question, setting.name) in there]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]) + "\n"


def fill_page(page: str, text: str) -> str:
    """
    :param page: of the tutorial
    :param text: what belongs between its markers
    :return: the page with it
    """
    return re.sub(
        r"(<!-- questions -->\n).*?(<!-- /questions -->)", lambda found: found[1] + text + found[2], page, flags=re.DOTALL
    )


def write(rows: Rows, results: Path, page: Path) -> str:
    """
    :param rows: of all settings
    :param results: the folder that gets tutorial_questions.md
    :param page: of the tutorial; the table is filled in if it is there
    :return: the table
    """
    text = f"{NOTES}\n{table(rows)}"
    (results / "tutorial_questions.md").write_text(f"# The questions of the tutorial on Monte-Carlo returns\n\n{text}")
    if page.is_file():
        page.write_text(fill_page(page.read_text(), text))
    return text


# -- the command -----------------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    :param arguments: of the command line, those of this process if None
    :return: their values
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorials.questions", description=__doc__)
    parser.add_argument(
        "--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), metavar="NAME", help=", ".join(QUESTIONS)
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at once")
    parser.add_argument("--steps", type=int, help="environment steps of each run, for a trial")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/tutorial_questions"), help="where the zoo writes its run folders"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="pages are in the folder tutorials beside it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """:param arguments: of the command line, those of this process if None"""
    args = parse(arguments)
    # what a short trial leaves is never taken for the preset
    places = Places(CONFIGS, args.runs if args.steps is None else args.runs / f"{args.steps}_steps")
    path = args.results / "tutorial_questions.csv"
    tries = plan(args.questions, args.seeds)
    trainings = [key for key in tries if BY_NAME[key.question, key.setting].exploration is None]
    games = [key for key in tries if key not in trainings]
    run = partial(measure_trial, places=places, steps=args.steps)
    run_missing(path, Trial._fields, trainings, run, args.jobs)
    # after the preset, whose models are played, and one by one: two would train the same one if it is not there
    rows = run_missing(path, Trial._fields, games, run, jobs=1)
    print(write(rows, args.results, page=args.results.parent / "tutorials" / f"{TUTORIAL.name}.md"))


if __name__ == "__main__":
    main()
