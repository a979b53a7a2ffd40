"""
Record the golden curves: ``python -m tests.golden.record``.

Runs that have a row are not repeated: the same command continues after an interruption. Rows of hyperparameters that have
changed since do not count. ``--again`` discards all rows first, after a change of the code that alters what is learned.
"""

import argparse
import shutil
import sys
from pathlib import Path

from sb3_dqn_ext.sweep.__main__ import run_missing
from sb3_dqn_ext.sweep.processes import ProcessEngine
from tests.golden.curves import SPECS, Golden, golden_curves, lowest_mean
from tests.paths import ROOT


def record(spec_path: Path, runs: Path, jobs: int, again: bool) -> list[Golden]:
    """
    Train the golden curves of a sweep with the seeds that have no row.

    :param spec_path: the YAML file of the sweep
    :param runs: the folder of its runs
    :param jobs: the number of runs at the same time
    :param again: whether the rows are discarded first
    :return: its golden curves
    """
    curves = golden_curves([spec_path])
    spec = curves[0].spec
    if again:
        shutil.rmtree(runs, ignore_errors=True)
        spec.results.unlink(missing_ok=True)
    failures = run_missing(spec, runs, ProcessEngine(), jobs)
    if failures:
        sys.exit("\n".join(failures.values()))
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="discard all rows first")
    parser.add_argument("--jobs", type=int, default=2, help="the number of runs at the same time")
    args = parser.parse_args()
    for path in SPECS:
        for curve in record(path, ROOT / "runs" / "golden" / path.stem, args.jobs, args.again):
            returns = curve.returns
            spread = f"{returns.mean():.1f} +- {returns.std(ddof=1):.1f}"
            print(f"{curve.name}: {spread} ({len(returns)} seeds), bound {lowest_mean(returns):.1f}", flush=True)


if __name__ == "__main__":
    main()
