"""
A pytest plugin that puts a class of ours in the place of another package's, before the tests of that package import it.

``python -m pytest -p tests.stand_in --of stable_baselines3.DQN --ours --outcomes FILE`` in the folder of those tests. Without
``--ours`` the same tests run with their own class. Tests that have nothing to do with the class are left out.
"""

import inspect
import json
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.dqn.policies import DQNPolicy

STAND_INS = {"stable_baselines3.DQN": "sb3_dqn_ext.DQNExt", "sb3_contrib.QRDQN": "tests.quantile_dqn.QuantileDQN"}
TAKEN = pytest.StashKey[type[BaseAlgorithm]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """:param parser: of pytest's command line"""
    parser.addoption("--of", choices=list(STAND_INS), help="the class, as its tests import it")
    parser.addoption("--ours", action="store_true", help="put ours in its place")
    parser.addoption("--outcomes", type=Path, help="write here how each test ended")


def pytest_configure(config: pytest.Config) -> None:
    """:param config: pytest's configuration"""
    config.pluginmanager.register(Outcomes(config.getoption("--outcomes")))
    path = config.getoption("--of")
    if path is None:
        return
    module, _, name = path.rpartition(".")
    if config.getoption("--ours"):
        own_module, _, own_name = STAND_INS[path].rpartition(".")
        setattr(import_module(module), name, getattr(import_module(own_module), own_name))
        # the tests of QRDQN call a policy's networks by these names
        DQNPolicy.quantile_net = property(attrgetter("q_net"))  # type: ignore[attr-defined]
        DQNPolicy.quantile_net_target = property(attrgetter("q_net_target"))  # type: ignore[attr-defined]
    config.stash[TAKEN] = getattr(import_module(module), name)


def pytest_make_parametrize_id(config: pytest.Config, val: object) -> str | None:
    """
    :param config: pytest's configuration
    :param val: a value of a parameter
    :return: for either class the same name
    """
    taken = config.stash.get(TAKEN, None)
    return config.getoption("--of").rpartition(".")[2] if taken is not None and val is taken else None


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)


def _concerns(item: pytest.Item, taken: type[BaseAlgorithm], name: str) -> bool:
    """Whether a test is about that class: it is a parameter, or no algorithm is one and the class is named in the test."""
    assert isinstance(item, pytest.Function)
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    algorithms = {part for part in _parts(parameters) if inspect.isclass(part) and issubclass(part, BaseAlgorithm)}
    return taken in algorithms if algorithms else name in inspect.getsource(item.function)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    :param config: pytest's configuration
    :param items: the tests that were found
    """
    if TAKEN in config.stash:
        name = config.getoption("--of").rpartition(".")[2]
        kept = [item for item in items if _concerns(item, config.stash[TAKEN], name)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


class Outcomes:
    """
    How each test ended.

    :param path: the JSON file to write: ``{name: ["passed", ""], name: ["failed", the last line], ...}``
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.of_test: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """:param report: of one of the three phases of a test; the worst counts"""
        if report.when == "call" or report.outcome != "passed":
            lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            self.of_test[report.nodeid] = report.outcome, "".join(lines[-1:])[2:].strip()

    def pytest_sessionfinish(self) -> None:
        """All tests have ended."""
        self.path.write_text(json.dumps(self.of_test))
