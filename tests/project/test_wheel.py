"""Install the wheel, and check its files, its public names, and the RL Zoo with our algorithm."""

import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.processes import output, python, write_package

PUBLIC_NAMES = """
import importlib, pkgutil
import envs, sb3_dqn_ext
assert envs.MINE
names = ["sb3_dqn_ext", *(module.name for module in pkgutil.walk_packages(sb3_dqn_ext.__path__, "sb3_dqn_ext."))]
names.remove("sb3_dqn_ext.envs.atari_games")  # it needs the extra atari
for name in names:
    module = importlib.import_module(name)
    assert "site-packages" in module.__file__, module.__file__
    for public in getattr(module, "__all__", ()):
        print(name, public, type(getattr(module, public)).__name__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    output(python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), cwd=ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Make an environment without packages."""
    folder = tmp_path / "environment"
    output(python("-m", "venv", "--without-pip", str(folder), cwd=tmp_path))
    return folder


def install(environment: Path, *arguments: str) -> str:
    """Install packages in an environment, and return its interpreter."""
    interpreter = str(environment / "bin" / "python")
    pip = ("-m", "pip", "--python", interpreter, "install", "--quiet", "--no-compile")
    output(python(*pip, *arguments, cwd=environment))
    return interpreter


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with its own ``envs/``."""
    folder = tmp_path / "project"
    write_package(folder / "envs", __init__="MINE = True")
    return folder


def files(folder: str, pattern: str, packaged_as: str) -> Iterator[str]:
    """Return the files of a folder of the repository, by their names in the wheel."""
    for path in (ROOT / folder).rglob(pattern):
        yield f"{packaged_as}/{path.relative_to(ROOT / folder).as_posix()}"


def test_the_wheel_holds_the_package_the_configurations_and_the_hook_and_nothing_else(wheel: Path) -> None:
    ours = [*files("sb3_dqn_ext", "*.py", "sb3_dqn_ext"), *files("envs", "*.py", "sb3_dqn_ext/envs")]
    moved = {"sb3_dqn_ext/zoo/_start_hook.py": "_sb3_dqn_ext_hook.py"}
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert sorted(zipfile.ZipFile(wheel).namelist()) == sorted(
        [
            *(moved.get(name, name) for name in ours),
            *files("zoo_configs", "*.yml", "sb3_dqn_ext/zoo_configs"),
            *files("sb3_dqn_ext", "*.j2", "sb3_dqn_ext"),
            "sb3_dqn_ext/py.typed",
            "_sb3_dqn_ext_hook.pth",
            *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")),
        ]
    )


def check_commands(installed: str, project: Path) -> None:
    """Check the public names and the commands of the zoo in an environment with the wheel."""
    found = output(python("-c", PUBLIC_NAMES, cwd=project, executable=installed)).splitlines()
    assert "sb3_dqn_ext DQNExt ABCMeta" in found
    assert "sb3_dqn_ext.envs TerminalPenalty type" in found

    cartpole = ("--algo", "dqn_ext", "--env", "CartPole-v1", "-f", "logs")
    train = ("-m", "rl_zoo3.train", *cartpole, "-n", "2000", "--eval-freq", "-1")
    trained = output(python(*train, cwd=project, executable=installed))
    assert "site-packages/sb3_dqn_ext/zoo_configs/dqn_ext.yml" in trained
    assert (project / "logs/dqn_ext/CartPole-v1_1/CartPole-v1.zip").is_file()

    record = ("-m", "rl_zoo3.record_video", *cartpole, "-n", "20", "-o", "videos")
    output(python(*record, cwd=project, executable=installed))
    assert (project / "videos/final-model-dqn_ext-CartPole-v1-step-0-to-step-20.mp4").is_file()

    script = Path(installed).parent / "sb3-dqn-ext"
    assert "commands:\n  train " in output(python(str(script), cwd=project, executable=installed))
    output(python(str(script), "enjoy", "-n", "9", "--no-render", cwd=project, executable=installed))

    preset = ("--env", "dqn_ext/CartPoleNoVel-v1", "-conf", "sb3_dqn_ext.presets.munchausen_quantile", "-n", "200")
    output(python("-m", "rl_zoo3.train", "--algo", "dqn_ext", "-f", "logs", *preset, cwd=project, executable=installed))
    assert (project / "logs/dqn_ext/dqn_ext-CartPoleNoVel-v1_1/dqn_ext-CartPoleNoVel-v1.zip").is_file()

    search = ("-optimize", "--n-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots")
    output(python("-m", "rl_zoo3.train", *cartpole, "-n", "150", *search, cwd=project, executable=installed))
    (report,) = (project / "logs/dqn_ext").glob("report_CartPole-v1_1-trials-*.csv")
    assert "params_target_policy" in report.read_text()

    plot = ("-m", "rl_zoo3.plots.plot_train", "-a", "dqn_ext", "-e", "CartPole-v1", "-f", "logs", "-w", "5")
    output(python(*plot, cwd=project, executable=installed, MPLBACKEND="Agg"))


def test_the_wheel_has_every_public_name_and_the_commands_of_the_zoo(wheel: Path, project: Path, environment: Path) -> None:
    # the requirements are those of this environment; its editable packages are not visible, since only the .pth files of an
    # environment's own folder are read
    (own,) = (environment / "lib").glob("python*/site-packages")
    (own / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    check_commands(install(environment, "--no-deps", str(wheel)), project)


@pytest.mark.slow
def test_the_wheel_needs_no_other_packages_than_its_requirements(wheel: Path, project: Path, environment: Path) -> None:
    check_commands(install(environment, "-c", str(ROOT / "constraints.txt"), f"{wheel}[zoo]"), project)
