"""Tests of the command behind `make tutorials-questions`: its runs, with short ones, and its table."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.rows import missing_keys
from benchmarks.tutorials import questions
from benchmarks.tutorials.__main__ import CONFIGS
from benchmarks.tutorials.questions import (
    ENV,
    MEASURES,
    PRESET,
    QUESTIONS,
    SETTINGS,
    TUTORIAL,
    Setting,
    Trial,
    apply_setting,
    best_mean,
    compare_with_preset,
    fill_page,
    plan,
    table,
    values,
    write,
)
from sb3_dqn_ext.sweep import Row, read_rows
from tests.paths import ROOT
from tests.processes import output, python

TANH, *_ = (setting for setting in SETTINGS if setting.question == "activation")
PLAYED = [setting for setting in SETTINGS if setting.exploration is not None]


def preset() -> dict[str, Any]:
    hyperparams: dict[str, Any] = yaml.safe_load((CONFIGS / f"{TUTORIAL.name}.yml").read_text())[ENV]
    return hyperparams


def rows_of(setting: Setting, **columns: list[float]) -> list[Row]:
    """Make a row for each value of the columns; the others are empty."""
    empty = dict.fromkeys(("greedy_last", "stochastic_last", "best_100", "last_100"), "")
    n_seeds = len(next(iter(columns.values())))
    return [
        {"question": setting.question, "setting": setting.name, "seed": str(seed), **empty}
        | {name: f"{numbers[seed]:.2f}" for name, numbers in columns.items()}
        for seed in range(n_seeds)
    ]


def rows_by_hand() -> list[Row]:
    return [
        *rows_of(PRESET, greedy_last=[10, 11, 12, 13, 14], last_100=[20, 21, 22, 23, 24], best_100=[50, 51, 52, 53, 54]),
        *rows_of(TANH, greedy_last=[60, 61, 62, 63, 64], last_100=[10, 11, 12, 13, 14], best_100=[10, 51, 52, 53, 90]),
        *rows_of(PLAYED[0], stochastic_last=[110, 111, 112, 113, 114]),
    ]


# -- the command -----------------------------------------------------------------------------------------------------------


def test_a_question_is_measured_once_and_becomes_rows_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, page = tmp_path / "docs" / "results", tmp_path / "docs" / "tutorials" / "monte_carlo_multi_head.md"
    page.parent.mkdir(parents=True)
    page.write_text("Before.\n<!-- questions -->\nold\n<!-- /questions -->\nAfter.\n")
    command = f"--questions activation play --seeds 3 --steps 200 --runs {tmp_path}/runs --results {results}".split()

    printed = output(python("-m", "benchmarks.tutorials.questions", *command, cwd=ROOT))
    rows = read_rows(results / "tutorial_questions.csv")
    assert {(row["question"], row["setting"], row["seed"]) for row in rows} == {
        (setting.question, setting.name, "3") for setting in (PRESET, TANH, *PLAYED)
    }
    for row in rows:
        is_played = row["question"] == "play"
        assert [name for name in ("greedy_last", "stochastic_last", "best_100", "last_100") if row[name]] == (
            ["stochastic_last"] if is_played else ["greedy_last", "best_100", "last_100"]
        )
        assert 8 <= values([row], MEASURES[0])[0] <= 200
        assert is_played or 8 <= float(row["last_100"]) <= float(row["best_100"]) <= 200
    made = (results / "tutorial_questions.md").read_text()
    assert f"| activation (ReLU) | tanh | 1 | {float(rows_at(rows, TANH)['greedy_last']):.1f} (" in made
    assert printed.strip() in made
    assert page.read_text() == f"Before.\n<!-- questions -->\n{printed[:-1]}<!-- /questions -->\nAfter.\n"

    (kept_by_the_zoo,) = (tmp_path / "runs").glob(f"*/*_{TANH.file_name}_3/dqn_ext/{ENV}_1/{ENV}/config.yml")
    assert "activation_fn: tanh" in kept_by_the_zoo.read_text()
    assert len(list((tmp_path / "runs").glob("*/*/dqn_ext/*"))) == 2, "the games are played with the model of the preset"

    monkeypatch.setattr(questions, "measure_trial", lambda *_, **__: pytest.fail("a finished run was run again"))
    before = (results / "tutorial_questions.csv").read_text()
    questions.main(command)
    assert (results / "tutorial_questions.csv").read_text() == before
    assert missing_keys(plan(["activation"], [3, 4]), rows, Trial._fields) == [
        (setting.question, setting.name, 4) for setting in (PRESET, TANH)
    ]


def rows_at(rows: list[Row], setting: Setting) -> Row:
    (row,) = (row for row in rows if (row["question"], row["setting"]) == (setting.question, setting.name))
    return row


# -- the settings ----------------------------------------------------------------------------------------------------------


def test_every_question_has_settings_with_distinct_names() -> None:
    assert {setting.question for setting in SETTINGS} == set(QUESTIONS)
    assert len(QUESTIONS) == 9, "the tutorial has nine questions"
    assert len({setting.file_name for setting in [PRESET, *SETTINGS]}) == len(SETTINGS) + 1


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.file_name)
def test_one_thing_is_changed_and_the_value_of_the_preset_is_in_brackets(setting: Setting) -> None:
    before = preset()
    after = apply_setting(before, setting)
    assert before == preset(), "the preset is unchanged"
    assert apply_setting(before, PRESET) == before
    same = {path.partition(".")[0] for path in setting.changes} | ({"env_wrapper"} if setting.wrapper else set())
    assert {name for name in before if before[name] != after[name]} == same
    assert set(after) == set(before)
    if setting.exploration is not None:
        assert not same
    for path in list(setting.changes)[:1]:
        has: Any = before
        for name in path.split("."):
            has = has.get(name)
        assert has is None or re.search(rf"\b{has}\)", QUESTIONS[setting.question])


def test_the_largest_mean_is_of_whole_windows() -> None:
    assert best_mean(np.array([90.0, 10.0, 20.0, 30.0, 10.0]), window=2) == 50.0
    assert best_mean(np.array([90.0, 10.0, 20.0, 30.0, 10.0]), window=3) == 40.0
    assert best_mean(np.array([90.0, 10.0]), window=3) == 50.0


# -- the table -------------------------------------------------------------------------------------------------------------


def test_the_table_compares_settings_with_the_preset() -> None:
    of_preset, of_tanh, of_play = table(rows_by_hand()).splitlines()[2:]
    assert (
        of_preset == "| the preset | as it is | 5 | 12.0 (10.0 to 14.0) |  | 22.0 (20.0 to 24.0) |  | 52.0 (50.0 to 54.0) |  |"
    )
    cells = of_tanh.strip("| ").split(" | ")
    assert cells[:4] == ["activation (ReLU)", "tanh", "5", "62.0 (60.0 to 64.0)"]
    assert [cell.partition(" (")[0] for cell in cells[4::2]] == ["more", "less", "no clear difference"]
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
