"""Tests that the published pages are those that the benchmarks write from the published rows."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from benchmarks import actors, algorithms, benchmark_page, diagnostics_cost, games, offline
from benchmarks.reliability import report as reliability
from benchmarks.rows import RESULTS
from benchmarks.speed import report as speed
from benchmarks.tutorials import questions
from benchmarks.tutorials import report as tutorials
from sb3_dqn_ext.sweep import read_rows, read_spec
from sb3_dqn_ext.sweep.report import describe_rows, rows_of
from tests.pages import blocks
from tests.paths import ROOT

MACHINE = re.compile(r".* cores; Python .*")


def sweep_page(name: str) -> str:
    spec = read_spec(ROOT / "benchmarks" / "sweeps" / f"{name}.yml")
    return describe_rows(spec, rows_of(spec))


def reliability_page(folder: Path) -> str:
    rows, pairs = (read_rows(RESULTS / name) for name in ("reliability.csv", "overhead.csv"))
    return reliability.write(rows, pairs, folder / "page.md")


def speed_page(folder: Path) -> str:
    for name in ("speed.csv", "speed_parts.csv"):
        shutil.copy(RESULTS / name, folder)
    return speed.write(folder)


def tutorials_page(folder: Path) -> str:
    shutil.copytree(RESULTS / "tutorials", folder / "tutorials")
    tutorials.write(read_rows(RESULTS / "tutorials.csv"), folder, pages=folder)
    return (folder / "tutorials.md").read_text()


def questions_page(folder: Path) -> str:
    questions.write(read_rows(RESULTS / "tutorial_questions.csv"), folder, page=folder / "page.md")
    return (folder / "tutorial_questions.md").read_text()


PAGES: dict[str, Callable[[Path], str]] = {
    "ablation_breakout": lambda folder: sweep_page("ablation_breakout"),
    "ablation_lunarlander": lambda folder: sweep_page("ablation_lunarlander"),
    "ablation_lunarlander_dueling": lambda folder: sweep_page("ablation_lunarlander_dueling"),
    "actors": lambda folder: actors.page(read_rows(RESULTS / "actors.csv")),
    "actors_learning": lambda folder: sweep_page("actors"),
    "algorithms": lambda folder: sweep_page("algorithms"),
    "benchmark": lambda folder: benchmark_page.describe_sweeps(benchmark_page.published_sweeps()),
    "btr": lambda folder: sweep_page("btr"),
    "cartpole_seeds": lambda folder: sweep_page("cartpole"),
    "classic": lambda folder: sweep_page("classic"),
    "compiled_seeds": lambda folder: sweep_page("compiled"),
    "default": lambda folder: sweep_page("default"),
    "demonstrations": lambda folder: sweep_page("demonstrations"),
    "diagnostics_cost": lambda folder: diagnostics_cost.table(read_rows(RESULTS / "diagnostics_cost.csv")),
    "lunarlander_qrdqn": lambda folder: sweep_page("lunarlander_qrdqn"),
    "masks": lambda folder: sweep_page("masks"),
    "minatar": lambda folder: sweep_page("minatar"),
    "minatar_games": lambda folder: sweep_page("minatar_games"),
    "optimizers": lambda folder: sweep_page("optimizers"),
    "plasticity": lambda folder: sweep_page("plasticity"),
    "pong": lambda folder: sweep_page("pong"),
    "pqn_cartpole": lambda folder: sweep_page("pqn"),
    "pqn_minatar": lambda folder: sweep_page("pqn_minatar"),
    "games": lambda folder: games.table(read_rows(RESULTS / "games.csv")),
    "offline": lambda folder: offline.page(read_rows(RESULTS / "offline.csv")),
    "reliability": reliability_page,
    "speed": speed_page,
    "tutorial_questions": questions_page,
    "tutorials": tutorials_page,
}


def test_every_page_of_results_is_compared() -> None:
    assert {path.stem for path in RESULTS.glob("*.md")} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_the_one_that_is_written_from_the_rows(name: str, tmp_path: Path) -> None:
    published, written = (RESULTS / f"{name}.md").read_text(), PAGES[name](tmp_path)
    assert MACHINE.sub("", published) == MACHINE.sub("", written)


ALGORITHMS = read_spec(algorithms.SPEC)


@pytest.mark.parametrize("variant", ALGORITHMS.variants)
def test_the_page_of_an_algorithm_has_its_scores(variant: str) -> None:
    (shown,) = algorithms.MEASURED.findall(algorithms.page_of(variant).read_text())
    assert shown == algorithms.describe_algorithm(ALGORITHMS, rows_of(ALGORITHMS), variant)


@pytest.mark.parametrize("variant", [name for name in ALGORITHMS.variants if name != "hl_gauss"])
def test_the_configuration_on_the_page_of_an_algorithm_is_the_one_that_was_measured(variant: str) -> None:
    (configuration,) = (yaml.safe_load(block.text) for block in blocks(algorithms.page_of(variant), "yaml"))
    (task,) = (task for task in ALGORITHMS.tasks if task.variant == variant and task.seed == 0)
    assert {**configuration["CartPole-v1"], "compile": True} == task.hyperparameters
