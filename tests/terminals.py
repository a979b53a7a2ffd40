"""Run a command in a terminal, as a user does."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def run_in_terminal(
    command: Sequence[str], folder: Path, columns: int = 80, ctrl_c_after: str | None = None, seconds: float = 120
) -> tuple[str, int]:
    """
    Run a command in a pseudo-terminal.

    :param command: a program and its arguments
    :param folder: the folder to run in
    :param columns: the width of the terminal
    :param ctrl_c_after: Ctrl-C is pressed once this text is printed; None: never
    :param seconds: the time limit, after which the process is killed
    :return: the whole output with its control sequences, and the exit code
    """
    process, terminal = pty.fork()
    if process == 0:  # pragma: no cover
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.chdir(folder)
        without_size = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        os.execvpe(command[0], list(command), {**without_size, "OMP_NUM_THREADS": "1"})
    printed, deadline, is_pressed = b"", time.monotonic() + seconds, ctrl_c_after is None
    try:
        with suppress(OSError):  # the other end is closed
            while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
                new = os.read(terminal, 2**16)
                printed += new
                if not is_pressed and ctrl_c_after is not None and ctrl_c_after.encode() in printed:
                    is_pressed = True
                    os.write(terminal, b"\x03")
                if not new:
                    break
    finally:
        with suppress(ProcessLookupError):
            if time.monotonic() >= deadline:
                os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        os.close(terminal)
    return printed.decode(), os.waitstatus_to_exitcode(status)
