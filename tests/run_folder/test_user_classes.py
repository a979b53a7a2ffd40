"""Classes that a ``run.json`` names must be of the right kind."""

from dataclasses import replace
from pathlib import Path

import pytest

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.run_folder import run_file, user_classes
from sb3_dqn_ext.run_folder.run_file import RunFile
from sb3_dqn_ext.run_folder.user_classes import import_run_classes
from sb3_dqn_ext.versions import versions

RUN = RunFile("CartPole-v1", "/somewhere", {"gym_packages": ["not_there"]}, {}, None, None, None, versions())


@pytest.mark.parametrize("place", user_classes.NETWORK_HYPERPARAMETERS)
def test_a_class_of_another_kind_is_refused(place: str, tmp_path: Path) -> None:
    hyperparameters = {"policy": "subprocess.Popen"} if place == "policy" else {"policy_kwargs": {place: "subprocess.Popen"}}
    run_file.write(tmp_path, replace(RUN, hyperparameters=hyperparameters))
    with pytest.raises(ArgumentError, match=rf"{place}='subprocess.Popen' is no \w+, and is called with --trust only"):
        import_run_classes(str(tmp_path), False, "")


def test_a_replay_buffer_that_is_not_found_is_no_obstacle(tmp_path: Path) -> None:
    run_file.write(tmp_path, replace(RUN, hyperparameters={"replay_buffer_class": "own_buffers.Buffer"}))
    assert import_run_classes(str(tmp_path), False, "") == {}
    assert import_run_classes(str(tmp_path / "elsewhere"), False, "") == {}
