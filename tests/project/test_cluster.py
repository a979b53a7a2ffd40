"""The commands of the page about clusters, in their order, on a cluster of two nodes on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from sb3_dqn_ext.sweep.results import read_rows
from tests.pages import DOCS, blocks
from tests.processes import output, python

pytest.importorskip("ray")

PAGE = blocks(DOCS / "cluster.md")
COMMANDS = [block.text for block in PAGE if block.mark == f"not run: tests/project/{Path(__file__).name} runs it"]
# `ray stop` ends all programs of Ray that it finds: here, those of a namespace of processes
OWN_PROCESSES = ["unshare", "--map-root-user", "--fork", "--pid", "--mount-proc", "--kill-child"]
HOW = ("wall_s", "cpu_s", "command")

CHECKPOINTS = "runs/*/*/*/*/logs/*/*/checkpoints/*.json"
WAIT_FOR_CHECKPOINT = f"until ls {CHECKPOINTS} >/dev/null 2>&1; do tmux has-session -t sweep; sleep 0.2; done"
WAIT_FOR_STOP = "while tmux has-session -t sweep 2>/dev/null; do sleep 0.2; done"


def has_own_processes() -> bool:
    """Return whether this machine has tmux, and lets this user make a namespace of processes."""
    programs = shutil.which("tmux") and shutil.which("unshare")
    return bool(programs) and subprocess.run([*OWN_PROCESSES, "true"], capture_output=True, check=False).returncode == 0


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def script() -> str:
    """Return the commands of the page with the addresses of this machine, and with one processor for each node."""
    parts = []
    for text in COMMANDS:
        parts += [WAIT_FOR_CHECKPOINT] if "capture-pane" in text else []
        parts.append(text)
        parts += [WAIT_FOR_STOP] if "C-c" in text else []
    page = "\n".join(["set -ex", *parts])
    return (
        page.replace("10.0.0.1", "127.0.0.1").replace("6379", str(free_port())).replace("ray start", "ray start --num-cpus=1")
    )


@pytest.mark.slow  # 6 minutes on two busy cores
@pytest.mark.skipif(not has_own_processes(), reason="needs tmux, and a namespace of processes of its own")
def test_the_commands_of_the_page_train_the_sweep_and_the_actors_on_two_nodes(tmp_path: Path) -> None:
    for block in PAGE:
        if block.mark.endswith((".py", ".yml")):
            (tmp_path / block.mark).write_text(block.text)
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short path, for sockets
        environment = {
            **os.environ,
            "HOME": folder,
            "TMUX_TMPDIR": folder,
            "RAY_TMPDIR": folder,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        shell = subprocess.run(
            [*OWN_PROCESSES, "bash", "-c", script()],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        print(shell.stdout)
        assert shell.returncode == 0, shell.stdout[-3000:] + shell.stderr[-5000:]
        assert not [
            process for process in psutil.process_iter(["cmdline"]) if folder in " ".join(process.info["cmdline"] or [])
        ]
    logs = [log.read_text() for log in tmp_path.glob("runs/*/*/*/*/log.txt")]
    assert any("Resuming" in log for log in logs), "no run continued after Ctrl-C"
    assert (tmp_path / "logs/dqn_ext/TiltedCartPole-v0_1/TiltedCartPole-v0.zip").is_file()
    assert list(tmp_path.glob("runs/tensorboard/*/events*")) or list(tmp_path.glob("runs/tensorboard/*/*/events*"))
    assert "Active:\n 1 node_" in shell.stdout
    assert "2.0 CPU" in shell.stdout, "the cluster has two nodes"
    on_cluster = {(row["variant"], row["seed"]): row for row in read_rows(tmp_path / "my_sweep.csv")}
    assert len(on_cluster) == 4
    (tmp_path / "my_sweep.csv").rename(tmp_path / "on_cluster.csv")
    output(python("-m", "sb3_dqn_ext.sweep", "my_sweep.yml", "--runs", "here", "--jobs", "2", cwd=tmp_path))
    for row in read_rows(tmp_path / "my_sweep.csv"):
        same = on_cluster[row["variant"], row["seed"]]
        assert {**row, **dict.fromkeys(HOW)} == {**same, **dict.fromkeys(HOW)}
