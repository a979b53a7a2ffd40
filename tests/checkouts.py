"""
Run a function of a test module with the package of a given checkout, in a process of its own.

The process is ``python -m tests.checkouts CHECKOUT MODULE ARGUMENT...``, which calls ``MODULE.run(ARGUMENT...)``. The test
modules come from the checkout that compares, so both sides do the same.
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGE = "sb3_dqn_ext"
MODULES = {
    "make_resumable": ["sb3_dqn_ext.checkpoint.environments", "sb3_dqn_ext.checkpoint.envs"],
    "make": ["benchmarks.speed.contestants", "benchmarks.speed.implementations"],
}
"""functions, and the modules in which a checkout may have them"""


# in the process that compares


def two_checkouts(description: str) -> argparse.ArgumentParser:
    """A parser of the command line ``OLD NEW``."""
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
    :param process: from :func:`start`
    :return: what it reports, see :func:`report`, until it ends
    """
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("result "):
            yield json.loads(line.removeprefix("result "))
    if process.wait():
        raise SystemExit(f"{process.args!r} ended with code {process.returncode}")


# in the process of one checkout


def report(value: Any) -> None:
    """Send a value, which JSON can hold, to the process that compares."""
    print("result", json.dumps(value), flush=True)


def use(checkout: str) -> None:
    """Import the package from a checkout, not from the one that is installed in place."""
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
    """The function of a name in ``MODULES``."""
    for module in MODULES[name]:
        with suppress(ModuleNotFoundError):
            return getattr(importlib.import_module(module), name)
    raise LookupError(f"{name} is in none of {MODULES[name]}")


if __name__ == "__main__":
    main()
