"""
Answer the questions at the end of the tutorial on Monte-Carlo returns by the rows of ``benchmarks/sweeps/questions.yml``.

``python -m benchmarks.tutorials.questions`` writes docs/results/tutorial_questions.md, and the table of the tutorial's page.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks.processes import ROOT
from benchmarks.rows import RESULTS
from benchmarks.tutorials.row_statistics import Numbers, Rows, format_number, median_and_range
from benchmarks.tutorials.specs import BY_NAME as TUTORIALS
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.plot import rolling_mean, training_episodes
from sb3_dqn_ext.sweep import Task, read_rows, read_spec
from sb3_dqn_ext.sweep.evaluation import EVALUATION_SEED, fresh_env
from sb3_dqn_ext.sweep.report import cells, difference_interval, median

TUTORIAL = TUTORIALS["monte_carlo_multi_head"]
ENV = TUTORIAL.env_id
SPEC = ROOT / "benchmarks" / "sweeps" / "questions.yml"
PRESET = "preset"
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


class Play(NamedTuple):
    """An exploration with which the last model of the preset plays."""

    label: str
    arguments: Mapping[str, Any]
    """the arguments of the loaded model that are replaced"""


PLAYS = {
    "at_random_return": Play(
        "at random with probability 0.1, as in training",
        {"exploration": "epsilon_greedy", "exploration_kwargs": {"schedule": 0.1}, "exploration_rate": 0.1},
    ),
    "softmax_return": Play(
        "drawn from the softmax of the values / 0.1",
        {"exploration": "boltzmann", "exploration_kwargs": {"temperature": 0.1}, "exploration_rate": 0.1},
    ),
}
"""the explorations by the columns of the rows"""

MEASURES = {
    "score": "return of the last model",
    "train_return": f"last {WINDOW} of training",
    "best_100": f"best {WINDOW} of training",
}
"""the labels of the columns of the table by the columns of the rows"""


def measure(run: Path, task: Task) -> dict[str, str]:
    """
    Measure a run: the best mean return of successive training episodes, and the returns of the preset with exploration.

    :param run: the zoo's run folder
    :param task: the run
    """
    found = {"best_100": f"{best_mean(training_episodes(run).returns[:, 0], WINDOW):.2f}"}
    if task.variant == PRESET:
        found |= {column: f"{stochastic_return(run, play.arguments, task.seed):.2f}" for column, play in PLAYS.items()}
    return found


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
    model = DQNExt.load(run / f"{ENV}.zip", device="cpu", custom_objects=dict(exploration))
    model.set_random_seed(EVALUATION_SEED + seed)
    env = fresh_env(run, ENV, seed)
    returns, _ = evaluate_policy(model, env, N_EPISODES, deterministic=False, return_episode_rewards=True)
    env.close()
    return float(np.mean(returns))


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


class Line(NamedTuple):
    """A line of the table: the answer to a question."""

    question: str
    setting: str
    variant: str
    columns: Sequence[str]
    """the columns of the rows, one for each of ``MEASURES``; "" if it was not measured"""


def lines(variants: Sequence[str]) -> list[Line]:
    """
    List the lines of the table, in the order of the questions.

    :param variants: the variants of the sweep, with names such as ``gamma=0.5``
    """
    parts = {name: name.split("=", 1) for name in variants if name != PRESET}
    found = [Line(question, setting, name, list(MEASURES)) for name, (question, setting) in parts.items()]
    found += [Line("play", play.label, PRESET, [column, "", ""]) for column, play in PLAYS.items()]
    found.sort(key=lambda line: list(QUESTIONS).index(line.question))
    return [Line(PRESET, "as it is", PRESET, list(MEASURES)), *found]


def describe_line(line: Line, rows: Rows) -> str:
    """
    Return a line of the table.

    :param line: the line
    :param rows: the rows of all variants
    """
    shown = [
        QUESTIONS.get(line.question, "the preset"),
        line.setting,
        str(len(cells(rows, ENV, line.variant, line.columns[0]))),
    ]
    for column, of_preset in zip(line.columns, MEASURES, strict=True):
        tried = cells(rows, ENV, line.variant, column) if column else np.empty(0)
        shown.append(median_and_range(tried, digits=1))
        shown.append("" if line.question == PRESET else compare_with_preset(tried, cells(rows, ENV, PRESET, of_preset)))
    return f"| {' | '.join(shown)} |"


def table(rows: Rows) -> str:
    """
    Return a Markdown table of the settings that have rows.

    :param rows: the rows of all variants
    """
    heads = ["question", "setting", "seeds"]
    heads += [cell for label in MEASURES.values() for cell in (label, "compared with the preset")]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    shown = [describe_line(line, rows) for line in lines(variants)]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *shown]) + "\n"


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

    :param rows: the rows of all variants
    :param results: the folder that gets tutorial_questions.md
    :param page: the page of the tutorial, which may be missing
    """
    text = f"{NOTES}\n{table(rows)}"
    (results / "tutorial_questions.md").write_text(f"# The questions of the tutorial on Monte-Carlo returns\n\n{text}")
    if page.is_file():
        page.write_text(fill_page(page.read_text(), text))
    return text


if __name__ == "__main__":
    rows = read_rows(read_spec(SPEC).results)
    print(write(rows, RESULTS, RESULTS.parent / "tutorials" / f"{TUTORIAL.name}.md"))
