"""SIGINT (Ctrl-C) and SIGTERM, deferred until a run has written a checkpoint."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

from typing_extensions import Self

__all__ = ["DeferredSignals"]

DEFERRED = (signal.SIGINT, signal.SIGTERM)
STOP_MESSAGE = "Finishing the rollout, then writing a last checkpoint; a second signal stops at once.\n"


class DeferredSignals:
    """
    A context manager that defers the first SIGINT or SIGTERM until :meth:`deliver`.

    After the first signal, the previous handlers are active again, so a second signal takes effect at once. Signals that were
    ignored stay ignored. Outside of the main thread, which alone can handle signals, nothing changes.
    """

    def __init__(self) -> None:
        self._pending: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def is_pending(self) -> bool:
        """Whether a signal was deferred and not yet delivered."""
        return self._pending is not None

    def deliver(self) -> None:
        """
        Call the previous handler of the deferred signal, if there is one. If the handler returns, defer signals again.

        :raises KeyboardInterrupt: after SIGINT, with Python's default handler
        :raises SystemExit: after SIGTERM, with the default action
        """
        if self._pending is not None:
            self._deliver(self._pending)
            self._install_handlers()

    def __enter__(self) -> Self:
        self._install_handlers()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._restore_handlers()
        if self._pending is not None and kind is None:
            self._deliver(self._pending)

    def _deliver(self, number: signal.Signals) -> None:
        self._pending = None
        handler = signal.getsignal(number)
        if not callable(handler):
            raise SystemExit(128 + number)
        handler(number, None)

    def _install_handlers(self) -> None:
        if threading.current_thread() is threading.main_thread():
            handled = {number: signal.getsignal(number) for number in DEFERRED}
            self._handlers = {number: old for number, old in handled.items() if old not in (signal.SIG_IGN, None)}
            for number in self._handlers:
                signal.signal(number, self._defer)

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _defer(self, number: int, frame: FrameType | None) -> None:
        self._restore_handlers()
        self._pending = signal.Signals(number)
        with contextlib.suppress(OSError):
            os.write(2, STOP_MESSAGE.encode())  # print is not reentrant, and may be what the signal interrupted
