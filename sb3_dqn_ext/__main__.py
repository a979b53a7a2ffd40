"""
The command line of this package: ``sb3-dqn-ext COMMAND ...``, or ``python -m sb3_dqn_ext COMMAND ...``.

The list of commands is printed without an import of torch: each command imports its module when it is run.
"""

import os
import sys

from sb3_dqn_ext._command_line import Command, print_text, run_command
from sb3_dqn_ext._version import __version__

PROGRAM = "sb3-dqn-ext"
ZOO = "sb3_dqn_ext.zoo.commands"

COMMANDS = {
    "train": Command("train an agent with the RL Zoo", ZOO, "zoo", ("train",)),
    "advise": Command("print a starting configuration for an environment", "sb3_dqn_ext.zoo.advise.__main__", "zoo"),
    "enjoy": Command("watch a trained agent", ZOO, "zoo", ("enjoy",)),
    "record-video": Command("record a video of a trained agent", ZOO, "zoo", ("record-video",)),
    "resume": Command("continue a training run that was interrupted", "sb3_dqn_ext.zoo.resume", "zoo"),
    "sweep": Command("train many runs and compare them", "sb3_dqn_ext.sweep.__main__", "zoo"),
    "plot": Command("draw learning curves and other pictures of runs", "sb3_dqn_ext.plot.__main__", "plots"),
    "report": Command("write a report of a run, as one HTML page", "sb3_dqn_ext.report.__main__", "plots"),
    "export": Command("write a trained model to ONNX, or to a file of SB3", "sb3_dqn_ext.export.__main__", None),
}


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command line.

    :param arguments: the arguments of the command line; None (default): those of this process
    """
    words = sys.argv[1:] if arguments is None else arguments
    if "" not in sys.path and not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, "")  # modules of the user in the current folder, as with ``python -m``
    if words[:1] == ["--version"]:
        print_text(f"{PROGRAM} {__version__}")
    else:
        run_command(program_name(sys.argv[0]), COMMANDS, words)


def program_name(path: str) -> str:
    """
    Return the name by which the user has called the program, for examples that can be pasted.

    :param path: the path of the script or the module that runs
    """
    return "python -m sb3_dqn_ext" if os.path.basename(path) == "__main__.py" else PROGRAM


if __name__ == "__main__":
    main()
