"""Tests of the command behind `make fault-injection`: some of its trials, and the detection of failures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from benchmarks.reliability.__main__ import main, plan
from benchmarks.reliability.fault_injection import FAULTS
from benchmarks.reliability.folders import (
    checksums,
    files_of_checkpoint,
    find_unreadable,
    manifests,
    newest_step,
    unfinished_files,
)
from benchmarks.reliability.interrupted import last_line
from benchmarks.reliability.outcome import Outcome
from benchmarks.reliability.overhead import Sizes, measure_pair
from benchmarks.reliability.report import cost_table, fault_table, parts_table, write
from benchmarks.reliability.sigkill import wrong_start
from benchmarks.reliability.train import fingerprint
from sb3_dqn_ext.checkpoint import folder as files
from sb3_dqn_ext.sweep import Row, read_rows, select_rows

SHORT = ["sigkill", "disk full", "truncated"]


def run(tmp_path: Path, *faults: str) -> list[Row]:
    """Run one trial of each fault with short runs."""
    numbers = ["--trials", "1", "--kills", "2", "--steps", "1300"]
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    main(["--parts", "faults", "--faults", *faults, *numbers, *places])
    return read_rows(tmp_path / "reliability.csv")


def assert_survived(rows: list[Row]) -> None:
    for row in rows:
        answers = [row[column] for column in ("clear", "resumed", "equal", "untouched")]
        assert "yes" in answers, row
        assert "no" not in answers, row


def test_faults_are_survived_and_become_rows_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(tmp_path, *SHORT)
    assert sorted(row["fault"] for row in rows) == sorted(SHORT)
    assert_survived(rows)
    assert select_rows(rows, fault="sigkill")[0]["n_kills"] == "2"
    page = (tmp_path / "reliability.md").read_text()
    assert page in capsys.readouterr().out
    assert "| the disk is full | 1 | 1 of 1 | 1 of 1 | 1 of 1 | 1 of 1 | `CheckpointError: FOLDER cannot hold the" in page
    assert run(tmp_path, *SHORT) == rows, "what has a row is not run again"


def test_the_first_trial_of_every_fault_comes_before_the_second_of_any() -> None:
    keys = plan(["sigkill", "schema", "disk full"], at_most=3)
    assert [(key.name, key.number) for key in keys] == [
        *(("sigkill", 0), ("schema", 0), ("disk full", 0), ("sigkill", 1), ("schema", 1), ("disk full", 1), ("sigkill", 2)),
        ("disk full", 2),
    ]
    assert len(set(plan(list(FAULTS), None))) == sum(fault.trials for fault in FAULTS.values())


@pytest.mark.slow
def test_all_other_faults_are_survived(tmp_path: Path) -> None:
    rows = run(tmp_path, *(name for name in FAULTS if name not in SHORT))
    assert_survived(rows)


@pytest.mark.slow
def test_a_pair_with_and_without_checkpoints_becomes_a_row(tmp_path: Path) -> None:
    row = measure_pair(tmp_path / "checkpoints", "eager", 0, Sizes(300, 50, 100))
    assert row["checkpoints"] == "2"
    in_all = float(row["all_ms"])
    assert 0 < float(row["write_ms"]) < in_all < 1000 * float(row["with_s"])
    assert 0 < float(row["without_s"]) < 60
    assert f"| eager | {in_all:.1f} |" in parts_table([row])


# -- failures that are detected --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two checkpoints that share a file."""
    tree = {"weights": np.arange(1000.0)}
    for step in (10, 20):
        files.write_checkpoint(tmp_path, step, tree, {"rows": [("a", tree), *([("b", tree)] if step == 20 else [])]})
    return tmp_path


def test_a_damaged_checkpoint_is_unreadable(folder: Path) -> None:
    assert find_unreadable(folder) == []
    assert newest_step(folder) == 20
    older, newest = manifests(folder).values()
    (own,) = (name for name in files_of_checkpoint(newest) - files_of_checkpoint(older) if name.startswith("segment_"))
    before = checksums(folder)
    data = bytearray((folder / own).read_bytes())
    data[-30] ^= 1
    (folder / own).write_bytes(data)
    (problem,) = find_unreadable(folder)
    assert own in problem
    assert [name for name, checksum in checksums(folder).items() if checksum != before[name]] == [own]


def test_an_unfinished_write_is_detected(folder: Path) -> None:
    assert unfinished_files(folder) == set()
    (folder / "state_000000000030.tmp").write_bytes(b"")
    assert {name for name, _ in unfinished_files(folder)} == {"state_000000000030.tmp"}
    older = manifests(folder)[10]
    (alone,) = files_of_checkpoint(older) - files_of_checkpoint(manifests(folder)[20])
    older.unlink()
    assert {name for name, _ in unfinished_files(folder)} == {"state_000000000030.tmp", alone}


def test_a_process_that_does_not_begin_at_the_newest_checkpoint_is_detected() -> None:
    training: Any = type("Training", (), {"start_step": 10})()
    assert wrong_start(training, 10) == []
    assert wrong_start(training, 20) == ["the newest checkpoint was of step 20, it began at 10"]


@pytest.mark.parametrize(
    "other",
    [
        {"a": [1, 2.0], "b": np.zeros(3, np.float32)},
        {"a": [1, 2], "b": np.zeros(3)},
        {"a": [1, 2], "b": np.array([0, 0, -0.0], np.float32)},
        {"a": [1, 2], "b": th.zeros(3)},
        {"b": np.zeros(3, np.float32), "a": [1, 2]},
        {"a": [1], "b": np.zeros(3, np.float32)},
    ],
    ids=range(6),
)
def test_a_fingerprint_changes_with_one_bit_and_with_one_type(other: Any) -> None:
    one = {"a": [1, 2], "b": np.zeros(3, np.float32)}
    assert fingerprint(one) == fingerprint({"a": [1, 2], "b": np.zeros(3, np.float32)})
    assert fingerprint(one) != fingerprint(other)


def test_the_table_counts_failures_and_shows_their_message() -> None:
    good, bad = Outcome(clear=True, message="Fine."), Outcome(clear=True, resumed=False, equal=True, message="It | began.")
    lines = fault_table([good.row("missing", 0), bad.row("missing", 1), good.row("schema", 0)]).splitlines()
    assert lines[2] == "| a missing file | 2 | 2 of 2 | 0 of 1 | 1 of 1 |  | `It \\| began.` |"
    assert lines[3] == "| a checkpoint of another version | 1 | 1 of 1 |  |  |  | `Fine.` |"
    assert len(lines) == 4


def test_kills_are_counted_over_all_runs(tmp_path: Path) -> None:
    rows = [Outcome(n_kills=10, n_writing=n, resumed=True, equal=True).row("sigkill", n) for n in (3, 4)]
    page = write(rows, [], tmp_path / "reliability.md")
    assert "| processes killed (SIGKILL) | 20 in 2 runs |  | 2 of 2 | 2 of 2 |  |  |" in page
    assert "| of these while a checkpoint was written | 7 |" in page


@pytest.mark.parametrize(
    ("third", "cells"),
    [
        (104.0, "| 1.0200 | 1.0000 to 1.0400 | 2.00% |"),
        (110.0, "| 1.0500 | 1.0000 to 1.1000 | 2.00% |"),
    ],
)
def test_the_cost_of_checkpoints_is_the_median_of_the_pairs(third: float, cells: str) -> None:
    rows = [
        {
            "variant": "eager",
            "number": "0",
            "checkpoints": "5",
            "without_s": "100",
            "with_s": str(value),
            "all_ms": str(value * 4),
        }
        for value in (100.0, (third + 100) / 2, third)
    ]
    assert cells in cost_table(rows)
    assert f"| eager | {np.median([float(row['all_ms']) for row in rows]):.1f} |" in parts_table(rows)


def test_the_last_line_of_a_traceback_is_the_exception(tmp_path: Path) -> None:
    text = f"Traceback\n  File x\nsome.module.CheckpointError: {tmp_path} is full: 1\n"
    assert last_line(text, tmp_path) == "CheckpointError: FOLDER is full: 1"
    assert last_line("", tmp_path) == ""


def test_a_row_can_be_written_as_json() -> None:
    row = Outcome("how", 1, 0, None, True, False, None, "text").row("sigkill", 3)
    assert json.dumps(row).count("yes") == json.dumps(row).count('"no"') == 1
    assert row["clear"] == row["untouched"] == ""
