"""Tests of the command behind `make tutorials`: its runs, with short ones, and its tables and pictures."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.rows import missing_keys, run_missing
from benchmarks.tutorials import __main__ as tutorials
from benchmarks.tutorials import measure
from benchmarks.tutorials.__main__ import CONFIGS, plan, with_configuration
from benchmarks.tutorials.calibration import play_game
from benchmarks.tutorials.measure import Key, Places, first_at_threshold, loop_seconds, means_of_parts, measure_run
from benchmarks.tutorials.pictures import returns_curve, save_pictures, values_picture
from benchmarks.tutorials.play import random_return
from benchmarks.tutorials.report import fill_page, overview, rows_of_tutorial, tutorial_block, write
from benchmarks.tutorials.specs import BY_NAME, TUTORIALS
from sb3_dqn_ext.callbacks.diagnostics.metrics import discounted_returns
from sb3_dqn_ext.plot import Calibration, Curve, plot_rolling, plot_seeds
from sb3_dqn_ext.sweep import Row, read_rows
from tests.paths import ROOT
from tests.processes import output, python

PNG = b"\x89PNG"


def row(tutorial: str, variant: str, seed: int, **values: float) -> Row:
    columns = (
        "train_s loop_s steps episodes greedy_last greedy_best last_100 first_at_threshold completed_100 "
        "calibration_r calibration_bias"
    )
    numbers = {"steps": 1000, "episodes": 100, "greedy_last": 100, "last_100": 90, "first_at_threshold": np.inf, **values}
    key = {"tutorial": tutorial, "variant": variant, "seed": str(seed)}
    returns = " ".join(str(part + seed) for part in range(50))
    return {**key, **{name: f"{numbers[name]:g}" if name in numbers else "" for name in columns.split()}, "returns": returns}


def rows_of(tutorial: str, **improved: list[float]) -> list[Row]:
    """Make ten rows of each variant; those of the improved one have given values."""
    faithful = [row(tutorial, "faithful", seed, greedy_last=100 + seed, greedy_best=100 + seed) for seed in range(10)]
    return faithful + [
        row(tutorial, "improved", seed, **{name: values[seed] for name, values in improved.items()}) for seed in range(10)
    ]


# -- the command -----------------------------------------------------------------------------------------------------------


def test_a_tutorial_is_run_once_and_becomes_a_row_a_table_and_pictures(tmp_path: Path) -> None:
    configs, results = tmp_path / "configs", tmp_path / "docs" / "results"
    configs.mkdir()
    shutil.copy(CONFIGS / "monte_carlo_multi_head.yml", configs / "monte_carlo_multi_head_improved.yml")
    page = tmp_path / "docs" / "tutorials" / "monte_carlo_multi_head.md"
    page.parent.mkdir(parents=True)
    page.write_text("Before.\n<!-- measured -->\nold\n<!-- /measured -->\nAfter.\n")
    command = "-m benchmarks.tutorials --tutorials monte_carlo_multi_head --seeds 3 --steps 300"
    places = f"--configs {configs} --runs {tmp_path}/runs --results {results}"

    printed = output(python(*command.split(), *places.split(), cwd=ROOT))
    assert f"There is no {configs}/monte_carlo_multi_head.yml: left out." in printed
    (of_run,) = read_rows(results / "tutorials.csv")
    assert (of_run["tutorial"], of_run["variant"], of_run["seed"]) == ("monte_carlo_multi_head", "improved", "3")
    assert all(8 <= float(of_run[name]) <= 200 for name in ("greedy_last", "greedy_best", "last_100"))
    assert 300 <= int(of_run["steps"]) < 500  # to the end of the tenth game
    assert int(of_run["episodes"]) % 10 == 0
    assert 0 < float(of_run["train_s"]) < 300
    assert -1 <= float(of_run["calibration_r"]) <= 1
    assert (of_run["first_at_threshold"], of_run["completed_100"], of_run["loop_s"]) == ("inf", "", "")
    returns = np.array(of_run["returns"].split(), dtype=float)
    assert len(returns) == 50
    assert all((returns >= 8) & (returns <= 200))
    table = (results / "tutorials.md").read_text()
    line = f"| improved | last | {float(of_run['greedy_last']):.1f} |"
    assert line in table
    assert line in printed
    assert re.search(
        r"Before\.\n<!-- measured -->\n\| median .*above 100\.\n<!-- /measured -->\nAfter", page.read_text(), re.DOTALL
    )
    for name in ("monte_carlo_multi_head", "monte_carlo_multi_head_run"):
        assert (results / "tutorials" / f"{name}.png").read_bytes().startswith(PNG)
        assert f"(tutorials/{name}.png)" in table

    before = (results / "tutorials.csv").read_text()
    output(python(*command.split(), *places.split(), cwd=ROOT))
    assert (results / "tutorials.csv").read_text() == before
    assert len(list((tmp_path / "runs").glob("*/*/CartPole-v0_*"))) == 1, "a finished run was run again"


def test_every_tutorial_has_a_configuration_for_its_environment() -> None:
    for tutorial in TUTORIALS:
        assert tutorial.env_id in yaml.safe_load((CONFIGS / Key(tutorial.name, "faithful", 0).config).read_text())


def test_only_what_has_a_configuration_and_no_row_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "exponential_decay.yml").touch()
    keys = plan(["exponential_decay"], ["faithful", "improved"], [0, 1])
    rows = [row("exponential_decay", "faithful", 1), row("vectorized_envs", "faithful", 0)]
    assert with_configuration(missing_keys(keys, rows, Key._fields), tmp_path) == [Key("exponential_decay", "faithful", 0)]
    assert capsys.readouterr().out == f"There is no {tmp_path}/exponential_decay_improved.yml: left out.\n"


def test_a_run_that_fails_costs_no_other_its_row(tmp_path: Path) -> None:
    def run(key: tuple[int]) -> Row:
        (number,) = key
        if number == 1:
            raise RuntimeError("the second one")
        return {"number": str(number)}

    with pytest.raises(RuntimeError, match="the second one"):
        run_missing(tmp_path / "results" / "rows.csv", ["number"], zip(range(4), strict=True), run, jobs=1)
    assert {written["number"] for written in read_rows(tmp_path / "results" / "rows.csv")} == {"0", "2", "3"}


def test_the_newest_run_that_was_finished_is_the_one_that_is_drawn(tmp_path: Path) -> None:
    key, places = Key("exponential_decay", "faithful", 1), Places(CONFIGS, tmp_path)
    assert places.run(key) is None
    folder = tmp_path / "exponential_decay_faithful_1" / "dqn_ext"
    for number, files in ((9, ["CartPole-v0.zip"]), (10, ["CartPole-v0.zip"]), (11, ["monitor.csv"])):
        (folder / f"CartPole-v0_{number}").mkdir(parents=True)
        for name in files:
            (folder / f"CartPole-v0_{number}" / name).touch()
    assert places.run(key) == folder / "CartPole-v0_10"


def test_timed_runs_run_alone_with_the_loop_right_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []

    def train(algo: str, env_id: str, seed: int, folder: Path, *arguments: str, **environment: str) -> Path:
        calls.append((folder.name, ""))
        assert environment["OMP_NUM_THREADS"] == "1"
        assert arguments[arguments.index("--eval-freq") + 1] == "-1"
        return folder

    def loop(seed: int, steps: int) -> float:
        calls.append(("loop", str(steps)))
        return 8.0

    monkeypatch.setattr(measure, "train", train)
    monkeypatch.setattr(measure, "loop_seconds", loop)
    monkeypatch.setattr(measure, "train_seconds", lambda run, env_id: 3.0)
    monkeypatch.setattr(measure, "evaluate_run", lambda *_: {})
    found = measure_run(Key("vectorized_envs", "improved", 7), Places(CONFIGS, tmp_path), steps=None)
    assert (found["train_s"], found["loop_s"]) == ("3.00", "8.00")
    assert calls == [("vectorized_envs_improved_7", ""), ("loop", "640000")]
    found = measure_run(Key("vectorized_envs", "faithful", 7), Places(CONFIGS, tmp_path), steps=320)
    assert (found["train_s"], found["loop_s"]) == ("3.00", "")

    jobs: dict[str, int] = {}

    def remember(path: Path, columns: Any, keys: Any, run: Any, jobs_: int = 0, **others: int) -> None:
        jobs.update(dict.fromkeys((key.tutorial for key in keys), others.get("jobs", jobs_)))

    for name in ("run_missing", "save_pictures", "record_videos", "write"):
        monkeypatch.setattr(tutorials, name, remember if name == "run_missing" else lambda *_, **__: "")
    tutorials.main(["--jobs", "5", "--results", str(tmp_path)])
    assert jobs == {tutorial.name: 1 if tutorial.name == "vectorized_envs" else 5 for tutorial in TUTORIALS}


def test_the_loop_is_timed() -> None:
    assert 0 < loop_seconds(seed=0, steps=320) < 60


# -- the rows --------------------------------------------------------------------------------------------------------------


def test_the_threshold_is_compared_with_the_mean_of_a_whole_window() -> None:
    returns = np.array([200.0] * 5 + [100.0] + [200.0] * 20)
    assert first_at_threshold(returns, threshold=195, window=10) == 16  # the first ten successive episodes without the sixth
    assert first_at_threshold(returns, threshold=190, window=10) == 10  # not before the tenth
    assert first_at_threshold(returns, threshold=201, window=10) == np.inf
    assert first_at_threshold(np.array([-200.0, -199.0]), threshold=-199, window=1) == 2
    assert first_at_threshold(returns[:5], threshold=195, window=10) == np.inf


def test_parts_of_a_run_hold_the_episodes_that_are_in_them() -> None:
    # episodes of 4, 2, 1 and 1 steps: the first one fills the first two of four parts
    assert means_of_parts(np.array([4.0, 2.0, 1.0, 3.0]), np.array([4, 6, 7, 8]), 4).tolist() == [4.0, 4.0, 2.0, 2.0]
    assert means_of_parts(np.array([1.0, 2.0]), np.array([1, 2]), 4).tolist() == [1.0, 1.0, 2.0, 2.0]
    by_hand = np.random.default_rng(0).normal(size=100)
    np.testing.assert_allclose(means_of_parts(by_hand, np.arange(1, 101), 50), by_hand.reshape(50, 2).mean(axis=1))


def test_a_game_of_four_steps_has_the_returns_of_the_tutorial() -> None:
    np.testing.assert_allclose(discounted_returns(np.array([1.0, 1.0, 1.0, 0.0]), 0.9), [2.71, 1.9, 1.0, 0.0])


@pytest.mark.parametrize("actions", [[0], [0, 1]], ids=["falls", "stays up for a while"])
def test_predicted_values_are_paired_with_the_realised_values_of_the_same_actions(actions: list[int]) -> None:
    env = DummyVecEnv([lambda: gym.make("CartPole-v1", max_episode_steps=244)])
    calls: list[int] = []

    def predict(observation: Any, deterministic: bool) -> tuple[Any, None]:
        assert not deterministic, "the model explores as in training"
        calls.append(len(calls))
        return np.array([actions[len(calls) % len(actions)]]), None

    model = SimpleNamespace(gamma=0.9, predict=predict, q_net=lambda observation: th.tensor([[5.0, 6.0]]))
    env.seed(0)
    found = play_game(model, env, np.random.default_rng(4))
    n = len(found.realised)
    assert len(found.predicted) == n == len(calls) + 1, "all of its actions, and the last random one"
    np.testing.assert_allclose(found.realised, (1 - 0.9 ** np.arange(n, 0, -1)) / (1 - 0.9))
    assert set(found.predicted) <= {5.0, 6.0}
    env.close()


def test_calibration_is_a_correlation_and_a_difference() -> None:
    found = Calibration(np.array([2.0, 4.0, 6.0]), np.array([0.0, 1.0, 2.0]))
    assert found.correlation == pytest.approx(1.0)
    assert found.bias == 3.0
    assert Calibration(np.ones(3), np.arange(3.0)).correlation == 0.0


# -- tables and pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("monte_carlo_multi_head", 195),
        ("terminal_penalty", 475),
        ("mountain_car_soft_target", -110),
        ("vectorized_envs", 195),
        ("exponential_decay", 195),
    ],
)
def test_seeds_at_the_threshold_of_gymnasium_have_solved_the_environment(name: str, threshold: float) -> None:
    rows = rows_of(name, greedy_last=[threshold] * 7 + [threshold - 0.1] * 3)
    assert f"| improved | last | {threshold:,.1f} |" in overview(rows)
    assert f"| {threshold} | 7 of 10 |  |  |" in overview(rows)
    line = f"| solved: seeds with a greedy return of at least {threshold}, last model | "
    of_faithful = 10 if threshold < 0 else 0  # 100 to 109
    assert f"{line}{of_faithful} of 10 | 7 of 10 |" in tutorial_block(BY_NAME[name], rows)


def test_variants_are_compared_by_the_difference_of_their_medians() -> None:
    rows = rows_of("terminal_penalty", greedy_best=[475.0] * 10)
    block = tutorial_block(BY_NAME["terminal_penalty"], rows)
    (line,) = (line for line in block.splitlines() if line.startswith("| greedy return, best checkpoint | 370.5 |"))
    low, high = map(float, line.split("|")[3].split(" to "))
    assert 475 - 109 <= low < 370.5 < high <= 475 - 100
    assert "| greedy return, last model | -4.5 |" in block


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=[tutorial.name for tutorial in TUTORIALS])
def test_a_single_variant_is_not_compared(tutorial: Any) -> None:
    rows = [row(tutorial.name, "faithful", seed) for seed in range(3)]
    assert "improved" not in tutorial_block(tutorial, rows)
    start = f"| {tutorial.title} | faithful | last | 100.0 | 100.0 to 100.0 | 100.0 | 100.0 | {tutorial.solved_return:g} | "
    assert start in overview(rows)
    assert f" of 3 | {tutorial.reported} | {tutorial.port_result} |" in overview(rows)


def test_the_tables_show_medians_and_ranges() -> None:
    rows = rows_of(
        "monte_carlo_multi_head", greedy_last=[*range(191, 201)], calibration_r=[0.5] * 10, greedy_best=[200.0] * 10
    )
    table = overview(rows)
    assert "| faithful | last | 104.5 | 102.2 to 106.8 | 100.0 | 109.0 | 195 | 0 of 10 | mixed results | greedy 9.6" in table
    assert "| improved | last | 195.5 | 193.2 to 197.8 | 191.0 | 200.0 | 195 | 6 of 10 |  |  |" in table
    assert "| improved | best checkpoint | 200.0 | 200.0 to 200.0 | 200.0 | 200.0 | 195 | 10 of 10 |  |  |" in table
    measured_block = tutorial_block(BY_NAME["monte_carlo_multi_head"], rows)
    assert "| median (range) | faithful, 10 seeds | improved, 10 seeds |" in measured_block
    assert "| greedy return, last model | 104.5 (100.0 to 109.0) | 195.5 (191.0 to 200.0) |" in measured_block
    assert "have a mean of 195 | never (never to never) |" in measured_block
    assert "| seeds with a greedy return above 150 | 0 | 10 |" in measured_block
    assert "correlation of predicted and realised values |  | 0.50 (0.50 to 0.50) |" in measured_block

    timed = rows_of("vectorized_envs", train_s=[10.0] * 10, loop_s=[25.0] * 10)
    assert "loop's time |  | 0.40 (0.40 to 0.40) |" in tutorial_block(BY_NAME["vectorized_envs"], timed)


def test_random_actions_keep_the_pole_up_for_some_20_steps() -> None:
    assert 18 < random_return("CartPole-v1") < 27
    rows = [row("terminal_penalty", "faithful", 0)]
    assert f"| return of random actions | {random_return('CartPole-v1'):.1f} |" in tutorial_block(
        BY_NAME["terminal_penalty"], rows
    )


def test_a_page_without_markers_stays_as_it_is() -> None:
    assert fill_page("text\n", "| 1 |\n") == "text\n"
    once = fill_page("a\n<!-- measured -->\n<!-- /measured -->\nb\n", "| \\1 |\n")
    assert once == "a\n<!-- measured -->\n| \\1 |\n<!-- /measured -->\nb\n"
    assert fill_page(once, "| 2 |\n") == "a\n<!-- measured -->\n| 2 |\n<!-- /measured -->\nb\n"


def test_runs_of_different_lengths_are_drawn_on_one_axis() -> None:
    rows = [row("mountain_car_soft_target", "faithful", seed, steps=steps) for seed, steps in enumerate([1000, 500])]
    of_both = returns_curve(BY_NAME["mountain_car_soft_target"], rows)
    assert (of_both.steps[0], of_both.steps[-1]) == (10.0, 990.0)
    np.testing.assert_allclose(of_both.returns[0], np.arange(50))
    # the shorter run ends at half of the axis and keeps its last value
    np.testing.assert_allclose(of_both.returns[1][[0, 12, 30, 49]], [1.5, 25.5, 50.0, 50.0])


def test_rows_become_tables_and_pictures_without_any_run_folder(tmp_path: Path) -> None:
    greedy = [150.0 + i for i in range(10)]
    rows = [made_up for tutorial in TUTORIALS for made_up in rows_of(tutorial.name, greedy_last=greedy)]
    save_pictures(rows, Places(tmp_path, tmp_path), tmp_path)
    write(rows, tmp_path, tmp_path)
    for tutorial in TUTORIALS:
        assert (tmp_path / "tutorials" / f"{tutorial.name}.png").read_bytes().startswith(PNG)
    assert len(list((tmp_path / "tutorials").iterdir())) == len(TUTORIALS)
    assert (tmp_path / "tutorials.md").read_text().count("![") == len(TUTORIALS)


def test_the_values_of_each_run_have_a_row_of_three_panels() -> None:
    found = Calibration(np.array([1.0, 2.0]), np.array([1.5, 2.5]))
    figure = values_picture({name: (np.array([2.0, 1.0]), np.arange(20.0), found) for name in ("one", "other")})
    assert len(figure.axes) == 6
    assert figure.axes[0].get_title() == "one"
    assert figure.axes[5].get_title() == "correlation 1.00, bias -0.50"


def test_a_rolling_mean_has_its_deviation_around_it() -> None:
    returns = np.random.default_rng(0).normal(size=30)
    figure = plot_rolling({"run": Curve(np.arange(30), returns[:, None])}, "title", window=10)
    (line,), (band,) = figure.axes[0].get_lines(), figure.axes[0].collections
    np.testing.assert_allclose(np.asarray(line.get_ydata())[-1], returns[-10:].mean())
    edges: Any = band.get_paths()[0].vertices
    at_the_end = sorted({float(y) for x, y in edges if x == 29})
    np.testing.assert_allclose(
        at_the_end, [returns[-10:].mean() - returns[-10:].std(), returns[-10:].mean() + returns[-10:].std()]
    )


def test_the_threshold_of_several_seeds_is_a_line() -> None:
    figure = plot_seeds({"ours": Curve(np.arange(3), np.ones((2, 3)))}, "title", "games", "return", threshold=195)
    threshold, _ = figure.axes[0].get_lines()
    np.testing.assert_array_equal(np.asarray(threshold.get_ydata()), 195)
    assert figure.axes[0].get_xlabel() == "games"


def test_the_numbers_of_the_pages_are_those_that_were_measured() -> None:
    rows = read_rows(ROOT / "docs" / "results" / "tutorials.csv")
    for page in (ROOT / "docs" / "tutorials").glob("*.md"):
        shown = re.findall(r"<!-- measured -->\n(.*?)<!-- /measured -->", page.read_text(), flags=re.DOTALL)
        for measured_block in filter(None, map(str.strip, shown)):
            assert measured_block == tutorial_block(BY_NAME[page.stem], rows_of_tutorial(rows, BY_NAME[page.stem])).strip(), (
                page
            )
            assert measured_block in (ROOT / "docs" / "results" / "tutorials.md").read_text()
