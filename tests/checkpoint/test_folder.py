"""Checkpoints on a real disk, written by real processes that are killed, and read from files that are damaged or hostile."""

import errno
import hashlib
import io
import json
import math
import os
import pickle
import resource
import shutil
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sb3_dqn_ext.checkpoint.folder import (
    Segments,
    checkpoints,
    find_latest_checkpoint,
    latest_manifest,
    read_checkpoint,
    remove_later_checkpoints,
    write_checkpoint,
)
from sb3_dqn_ext.checkpoint.manifest import read_manifest
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.storage.lock import Lock
from tests.forks import Processes, is_alive, kill, wait_for_end, write_line
from tests.serialization.trees import bits

Array = npt.NDArray[Any]
Change = Callable[[Any], Any]


# a folder of checkpoints


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def tree_of(step: int) -> dict[str, Any]:
    return {"step": step, "array": np.full(500, step)}


def segments_of(step: int) -> dict[str, Any]:
    """One more with each step; the oldest fall out."""
    return {"replay": [(f"replay-{i}", lambda i=i: {"rows": np.full(300, i)}) for i in range(max(0, step - 3), step)]}


def fill(folder: Path, steps: int, keep: int = 5) -> list[Path]:
    return [write_checkpoint(folder, step, tree_of(step), segments_of(step), keep) for step in range(steps)]


def check(folder: Path, step: int) -> None:
    """The newest checkpoint is that of ``step``, and whole."""
    path = latest_manifest(folder)
    assert path is not None
    checkpoint = read_checkpoint(path)
    assert checkpoint.step == step
    assert bits(checkpoint.tree) == bits(tree_of(step))
    for stored, (key, tree) in zip(checkpoint.segments["replay"], segments_of(step)["replay"], strict=True):
        assert stored.key == key
        assert bits(stored.load()) == bits(tree())


def test_the_newest_stay_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.npz").write_text("of the user")
    written = fill(tmp_path, 8, keep=2)
    assert checkpoints(tmp_path) == written[-2:]
    assert latest_manifest(tmp_path) == written[-1] == tmp_path / "checkpoint_000000000007.json"
    data = {name.rpartition("-")[0] for name in names(tmp_path) if name.endswith(".npz") and "-" in name}
    replayed = {f"segment_replay-{i}" for i in (3, 4, 5, 6)}
    assert data == {"state_000000000006", "state_000000000007"} | replayed
    assert len(names(tmp_path)) == 1 + 2 + 2 + 4
    for step in (6, 7):
        assert read_checkpoint(written[step]).tree["step"] == step
    check(tmp_path, 7)


def test_an_empty_folder_has_no_checkpoints(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert checkpoints(folder) == []
        assert latest_manifest(folder) is None
        assert find_latest_checkpoint(folder).checkpoint is None


def test_the_manifest_says_what_wrote_it(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 12_000, {"a": 1})
    manifest = json.loads(path.read_text())
    assert manifest["schema"] == 2
    assert manifest["manifest"]["step"] == 12_000
    assert read_checkpoint(path).versions["numpy"] == manifest["manifest"]["versions"]["numpy"] == np.__version__
    (data,) = tmp_path.glob("*.npz")
    state = manifest["manifest"]["state"]
    assert (state["file"], state["size"]) == (data.name, data.stat().st_size)
    assert state["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()


def test_numpy_reads_the_arrays_without_this_library(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, [np.arange(3), np.eye(2, order="F")])
    (data,) = tmp_path.glob("*.npz")
    with np.load(data, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["0"], np.arange(3))
        np.testing.assert_array_equal(arrays["1"], np.eye(2))


def test_a_checkpoint_of_the_same_step_replaces_the_first(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5, {"a": np.zeros(3)})
    write_checkpoint(tmp_path, 5, {"a": np.ones(3)})
    path = write_checkpoint(tmp_path, 5, {"a": np.ones(3)})
    assert read_checkpoint(path).tree["a"].tolist() == [1, 1, 1]
    assert len(names(tmp_path)) == 2


def test_an_earlier_step_waits_until_the_later_ones_are_removed(tmp_path: Path) -> None:
    written = fill(tmp_path, 5)
    before = names(tmp_path)
    with pytest.raises(CheckpointError, match="has the checkpoint of step 4, which is later than 2"):
        write_checkpoint(tmp_path, 2, {})
    assert names(tmp_path) == before
    assert remove_later_checkpoints(tmp_path, 2) == written[3:]
    check(tmp_path, 2)
    assert "segment_replay-2" not in {name.rpartition("-")[0] for name in names(tmp_path)}
    assert write_checkpoint(tmp_path, 2, {}) == written[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": -1}, "step=-1"),
        ({"step": 10**12}, "step=1000000000000"),
        ({"keep": 0}, "keep=0"),
        ({"segments": {"a/b": []}}, "a name in segments='a/b'"),
        ({"segments": {"a": [("../a", {})]}}, r"a key in segments\['a'\]='../a'"),
        ({"segments": {"a": [("A", {})]}}, "'A' must be"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_written(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=message):
        write_checkpoint(tmp_path / "new", tree={}, **({"step": 1} | arguments))
    assert names(tmp_path) == set()


def test_all_is_on_the_disk_before_the_manifest_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, name = os.fsync, os.replace

    def record_sync(descriptor: int) -> None:
        sync(descriptor)
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")

    def record_name(old: Path, new: Path) -> None:
        name(old, new)
        done.append(f"name {new.name.partition('-')[0]}")

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_name)
    write_checkpoint(tmp_path, 3, tree_of(3), {"replay": [("rows", {})]})
    assert done == [
        *("sync state_000000000003.tmp", "name state_000000000003"),
        *("sync segment_rows.tmp", "name segment_rows"),
        *("sync checkpoint_000000000003.tmp", f"sync {tmp_path.name}", "name checkpoint_000000000003.json"),
        *(f"sync {tmp_path.name}", f"sync {tmp_path.name}"),  # the second before files are removed
    ]


# segments


def ring(rows: int, fresh: int) -> Segments:
    def part(start: int, end: int) -> Array:
        return np.arange(start, end)[:, None] * np.ones((1, 8))

    starts = [*range(0, rows, 10_000), *([rows] if fresh else [])]
    ends = [*starts[1:], rows + fresh]
    return {"replay": [(f"replay-{a}-{b}", part(a, b)) for a, b in zip(starts, ends, strict=True)]}


def stats(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


def test_a_second_checkpoint_writes_the_new_rows_only(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, {}, ring(100_000, 0))
    before = stats(tmp_path)
    path = write_checkpoint(tmp_path, 2, {}, ring(100_000, 1000))
    after = stats(tmp_path)
    assert after | before == after  # no file is another, or was touched
    first, second = (sum(size for *_, size in files.values()) for files in (before, after))
    assert second - first < 0.05 * first
    rows = np.concatenate([segment.load() for segment in read_checkpoint(path).segments["replay"]])
    np.testing.assert_array_equal(rows[:, 7], np.arange(101_000.0))


def test_a_stored_segment_is_not_made_again_unless_its_file_is_not_whole(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, Array]:
        made.append(1)
        return {"rows": np.arange(4)}

    for step in range(3):
        write_checkpoint(tmp_path, step, {}, {"replay": [("a", make)], "other": [("a", make)]})
    assert len(made) == 1
    (data,) = tmp_path.glob("segment_a-*")
    data.write_bytes(b"short")
    path = write_checkpoint(tmp_path, 3, {}, {"replay": [("a", make)]})
    assert len(made) == 2
    assert read_checkpoint(path).segments["replay"][0].load()["rows"].tolist() == [0, 1, 2, 3]


def test_segments_are_loaded_one_at_a_time(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 1, {}, {"replay": [(f"k{i}", np.zeros(1_000_000)) for i in range(8)]})
    tracemalloc.start()
    try:
        for segment in read_checkpoint(path).segments["replay"]:
            assert len(segment.load()) == 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 20e6  # of 64e6 bytes; one and the next, and what reads it
    finally:
        tracemalloc.stop()


# damage


def data_of(path: Path, start: str) -> Path:
    (data,) = path.parent.glob(f"{start}*")
    return data


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        at = min(int(place * len(data)), len(data) - 1)
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return flip


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\n",
} | {f"flipped at {place}": flipped(place) for place in (0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1)}


@pytest.mark.parametrize("file", ["checkpoint_000000000003", "state_000000000003", "segment_replay-2"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_the_one_before_is_good(file: str, damage: str, tmp_path: Path) -> None:
    written = fill(tmp_path, 4)
    damaged = data_of(written[3], file)
    whole = damaged.stat().st_size
    damaged.write_bytes(DAMAGES[damage](damaged.read_bytes()))
    with pytest.raises(CheckpointError, match=f"{damaged.name} (is damaged|is not a checkpoint|has the schema version)"):
        read_checkpoint(written[3])
    found = find_latest_checkpoint(tmp_path)
    assert found.checkpoint is not None
    assert found.checkpoint.path == written[2]
    assert list(found.skipped) == [written[3]]
    assert damaged.name in found.skipped[written[3]]
    if damaged.suffix == ".npz" and damaged.stat().st_size != whole:
        assert f"it has {damaged.stat().st_size} bytes and should have {whole}" in found.skipped[written[3]]


@pytest.mark.parametrize("file", ["state_000000000003", "segment_replay-2"])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    written = fill(tmp_path, 4)
    missing = data_of(written[3], file)
    missing.unlink()
    with pytest.raises(CheckpointError, match=f"{missing.name} is missing"):
        read_checkpoint(written[3])
    assert checkpoints(tmp_path) == written[:3]
    with pytest.raises(CheckpointError, match="is missing"):
        read_checkpoint(tmp_path / "checkpoint_000000000099.json")


def test_swapped_files_are_found(tmp_path: Path) -> None:
    written = fill(tmp_path, 4)
    one, other = (data_of(written[0], f"segment_replay-{i}") for i in (1, 2))
    texts = one.read_bytes(), other.read_bytes()
    other.write_bytes(texts[0])
    one.write_bytes(texts[1])
    assert latest_manifest(tmp_path) == written[3]  # sizes are right
    found = find_latest_checkpoint(tmp_path)
    assert found.checkpoint is not None
    assert found.checkpoint.step == 1
    assert all("checksum is wrong" in why for why in found.skipped.values())
    os.replace(written[0], written[1])
    with pytest.raises(CheckpointError, match="its step '0' cannot be"):
        read_checkpoint(written[1])


def test_a_segment_that_is_damaged_after_the_check_is_not_loaded(tmp_path: Path) -> None:
    path = fill(tmp_path, 2)[1]
    segment = read_checkpoint(path).segments["replay"][0]
    data = data_of(path, "segment_")
    data.write_bytes(flipped(0.5)(data.read_bytes()))
    with pytest.raises(CheckpointError, match="checksum"):
        segment.load()


def test_damaged_checkpoints_do_not_count_as_kept(tmp_path: Path) -> None:
    written = fill(tmp_path, 3)
    written[1].write_text("{}")
    data_of(written[2], "state_000000000002").unlink()
    last = write_checkpoint(tmp_path, 3, tree_of(3), segments_of(3), keep=2)
    assert checkpoints(tmp_path) == [written[0], last]
    assert {path for path in tmp_path.iterdir() if path.suffix == ".json"} == {written[0], last}


def test_checkpoints_of_another_version_are_left_alone(tmp_path: Path) -> None:
    written = fill(tmp_path, 2)
    written[1].write_bytes(written[1].read_bytes().replace(b'"schema": 2,', b'"schema": 3,'))
    before = stats(tmp_path)
    for work in (lambda: read_checkpoint(written[1]), lambda: write_checkpoint(tmp_path, 2, {})):
        with pytest.raises(
            CheckpointError, match=r"checkpoint_000000000001\.json has the schema version 3, and .* reads 1 to 2 only"
        ):
            work()
    assert stats(tmp_path) == before
    assert latest_manifest(tmp_path) == written[0]


# hostile files: who wrote them knows the checksums


def forge(path: Path, change: Change) -> None:
    """Rewrite a manifest so that its checksum is right."""
    manifest = json.loads(path.read_text())["manifest"]
    forge_text(path, json.dumps(change(manifest) or manifest))


def forge_text(path: Path, manifest: str) -> None:
    text = b'"manifest": ' + manifest.encode() + b"}\n"
    head = f'{{"format": "sb3_dqn_ext checkpoint", "schema": 2, "sha256": "{hashlib.sha256(text).hexdigest()}",\n'
    path.write_bytes(head.encode() + text)


def forge_data(path: Path, data: bytes, unpacked: int | None = None) -> None:
    """Put other data in the place of a checkpoint's arrays, with all that its manifest says of them."""
    file = data_of(path, "state_")
    file.write_bytes(data)
    if unpacked is None:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = min(sum(member.file_size for member in archive.infolist()), len(data))
    said = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "unpacked": unpacked}
    forge(path, lambda manifest: manifest["state"].update(said))


def archive_of(*members: bytes, compression: int = zipfile.ZIP_STORED, names: Callable[[int], str] = "{}.npy".format) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for i, member in enumerate(members):
            archive.writestr(names(i), member)
    return data.getvalue()


def npy(array: Array, allow_pickle: bool = False) -> bytes:
    data = io.BytesIO()
    np.lib.format.write_array(data, array, (3, 0), allow_pickle=allow_pickle)
    return data.getvalue()


def header(text: str) -> bytes:
    return np.lib.format.magic(3, 0) + struct.pack("<I", len(text)) + text.encode()


def state(**changes: Any) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        manifest["state"].update(changes)

    return change


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = write_checkpoint(tmp_path, 1, {"a": np.arange(1000.0)})
    forge(path, lambda manifest: None)
    assert read_checkpoint(path).step == 1  # a forged manifest that says the truth is good
    return path


class Bomb:
    """What unpickles to the making of a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_nothing_is_unpickled(good: Path) -> None:
    marker = good.parent / "exploded"
    bomb = pickle.dumps(Bomb(marker))
    pickle.loads(bomb)
    assert marker.exists()  # it is a real one
    marker.unlink()
    objects = np.empty(1, dtype=object)
    objects[0] = Bomb(marker)
    in_fields = np.zeros(1, [("a", "O")])
    in_fields["a"][0] = Bomb(marker)
    for hostile in (npy(objects, True), npy(in_fields, True), bomb, header("{'descr': '|O', 'shape': (1,)}") + bomb):
        forge_data(good, archive_of(hostile))
        with pytest.raises(CheckpointError, match="is not a file of arrays"):
            read_checkpoint(good)
    forge_data(good, archive_of(header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + bytes(8)))
    with pytest.raises(CheckpointError, match="it holds Python objects, which are never read"):
        read_checkpoint(good)
    for whole in (bomb, npy(objects, True)):
        forge_data(good, whole, unpacked=0)
        with pytest.raises(CheckpointError, match="is not a file of arrays"):
            read_checkpoint(good)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../state_1-0123456789abcdef.npz", "..", "", "a/state_1-0123456789abcdef.npz", "writer.lock"),
        *(
            "state_1-0123456789abcdef.npz\n",
            "state_1-0123456789abcdef.npz\0",
            "state_../1-0123456789abcdef.npz",
            None,
            3,
            ["a"],
        ),
        *("C:\\state_1-0123456789abcdef.npz", "checkpoint_000000000001.json", "state_é-0123456789abcdef.npz"),
    ],
    ids=repr,
)
def test_names_lead_nowhere_else(name: Any, good: Path) -> None:
    forge(good, state(file=name))
    with pytest.raises(CheckpointError, match=r"checkpoint_000000000001\.json is not a checkpoint: its file name"):
        read_checkpoint(good)


@pytest.mark.parametrize("what", ["state_", "checkpoint_"])
def test_links_and_pipes_are_not_followed(what: str, good: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = data_of(good, what)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / file.name
    os.replace(file, elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match=f"{file.name} is not a plain file"):
        read_checkpoint(good)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(CheckpointError, match=f"{file.name} is not a plain file"):
        read_checkpoint(good)
    write_checkpoint(good.parent, 2, {}, keep=1)
    assert elsewhere.exists()


@pytest.mark.parametrize(
    "change",
    [
        *(state(size=-1), state(size=True), state(size=1.0), state(unpacked=10**15), state(sha256="0"), state(sha256=None)),
        *(
            state(key=".."),
            state(more=1),
            state(tree=math.nan),
            lambda manifest: manifest.pop("state"),
            lambda manifest: [manifest],
        ),
        *(lambda manifest: manifest.update(state=[]), lambda manifest: manifest.update(segments=[])),
        *(lambda manifest: manifest.update(segments={"a": 3}), lambda manifest: manifest.update(step="1")),
        *(lambda manifest: manifest.update(versions=[]), lambda manifest: manifest.update(versions={"a": []})),
        lambda manifest: manifest.update(step=True),
    ],
)
def test_manifests_that_make_no_sense_are_refused(change: Change, good: Path) -> None:
    forge(good, change)
    with pytest.raises(CheckpointError, match=r"checkpoint_000000000001\.json is not a checkpoint: "):
        read_checkpoint(good)
    assert latest_manifest(good.parent) is None


def test_trees_that_make_no_sense_are_refused(good: Path) -> None:
    trees: list[Any] = [{"eval": "1"}, {"array": "1"}, {"dict": {"a": {}}}]
    for tree in trees:
        forge(good, state(tree=tree))
        with pytest.raises(CheckpointError, match="does not fit its manifest"):
            read_checkpoint(good)


@pytest.mark.parametrize(
    "text",
    ["[" * 10_000, "[" * 10_000 + "]" * 10_000, '{"a":' * 10_000, "NaN", "1" * 10_000, "[1", ""],
    ids=lambda text: f"{text[:6]}, {len(text)}",
)
def test_json_that_breaks_parsers_is_refused(text: str, good: Path) -> None:
    forge_text(good, text)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        read_checkpoint(good)


@pytest.mark.parametrize("data", [b"", b"{}", b"\x80\x04N.", b"PK\x03\x04", b"{" * 1000, b'{"format": "other"}'])
def test_other_files_are_not_checkpoints(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_000000000001.json"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"checkpoint_000000000001\.json is not a checkpoint\."):
        read_checkpoint(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match="is not a plain file"):
        read_checkpoint(path)


def test_a_manifest_of_any_size_takes_bounded_memory(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_dqn_ext.checkpoint.manifest.MAX_MANIFEST_BYTES", 10**6)
    os.truncate(good, 10**12)  # a hole: takes no disk
    with pytest.raises(CheckpointError, match=r"is not a checkpoint|is damaged"):
        read_checkpoint(good)
    good.unlink()
    with pytest.raises(CheckpointError, match=r"what is not in arrays is \d+ bytes of JSON"):
        write_checkpoint(good.parent, 1, "x" * 10**6)  # what would not be read is not written
    assert names(good.parent) == set()


BIG = 2**31  # bytes: few enough that a reader would get the memory, were it to ask


@pytest.mark.parametrize(
    "text",
    [
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({BIG},)}}",
        f"{{'descr': '|V{2**30}', 'fortran_order': False, 'shape': (2,)}}",
        f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**30}, {10**30})}}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -2)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': [2]}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 2)}",
        "{'descr': '<f8', 'shape': (2,)}",
        "{'descr': 'eval', 'fortran_order': False, 'shape': (2,)}",
        "__import__('os').abort()",
        "(" * 9000,
        "-" * 30_000 + "1",
        "[" * 60_000,
    ],
    ids=lambda text: text[:60],
)
def test_headers_that_promise_too_much_take_no_memory(text: str, good: Path) -> None:
    forge_data(good, archive_of(header(text) + bytes(16)))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="is not a file of arrays"):
            read_checkpoint(good)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        archive_of(npy(np.zeros(10**7)), compression=zipfile.ZIP_DEFLATED),
        archive_of(npy(np.frombuffer(np.random.default_rng(0).bytes(4000))), compression=zipfile.ZIP_DEFLATED),
        archive_of(npy(np.zeros(2)), names="../{}.npy".format),
        archive_of(npy(np.zeros(2)), names="/{}.npy".format),
        archive_of(npy(np.zeros(2)), npy(np.zeros(2)), names=lambda i: f"{2 * i}.npy"),
        archive_of(npy(np.zeros(2))[:-1]),
        archive_of(npy(np.zeros(2)) + b"1"),
        archive_of(b"\x93NUMPY"),
        archive_of(np.lib.format.magic(3, 0) + struct.pack("<I", 2**32 - 1)),
        archive_of(np.lib.format.magic(9, 0)),
        archive_of(np.lib.format.magic(1, 0) + npy(np.zeros(2))[8:]),
        archive_of(npy(np.zeros(10**4))).replace(struct.pack("<I", 80_128), struct.pack("<I", 2**31)),
    ],
    ids=[
        "deflated",
        "deflated noise",
        "up",
        "absolute",
        "numbers",
        "short",
        "long",
        "magic",
        "long header",
        "version",
        "old version",
        "sizes",
    ],
)
def test_archives_that_are_not_as_written_are_refused(data: bytes, good: Path) -> None:
    forge_data(good, data)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="is not a file of arrays"):
            read_checkpoint(good)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_members_that_lie_over_each_other_are_no_more_than_their_file(good: Path) -> None:
    data = archive_of(npy(np.zeros(100_000)))
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry, n = data[start:end], 200
    entries = b"".join(entry.replace(b"0.npy", b"%d.npy" % (i % 10)) for i in range(n))
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, n, n, len(entries), start, 0)
    forge_data(good, data[:start] + entries + tail, unpacked=len(data) - 200)
    with pytest.raises(CheckpointError, match=r"it holds .* twice"):
        read_checkpoint(good)


# disks that refuse


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = fill(tmp_path, 3)
    before = stats(tmp_path)
    real: Callable[..., Any] = getattr(os, call)
    for n in range(1, 20):
        calls: list[int] = []

        def full(*arguments: Any, n: int = n, calls: list[int] = calls) -> Any:
            calls.append(1)
            if len(calls) == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(os, call, full)
            try:
                write_checkpoint(tmp_path, 3, tree_of(3), segments_of(3))
            except CheckpointError as error:
                assert str(tmp_path) in str(error)  # noqa: PT017
                assert "No space left" in str(error)  # noqa: PT017
            else:
                break
        if latest_manifest(tmp_path) == written[-1]:
            assert stats(tmp_path) == before
        else:  # the manifest had its name when its folder could not be brought to the disk
            check(tmp_path, 3)
            remove_later_checkpoints(tmp_path, 2)
    assert n > (2 if call == "replace" else 4)
    check(tmp_path, 3)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.write_text("of the user")
    for work in (
        lambda: write_checkpoint(folder, 1, {}),
        lambda: checkpoints(folder),
        Lock(folder).__enter__,
        lambda: find_latest_checkpoint(folder),
    ):
        with pytest.raises(CheckpointError, match="taken"):
            work()
    with pytest.raises(CheckpointError, match="taken"):
        write_checkpoint(folder / "below", 1, {})
    assert folder.read_text() == "of the user"


def test_a_tree_that_cannot_be_stored_leaves_what_was_there(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    before = stats(tmp_path)
    with pytest.raises(TypeError, match=r"a is a builtins\.object"):
        write_checkpoint(tmp_path, 3, {"a": object()})
    with pytest.raises(TypeError, match=r"b is a builtins\.object"):
        write_checkpoint(tmp_path, 3, {}, {"replay": [("good", {"a": np.zeros(3)}), ("bad", {"b": object()})]})
    assert stats(tmp_path) == before


def write_on(folder: str, last: str = "1000000000") -> None:
    """Go on from the newest checkpoint, as a run does."""
    with Lock(folder):
        path = latest_manifest(folder)
        step = read_checkpoint(path).step if path else -1
        while step < int(last):
            step += 1
            write_checkpoint(folder, step, tree_of(step), segments_of(step), keep=2)


def test_a_writer_can_be_killed_at_any_moment(processes: Processes, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fill(tmp_path, 1)
    last, steps = 0, []
    for _ in range(20):
        process = processes.start(write_on, tmp_path)
        time.sleep(0.02 + rng.uniform(0, 0.12))
        assert is_alive(process)
        kill(process)
        found = find_latest_checkpoint(tmp_path)
        assert found.checkpoint is not None
        assert not found.skipped
        assert found.checkpoint.step >= last
        last = found.checkpoint.step
        steps.append(last)
        check(tmp_path, last)
    assert len(set(steps)) > 10  # they did write
    write_on(str(tmp_path), str(last + 1))
    assert len(names(tmp_path)) == 2 + 2 + 4 + 1  # manifests, states, segments, the lock


def die_at(folder: str, event: str) -> None:
    """Write a checkpoint; die at the n-th time that a file is opened, renamed or removed, or comes to the disk."""
    left = [int(event)]

    def count(what: str, arguments: tuple[Any, ...]) -> None:
        if what in ("open", "os.rename", "os.remove") and folder in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                write_line("died")
                os._exit(9)

    sys.addaudithook(count)
    write_on(folder, "10")
    write_line("lived")


def test_a_writer_can_die_between_any_two_steps(processes: Processes, tmp_path: Path) -> None:
    fill(tmp_path / "start", 10, keep=2)
    (tmp_path / "start" / "writer.lock").touch()
    reached = {9: 0, 10: 0}
    for event in range(1, 100):
        folder = tmp_path / str(event)
        shutil.copytree(tmp_path / "start", folder)
        wait_for_end(processes.start(die_at, folder, event))
        ended = processes.read_line()
        path = latest_manifest(folder)
        assert path is not None
        step = read_checkpoint(path).step
        reached[step] += 1
        check(folder, step)
        assert not find_latest_checkpoint(folder).skipped
        write_checkpoint(folder, 11, tree_of(11), segments_of(11), keep=2)
        assert len(checkpoints(folder)) == 2
        named = {piece.file for path in checkpoints(folder) for piece in read_manifest(path).stored_trees()}
        assert {name for name in names(folder) if not name.endswith(".json")} == named | {"writer.lock"}
        if ended == "lived":
            break
    assert ended == "lived"
    assert min(reached.values()) >= 5  # before and after the manifest has its name


def write_to_a_small_disk(folder: str, limit: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        write_checkpoint(folder, 3, {"text": "x" * 9000, "array": np.zeros(500)}, {"replay": [("new", np.zeros(900))]})
    except CheckpointError as error:
        write_line(error)
    else:
        write_line("written")


def test_a_disk_that_fills_up_leaves_what_was_there(processes: Processes, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    before = stats(tmp_path)
    limits = {"state": 1000, "state's end": 4300, "segment": 6000, "manifest": 9000}
    for limit in limits.values():
        process = processes.start(write_to_a_small_disk, tmp_path, limit)
        wait_for_end(process)
        assert processes.read_line() == f"{tmp_path} cannot take the checkpoint of step 3: [Errno 27] File too large"
        assert stats(tmp_path) == before
    wait_for_end(processes.start(write_to_a_small_disk, tmp_path, 20_000))
    assert processes.read_line() == "written"
