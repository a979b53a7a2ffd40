"""
Write what was measured into the pages of the algorithms, from the rows of a sweep: ``python -m benchmarks.algorithms``.

Nothing is trained. Each page gets the scores of its algorithm and of DQN, and a picture of their learning curves.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.rows import RESULTS
from sb3_dqn_ext.sweep import Row, Spec, read_spec, select_rows
from sb3_dqn_ext.sweep.report import Panel, cells, improvement_cells, rows_of, save_panels, score_lines, table_head

SPEC = ROOT / "benchmarks" / "sweeps" / "algorithms.yml"
BASELINE = "dqn"

MEASURED = re.compile(r"(?<=<!-- algorithms -->\n).*?(?=<!-- /algorithms -->)", flags=re.DOTALL)
HEAD = "algorithm | seeds | score (IQM) | 95 % interval | range | CPU minutes | probability of improvement on DQN"


def page_of(variant: str) -> Path:
    """
    Return the page of an algorithm.

    :param variant: its name in the sweep
    """
    name = "choices/returns.md" if variant == "hl_gauss" else f"algorithms/{variant}.md"
    return ROOT / "docs" / name


def describe_algorithm(spec: Spec, rows: Sequence[Row], variant: str) -> str:
    """
    Return the text between the marks of a page: the learning curves, and the scores of DQN and of the algorithm.

    :param spec: the sweep
    :param rows: its rows
    :param variant: the name of the algorithm
    """
    measured = dict(lines_of(spec, rows))
    if variant not in measured:
        return "Not measured yet.\n"
    table = [*table_head(HEAD), *(measured[name] for name in dict.fromkeys((BASELINE, variant)))]
    return "\n".join([f"![Learning curves](../results/algorithms/{variant}.png)", "", *table, ""])


def lines_of(spec: Spec, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """
    Return the name of each algorithm, and its line of the table.

    :param spec: the sweep
    :param rows: its rows
    """
    for env, variant, seeds, score, interval, bounds, _, _, cpu in score_lines(spec, rows):
        better = "" if variant == BASELINE else improvement(rows, env, variant)
        yield variant, f"| {' | '.join([variant, seeds, score, interval, bounds, cpu, better])} |"


def improvement(rows: Sequence[Row], env: str, variant: str) -> str:
    """
    Return the probability that a run of an algorithm has a higher score than one of DQN, and its 95 % interval.

    :param rows: the rows of the sweep
    :param env: the id of the environment
    :param variant: the name of the algorithm
    """
    first, second = (cells(rows, env, name, "score") for name in (variant, BASELINE))
    probability, interval = improvement_cells([(first, second)])
    return f"{probability} ({interval})"


def save_curves(spec: Spec, rows: Sequence[Row], variant: str, path: Path) -> None:
    """
    Draw the learning curves of an algorithm and of DQN.

    :param spec: the sweep
    :param rows: its rows
    :param variant: the name of the algorithm
    :param path: the file of the picture
    """
    names = dict.fromkeys((variant, BASELINE))
    save_panels([Panel(env, {name: select_rows(rows, env=env, variant=name) for name in names}) for env in spec.envs], path)


def fill_page(page: Path, text: str) -> None:
    """
    Replace the text between the marks of a page.

    :param page: the page
    :param text: the new text
    """
    page.write_text(MEASURED.sub(lambda _: text, page.read_text()))


def main() -> None:
    spec = read_spec(SPEC)
    rows = rows_of(spec)
    folder = RESULTS / "algorithms"
    folder.mkdir(exist_ok=True)
    for variant in spec.variants:
        if select_rows(rows, variant=variant):
            save_curves(spec, rows, variant, folder / f"{variant}.png")
        fill_page(page_of(variant), describe_algorithm(spec, rows, variant))


if __name__ == "__main__":
    main()
