"""The algorithms that diagnostics work with."""

from typing import Any

import pytest

from tests.closed_form_env import ALGORITHMS


@pytest.fixture(params=ALGORITHMS, ids=lambda algorithm: algorithm.__name__)
def algorithm(request: pytest.FixtureRequest) -> Any:
    return request.param
