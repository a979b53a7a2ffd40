"""HTML, in which whatever is not made here is text."""

import base64
import functools
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

__all__ = ["Html", "Section", "code", "data_url", "document", "element", "figure", "joined", "missing", "table", "together"]

T = TypeVar("T")

# Nothing but what is in the page is ever loaded or run, not even if markup of a run's files should get into it.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #8881; --soft: #888 }
* { box-sizing: border-box }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem }
h1 { margin: 0; line-height: 1.2 }
h2 { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: .75rem }
header p { color: var(--soft); margin: .25rem 0; overflow-wrap: anywhere }
nav a { margin-right: 1rem; white-space: nowrap }
code, pre { font: .875rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere }
pre { background: var(--faint); border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; white-space: pre-wrap }
pre.command { user-select: all }
table { border-collapse: collapse; margin: .5rem 0 }
th, td { border-bottom: 1px solid var(--line); padding: .25rem 1.25rem .25rem 0; text-align: left; vertical-align: top }
td { overflow-wrap: anywhere }
tbody th { font-weight: normal; white-space: nowrap }
figure { margin: 0 }
figcaption { padding: .25rem 0 }
img, video { background: #fff; border: 1px solid var(--line); border-radius: .4rem; display: block }
img, video { max-width: 100%; height: auto }
figure.chart img { width: 100% }
video { width: 30rem }
.charts { align-items: end; display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)) }
.wide { max-width: 58rem; margin: 1rem 0 }
.facts { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); margin: 0 }
.facts div { background: var(--faint); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .75rem }
.facts dt, .facts small { color: var(--soft); font-size: .875rem }
.facts dd { font-size: 1.3rem; margin: 0 } .facts small { display: block }
.missing { border-left: .25rem solid var(--line); color: var(--soft); overflow-wrap: anywhere; padding-left: .75rem }
summary { cursor: pointer }
@media (max-width: 40rem) { tbody th { white-space: normal; overflow-wrap: anywhere } }
"""


class Html(str):
    """What is markup already."""


class Section(NamedTuple):
    """Of the page."""

    name: str
    """the anchor to it"""
    title: str
    content: Html


def element(name: str, *children: str, **attributes: str) -> Html:
    """
    :param name: of the element
    :param children: what is in it; what is no :class:`Html` is text, and is escaped
    :param attributes: of the element; ``class_`` stands for ``class``, and what is in them is escaped
    """
    given = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    inside = "".join(child if isinstance(child, Html) else html.escape(child) for child in children)
    return Html(f"<{name}{given}>" if name in ("img", "meta", "link") else f"<{name}{given}>{inside}</{name}>")


def joined(parts: Iterable[Html]) -> Html:
    """One after the other."""
    return Html("\n".join(parts))


def together(make: Callable[[T], Iterable[Html]]) -> Callable[[T], Html]:
    """
    :param make: makes some parts
    :return: the same, as one
    """

    @functools.wraps(make)
    def made(of: T) -> Html:
        return joined(make(of))

    return made


def code(text: str, class_: str = "") -> Html:
    """
    :param text: some lines
    :param class_: ``command``: one click selects them
    """
    return element("pre", element("code", text), **({"class_": class_} if class_ else {}))


def table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Html:
    """
    :param head: of the columns
    :param rows: by what stands in front of them
    """
    lines = [
        element("tr", element("th", name, scope="row"), *(element("td", element("code", cell)) for cell in cells))
        for name, cells in rows.items()
    ]
    top = element("tr", *(element("th", name, scope="col") for name in head))
    return element("table", element("thead", top), element("tbody", joined(lines)))


def missing(what: str, why: str) -> Html:
    """
    :param what: is not shown
    :param why: in a sentence
    """
    return element("p", f"No {what}: {why}", class_="missing")


def data_url(kind: str, content: bytes) -> str:
    """
    :param kind: such as ``"image/png"``
    :param content: of the file
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(shown: Html, caption: str = "", class_: str = "") -> Html:
    """
    :param shown: a picture or a film
    :param caption: stands above it
    :param class_: how it is laid out
    """
    return element("figure", *([element("figcaption", caption)] if caption else []), shown, class_=class_)


def document(title: str, lines: Sequence[Html], sections: Sequence[Section], end: str) -> str:
    """
    :param title: of the page
    :param lines: stand below it
    :param sections: of the page, which gets links to them
    :param end: the last line
    """
    links = [element("a", section.title, href=f"#{section.name}") for section in sections]
    parts = [
        element("section", element("h2", section.title), Html("\n"), section.content, id=section.name) for section in sections
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),  # browsers ask for one
        element("title", title),
        element("style", Html(STYLE)),
    ]
    body = [
        element("header", element("h1", title), *lines, element("nav", joined(links), **{"aria-label": "Contents"})),
        element("main", joined(parts)),
        element("footer", element("p", element("small", end))),
    ]
    page = element("html", element("head", joined(head)), element("body", joined(body)), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"
