"""Renames are applied to files of earlier schemas when they are read."""

import dataclasses
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.checkpoint.folder import read_checkpoint, write_checkpoint
from sb3_dqn_ext.checkpoint.manifest import read_manifest
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.serialization import migrations
from sb3_dqn_ext.serialization.migrations import MIGRATIONS, SCHEMA, Renames, is_known, migrate
from sb3_dqn_ext.serialization.names import import_name, qualified_name
from sb3_dqn_ext.versions import versions
from tests.parity import short_cartpole

OLD = Renames(
    classes={"old.Schedule": "sb3_dqn_ext.algorithm.schedules.LinearSchedule", "old.Callback": "new.Callback"},
    names={
        "model": {"old_gamma": "gamma"},
        "exploration_kwargs": {"old_schedule": "schedule"},
        "sb3_dqn_ext.algorithm.schedules.LinearSchedule": {"from": "start"},
        "new.Callback": {"old_count": "count"},
        "training": {"old_steps": "num_timesteps"},
        "hyperparameters": {"old_gamma": "gamma"},
    },
    values={name: {"exploration": {"old_greedy": "epsilon_greedy"}} for name in ("model", "hyperparameters")},
)
FROM_OLD = {1: OLD} | dict.fromkeys(range(2, SCHEMA), Renames())


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a schema 1 with other names."""
    monkeypatch.setattr(migrations, "MIGRATIONS", FROM_OLD)


def migrated(tree: Any, name: str, schema: int = 1) -> Any:
    migrate(tree, name, schema)
    return tree


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model", {"old_gamma": 1, "b": [{"old_gamma": 2}]}, {"gamma": 1, "b": [{"old_gamma": 2}]}),
        ("model", {"a": 1, "old_gamma": 2, "b": 3}, {"a": 1, "gamma": 2, "b": 3}),
        ("run", {"old_gamma": 1, "hyperparameters": {"old_gamma": 1}}, {"old_gamma": 1, "hyperparameters": {"gamma": 1}}),
        (
            "run",
            {"hyperparameters": {"exploration": "old_greedy", "x": "old_greedy"}},
            {"hyperparameters": {"exploration": "epsilon_greedy", "x": "old_greedy"}},
        ),
        (
            "run",
            {"hyperparameters": {"env_wrapper": [{"my.Wrapper": {"exploration": "old_greedy"}}]}},
            {"hyperparameters": {"env_wrapper": [{"my.Wrapper": {"exploration": "old_greedy"}}]}},
        ),
        (
            "run",
            {"env_wrapper": [{"old.Callback": {}}, "old.Callback"]},
            {"env_wrapper": [{"new.Callback": {}}, "new.Callback"]},
        ),
        (
            "model",
            {"exploration_kwargs": {"dict": {"old_schedule": {"tuple": [{"class": "old.Callback"}]}}}},
            {"exploration_kwargs": {"dict": {"schedule": {"tuple": [{"class": "new.Callback"}]}}}},
        ),
        (
            "model",
            {"learning_rate": {"object": {"class": "old.Schedule", "attributes": {"from": 1, "end": 2}}}},
            {"learning_rate": {"object": {"class": OLD.classes["old.Schedule"], "attributes": {"start": 1, "end": 2}}}},
        ),
        (
            "checkpoint",
            {"dict": {"callbacks": [{"dict": {"class": "old.Callback", "attributes": {"dict": {"old_count": 3}}}}]}},
            {"dict": {"callbacks": [{"dict": {"class": "new.Callback", "attributes": {"dict": {"count": 3}}}}]}},
        ),
        (
            "checkpoint",
            {"dict": {"training": {"dict": {"attributes": {"dict": {"old_steps": 3}}}}}},
            {"dict": {"training": {"dict": {"attributes": {"dict": {"num_timesteps": 3}}}}}},
        ),
        ("model", [], []),
    ],
)
def test_names_are_renamed_in_their_places_only(name: str, old: Any, new: Any) -> None:
    assert json.dumps(migrated(json.loads(json.dumps(old)), name)) == json.dumps(new)
    assert migrated(json.loads(json.dumps(old)), name, schema=2) == old


@pytest.mark.usefixtures("renamed")
def test_what_is_nested_very_deep_is_gone_through() -> None:
    tree: Any = {"old_gamma": 1}
    for _ in range(100_000):
        tree = {"dict": tree}
    node = migrated(tree, "model")
    for _ in range(100_000):
        node = node["dict"]
    assert node == {"gamma": 1}


def test_every_class_of_the_table_is_there() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA))
    for renames in MIGRATIONS.values():
        for name in renames.classes.values():
            assert qualified_name(import_name(name)) == name


@pytest.mark.parametrize("schema", [0, -1, SCHEMA + 1, True, "1", None, 1.0])
def test_other_versions_are_not_known(schema: object) -> None:
    assert is_known(SCHEMA)
    assert not is_known(schema)


# in files


@pytest.fixture
def model() -> DQNExt:
    kwargs: Any = {"buffer_size": 50, "learning_starts": 10, "batch_size": 4, "seed": 1, "device": "cpu"}
    return DQNExt("MlpPolicy", short_cartpole(), policy_kwargs={"net_arch": [4]}, gamma=0.5, **kwargs)


def as_schema_1(archive: bytes, changes: dict[str, str]) -> io.BytesIO:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    text = re.sub(r'":schema:": \d+', '":schema:": 1', parts["data"].decode())
    for new, old in changes.items():
        assert new in text
        text = text.replace(new, old)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in (parts | {"data": text.encode()}).items():
            file.writestr(name, content)
    data.seek(0)
    return data


@pytest.mark.usefixtures("renamed")
def test_a_model_of_the_earlier_schema_is_loaded(model: DQNExt) -> None:
    file = io.BytesIO()
    model.save(file)
    old = as_schema_1(file.getvalue(), {'"gamma"': '"old_gamma"', '"epsilon_greedy"': '"old_greedy"'})
    assert DQNExt.load(old).gamma == 0.5
    assert not hasattr(DQNExt.load(file), "old_gamma")


@pytest.mark.usefixtures("renamed")
def test_a_checkpoint_of_the_earlier_schema_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_dqn_ext.checkpoint.manifest.SCHEMA", 1)
    path = write_checkpoint(tmp_path, 3, {"training": {"old_steps": 3}}, {"rows": [("a", {"old_steps": 4})]})
    monkeypatch.undo()
    monkeypatch.setattr(migrations, "MIGRATIONS", FROM_OLD)
    assert read_checkpoint(path).tree == {"training": {"num_timesteps": 3}}
    second = write_checkpoint(tmp_path, 4, {}, {"rows": [("a", None)]})  # names the file of the first once more
    assert [piece.key for piece in read_manifest(second).stored_trees()] == ["000000000004", "a"]
    assert read_checkpoint(second).segments["rows"][0].load() == {"old_steps": 4}


@pytest.mark.usefixtures("renamed")
def test_a_run_of_the_earlier_schema_is_read(tmp_path: Path) -> None:
    run = run_file.RunFile(
        "CartPole-v1", "/a", {}, {"gamma": 0.5, "exploration": "epsilon_greedy"}, None, None, None, versions()
    )
    old = dataclasses.replace(run, hyperparameters={"old_gamma": 0.5, "exploration": "old_greedy"})
    text = json.dumps({"format": run_file.FORMAT, "schema": 1, **dataclasses.asdict(old)})
    (tmp_path / run_file.FILE_NAME).write_text(text)
    assert run_file.read(tmp_path) == run
    run_file.write(tmp_path, run)
    assert json.loads((tmp_path / run_file.FILE_NAME).read_text())["schema"] == SCHEMA
    assert run_file.read(tmp_path) == run
