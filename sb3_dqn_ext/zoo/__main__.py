"""``python -m sb3_dqn_ext.zoo COMMAND ARGUMENTS``: a command of the RL Zoo with ``dqn_ext``, ``advise`` or ``resume``."""

import sys

from sb3_dqn_ext._command_line import Command, run_command

RUNNER = "sb3_dqn_ext.zoo.commands"

COMMANDS = {
    "train": Command("train an agent, or search for hyperparameters", RUNNER, "zoo", ("train",)),
    "resume": Command("continue a training run that was interrupted", "sb3_dqn_ext.zoo.resume", "zoo"),
    "advise": Command("print a starting configuration for an environment", "sb3_dqn_ext.zoo.advise.__main__", "zoo"),
    "enjoy": Command("watch a trained agent", RUNNER, "zoo", ("enjoy",)),
    "record-video": Command("record a video of a trained agent", RUNNER, "zoo", ("record-video",)),
    "record-training": Command("record a video of a whole training run", RUNNER, "zoo", ("record-training",)),
    "benchmark": Command("evaluate all trained agents of a folder", RUNNER, "zoo", ("benchmark",)),
    "load-from-hub": Command("download a trained agent from the Hugging Face Hub", RUNNER, "zoo", ("load-from-hub",)),
    "push-to-hub": Command("upload a trained agent to the Hugging Face Hub", RUNNER, "zoo", ("push-to-hub",)),
    "all-plots": Command("plot the evaluations of several runs", RUNNER, "zoo", ("all-plots",)),
    "plot-from-file": Command("plot results that all-plots has stored", RUNNER, "zoo", ("plot-from-file",)),
    "plot-train": Command("plot the returns of training", RUNNER, "zoo", ("plot-train",)),
}

if __name__ == "__main__":
    run_command("python -m sb3_dqn_ext.zoo", COMMANDS, sys.argv[1:])
