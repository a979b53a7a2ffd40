"""
An extension of mkdocstrings for the reference. Docstrings have the style of SB3, with roles and literal blocks of
reStructuredText. And ``envs/`` is a folder beside the package, which becomes its subpackage when the package is imported.
"""

import html
import re
from typing import Any

from griffe import Extension, GriffeLoader, Module, Object

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(?P<short>~?)(?P<target>[^`]+)`", re.DOTALL)
BLOCK = re.compile(r"::(?=\n\n {4})")
PACKAGE = "sb3_dqn_ext"


def linked(match: re.Match[str], scope: str) -> str:
    """
    Make a link of a role.

    :param match: the match of a role
    :param scope: the path of the object with the docstring
    :return: a link to the object that the role names, or its name if the site does not contain it
    """
    target = match["target"]
    shown = target.rpartition(".")[2] if match["short"] else target
    if not target.startswith((PACKAGE, "stable_baselines3")):
        target = f"{scope.rpartition('.')[0]}.{target}"
    # underscores would be read as emphasis
    name = html.escape(shown).replace("_", "&#95;")
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'


class Docstrings(Extension):
    """An extension that rewrites every docstring."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """
        Add ``envs/`` to our package.

        :param pkg: a package that was read
        :param loader: the reader of packages
        """
        if pkg.path == PACKAGE:
            pkg.set_member("envs", loader.load("envs"))

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """
        Rewrite the docstring of an object.

        :param obj: a module, class, function or attribute
        """
        if obj.docstring is not None:
            text = ROLE.sub(lambda match: linked(match, obj.path), obj.docstring.value)
            obj.docstring.value = BLOCK.sub(":", text)
