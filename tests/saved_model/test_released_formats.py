"""Files of earlier versions can be read, and lead to the same numbers."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.serialization.migrations import SCHEMA
from sb3_dqn_ext.serialization.names import import_name
from tests.data.write import KINDS, ZOO_RUN, names_a_machine, outcomes, outcomes_of_zoo_run
from tests.paths import DATA

RELEASED = sorted(DATA.glob("schema_*"))
of_each_release = pytest.mark.parametrize("release", RELEASED, ids=lambda folder: folder.name)


def expected_of(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the stored observations, and the results of the files when they were written."""
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return found.pop("observations"), found


def assert_close(ours: Any, theirs: Any, where: str) -> None:
    """Compare nested data. Numbers of networks may differ slightly between processors."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), where
        for key, value in theirs.items():
            assert_close(ours[key], value, f"{where}, {key}")
    elif "q_values" in where or isinstance(theirs, float):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=where)
    else:
        assert ours == theirs, where


def test_there_are_files_of_each_earlier_version() -> None:
    names = [folder.name for folder in RELEASED]
    assert names == [f"schema_{version}" for version in range(1, SCHEMA)]


@of_each_release
@pytest.mark.parametrize("name", KINDS)
def test_released_models_and_checkpoints_are_continued(name: str, release: Path, tmp_path: Path) -> None:
    observations, expected = expected_of(release / name)
    found = json.loads(json.dumps(outcomes(name, release / name, observations, tmp_path)))
    assert_close(found, expected, name)


@of_each_release
def test_a_released_run_of_the_zoo_is_continued(release: Path, tmp_path: Path) -> None:
    observations, expected = expected_of(release / ZOO_RUN)
    found = json.loads(json.dumps(outcomes_of_zoo_run(release / ZOO_RUN, observations, tmp_path)))
    assert_close(found, expected, ZOO_RUN)


@of_each_release
def test_released_files_are_small_and_name_no_machine(release: Path) -> None:
    paths = [path for path in release.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) < 700_000
    assert not [path for path in paths if names_a_machine(path)]


@pytest.mark.parametrize("text", [b"{'path': '/home/somebody/runs'}", base64.b64encode(b"of /tmp/somebody, who wrote it")])
def test_a_path_is_found_in_a_file(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(text)
    assert names_a_machine(tmp_path / "file")


@of_each_release
def test_the_names_of_classes_in_a_released_configuration_are_found(release: Path) -> None:
    run = run_file.read(release / "configuration")
    policy = import_name(run.hyperparameters["policy"])
    names = ("exploration_kwargs", "replay_buffer_kwargs", "policy_kwargs", "train_freq")
    model = DQNExt(policy, run.env, **{name: run.hyperparameters[name] for name in names}, buffer_size=50)
    assert type(model.policy) is policy
    ((callback, arguments),) = run.hyperparameters["callback"][0].items()
    assert import_name(callback)(**arguments).tau == 0.5
