"""Files that earlier versions wrote are read by this one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.serialization.migrations import SCHEMA
from tests.data.write import STEPS, made, q_values
from tests.paths import DATA

RELEASED = sorted(DATA.glob("schema_*"))


def expected_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return found


def check(model: DQNExt, expected: dict[str, Any]) -> None:
    observations = np.array(expected["observations"], np.float32)
    assert model.num_timesteps == expected["num_timesteps"] == STEPS
    assert model.predict(observations, deterministic=True)[0].tolist() == expected["actions"]
    np.testing.assert_allclose(q_values(model, observations), expected["q_values"], rtol=1e-4, atol=1e-5)
    assert model.lr_schedule(0.75) == expected["learning_rate"]


def test_there_are_files_of_each_earlier_version() -> None:
    names = [folder.name for folder in RELEASED]
    assert names == [f"schema_{version}" for version in range(1, SCHEMA)]


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_a_released_model_is_loaded_and_trained_on(folder: Path) -> None:
    model = DQNExt.load(folder / "model")
    check(model, expected_of(folder))
    assert model.target_policy == "double"
    model.set_env(made().get_env())  # type: ignore[arg-type]
    model.learn(40, reset_num_timesteps=False)
    assert model.num_timesteps == STEPS + 40


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_a_released_checkpoint_is_resumed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "checkpoint", tmp_path / "checkpoint")
    model = made().resume(tmp_path / "checkpoint")
    expected = expected_of(folder)
    check(model, expected)
    assert model.replay_buffer is not None
    assert model.replay_buffer.rewards.sum() == expected["rewards"]
    model.learn(STEPS + 40)
    assert model.num_timesteps == STEPS + 40


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_released_files_are_small(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 200_000
