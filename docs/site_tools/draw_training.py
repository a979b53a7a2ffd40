"""``python docs/site_tools/draw_training.py``: draw the course of a training as docs/images/training.svg."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

PATH = Path(__file__).parents[1] / "images" / "training.svg"
WIDTH, HEIGHT = 1010, 460
BOX = 200, 76
"""the width and height of a box"""
LEFT, TOP, RIGHT_STEP, DOWN_STEP = 20, 40, 250, 140
CHOICE, PART, RULE, ARROW = "#3949ab", "#455a64", "#00695c", "#8a9099"
"""colours that can be read on a white and on a black page: choices, other parts, headings, arrows"""

BOXES = [
    (0, 0, PART, "Environments", "observations s", ""),
    (0, 1, CHOICE, "1 Exploration", "greedy or random", "actions a"),
    (0, 2, PART, "env.step()", "rewards r, observations s',", "ends of episodes"),
    (0, 3, PART, "Replay buffer", "one row per call,", "one column per environment"),
    (1, 3, CHOICE, "2 Sampler", "indices and weights", "of B transitions"),
    (1, 2, CHOICE, "3 Multi-step return", "r, discount d and s'", "after n steps"),
    (1, 1, CHOICE, "4 Target policy", "action probabilities", "at s'"),
    (1, 0, CHOICE, "5 Returns and head", "prediction at s, a;", "target from r, d and s'"),
    (2, 0, PART, "Loss and gradient", "losses times weights,", "TD errors, clipping"),
    (2, 1, PART, "Optimizer", "one step of Adam", ""),
    (2, 2, PART, "Online network", "Q-values of s", ""),
    (2, 3, PART, "Target network", "Q-values of s'; follows", "the online network"),
]
"""the row, the column, the colour and the lines of text of each box"""


def corner(row: int, column: int) -> tuple[int, int]:
    """Return the left and upper end of a box."""
    return LEFT + column * RIGHT_STEP, TOP + row * DOWN_STEP


def box(row: int, column: int, colour: str, title: str, *lines: str) -> Iterator[str]:
    """Draw a box with a title and lines of text."""
    (x, y), (width, height) = corner(row, column), BOX
    yield f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{colour}"/>'
    for i, (text, style) in enumerate([(title, "bold 16px"), *((line, "13px") for line in lines)]):
        yield f'<text x="{x + width // 2}" y="{y + 24 + 19 * i}" style="font: {style} sans-serif">{escape(text)}</text>'


def heading(x: int, y: int, width: int, text: str) -> Iterator[str]:
    """Draw a small box with one line of text."""
    yield f'<rect x="{x}" y="{y}" width="{width}" height="22" rx="11" fill="{RULE}"/>'
    yield f'<text x="{x + width // 2}" y="{y + 15}" style="font: 12px sans-serif">{escape(text)}</text>'


def arrow(*points: tuple[int, int], dashed: bool = False) -> str:
    """Draw an arrow through points."""
    path = " ".join(f"{x},{y}" for x, y in points)
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{ARROW}" stroke-width="2"{dashes} marker-end="url(#head)"/>'


def arrows() -> Iterator[str]:
    """Draw the arrows from box to box."""
    (width, height), gap = BOX, RIGHT_STEP - BOX[0]
    for row, columns in ((0, (0, 1, 2)), (2, (0, 1, 2))):
        for x, y in (corner(row, column) for column in columns):
            yield arrow((x + width, y + height // 2), (x + width + gap - 4, y + height // 2))
    for x, y in (corner(1, column) for column in (3, 2, 1)):
        yield arrow((x, y + height // 2), (x - gap + 4, y + height // 2))
    for row, column in ((0, 3), (1, 0)):
        x, y = corner(row, column)
        yield arrow((x + width // 2, y + height), (x + width // 2, y + DOWN_STEP - 4))
    # the online network chooses actions; TD errors become priorities
    (x, y), (target, bottom) = corner(2, 2), corner(0, 1)
    middle = x - gap // 2
    between = bottom + height + 32
    yield arrow((x + 40, y), (x + 40, y - 32), (middle, y - 32), (middle, between), (target + width // 2, between),
                (target + width // 2, bottom + height + 4), dashed=True)  # fmt: skip
    (x, y), (right, above) = corner(2, 0), corner(1, 3)
    low, side = y + height + 24, right + width + 25
    yield arrow((x + width // 2, y + height), (x + width // 2, low), (side, low), (side, above + height // 2),
                (right + width + 4, above + height // 2), dashed=True)  # fmt: skip


def drawing() -> str:
    """Return the drawing as SVG."""
    parts = [part for one in BOXES for part in box(*one)]
    x, y = corner(1, 3)
    titles = [*heading(LEFT, 8, 210, "for each call of env.step()"), *heading(x - 170, y - 30, 160, "for each gradient step")]
    titles += heading(x - 140, TOP + 2 * DOWN_STEP + BOX[1] + 13, 200, "TD errors become priorities")
    head = f'<path d="M0,0 L8,4 L0,8 z" fill="{ARROW}"/>'
    marker = f'<marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">{head}</marker>'
    style = "<style>text { fill: #fff; text-anchor: middle }</style>"
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    label = "<title>The life of a transition and of an update, through the five choices</title>"
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([start, label, f"<defs>{style}{marker}</defs>", *arrows(), *parts, *titles, "</svg>", ""])


if __name__ == "__main__":
    PATH.write_text(drawing())
