"""``run.json`` holds a configuration as plain data."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import TimeAwareObservation
from torch import nn

from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.run_folder.run_file import RunFile
from sb3_dqn_ext.serialization.migrations import SCHEMA
from sb3_dqn_ext.versions import versions
from tests.parity import assert_same

RUN = RunFile("CartPole-v1", "/somewhere", {"seed": 1}, {"policy": "MlpPolicy"}, "checkpoints", None, None, versions())


def test_run_json_holds_what_a_configuration_says(tmp_path: Path) -> None:
    names = {"nn": nn, "dict": dict}
    hyperparameters = OrderedDict(
        policy="MlpPolicy",
        policy_kwargs="dict(net_arch=[16, 2 * 8], activation_fn=nn.Tanh)",
        normalize="{'norm_obs': True}",
        env_wrapper=[{TimeAwareObservation: {"normalize_time": True}}, "a.B"],
        env_kwargs={"size": (3, [4])},
        learning_rate="lin_0.01",
        gamma=np.float64(0.9),
        n_steps=np.int64(3),
    )
    run_file.write(tmp_path, replace(RUN, hyperparameters=run_file.evaluate_and_encode(hyperparameters, names)))
    assert_same(
        run_file.read(tmp_path).hyperparameters,
        {
            "policy": "MlpPolicy",
            "policy_kwargs": {"net_arch": [16, 16], "activation_fn": "torch.nn.modules.activation.Tanh"},
            "normalize": {"norm_obs": True},
            "env_wrapper": [
                {"gymnasium.wrappers.stateful_observation.TimeAwareObservation": {"normalize_time": True}},
                "a.B",
            ],
            "env_kwargs": {"size": (3, [4])},
            "learning_rate": "lin_0.01",
            "gamma": 0.9,
            "n_steps": 3,
        },
        "hyperparameters",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


class Local:
    class Activation(nn.Tanh):
        """Not found by its name in a module."""


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"learning_rate": np.sin}, r"learning_rate is <ufunc 'sin'>, which is no plain data"),
        (
            {"policy_kwargs": {"activation_fn": Local.Activation}},
            r"policy_kwargs\.activation_fn is the class .*Local\.Activation,",
        ),
        ({"env_kwargs": {"kind": nn.Tanh}}, r"env_kwargs\.kind is <class"),
        ({"env_kwargs": {"__tuple__": 3}}, r"env_kwargs is \{'__tuple__': 3\}"),
        ({"env_kwargs": {1: 3}}, r"env_kwargs is \{1: 3\}"),
        ({"env_kwargs": {"at": [{3}]}}, r"env_kwargs\.at\.0 is \{3\}"),
    ],
    ids=["a function", "a hidden class", "a class", "a marker", "a number as a key", "a set"],
)
def test_what_run_json_cannot_hold_is_named(hyperparameters: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run_file.evaluate_and_encode(hyperparameters, {})


def test_classes_that_have_moved_since_are_found(tmp_path: Path) -> None:
    schedule = {"sb3_dqn_ext.schedules.LinearSchedule": {"start": 1.0}}
    run_file.write(
        tmp_path, replace(RUN, hyperparameters={"policy": "sb3_dqn_ext.policies.MlpPolicy", "callback": [schedule]})
    )
    path = tmp_path / run_file.FILE_NAME
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 1'))
    hyperparameters = run_file.read(tmp_path).hyperparameters
    assert hyperparameters["policy"] == "sb3_dqn_ext.networks.policies.MlpPolicy"
    assert hyperparameters["callback"] == [{"sb3_dqn_ext.algorithm.schedules.LinearSchedule": {"start": 1.0}}]
