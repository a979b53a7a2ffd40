"""Charts of block characters for a terminal."""

from collections.abc import Sequence

import numpy as np

BLOCKS = " ▁▂▃▄▅▆▇█"
LABEL = 8  # columns of the numbers on the left


def text_chart(xs: Sequence[float], ys: Sequence[float], width: int = 76, height: int = 6) -> list[str]:
    """
    Draw a line chart as columns of block characters.

    :param xs: (N,) increasing numbers; N >= 1
    :param ys: (N,) finite numbers; between them, the chart interpolates
    :param width: the number of characters of a line
    :param height: the number of lines with blocks
    :return: the lines, with the range of ``ys`` on the left and that of ``xs`` below
    """
    n_columns = width - LABEL - 2
    low, high = min(0.0, *ys), max(0.0, *ys)
    if high == 0.0:  # returns that are all negative: the chart shows their range
        high = max(ys) if max(ys) > low else low + 1.0
    columns = np.interp(np.linspace(xs[0], xs[-1], n_columns), xs, ys)  # (n_columns,)
    eighths = np.maximum(np.rint((columns - low) / max(high - low, 1e-9) * height * 8), 1)
    lines = []
    for row in reversed(range(height)):
        blocks = "".join(BLOCKS[int(np.clip(level - row * 8, 0, 8))] for level in eighths)
        label = {height - 1: f"{high:,.0f}", 0: f"{low:,.0f}"}.get(row, "")
        lines.append(f"{label:>{LABEL}} |{blocks}".rstrip())
    first, last = f"{xs[0]:,.0f}", f"{xs[-1]:,.0f} steps"
    return [*lines, f"{'':{LABEL + 2}}{first}{last:>{n_columns - len(first)}}"]
