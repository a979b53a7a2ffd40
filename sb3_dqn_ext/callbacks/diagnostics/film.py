"""
Films of episodes: frames with bars of Q-values, as a file and as an animated picture.

Import this module where a film is made: Pillow and imageio need not be installed.
"""

import io
import os
from collections.abc import Sequence
from typing import Any

import imageio.v2 as imageio
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["add_q_bars", "encode_animation", "write_film"]

Array = npt.NDArray[Any]
Frame = npt.NDArray[np.uint8]

# readable in black and white, and for colour-blind readers (Okabe and Ito)
ORANGE, GREY, BLACK, WHITE = (213, 94, 0), (160, 160, 160), (0, 0, 0), (255, 255, 255)
N_PALETTE_FRAMES = 8  # frames whose colours are those of a film


def add_q_bars(frame: Frame, q: Array, low: float, high: float, width: int = 320) -> Frame:
    """
    :param frame: (H, W, 3) a picture of a state
    :param q: (A,) its Q-values
    :param low: the least Q-value of the episode
    :param high: the greatest
    :param width: of the result
    :return: (H', width, 3) the picture, and under it a bar for each action, that of the best in another colour. Its height is
        a multiple of 16, which films need
    """
    size = width, max(round(frame.shape[0] * width / frame.shape[1]), 1)
    above = Image.fromarray(frame).resize(size, Image.Resampling.BOX)
    strip = 84
    height = -(-(above.height + strip) // 16) * 16
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(above)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    bottom, full = height - 16, strip - 36
    for action, value in enumerate(q.tolist()):
        left, right = (width * (action + part) / len(q) for part in (0.1, 0.9))
        top = bottom - 2 - full * (value - low) / max(high - low, 1e-9)
        draw.rectangle((left, min(top, bottom - 2), right, bottom), fill=ORANGE if action == int(q.argmax()) else GREY)
        if len(q) <= 8:
            middle = (left + right) / 2
            draw.text((middle, bottom + 2), f"{action}", BLACK, font, anchor="ma")
            draw.text((middle, max(top - 2, bottom - strip + 22)), f"{value:.4g}", BLACK, font, anchor="md")
    return np.asarray(image, dtype=np.uint8)


def encode_animation(frames: Sequence[Frame], fps: float) -> bytes:
    """
    :param frames: (H, W, 3) each, of one size
    :param fps: how many of them a second
    :return: an animated GIF
    """
    # one palette for all, of some of them: to look for one in each takes as long as all else
    some = np.concatenate(frames[:: -(-len(frames) // N_PALETTE_FRAMES)])
    palette = Image.fromarray(some).quantize(128, Image.Quantize.FASTOCTREE)
    first, *others = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    file = io.BytesIO()
    # browsers slow down what is quicker than 50 pictures a second
    duration = max(round(1000 / fps), 20)
    # optimised, it is a tenth smaller, and takes four times as long
    first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0, optimize=False)
    return file.getvalue()


def write_film(path: str, frames: Sequence[Frame], fps: float) -> None:
    """
    :param path: of an mp4 file, which is whole at every moment
    :param frames: (H, W, 3) each, of one size, a multiple of 16
    :param fps: how many of them a second
    """
    unfinished = f"{path}.part.mp4"
    quick = ["-preset", "veryfast"]
    imageio.mimwrite(unfinished, list(frames), format="FFMPEG", fps=fps, codec="libx264", ffmpeg_params=quick)
    os.replace(unfinished, path)
