"""Tests of the sweeps of `make train-seeds` and `make bench-learning`, with short runs, and of the summary of a run."""

from pathlib import Path

import pytest
import yaml
from PIL import Image

from sb3_dqn_ext.sweep import read_rows, read_spec
from tests.paths import ROOT
from tests.processes import output, python

SWEEPS = ROOT / "benchmarks" / "sweeps"


def test_a_seed_is_trained_and_measured(tmp_path: Path) -> None:
    spec = yaml.safe_load((SWEEPS / "cartpole.yml").read_text())
    spec |= {"hyperparameters": {"n_timesteps": 400}, "results": "rows.csv"}
    spec["evaluation"] = {"every": 200, "episodes": 2, "last_episodes": 3}
    (tmp_path / "short.yml").write_text(yaml.safe_dump(spec))
    command = ["short.yml", "--seeds", "0", "--variants", "sb3_dqn_ext"]
    printed = output(python("-m", "sb3_dqn_ext.sweep", *command, cwd=tmp_path, PYTHONPATH=str(ROOT)))
    (row,) = read_rows(tmp_path / "rows.csv")
    assert all(8 <= float(row[column]) <= 500 for column in ("score", "best_model", "mean_return"))
    assert (row["eval_steps"], row["steps_to_475"]) == ("200 400", "inf")
    assert "| CartPole-v1 | steps_to_475 | sb3_dqn_ext | 1 | inf (inf to inf) |" in printed

    (logs,) = (tmp_path / "runs").glob("*/*/*/*/logs")
    summary = output(python("-m", "benchmarks.summary", str(logs), "--episodes", "3", cwd=ROOT))
    run = logs / "dqn_ext" / "CartPole-v1_1"
    for place in (run / "best_model.zip", run / "CartPole-v1.zip", run / "learning_curve.png"):
        assert place.is_file()
        assert str(place) in summary


@pytest.mark.parametrize("name", ["cartpole", "compiled", "questions"])
def test_all_runs_of_a_published_sweep_have_a_row(name: str) -> None:
    spec = read_spec(SWEEPS / f"{name}.yml")
    rows = read_rows(spec.results)
    assert len(rows) == len(spec.tasks)
    assert all(task.is_in(rows) for task in spec.tasks)


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
