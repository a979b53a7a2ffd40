"""Tests of the report on a run: its content, and the reasons in place of missing parts."""

import ast
import base64
import csv
import io
import json
import os
import pickle
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from matplotlib.image import imread
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from sb3_dqn_ext.callbacks import TensorBoardCallback
from sb3_dqn_ext.callbacks.charts import CHARTS
from sb3_dqn_ext.plot import read_run
from sb3_dqn_ext.report import report
from sb3_dqn_ext.report.__main__ import main
from sb3_dqn_ext.report.commands import train_command
from sb3_dqn_ext.report.pictures import newest_video
from sb3_dqn_ext.versions import versions
from tests.processes import output, python

pytestmark = pytest.mark.xdist_group("report")

CONFIG: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_timesteps": 600,
    "learning_starts": 50,
    "buffer_size": 1000,
    "train_freq": 8,
    "policy_kwargs": {"net_arch": [16]},
    "callback": [
        {
            "sb3_dqn_ext.callbacks.DiagnosticsCallback": {
                "values": {"every": 100},
                "calibration": {"every": 200, "n_episodes": 2},
                "video": {"every": 300, "skip": 10},
            }
        },
    ],
}
TRAIN = (
    "-m rl_zoo3.train --algo dqn_ext --env CartPole-v1 -conf config.yml --seed 1 -tb board --num-threads 1 --device cpu "
    "--eval-freq 200 --eval-episodes 2 --save-freq 300 -params exploration_final_eps:0.1 \"target_policy:'double'\""
)


# -- a page, parsed as in a browser ---- ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The elements of a page with their attributes and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self.open: list[int] = []
        self.feed(page)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in ("img", "meta", "link"):
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for i in self.open:
            self.elements[i][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Return the attributes of the elements that have a given name and given attributes."""
        return [found for name, found, _ in self.elements if name == tag and attributes.items() <= found.items()]

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """Return the texts of the elements that have a given name and given attributes."""
        return ["".join(text) for name, found, text in self.elements if name == tag and attributes.items() <= found.items()]

    def text(self, section: str) -> str:
        """Return the text of a section."""
        (text,) = self.texts("section", id=section)
        return text

    def rows(self) -> list[list[str]]:
        """Return the cells of each row of all tables."""
        found: list[list[str]] = []
        for tag, _, text in self.elements:
            if tag == "tr":
                found.append([])
            elif tag in ("td", "th"):
                found[-1].append("".join(text))
        return found

    def facts(self) -> dict[str, str]:
        """Return the facts of the summary."""
        return dict(zip(self.texts("dt"), self.texts("dd"), strict=True))


def content(url: str) -> tuple[str, bytes]:
    """Return the media type and the bytes of a data: URL."""
    kind, data = re.fullmatch(r"data:([a-z0-9/+]+);base64,(.+)", url).groups()  # type: ignore[union-attr]
    return kind, base64.b64decode(data, validate=True)


def check_whole(page: Page) -> None:
    """Check that a page loads nothing, runs nothing, and has valid images."""
    assert {tag for tag, *_ in page.elements}.isdisjoint({"script", "iframe", "object", "embed", "form", "base"})
    ids = [found["id"] for _, found, _ in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    for tag, found, _ in page.elements:
        for name, value in found.items():
            assert not name.startswith("on"), f"{tag} {name}"
            if name in ("src", "href", "srcset", "poster", "data", "action"):
                assert value.startswith("data:") or value[1:] in ids, f"{tag} {name}={value[:80]}"
    (style,) = page.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    for picture in page.all("img"):
        assert len(picture["alt"]) > 10
        kind, data = content(picture["src"])
        if kind == "image/svg+xml":
            assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert data.startswith({"image/png": b"\x89PNG", "image/gif": b"GIF8"}[kind])


# -- a run of the zoo ------------------------------------------------------------------------------------------------------


def trained(folder: Path) -> Path:
    (folder / "config.yml").write_text(yaml.safe_dump({"CartPole-v1": CONFIG}))
    output(python(*shlex.split(TRAIN), "--log-interval", "1", cwd=folder, SDL_VIDEODRIVER="dummy"))
    return folder / "logs" / "dqn_ext" / "CartPole-v1_1"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the zoo with data for all parts of the page."""
    return trained(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("report") / "new" / "page.html"
    main([str(run), "-o", str(path), "--episodes", "2"])
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    return Page(path.read_text())


def test_the_page_is_self_contained_and_complete(page: Page) -> None:
    check_whole(page)
    assert page.texts("title") == page.texts("h1") == ["CartPole-v1 · DQNExt"]
    names = ["summary", "command", "curves", "calibration", "video", "configuration", "versions"]
    assert [found["id"] for found in page.all("section")] == names
    assert [found["href"] for found in page.all("a")] == [f"#{name}" for name in names]
    assert page.texts("p", **{"class": "missing"}) == []


def test_its_numbers_are_those_in_the_files(page: Page, run: Path) -> None:
    with np.load(run / "evaluations.npz") as file:
        steps, means = file["timesteps"], file["results"].mean(axis=1)
    with open(run / "0.monitor.csv") as monitor:
        episodes = list(csv.DictReader(line for line in monitor if not line.startswith("#")))
    facts = page.facts()
    best = int(np.argmax(means))
    assert facts["Best evaluation"] == f"{means[best]:.2f}mean of 2 episodes, at step {steps[best]}"
    assert facts["Last evaluation"] == f"{means[-1]:.2f}at step 600"
    last = np.mean([float(episode["r"]) for episode in episodes[-100:]])
    assert facts["Last training return"].startswith(f"{last:.2f}mean of ")
    assert facts["Training episodes"].startswith(f"{len(episodes)}that")
    assert facts["Environment steps"].startswith("600")


def test_its_tables_are_the_configuration_and_the_versions(page: Page) -> None:
    rows = page.rows()
    values = dict(row for row in rows if len(row) == 2)
    for name, value in CONFIG.items():
        assert values[name] == value or ast.literal_eval(values[name]) == value, name
    assert ["exploration_final_eps", "0.1"] in rows, "the value of the command"
    assert ["max_grad_norm", "10"] in rows, "the default of the model"
    assert ["id", "CartPole-v1"] in rows
    assert ["actions", "Discrete(2)"] in rows
    for name, version in versions().items():
        assert [name, version] in rows


def test_its_curves_are_the_charts_of_tensorboard(page: Page, run: Path) -> None:
    board = EventAccumulator(str(run.parents[2] / "board" / "CartPole-v1" / "DQNExt_1")).Reload()
    tags = board.Tags()["scalars"]
    every = {title: patterns for charts in CHARTS.values() for title, patterns in charts.items()}
    shown = {title for title, patterns in every.items() if any(re.fullmatch(one, tag) for one in patterns for tag in tags)}
    assert shown > {"mean return", "Q-values", "loss", "exploration rate", "overestimation"}
    titles = page.texts("figcaption")
    assert sorted(title for title in titles if title in every) == sorted(shown)
    (alt,) = [found["alt"] for found in page.all("img") if found["alt"].startswith("Q-values, over environment steps.")]
    last = board.Scalars("values/mean")[-1]
    assert f" values/mean: {last.value:.4g} at step {last.step}, between " in alt
    assert "train/learning_rate" in page.text("curves").partition("Also logged: ")[2]
    assert "best_model.zip has played 2 episodes" in page.text("calibration")
    assert any("The value of the best action" in found["alt"] for found in page.all("img"))


def test_its_video_is_the_newest_one(page: Page, run: Path) -> None:
    (video,) = page.all("video")
    assert "controls" in video
    assert content(video["src"]) == ("video/mp4", (run / "videos" / "step_600.mp4").read_bytes())


def test_its_command_trains_the_same_run_again(page: Page, run: Path, tmp_path: Path) -> None:
    (command,) = page.texts("pre", **{"class": "command"})
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"CartPole-v1": CONFIG}))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    again = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    output(again)
    other = tmp_path / "logs" / "dqn_ext" / run.name
    for name in ("args.yml", "config.yml"):
        assert (other / "CartPole-v1" / name).read_text() == (run / "CartPole-v1" / name).read_text()
    with np.load(run / "evaluations.npz") as first, np.load(other / "evaluations.npz") as second:
        np.testing.assert_array_equal(first["results"], second["results"])


def test_the_newest_video_is_that_of_the_latest_step_or_else_the_newest_file(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    assert newest_video(tmp_path) is None
    for age, name in enumerate(("step_10", "step_9", "other", "another", "step_11.part")):
        path = tmp_path / "videos" / f"{name}.mp4"
        path.touch()
        os.utime(path, (age, age))
    assert newest_video(tmp_path) == tmp_path / "videos" / "step_10.mp4"
    (tmp_path / "videos" / "step_10.mp4").unlink()
    (tmp_path / "videos" / "step_9.mp4").unlink()
    assert newest_video(tmp_path) == tmp_path / "videos" / "another.mp4"


def test_without_the_arguments_of_the_command_it_names_every_hyperparameter(run: Path, tmp_path: Path) -> None:
    folder = edited(run, tmp_path / "run")
    shutil.rmtree(folder / "CartPole-v1")
    command = train_command(read_run(folder))
    assert command is not None
    words = shlex.split(command.replace("\\\n", ""))
    start = words.index("--hyperparams") + 1
    given = dict(word.split(":", 1) for word in words[start : start + len(CONFIG) + 2])
    expected = {**CONFIG, "exploration_final_eps": 0.1, "target_policy": "double"}
    assert {name: ast.literal_eval(value) for name, value in given.items()} == expected


# -- other runs, and missing parts -----------------------------------------------------------------------------------------


def edited(run: Path, place: Path, **changes: Any) -> Path:
    """Copy a run and change its run.json."""
    shutil.copytree(run, place)
    data = json.loads((place / "run.json").read_text()) | changes
    (place / "run.json").write_text(json.dumps(data))
    return place


def page_of(folder: Path, **arguments: Any) -> Page:
    found = Page(report(folder, **{"n_episodes": 0, **arguments}))
    check_whole(found)
    return found


@pytest.fixture(scope="module")
def interrupted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has not ended, with another version of torch."""
    place = tmp_path_factory.mktemp("a run") / run.name
    return edited(run, place, finished=None, versions={**versions(), "torch": "1.13.1"}, arguments={})


def test_an_interrupted_run_has_a_command_that_continues_it(interrupted: Path) -> None:
    (resume,) = page_of(interrupted).texts("pre", **{"class": "command"})
    assert shlex.split(resume) == ["python", "-m", "sb3_dqn_ext.zoo", "resume", str(interrupted)]


def test_different_versions_are_shown_beside_those_of_the_run(interrupted: Path) -> None:
    rows = page_of(interrupted).rows()
    assert ["package", "of the run", "of this page"] in rows
    assert ["torch", "1.13.1", versions()["torch"]] in rows


EVIL = "</td></table><script>alert('1')</script><img src=x onerror=alert(1)>&amp;\"'"


def test_markup_in_the_files_of_a_run_is_shown_as_text(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "<b onclick='x'>&lt;"
    hyperparameters = {**json.loads((run / "run.json").read_text())["hyperparameters"], EVIL: EVIL}
    given = {**versions(), "torch": EVIL, EVIL: "1"}
    arguments = {**json.loads((run / "run.json").read_text())["arguments"], "conf_file": EVIL, "gym_packages": [EVIL]}
    edited(run, place, env=EVIL, hyperparameters=hyperparameters, versions=given, arguments=arguments)
    (place / "0.monitor.csv").unlink()  # so that the newest log is that of the run
    with SummaryWriter(str(place)) as writer:
        writer.add_text("run/command", EVIL)
        writer.add_scalar(f"exploration/{EVIL}", 1.0, 5)
        writer.add_image(EVIL, np.zeros((3, 8, 8), np.uint8))
    found = page_of(place)
    assert found.texts("h1") == [f"{EVIL} · DQNExt"]
    assert [EVIL, EVIL] in found.rows()
    assert ["torch", EVIL, versions()["torch"]] in found.rows()
    assert EVIL in found.text("curves")
    assert str(place) in found.texts("header")[0]
    (command,) = found.texts("pre", **{"class": "command"})
    words = shlex.split(command.replace("\\\n", ""))
    assert words[words.index("--gym-packages") + 1] == EVIL


def test_a_run_of_sb3_without_the_zoo_is_described_by_its_model_and_its_log(tmp_path: Path) -> None:
    env = make_vec_env("CartPole-v1", seed=0, monitor_dir=str(tmp_path / "run"))
    model = DQN("MlpPolicy", env, learning_starts=50, batch_size=17, tensorboard_log=str(tmp_path / "tb"), device="cpu")
    model.learn(300, callback=TensorBoardCallback())
    model.save(tmp_path / "run" / "final")
    env.close()
    found = page_of(tmp_path / "run", tensorboard=tmp_path / "tb", n_episodes=1)
    assert found.texts("h1") == ["CartPole-v1"]
    assert ["batch_size", "17"] in found.rows()
    assert ["torch", versions()["torch"]] in found.rows()
    (command,) = found.texts("pre", **{"class": "command"})
    assert command == shlex.join(sys.orig_argv)
    assert "final.zip has played 1 episode," in found.text("calibration")
    assert "mean return" in found.texts("figcaption")
    missing = found.texts("p", **{"class": "missing"})
    assert [text.partition(":")[0] for text in missing] == ["No evaluations", "No calibration in the log", "No video"]


def test_missing_and_damaged_files_are_named_and_the_other_parts_are_shown(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(run / "0.monitor.csv", tmp_path)
    (tmp_path / "evaluations.npz").write_bytes(b"PK no archive")
    (tmp_path / "best_model.zip").write_bytes((run / "best_model.zip").read_bytes()[:500])
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "step_1.mp4").write_text("no video")
    main([str(tmp_path)])
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'report.html'}\n"
    found = Page((tmp_path / "report.html").read_text())
    check_whole(found)
    assert found.facts().keys() >= {"Last training return", "Training episodes"}
    (picture,) = found.all("img")
    assert picture["alt"].startswith("Returns over environment steps. Last training return: ")
    missing = " ".join(found.texts("p", **{"class": "missing"}))
    for reason in (
        "run.json is damaged",
        "No command: it is unknown",
        "evaluations.npz is damaged",
        "best_model.zip",
        "try --tensorboard FOLDER",
        "No model: ",
        "No comparison of predicted and realised values: ",
        "No map of values: ",
        "step_1.mp4 is not an mp4 file",
    ):
        assert reason in missing, reason
    for line in printed.err.splitlines():
        assert line.startswith("No "), line


def test_a_folder_of_evaluations_alone_is_drawn(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "evaluations.npz", tmp_path)
    found = page_of(tmp_path)
    assert found.facts().keys() == {"Best evaluation", "Last evaluation", "Environment steps"}
    assert len(found.all("img")) == 1
    assert "training episodes" in " ".join(found.texts("p", **{"class": "missing"}))


def test_a_log_without_a_video_file_shows_its_animated_image_and_its_last_scatter_plot(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / run.name
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("videos", "*.zip"))
    found = page_of(folder)
    pictures = {picture["alt"]: content(picture["src"]) for picture in found.all("img")}
    kind, data = pictures["video/episode, as it was logged last"]
    assert kind == "image/gif"
    kind, data = pictures["calibration/scatter, as it was logged last"]
    assert kind == "image/png"
    assert imread(io.BytesIO(data)).shape[0] > 100


class Witness:
    """An object whose pickle makes a folder when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("algo", ["dqn", "qrdqn"])
def test_code_in_a_model_is_not_run(algo: str, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / algo / "CartPole-v1_1"
    folder.mkdir(parents=True)
    shutil.copy(run / "0.monitor.csv", folder)
    model = DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=10)
    model.save(tmp_path / "good")
    with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(folder / "best_model.zip", "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name == "data":
                parts = json.loads(data)
                pickled = base64.b64encode(pickle.dumps(Witness(tmp_path / "witness"))).decode()
                for part in ("lr_schedule", "exploration_schedule", "policy_class"):
                    parts[part][":serialized:"] = pickled
                data = json.dumps(parts).encode()
            bad.writestr(name, data)
    found = page_of(folder, n_episodes=1)
    assert not (tmp_path / "witness").exists()
    assert "torch" in [row[0] for row in found.rows()]
    if algo == "qrdqn":
        assert "use --trust for your own files" in found.text("calibration")


def many(folder: Path) -> Iterator[str]:
    with SummaryWriter(str(folder)) as writer:
        for i in range(32):
            for step in (1, 2):
                writer.add_scalar(f"exploration/epsilon_{i}", 0.5**i * step, step)
    yield from page_of(folder).texts("figcaption")


def test_a_line_for_each_of_many_environments_is_one_chart_without_a_legend(tmp_path: Path) -> None:
    assert list(many(tmp_path)) == [
        "epsilon of each environment: 32 lines, exploration/epsilon_0 to exploration/epsilon_31",
    ]


# -- the command -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere"], r"RUN_FOLDER='nowhere' must be a folder, and there is none of that name\."),
        (["empty"], r"RUN_FOLDER='empty' contains no data of a run: there is none of "),
        (["a", "b"], r"RUN_FOLDER='a b' contains 2 runs, .* such as a\. `python -m sb3_dqn_ext\.plot a b` compares them\."),
        (
            ["."],
            r"RUN_FOLDER='\.' contains 2 runs, and a report is on one run, such as a\. `python -m sb3_dqn_ext\.plot \.` comp",
        ),
        (["a", "--episodes", "-1"], r"--episodes=-1 must be a whole number in \[0, inf\]\."),
        (["a", "--gym-packages", "no_such_module"], r"No module named 'no_such_module'"),
        (["a", "-o", "empty"], r"Is a directory"),
        (["a", "--model", "mine"], r"a has no model mine\.zip\."),
    ],
    ids=["nowhere", "empty", "two", "two in one", "fewer than none", "no such module", "a folder as a file", "no such model"],
)
def test_wrong_arguments_are_errors_of_one_sentence_and_write_no_file(
    arguments: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "monitor.csv").write_text('#{"t_start": 1.0, "env_id": "CartPole-v1"}\nr,l,t\n1.0,1,0.1\n')
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    monkeypatch.delitem(sys.modules, "sb3_dqn_ext.report.__main__")
    with pytest.raises(SystemExit, match=rf"^python -m sb3_dqn_ext\.report: .*{problem}"):  # as `python -m` would run it
        runpy.run_module("sb3_dqn_ext.report", run_name="__main__")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"monitor.csv"}
