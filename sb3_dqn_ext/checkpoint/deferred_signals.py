"""SIGINT (Ctrl-C) and SIGTERM, put off until a run is at a place from which it can be gone on with."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

from typing_extensions import Self

__all__ = ["DeferredSignals"]

DEFERRED = (signal.SIGINT, signal.SIGTERM)
STOP_MESSAGE = "Finishing the rollout, then one last checkpoint; once more stops at once.\n"


class DeferredSignals:
    """
    Inside of this context, the first signal is only noted, until :meth:`obey`. From then on signals mean what they meant
    before, so that a second one takes effect at once.

    Signals that were ignored still are, and outside of the main thread, which alone may handle them, nothing changes.
    """

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def is_pending(self) -> bool:
        """Whether there is a signal that was put off."""
        return self._asked is not None

    def deliver(self) -> None:
        """
        Do now what the signal asks for, if there is one: SIGINT raises KeyboardInterrupt, SIGTERM SystemExit, unless somebody
        else handles them. If that returns, all begins anew.

        :raises KeyboardInterrupt: after SIGINT
        :raises SystemExit: after SIGTERM
        """
        if self._asked is not None:
            self._deliver(self._asked)
            self._take_over()

    def __enter__(self) -> Self:
        self._take_over()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._give_back()
        if self._asked is not None and kind is None:
            self._deliver(self._asked)

    def _deliver(self, asked: signal.Signals) -> None:
        self._asked = None
        handler = signal.getsignal(asked)
        if not callable(handler):
            raise SystemExit(128 + asked)
        handler(asked, None)

    def _take_over(self) -> None:
        if threading.current_thread() is threading.main_thread():
            handled = {number: signal.getsignal(number) for number in DEFERRED}
            self._before = {number: old for number, old in handled.items() if old not in (signal.SIG_IGN, None)}
            for number in self._before:
                signal.signal(number, self._note)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        self._asked = signal.Signals(number)
        with contextlib.suppress(OSError):
            os.write(2, STOP_MESSAGE.encode())  # not print, which may be what was interrupted
