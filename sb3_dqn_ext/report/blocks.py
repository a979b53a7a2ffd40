"""The blocks of a page, as plain data. ``report.html.j2`` has a macro for each kind of block."""

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
    """An image, and a text for users who cannot see it."""

    url: str
    alt: str


class Video(NamedTuple):
    """A video and its description."""

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
    """Whether the paragraph is printed in small type."""


@dataclass(frozen=True)
class Missing(Block):
    """A sentence in place of a part that cannot be shown."""

    what: str
    """The name of the part."""
    why: str
    """The reason."""


@dataclass(frozen=True)
class Code(Block):
    """Lines of text in a fixed-width font."""

    text: str
    is_command: bool = False
    """Whether one click selects all of the text."""


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
    """A table that can be collapsed."""

    summary: str
    table: Table
    is_open: bool


@dataclass(frozen=True)
class Picture(Block):
    """An image or a video below its caption."""

    media: Image | Video
    caption: str = ""
    layout: str = ""
    """The CSS class: ``"wide"``, ``"chart"``, or empty."""


@dataclass(frozen=True)
class Charts(Block):
    """Small images beside each other."""

    pictures: Sequence[Picture | Missing]


class Section(NamedTuple):
    """A section of a page."""

    name: str
    """The heading, and the anchor of links to the section."""
    blocks: Sequence[Block]


def data_url(media_type: str, content: bytes) -> str:
    """
    Return a ``data:`` URL that contains a file.

    :param media_type: the media type, such as ``"image/png"``
    :param content: the bytes of the file
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
