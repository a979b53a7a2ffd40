"""
A start-up hook that registers ``dqn_ext`` in the RL Zoo at the moment when the zoo is imported.

The zoo has no plugin mechanism. An installation copies this module to the top level, as ``_sb3_dqn_ext_hook``, and a ``.pth``
file imports it at every start of the interpreter. It therefore imports only ``os`` and ``sys``. The variable
``SB3_DQN_EXT_NO_HOOK=1`` turns the hook off; it then prints a hint before a command of the zoo refuses ``--algo dqn_ext``.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

# modules of the zoo in which the algorithm is registered after their import
HOOKED_MODULES = ("rl_zoo3.utils", "rl_zoo3.exp_manager", "rl_zoo3.hyperparams_opt")
# commands of the zoo that take --algo
COMMANDS_WITH_ALGO = ("train", "enjoy", "record_video", "record_training", "push_to_hub", "load_from_hub")


class ZooLoader:
    """
    A loader that registers the algorithm in a module of the zoo after the module was executed.

    :param loader: the loader that the import system found; it executes the module
    """

    def __init__(self, loader: "Any") -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        """
        Execute a module, and register the algorithm in it.

        :param module: the module, which keeps the loader that the import system found
        """
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register(module)


class ZooFinder:
    """A finder that delegates to the finders after it, and wraps the loaders of the modules in ``HOOKED_MODULES``."""

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """
        Find the spec of a hooked module.

        :param fullname: the name of the module that is imported
        :param path: the search path of its parent package
        :param target: the module that is reloaded, or None
        :return: the spec with a :class:`ZooLoader`, or None for any other module
        """
        if fullname not in HOOKED_MODULES:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = ZooLoader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


def install() -> None:
    """Insert a :class:`ZooFinder` in front of the other finders, unless there is one already."""
    if not any(isinstance(finder, ZooFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, ZooFinder())


def _register(module: "ModuleType") -> None:
    try:
        from sb3_dqn_ext.zoo.registration import register

        register(module)
    except Exception as error:
        # This runs during the import of rl_zoo3, whose other algorithms must continue to work.
        import warnings

        warnings.warn(f"dqn_ext could not be added to {module.__name__}: {error!r}", stacklevel=2)


def find_refused_command(program: str, arguments: "list[str]") -> str:
    """
    Find the zoo's command on a command line with ``--algo dqn_ext``. The zoo refuses this command while the hook is off. The
    caller checks that the hook is off.

    :param program: the module after ``-m``, such as ``"rl_zoo3.train"``, or the path of a script, such as ``"bin/rl_zoo3"``
    :param arguments: the arguments after the program on the command line
    :return: the name of the command, such as ``"train"``; "" for any other command line
    """
    package, _, command = os.path.basename(program).partition(".")
    if command in ("", "cli"):
        command = "".join(arguments[:1])
    has_our_algo = " --algo dqn_ext " in f" {' '.join(arguments)} ".replace("=", " ")
    return command if package == "rl_zoo3" and command in COMMANDS_WITH_ALGO and has_our_algo else ""


if __name__ == "_sb3_dqn_ext_hook":
    if os.environ.get("SB3_DQN_EXT_NO_HOOK") != "1":
        install()
    # With -m, sys.argv does not yet contain the module's name; its length gives the name's position in sys.orig_argv.
    elif _command := find_refused_command("".join(sys.orig_argv[-len(sys.argv) :][:1]), sys.argv[1:]):
        print(
            "SB3_DQN_EXT_NO_HOOK=1 keeps dqn_ext from the commands of the RL Zoo. "
            f"Unset it, or run: python -m sb3_dqn_ext.zoo {_command} ...",
            file=sys.stderr,
        )
