import inspect
import json
import re
import venv
from pathlib import Path

import pytest

from sb3_dqn_ext.zoo import _start_hook
from tests.processes import Process, output, python, write_package

HOOK = Path(_start_hook.__file__)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the start-up files and nothing else: no zoo, no torch, not even this package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    (site_packages / "_sb3_dqn_ext_hook.py").write_text(HOOK.read_text())
    (site_packages / "_sb3_dqn_ext_hook.pth").write_text(HOOK.with_suffix(".pth").read_text())
    return folder


def bare_python(bare: Path, code: str, **environment: str) -> Process:
    """Run a line in the bare environment."""
    return python("-c", code, cwd=bare, executable=str(bare / "bin" / "python"), **environment)


def test_the_installed_hook_is_the_one_in_the_source() -> None:
    import _sb3_dqn_ext_hook

    assert inspect.getsource(_sb3_dqn_ext_hook) == HOOK.read_text()


def test_the_hook_imports_only_os_and_sys() -> None:
    code = "import os, sys; before = set(sys.modules); import _start_hook; print(sorted(set(sys.modules) - before))"
    assert output(python("-S", "-c", code, cwd=HOOK.parent)) == "['_start_hook']\n"


def test_the_hook_imports_neither_torch_nor_gymnasium(tmp_path: Path) -> None:
    code = "import sys; print([name in sys.modules for name in ('_sb3_dqn_ext_hook', 'sb3_dqn_ext', 'torch', 'gymnasium')])"
    assert output(python("-c", code, cwd=tmp_path)) == "[True, False, False, False]\n"


def test_the_hook_adds_less_than_a_millisecond_to_the_start_of_python(tmp_path: Path) -> None:
    starts = [python("-X", "importtime", "-c", "pass", cwd=tmp_path).stderr for _ in range(5)]
    microseconds = [int(match[1]) for start in starts if (match := re.search(r"(\d+) \| +_sb3_dqn_ext_hook", start))]
    assert len(microseconds) == len(starts)
    assert min(microseconds) < 1000


def test_the_hook_puts_one_finder_on_the_path_and_obeys_the_switch(bare: Path) -> None:
    code = "import sys; print([type(finder).__name__ for finder in sys.meta_path].count('ZooFinder'))"
    assert output(bare_python(bare, code)) == "1\n"
    assert output(bare_python(bare, f"import _sb3_dqn_ext_hook as hook; hook.install(); {code}")) == "1\n"
    assert output(bare_python(bare, code, SB3_DQN_EXT_NO_HOOK="1")) == "0\n"


def test_without_the_zoo_its_absence_is_all_that_is_reported(bare: Path) -> None:
    process = bare_python(bare, "import rl_zoo3.utils")
    assert process.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'rl_zoo3'"
    assert output(bare_python(bare, "import json")) == ""
    assert bare_python(bare, "import json").stderr == ""


def test_a_zoo_without_some_module_reports_that_module(bare: Path, tmp_path: Path) -> None:
    write_package(tmp_path / "rl_zoo3", __init__="")
    process = bare_python(bare, "import rl_zoo3.exp_manager", PYTHONPATH=str(tmp_path))
    assert process.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'rl_zoo3.exp_manager'"


def test_a_broken_zoo_raises_its_own_error(bare: Path, tmp_path: Path) -> None:
    write_package(tmp_path / "rl_zoo3", __init__="", utils="raise RuntimeError('no GPU for the zoo')")
    process = bare_python(bare, "import rl_zoo3.utils", PYTHONPATH=str(tmp_path))
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == "RuntimeError: no GPU for the zoo"
    assert "Warning" not in process.stderr
    assert "During handling" not in process.stderr


def test_the_zoo_works_where_the_plugin_does_not(bare: Path, tmp_path: Path) -> None:
    write_package(tmp_path / "rl_zoo3", __init__="", utils="ALGOS = {'dqn': object}")
    process = bare_python(bare, "import rl_zoo3.utils; print(list(rl_zoo3.utils.ALGOS))", PYTHONPATH=str(tmp_path))
    assert output(process) == "['dqn']\n"
    assert "dqn_ext could not be added to rl_zoo3.utils: ModuleNotFoundError" in process.stderr


def test_a_newer_zoo_without_the_known_places_is_left_alone_silently(tmp_path: Path) -> None:
    write_package(
        tmp_path / "rl_zoo3",
        __init__="",
        utils="REGISTRY = {}",
        exp_manager="class ExperimentManager:\n    def __init__(self, options): self.options = options",
        hyperparams_opt="HYPERPARAMS_SAMPLER = {}",
    )
    code = """
import inspect
from rl_zoo3 import exp_manager, hyperparams_opt, utils
print(utils.REGISTRY, hasattr(utils, "ALGOS"), hyperparams_opt.HYPERPARAMS_SAMPLER)
print(inspect.signature(exp_manager.ExperimentManager), exp_manager.ExperimentManager(3).options)
"""
    process = python("-c", code, cwd=tmp_path)
    assert output(process) == "{} False {}\n(options) 3\n"
    assert process.stderr == ""


REGISTERED = """
import argparse, importlib, inspect, json, sys
import rl_zoo3.exp_manager, rl_zoo3.hyperparams_opt, rl_zoo3.utils
from rl_zoo3.exp_manager import ExperimentManager
from sb3_dqn_ext.zoo._start_hook import HOOKED_MODULES
from sb3_dqn_ext.zoo import register
from sb3_dqn_ext.zoo.manager import OVERRIDDEN, DQNExtManager, ResumedManager

def config(algo, **kwargs):
    return ExperimentManager(argparse.Namespace(), algo, "CartPole-v1", "logs", **kwargs).config

register(rl_zoo3.exp_manager)
importlib.reload(rl_zoo3.utils)
importlib.reload(rl_zoo3.hyperparams_opt)
print(json.dumps({
    "algos": {name: cls.__name__ for name, cls in rl_zoo3.utils.ALGOS.items() if "dqn" in name},
    "default": config("dqn_ext"),
    "given": config("dqn_ext", config="mine.yml"),
    "stock": config("dqn"),
    "search_space": [
        places["dqn_ext"].__module__
        for places in (rl_zoo3.hyperparams_opt.HYPERPARAMS_SAMPLER, rl_zoo3.hyperparams_opt.HYPERPARAMS_CONVERTER)
    ],
    "signature": str(inspect.signature(ExperimentManager)),
    "managers": [cls.__module__ for cls in ExperimentManager.__mro__],
    "overridden": sorted(
        {name for kind in (DQNExtManager, ResumedManager) for name in vars(kind) if not name.startswith("__")}
        & vars(DQNExtManager.__base__).keys()
    ),
    "listed": sorted(OVERRIDDEN),
    "of_train": importlib.import_module("rl_zoo3.train").ExperimentManager is ExperimentManager,
    "loaders": [type(module.__spec__.loader).__name__ for name, module in sys.modules.items() if name in HOOKED_MODULES],
    "finders": [type(finder).__name__ for finder in sys.meta_path].count("ZooFinder"),
}))
"""


@pytest.mark.parametrize(
    ("first", "hook"),
    [
        ("", "0"),
        ("import sb3_dqn_ext.zoo", "0"),
        ("import sb3_dqn_ext.zoo", "1"),
        ("import sys; sys.modules['_sb3_dqn_ext_hook'] = None; import sb3_dqn_ext.zoo", "1"),
        ("import rl_zoo3.utils; assert 'dqn_ext' not in rl_zoo3.utils.ALGOS; import sb3_dqn_ext.zoo", "1"),
        ("import rl_zoo3.train; assert 'dqn_ext' not in rl_zoo3.utils.ALGOS; import sb3_dqn_ext.zoo", "1"),
    ],
    ids=["hook", "both", "import before the zoo", "not installed", "import after a part of the zoo", "import after the zoo"],
)
def test_the_zoo_knows_the_algorithm(first: str, hook: str, tmp_path: Path) -> None:
    process = python("-c", f"{first}\n{REGISTERED}", cwd=tmp_path, SB3_DQN_EXT_NO_HOOK=hook)
    said = json.loads(output(process))
    assert said["algos"] == {"dqn": "DQN", "qrdqn": "QRDQN", "dqn_ext": "DQNExt"}
    assert Path(said["default"]).parts[-2:] == ("zoo_configs", "dqn_ext.yml")
    assert Path(said["default"]).is_file()
    assert said["given"] == "mine.yml"
    assert Path(said["stock"]).parts[-2:] == ("hyperparams", "dqn.yml")
    assert said["search_space"] == ["sb3_dqn_ext.zoo.search_space"] * 2
    assert said["signature"].startswith("(args: argparse.Namespace, algo: str, env_id: str")
    assert said["managers"] == ["sb3_dqn_ext.zoo.manager", "rl_zoo3.exp_manager", "builtins"]
    assert said["overridden"] == said["listed"]
    assert said["of_train"]
    assert said["loaders"] == ["SourceFileLoader"] * 3
    assert said["finders"] == 1
    assert process.stderr == ""


def test_the_switch_leaves_the_zoo_as_it_is(tmp_path: Path) -> None:
    code = "import rl_zoo3.exp_manager, sys; print('dqn_ext' in rl_zoo3.ALGOS, 'sb3_dqn_ext' in sys.modules)"
    assert output(python("-c", code, cwd=tmp_path, SB3_DQN_EXT_NO_HOOK="1")) == "False False\n"


def test_a_users_own_algorithm_of_that_name_stays() -> None:
    from types import ModuleType

    from sb3_dqn_ext.zoo import register

    utils = ModuleType("rl_zoo3.utils")
    utils.ALGOS = {"dqn_ext": "mine"}  # type: ignore[attr-defined]
    register(utils)
    assert utils.ALGOS == {"dqn_ext": "mine"}
