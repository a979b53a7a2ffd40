"""Diagnostics from the zoo's YAML, and their cost."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import diagnostics_cost
from benchmarks.rows import RESULTS
from sb3_dqn_ext.sweep import read_rows
from tests.processes import output, python

LAZY = ("matplotlib", "moviepy", "PIL", "imageio", "imageio_ffmpeg", "tensorboard", "pygame")


def test_nothing_is_imported_that_draws(tmp_path: Path) -> None:
    imported = "import sys, stable_baselines3; before = set(sys.modules); import sb3_dqn_ext.callbacks"
    ours = output(python("-c", f"{imported}; print(*set(sys.modules) - before)", cwd=tmp_path)).split()
    assert "sb3_dqn_ext.callbacks.diagnostics.video" in ours
    assert not set(LAZY) & {name.partition(".")[0] for name in ours}, "SB3 itself imports TensorBoard's writer"


CONFIG: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_timesteps": 450,
    "n_envs": 2,
    "normalize": True,
    "learning_starts": 100,
    "policy_kwargs": {"net_arch": [16]},
    "callback": [
        {
            "sb3_dqn_ext.callbacks.DiagnosticsCallback": {
                "values": {"every": 100},
                "network": False,
                "calibration": {"every": 300, "n_episodes": 2},
                "video": {"every": 400, "skip": 10},
            }
        },
        {"sb3_dqn_ext.callbacks.NetworkHealthCallback": {"every": 200}},
    ],
}


ALGOS = ("dqn", "qrdqn", "dqn_ext")
TRAIN = """
import sys
from rl_zoo3.train import train
for algo in {algos}:
    sys.argv = ["train.py", "--algo", algo, "-tb", f"board/{{algo}}", *{arguments}]
    train()
"""


def test_a_run_of_the_zoo_shows_its_diagnostics_by_yaml_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"MountainCar-v0": CONFIG}))
    # gymnasium's MountainCar has episodes of 200 steps, four of which are logged together
    command = "--env MountainCar-v0 -conf config.yml -f logs --eval-freq -1 --device cpu --log-interval 1 --seed 1"
    output(python("-c", TRAIN.format(algos=ALGOS, arguments=command.split()), cwd=tmp_path))
    for algo in ALGOS:
        run = tmp_path / "logs" / algo / "MountainCar-v0_1"
        assert [film.name for film in (run / "videos").iterdir()] == ["step_400.mp4"]
        (events,) = {file.parent for file in (tmp_path / "board" / algo).rglob("events.*")}
        board = EventAccumulator(str(events)).Reload()
        tags = board.Tags()
        groups = {re.sub("/.*", "", tag) for tag in tags["scalars"]}
        assert groups > {"values", "network", "calibration", "video"}
        assert set(tags["images"]) == {"calibration/scatter", "exploration/visited", "video/episode"}
        assert board.Scalars("calibration/mean_return")[0].value == -200, "in its own unit, though rewards are normalised"
        assert board.Scalars("values/churn")


def test_the_page_on_the_cost_shows_what_was_measured() -> None:
    page = (RESULTS / "diagnostics_cost.md").read_text()
    shown = diagnostics_cost.table(read_rows(RESULTS / "diagnostics_cost.csv"))
    assert shown.count("\n| CartPole") >= 2
    of_machine = re.compile(".* cores; Python .*")
    assert of_machine.sub("", page) == of_machine.sub("", shown)


@pytest.mark.slow
def test_the_cost_is_measured_in_pairs_and_written_as_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"--variants cartpole_ours --pairs 1 --sizes 100 300 50 --results {tmp_path}".split()
    diagnostics_cost.main(command)
    printed = capsys.readouterr().out
    assert (tmp_path / "diagnostics_cost.md").read_text() in printed
    assert re.search(r"\| CartPole, 1 env, 64-64, DQNExt \| 300 \| 1 \| \d\.\d+ \(\d\.\d+-\d\.\d+\) \|", printed)
    before = (tmp_path / "diagnostics_cost.csv").read_text()
    header, row = before.splitlines()
    assert header == "variant,number,steps,without_wall_s,with_wall_s,without_cpu_s,with_cpu_s"
    assert row.startswith("cartpole_ours,0,300,")
    diagnostics_cost.main(command)
    assert (tmp_path / "diagnostics_cost.csv").read_text() == before
