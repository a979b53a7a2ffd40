"""The commands behind `make train` and `make train-seeds`, on runs that are short."""

import csv
from pathlib import Path

from tests.processes import output, python

ROOT = Path(__file__).parent.parent


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
