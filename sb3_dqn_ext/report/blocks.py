"""What a page consists of, as plain data: ``report.html.j2`` has a macro for each kind of block."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "Block",
    "Charts",
    "Code",
    "Details",
    "Fact",
    "Facts",
    "Heading",
    "Image",
    "Missing",
    "Picture",
    "Section",
    "Table",
    "Text",
    "Video",
    "data_url",
]


class Fact(NamedTuple):
    """A number of the summary."""

    name: str
    value: str
    note: str


class Image(NamedTuple):
    """A picture, and a description of it for those who cannot see it."""

    url: str
    alt: str


class Video(NamedTuple):
    """A film, and a description of it."""

    url: str
    label: str


class Block:
    """A part of a section."""

    @property
    def kind(self) -> str:
        """The name of the macro that renders the block."""
        return type(self).__name__


@dataclass(frozen=True)
class Heading(Block):
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Text(Block):
    """A paragraph."""

    text: str
    is_note: bool = False
    """whether it is set in small type"""


@dataclass(frozen=True)
class Missing(Block):
    """A sentence in place of a part that cannot be shown."""

    what: str
    why: str


@dataclass(frozen=True)
class Code(Block):
    """Lines of text in a fixed-width font."""

    text: str
    is_command: bool = False
    """whether one click selects all of it"""


@dataclass(frozen=True)
class Facts(Block):
    """Numbers on cards."""

    facts: Sequence[Fact]


@dataclass(frozen=True)
class Table(Block):
    """A table; the first cell of a row is its name."""

    head: Sequence[str]
    rows: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Details(Block):
    """A table that can be folded."""

    summary: str
    table: Table
    is_open: bool


@dataclass(frozen=True)
class Picture(Block):
    """A picture or a film below its caption."""

    media: Image | Video
    caption: str = ""
    layout: str = ""
    """``"wide"``, ``"chart"``, or empty"""


@dataclass(frozen=True)
class Charts(Block):
    """Small pictures beside each other."""

    pictures: Sequence[Picture | Missing]


class Section(NamedTuple):
    """A section of a page."""

    name: str
    """the anchor of the links to it"""
    blocks: Sequence[Block]


def data_url(media_type: str, content: bytes) -> str:
    """
    :param media_type: such as ``"image/png"``
    :param content: the bytes of a file
    :return: a URL that holds the file
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
