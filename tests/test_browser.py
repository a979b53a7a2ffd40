"""What our runs log is drawn by TensorBoard in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page
from torch.utils.tensorboard import SummaryWriter

from sb3_dqn_ext.plot.runs import scalars
from tests.processes import output, python
from tests.tensorboard_pages import PAGES, ROOT, browser, chart, is_drawn, n_coloured, opened, row, save, tab, tensorboard
from tests.tensorboard_runs import NAMES

pytestmark = [
    pytest.mark.skipif(browser() is None, reason="there is no browser: on Debian, apt-get install chromium"),
    pytest.mark.xdist_group("browser"),  # one TensorBoard and one browser for all
]
STEPS = 1600


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two runs, and of another one that has only asked for a chart of what nobody logs."""
    folder = tmp_path_factory.mktemp("runs")
    output(python("-m", "tests.tensorboard_runs", str(folder), str(STEPS), cwd=ROOT, SDL_VIDEODRIVER="dummy"))
    with SummaryWriter(folder / "logs" / "other") as writer:
        writer.add_custom_scalars({"other": {"nothing": ["Multiline", ["nothing$"]]}})
    return folder / "logs"


@pytest.fixture(scope="module")
def page(logs: Path) -> Iterator[Page]:
    """TensorBoard, opened once and never reloaded."""
    with tensorboard(logs) as url, opened(url) as page:
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


def test_a_chart_without_numbers_is_not_taken_for_drawn(page: Page) -> None:
    tab(page, "custom scalars")
    empty = chart(page, "nothing")
    empty.wait_for()
    assert not is_drawn(empty)
    grid = np.full((100, 100, 3), 255, np.uint8)
    grid[::10] = 180
    assert n_coloured(grid) == 0
    grid[50, :, 0] = 90
    assert n_coloured(grid) == 100
