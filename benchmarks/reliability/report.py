"""The page of results: a table of the faults, and tables of the cost of checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.reliability.fault_injection import FAULTS
from benchmarks.reliability.overhead import VARIANTS, Sizes, parts_of
from benchmarks.reliability.train import EVERY as BETWEEN
from sb3_dqn_ext.sweep import Row, select_rows

HEAD = f"""\
# Fault injection, and the cost of checkpoints

Written by `make fault-injection` (`python -m benchmarks.reliability`) from the rows of reliability.csv and overhead.csv.

A DQN with prioritized 3-step replay learns CartPole in its own process and writes a checkpoint every {BETWEEN} steps to the
disk (`fsync`). Each fault is injected into real processes and real files. *Equal at the end* means that a new process
continued the run to its end, with the same bits as a run without faults: parameters, optimizer, replay buffer, priorities,
counters and random generators. After each kill, every checkpoint was readable, and none was of a later step than the process
had taken.
"""
COLUMNS = (
    *(
        "fault",
        "trials",
        "clear error message",
        "resumed from the newest good checkpoint",
        "equal at the end",
        "no file overwritten",
    ),
    "message",
)
CRITERIA = ("clear", "resumed", "equal", "untouched")
"""The columns of reliability.csv that are counted."""


def fault_table(rows: Sequence[Row]) -> str:
    """
    Return a Markdown table with a line for each fault.

    :param rows: the rows of reliability.csv
    """
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for name, fault in FAULTS.items():
        of_fault = select_rows(rows, fault=name)
        if not of_fault:
            continue
        n_kills = sum(int(row["n_kills"]) for row in of_fault if row["n_kills"])
        trials = f"{n_kills} in {len(of_fault)} runs" if name == "sigkill" else str(len(of_fault))
        counts = [count(of_fault, column) for column in CRITERIA]
        lines.append(f"| {' | '.join([fault.title, trials, *counts, example_message(of_fault)])} |")
        if name == "sigkill":
            n_writing = sum(int(row["n_writing"]) for row in of_fault)
            lines.append(f"| of these while a checkpoint was written | {n_writing} | | | | | |")
    return "\n".join(lines) + "\n"


def count(rows: Sequence[Row], column: str) -> str:
    """
    Return the number of trials that meet a criterion, empty where the criterion does not apply.

    :param rows: the rows of one fault
    :param column: the column of the criterion
    """
    answers = [row[column] for row in rows if row[column]]
    return f"{answers.count('yes')} of {len(answers)}" if answers else ""


def example_message(rows: Sequence[Row]) -> str:
    """
    Return the message of one trial, of one that failed a criterion if there is any.

    :param rows: the rows of one fault
    """
    bad = [row for row in rows if "no" in (row[column] for column in CRITERIA)]
    message = next((row["message"] for row in [*bad, *rows] if row["message"]), "")
    return f"`{message}`".replace("|", "\\|") if message else ""


def cost_table(rows: Sequence[Row]) -> str:
    """
    Return a Markdown table of the training times with and without checkpoints.

    :param rows: the rows of the pairs
    """
    lines = [
        "| LunarLander-v3 | pairs | without, s | with, s | median ratio | range | time in `save_checkpoint` |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, variant in VARIANTS.items():
        pairs = select_rows(rows, variant=name)
        if not pairs:
            continue
        without, with_them = (np.array([float(row[column]) for row in pairs]) for column in ("without_s", "with_s"))
        ratios = with_them / without

        cells = [variant.title, str(len(pairs)), *(f"{np.median(column):.1f}" for column in (without, with_them))]
        cells += [f"{np.median(ratios):.4f}", f"{ratios.min():.4f} to {ratios.max():.4f}"]
        inside = [int(row["checkpoints"]) * float(row["all_ms"]) / 1000 for row in pairs]
        cells.append(f"{np.median(inside / with_them):.2%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parts_table(rows: Sequence[Row]) -> str:
    """
    Return a Markdown table of the time of each part of a checkpoint.

    :param rows: the rows of the pairs
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
    Write the page, and return its text.

    :param faults: the rows of reliability.csv
    :param pairs: the rows of overhead.csv
    :param path: the file of the page
    """
    text = HEAD + "\n" + fault_table(faults) if faults else HEAD
    if pairs:
        text += f"""
## The cost of checkpoints

Training times with a checkpoint every {Sizes().every:,} steps, and without checkpoints, in pairs. The processes run one after
the other; the one with checkpoints is the first and the second in turns. Hyperparameters: those of the RL Zoo for
LunarLander-v3, with a replay buffer of {Sizes().full:,} transitions, which is full when the clock starts,
{Sizes().timed:,} steps before the end.

{cost_table(pairs)}
{parts_table(pairs)}"""
    path.write_text(text)
    return text
