"""The configurations that come with the package."""

import importlib
from pathlib import Path

import pytest
import yaml

from sb3_dqn_ext import presets
from sb3_dqn_ext.zoo.config import check_config
from tests.paths import ROOT
from tests.processes import output, python


def test_every_configuration_is_a_preset() -> None:
    assert set(presets.preset_paths()) == {path.stem for path in (ROOT / "zoo_configs").rglob("*.yml")}
    assert {"dqn_ext", "rainbow", "munchausen_quantile", "pqn", "btr"} <= set(presets.preset_paths())


@pytest.mark.parametrize("name", presets.preset_paths())
def test_a_preset_is_its_file_read_at_each_access(name: str) -> None:
    check_config(presets.preset_paths()[name])
    module = importlib.import_module(f"sb3_dqn_ext.presets.{name}")
    expected = yaml.safe_load(Path(presets.preset_paths()[name]).read_text())
    assert module.hyperparams == expected
    module.hyperparams.clear()  # the zoo changes what it gets
    assert module.hyperparams == expected
    with pytest.raises(AttributeError):
        module.hyperparameters  # noqa: B018


@pytest.mark.parametrize("name", ["rainbow", "munchausen_quantile", "pqn", "btr"])
def test_a_preset_trains_any_environment_from_the_zoo(name: str, tmp_path: Path) -> None:
    train = f"-m rl_zoo3.train --algo dqn_ext --env Acrobot-v1 -conf sb3_dqn_ext.presets.{name} -n 1100 --eval-freq -1"
    eager = ["-params", "compile:False"] if name == "pqn" else []
    trained = output(python(*train.split(), *eager, cwd=tmp_path))
    assert f"Loading hyperparameters from: sb3_dqn_ext.presets.{name}" in trained
    assert (tmp_path / "logs/dqn_ext/Acrobot-v1_1/Acrobot-v1.zip").is_file()
