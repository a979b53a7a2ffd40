"""
What the reference needs beyond mkdocstrings: docstrings are in the style of SB3, whose roles and literal blocks are those of
reStructuredText; and envs/ lies beside the package, which takes it in when it is imported.
"""

import re
from typing import Any

from griffe import Extension, GriffeLoader, Module, Object

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(?P<short>~?)(?P<target>[^`]+)`", re.DOTALL)
BLOCK = re.compile(r"::(?=\n\n {4})")
PACKAGE = "sb3_dqn_ext"


def linked(match: re.Match[str], scope: str) -> str:
    """
    :param match: of a role
    :param scope: the path of the object whose docstring it is
    :return: a link to what it names, if the site has it, else its name
    """
    target = match["target"]
    shown = target.rpartition(".")[2] if match["short"] else target
    if not target.startswith((PACKAGE, "stable_baselines3")):
        target = f"{scope.rpartition('.')[0]}.{target}"
    return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'


class Docstrings(Extension):
    """Rewrites every docstring."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """
        :param pkg: a package that was read
        :param loader: what reads more
        """
        if pkg.path == PACKAGE:
            pkg.set_member("envs", loader.load("envs"))

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """
        :param obj: a module, class, function or attribute
        """
        if obj.docstring is not None:
            text = ROLE.sub(lambda match: linked(match, obj.path), obj.docstring.value)
            obj.docstring.value = BLOCK.sub(":", text)
