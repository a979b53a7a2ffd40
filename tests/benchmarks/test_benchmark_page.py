"""The page of all sweeps."""

import shlex
from pathlib import Path

import pytest

from benchmarks.benchmark_page import Sweep, command, describe_sweeps
from sb3_dqn_ext.sweep import Row, Spec, Task
from sb3_dqn_ext.sweep.__main__ import parse
from sb3_dqn_ext.sweep.results import COLUMNS
from sb3_dqn_ext.sweep.spec import Evaluation


def make_row(variant: str, seed: int, score: str = "1") -> Row:
    return dict.fromkeys(COLUMNS, "") | {"env": "a b", "variant": variant, "seed": str(seed), "score": score, "steps": "5"}


def make_spec(*variants: str) -> Spec:
    tasks = tuple(Task("a b", variant, 0, "dqn", {}, Evaluation(), 1) for variant in variants)
    return Spec(Path("some/spec.yml"), "A title", Path("docs/rows.csv"), tasks)


@pytest.mark.parametrize("seeds", [[3], [0, 1, 2], [0, 2], [10, 9, 11]])
def test_the_command_of_a_line_selects_its_runs(seeds: list[int]) -> None:
    words = shlex.split(command(make_spec("one"), [make_row("one", seed) for seed in seeds]))
    assert words[:3] == ["python", "-m", "sb3_dqn_ext.sweep"]
    args = parse(words[3:], "sweep")
    assert (args.spec, args.envs, args.variants) == (Path("some/spec.yml"), ["a b"], ["one"])
    assert args.seeds == [str(seed) for seed in sorted(seeds)]


def test_differences_have_the_title_of_their_sweep_and_a_single_variant_has_none() -> None:
    one = Sweep(make_spec("one"), [make_row("one", 0)])
    two = Sweep(make_spec("one", "two"), [make_row("one", 0, "3"), make_row("two", 0, "5")])
    scores, differences = describe_sweeps([one, two]).split("## Differences")
    assert scores.count("\n| a b | one | 1 |") == 2
    assert scores.count("\n| a b | two | 1 | 5.00 |") == 1
    assert differences.count("### [A title](rows.md)") == 1
    assert "| a b: one - two | -2.00 | -2.00 to -2.00 | 0.00 |" in differences
