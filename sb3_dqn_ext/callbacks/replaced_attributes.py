"""Attributes of a model that have other values while it trains."""

from typing import Any

__all__ = ["ReplacedAttributes"]


class ReplacedAttributes:
    """
    Attributes of a model that callbacks replace until a run ends, but not while callbacks are executed: what they save, or
    change, is the model's own value.

    :param model: the model
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._values: dict[str, Any] = {}
        self._originals: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        """
        :param name: the attribute
        :param value: its value while the model collects transitions and trains
        """
        self._values[name] = value

    def apply(self) -> None:
        """Give the attributes their other values."""
        if not self._originals:
            for name, value in self._values.items():
                self._originals[name] = getattr(self._model, name)
                setattr(self._model, name, value)

    def restore(self) -> None:
        """Give the attributes the model's own values."""
        for name, value in self._originals.items():
            setattr(self._model, name, value)
        self._originals = {}
