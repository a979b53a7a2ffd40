"""Fixtures of all tests."""

import signal
import sys
from collections.abc import Iterator

import pytest
import torch as th
from stable_baselines3.common.vec_env import VecEnv

from tests.box2d import import_box2d
from tests.forks import Processes

# A shell that runs the tests in its background makes them, and the processes they start, ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Sums over a batch have other bits with another number of threads. The processes that tests start have one, too.
th.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests that need a GPU where there is none."""
    if item.get_closest_marker("cuda") is not None and not th.cuda.is_available():
        pytest.skip("no CUDA device is present")


def pytest_runtest_teardown() -> None:
    """Check that a test has not imported the zoo into this process: it changes gymnasium for the tests that follow."""
    assert "rl_zoo3" not in sys.modules, "import the zoo in a process of its own"


@pytest.fixture(scope="module")
def processes(request: pytest.FixtureRequest) -> Iterator[Processes]:
    """A server that forks a process for each function of the test's module that a test runs in another process."""
    started = Processes(request.module.__name__)
    yield started
    started.close()


@pytest.fixture(scope="module")
def box2d() -> None:
    """Box2D, imported without the warnings of its compiled part."""
    import_box2d()


@pytest.fixture
def open_envs() -> Iterator[list[VecEnv]]:
    """A list of vectorised environments, which are closed when the test has ended."""
    venvs: list[VecEnv] = []
    yield venvs
    for venv in venvs:
        venv.close()
