"""The ``monitor.csv`` files of a run that is resumed from a checkpoint."""

import json
import os

from stable_baselines3.common.monitor import ResultsWriter

from sb3_dqn_ext.checkpoint.envs.plain_data import State


def monitor_file_state(writer: ResultsWriter | None, t_start: float) -> State | None:
    """
    Return the start time and the current size of a ``monitor.csv``.

    :param writer: the writer of the file, which has flushed it; or None
    :param t_start: the start time in the file's header
    :return: plain data; None without a file
    """
    return None if writer is None else {"t_start": t_start, "size": os.fstat(writer.file_handler.fileno()).st_size}


def truncate_monitor_file(writer: ResultsWriter | None, state: State | None, t_start: float) -> float:
    """
    Truncate a ``monitor.csv`` to its size at a checkpoint. A file with another start time is not changed.

    :param writer: the writer of the file, or None
    :param state: the state from :func:`monitor_file_state`, or None
    :param t_start: the start time from which the times of episodes are measured now
    :return: the start time from which they are to be measured from now on
    """
    if writer is None or state is None or _time_in_header(writer.file_handler.name) != state["t_start"]:
        return t_start
    file = writer.file_handler
    if os.fstat(file.fileno()).st_size > state["size"]:
        file.truncate(state["size"])
    file.seek(0, os.SEEK_END)
    return float(state["t_start"])


def _time_in_header(path: str) -> float | None:
    try:
        with open(path) as file:
            return float(json.loads(file.readline().removeprefix("#"))["t_start"])
    except (OSError, ValueError, TypeError, LookupError):
        return None
