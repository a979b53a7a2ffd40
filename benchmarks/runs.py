"""Train runs with the RL Zoo, and find their folders."""

import sys
from pathlib import Path

from benchmarks.processes import run_command


def train(algo: str, env_id: str, seed: int, folder: Path, *arguments: str, **environment: str) -> Path:
    """
    Train one model with the zoo's command in its own process.

    :param algo: the ``--algo``
    :param env_id: the ``--env``
    :param seed: the ``--seed``
    :param folder: the ``-f``
    :param arguments: further arguments of the command
    :param environment: additional environment variables
    :return: the run folder
    """
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", algo, "--env", env_id, "--seed", str(seed), "-f", str(folder)]
    run_command([*command, "--num-threads", "1", "--verbose", "0", *arguments], environment)
    return newest_run(folder, algo, env_id)


def newest_run(folder: Path, algo: str, env_id: str) -> Path:
    """
    Return the run folder with the highest number.

    :param folder: the ``-f`` of the zoo
    :param algo: the ``--algo``
    :param env_id: the ``--env``
    """
    runs = (folder / algo).glob(f"{env_id.replace('/', '-')}_*")
    return max(runs, key=run_number)


def run_number(run: Path) -> int:
    """
    Return the number of a run folder.

    :param run: the run folder
    """
    return int(run.name.rpartition("_")[2])
