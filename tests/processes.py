"""Run Python as a user does: in a process of its own, in a folder of their own."""

import os
import subprocess
import sys
from pathlib import Path

Process = subprocess.CompletedProcess[str]


def python(
    *arguments: str, cwd: Path, executable: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """
    :param arguments: what follows ``python`` on the command line
    :param cwd: the folder to run in
    :param executable: the interpreter, by default the one that runs the tests
    :param environment: variables to set beside those of the tests
    :return: the process, which has ended in whichever way; its output is text
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
    :param process: a process that has ended
    :return: what it printed, once it is sure that it succeeded
    """
    assert process.returncode == 0, f"{process.args} failed:\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}"
    return process.stdout


def write_package(folder: Path, **modules: str) -> Path:
    """
    :param folder: the package to write
    :param modules: the source of each of its modules, by name
    :return: ``folder``
    """
    folder.mkdir(parents=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder
