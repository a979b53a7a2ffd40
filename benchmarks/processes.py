"""Runs a benchmark in a process of its own."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run_command(command: list[str], environment: Mapping[str, str], cwd: Path | None = None) -> str:
    """
    :param command: a program and its arguments
    :param environment: variables to set
    :param cwd: the directory to run it in; None: that of this process
    :return: the standard output of the program
    :raises RuntimeError: with its standard error, if it fails
    """
    result = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return result.stdout
