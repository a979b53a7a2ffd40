"""
Check that the project is written in plain technical English: ``python -m tests.words [FILE_OR_FOLDER ...]``.

It checks docstrings, comments and messages of Python files, pages of the documentation, comments of configurations, and the
template of the report. It lists sentences that a reader who is new to the project would have to read twice, and words about
the project's plans in published results.
"""

import ast
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.paths import ROOT

DOCSTRING_STARTS = re.compile(r"(?:Of|What|Who|Where|How)\b")
"""first words of a docstring that is neither an instruction nor a noun phrase with its article"""

PARAM_STARTS = re.compile(
    r"^[ \t]*(?::param [*\w]+:|:return:|:raises [\w.]+:)\s+(?:of|that|what|who|where|how)\b", re.MULTILINE
)
"""first words of the description of a parameter or a result that is not a noun phrase"""

PHRASES = {
    r"tells?|told|telling": "report, return, show",
    r"(?<!a )(?<!A )says?|said|saying": "state, define, print",
    r"asks?|asked|asking": "request, call, require",
    r"knows?|knew|knowing": "contain, detect, support",
    r"looks (?!like)|looking": "check, read, measure",
    r"lies|lay|lying": "is, is stored",
    r"stands?(?! for\b|-ins?\b)|stood|standing": "is, is written",
    r"speaks?|spoke|spoken": "print, warn",
    r"go(?:es|ing)? on|gone on|went on": "continue",
    r"without a word": "default, silently",
    r"in the box": "features",
    r"(?:replay )?memor(?:y|ies) of transitions|replay memor(?:y|ies)": "replay buffer",
    r"come around|came around|before your eyes": "say what happens",
    r"let .{1,40} be(?=,)": "keep, leave unchanged",
    r"anew": "again",
    r"of one's own|of its own|of their own|of your own": "its own, your own",
}
"""phrases that are not written, as regular expressions, and words to write in their place"""

PUBLISHED = {r"must|goals?|asked|reached": "a result, without what was hoped for"}
"""words that are not in published tables and pages of results"""


class Fault(NamedTuple):
    """A passage that is to be rewritten."""

    file: str
    line: int
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text!r}: {self.advice}"


def blanked(text: str) -> str:
    """Return a text of the same length and lines, of spaces."""
    return re.sub(r"[^\n]", " ", text)


def faults_of_phrases(file: str, line: int, text: str, phrases: dict[str, str] = PHRASES) -> Iterator[Fault]:
    """Find phrases in a text that begins in a line of a file. Code, formulas and links are not sentences."""
    prose = re.sub(r"``[^`]*``|`[^`\n]*`|\$\$.*?\$\$|https?://\S+", lambda match: blanked(match[0]), text, flags=re.DOTALL)
    for phrase, advice in phrases.items():
        for match in re.finditer(rf"\b(?:{phrase})\b", prose, re.IGNORECASE):
            yield Fault(file, line + text.count("\n", 0, match.start()), match[0], advice)


# -- Python ----------------------------------------------------------------------------------------------------------------


def text_of(statement: ast.stmt) -> str | None:
    """Return the text of a statement that is nothing but a text."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Find the docstrings of a module, its classes, functions and attributes, with their first lines."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if (text := text_of(statement)) is not None:
                yield statement.lineno, text


def messages(source: str) -> Iterator[tuple[int, str]]:
    """Find the other texts of a module that are sentences: messages of errors, labels, titles."""
    tree = ast.parse(source)
    in_docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and id(node) not in in_docstrings else None
        if isinstance(node, ast.Constant) and isinstance(text, str) and text.count(" ") > 1:
            yield node.lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Find the comments of a module, with their lines."""
    for token in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# type:", "# noqa")):
            yield token.start[0], token.string


def faults_of_module(file: str, source: str) -> Iterator[Fault]:
    """Find passages to rewrite in the docstrings, comments and messages of a module."""
    for line, text in docstrings(source):
        if DOCSTRING_STARTS.match(text.strip()):
            yield Fault(file, line, text.strip().split("\n")[0][:60], "begin with a verb or with a noun and its article")
        for match in PARAM_STARTS.finditer(text):
            advice = "begin with a noun and its article"
            yield Fault(file, line + text.count("\n", 0, match.start()), match[0].strip(), advice)
        yield from faults_of_phrases(file, line, text)
    for line, text in [*comments(source), *(() if file.startswith("tests/") else messages(source))]:
        yield from faults_of_phrases(file, line, text)


# -- other files -----------------------------------------------------------------------------------------------------------


def faults_of_page(file: str, text: str) -> Iterator[Fault]:
    """Find passages to rewrite in a page of the documentation."""
    without_code = re.sub(r"^```.*?^```", lambda code: blanked(code[0]), text, flags=re.MULTILINE | re.DOTALL)
    yield from faults_of_phrases(file, 1, without_code)
    if file.startswith(("docs/results/", "docs/tutorials/")) or file == "README.md":
        yield from faults_of_phrases(file, 1, without_code, PUBLISHED)


def faults_of_configuration(file: str, text: str) -> Iterator[Fault]:
    """Find passages to rewrite in the comments of a configuration or a Makefile."""
    for line, content in enumerate(text.splitlines(), 1):
        yield from faults_of_phrases(file, line, re.search(r"(?:^|\s)##?\s.*|$", content)[0])  # type: ignore[index]


def faults_of_template(file: str, text: str) -> Iterator[Fault]:
    """Find passages to rewrite in the sentences of a template of HTML."""
    tags = r"<style>.*?</style>|<[^>]*>|\{%.*?%\}|\{\{.*?\}\}"
    yield from faults_of_phrases(file, 1, re.sub(tags, lambda tag: blanked(tag[0]), text, flags=re.DOTALL))


CHECKS: dict[str, Callable[[str, str], Iterator[Fault]]] = {
    "*.py": faults_of_module,
    "*.md": faults_of_page,
    "*.yml": faults_of_configuration,
    "*.toml": faults_of_configuration,
    "Makefile": faults_of_configuration,
    "*.j2": faults_of_template,
}
"""the check of each kind of files"""


def faults(files: Sequence[str]) -> Iterator[Fault]:
    """Find passages to rewrite in files of the project."""
    for file in files:
        for pattern, check in CHECKS.items():
            if Path(file).match(pattern):
                yield from check(file, (ROOT / file).read_text())


def all_files() -> list[str]:
    """List the files of the project that are checked. This one contains the phrases themselves."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *CHECKS]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [file for file in files if file != "tests/words.py" and (ROOT / file).is_file()]


def main(arguments: list[str]) -> int:
    """
    Print the passages that are to be rewritten.

    :param arguments: files or folders, relative to the root of the project; by default all
    :return: the number of passages, at most 1: the exit code
    """
    chosen = [f for f in all_files() if not arguments or any(Path(f).is_relative_to(a) for a in arguments)]
    found = list(faults(chosen))
    print(*found, sep="\n")
    print(f"{len(found)} passages in {len(chosen)} files")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
