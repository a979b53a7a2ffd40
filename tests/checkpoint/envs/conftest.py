"""What all tests of the states of environments need."""

import importlib
import warnings
from collections.abc import Iterator

import pytest
from stable_baselines3.common.vec_env import (
    VecEnv,
)


@pytest.fixture(scope="module", autouse=True)
def box2d() -> None:
    """Its compiled part warns at its import, and does not survive that a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("Box2D")


@pytest.fixture
def made() -> Iterator[list[VecEnv]]:
    """Environments that are closed when the test has ended."""
    venvs: list[VecEnv] = []
    yield venvs
    for venv in venvs:
        venv.close()
