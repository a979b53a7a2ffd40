"""
TensorBoard in a real browser: every page is opened, and is there once our charts are drawn. So is the report of a run.
``python -m tests.tensorboard_pages FOLDER`` trains, and saves a picture of each page;
``python -m tests.tensorboard_pages FOLDER LOGS`` saves a picture of the curves of runs that have ended.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from sb3_dqn_ext.callbacks.tensorboard import FINAL
from sb3_dqn_ext.plot.run_files import scalars
from tests.paths import ROOT
from tests.processes import output, python
from tests.tensorboard_runs import NAMES

TIMEOUT = 60.0  # seconds, of a busy machine
WIDTH, HEIGHT, HEIGHT_OF_IMAGES = 1600, 900, 1350
STEPS = 20_000


# -- the machinery ---------------------------------------------------------------------------------------------------------


def browser() -> str | None:
    """Return the path of an installed Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def await_that(condition: Callable[[], Any], what: str) -> None:
    """
    :param condition: called repeatedly
    :param what: the description of the condition, for the message
    """
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"Not within {TIMEOUT:g} s: {what}"
        time.sleep(0.1)


@contextmanager
def tensorboard(folder: Path, names: Sequence[str] = NAMES) -> Iterator[str]:
    """
    :param folder: the folder of the logs of runs that have ended
    :param names: their names
    :return: the address of a TensorBoard on this machine that has read all of them
    """
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name, "--host", "127.0.0.1", "--port", "0"]
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command,
            cwd=folder.parent,  # what is shown is the name of the folder
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def address() -> str | None:
            assert process.poll() is None, said()
            found = re.search(r"TensorBoard \S+ at (http://127\.0\.0\.1:\d+)/", said())
            return found[1] if found else None

        def said() -> str:
            printed.seek(0)
            return printed.read()

        try:
            await_that(address, "TensorBoard runs")
            url = str(address())
            await_that(lambda: has_read(url, folder, names), "TensorBoard has read the logs")
            yield url
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(TIMEOUT)


def has_read(url: str, logs: Path, names: Sequence[str]) -> bool:
    """Return whether TensorBoard has read the last scores and the films of the runs. Scores are logged during a run, too."""

    def get(path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{url}/data/plugin/{path}?{urllib.parse.urlencode(query)}", timeout=TIMEOUT) as answer:
            return json.load(answer)

    tags, images = get("scalars/tags"), get("images/tags")
    if not all(FINAL in tags.get(name, {}) and "video/episode" in images.get(name, {}) for name in names):
        return False
    last = [max(step for _, step, _ in get("scalars/scalars", run=name, tag=FINAL)) for name in names]
    return last == [scalars(logs / name)[FINAL].steps[-1] for name in names]


@contextmanager
def started() -> Iterator[Browser]:
    """Open a browser. Playwright can drive one at a time."""
    with sync_playwright() as playwright:
        # as root, which continuous integration is, Chromium has no sandbox
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def opened(chromium: Browser, url: str, prepare: Callable[[Page], object] = lambda page: None) -> Iterator[Page]:
    """
    :param chromium: a browser
    :param url: an address
    :param prepare: called before it is opened
    :return: the page
    """
    page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    page.set_default_timeout(1000 * TIMEOUT)
    expect.set_options(timeout=1000 * TIMEOUT)
    prepare(page)
    page.goto(url)
    yield page
    page.close()


# -- what is drawn ---------------------------------------------------------------------------------------------------------


def colours(chart: Locator) -> int:
    """Count the pixels of an element that are neither white, grey nor black."""
    from PIL import Image

    return n_coloured(np.asarray(Image.open(io.BytesIO(chart.screenshot())).convert("RGB")))


def n_coloured(picture: npt.NDArray[np.uint8]) -> int:
    """
    :param picture: (H, W, 3)
    """
    return int(np.count_nonzero(np.ptp(picture.astype(int), axis=2) > 30))  # the first run is drawn in a dark blue


def lines(chart: Locator) -> list[int]:
    """
    :param chart: an element with an SVG picture
    :return: the number of points on each visible line
    """
    drawn = chart.locator("svg path").evaluate_all(
        """paths => paths.map(path => [path.getAttribute("d") || "", path.getBoundingClientRect().width])"""
    )
    shapes = [path for path, width in drawn if width > 20 and "NaN" not in path]  # symbols are smaller
    return [len(re.findall(r"[ML]", path)) for path in shapes]


def tab(page: Page, name: str) -> None:
    """
    :param page: a page of TensorBoard
    :param name: the name of the page to open
    """
    page.get_by_role("tab", name=name).click()


# -- the pages -------------------------------------------------------------------------------------------------------------


TAGS = ("calibration/bias", "errors/abs_mean", "eval/mean_reward", "network/dormant", "values/action_gap", "values/mean")


def time_series(page: Page, tags: Sequence[str] = TAGS) -> None:
    """Open the page with all numbers, as a line for each run."""
    tab(page, "Time Series")
    page.get_by_role("checkbox", name="Ignore outliers").uncheck()  # of so few points
    page.locator("metrics-main-view").get_by_role("button", name="Settings").click()  # closes them
    wanted = page.get_by_role("combobox", name="Filter tags (regex)")
    wanted.fill("|".join(f"{tag}$" for tag in tags))
    wanted.press("Escape")  # it offers to complete what is written
    cards = page.locator("metrics-filtered-view scalar-card")
    expect(cards).to_have_count(len(tags))
    for tag in tags:
        card = cards.filter(has=page.locator(f'[title="{tag}"]'))
        card.scroll_into_view_if_needed()
        await_that(lambda card=card: colours(card.locator("canvas")) > 100, f"{tag} is drawn")  # type: ignore[misc]


def custom_scalars(page: Page) -> None:
    """Open the page with our charts, in groups."""
    tab(page, "Custom Scalars")
    page.get_by_role("checkbox", name="Ignore outliers").click()
    for title in ("Q-values", "size of TD errors", "mean return"):
        await_that(lambda title=title: is_drawn(chart(page, title)), f"{title} is drawn")  # type: ignore[misc]


def chart(page: Page, title: str) -> Locator:
    """
    :param page: the page of Custom Scalars
    :param title: the title of a chart
    """
    return page.locator("tf-custom-scalar-multi-line-chart-card").filter(has=page.get_by_text(title, exact=True))


def is_drawn(card: Locator) -> bool:
    """
    :param card: the card of a chart of Custom Scalars
    :return: whether it shows a line for each run
    """
    card.scroll_into_view_if_needed()
    return sum(n_points >= 3 for n_points in lines(card)) >= len(NAMES)


def images(page: Page) -> None:
    """Open the page with pictures."""
    tab(page, "Images")
    for tag in ("video/episode", "calibration/scatter"):  # the first one of the page at the end
        pictures = page.locator("tf-image-loader").filter(has_text=tag).locator("img")
        expect(pictures).to_have_count(len(NAMES))
        for picture in pictures.all():
            picture.scroll_into_view_if_needed()
            await_that(lambda one=picture: one.evaluate("one => one.naturalWidth") > 100, f"{tag} is loaded")  # type: ignore[misc]
            await_that(lambda one=picture: colours(one) > 100, f"{tag} is drawn")  # type: ignore[misc]


def histograms(page: Page) -> None:
    """Open the page with distributions in the course of training."""
    tab(page, "Histograms")
    page.get_by_role("textbox", name="Filter tags").fill("histogram|ages")
    found = page.locator("tf-histogram-dashboard tf-category-paginated-view").first  # all others follow
    for tag in ("errors/histogram", "replay/ages", "values/histogram"):
        cards = found.locator("tf-histogram-loader").filter(has_text=tag)
        expect(cards).to_have_count(len(NAMES))
        for card in cards.all():
            card.scroll_into_view_if_needed()
            await_that(lambda card=card: sum(n >= 10 for n in lines(card)) >= 3, f"{tag} is drawn")  # type: ignore[misc]


def hparams(page: Page) -> None:
    """Open the page with a row for each run: its arguments and its score."""
    tab(page, "HParams")
    page.get_by_role("checkbox", name="batch_size", exact=True).click()  # in which they do not differ
    cells = page.locator("vaadin-grid-cell-content")
    for name in ("algorithm", "n_steps", "tau", "achieved/best_return", "achieved/final_return", *NAMES):
        expect(cells.get_by_text(name, exact=True).first).to_be_visible()


def row(page: Page, name: str) -> dict[str, str]:
    """
    :param page: the page of HParams
    :param name: the name of a run
    :return: the row of the table, by the names of its columns
    """
    page.locator("vaadin-grid-cell-content").get_by_text(name, exact=True).first.wait_for()
    cells = [one.strip() for one in page.locator("vaadin-grid-cell-content").all_inner_texts()]
    columns = cells[: cells.index("")]  # the first row is that of the names, and is longer than what is in it
    start = cells.index(name)
    return dict(zip(columns, cells[start : start + len(columns)], strict=True))


def text(page: Page) -> None:
    """Open the page with the configuration and the command."""
    tab(page, "Text")
    page.get_by_role("textbox", name="Filter tags").fill("")  # it is one for all pages
    cell = page.locator("tf-text-loader").filter(has_text="run/arguments").filter(has_text="DQNExt_1")
    expect(cell.get_by_role("cell", name="target_policy", exact=True)).to_be_visible()
    expect(page.locator("tf-text-loader").filter(has_text="tests.tensorboard_runs").first).to_be_attached()


PAGES: dict[str, Callable[[Page], None]] = {
    page.__name__: page for page in (time_series, custom_scalars, images, histograms, hparams, text)
}


def save(page: Page, name: str, folder: Path) -> Path:
    """
    :param page: a page of TensorBoard
    :param name: a name of :data:`PAGES`
    :param folder: the folder to write to
    :return: a picture of it, once its charts are drawn
    """
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT_OF_IMAGES if name == "images" else HEIGHT})
    PAGES[name](page)
    return photograph(page, folder / f"tensorboard_{name}.png")


def save_curves(logs: Path, chromium: Browser, path: Path) -> Path:
    """
    :param logs: the folder of the logs of runs that have ended
    :param chromium: a browser
    :param path: the file of a picture of their learning curves
    :return: the same
    """
    names = [run.name for run in logs.iterdir()]
    with tensorboard(logs, names) as url, opened(chromium, url) as page:
        time_series(page, ("eval/mean_reward", "rollout/ep_rew_mean", *TAGS[:2], *TAGS[-2:]))
        return photograph(page, path)


def photograph(page: Page, path: Path) -> Path:
    """
    :param page: a page of TensorBoard whose charts are drawn
    :param path: the file of its picture
    :return: the same
    """
    page.mouse.move(WIDTH - 8, HEIGHT // 2)  # beside the charts, which show a hint at zooming
    page.mouse.wheel(0, -10_000)  # to the top
    page.screenshot(path=path, animations="disabled")
    return path


# -- the report of a run ---------------------------------------------------------------------------------------------------

CONFIG: dict[str, Any] = {
    "policy": "MlpPolicy",
    "learning_starts": 500,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "train_freq": 4,
    "gradient_steps": 2,
    "n_steps": 3,
    "target_policy": "double",
    "target_update_unit": "gradient_steps",
    "target_update_interval": 1,
    "tau": 0.01,
    "exploration_fraction": 0.3,
    "policy_kwargs": {"net_arch": [128, 128]},
}


def reported(place: Path, steps: int) -> Path:
    """
    :param place: the folder to train in with the zoo
    :param steps: the number of steps
    :return: the report of that run
    """
    watched = {"every": steps // 16, "calibration": {"every": steps // 8}, "video": {"every": steps // 2}}
    diagnostics = {"sb3_dqn_ext.callbacks.DiagnosticsCallback": watched}
    config = {**CONFIG, "n_timesteps": steps, "callback": diagnostics}
    (place / "watched.yml").write_text(json.dumps({"CartPole-v1": config}))  # JSON is YAML
    train = "-m rl_zoo3.train --algo dqn_ext --env CartPole-v1 -conf watched.yml --seed 0 -tb logs/tensorboard --num-threads 1"
    output(python(*train.split(), "--eval-freq", str(steps // 16), cwd=place, SDL_VIDEODRIVER="dummy"))
    written = output(python("-m", "sb3_dqn_ext.report", "logs/dqn_ext/CartPole-v1_1", "--episodes", "10", cwd=place))
    return place / written.strip()


def save_report(page: Page, folder: Path) -> Path:
    """
    :param page: the report of a run
    :param folder: the folder to write to
    :return: a picture of its beginning
    """
    page.set_viewport_size({"width": 1200, "height": 1900})
    path = folder / "report.png"
    page.screenshot(path=path, animations="disabled")
    return path


def main() -> None:
    """Save pictures of the logs that are given, or train for long enough that charts have lines, and save all pictures."""
    folder, *logs = map(Path, sys.argv[1:])
    if logs:
        with started() as chromium:
            print(save_curves(logs[0], chromium, folder / f"tensorboard_{logs[0].name}.png"))
        return
    with tempfile.TemporaryDirectory() as place, started() as chromium:
        output(python("-m", "tests.tensorboard_runs", place, str(STEPS), cwd=ROOT))
        with tensorboard(Path(place) / "logs") as url, opened(chromium, url) as page:
            for name in PAGES:
                print(save(page, name, folder))
        with opened(chromium, reported(Path(place), STEPS).as_uri()) as page:
            print(save_report(page, folder))


if __name__ == "__main__":
    main()
