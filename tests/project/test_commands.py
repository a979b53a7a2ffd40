"""
Check that the names in pages, configurations, results and the Makefile exist: commands and their arguments, targets of make,
keys of YAML, imports and dotted names of Python.
"""

import ast
import importlib.util
import inspect
import itertools
import json
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import pytest
import yaml
from stable_baselines3.common.envs import FakeImageEnv

from sb3_dqn_ext import DQNExt, presets
from sb3_dqn_ext._validation import resolve_class
from sb3_dqn_ext.envs import ActionMaskInObservation
from sb3_dqn_ext.zoo.config import check_config
from tests.pages import DOCS, PAGES, Block, Command, blocks, commands, write_modules
from tests.paths import ROOT
from tests.processes import output, python

MARKDOWN = [ROOT / "README.md", *(DOCS / page for page in PAGES)]
CONFIGURATIONS = sorted((ROOT / "zoo_configs").rglob("*.yml"))
TEXTS = [*MARKDOWN, *CONFIGURATIONS, *sorted((DOCS / "results").glob("*.csv"))]
BLOCKS = [block for path in MARKDOWN for block in blocks(path)]
MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE))
VARIABLES = dict(re.findall(r"^(\w+) [?:]?= (.*)", MAKEFILE, flags=re.MULTILINE))
OWN_ENVS = {env for block in BLOCKS if block.is_module for env in re.findall(r'gym\.register\("([^"]+)"', block.text)}
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))


def in_sentences(path: Path) -> Iterator[Command]:
    """Find the commands in the sentences of a page. ``...`` is for any arguments, ``COMMAND`` for a command of the zoo."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`((?:python3?|make|sb3-dqn-ext)\s[^`]+)`", text):
        line = span.replace(" ...", "").replace("COMMAND", "train")
        yield from commands(path.relative_to(ROOT).as_posix(), line, is_whole=False)


def in_recipes() -> Iterator[Command]:
    """Find the commands of the Makefile, and the examples in its comments."""
    values = VARIABLES | {"MAKE": "make", "EXTRAS": "dev"}
    lines = re.findall(r"^\t(?!@|test |touch )((?:.*\\\n)*.*\n)", MAKEFILE, flags=re.MULTILINE)
    text = re.sub(r"\$[@<]|\$\(@D\)/", "", "".join(lines))
    while "$(" in text:
        text = re.sub(r"\$\(([^()]+)\)", lambda match: values[match[1]], text)
    yield from commands("Makefile", text)
    for example in re.findall(r"e\.g\. (make .*)", MAKEFILE):
        yield from commands("Makefile", example)


COMMANDS = [
    *(command for block in BLOCKS if block.language == "bash" for command in commands(block.where, block.text)),
    *(command for path in TEXTS for command in in_sentences(path)),
    *in_recipes(),
]

# -- commands --------------------------------------------------------------------------------------------------------------

# The programs' own parsers parse the commands, all in one process.
PARSE = """
import argparse, json, runpy, sys
class Parsed(Exception):
    pass
parse, fail = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.error
def parse_and_stop(*args, **kwargs):
    parse(*args, **kwargs)
    raise Parsed
def fail_or_stop(parser, message):
    if not is_whole and message.startswith("the following arguments are required"):
        raise Parsed
    fail(parser, message)
argparse.ArgumentParser.parse_args, argparse.ArgumentParser.error = parse_and_stop, fail_or_stop
with open(sys.argv[1]) as file:
    commands = json.load(file)
for where, module, arguments, is_whole in commands:
    print(where, module, *arguments, file=sys.stderr)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Parsed:
        print("parsed")
    else:
        if not arguments and not is_whole:  # a command line has printed the list of its commands
            print("parsed")
"""


def source_of(module: str) -> str | None:
    """Return the source that ``python -m module`` runs, None if there is no such module. No package is imported."""
    package, *names = module.split(".")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    place = Path(found.origin).parent.joinpath(*names)
    files = (place / "__main__.py", place.with_suffix(".py"), Path(found.origin))
    return next((file.read_text() for file in files[: 2 if names else 3] if file.is_file()), None)


# a warning of the import hook of setuptools, which replaces distutils when pip is imported
@pytest.mark.filterwarnings("ignore:Setuptools is replacing distutils")
def test_every_module_exists_and_its_parser_accepts_the_arguments(tmp_path: Path) -> None:
    parsed = []
    for command in COMMANDS:
        if command.module is not None:
            source = source_of(command.module)
            assert source is not None, command
            if "argparse" in source or command.module.partition(".")[0] in ("rl_zoo3", "sb3_dqn_ext"):
                parsed.append((command.where, command.module, command.words[3:], command.is_whole))
    assert len(parsed) >= 40
    (tmp_path / "commands.json").write_text(json.dumps(parsed))
    assert output(python("-c", PARSE, str(tmp_path / "commands.json"), cwd=ROOT)).count("parsed\n") == len(parsed)


def test_every_target_of_make_exists_with_its_variables() -> None:
    made = [command for command in COMMANDS if command.words[0] == "make"]
    assert len(made) >= 15
    for command in made:
        for word in [word for word in command.words[1:] if not word.startswith(".")]:  # no file
            assert word.partition("=")[0] in (VARIABLES if "=" in word else TARGETS), command


def test_every_other_command_is_marked_as_not_run() -> None:
    for block in BLOCKS:
        for command in commands(block.where, block.text) if block.language == "bash" else ():
            if command.module is None and command.words[0] != "make":
                assert block.mark.startswith("not run") or block.page == "README.md", block.where


def test_files_environments_configurations_and_extras_in_commands_exist() -> None:
    gym.register_envs(ale_py)  # as the zoo does
    for command in COMMANDS:
        for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(command.words)):
            assert EXTRAS.issuperset(extras.split(",")), command
        for argument, value in itertools.pairwise(command.words):
            if argument in ("--env", "-e") and str(command.module).startswith(("rl_zoo3", "sb3_dqn_ext")):
                assert value in gym.registry or value in OWN_ENVS, command
            if argument == "-conf" and value.startswith("sb3_dqn_ext.presets."):
                assert value.removeprefix("sb3_dqn_ext.presets.") in presets.preset_paths(), command
            elif (argument == "-conf" and value != "my_config.yml") or value.startswith(("tests/", "docs/")):
                assert (ROOT / value).exists(), command


# -- YAML ------------------------------------------------------------------------------------------------------------------

CLASS_KEYS = ("env_wrapper", "vec_env_wrapper", "callback")
KEYS_OF_THE_ZOO = {"n_timesteps", "n_envs", "normalize", "frame_stack", *CLASS_KEYS}


def classes_of(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the dotted names of the classes of a key of the zoo, and their arguments."""
    for one in value if isinstance(value, list) else [value]:
        yield from one.items() if isinstance(one, dict) else [(one, {})]


def check_classes(key: str, value: Any) -> None:
    """Check that classes of a key of the zoo exist and have these arguments."""
    for name, kwargs in classes_of(value):
        inspect.signature(resolve_class(key, name, {})).bind_partial(**kwargs)


def yaml_texts() -> dict[str, str]:
    """Return the configurations by their places. An indented part of one gets the name of an environment."""
    found = {path.relative_to(ROOT).as_posix(): path.read_text() for path in CONFIGURATIONS}
    for block in BLOCKS:
        if block.language == "yaml" and "variants:" not in block.text:  # that describes a sweep
            found[block.where] = f"CartPole-v1:\n{block.text}" if block.text.startswith(" ") else block.text
    return found


@pytest.mark.parametrize("where", yaml_texts())
def test_the_zoo_accepts_the_configuration(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = yaml_texts()[where]
    write_modules(BLOCKS, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf.yml").write_text(text)
    check_config(tmp_path / "conf.yml")
    for given in yaml.safe_load(text).values():
        for key in given.keys() & CLASS_KEYS:
            check_classes(key, given[key])
        arguments = {key: value for key, value in given.items() if key not in KEYS_OF_THE_ZOO}
        if isinstance(given.get("learning_rate"), str):  # lin_0.001, which the zoo converts to a schedule
            del arguments["learning_rate"]
        policy = arguments.pop("policy", "MlpPolicy")
        env: gym.Env[Any, Any] = FakeImageEnv(discrete=True) if policy == "CnnPolicy" else gym.make("CartPole-v1")
        if "demonstrations" in arguments.get("replay_buffer_kwargs", {}):
            import_module("energy_pumping").record("demonstrations.npz", 1)
            env = gym.make("MountainCar-v0")
        if arguments.get("policy_kwargs", {}).get("action_masks"):
            env = ActionMaskInObservation(gym.make("Taxi-v4"), "info")
        DQNExt(policy, env, **{**arguments, "buffer_size": 1000})


def test_the_callbacks_of_make_train_exist() -> None:
    check_classes("callback", ast.literal_eval(VARIABLES["DIAGNOSTICS"]))


# -- Python ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=lambda block: block.where)
def test_the_imports_of_python_resolve(block: Block) -> None:
    for statement in ast.walk(ast.parse(block.text)):
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("sb3_dqn_ext"):
            for alias in statement.names:
                pkgutil.resolve_name(f"{statement.module}:{alias.name}")


@pytest.mark.parametrize("path", [*TEXTS, ROOT / "Makefile"], ids=lambda path: path.name)
def test_dotted_names_resolve(path: Path) -> None:
    for name in re.findall(r"(?<![\w/.])sb3_dqn_ext(?:\.\w+)+", path.read_text()):
        pkgutil.resolve_name(name)
