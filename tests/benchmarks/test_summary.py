"""The screens of `make train` in a terminal of 80 columns."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import summary
from benchmarks.text_chart import text_chart
from tests.paths import ROOT
from tests.processes import Process, output
from tests.terminals import run_in_terminal

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def commands_of_make_train() -> str:
    """Return the shell commands of `make train`, with a run of 1500 steps."""
    printed = output(run(["make", "--no-print-directory", "-n", "train", "RUNS=runs"], ROOT))
    recipe = printed[printed.index(".venv/bin/python -m rl_zoo3.train") :]
    shorter = {
        "--seed 0 --num": "--seed 0 -n 1500 --num",
        "--eval-freq 2500": "--eval-freq 500",
        "--episodes 50": "--episodes 3",
    }
    for old, new in shorter.items():
        assert recipe.count(old) == 1
        recipe = recipe.replace(old, new)
    return recipe


def run(command: list[str], folder: Path) -> Process:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def pasted(screen: list[str]) -> list[list[str]]:
    """Return the words of the commands at the end of a screen, as a shell reads them."""
    lines = "\n".join(screen[screen.index("Next:") + 1 :])
    return [shlex.split(command) for command in lines.replace("\\\n", " ").splitlines() if command]


def test_make_train_shows_score_picture_and_three_commands_in_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of benchmarks
    printed, code = run_in_terminal(["sh", "-c", commands_of_make_train()], tmp_path, columns=80)
    assert code == 0, printed[-3000:]
    lines = [CONTROL.sub("", line).rstrip("\r") for line in printed.split("\n")]
    assert any("it/s" in line for line in lines), "a progress bar"
    assert not any(line.startswith("|") for line in lines), "no tables of SB3"
    start = lines.index("Mean return of the evaluations during training")
    assert start < 70, "a short log"
    screen = lines[start:-1]
    assert max(map(len, screen)) <= 80
    assert len(screen) <= 23, "with the prompt, 24 lines"

    run_folder = Path("runs/dqn_ext/CartPole-v1_1")
    scores = [line.split() for line in screen if line.startswith(("  best model", "  last model"))]
    assert [[*names, file] for *names, _, file in scores] == [
        ["best", "model", str(run_folder / "best_model.zip")],
        ["last", "model", str(run_folder / "CartPole-v1.zip")],
    ]
    assert all(8 <= float(score) <= 500 for *_, score, _ in scores)
    (picture,) = (line.split()[1] for line in screen if line.startswith("  picture"))
    assert picture == str(run_folder / "learning_curve.png")
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert [film.name for film in (tmp_path / run_folder / "videos").iterdir()] == ["step_1500.mp4"]

    enjoy, tensorboard, report = pasted(screen)
    output(run([*enjoy, "--no-render", "-n", "20"], tmp_path))
    assert "calibration/bias" in output(run([*tensorboard, "--inspect", "--tag", "calibration/bias"], tmp_path))
    output(run([*report, "--episodes", "1"], tmp_path))
    assert (tmp_path / run_folder / "report.html").is_file()


@pytest.mark.parametrize("ys", [[-200.0, -200.0, -110.0], [0.0, 500.0, 281.2], [-21.0, 0.0, 21.0], [3.0, 3.0, 3.0]], ids=str)
def test_the_highest_block_of_a_chart_is_where_the_largest_number_is(ys: list[float]) -> None:
    lines = text_chart([100, 200, 300], ys, width=40, height=4)
    assert {len(line) for line in lines[-2:]} <= {40}
    assert max(map(len, lines)) == 40
    blocks = np.array([list(line.ljust(40)[10:]) for line in lines[:-1]])  # (4, 30)
    heights = (blocks != " ").sum(axis=0)  # (30,)
    assert heights.max() == heights[round(29 * int(np.argmax(ys)) / 2)] == 4
    assert (np.diff(heights[: int(np.argmax(ys)) * 15]) >= 0).all()
    assert lines[0].split()[0] == f"{max(ys):,.0f}"
    assert lines[-1].split() == ["100", "300", "steps"]


def test_a_long_command_is_continued_in_the_next_line() -> None:
    words = ["python", "-m", "module", *(f"--option-{i}" for i in range(12)), "a folder"]
    lines = list(summary.command(words))
    assert len(lines) > 1
    assert max(map(len, lines)) <= 80
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == words
