"""Check that the README and the results in pages are true: code runs, and numbers, messages and links are the real ones."""

import json
import re
from pathlib import Path
from statistics import median

import pytest
import yaml

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep import read_rows, select_rows
from tests import pages
from tests.pages import DOCS, Block, table_rows
from tests.paths import ROOT
from tests.processes import output, python, write_package

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return [block.text for block in pages.blocks(ROOT / "README.md", language)]


EXAMPLES = [block for page in (ROOT / "README.md", DOCS / "sb3.md") for block in pages.blocks(page, "python")]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: block.where)
def test_every_example_runs_from_a_directory_of_the_users(example: Block, tmp_path: Path) -> None:
    write_package(tmp_path / "envs", __init__="raise ImportError('the envs/ of the user')")
    (tmp_path / "example.py").write_text(example.text)
    output(python("-W", "error", "example.py", cwd=tmp_path))


def test_the_configuration_is_that_of_the_python_example_and_trains_from_the_zoo(tmp_path: Path) -> None:
    (configuration,), (example,) = blocks("yaml"), blocks("python")
    (tmp_path / "my_config.yml").write_text(configuration)
    given = yaml.safe_load(configuration)["CartPole-v1"]
    for key in given.keys() - {"policy", "n_timesteps"}:
        assert f"{key}={json.dumps(given[key])}," in example
    command = "-m rl_zoo3.train --algo dqn_ext --env CartPole-v1 -conf my_config.yml -n 300 --eval-freq -1"
    output(python(*command.split(), cwd=tmp_path))
    assert (tmp_path / "logs/dqn_ext/CartPole-v1_1/CartPole-v1.zip").is_file()


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_the_results_are_those_that_were_measured() -> None:
    rows = read_rows(ROOT / "docs/results/cartpole_seeds.csv")
    ours, theirs = (select_rows(rows, variant=variant) for variant in ("sb3_dqn_ext", "stock SB3 DQN"))
    scores = table_rows(DOCS / "results/cartpole_seeds.md", "environment | variant")[:2]
    iqm, their_iqm = (float(row[3]) for row in scores)
    interval, their_interval = (rounded(row[4]) for row in scores)
    sentence = f"is {iqm:.0f} (SB3: {their_iqm:.0f}; interquartile means over {len(ours)} seeds, with 95 % intervals of "
    assert f"{sentence}{interval} and {their_interval})" in README
    first, their_first = (median(float(row["steps_to_475"]) for row in chosen) for chosen in (ours, theirs))
    assert f"The first evaluation at 475 is at {first:,.0f} steps in the median (SB3: {their_first:,.0f})" in README
    mean, their_mean = (median(float(row["mean_return"]) for row in chosen) for chosen in (ours, theirs))
    assert f"the mean over all evaluations is {mean:.0f} (SB3: {their_mean:.0f})" in " ".join(README.split())


def rounded(interval: str) -> str:
    return " to ".join(f"{float(number):.0f}" for number in interval.split(" to "))


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("speed", "speed"),
        ("speed", "compiled_seeds"),
        ("games", "games"),
        ("actors", "actors"),
        ("actors", "actors_learning"),
        ("algorithms/dqn", "cartpole_seeds"),
        ("btr", "btr"),
        ("plasticity", "plasticity"),
        ("choices/returns", "optimizers"),
        ("masks", "masks"),
        ("zoo", "default"),
        ("demonstrations", "demonstrations"),
        ("demonstrations", "offline"),
    ],
)
def test_the_tables_of_results_are_those_that_were_measured(page: str, name: str) -> None:
    text = (ROOT / f"docs/{page}.md").read_text()
    (shown,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, flags=re.DOTALL)
    assert shown.strip()
    assert shown in (ROOT / f"docs/results/{name}.md").read_text()


def test_the_error_that_is_shown_is_the_one_that_is_raised() -> None:
    with pytest.raises(ArgumentError) as error:
        DQNExt("MlpPolicy", "CartPole-v1", target_policy="ddqn")
    assert f"ArgumentError: {error.value}\n" in [block.text for block in pages.blocks(DOCS / "features.md", "text")]


def test_every_file_it_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert len(links) >= 4
    for link in links:
        assert (ROOT / link).exists(), link
