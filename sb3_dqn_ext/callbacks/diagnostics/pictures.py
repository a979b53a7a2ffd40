"""Small pictures for logs, drawn by Pillow, which comes with TensorBoard: matplotlib takes half a second to begin."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["animation", "film", "heat_map", "scatter", "with_bars"]

Array = npt.NDArray[Any]
Frame = npt.NDArray[np.uint8]

# readable in black and white, and for colour-blind readers (Okabe and Ito)
BLUE, ORANGE, GREY, BLACK, WHITE = (0, 114, 178), (213, 94, 0), (160, 160, 160), (0, 0, 0), (255, 255, 255)
# from dark to light, as matplotlib's viridis
DARK_TO_LIGHT = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=np.float64)
SIDE, MARGIN = 360, 52  # pixels of a plot, and around it
PALETTE = 8  # frames whose colours are those of a film


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _plot(title: str, x_label: str, y_label: str, low: Sequence[float], high: Sequence[float]) -> tuple[Any, Any]:
    """An empty plot with a frame, and the ends of its two axes."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE + 2 * MARGIN, SIDE + 2 * MARGIN), WHITE)
    draw = ImageDraw.Draw(image)
    end, font = MARGIN + SIDE, _font(13)
    draw.rectangle((MARGIN - 1, MARGIN - 1, end, end), outline=GREY)
    draw.text((MARGIN, 10), title, BLACK, _font(15))
    draw.text((MARGIN, end + 6), f"{low[0]:.4g}", BLACK, font)
    draw.text((end, end + 6), f"{high[0]:.4g}", BLACK, font, anchor="ra")
    draw.text((MARGIN + SIDE / 2, end + 24), x_label, BLACK, font, anchor="ma")
    draw.text((MARGIN - 5, end), f"{low[1]:.4g}", BLACK, font, anchor="rd")
    draw.text((MARGIN - 5, MARGIN), f"{high[1]:.4g}", BLACK, font, anchor="ra")
    draw.text((MARGIN, MARGIN - 18), y_label, BLACK, font)
    return image, draw


def _frame(image: Any) -> Frame:
    return np.asarray(image, dtype=np.uint8)


def scatter(predicted: Array, realised: Array, title: str) -> Frame:
    """
    :param predicted: (N,)
    :param realised: (N,)
    :param title: stands above it
    :return: (H, W, 3) a point for each pair, the darker, the more lie there; on the dashed line both are equal
    """
    finite = np.isfinite(predicted) & np.isfinite(realised)
    predicted, realised = predicted[finite], realised[finite]
    both = np.concatenate([predicted, realised]) if len(predicted) else np.zeros(1)
    low, high = float(both.min()), float(both.max())
    high = high if high > low else low + 1.0
    image, draw = _plot(title, "realised discounted return", "predicted Q-value", (low, low), (high, high))
    for i in range(0, SIDE, 12):
        draw.line((MARGIN + i, MARGIN + SIDE - i, MARGIN + i + 6, MARGIN + SIDE - i - 6), GREY)
    frame: Frame = _frame(image).copy()

    def place(values: Array) -> npt.NDArray[np.int64]:
        return np.clip((values - low) / (high - low) * (SIDE - 3), 0, SIDE - 3).astype(np.int64)

    counts = np.zeros((SIDE, SIDE))
    x, y = place(realised), SIDE - 3 - place(predicted)
    for dx in range(3):  # points of 3 x 3 pixels
        for dy in range(3):
            np.add.at(counts, (y + dy, x + dx), 1)
    shade = np.where(counts > 0, np.minimum(0.35 + 0.65 * np.log1p(counts) / np.log(30), 1), 0)[:, :, None]
    inside = frame[MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE]
    inside[:] = (1 - shade) * inside + shade * np.array(BLUE)
    return frame


def heat_map(counts: Array, low: Array, high: Array, title: str) -> Frame:
    """
    :param counts: (G, G) how often each cell was visited: the first axis is that of the first number of an observation
    :param low: (2,) where the cells begin
    :param high: (2,) where they end
    :param title: stands above it
    :return: (H, W, 3) the brighter, the more often, on a logarithmic scale; white: never
    """
    image, _ = _plot(title, "first number of the observation", "second number", low.tolist(), high.tolist())
    frame: Frame = _frame(image).copy()
    logs = np.log1p(counts) / max(np.log1p(counts.max()), 1e-9) * (len(DARK_TO_LIGHT) - 1)  # (G, G)
    colors = np.stack([np.interp(logs, range(len(DARK_TO_LIGHT)), part) for part in DARK_TO_LIGHT.T], axis=2)
    colors = np.where(counts[:, :, None] > 0, colors, 255.0).transpose(1, 0, 2)[::-1]  # (G, G, 3), upwards is more
    index = np.arange(SIDE) * len(counts) // SIDE
    frame[MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE] = colors[index][:, index]
    return frame


def with_bars(frame: Frame, q: Array, low: float, high: float, width: int = 320) -> Frame:
    """
    :param frame: (H, W, 3) a picture of a state
    :param q: (A,) its Q-values
    :param low: the least Q-value of the episode
    :param high: the greatest
    :param width: of the result
    :return: (H', width, 3) the picture, and under it a bar for each action, that of the best in another colour. Its height is
        a multiple of 16, which films need
    """
    from PIL import Image, ImageDraw

    size = width, max(round(frame.shape[0] * width / frame.shape[1]), 1)
    above = Image.fromarray(frame).resize(size, Image.Resampling.BOX)
    strip = 84
    height = -(-(above.height + strip) // 16) * 16
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(above)
    draw, font = ImageDraw.Draw(image), _font(11)
    bottom, full = height - 16, strip - 36
    for action, value in enumerate(q.tolist()):
        left, right = (width * (action + part) / len(q) for part in (0.1, 0.9))
        top = bottom - 2 - full * (value - low) / max(high - low, 1e-9)
        draw.rectangle((left, min(top, bottom - 2), right, bottom), fill=ORANGE if action == int(q.argmax()) else GREY)
        if len(q) <= 8:
            middle = (left + right) / 2
            draw.text((middle, bottom + 2), f"{action}", BLACK, font, anchor="ma")
            draw.text((middle, max(top - 2, bottom - strip + 22)), f"{value:.4g}", BLACK, font, anchor="md")
    return _frame(image)


def animation(frames: Sequence[Frame], fps: float) -> bytes:
    """
    :param frames: (H, W, 3) each, of one size
    :param fps: how many of them a second
    :return: an animated GIF
    """
    import io

    from PIL import Image

    # one palette for all, of some of them: to look for one in each takes as long as all else
    some = np.concatenate(frames[:: -(-len(frames) // PALETTE)])
    palette = Image.fromarray(some).quantize(128, Image.Quantize.FASTOCTREE)
    first, *others = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    file = io.BytesIO()
    # browsers slow down what is quicker than 50 pictures a second
    duration = max(round(1000 / fps), 20)
    # optimised, it is a tenth smaller, and takes four times as long
    first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0, optimize=False)
    return file.getvalue()


def film(path: str, frames: Sequence[Frame], fps: float) -> None:
    """
    :param path: of an mp4 file, which is whole at every moment
    :param frames: (H, W, 3) each, of one size, a multiple of 16
    :param fps: how many of them a second
    """
    import imageio.v2 as imageio

    unfinished = f"{path}.part.mp4"
    quick = ["-preset", "veryfast"]
    imageio.mimwrite(unfinished, list(frames), format="FFMPEG", fps=fps, codec="libx264", ffmpeg_params=quick)
    os.replace(unfinished, path)
