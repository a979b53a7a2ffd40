"""
The comparison of the variants of a sweep: a table, and learning curves.

Aggregates are those of Agarwal et al. (2021), https://arxiv.org/abs/2108.13264: the interquartile mean, with intervals from a
bootstrap that draws seeds in each environment separately, and the probability of improvement.
Shapes: S seeds, E environments.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.plot.intervals import align_curves, bootstrap_interval, interquartile_mean
from sb3_dqn_ext.plot.run_files import Curve
from sb3_dqn_ext.sweep.results import COLUMNS, KEY, Row, read_rows, select_rows
from sb3_dqn_ext.sweep.spec import Spec

__all__ = [
    "describe_rows",
    "difference_interval",
    "improvement_probability",
    "median",
    "rows_of",
    "stratified_interval",
    "write_report",
]

Array = npt.NDArray[Any]

N_RESAMPLES = 9_999
CONFIDENCE = 0.95
N_PANELS_IN_A_LINE = 3

SCORE_HEAD = "environment | variant | seeds | score (IQM) | 95 % interval | range | steps | minutes | CPU minutes"
COMPARISON_HEAD = "environment | difference of the IQMs | 95 % interval | probability of improvement | 95 % interval"


class Panel(NamedTuple):
    """A panel of a figure: the learning curves in one environment."""

    title: str
    curves: dict[str, list[Row]]
    """the rows of each curve, by its label"""


def write_report(spec: Spec) -> str:
    """
    Write the tables and the learning curves of a sweep beside its CSV file, with the endings ``.md`` and ``.png``.

    :param spec: the sweep
    :return: the tables
    """
    rows = rows_of(spec)
    text = describe_rows(spec, rows)
    if rows:
        spec.results.with_suffix(".md").write_text(text)
        save_panels(curve_panels(spec, rows), spec.results.with_suffix(".png"))
    return text


def describe_rows(spec: Spec, rows: Sequence[Row]) -> str:
    """
    Return the page of a sweep: its title, its command, its learning curves and its tables. A table without lines is left out.

    :param spec: the sweep
    :param rows: its rows
    """
    tables = [list(table(spec, rows)) for table in (score_table, comparison_table, measured_table)]
    command = f"`python -m sb3_dqn_ext.sweep {os.path.relpath(spec.path)}`"
    has_curves = any(row["eval_steps"] for row in rows)
    curves = [f"![Learning curves]({spec.results.with_suffix('.png').name})"] if has_curves else []
    texts = ["\n".join(lines) for lines in tables if len(lines) > 2]
    return "\n\n".join([f"# {spec.title}", command, *curves, *texts]) + "\n"


def rows_of(spec: Spec) -> list[Row]:
    """
    Return the rows of the runs of a sweep. The CSV file can contain others, of an earlier specification.

    :param spec: the sweep
    """
    rows = read_rows(spec.results, KEY)
    return [row for row in rows if any(task.is_in([row]) for task in spec.tasks)]


def cells(rows: Sequence[Row], env: str, variant: str, column: str) -> Array:
    """
    Return the numbers of a column for a variant in an environment.

    :param rows: the rows of the sweep
    :param env: the id of the environment
    :param variant: the name of the variant
    :param column: the name of the column
    :return: (S,) the numbers in the order of the seeds; runs with an empty cell, which were not measured, are left out
    """
    chosen = [row for row in select_rows(rows, env=env, variant=variant) if row[column]]
    return np.array([float(row[column]) for row in sorted(chosen, key=lambda row: int(row["seed"]))])


def stratified_interval(
    values: Sequence[Array], statistic: Callable[[Array], Array], rng: np.random.Generator
) -> tuple[float, float]:
    """
    Return the percentile interval of a statistic of all values. Values are drawn with replacement within each stratum.

    :param values: the (S,) values of each of E strata, such as the scores in each environment
    :param statistic: a function of (R, N) resamples of the N values of all strata, which returns (R,) numbers
    :param rng: the generator of the resamples
    :return: the lower and the upper bound of the 95 % interval
    """
    drawn = [stratum[rng.integers(len(stratum), size=(N_RESAMPLES, len(stratum)))] for stratum in values]
    results = statistic(np.concatenate(drawn, axis=1))
    tail = (1 - CONFIDENCE) / 2
    method: Any = "linear" if np.isfinite(results).all() else "nearest"  # there is no number between two infinities
    low, high = np.quantile(results, [tail, 1 - tail], method=method)
    return float(low), float(high)


def improvement_probability(first: Array, second: Array) -> Array:
    """
    Return the probability that a run of the first variant scores higher than a run of the second one; ties count half.

    :param first: (..., S) scores
    :param second: (..., T) scores
    :return: (...) probabilities
    """
    difference = first[..., :, None] - second[..., None, :]
    probability: Array = (0.5 * (1 + np.sign(difference))).mean(axis=(-2, -1))
    return probability


def improvement_interval(
    first: Sequence[Array], second: Sequence[Array], rng: np.random.Generator
) -> tuple[float, float, float]:
    """
    Return the mean of the probability of improvement over E environments, with its 95 % interval.

    :param first: the (S,) scores of the first variant in each environment
    :param second: the (T,) scores of the second variant in each environment
    :param rng: the generator of the resamples
    :return: the mean and the two bounds
    """

    def resample(values: Array) -> Array:
        return values[rng.integers(len(values), size=(N_RESAMPLES, len(values)))]

    mean = np.mean([improvement_probability(a, b) for a, b in zip(first, second, strict=True)])
    drawn = np.mean([improvement_probability(resample(a), resample(b)) for a, b in zip(first, second, strict=True)], axis=0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(mean), float(low), float(high)


def iqm(values: Array) -> Array:
    """
    Return the interquartile mean along the last axis.

    :param values: (..., N) values
    """
    return interquartile_mean(values, axis=-1)


def score_table(spec: Spec, rows: Sequence[Row]) -> Iterator[str]:
    """
    Write the table of scores: a line for each environment and variant.

    :param spec: the sweep
    :param rows: its rows
    :return: the lines of a Markdown table
    """
    yield from table_head(SCORE_HEAD)
    for scores in score_lines(spec, rows):
        yield f"| {' | '.join(scores)} |"


def table_head(columns: str) -> list[str]:
    """
    Return the first two lines of a Markdown table.

    :param columns: the names of its columns, with ``|`` between them
    """
    return [f"| {columns} |", "|---" * len(columns.split("|")) + "|"]


def score_lines(spec: Spec, rows: Sequence[Row]) -> Iterator[list[str]]:
    """
    Return the scores of each variant in each environment.

    :param spec: the sweep
    :param rows: its rows
    :return: the cells of each line, without the variants that have no score
    """
    for env, variant in product(spec.envs, spec.variants):
        scores, steps, wall, cpu = (cells(rows, env, variant, name) for name in ("score", "steps", "wall_s", "cpu_s"))
        if len(scores):
            low, high = stratified_interval([scores], iqm, np.random.default_rng(0))
            shown = [f"{iqm(scores):.2f}", f"{low:.2f} to {high:.2f}", f"{scores.min():.2f} to {scores.max():.2f}"]
            shown += [f"{steps[0]:,.0f}", *(f"{times.mean() / 60:.1f}" if len(times) else "" for times in (wall, cpu))]
            yield [env, variant, str(len(scores)), *shown]


def comparison_table(spec: Spec, rows: Sequence[Row]) -> Iterator[str]:
    """
    Write the table of differences between each two variants, in each environment and in all of them.

    :param spec: the sweep
    :param rows: its rows
    :return: the lines of a Markdown table
    """
    yield from table_head(COMPARISON_HEAD)
    for one, other in combinations(spec.variants, 2):
        pairs = {env: (cells(rows, env, one, "score"), cells(rows, env, other, "score")) for env in spec.envs}
        pairs = {env: pair for env, pair in pairs.items() if len(pair[0]) and len(pair[1])}
        for env, pair in pairs.items():
            low, high = difference_interval(*pair)
            shown = [f"{iqm(pair[0]) - iqm(pair[1]):.2f}", f"{low:.2f} to {high:.2f}", *improvement_cells([pair])]
            yield f"| {env}: {one} - {other} | {' | '.join(shown)} |"
        if len(pairs) > 1:
            yield f"| all: {one} - {other} | | | {' | '.join(improvement_cells(list(pairs.values())))} |"


def measured_table(spec: Spec, rows: Sequence[Row]) -> Iterator[str]:
    """
    Write the table of what the function of the user has measured: medians, and their differences from the first variant.

    :param spec: the sweep
    :param rows: its rows
    :return: the lines of a Markdown table
    """
    first = spec.variants[0]
    yield from table_head(
        f"environment | measured | variant | seeds | median (range) | difference from {first} | 95 % interval"
    )
    for env, column, variant in product(spec.envs, measured_columns(rows), spec.variants):
        numbers, of_first = (cells(rows, env, name, column) for name in (variant, first))
        if len(numbers):
            middle, low, high = map(format_number, (median(numbers), numbers.min(), numbers.max()))
            shown = [f"{middle} ({low} to {high})", "", ""]
            if variant != first and len(of_first):
                with np.errstate(invalid="ignore"):  # infinity less infinity
                    shown[1:] = [
                        format_number(median(numbers) - median(of_first)),
                        " to ".join(map(format_number, difference_interval(numbers, of_first, median))),
                    ]
            yield f"| {env} | {column} | {variant} | {len(numbers)} | {' | '.join(shown)} |"


def measured_columns(rows: Sequence[Row]) -> list[str]:
    """
    Return the columns of numbers that a function of the user has measured.

    :param rows: the rows of a sweep
    """

    def is_number(cell: str) -> bool:
        try:
            float(cell)
        except ValueError:
            return False
        return True

    own = [column for column in (rows[0] if rows else ()) if column not in COLUMNS]
    return [column for column in own if all(is_number(row[column]) for row in rows if row[column])]


def median(values: Array) -> Array:
    """
    Return the median along the last axis.

    :param values: (..., N) values
    """
    result: Array = np.median(values, axis=-1)
    return result


def format_number(number: Any) -> str:
    """
    Return a number with at most two decimal places.

    :param number: the number
    """
    text = f"{float(number):,.2f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def improvement_cells(pairs: Sequence[tuple[Array, Array]]) -> list[str]:
    """
    Return the cells of the probability of improvement.

    :param pairs: the scores of both variants in each environment
    """
    first, second = zip(*pairs, strict=True)
    mean, low, high = improvement_interval(first, second, np.random.default_rng(0))
    return [f"{mean:.2f}", f"{low:.2f} to {high:.2f}"]


def difference_interval(first: Array, second: Array, statistic: Callable[[Array], Array] = iqm) -> tuple[float, float]:
    """
    Return the 95 % interval of the difference of a statistic of two variants.

    :param first: (S,) numbers of the first variant
    :param second: (T,) numbers of the second variant
    :param statistic: a function of (R, N) numbers that returns (R,) numbers; by default the interquartile mean
    """
    n_first = len(first)
    return stratified_interval(
        [first, second],
        lambda drawn: statistic(drawn[:, :n_first]) - statistic(drawn[:, n_first:]),
        np.random.default_rng(0),
    )


def curve(rows: Sequence[Row]) -> Curve:
    """
    Return the evaluations of runs during training.

    :param rows: the rows of the runs
    :return: (N,) steps and (S, N) mean returns
    """
    curves = [tuple(np.array(row[key].split(), dtype=float) for key in ("eval_steps", "eval_returns")) for row in rows]
    return align_curves([(steps, returns) for steps, returns in curves])


def curve_panels(spec: Spec, rows: Sequence[Row]) -> list[Panel]:
    """
    Return the learning curves of a sweep: a panel for each environment, a curve for each variant.

    :param spec: the sweep
    :param rows: its rows
    :return: the panels of the environments with evaluations
    """
    rows = [row for row in rows if row["eval_steps"]]
    panels = []
    for env in spec.envs:
        by_variant = {variant: select_rows(rows, env=env, variant=variant) for variant in spec.variants}
        panels.append(Panel(env, {f"{name} ({len(runs)} seeds)": runs for name, runs in by_variant.items() if runs}))
    return [panel for panel in panels if panel.curves]


def save_panels(panels: Sequence[Panel], path: Path) -> None:
    """
    Draw learning curves: the interquartile mean of the evaluations with its interval.

    :param panels: the panels; without any, no picture is written
    :param path: the file of the picture
    """
    from matplotlib.figure import Figure

    if not panels:
        return
    n_columns = min(len(panels), N_PANELS_IN_A_LINE)
    n_lines = -(-len(panels) // n_columns)
    figure = Figure(figsize=(1 + 5 * n_columns, 4 * n_lines), layout="constrained")
    all_axes = figure.subplots(n_lines, n_columns, squeeze=False)
    for axes, panel in zip_longest(all_axes.flat, panels):
        if panel is None:
            axes.remove()
        else:
            draw_panel(axes, panel)
    for axes in all_axes[:, 0]:
        axes.set_ylabel("return of the evaluations, IQM and 95 % interval")
    figure.savefig(path, dpi=120)


def draw_panel(axes: Any, panel: Panel) -> None:
    """
    Draw the learning curves of a panel.

    :param axes: the axes of matplotlib
    :param panel: the curves
    """
    from sb3_dqn_ext.plot.style import curve_style

    for i, (label, rows) in enumerate(panel.curves.items()):
        steps, returns = curve(rows)
        style = curve_style(i)
        axes.plot(steps, interquartile_mean(returns), label=label, **style)
        axes.fill_between(steps, *bootstrap_interval(returns), alpha=0.2, color=style["color"], linewidth=0)
    axes.set(title=panel.title, xlabel="environment steps")
    axes.legend()
