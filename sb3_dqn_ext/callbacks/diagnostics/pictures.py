"""The base class of diagnostics with a picture, which is drawn when the log is written."""

import importlib.util
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.logger import CSVOutputFormat, HumanOutputFormat, Image, JSONOutputFormat

from sb3_dqn_ext.callbacks.diagnostics.base import TEXT_FORMATS, Diagnostic
from sb3_dqn_ext.callbacks.log_observer import CallbackOutputFormat

__all__ = ["DrawingDiagnostic"]

TEXT_OUTPUTS = (HumanOutputFormat, JSONOutputFormat, CSVOutputFormat)


class DrawingDiagnostic(Diagnostic):
    """
    A diagnostic with a picture.

    The picture is drawn when the log is written, so that no picture is drawn that the next one replaces. Until then, the
    diagnostic stores plain data only, which a checkpoint can contain.

    :param every: environment steps between two measurements; None (default): see :class:`Diagnostic`
    """

    picture = ""
    """the part of its log key after the slash"""

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every)
        self._pending: dict[str, Any] = {}  # the data of the picture, by its name
        self._pictures = _PictureOutput(self)

    def _on_run_start(self, continues: bool) -> None:
        self._pending = {}
        self._pictures.join(self.logger, is_first=True)
        super()._on_run_start(continues)

    def _on_run_end(self) -> None:
        self._pictures.leave()

    def _set_picture(self, data: Any) -> None:
        """
        Set the data of the next picture.

        :param data: plain data, from which :meth:`_draw` draws the picture
        """
        self._pending[self.picture] = data

    def _draw(self, data: Any) -> npt.NDArray[np.uint8]:
        """
        Draw the picture.

        :param data: the data of :meth:`_set_picture`
        :return: (H, W, 3) the picture
        """
        raise NotImplementedError

    def _add_pictures(self, key_values: dict[str, Any], key_excluded: dict[str, Any]) -> None:
        """
        Add the picture to the values that the logger is about to write.

        :param key_values: the values by their keys
        :param key_excluded: for each key, the output formats that do not write it
        """
        for name, data in self._pending.items():
            key = f"{self.group}/{name}"
            key_values[key], key_excluded[key] = Image(self._draw(data), "HWC"), TEXT_FORMATS


class _PictureOutput(CallbackOutputFormat):
    """
    An output format that writes nothing: it comes before the other formats of the logger, and adds the picture of a diagnostic
    to the values that they are about to write.

    :param owner: the diagnostic
    """

    def __init__(self, owner: DrawingDiagnostic) -> None:
        self._owner = owner
        self._warned = False

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        if self._owner._pending and self._can_be_shown() and self._can_draw():
            self._owner._add_pictures(key_values, key_excluded)
        self._owner._pending = {}

    def _can_be_shown(self) -> bool:
        assert self.logger is not None
        return any(not isinstance(output, (*TEXT_OUTPUTS, _PictureOutput)) for output in self.logger.output_formats)

    def _can_draw(self) -> bool:
        if importlib.util.find_spec("matplotlib") is not None:
            return True
        if not self._warned:
            self._warned = True
            name = type(self._owner).__name__
            warnings.warn(
                f"{name} logs no pictures, as matplotlib is not installed: pip install 'sb3_dqn_ext[plots]'.", stacklevel=2
            )
        return False
