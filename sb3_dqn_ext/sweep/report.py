"""
The comparison of the variants of a sweep: a table, and learning curves.

Aggregates are those of Agarwal et al. (2021), https://arxiv.org/abs/2108.13264: the interquartile mean, with intervals from a
bootstrap that draws seeds in each environment separately, and the probability of improvement.
Shapes: S seeds, E environments.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.plot.intervals import align_curves, bootstrap_interval, interquartile_mean
from sb3_dqn_ext.plot.run_files import Curve
from sb3_dqn_ext.sweep.results import Row, read_rows
from sb3_dqn_ext.sweep.spec import Spec

__all__ = ["improvement_probability", "stratified_interval", "write_report"]

Array = npt.NDArray[Any]

N_RESAMPLES = 2000
CONFIDENCE = 0.95


def write_report(spec: Spec) -> str:
    """
    Write the table and the learning curves of a sweep beside its CSV file, with the endings ``.md`` and ``.png``.

    :param spec: the sweep
    :return: the table
    """
    rows = rows_of(spec)
    text = "\n".join([f"# {spec.title}", "", *score_table(spec, rows), "", *comparison_table(spec, rows)]) + "\n"
    if rows:
        spec.results.with_suffix(".md").write_text(text)
        save_curves(spec, rows, spec.results.with_suffix(".png"))
    return text


def rows_of(spec: Spec) -> list[Row]:
    """
    Return the rows of the runs of a sweep. The CSV file can contain others, of an earlier specification.

    :param spec: the sweep
    """
    rows = read_rows(spec.results)
    return [row for row in rows if any(task.is_in([row]) for task in spec.tasks)]


def scores(rows: Sequence[Row], env: str, variant: str) -> Array:
    """
    Return the scores of a variant in an environment.

    :param rows: the rows of the sweep
    :param env: the id of the environment
    :param variant: the name of the variant
    :return: (S,) the scores in the order of the seeds
    """
    chosen = [row for row in rows if row["env"] == env and row["variant"] == variant]
    return np.array([float(row["score"]) for row in sorted(chosen, key=lambda row: int(row["seed"]))])


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
    low, high = np.quantile(results, [tail, 1 - tail])
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
    yield "| environment | variant | seeds | score (IQM) | 95 % interval | range | steps | minutes | CPU minutes |"
    yield "|---" * 9 + "|"
    for env in spec.envs:
        for variant in spec.variants:
            values = scores(rows, env, variant)
            if len(values):
                low, high = stratified_interval([values], iqm, np.random.default_rng(0))
                of_both = [row for row in rows if row["env"] == env and row["variant"] == variant]
                steps = int(of_both[0]["steps"])
                wall, cpu = (np.mean([float(row[key]) for row in of_both]) / 60 for key in ("wall_s", "cpu_s"))
                cells = [f"{iqm(values):.2f}", f"{low:.2f} to {high:.2f}", f"{values.min():.2f} to {values.max():.2f}"]
                cells += [f"{steps:,}", f"{wall:.1f}", f"{cpu:.1f}"]
                yield f"| {env} | {variant} | {len(values)} | {' | '.join(cells)} |"


def comparison_table(spec: Spec, rows: Sequence[Row]) -> Iterator[str]:
    """
    Write the table of differences between each two variants, in each environment and in all of them.

    :param spec: the sweep
    :param rows: its rows
    :return: the lines of a Markdown table
    """
    yield "| environment | difference of the IQMs | 95 % interval | probability of improvement | 95 % interval |"
    yield "|---" * 5 + "|"
    for one, other in combinations(spec.variants, 2):
        pairs = {env: (scores(rows, env, one), scores(rows, env, other)) for env in spec.envs}
        pairs = {env: pair for env, pair in pairs.items() if len(pair[0]) and len(pair[1])}
        for env, pair in pairs.items():
            low, high = difference_interval(*pair)
            cells = [f"{iqm(pair[0]) - iqm(pair[1]):.2f}", f"{low:.2f} to {high:.2f}"]
            cells += improvement_cells([pair])
            yield f"| {env}: {one} - {other} | {' | '.join(cells)} |"
        if len(pairs) > 1:
            yield f"| all: {one} - {other} | | | {' | '.join(improvement_cells(list(pairs.values())))} |"


def improvement_cells(pairs: Sequence[tuple[Array, Array]]) -> list[str]:
    """
    Return the cells of the probability of improvement.

    :param pairs: the scores of both variants in each environment
    """
    first, second = zip(*pairs, strict=True)
    mean, low, high = improvement_interval(first, second, np.random.default_rng(0))
    return [f"{mean:.2f}", f"{low:.2f} to {high:.2f}"]


def difference_interval(first: Array, second: Array) -> tuple[float, float]:
    """
    Return the 95 % interval of the difference of the interquartile means of two variants.

    :param first: (S,) scores
    :param second: (T,) scores
    """
    n_first = len(first)
    return stratified_interval(
        [first, second], lambda drawn: iqm(drawn[:, :n_first]) - iqm(drawn[:, n_first:]), np.random.default_rng(0)
    )


def curve(rows: Sequence[Row]) -> Curve:
    """
    Return the evaluations of runs during training.

    :param rows: the rows of the runs
    :return: (N,) steps and (S, N) mean returns
    """
    curves = [tuple(np.array(row[key].split(), dtype=float) for key in ("eval_steps", "eval_returns")) for row in rows]
    return align_curves([(steps, returns) for steps, returns in curves])


def save_curves(spec: Spec, rows: Sequence[Row], path: Path) -> None:
    """
    Draw the learning curves: the interquartile mean of the evaluations with its interval, a panel for each environment.

    :param spec: the sweep
    :param rows: its rows
    :param path: the file of the picture
    """
    from matplotlib.figure import Figure

    from sb3_dqn_ext.plot.style import curve_style

    envs = [env for env in spec.envs if any(row["env"] == env for row in rows)]
    figure = Figure(figsize=(1 + 5 * len(envs), 4), layout="constrained")
    for panel, env in zip(figure.subplots(1, len(envs), squeeze=False)[0], envs, strict=True):
        for i, variant in enumerate(spec.variants):
            chosen = [row for row in rows if (row["env"], row["variant"]) == (env, variant) and row["eval_steps"]]
            if chosen:
                steps, returns = curve(chosen)
                style = curve_style(i)
                panel.plot(steps, interquartile_mean(returns), label=f"{variant} ({len(chosen)} seeds)", **style)
                panel.fill_between(steps, *bootstrap_interval(returns), alpha=0.2, color=style["color"], linewidth=0)
        panel.set(title=env, xlabel="environment steps")
        panel.legend()
    figure.axes[0].set_ylabel("return of the evaluations, IQM and 95 % interval")
    figure.savefig(path, dpi=120)
