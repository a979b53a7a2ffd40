"""
Films of episodes: frames with bars of Q-values, as a video file and as an animated GIF.

Import this module in the functions that make a film: Pillow and imageio are optional.
"""

import io
import os
from collections.abc import Sequence
from typing import Any

import imageio.v2 as imageio
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sb3_dqn_ext.algorithm.action_masks import is_legal

__all__ = ["add_q_bars", "encode_animation", "write_film"]

Array = npt.NDArray[Any]
Frame = npt.NDArray[np.uint8]

# orange of Okabe and Ito, for readers with colour vision deficiency
ORANGE, GREY, BLACK, WHITE = (213, 94, 0), (160, 160, 160), (0, 0, 0), (255, 255, 255)
N_PALETTE_FRAMES = 8
"""the number of frames whose colours make the palette of an animated GIF"""


def add_q_bars(frame: Frame, q: Array, low: float, high: float, width: int = 320) -> Frame:
    """
    Draw a bar for the Q-value of each legal action under a frame. The bar of the greedy action has another colour.

    :param frame: (H, W, 3) the picture of a state
    :param q: (A,) the Q-values of the state
    :param low: the smallest Q-value of the episode
    :param high: its largest Q-value
    :param width: the width of the result in pixels
    :return: (H', width, 3) the frame with bars. H' is a multiple of 16, as video codecs require
    """
    size = width, max(round(frame.shape[0] * width / frame.shape[1]), 1)
    picture = Image.fromarray(frame).resize(size, Image.Resampling.BOX)
    strip = 84
    height = -(-(picture.height + strip) // 16) * 16
    image = Image.new("RGB", (width, height), WHITE)
    image.paste(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    bottom, full = height - 16, strip - 36
    for action, value in enumerate(q.tolist()):
        if not is_legal(q)[action]:
            continue
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
    Encode frames as an animated GIF.

    :param frames: (H, W, 3) each, of the same size
    :param fps: frames per second
    :return: the content of the GIF
    """
    # one palette for all frames: a palette for each frame would double the time
    some = np.concatenate(frames[:: -(-len(frames) // N_PALETTE_FRAMES)])
    palette = Image.fromarray(some).quantize(128, Image.Quantize.FASTOCTREE)
    first, *others = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    file = io.BytesIO()
    # browsers slow down animations of more than 50 frames per second
    duration = max(round(1000 / fps), 20)
    # optimize=True makes files 10 % smaller and takes four times as long
    first.save(file, "GIF", save_all=True, append_images=others, duration=duration, loop=0, optimize=False)
    return file.getvalue()


def write_film(path: str, frames: Sequence[Frame], fps: float) -> None:
    """
    Write frames to an mp4 file. A reader never finds an incomplete file at the path.

    :param path: the path of the file
    :param frames: (H, W, 3) each, of the same size; H and W are multiples of 16
    :param fps: frames per second
    """
    unfinished = f"{path}.part.mp4"
    quick = ["-preset", "veryfast"]
    imageio.mimwrite(unfinished, list(frames), format="FFMPEG", fps=fps, codec="libx264", ffmpeg_params=quick)
    os.replace(unfinished, path)
