"""Tests of the sweep behind `make tutorials-questions`: its variants, a short run, and its table."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.tutorials.questions import (
    ENV,
    PLAYS,
    PRESET,
    QUESTIONS,
    SPEC,
    TUTORIAL,
    best_mean,
    compare_with_preset,
    fill_page,
    lines,
    table,
    write,
)
from sb3_dqn_ext.sweep import Row, read_rows, read_spec
from sb3_dqn_ext.sweep.results import COLUMNS
from tests.paths import ROOT
from tests.processes import output, python

TASKS = {task.variant: task for task in read_spec(SPEC).tasks if task.seed == 0}


def rows_of(variant: str, **columns: list[float]) -> list[Row]:
    """Make a row for each value of the columns; the others are empty."""
    empty = dict.fromkeys((*COLUMNS, "best_100", *PLAYS), "") | {"env": ENV, "variant": variant}
    n_seeds = len(next(iter(columns.values())))
    return [
        empty | {"seed": str(seed)} | {name: f"{numbers[seed]:.2f}" for name, numbers in columns.items()}
        for seed in range(n_seeds)
    ]


def rows_by_hand() -> list[Row]:
    of_preset: dict[str, list[float]] = {"at_random_return": [110, 111, 112, 113, 114], "softmax_return": [9] * 5}
    of_preset |= {"score": [10, 11, 12, 13, 14], "train_return": [20, 21, 22, 23, 24], "best_100": [50, 51, 52, 53, 54]}
    return [
        *rows_of(PRESET, **of_preset),
        *rows_of(
            "activation=tanh", score=[60, 61, 62, 63, 64], train_return=[10, 11, 12, 13, 14], best_100=[10, 51, 52, 53, 90]
        ),
    ]


# -- the sweep -------------------------------------------------------------------------------------------------------------


def test_the_preset_is_trained_and_measured(tmp_path: Path) -> None:
    spec = yaml.safe_load(SPEC.read_text())
    preset = spec["variants"][PRESET]
    preset["conf"] = str(SPEC.parent / preset["conf"])
    spec |= {"variants": {PRESET: preset}, "hyperparameters": {"n_timesteps": 200}, "results": "rows.csv"}
    (tmp_path / "short.yml").write_text(yaml.safe_dump(spec))
    output(python("-m", "sb3_dqn_ext.sweep", "short.yml", "--seeds", "3", cwd=tmp_path, PYTHONPATH=str(ROOT)))
    (row,) = read_rows(tmp_path / "rows.csv")
    assert all(8 <= float(row[column]) <= 200 for column in ("score", *PLAYS))
    assert 8 <= float(row["train_return"]) <= float(row["best_100"]) <= 200
    assert row["eval_steps"] == ""


def test_every_question_has_an_answer() -> None:
    assert {line.question for line in lines(list(TASKS))} == {*QUESTIONS, PRESET}
    assert len(QUESTIONS) == 9, "the tutorial has nine questions"


@pytest.mark.parametrize("variant", [variant for variant in TASKS if variant != PRESET])
def test_one_thing_is_changed_and_the_value_of_the_preset_is_in_brackets(variant: str) -> None:
    def leaves(value: Any, path: str = "") -> dict[str, Any]:
        """Flatten nested hyperparameters."""
        if not isinstance(value, dict):
            return {path: value}
        return {key: leaf for name in value for key, leaf in leaves(value[name], f"{path}.{name}").items()}

    preset, task = (leaves(of.hyperparameters) for of in (TASKS[PRESET], TASKS[variant]))
    changed = {name for name in preset.keys() | task.keys() if preset.get(name) != task.get(name)}
    question = variant.partition("=")[0]
    assert changed == {
        "epochs": {".n_epochs"},
        "epsilon": {".exploration_kwargs.schedule"},
        "activation": {".policy_kwargs.activation_fn"},
        "forgetting": {".replay_buffer_kwargs.keep_episodes", ".buffer_size"},
        "velocities": {".env_wrapper"},
        "optimizer": {".learning_rate", ".policy_kwargs.optimizer_class", ".policy_kwargs.optimizer_kwargs.eps"},
    }.get(question, {f".{question}"})
    if len(changed) == 1 and (before := preset.get(*changed)) and not isinstance(before, list):
        assert re.search(rf"\b{before}\)", QUESTIONS[question])


def test_the_largest_mean_is_of_whole_windows() -> None:
    assert best_mean(np.array([90.0, 10.0, 20.0, 30.0, 10.0]), window=2) == 50.0
    assert best_mean(np.array([90.0, 10.0, 20.0, 30.0, 10.0]), window=3) == 40.0
    assert best_mean(np.array([90.0, 10.0]), window=3) == 50.0


# -- the table -------------------------------------------------------------------------------------------------------------


def test_the_table_compares_variants_with_the_preset() -> None:
    of_preset, of_tanh, of_play, _ = table(rows_by_hand()).splitlines()[2:]
    assert (
        of_preset == "| the preset | as it is | 5 | 12.0 (10.0 to 14.0) |  | 22.0 (20.0 to 24.0) |  | 52.0 (50.0 to 54.0) |  |"
    )
    shown = of_tanh.strip("| ").split(" | ")
    assert shown[:4] == ["activation (ReLU)", "tanh", "5", "62.0 (60.0 to 64.0)"]
    assert [cell.partition(" (")[0] for cell in shown[4::2]] == ["more", "less", "no clear difference"]
    assert re.search(r"\| 112\.0 \(110\.0 to 114\.0\) \| more \([0-9.]+ to [0-9.]+\) \|  \|  \|  \|  \|$", of_play)


def test_a_difference_needs_an_interval_without_0_and_two_seeds() -> None:
    few = np.array([1.0, 2.0])
    assert compare_with_preset(few, few) == "no clear difference (-1.0 to 1.0)"
    assert compare_with_preset(few + 2, few) == "more (1.0 to 3.0)"
    assert compare_with_preset(few + 1, few) == "no clear difference (0.0 to 2.0)"
    assert compare_with_preset(few - 2, few) == "less (-3.0 to -1.0)"
    assert compare_with_preset(few[:1], few) == compare_with_preset(few, few[:1]) == "needs two seeds"
    assert compare_with_preset(few[:0], few) == ""


def test_a_page_is_filled_between_its_markers_alone(tmp_path: Path) -> None:
    assert fill_page("text\n", "| \\1 |\n") == "text\n"
    assert fill_page("a\n<!-- questions -->\nb\n<!-- /questions -->\n", "| \\1 |\n") == (
        "a\n<!-- questions -->\n| \\1 |\n<!-- /questions -->\n"
    )
    write(rows_by_hand(), tmp_path, tmp_path / "page.md")
    assert [path.name for path in tmp_path.iterdir()] == ["tutorial_questions.md"], "a missing page is not created"


def test_the_published_table_is_that_of_the_published_rows() -> None:
    results, page = ROOT / "docs" / "results", ROOT / "docs" / "tutorials" / f"{TUTORIAL.name}.md"
    measured = table(read_rows(results / "tutorial_questions.csv"))
    assert (results / "tutorial_questions.md").read_text().endswith(measured)
    blocks = re.findall(r"<!-- questions -->\n(.*?)<!-- /questions -->", page.read_text() if page.is_file() else "", re.DOTALL)
    for block in filter(str.strip, blocks):
        assert block.endswith(measured)
