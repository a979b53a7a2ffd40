"""Attributes of a model that have replaced values while it trains."""

from typing import Any

__all__ = ["ReplacedAttributes"]


class ReplacedAttributes:
    """
    The attributes of a model that callbacks replace until a run ends. While callbacks are executed, the attributes have their
    original values, so that callbacks save and change these.

    :param model: the model
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._values: dict[str, Any] = {}
        self._originals: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        """
        Replace an attribute from the next rollout on.

        :param name: the name of the attribute
        :param value: its value while the model collects transitions and trains
        """
        self._values[name] = value

    def apply(self) -> None:
        """Set the replaced values."""
        if not self._originals:
            for name, value in self._values.items():
                self._originals[name] = getattr(self._model, name)
                setattr(self._model, name, value)

    def restore(self) -> None:
        """Set the original values."""
        for name, value in self._originals.items():
            setattr(self._model, name, value)
        self._originals = {}
