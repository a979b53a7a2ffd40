"""
Make ``dqn_ext`` known to the RL Zoo, at the moment the zoo is imported and not before.

The zoo has no plugin mechanism. An installation moves this module to the top level, as ``_sb3_dqn_ext_hook``, and puts a
``.pth`` file beside it that imports it at every start of the interpreter. It therefore imports nothing but ``os`` and ``sys``,
only waits for three modules of the zoo, and stays away when ``SB3_DQN_EXT_NO_HOOK=1``: then it says how to go on where the
zoo is about to refuse ``--algo dqn_ext``.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

HOOKED_MODULES = ("rl_zoo3.utils", "rl_zoo3.exp_manager", "rl_zoo3.hyperparams_opt")
COMMANDS_WITH_ALGO = (
    "train",
    "enjoy",
    "record_video",
    "record_training",
    "push_to_hub",
    "load_from_hub",
)  # commands of the zoo


class ZooLoader:
    """
    The loader of a module of the zoo, which tells us once the module has run.

    :param loader: the loader that the import system found; it does all the work
    """

    def __init__(self, loader: "Any") -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        """
        :param module: the module to run, and then to tell of us
        """
        # from here on the module looks as if we had never been here
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register(module)


class ZooFinder:
    """Finds nothing itself: for the modules it waits for it asks the finders behind it, and wraps the loader they name."""

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """
        :param fullname: the module that is being imported
        :param path: where its parent package lies
        :param target: the module that is being reloaded, if any
        :return: its spec, or None if it is none of ours
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
    """Put one finder in front of the others, unless it is there already."""
    if not any(isinstance(finder, ZooFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, ZooFinder())


def _register(module: "ModuleType") -> None:
    try:
        from sb3_dqn_ext.zoo.registration import register

        register(module)
    except Exception as error:
        # This runs inside the import of another package, whose other algorithms must go on working without us.
        import warnings

        warnings.warn(f"dqn_ext could not be added to {module.__name__}: {error!r}", stacklevel=2)


def find_refused_command(program: str, arguments: "list[str]") -> str:
    """
    :param program: the module after ``-m``, or the path of a script
    :param arguments: what follows it on the command line
    :return: the command of the zoo that will say it knows no ``dqn_ext``, or "" if this is none
    """
    package, _, command = os.path.basename(program).partition(".")
    if command in ("", "cli"):
        command = "".join(arguments[:1])
    asked_for_us = " --algo dqn_ext " in f" {' '.join(arguments)} ".replace("=", " ")
    return command if package == "rl_zoo3" and command in COMMANDS_WITH_ALGO and asked_for_us else ""


if __name__ == "_sb3_dqn_ext_hook":
    if os.environ.get("SB3_DQN_EXT_NO_HOOK") != "1":
        install()
    # after -m, sys.argv does not name the module yet, but it holds as many arguments as follow it
    elif _command := find_refused_command("".join(sys.orig_argv[-len(sys.argv) :][:1]), sys.argv[1:]):
        print(
            "SB3_DQN_EXT_NO_HOOK=1 keeps dqn_ext from the commands of the RL Zoo. "
            f"Unset it, or run: python -m sb3_dqn_ext.zoo {_command} ...",
            file=sys.stderr,
        )
