"""Files that earlier versions wrote are read by this one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.checkpoint.folder import read
from sb3_dqn_ext.serialization.migrations import SCHEMA
from sb3_dqn_ext.serialization.names import import_name
from sb3_dqn_ext.zoo import run_file
from tests.data.write import CASES, STEPS, made, made_as, q_values
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
@pytest.mark.parametrize("case", CASES)
def test_released_files_with_other_choices_are_read(folder: Path, case: str, tmp_path: Path) -> None:
    model, resumed = DQNExt.load(folder / case), made_as(case)
    shutil.copytree(folder / f"{case}_checkpoint", tmp_path / "checkpoint")
    resumed.resume(tmp_path / "checkpoint")
    assert model.num_timesteps == resumed.num_timesteps == 60
    for name in ("exploration", "exploration_kwargs", "replay_buffer_kwargs", "policy_kwargs"):
        assert getattr(model, name) == getattr(resumed, name)
    for name, tensor in model.policy.state_dict().items():
        assert tensor.equal(resumed.policy.state_dict()[name])
    resumed.learn(80)
    model.set_env(made_as(case).get_env())  # type: ignore[arg-type]
    model.learn(20, reset_num_timesteps=False)
    assert model.num_timesteps == resumed.num_timesteps == 80
    newest = read(resumed.save_checkpoint(tmp_path / "checkpoint"))
    assert len(newest.segments["rows"]) == 2  # the rows of the first are not written again
    again = made_as(case).resume(tmp_path / "checkpoint")
    for name, tensor in resumed.policy.state_dict().items():
        assert tensor.equal(again.policy.state_dict()[name])


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_the_configuration_of_a_released_run_makes_a_model(folder: Path) -> None:
    run = run_file.read(folder)
    assert (run.env, run.hyperparameters["train_freq"], run.hyperparameters["n_timesteps"]) == (
        "CartPole-v1",
        (4, "step"),
        1000,
    )
    policy = import_name(run.hyperparameters["policy"])
    names = ("exploration_kwargs", "replay_buffer_kwargs", "policy_kwargs", "train_freq")
    model = DQNExt(policy, run.env, **{name: run.hyperparameters[name] for name in names}, buffer_size=50)
    assert type(model.policy) is policy
    ((callback, arguments),) = run.hyperparameters["callback"][0].items()
    assert import_name(callback)(**arguments).tau == 0.5


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_released_files_are_small(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 250_000
