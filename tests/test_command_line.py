"""The command line ``sb3-dqn-ext``: its list of commands, its errors, and the examples in the help of each command."""

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sb3_dqn_ext import __main__, _command_line
from sb3_dqn_ext._version import __version__
from sb3_dqn_ext.errors import ModelFileError
from sb3_dqn_ext.zoo.__main__ import COMMANDS as COMMANDS_OF_THE_ZOO_MODULE
from sb3_dqn_ext.zoo.commands import ZOO_COMMANDS
from tests.processes import Process, output, python

MAIN = ("-m", "sb3_dqn_ext")


@pytest.fixture(autouse=True)
def _script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the program as its script does."""
    monkeypatch.setattr(sys, "argv", ["/home/me/.venv/bin/sb3-dqn-ext"])


def shell(command: str, cwd: Path) -> Process:
    """Run a command as it is pasted into a shell in which this interpreter is ``python``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, shell=True, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def examples(text: str) -> list[str]:
    """The commands at the end of a help text."""
    found = re.search(r"^examples?:\n((?:  .+\n?)+)", text, flags=re.MULTILINE)
    assert found, text
    return [line.strip() for line in found[1].splitlines()]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_commands_are_listed_with_one_line_each(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    __main__.main(arguments)
    listed = dict(re.findall(r"^  ([a-z-]+) +(\w.*)$", capsys.readouterr().out, flags=re.MULTILINE))
    assert listed == {name: command.summary for name, command in __main__.COMMANDS.items()}
    assert list(listed) == ["train", "advise", "enjoy", "record-video", "resume", "sweep", "plot", "report", "export"]


def test_the_list_and_the_version_are_printed_without_torch(tmp_path: Path) -> None:
    code = "import sys; from sb3_dqn_ext.__main__ import main; main({}); print('torch' in sys.modules, file=sys.stderr)"
    for arguments in ([], ["--help"], ["--version"]):
        process = python("-c", code.format(arguments), cwd=tmp_path)
        assert (process.returncode, process.stderr) == (0, "False\n")
    assert output(python(*MAIN, "--version", cwd=tmp_path)) == f"sb3-dqn-ext {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--version"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_ended_is_no_error(arguments: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *MAIN, *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_word_that_is_close_to_no_command_is_answered_by_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["-v"])
    assert capsys.readouterr().err.endswith(", sweep, train. `sb3-dqn-ext --help` describes them.\n")


@pytest.mark.parametrize(("word", "closest"), [("trian", "train"), ("recordvideo", "record-video"), ("--raport", "report")])
def test_a_mistyped_command_is_answered_by_the_closest(word: str, closest: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        __main__.main([word])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith(f"sb3-dqn-ext: command={word!r} is not known; it can be one of: advise, enjoy, ")
    assert f"Did you mean {closest!r}?" in printed.err


def test_a_mistyped_command_of_the_zoo_module_ends_with_the_same_code(tmp_path: Path) -> None:
    process = python("-m", "sb3_dqn_ext.zoo", "trian", cwd=tmp_path)
    assert process.returncode == 2
    assert "command='trian' is not known" in process.stderr
    assert "Did you mean 'train'?" in process.stderr
    assert "Traceback" not in process.stderr


RECORDED: list[tuple[list[str], str]] = []


def main(arguments: list[str], program: str) -> None:
    """Record a call, in the place of the ``main`` of a command."""
    RECORDED.append((arguments, program))


def test_a_command_is_one_line_of_a_table_and_underscores_are_hyphens() -> None:
    commands = {"make-film": _command_line.Command("make a film", __name__, "zoo", ("--first",))}
    _command_line.run_command("prog", commands, ["make_film", "--n_steps=a_b", "some_file", "-x_y"])
    assert RECORDED.pop() == (["--first", "--n-steps=a_b", "some_file", "-x_y"], "prog make-film")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_command_line.EXTRAS, "zoo", ("sb3_dqn_ext", "not_installed"))
    with pytest.raises(SystemExit, match=r"^sb3-dqn-ext train needs not_installed: pip install 'sb3-dqn-ext\[zoo\]'$"):
        __main__.main(["train"])


def test_the_extras_install_the_modules_that_commands_need() -> None:
    for command in {**__main__.COMMANDS, **COMMANDS_OF_THE_ZOO_MODULE}.values():
        assert command.extra is None or command.extra in _command_line.EXTRAS


# -- help ------------------------------------------------------------------------------------------------------------------

# All commands in one process, which imports the zoo once. The zoo's push_to_hub cannot be imported with huggingface_sb3 3.2.
HELP_OF_ALL = """
import sys
from sb3_dqn_ext.zoo import commands, resume
from sb3_dqn_ext.plot import __main__ as plot
names, kinds = map(str.split, sys.argv[1:])
for name in names:
    try:
        commands.main([name, "--help"], f"prog {name}")
    except SystemExit as error:
        print("exit", error.code)
for kind in kinds:
    try:
        plot.main(["--kind", kind, "--help"], "prog plot")
    except SystemExit as error:
        print("exit", error.code)
"""
KINDS = ("learning", "evaluations", "scores", "run", "log", "calibration", "calibration_log", "panels", "map")


def test_the_help_of_each_command_of_the_zoo_and_each_kind_of_plot_has_an_example(tmp_path: Path) -> None:
    names = [name for name in ZOO_COMMANDS if name != "push-to-hub"]
    arguments = (" ".join(names), " ".join(KINDS))
    texts = output(python("-W", "ignore", "-c", HELP_OF_ALL, *arguments, cwd=tmp_path)).split("exit 0\n")
    assert texts.pop() == ""
    assert len(texts) == len(names) + len(KINDS)
    for name, text in zip(names, texts, strict=False):
        assert "usage: " in text
        (example,) = examples(text)
        assert example.startswith(f"prog {name} ")
        assert ("--trust" in text) == (name in ("train", "enjoy", "record-video"))
    for text in texts[len(names) :]:
        assert all(example.startswith("prog plot logs") for example in examples(text))


@pytest.mark.xdist_group("command line")
def test_the_examples_of_all_commands_work_when_they_are_pasted_in_turn(tmp_path: Path) -> None:
    for name in __main__.COMMANDS:
        for example in examples(output(python(*MAIN, name, "--help", cwd=tmp_path))):
            assert example.startswith(f"python -m sb3_dqn_ext {name} ")
            process = shell(example, tmp_path)
            assert process.returncode == 0, (example, process.stdout, process.stderr)
            assert "Traceback" not in process.stderr, example
    run = tmp_path / "logs/dqn_ext/CartPole-v1_1"
    assert (run / "CartPole-v1.zip").is_file()
    assert (run / "checkpoints").is_dir()
    assert (run / "report.html").is_file()
    assert (run / "CartPole-v1.onnx").is_file()
    assert list((tmp_path / "videos").glob("*dqn_ext*.mp4"))
    assert (tmp_path / "pictures/CartPole-v1_learning.png").is_file()
    assert "| CartPole-v1: one step - three steps |" in (tmp_path / "my_sweep.md").read_text()


# -- what the zoo's commands get -------------------------------------------------------------------------------------------


def zoo_arguments(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """The arguments that the zoo's own command would get."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(runpy, "run_module", lambda module, run_name: seen.update(argv=sys.argv[1:]))
    monkeypatch.setenv("SB3_DQN_EXT_NO_HOOK", "1")  # restored at the end: the command deletes it
    __main__.main(list(arguments))
    return list(seen["argv"])


def test_dqn_ext_and_the_folder_of_train_are_defaults_that_explicit_arguments_override(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert zoo_arguments(monkeypatch, "train", "--save_freq", "9") == ["--algo", "dqn_ext", "--save-freq", "9"]
    for command in ("enjoy", "record-video", "record_video"):
        # argparse takes the last of an argument that is given twice
        given = zoo_arguments(monkeypatch, command, "--algo", "ppo", "-f", "mine")
        assert given == ["--algo", "dqn_ext", "-f", "logs", "--algo", "ppo", "-f", "mine"]


def test_a_model_that_needs_trust_ends_enjoy_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(module: str, run_name: str) -> None:
        raise ModelFileError("model.zip cannot be loaded")

    monkeypatch.setattr(runpy, "run_module", load)
    monkeypatch.setenv("SB3_DQN_EXT_NO_HOOK", "1")
    with pytest.raises(SystemExit, match=r"^sb3-dqn-ext enjoy: model\.zip cannot be loaded$"):
        __main__.main(["enjoy"])


def test_an_explicit_algorithm_is_trained_and_exit_codes_pass_through(tmp_path: Path) -> None:
    quick = ("--env", "CartPole-v1", "-n", "64", "--eval-freq", "-1")
    output(python(*MAIN, "train", *quick, "--algo", "dqn", cwd=tmp_path))
    assert (tmp_path / "logs/dqn/CartPole-v1_1/CartPole-v1.zip").is_file()
    process = python(*MAIN, "train", "--algo", "dqn_ex", cwd=tmp_path)
    assert process.returncode == 2
    assert "sb3_dqn_ext train: error: argument --algo: invalid choice: 'dqn_ex'" in process.stderr


def test_ctrl_c_ends_a_training_as_the_zoo_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, *MAIN, "train", "--env", "CartPole-v1", "-n", "100000000", "--eval-freq", "-1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "total_timesteps" in line:
                process.send_signal(signal.SIGINT)
                break
        printed, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
    assert "Saving to logs/dqn_ext/CartPole-v1_1" in printed
    assert "Traceback" not in errors


def test_the_program_is_named_as_it_was_called() -> None:
    assert __main__.program_name("/home/me/.venv/bin/sb3-dqn-ext") == "sb3-dqn-ext"
    assert __main__.program_name("C:/venv/Scripts/sb3-dqn-ext.exe") == "sb3-dqn-ext"
    assert __main__.program_name("/lib/sb3_dqn_ext/__main__.py") == "python -m sb3_dqn_ext"


def test_the_script_finds_modules_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "my_policies.py").write_text(
        "from sb3_dqn_ext.algorithm.target_policies import GreedyTarget\n\nclass Mine(GreedyTarget): ...\n"
    )
    words = "train --env CartPole-v1 -n 100 --eval-freq -1 --hyperparams learning_starts:50 target_policy:\"'my_policies.{}'\""
    assert shell(f"sb3-dqn-ext {words.format('Mine')}", tmp_path).returncode == 0
    wrong = shell(f"sb3-dqn-ext {words.format('Yours')}", tmp_path)
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr
    assert "target_policy='my_policies.Yours' cannot be imported" in wrong.stderr.splitlines()[-1]
