"""The choice of a format, and the file that is written."""

import os
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqn_ext._validation import check_type, choose
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.export.onnx_model import to_onnx
from sb3_dqn_ext.export.sb3_model import to_sb3
from sb3_dqn_ext.storage.atomic import write_atomically

__all__ = ["FORMATS", "export_model"]

FORMATS = {"onnx": ".onnx", "sb3": ".zip"}
"""The suffix of the files of each format."""


def export_model(
    model: Any,
    path: str | os.PathLike[str],
    to: str | None = None,
    vec_normalize: VecNormalize | None = None,
    channels_last: bool = False,
) -> Path:
    """
    Write the trained policy of a model to a file of another format, see :meth:`sb3_dqn_ext.DQNExt.export`.

    :param model: a DQNExt; for ONNX also a DQN of SB3 or a QRDQN of sb3-contrib
    :param path: the path of the file
    :param to: a key of ``FORMATS``; None (default): the suffix of the path decides
    :param vec_normalize: statistics of observations, for ONNX
    :param channels_last: whether the images of the inputs have their channels on the last axis, for ONNX
    :return: the path
    :raises ArgumentError: if the model cannot be exported, or an argument is wrong
    """
    check_type("channels_last", channels_last, bool, "True or False")
    file = Path(path)
    kind = format_of(file) if to is None else to
    suffix = choose("to", kind, FORMATS)
    if kind == "sb3":
        check_only_for_onnx(vec_normalize=vec_normalize, channels_last=channels_last)
        content = to_sb3(model)
    else:
        content = to_onnx(model, vec_normalize, channels_last)
    file = file if file.suffix else file.with_suffix(suffix)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content)
    return file


def format_of(path: Path) -> str:
    """
    Return the format of files with the suffix of a path.

    :param path: the path
    :raises ArgumentError: if it is the suffix of no format
    """
    found = next((name for name, suffix in FORMATS.items() if suffix == path.suffix.lower()), None)
    if found is None:
        endings = " or ".join(FORMATS.values())
        raise ArgumentError(f"path={str(path)!r} must end in {endings}, or `to` must be one of: {', '.join(FORMATS)}.")
    return found


def check_only_for_onnx(**given: Any) -> None:
    """:raises ArgumentError: if an argument is given that only the export to ONNX has"""
    for name, value in given.items():
        if value:
            raise ArgumentError(f"{name}={value!r} has no effect with to='sb3'; leave it out.")
