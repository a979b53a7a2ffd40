"""The wheels for a machine without a package index."""

from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.pack import PROJECT, main, requirements


def test_all_requirements_are_listed_but_those_that_are_present() -> None:
    packages = requirements(PROJECT, ["zoo"], ["torch"], "3.12")
    assert packages == sorted(set(packages))
    # of the project, of SB3's extra, of the zoo
    for name in ("stable-baselines3", "gymnasium", "tensorboard", "rl-zoo3", "optuna"):
        assert f"{name}=={version(name)}" in packages
    names = {package.partition("==")[0] for package in packages}
    assert not names & {"torch", "sympy"}  # sympy is a requirement of torch only
    assert "rl-zoo3" not in {package.partition("==")[0] for package in requirements(PROJECT, [], ["torch"], "3.12")}


@pytest.mark.slow
def test_the_folder_holds_a_wheel_of_each(tmp_path: Path) -> None:
    everything = [package.partition("==")[0] for package in requirements(PROJECT, [], [], "3.12")]
    main([str(tmp_path), "--extras", "--python", "3.12", "--present", *(set(everything) - {"gymnasium", "cloudpickle"})])
    names = sorted(wheel.name.partition("-")[0] for wheel in tmp_path.iterdir())
    assert names == ["cloudpickle", "gymnasium", "sb3_dqn_ext"]
