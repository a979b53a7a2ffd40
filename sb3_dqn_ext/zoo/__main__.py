"""``python -m sb3_dqn_ext.zoo COMMAND ARGUMENTS``: a command of the RL Zoo, with ``--algo dqn_ext``, or ``resume``."""

import os
import runpy
import sys

from sb3_dqn_ext._validation import choose
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.zoo import resume
from sb3_dqn_ext.zoo.models import take_trust_option

# Importing the package sb3_dqn_ext.zoo, which Python does before it runs this module, has registered the algorithm.

COMMANDS = {
    "train": "rl_zoo3.train",
    "enjoy": "rl_zoo3.enjoy",
    "record_video": "rl_zoo3.record_video",
    "record_training": "rl_zoo3.record_training",
    "benchmark": "rl_zoo3.benchmark",
    "load_from_hub": "rl_zoo3.load_from_hub",
    "push_to_hub": "rl_zoo3.push_to_hub",
    "all_plots": "rl_zoo3.plots.all_plots",
    "plot_from_file": "rl_zoo3.plots.plot_from_file",
    "plot_train": "rl_zoo3.plots.plot_train",
}

LOAD_MODELS = ("enjoy", "record_video", "train")
"""commands that take ``--trust``, as ``DQNExt.load`` does"""


def main(arguments: list[str]) -> None:
    """
    :param arguments: the command, and what the zoo's own ``python -m rl_zoo3.COMMAND``, or ours, would get
    """
    command, *rest = arguments or [""]
    try:
        module = choose("command", command, {**COMMANDS, "resume": ""})
    except ArgumentError as error:
        sys.exit(f"python -m sb3_dqn_ext.zoo COMMAND ARGUMENTS: {error}")
    os.environ.pop("SB3_DQN_EXT_NO_HOOK", None)  # record_training runs record_video, in processes of their own
    if command == "resume":
        return resume.main(rest)
    sys.argv[1:] = take_trust_option(rest) if command in LOAD_MODELS else rest
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
