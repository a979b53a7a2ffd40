"""
A pytest plugin that replaces a class of another package by ours, before the tests of that package import it.

Run ``python -m pytest -p tests.stand_in --of stable_baselines3.DQN --ours --outcomes FILE`` in the folder of those tests.
Without ``--ours``, the same tests run with the original class. Tests that do not concern the class are left out.
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
REPLACED_CLASS = pytest.StashKey[type[BaseAlgorithm]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    Add the options of this plugin.

    :param parser: the parser of pytest's command line
    """
    parser.addoption("--of", choices=list(STAND_INS), help="the class to replace, as its tests import it")
    parser.addoption("--ours", action="store_true", help="replace the class by ours")
    parser.addoption("--outcomes", type=Path, help="write the outcome of each test to this file")


def pytest_configure(config: pytest.Config) -> None:
    """
    Replace the class.

    :param config: pytest's configuration
    """
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
    config.stash[REPLACED_CLASS] = getattr(import_module(module), name)


def pytest_make_parametrize_id(config: pytest.Config, val: object) -> str | None:
    """
    Return the same test id for the original class and for ours, so that outcomes can be compared.

    :param config: pytest's configuration
    :param val: the value of a parameter
    """
    replaced = config.stash.get(REPLACED_CLASS, None)
    return config.getoption("--of").rpartition(".")[2] if replaced is not None and val is replaced else None


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)


def _concerns(item: pytest.Item, replaced: type[BaseAlgorithm], name: str) -> bool:
    """Return whether a test concerns a class: it is a parameter, or no algorithm is one and the source names the class."""
    assert isinstance(item, pytest.Function)
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    algorithms = {part for part in _parts(parameters) if inspect.isclass(part) and issubclass(part, BaseAlgorithm)}
    return replaced in algorithms if algorithms else name in inspect.getsource(item.function)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Deselect the tests that do not concern the class.

    :param config: pytest's configuration
    :param items: the collected tests
    """
    if REPLACED_CLASS in config.stash:
        name = config.getoption("--of").rpartition(".")[2]
        kept = [item for item in items if _concerns(item, config.stash[REPLACED_CLASS], name)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


class Outcomes:
    """
    A recorder of the outcomes of all tests.

    :param path: the JSON file to write: ``{name: ["passed", ""], name: ["failed", last line of the error], ...}``
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.of_test: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """
        Record the worst outcome of the three phases of a test.

        :param report: the report on one phase
        """
        if report.when == "call" or report.outcome != "passed":
            lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            self.of_test[report.nodeid] = report.outcome, "".join(lines[-1:])[2:].strip()

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        self.path.write_text(json.dumps(self.of_test))
