"""
Draw what each part adds to the default hyperparameters: ``python -m benchmarks.ablation``.

Nothing is trained; a sweep without rows is left out. Each sweep has one environment, a variant ``default``, and one for each
part: ``without PART`` where the default has it, and ``with PART`` where it does not. Shapes: S seeds.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.processes import ROOT
from benchmarks.rows import RESULTS
from sb3_dqn_ext.plot import COLORS
from sb3_dqn_ext.plot.style import clean_axes
from sb3_dqn_ext.sweep import Row, Spec, read_spec
from sb3_dqn_ext.sweep.report import cells, difference_interval, iqm, rows_of

SPECS = ("ablation_lunarlander.yml", "ablation_breakout.yml")
"""the files in benchmarks/sweeps"""
PICTURE = RESULTS / "ablation_parts.png"
DEFAULT = "default"


class Effect(NamedTuple):
    """The score with a part less the score without it."""

    part: str
    is_default: bool
    """whether the default hyperparameters have the part"""
    difference: float
    low: float
    high: float
    """the bounds of the 95 % interval"""


def effects(spec: Spec, rows: Sequence[Row]) -> Iterator[Effect]:
    """
    Compare the runs with and without each part.

    :param spec: the sweep
    :param rows: its rows
    :return: the effect of each part that was measured
    """
    (env,) = spec.envs
    default = cells(rows, env, DEFAULT, "score")
    for variant in spec.variants:
        word, _, part = variant.partition(" ")
        changed = cells(rows, env, variant, "score")
        if variant != DEFAULT and len(changed) and len(default):
            with_part, without = (default, changed) if word == "without" else (changed, default)
            difference = float(iqm(with_part) - iqm(without))
            yield Effect(part, word == "without", difference, *difference_interval(with_part, without))


def draw_effects(axes: Any, title: str, shown: Sequence[Effect]) -> None:
    """
    Draw a bar for each part, to the right if the part helps.

    :param axes: the axes of matplotlib
    :param title: the title
    :param shown: the effects
    """
    ordered = sorted(shown, key=lambda effect: effect.difference)
    for y, effect in enumerate(ordered):
        errors = [[effect.difference - effect.low], [effect.high - effect.difference]]
        color = COLORS[0] if effect.is_default else COLORS[4]
        axes.barh(y, effect.difference, xerr=errors, color=color, ecolor="0.3", capsize=3)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(ordered)), [effect.part for effect in ordered])
    axes.set(title=title, xlabel="score with the part less the score without it")
    clean_axes(axes)


def draw_ablation(sweeps: Sequence[tuple[Spec, Sequence[Row]]]) -> Figure:
    """
    Draw the effects in several environments.

    :param sweeps: the sweeps with their rows
    """
    figure = Figure(figsize=(6.5 * len(sweeps), 4), layout="constrained")
    for axes, (spec, rows) in zip(figure.subplots(1, len(sweeps), squeeze=False)[0], sweeps, strict=True):
        (env,) = spec.envs
        draw_effects(axes, f"{env}, {len(cells(rows, env, DEFAULT, 'score'))} seeds", list(effects(spec, rows)))
    labels = {"part of the default hyperparameters": COLORS[0], "not a part of them": COLORS[4]}
    patches = [Patch(color=color, label=label) for label, color in labels.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=2)
    return figure


def main() -> None:
    specs = [read_spec(ROOT / "benchmarks" / "sweeps" / name) for name in SPECS]
    measured = [(spec, rows) for spec in specs if (rows := rows_of(spec))]
    draw_ablation(measured).savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    main()
