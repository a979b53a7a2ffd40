"""Check CITATION.cff: its keys are those of the Citation File Format 1.2."""

import re

import yaml

from sb3_dqn_ext import __version__
from tests.paths import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
REQUIRED = {"cff-version", "message", "title", "authors"}
OPTIONAL = {
    "abstract",
    "date-released",
    "doi",
    "keywords",
    "license",
    "references",
    "repository-code",
    "type",
    "url",
    "version",
}
PERSON, ENTITY = {"family-names", "given-names"}, {"name"}
REFERENCE = {"type", "title", "authors", "journal", "volume", "issue", "start", "end", "year", "url", "doi"}


def test_the_keys_are_those_of_the_format() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert REQUIRED <= CITATION.keys() <= REQUIRED | OPTIONAL
    assert CITATION["type"] in ("software", "dataset")
    for authors in (CITATION["authors"], *(reference["authors"] for reference in CITATION["references"])):
        assert authors
        assert all(author.keys() in (PERSON, ENTITY) for author in authors)
    for reference in CITATION["references"]:
        assert {"type", "title", "authors"} <= reference.keys() <= REFERENCE


def test_version_and_license_are_those_of_the_package() -> None:
    assert CITATION["version"] == __version__
    assert re.search(r'^license = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1] == CITATION["license"]  # type: ignore[index]
