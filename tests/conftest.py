"""What all tests begin with."""

import signal
from collections.abc import Iterator

import pytest

from tests.forks import Processes

# A shell that runs the tests in its background makes them ignore Ctrl-C, and with them the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def processes(request: pytest.FixtureRequest) -> Iterator[Processes]:
    """A server that forks for the functions of the module of the test."""
    started = Processes(request.module.__name__)
    yield started
    started.close()
