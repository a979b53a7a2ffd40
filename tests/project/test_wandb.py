"""
Run the page on Weights & Biases with the real package, offline, and read the files of its runs.

``make test-wandb`` installs the package in its own virtual environment. Without it, the tests are skipped. They take one or
two minutes.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks.configuration import model_arguments
from sb3_dqn_ext.checkpoint.folder import checkpoints
from tests.pages import DOCS, blocks, commands
from tests.processes import output, python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed; make test-wandb installs it"),
]

BLOCKS = blocks(DOCS / "wandb.md")
OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
ID = "cartpole-1"
STEPS = 4_000
OF_THE_CLOCK = {"_step", "_runtime", "_timestamp", "time/fps"}
"""values that differ between two equal trainings"""
Points = dict[tuple[str, int], Any]


# -- the files of an offline run -------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """The content of the folder of an offline run."""

    folder: Path
    run_id: str
    is_finished: bool
    config: dict[str, Any]
    rows: list[dict[str, Any]]

    def points(self) -> Points:
        """Return the values of the rows by name and environment step. The values of pictures are dictionaries."""
        named = ((name, row["global_step"], value) for row in self.rows for name, value in row.items())
        return {(name, step): value for name, step, value in named if name not in OF_THE_CLOCK}

    def files(self, name: str) -> list[Path]:
        """Return the paths of the files of a picture or a film, in the order of the steps."""
        listed = [row[name]["filenames"] for row in self.rows if name in row]
        return [self.folder / "files" / path for paths in listed for path in paths]


def parts(folder: Path) -> list[Part]:
    """Read the offline runs that were started in a folder, in the order of their start."""
    return [read_part(path) for path in sorted(folder.glob("wandb/offline-run-*"))]


def read_part(folder: Path) -> Part:
    (file,) = folder.glob("*.wandb")
    records = list(read_records(file.read_bytes()))
    (run,) = [record.run for record in records if record.HasField("run")]
    changes = [run.config, *(record.config for record in records if record.HasField("config"))]
    config: dict[str, Any] = {}
    for change in changes:
        config |= items(change.update)
    rows = [items(record.history.item) for record in records if record.HasField("history")]
    return Part(folder, run.run_id, any(record.HasField("exit") for record in records), config, rows)


def read_records(data: bytes) -> Iterator[Any]:
    """
    Read the records of a file of W&B: after a header of 7 bytes, it is a log of LevelDB. Its blocks have 32 KiB. A record
    consists of one or more fragments, none of which crosses a block; the end of a block that is too short for one is padded.

    :param data: the content of the file
    """
    record_type = import_module("wandb.proto.wandb_internal_pb2").Record
    assert data[:4] == b":W&B"
    position, record = 7, b""
    while position < len(data):
        rest = 2**15 - position % 2**15
        if rest < 7:
            position += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)  # checksum, length, kind of fragment
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the only or the last fragment
            yield record_type.FromString(record)
            record = b""


def items(given: Iterable[Any]) -> dict[str, Any]:
    """Return the values of records by their keys, some of which are paths in nested dictionaries."""
    found: dict[str, Any] = {}
    for item in given:
        *outer, last = item.nested_key or [item.key]
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


def tensorboard_log(folder: Path) -> EventAccumulator:
    log = EventAccumulator(str(folder), {"scalars": 0, "images": 0, "histograms": 0})
    return log.Reload()


def scalars(log: EventAccumulator) -> Points:
    named = ((name, event) for name in log.Tags()["scalars"] for event in log.Scalars(name))
    return {(name, event.step): event.value for name, event in named if name not in OF_THE_CLOCK}


def assert_same_points(found: Points, expected: Points) -> None:
    """Check that the same scalars have the same values as single-precision numbers at the same steps."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(np.float32(found[key]), np.float32(value), str(key))


# -- the programs of the page ----------------------------------------------------------------------------------------------


def interrupt(folder: Path, checkpoint_folder: Path, number: signal.Signals, *arguments: str, **environment: str) -> int:
    """
    Run Python, send it a signal after its first checkpoint, and return its exit code.

    :param folder: the working directory
    :param checkpoint_folder: the folder of the checkpoints
    :param number: the signal
    :param arguments: the arguments of ``python``
    :param environment: additional environment variables
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **OFFLINE, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 200
        while not checkpoints(checkpoint_folder) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        return process.wait(timeout=100)
    finally:
        process.kill()
        process.wait()


def scripts(folder: Path) -> Path:
    """Write the programs of the page into a folder, and return it."""
    for block in BLOCKS:
        if block.is_module:
            (folder / block.mark).write_text(block.text)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the page's script without interruption."""
    folder = scripts(tmp_path_factory.mktemp("whole"))
    output(python("wandb_cartpole.py", cwd=folder, **OFFLINE))
    return folder


def only_part(folder: Path) -> Part:
    (part,) = parts(folder)
    assert part.run_id == ID
    assert part.is_finished
    return part


def numbers(part: Part) -> Points:
    """Return the scalars of a part."""
    return {key: value for key, value in part.points().items() if key[0] != "global_step" and not isinstance(value, dict)}


def without_scores(points: Points) -> Points:
    """Return the points without the scores, which are written at an interruption, too."""
    return {key: value for key, value in points.items() if not key[0].startswith("achieved/")}


def test_the_scalars_are_those_of_tensorboard(whole: Path) -> None:
    found = numbers(only_part(whole))
    assert_same_points(found, scalars(tensorboard_log(whole / "tensorboard/DQNExt_1")))
    assert len({name for name, _ in found}) > 60
    assert [step // 1000 for name, step in found if name == "values/mean"] == [1, 2, 3, 4]


def test_histograms_and_pictures_arrive_and_texts_do_not(whole: Path) -> None:
    part = only_part(whole)
    log = tensorboard_log(whole / "tensorboard/DQNExt_1")
    expected = {(name, event.step) for name in log.Tags()["histograms"] for event in log.Histograms(name)}
    expected |= {(name, event.step) for name in log.Tags()["images"] for event in log.Images(name)}
    found = {key: value for key, value in part.points().items() if isinstance(value, dict)}
    assert found.keys() == expected
    assert {name for name, _ in found} >= {"values/histogram", "errors/histogram", "calibration/scatter", "video/episode"}
    (picture, *_) = part.files("calibration/scatter")
    with Image.open(picture) as image:
        assert image.format == "PNG"
    texts = [name for name in log.Tags()["tensors"] if name.startswith("run/")]
    assert len(texts) == 3
    assert not {name for name, _ in part.points() if name.startswith("run/")}


def test_a_film_arrives(whole: Path) -> None:
    part = only_part(whole)
    (film,) = part.files("video/episode")
    (event,) = tensorboard_log(whole / "tensorboard/DQNExt_1").Images("video/episode")
    assert film.read_bytes() == event.encoded_image_string
    with Image.open(film) as image:
        assert image.format == "GIF"
        assert getattr(image, "n_frames", 1) > 1
    with (part.folder / "files/videos/step_4000.mp4").open("rb") as file:
        assert file.read(8)[4:] == b"ftyp"


def test_the_configuration_has_all_arguments_and_nested_ones(whole: Path) -> None:
    config = only_part(whole).config
    model = DQNExt.load(whole / "models/model.zip", device="cpu")
    expected = model_arguments(model)
    assert {name: config[name] for name in expected} == expected
    assert config["policy_kwargs"] == {"net_arch": [64], "head": "dueling"}
    assert config["replay_buffer_kwargs"] == {"sampler": "prioritized"}
    assert (config["algo"], config["n_steps"], config["learning_rate"], config["gamma"]) == ("DQNExt", 3, 1e-3, 0.99)


def test_the_model_file_is_in_the_folder_of_the_run(whole: Path) -> None:
    assert DQNExt.load(only_part(whole).folder / "files/model.zip", device="cpu").num_timesteps == STEPS


def test_a_resumed_training_continues_the_same_run(whole: Path, tmp_path: Path) -> None:
    scripts(tmp_path)
    assert interrupt(tmp_path, tmp_path / "checkpoints", signal.SIGTERM, "wandb_cartpole.py") != 0
    output(python("wandb_cartpole.py", cwd=tmp_path, **OFFLINE))
    first, second = parts(tmp_path)
    assert first.run_id == second.run_id == ID
    assert first.is_finished
    assert second.is_finished
    assert 400 < first.rows[-1]["global_step"] < second.rows[0]["global_step"] < STEPS
    assert not numbers(first).keys() & numbers(second).keys()
    assert_same_points(
        without_scores(numbers(first) | numbers(second)),
        without_scores(numbers(only_part(whole))),
    )
    assert DQNExt.load(second.folder / "files/model.zip", device="cpu").num_timesteps == STEPS
    for name in model_arguments(DQNExt.load(whole / "models/model.zip", device="cpu")):
        assert second.config[name] == first.config[name], name


def test_the_zoo_tracks_a_run_and_its_resumption(tmp_path: Path) -> None:
    scripts(tmp_path)
    (block,) = [block for block in BLOCKS if block.language == "bash"]
    (train,) = commands(block.where, block.text)
    folder = tmp_path / "logs/dqn_ext/CartPole-v1_1"
    of_run = {"WANDB_RUN_ID": ID}
    assert interrupt(tmp_path, folder / "checkpoints", signal.SIGINT, *train.words[1:], "--verbose", "0", **of_run) == 0
    output(python("wandb_resume.py", cwd=tmp_path, **OFFLINE))
    first, second = parts(tmp_path)
    assert first.run_id == second.run_id == ID
    assert 900 < first.rows[-1]["global_step"] < second.rows[0]["global_step"] < STEPS

    (log,) = tmp_path.glob("runs/*/CartPole-v1/DQNExt_1")
    assert not numbers(first).keys() & numbers(second).keys()
    assert_same_points(numbers(first) | numbers(second), scalars(tensorboard_log(log)))
    assert second.files("video/episode")
    config = first.config
    assert (config["algo"], config["track"], config["n_timesteps"], config["seed"]) == ("dqn_ext", True, STEPS, 1)
    assert config["saved_hyperparams"]["policy_kwargs"] == DQNExt.load(folder / "CartPole-v1.zip", device="cpu").policy_kwargs
    assert DQNExt.load(second.folder / "files/model.zip", device="cpu").num_timesteps >= STEPS
