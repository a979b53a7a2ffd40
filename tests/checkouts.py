"""
Run a function of a test module with the package of a given checkout, in a separate process.

The process is ``python -m tests.checkouts CHECKOUT MODULE ARGUMENT...``, which calls ``MODULE.run(ARGUMENT...)``. The test
modules are those of the comparing checkout, so that both sides do the same.
"""

import argparse
import importlib
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGE = "sb3_dqn_ext"
LOCATIONS = {
    "make_resumable": ["sb3_dqn_ext.checkpoint.environments:make_resumable", "sb3_dqn_ext.checkpoint.envs:make_resumable"],
    "make_model": [
        "benchmarks.speed.contestants:make",
        "benchmarks.speed.implementations:make",
        "benchmarks.speed.implementations:make_model",
    ],
}
"""Functions, and their locations in older and newer checkouts."""


# in the process that compares


def two_checkouts(description: str) -> argparse.ArgumentParser:
    """Make a parser of the command line ``OLD NEW``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout, such as a git worktree of an earlier commit")
    parser.add_argument("new", type=Path, help="another checkout")
    return parser


def start(checkout: Path, module: str, *arguments: Any) -> subprocess.Popen[str]:
    """Start ``module.run(*arguments)`` with the package of a checkout. The arguments become text."""
    command = [sys.executable, "-m", "tests.checkouts", str(checkout.resolve()), module, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "SB3_DQN_EXT_NO_HOOK": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT)


def results(process: subprocess.Popen[str]) -> Iterator[Any]:
    """
    Return the values that a process reports until it ends, see :func:`report`.

    :param process: a process from :func:`start`
    """
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("result "):
            yield json.loads(line.removeprefix("result "))
    if process.wait():
        raise SystemExit(f"{process.args!r} ended with code {process.returncode}")


# in the process of one checkout


def report(value: Any) -> None:
    """Send a value to the comparing process, as JSON."""
    print("result", json.dumps(value), flush=True)


def use(checkout: str) -> None:
    """Import the package from a checkout instead of the installed one."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in f"{finder!r}{type(finder)!r}".lower()]
    sys.path.insert(0, checkout)
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(checkout), spec.origin


def main() -> None:
    checkout, module, *arguments = sys.argv[1:]
    use(checkout)
    importlib.import_module(module).run(*arguments)


def imported(name: str) -> Any:
    """Import the function of a name in ``LOCATIONS``."""
    for location in LOCATIONS[name]:
        with suppress(ModuleNotFoundError, AttributeError):
            return pkgutil.resolve_name(location)
    raise LookupError(f"{name} is at none of {LOCATIONS[name]}")


if __name__ == "__main__":
    main()
