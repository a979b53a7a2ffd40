"""The table of faults, and that of what checkpoints cost."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.reliability.fault_injection import FAULTS
from benchmarks.reliability.overhead import AT_MOST, VARIANTS, Sizes, parts_of
from benchmarks.reliability.train import EVERY as BETWEEN
from benchmarks.rows import Row, select_rows

HEAD = f"""\
# What happens to a run when something happens to it

Written by `make faults`, which is `python -m benchmarks.reliability`; its rows are in reliability.csv and overhead.csv.

A DQN with prioritized 3-step replay learns CartPole in a process of its own and writes a checkpoint every {BETWEEN} steps,
onto the disk (`fsync`). Each fault happens to real processes and real files. *Equal* means that a new process went on with the
run to its end, and ended with the same bits as one that nothing had happened to: parameters, optimizer, replay memory,
priorities, counters, generators. After each kill, every checkpoint there was could be read, and none was of a later step than
the process had taken.
"""
COLUMNS = (
    *(
        "fault",
        "trials",
        "ended as it should, and said why",
        "gone on from the newest good checkpoint",
        "equal at the end",
        "nothing overwritten",
    ),
    "what is said",
)
CRITERIA = ("clear", "resumed", "equal", "untouched")


def fault_table(rows: Sequence[Row]) -> str:
    """
    :param rows: of the faults
    :return: a Markdown table with a line for each kind
    """
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for name, fault in FAULTS.items():
        of_fault = select_rows(rows, fault=name)
        if not of_fault:
            continue
        n_kills = sum(int(row["kills"]) for row in of_fault if row["kills"])
        trials = f"{n_kills} in {len(of_fault)} runs" if name == "kills" else str(len(of_fault))
        counts = [count(of_fault, column) for column in CRITERIA]
        lines.append(f"| {' | '.join([fault.title, trials, *counts, example_message(of_fault)])} |")
        if name == "kills":
            n_writing = sum(int(row["writing"]) for row in of_fault)
            lines.append(f"| of these while a checkpoint was written | {n_writing} | | | | | |")
    return "\n".join(lines) + "\n"


def count(rows: Sequence[Row], column: str) -> str:
    """
    :param rows: of one fault
    :param column: what was asked
    :return: of how many it holds, nothing where it was not asked
    """
    asked = [row[column] for row in rows if row[column]]
    return f"{asked.count('yes')} of {len(asked)}" if asked else ""


def example_message(rows: Sequence[Row]) -> str:
    """
    :param rows: of one fault
    :return: the message of one of them; of one that went wrong, if there is one
    """
    bad = [row for row in rows if "no" in (row[column] for column in CRITERIA)]
    message = next((row["message"] for row in [*bad, *rows] if row["message"]), "")
    return f"`{message}`".replace("|", "\\|") if message else ""


def cost_table(rows: Sequence[Row]) -> str:
    """
    :param rows: of the pairs
    :return: a Markdown table of what checkpoints cost
    """
    lines = [
        "| LunarLander-v3 | pairs | without, s | with, s | median ratio | range | asked | in `save_checkpoint` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, variant in VARIANTS.items():
        pairs = select_rows(rows, variant=name)
        if not pairs:
            continue
        without, with_them = (np.array([float(row[column]) for row in pairs]) for column in ("without_s", "with_s"))
        ratios = with_them / without
        verdict = "reached" if np.median(ratios) < AT_MOST else "missed"
        cells = [variant.title, str(len(pairs)), *(f"{np.median(column):.1f}" for column in (without, with_them))]
        cells += [f"{np.median(ratios):.4f}", f"{ratios.min():.4f} to {ratios.max():.4f}", f"below {AT_MOST}: **{verdict}**"]
        inside = [int(row["checkpoints"]) * float(row["all_ms"]) / 1000 for row in pairs]
        cells.append(f"{np.median(inside / with_them):.2%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parts_table(rows: Sequence[Row]) -> str:
    """
    :param rows: of the pairs
    :return: a Markdown table of where the time of a checkpoint goes
    """
    names = parts_of(rows[0])
    lines = [f"| one checkpoint, ms | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for name, variant in VARIANTS.items():
        pairs = select_rows(rows, variant=name)
        if pairs:
            cells = [f"{np.median([float(row[f'{part}_ms']) for row in pairs]):.1f}" for part in names]
            lines.append(f"| {' | '.join([variant.title, *cells])} |")
    return "\n".join(lines) + "\n"


def write(faults: Sequence[Row], pairs: Sequence[Row], path: Path) -> str:
    """
    :param faults: rows
    :param pairs: rows
    :param path: of the page
    :return: what was written
    """
    text = HEAD + "\n" + fault_table(faults) if faults else HEAD
    if pairs:
        text += f"""
## What checkpoints cost

Training with a checkpoint every {Sizes().every:,} steps beside the same training without, in pairs, each process alone on the
machine, in turns the one and the other first; with the hyperparameters of the zoo for LunarLander-v3, but a memory of
{Sizes().full:,} rows. It is full when the clock starts, {Sizes().timed:,} steps before the end.

{cost_table(pairs)}
{parts_table(pairs)}"""
    path.write_text(text)
    return text
