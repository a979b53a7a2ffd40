"""
Pack the wheels that a machine without a package index needs, such as a bare machine with a GPU::

    python -m benchmarks.pack wheels --extras zoo --present torch numpy --python 3.12

The machine has the packages after ``--present``. There, with the folder ``wheels``::

    python -m pip install --no-index --no-deps wheels/*.whl

The versions are those of the environment in which this command runs. Wheels are for Linux on x86-64.
"""

import argparse
import subprocess
import sys
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.processes import ROOT

PROJECT = "sb3_dqn_ext"
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"}
# pip compares the numbers of manylinux exactly
PLATFORMS = ["manylinux1_x86_64", "manylinux2014_x86_64", *(f"manylinux_2_{number}_x86_64" for number in range(5, 40))]


def requirements(package: str, extras: Collection[str], present: Collection[str], python: str) -> list[str]:
    """
    Return all packages that a package needs, directly or indirectly, with their versions in this environment.

    :param package: the name of the package
    :param extras: its extras
    :param present: the names of packages to leave out, with all that only they need
    :param python: the version of Python for which requirements are evaluated, such as ``"3.12"``
    :return: the sorted requirements, such as ``"gymnasium==1.4.0"``
    """
    left_out = {canonicalize_name(name) for name in present}
    found: dict[str, set[str]] = {}

    def add(name: str, wanted: Collection[str]) -> None:
        for requirement in _direct_requirements(name, wanted, python):
            key = canonicalize_name(requirement.name)
            new = {"", *requirement.extras} - found.get(key, set())
            if key not in left_out and new:
                found.setdefault(key, set()).update(new)
                add(key, new)

    add(package, {"", *extras})
    try:
        return sorted(f"{name}=={version(name).partition('+')[0]}" for name in found)
    except PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is needed with Python {python}, and is not installed here.") from error


def _direct_requirements(name: str, extras: Collection[str], python: str) -> Iterator[Requirement]:
    environment = {**LINUX, "python_version": python, "python_full_version": f"{python}.0"}
    for text in requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({**environment, "extra": extra}) for extra in extras):
            yield requirement


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder of the wheels")
    parser.add_argument("--extras", nargs="*", default=["zoo"], help="extras of this project; default: zoo")
    parser.add_argument("--present", nargs="*", default=["torch"], help="packages that are there already; default: torch")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("--python", default=own, help=f"the version of Python there; default: {own}")
    args = parser.parse_args(arguments)
    if args.folder.is_dir() and any(args.folder.iterdir()):
        parser.error(f"the folder {args.folder} is not empty")

    pip = [sys.executable, "-m", "pip"]
    pinned = requirements(PROJECT, args.extras, args.present, args.python)
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    target = ["--only-binary", ":all:", "--python-version", args.python, "--implementation", "cp", *platforms]
    subprocess.run([*pip, "download", "--quiet", "--no-deps", *target, "--dest", args.folder, *pinned], check=True)
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", args.folder, ROOT], check=True)
    wheels = sorted(args.folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels) / 2**20
    print(f"{len(wheels)} wheels, {size:.0f} MiB: python -m pip install --no-index --no-deps {args.folder}/*.whl")


if __name__ == "__main__":
    main()
