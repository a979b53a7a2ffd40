"""Build the site of the documentation, and check that it is complete and works in a browser without a network."""

import hashlib
import html
import importlib
import inspect
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page

from tests.pages import DOCS, PAGES
from tests.paths import ROOT
from tests.processes import Process, output, python
from tests.tensorboard_pages import browser, opened, started

pytestmark = pytest.mark.xdist_group("site")
in_browser = pytest.mark.skipif(browser() is None, reason="there is no browser: on Debian, apt-get install chromium")
DOCUMENTED = [
    "sb3_dqn_ext.callbacks",
    "sb3_dqn_ext.envs",
    "sb3_dqn_ext.plot",
    "sb3_dqn_ext.networks.policies",
    "sb3_dqn_ext.replay",
    "sb3_dqn_ext.report",
    "sb3_dqn_ext.algorithm.schedules",
    "sb3_dqn_ext.vec_env",
]


def build(project: Path, folder: Path) -> Process:
    """Build the site as `make docs` does."""
    return python("-m", "mkdocs", "build", "--strict", "-d", str(folder), cwd=project, NO_MKDOCS_2_WARNING="1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site. A broken link or anchor inside of it, and a page that is not in the menu, are errors."""
    folder = tmp_path_factory.mktemp("site")
    output(build(ROOT, folder))
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with started() as chromium:
        yield chromium


def pages_of(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if path.name != "404.html")  # which needs a server


def text_of(path: Path) -> str:
    return html.unescape(path.read_text())


# -- files -----------------------------------------------------------------------------------------------------------------


def test_the_site_has_every_page_and_loads_nothing_from_other_sites(site: Path) -> None:
    found = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert found >= {re.sub(r"(README)?\.md$", "", page) + ("index" * page.endswith("README.md")) + ".html" for page in PAGES}
    assert "contributing.html" in found
    for path in site.rglob("*.html"):
        loaded_from = re.findall(
            r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\"\s>]+)|<link\b[^>]*href=\"?([^\"\s>]+)", text_of(path)
        )
        assert not [url for urls in loaded_from for url in urls if re.match(r"(https?:)?//", url)], path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\"?(https?:)?//", path.read_text()), path


def test_the_style_of_formulas_has_all_its_fonts_and_its_licence(site: Path) -> None:
    fonts = re.findall(r"url\(([^)]+)\)", (site / "katex/katex.min.css").read_text())
    assert len(fonts) == 20
    for font in [*fonts, "LICENSE"]:
        assert (site / "katex" / font).is_file(), font
    version = "fa140498"  # the beginning of the SHA-256 of KaTeX 0.19.1, so that no tool rewrites it
    assert hashlib.sha256((DOCS / "katex/katex.min.js").read_bytes()).hexdigest().startswith(version)


@pytest.mark.parametrize("module", DOCUMENTED)
def test_every_public_class_and_function_is_in_the_reference(module: str, site: Path) -> None:
    anchors = set(re.findall(r'id="([\w.]+)"', "".join(text_of(path) for path in site.rglob("*.html"))))
    assert "sb3_dqn_ext.DQNExt" in anchors
    public = importlib.import_module(module)
    for name in public.__all__:
        if inspect.isclass(getattr(public, name)) or inspect.isfunction(getattr(public, name)):
            assert f"{module}.{name}" in anchors, name


def test_the_roles_of_docstrings_are_links(site: Path) -> None:
    page = text_of(site / "diagnostics.html")
    assert re.search(r'<a [^>]*href="#sb3_dqn_ext.callbacks.QValuesCallback"[^>]*><code>QValuesCallback</code></a>', page)
    for path in site.rglob("*.html"):
        assert not re.search(r":(class|func|meth|mod|data):`", text_of(path)), path


def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[a](#nowhere) and [b](nothing.md)\n")
    validation = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.SafeLoader)["validation"]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump({"site_name": "x", "validation": validation, "plugins": []}))
    process = build(tmp_path, tmp_path / "site")
    assert process.returncode != 0
    assert "'#nowhere', but there is no such anchor" in process.stderr
    assert "'nothing.md', but the target is not found" in process.stderr


# -- the picture of a training ---------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (https://www.w3.org/TR/WCAG21/#dfn-relative-luminance)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_picture_is_drawn_by_its_script_and_can_be_seen_on_light_and_dark_pages() -> None:
    script = runpy.run_path(str(DOCS / "site_tools/draw_training.py"))
    drawing = script["drawing"]()
    assert drawing == (DOCS / "images/training.svg").read_text()
    fills = set(re.findall(r'<rect [^>]*fill="(#\w+)"', drawing))
    assert len(fills) == 3
    for fill in fills:
        assert contrast(fill, "#ffffff") >= 4.5, "the text is white"
    for page in ("#ffffff", "#1e2129"):
        assert contrast(script["ARROW"], page) >= 3, page


# -- in a browser ----------------------------------------------------------------------------------------------------------

SCROLLED = """
() => [...document.querySelectorAll("pre, pre code")]
    .filter(block => block.scrollWidth > block.clientWidth)
    .map(block => block.textContent)
"""


@in_browser
def test_no_block_of_code_is_scrolled_and_all_formulas_are_rendered_without_a_network(site: Path, chromium: Browser) -> None:
    loaded: list[str] = []
    messages: list[str] = []

    def prepare(page: Page) -> None:
        page.set_viewport_size({"width": 1200, "height": 900})
        page.context.set_offline(True)
        page.on("request", lambda request: loaded.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))

    n_blocks = n_formulas = 0
    with opened(chromium, (site / "index.html").as_uri(), prepare) as page:
        for path in pages_of(site):
            page.goto(path.as_uri())
            assert page.evaluate(SCROLLED) == [], path
            n_blocks += page.locator("pre code").count()
            formulas = page.locator(".arithmatex").count()
            assert page.locator(".arithmatex > .katex, .arithmatex > .katex-display").count() == formulas, path
            assert page.locator(".katex-error").count() == 0, path
            n_formulas += formulas
    assert n_blocks > 40
    assert n_formulas > 50
    assert {url.partition(":")[0] for url in loaded} <= {"file", "data"}
    assert messages == []


@in_browser
def test_formulas_have_the_fonts_of_katex(site: Path, chromium: Browser) -> None:
    with opened(chromium, (site / "choices.html").as_uri()) as page:
        page.evaluate("document.fonts.ready.then(() => null)")
        assert page.evaluate("document.fonts.check('16px KaTeX_Main') && document.fonts.check('italic 16px KaTeX_Math')")


@in_browser
def test_the_first_page_shows_pictures(site: Path, chromium: Browser) -> None:
    with opened(chromium, (site / "index.html").as_uri()) as page:
        widths = page.locator("article img").evaluate_all("pictures => pictures.map(picture => picture.naturalWidth)")
        assert len(widths) == 2
        assert min(widths) > 500
