"""Find blocks of code and commands in Markdown pages, and run the code as users would, each block in its own folder."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.paths import ROOT
from tests.processes import output, python

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

FENCE = re.compile(r"^(?:<!-- (?P<mark>.*?) -->\n)?^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)^```$", re.MULTILINE)

# each block runs in a new folder and a new namespace, as if it were a file
RUN = """
import json, os, sys, tempfile
with open("blocks.json") as file:
    blocks = json.load(file)
for where, text in blocks:
    print(where, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        exec(compile(text, where, "exec"), {"__name__": "__main__"})
        os.chdir(os.path.dirname(folder))
print("all")
"""


class Block(NamedTuple):
    """A block of code."""

    page: str
    line: int
    language: str
    mark: str
    """
    The comment before the block: ``not run: REASON``, ``takes minutes``, ``excerpt of FILE`` with a file of the repository,
    the name of the module that other blocks import, or nothing.
    """
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return not self.mark.startswith(("not run", "takes minutes", "excerpt of "))

    @property
    def is_module(self) -> bool:
        """Whether other blocks import the block as a module, whose name is its mark."""
        return self.runs and self.mark.endswith(".py")

    @property
    def source(self) -> Path | None:
        """The file that the block is an excerpt of."""
        return ROOT / self.mark.removeprefix("excerpt of ") if self.mark.startswith("excerpt of ") else None


def blocks(path: Path, language: str | None = None) -> list[Block]:
    """
    Find the blocks of code in a page.

    :param path: the page
    :param language: the language of the blocks; None: any
    """
    text = path.read_text()
    name = path.relative_to(ROOT).as_posix()
    found = [
        Block(name, text.count("\n", 0, match.start("text")), match["language"], match["mark"] or "", match["text"])
        for match in FENCE.finditer(text)
    ]
    return [block for block in found if language in (None, block.language)]


def table_rows(path: Path, head: str) -> list[list[str]]:
    """
    Read the cells of a table.

    :param path: a page
    :param head: the first columns of the head of one of its tables, such as ``"file"`` or ``"file | size"``
    """
    (table,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", path.read_text(), flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


class Command(NamedTuple):
    """A command line."""

    where: str
    words: list[str]
    is_whole: bool
    """Whether the command is complete; a command in a sentence can be abbreviated."""

    @property
    def module(self) -> str | None:
        """The module that Python runs."""
        runs_module = re.match(r"python3?$", Path(self.words[0]).name) and self.words[1:2] == ["-m"]
        return self.words[2] if runs_module else None


def commands(where: str, text: str, is_whole: bool = True) -> Iterator[Command]:
    """
    Find the commands in a shell script, without the environment variables that they set and the files that they write.

    :param where: the location of the script
    :param text: the script
    :param is_whole: see :class:`Command`
    """
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for part in re.split(r" && ", line):
            words = shlex.split(part.partition(" > ")[0], comments=True)
            while words and re.match(r"[A-Z_0-9]+=", words[0]):
                words = words[1:]
            if words[:1] == ["sb3-dqn-ext"]:
                words[:1] = ["python", "-m", "sb3_dqn_ext"]
            if words:
                yield Command(where, words, is_whole)


def write_modules(of_pages: Iterable[Block], folder: Path) -> None:
    """
    Write the modules that blocks import.

    :param of_pages: blocks, some of which have the name of a module before them
    :param folder: the folder of the modules
    """
    for block in of_pages:
        if block.is_module:
            (folder / block.mark).write_text(block.text)


def run_all(of_python: Iterable[Block], folder: Path) -> str:
    """
    Run blocks one after the other in one process, with warnings as errors, and return their output.

    :param of_python: the blocks
    :param folder: an empty folder for the process
    """
    of_python = list(of_python)
    write_modules(of_python, folder)
    scripts = [(block.where, block.text) for block in of_python if not block.is_module]
    (folder / "blocks.json").write_text(json.dumps(scripts))
    printed = output(python("-W", "error", "-c", RUN, cwd=folder, PYTHONPATH=str(folder)))
    assert printed.endswith("all\n")
    return printed
