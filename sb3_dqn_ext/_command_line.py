"""The parts that the command lines of this package share: a table of commands, its help, and the choice of one command."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from sb3_dqn_ext._validation import choose
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError

__all__ = ["HELP_OPTIONS", "Command", "check_extra", "print_text", "run_command"]

HELP_OPTIONS = ("-h", "--help")
EXTRAS = {
    "zoo": ("rl_zoo3",),
    "plots": ("matplotlib", "pandas", "seaborn", "scipy", "yaml", "jinja2"),
    "onnx": ("onnx", "onnxruntime"),
    "ray": ("ray",),
    "submitit": ("submitit",),
}
"""the modules that each extra of the package installs"""


class Command(NamedTuple):
    """A command: one line of a table of commands."""

    summary: str
    """one line for the list of commands"""
    module: str
    """the module whose ``main(arguments, program)`` runs the command; it is imported when the command is run"""
    extra: str | None
    """the extra of the package that the command needs, of :data:`EXTRAS`; None: no extra"""
    arguments: tuple[str, ...] = ()
    """arguments in front of those of the user"""


def run_command(program: str, commands: Mapping[str, Command], arguments: list[str]) -> None:
    """
    Run the command that a command line names. Without a command, or with ``--help``, print the list of commands.

    A command that does not exist is reported on stderr, with the closest one that does; the exit code is 2.

    :param program: the name of the program, for help and errors
    :param commands: the commands by name; words are separated by hyphens, and the user may write underscores
    :param arguments: the name of a command and its own arguments
    """
    name, *rest = arguments or ["--help"]
    if name in HELP_OPTIONS:
        print_text(list_commands(program, commands))
        return
    name = name.replace("_", "-")
    try:
        command = choose("command", name, commands, otherwise=f"`{program} --help` describes them.")
    except ArgumentError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)
    if command.extra is not None:
        try:
            check_extra(f"{program} {name}", command.extra)
        except UnsupportedError as error:
            sys.exit(str(error))
    options = [hyphenate_option(argument) for argument in rest]
    importlib.import_module(command.module).main([*command.arguments, *options], f"{program} {name}")


def print_text(text: str) -> None:
    """
    Print a text. A reader such as ``head``, which ends before the text does, is no error.

    :param text: the text
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again when it exits


def list_commands(program: str, commands: Mapping[str, Command]) -> str:
    """
    Return the help of a program: its commands, with one line each.

    :param program: the name of the program
    :param commands: the commands by name
    :return: the text
    """
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in commands.items()]
    more = f"`{program} COMMAND --help` lists the arguments of a command, and shows an example."
    return "\n".join([f"usage: {program} COMMAND [ARGUMENT ...]", "", "commands:", *lines, "", more])


def missing_modules(extra: str) -> list[str]:
    """
    Return the modules of an extra that are not installed.

    :param extra: the extra of the package
    """
    return [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]


def check_extra(what: str, extra: str) -> None:
    """
    Check that the modules of an extra are installed.

    :param what: the feature that needs them, for the message
    :param extra: the extra of the package
    :raises UnsupportedError: if one of them is missing; the message contains the command that installs them
    """
    missing = missing_modules(extra)
    if missing:
        raise UnsupportedError(f"{what} needs {', '.join(missing)}: pip install 'sb3-dqn-ext[{extra}]'")


def hyphenate_option(argument: str) -> str:
    """
    Return an argument with hyphens in place of underscores if it is an option, such as ``--save_freq=100``.

    :param argument: a word of the command line; what follows ``=`` stays
    """
    option, equals, value = argument.partition("=")
    return option.replace("_", "-") + equals + value if option.startswith("--") else argument
