"""Run Python as users do: in its own process and in their own folder."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

Process = subprocess.CompletedProcess[str]


def python(
    *arguments: str, cwd: Path, executable: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """
    Run Python, and return the process after its end, whether it succeeded or not.

    :param arguments: the arguments of ``python``
    :param cwd: the working directory
    :param executable: the interpreter; default: the one that runs the tests
    :param environment: additional environment variables
    """
    return subprocess.run(
        [executable, *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def output(process: Process) -> str:
    """
    Check that a process has succeeded, and return its output.

    :param process: a process that has ended
    """
    assert process.returncode == 0, f"{process.args} failed:\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}"
    return process.stdout


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition is true, for two minutes at most."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def write_package(folder: Path, **modules: str) -> Path:
    """
    Write a Python package, and return its folder.

    :param folder: the folder of the package
    :param modules: the source of each module, by its name
    """
    folder.mkdir(parents=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder
