"""Check that the README is true: its code runs, and its tables, links and error messages are the real ones."""

import re
from pathlib import Path
from statistics import median

import pytest

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep import read_rows, select_rows
from tests import pages
from tests.paths import ROOT
from tests.processes import output, python, write_package

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return [block.text for block in pages.blocks(ROOT / "README.md", language)]


@pytest.mark.parametrize("example", blocks("python"), ids=["DQNExt", "callbacks", "wrapper and memory", "fast", "checkpoints"])
def test_every_example_runs_from_a_directory_of_the_users(example: str, tmp_path: Path) -> None:
    write_package(tmp_path / "envs", __init__="raise ImportError('the envs/ of the user')")
    (tmp_path / "example.py").write_text(example)
    output(python("-W", "error", "example.py", cwd=tmp_path))


def test_the_configuration_trains_from_the_zoo(tmp_path: Path) -> None:
    configuration, of_callbacks = blocks("yaml")
    configuration += of_callbacks.partition("\n")[2]
    (tmp_path / "my_config.yml").write_text(configuration)
    command = "-m rl_zoo3.train --algo dqn_ext --env CartPole-v1 -conf my_config.yml -n 300 --eval-freq -1"
    output(python(*command.split(), cwd=tmp_path))
    assert (tmp_path / "logs/dqn_ext/CartPole-v1_1/CartPole-v1.zip").is_file()
    assert "Diagnostics" in (tmp_path / "logs/dqn_ext/CartPole-v1_1/CartPole-v1/config.yml").read_text()


def test_the_table_of_results_is_the_one_that_was_measured() -> None:
    (shown,) = re.findall(r"<!-- cartpole_seeds -->\n(.*?)<!-- /cartpole_seeds -->", README, flags=re.DOTALL)
    assert shown in (ROOT / "docs/results/cartpole_seeds.md").read_text()
    rows = read_rows(ROOT / "docs/results/cartpole_seeds.csv")
    best, first = (
        [[float(row[column]) for row in select_rows(rows, variant=variant)] for variant in ("sb3_dqn_ext", "stock SB3 DQN")]
        for column in ("best_model", "steps_to_475")
    )
    ours, theirs = (f"{sum(score >= 475 for score in scores)} of {len(scores)}" for scores in best)
    sentence = f"with {ours} seeds (SB3: {theirs}), and the first evaluation at 475 is at {median(first[0]):,.0f} steps"
    assert f"{sentence} in the median (SB3: {median(first[1]):,.0f})" in README


@pytest.mark.parametrize(("page", "name"), [("speed", "speed"), ("speed", "compiled_seeds"), ("games", "games")])
def test_the_tables_about_speed_are_those_that_were_measured(page: str, name: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text()
    (shown,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, flags=re.DOTALL)
    assert shown.strip()
    assert shown in (ROOT / f"docs/results/{name}.md").read_text()


def test_the_error_that_is_shown_is_the_one_that_is_raised() -> None:
    with pytest.raises(ArgumentError) as error:
        DQNExt("MlpPolicy", "CartPole-v1", target_policy="ddqn")
    assert f"ArgumentError: {error.value}\n" in blocks("text")


def test_every_file_it_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert len(links) >= 4
    for link in links:
        assert (ROOT / link).exists(), link
