"""Diagnostics from the zoo's YAML, and what it costs to have them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.processes import output, python

ROOT = Path(__file__).parents[1]
LAZY = ("matplotlib", "moviepy", "PIL", "imageio", "imageio_ffmpeg", "tensorboard", "pygame")


def test_nothing_is_imported_that_draws(tmp_path: Path) -> None:
    def modules(statement: str) -> set[str]:
        printed = output(python("-c", f"{statement}; import sys; print(*sys.modules)", cwd=tmp_path))
        return {name.partition(".")[0] for name in printed.split()}

    ours = modules("import sb3_dqn_ext.callbacks")
    assert not set(LAZY) & (ours - modules("import stable_baselines3")), "SB3 itself imports TensorBoard's writer"


CONFIG: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_timesteps": 700,
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


@pytest.mark.parametrize("algo", ["dqn", "qrdqn", "dqn_ext"])
def test_a_run_of_the_zoo_shows_its_diagnostics_by_yaml_alone(algo: str, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"MountainCar-v0": CONFIG}))
    command = (
        f"-m rl_zoo3.train --algo {algo} --env MountainCar-v0 -conf config.yml -f logs -tb board --eval-freq -1 --device cpu"
    )
    # gymnasium's MountainCar has episodes of 200 steps, four of which are logged together
    output(python(*command.split(), "--log-interval", "1", "--seed", "1", cwd=tmp_path))
    (run,) = (tmp_path / "logs" / algo).glob("MountainCar-v0_1")
    assert [film.name for film in (run / "videos").iterdir()] == ["step_400.mp4"]
    (events,) = {file.parent for file in (tmp_path / "board").rglob("events.*")}
    board = EventAccumulator(str(events)).Reload()
    tags = board.Tags()
    groups = {re.sub("/.*", "", tag) for tag in tags["scalars"]}
    assert groups > {"values", "network", "calibration", "video"}
    assert set(tags["images"]) == {"calibration/scatter", "video/episode"}
    assert board.Scalars("calibration/mean_return")[0].value == -200, "in its own unit, though rewards are normalised"
    assert board.Scalars("values/churn")


def test_the_cost_is_measured_in_pairs_and_written_as_rows(tmp_path: Path) -> None:
    command = f"-m benchmarks.diagnostics_cost --variants cartpole_ours --pairs 1 --sizes 200 900 --results {tmp_path}"
    printed = output(python(*command.split(), cwd=ROOT))
    assert (tmp_path / "diagnostics_cost.md").read_text() in printed
    assert re.search(r"\| CartPole, 1 env, 64-64, DQNExt \| 900 \| 1 \| \d\.\d+ \(\d\.\d+-\d\.\d+\) \|", printed)
    before = (tmp_path / "diagnostics_cost.csv").read_text()
    header, row = before.splitlines()
    assert header == "variant,number,steps,without_wall_s,with_wall_s,without_cpu_s,with_cpu_s,without_inside_s,with_inside_s"
    assert row.startswith("cartpole_ours,0,900,")
    output(python(*command.split(), cwd=ROOT))
    assert (tmp_path / "diagnostics_cost.csv").read_text() == before
