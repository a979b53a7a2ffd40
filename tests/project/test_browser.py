"""Check in a real browser that TensorBoard draws the values that our runs log, and that reports are complete."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from torch.utils.tensorboard import SummaryWriter

from sb3_dqn_ext.plot.run_files import scalars
from tests.paths import ROOT
from tests.processes import output, python
from tests.tensorboard_pages import (
    PAGES,
    await_that,
    browser,
    chart,
    colours,
    is_drawn,
    n_coloured,
    opened,
    reported,
    row,
    save,
    save_report,
    started,
    tab,
    tensorboard,
)
from tests.tensorboard_runs import NAMES

pytestmark = [
    pytest.mark.skipif(browser() is None, reason="there is no browser: on Debian, apt-get install chromium"),
    pytest.mark.xdist_group("browser"),  # one TensorBoard and one browser for all
]
STEPS = 1600


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the logs of two runs, and of a third one with a chart for a tag that is not logged."""
    folder = tmp_path_factory.mktemp("runs")
    output(python("-m", "tests.tensorboard_runs", str(folder), str(STEPS), cwd=ROOT, SDL_VIDEODRIVER="dummy"))
    with SummaryWriter(folder / "logs" / "other") as writer:
        writer.add_custom_scalars({"other": {"nothing": ["Multiline", ["nothing$"]]}})
    return folder / "logs"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with started() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def page(logs: Path, chromium: Browser) -> Iterator[Page]:
    """TensorBoard, opened once and never reloaded."""
    with tensorboard(logs) as url, opened(chromium, url) as page:
        yield page


@pytest.mark.parametrize("name", PAGES)
def test_our_charts_are_drawn(name: str, page: Page, tmp_path: Path) -> None:
    assert save(page, name, tmp_path).stat().st_size > 10_000


def test_the_table_compares_the_runs_by_their_final_score(page: Page, logs: Path) -> None:
    tab(page, "hparams")
    for name, steps in zip(NAMES, ("1.0000", "3.0000"), strict=True):
        cells = row(page, name)
        assert cells["n_steps"] == steps
        logged = scalars(logs / name)
        for score, of_all in (("best", np.max), ("final", lambda values: values[-1])):
            expected = of_all(logged["eval/mean_reward"].values)
            assert float(cells[f"achieved/{score}_return"]) == pytest.approx(expected, rel=1e-3)


def test_a_chart_without_values_does_not_count_as_drawn(page: Page) -> None:
    tab(page, "custom scalars")
    empty = chart(page, "nothing")
    empty.wait_for()
    assert not is_drawn(empty)
    grid = np.full((100, 100, 3), 255, np.uint8)
    grid[::10] = 180
    assert n_coloured(grid) == 0
    grid[50, :, 0] = 90
    assert n_coloured(grid) == 100


def test_a_report_is_complete_without_a_network(chromium: Browser, tmp_path: Path) -> None:
    path = reported(tmp_path, 800)
    requests: list[str] = []
    messages: list[str] = []

    def prepare(page: Page) -> None:
        page.context.set_offline(True)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))

    with opened(chromium, path.as_uri(), prepare) as page:
        pictures = page.locator("img").all()
        assert len(pictures) > 20
        for picture in pictures:
            alt = picture.get_attribute("alt")
            await_that(lambda one=picture: one.evaluate("one => one.naturalWidth") > 100, f"{alt} is loaded")  # type: ignore[misc]
        for i in (0, len(pictures) // 2, len(pictures) - 1):
            assert colours(pictures[i]) > 100, pictures[i].get_attribute("alt")
        film = page.locator("video")
        await_that(lambda: film.evaluate("film => film.readyState") >= 1, "the film is loaded")
        assert film.evaluate("film => film.duration") > 0.1
        assert film.evaluate("film => film.videoWidth") == 320
        page.get_by_role("navigation").get_by_role("link", name="Versions").click()
        assert page.evaluate("location.hash") == "#versions"
        page.set_viewport_size({"width": 380, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 380, "nothing is cut off in a narrow window"
        page.goto(path.as_uri())
        assert save_report(page, tmp_path).stat().st_size > 10_000
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()] * 2
    assert messages == []
