"""Pictures of diagnostics, which are drawn when the log is written."""

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
    A diagnostic with a picture. It is drawn when the log is written: so none is drawn that another one replaces, and in
    between there is plain data only, which a checkpoint can hold.

    :param every: environment steps between two looks
    """

    picture = ""
    """the part of its key behind the slash"""

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self._waiting: dict[str, Any] = {}  # what the picture is to show, by its name
        self._pictures = _Pictures(self)

    def _on_run_start(self, continues: bool) -> None:
        self._waiting = {}
        self._pictures.join(self.logger, is_first=True)
        super()._on_run_start(continues)

    def _on_run_end(self) -> None:
        self._pictures.leave()

    def _show(self, data: Any) -> None:
        """:param data: plain data, of which :meth:`_draw` makes the picture"""
        self._waiting[self.picture] = data

    def _draw(self, data: Any) -> npt.NDArray[np.uint8]:
        """
        :param data: what was given to :meth:`_show`
        :return: (H, W, 3)
        """
        raise NotImplementedError

    def _write_waiting(self, key_values: dict[str, Any], key_excluded: dict[str, Any]) -> None:
        """
        :param key_values: what is about to be logged, to which the picture is added
        :param key_excluded: the formats that do not get it
        """
        for name, data in self._waiting.items():
            key = f"{self.group}/{name}"
            key_values[key], key_excluded[key] = Image(self._draw(data), "HWC"), TEXT_FORMATS


class _Pictures(CallbackOutputFormat):
    """
    Adds the picture of a diagnostic to what the other formats of the logger are about to write.

    :param owner: the diagnostic
    """

    def __init__(self, owner: DrawingDiagnostic) -> None:
        self._owner = owner
        self._warned = False

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        if self._owner._waiting and self._can_be_shown() and self._can_draw():
            self._owner._write_waiting(key_values, key_excluded)
        self._owner._waiting = {}

    def _can_be_shown(self) -> bool:
        assert self.logger is not None
        return any(not isinstance(output, (*TEXT_OUTPUTS, _Pictures)) for output in self.logger.output_formats)

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
