"""Run a benchmark in its own process."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_command(command: list[str], environment: Mapping[str, str], cwd: Path | None = None) -> str:
    """
    Run a command, and return its standard output.

    :param command: the program and its arguments
    :param environment: additional environment variables
    :param cwd: the working directory; None: that of this process
    :raises RuntimeError: if the command fails, with its standard error
    """
    result = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    return result.stdout
