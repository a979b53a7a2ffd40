"""Test the check of words: each pattern finds a bad sentence, and good sentences pass."""

import re

import pytest

from tests.words import (
    CHECKS,
    PHRASES,
    PUBLISHED,
    Fault,
    all_files,
    faults_of_configuration,
    faults_of_module,
    faults_of_page,
    faults_of_phrases,
    faults_of_template,
)

BAD = [
    "The sampler is told the TD errors.",
    "The file says which version wrote it.",
    "The buffer asks the sampler for indices.",
    "The model knows the schedule.",
    "A callback looks at the weights.",
    "The arrays lie, or more often: one lies beside the other.",
    "The process id stands in the file.",
    "The error speaks of the environment.",
    "The run went on after the kill.",
    "Without a word, all bits are those of SB3.",
    "These parts are in the box.",
    "The replay memory is empty.",
    "This happens before your eyes.",
    "Let the buffer be, unless it is full.",
    "The function is compiled anew.",
    "Each environment has a generator of its own.",
]
"""a sentence for each pattern, in the same order"""

GOOD = [
    "Return the number of stored transitions.",
    "A sampler that draws every transition with the same probability.",
    "The error contains the name of the argument and the allowed values.",
    "The layers of the network are listed once; a layer is frozen.",
    "An id of the form ``dqn_ext/NAME`` stands for an environment.",
    "Continue a run from the newest checkpoint.",
    "See https://example.org/what-the-file-says and `told`, ``asked`` and ``go on``.",
    "The memory of the GPU is full, and so is the disk of the machine.",
    "Each environment has its own generator.",
    "It looks like a transition, but the next state is missing.",
    "A stand-in of the environment.",
    "The target is $$\nsays\n$$ here.",
]


def texts(faults: object) -> list[str]:
    return [fault.text for fault in faults if isinstance(fault, Fault)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("pattern", "sentence"), list(zip(PHRASES, BAD, strict=True)), ids=BAD)
def test_each_pattern_finds_its_bad_sentence_and_is_needed_for_it(pattern: str, sentence: str) -> None:
    (fault,) = faults_of_phrases("module.py", 7, sentence)
    assert re.match(pattern, sentence[sentence.index(fault.text) :], re.IGNORECASE)
    assert fault.line == 7
    assert fault.advice == PHRASES[pattern]


@pytest.mark.parametrize("sentence", GOOD)
def test_good_sentences_pass(sentence: str) -> None:
    assert texts(faults_of_phrases("module.py", 1, sentence)) == []


@pytest.mark.parametrize("start", ["Of", "What", "Who", "Where", "How"])
def test_a_docstring_begins_with_a_verb_or_a_noun(start: str) -> None:
    (fault,) = faults_of_module("module.py", f'def f():\n    """{start} it is."""\n')
    assert (fault.line, fault.text) == (2, f"{start} it is.")
    assert texts(faults_of_module("module.py", f'def f():\n    """A function: {start.lower()} it is."""\n')) == []


@pytest.mark.parametrize("field", [":param x:", ":param \\*args:", ":return:", ":raises ValueError:"])
@pytest.mark.parametrize("start", ["of", "that", "what", "who", "where", "how"])
def test_a_parameter_is_described_by_a_noun(field: str, start: str) -> None:
    field = field.replace("\\", "")
    (fault,) = faults_of_module("module.py", f'"""\nReturn it.\n\n{field} {start} it is\n"""\n')
    assert (fault.line, fault.text) == (4, f"{field} {start}")
    assert texts(faults_of_module("module.py", f'"""\nReturn it.\n\n{field} the number {start} it is\n"""\n')) == []


SOURCE = '''
"""A module."""

x = 1
"""the number that is told"""


def f() -> None:
    """Raise an error."""
    y = "said"  # a key, which is no sentence; this comment knows it
    raise ValueError(f"The model asks for {y} and more.")
'''


def test_docstrings_comments_and_messages_are_checked_with_their_lines() -> None:
    assert [(fault.line, fault.text) for fault in faults_of_module("package/module.py", SOURCE)] == [
        (5, "told"),
        (10, "knows"),
        (11, "asks"),
    ]
    assert texts(faults_of_module("tests/test_module.py", SOURCE)) == ["told", "knows"]


def test_sentences_of_a_page_are_checked_and_its_code_is_not() -> None:
    page = "# A page\n\n```python\nasked = told\n```\n\nIt was asked.\n"
    assert [(fault.line, fault.text) for fault in faults_of_page("docs/page.md", page)] == [(7, "asked")]
    assert texts(faults_of_page("docs/page.md", "It reached the goal.")) == []


@pytest.mark.parametrize("word", ["must", "goal", "goals", "asked", "reached"])
@pytest.mark.parametrize("file", ["docs/results/speed.md", "docs/tutorials/one.md", "README.md"])
def test_published_results_do_not_mention_plans(file: str, word: str) -> None:
    assert word in texts(faults_of_phrases(file, 1, f"The {word} value.", PUBLISHED))
    assert word in texts(faults_of_page(file, f"The {word} value."))


def test_comments_of_configurations_are_checked_and_their_values_are_not() -> None:
    text = "# it asks\nkey: told  # it knows\nurl: a#said\nhelp:  ## it goes on\n"
    found = [(fault.line, fault.text) for fault in faults_of_configuration("mkdocs.yml", text)]
    assert found == [(1, "asks"), (2, "knows"), (4, "goes on")]


def test_sentences_of_a_template_are_checked_and_its_tags_are_not() -> None:
    text = '<style>.told { color: red }</style>\n<p class="said">It {{ run.asked }} says {% if known %}\nanew{% endif %}</p>'
    assert [(fault.line, fault.text) for fault in faults_of_template("report.html.j2", text)] == [(2, "says"), (3, "anew")]


def test_files_of_each_kind_are_found() -> None:
    files = all_files()
    assert "tests/words.py" not in files
    for kind in ("tests/project/test_words.py", "README.md", "mkdocs.yml", "pyproject.toml", "Makefile"):
        assert kind in files
    assert any(file.endswith(".j2") for file in files)
    assert len(CHECKS) == 6
