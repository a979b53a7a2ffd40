"""Tests of the commands behind `make train`, `make train-seeds` and `make bench-learning`, with short runs."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.compiled import table
from tests.paths import ROOT
from tests.processes import output, python


def test_seeds_are_trained_once_written_as_rows_and_drawn(tmp_path: Path) -> None:
    command = f"-m benchmarks.seeds --seeds 0 --steps 400 --eval-freq 200 --runs {tmp_path}/runs --results {tmp_path}"
    printed = output(python(*command.split(), cwd=ROOT))
    with (tmp_path / "cartpole_seeds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["algo"] for row in rows) == ["dqn", "dqn_ext"]
    for row in rows:
        assert all(8 <= float(row[key]) <= 500 for key in ("best_model", "last_model", "eval@200", "eval@400"))
    table = (tmp_path / "cartpole_seeds.md").read_text()
    assert table in printed
    assert "| sb3_dqn_ext | 0 of 1 seeds |" in table
    assert (tmp_path / "cartpole_seeds.png").read_bytes().startswith(b"\x89PNG")

    before = (tmp_path / "cartpole_seeds.csv").read_text()
    output(python(*command.split(), cwd=ROOT))
    assert (tmp_path / "cartpole_seeds.csv").read_text() == before
    assert len(list((tmp_path / "runs").glob("*/*/CartPole-v1_*"))) == 2, "a finished seed was trained again"

    summary = output(python("-m", "benchmarks.summary", str(tmp_path / "runs" / "dqn_ext_0"), "--episodes", "3", cwd=ROOT))
    run = tmp_path / "runs/dqn_ext_0/dqn_ext/CartPole-v1_1"
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    for place in (run / "best_model.zip", run / "CartPole-v1.zip", run / "learning_curve.png"):
        assert place.is_file()
        assert str(place) in summary


def test_eager_and_compiled_runs_are_trained_once_and_written_as_rows(tmp_path: Path) -> None:
    # with 300 steps nothing is compiled: the zoo's hyperparameters start learning after 1000
    command = f"-m benchmarks.compiled --seeds 0 --steps 300 --eval-freq 100 --runs {tmp_path}/runs --results {tmp_path}"
    printed = output(python(*command.split(), cwd=ROOT))
    rows = (tmp_path / "compiled_seeds.csv").read_text()
    (of_eager, of_compiled) = sorted(csv.DictReader(rows.splitlines()), key=lambda row: row["compiled"])
    assert of_eager["steps_to_475"] == of_compiled["steps_to_475"] == "inf"
    assert of_eager["mean_return"] == of_compiled["mean_return"], "nothing was learned, so nothing differs"
    assert (tmp_path / "compiled_seeds.md").read_text() in printed
    output(python(*command.split(), cwd=ROOT))
    assert (tmp_path / "compiled_seeds.csv").read_text() == rows, "a finished seed was trained again"


def test_the_interval_of_the_difference_is_that_of_a_percentile_bootstrap() -> None:
    eager, compiled = [10_000, 12_000, 14_000, 20_000], [11_000, 13_000, 15_000, 16_000]
    rows = [
        {"compiled": which, "seed": str(seed), "steps_to_475": str(steps), "mean_return": "1"}
        for which, of_which in (("False", eager), ("True", compiled))
        for seed, steps in enumerate(of_which)
    ]
    rng = np.random.default_rng(1)
    medians = [np.median(rng.choice(numbers, (20_000, 4)), axis=1) for numbers in (compiled, eager)]
    low, high = np.quantile(medians[0] - medians[1], [0.025, 0.975])
    line = table(rows).splitlines()[2]
    assert "| 13,000 (10,000 to 20,000) | 14,000 (11,000 to 16,000) | 1,000 |" in line
    shown = [float(number.replace(",", "")) for number in line.split("|")[5].split(" to ")]
    np.testing.assert_allclose(shown, [low, high], atol=600)


@pytest.mark.slow
def test_the_steps_of_the_small_games_are_measured_and_a_film_is_made(tmp_path: Path) -> None:
    few = "--games dqn_ext/MinAtar-Breakout-v1 --steps 300 --frames 40 --repeats 1"
    folders = f"--runs {tmp_path}/runs --results {tmp_path} --films {tmp_path}/films"
    printed = output(python("-m", "benchmarks.games", *few.split(), *folders.split(), cwd=ROOT))
    assert (tmp_path / "games.md").read_text() in printed
    assert printed.count("| `dqn_ext/") == 6
    (film,) = (tmp_path / "films").iterdir()
    with Image.open(film) as picture:
        assert film.name == "breakout.gif"
        assert (picture.format, picture.size) == ("GIF", (160, 160))
        assert 20 < picture.n_frames <= 41  # equal frames are one
