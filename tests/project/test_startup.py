"""Check the cost of importing the plugin."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.processes import output, python

HEAVY = ("torch._dynamo", "torch._inductor", "rl_zoo3", "sb3_contrib", "optuna", "jax", "yaml", "scipy", "seaborn")


def loaded(statement: str, folder: Path) -> set[str]:
    """Return the modules that are imported after a statement."""
    return set(output(python("-c", f"{statement}; import sys; print(*sys.modules)", cwd=folder)).split())


def test_nothing_heavy_is_imported_that_sb3_does_not_import(tmp_path: Path) -> None:
    ours = loaded("from sb3_dqn_ext import DQNExt", tmp_path) - loaded("import stable_baselines3", tmp_path)
    assert "sb3_dqn_ext.dqn_ext" in ours
    assert not [module for module in ours if module.startswith(HEAVY)]


def test_the_package_itself_registers_its_environments_without_torch(tmp_path: Path) -> None:
    statement = "import gymnasium, sb3_dqn_ext; assert 'dqn_ext/CartPoleNoVel-v1' in gymnasium.registry"
    assert "torch" not in loaded(statement, tmp_path)


def seconds(folder: Path, *arguments: str, **environment: str) -> float:
    start = time.perf_counter()
    output(python(*arguments, cwd=folder, **environment))
    return time.perf_counter() - start


def ratio(ours: Callable[[], float], theirs: Callable[[], float], repeats: int = 9) -> float:
    """Return the median of the ratios of successive measurements."""
    return float(np.median([ours() / theirs() for _ in range(repeats)]))


@pytest.mark.slow
def test_the_import_takes_at_most_a_tenth_longer_than_that_of_sb3(tmp_path: Path) -> None:
    found = ratio(
        lambda: seconds(tmp_path, "-c", "from sb3_dqn_ext import DQNExt"),
        lambda: seconds(tmp_path, "-c", "import stable_baselines3"),
    )
    print(f"import sb3_dqn_ext over import stable_baselines3: {found:.3f}")
    assert found <= 1.1


@pytest.mark.slow
def test_the_help_of_the_zoo_is_not_slower_with_the_start_up_hook(tmp_path: Path) -> None:
    command = ["-m", "rl_zoo3.train", "--help"]
    found = ratio(lambda: seconds(tmp_path, *command), lambda: seconds(tmp_path, *command, SB3_DQN_EXT_NO_HOOK="1"))
    print(f"the zoo's --help with the hook over without: {found:.3f}")
    assert found <= 1.1
