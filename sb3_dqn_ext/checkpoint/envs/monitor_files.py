"""The files of episodes, ``monitor.csv``, of a run that is continued."""

import json
import os

from stable_baselines3.common.monitor import ResultsWriter

from sb3_dqn_ext.checkpoint.envs.plain_data import State


def monitor_file_state(writer: ResultsWriter | None, t_start: float) -> State | None:
    """
    :param writer: of a ``monitor.csv``, which it has flushed
    :param t_start: the time that the file's header names
    :return: what of the file there is by now
    """
    return None if writer is None else {"t_start": t_start, "size": os.fstat(writer.file_handler.fileno()).st_size}


def truncate_monitor_file(writer: ResultsWriter | None, state: State | None, t_start: float) -> float:
    """
    Leave in a file only what was there when its state was taken. If it is another file, it stays as it is.

    :param writer: of a ``monitor.csv``
    :param state: from :func:`record_state`
    :param t_start: from which the times of coming episodes would be counted
    :return: from which they are to be counted
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
