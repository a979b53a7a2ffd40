"""The commands of the RL Zoo with ``dqn_ext``: videos, plots, searches, Atari, the hub."""

import csv
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.algorithm.value_models.expected import LOSSES
from sb3_dqn_ext.networks.heads import HEADS
from sb3_dqn_ext.replay.samplers import SAMPLERS
from sb3_dqn_ext.zoo import default_config
from sb3_dqn_ext.zoo._start_hook import COMMANDS_WITH_ALGO, find_refused_command
from tests.hub import serve_hub
from tests.internals import n_updates_of
from tests.paths import ROOT
from tests.processes import output, python, write_package

ALGO = ("--algo", "dqn_ext", "-f", "logs")
CARTPOLE = (*ALGO, "--env", "CartPole-v1")
N_STEPS = 600
LENGTH = 20  # of videos, in steps

# One process of pytest-xdist for each group, which shares a trained run.
needs_run = pytest.mark.xdist_group("zoo run")
needs_study = pytest.mark.xdist_group("zoo study")
needs_atari = pytest.mark.xdist_group("zoo atari")

# A user's own package, of a name that this repository has too, with a wrapper that writes the id of its process and the
# arguments of its environment.
WRAPPERS = """
import os
import gymnasium as gym

class Pid(gym.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        with open(f"pid-{os.getpid()}", "w") as file:
            file.write(str(env.spec.kwargs))
"""

# A backend of matplotlib that opens no window, and writes the curves of the figures to a file.
BACKEND = """
import json
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas
from matplotlib.backend_bases import FigureManagerBase as FigureManager

def show(*args, **kwargs):
    import matplotlib.pyplot as plt
    figures = [plt.figure(number) for number in plt.get_fignums()]
    curves = {line.get_label(): [*map(float, line.get_ydata())] for f in figures for axes in f.axes for line in axes.lines}
    with open("shown.json", "w") as file:
        json.dump(curves, file)
"""
SHOWN = {"MPLBACKEND": "module://backend"}

CONFIG: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_timesteps": 100_000,
    "n_envs": 2,
    "env_kwargs": {"sutton_barto_reward": False},
    "normalize": {"norm_reward": False},
    "env_wrapper": ["envs.wrappers.Pid", {"sb3_dqn_ext.envs.TerminalPenalty": {"reward": -1.0}}],
    "learning_rate": 0.001,
    "learning_starts": 50,
    "tau": 0.01,
    "target_update_interval": 2,
    "target_update_unit": "gradient_steps",
    "target_policy": "greedy",
    "exploration_kwargs": {"schedule": {"name": "exponential", "start": 1.0, "end": 0.1, "rate": 0.01}},
    "policy_kwargs": {"net_arch": [16]},
}


class Run(NamedTuple):
    """A finished training run."""

    project: Path  # the directory it ran in
    folder: Path
    printed: str

    def model(self, name: str = "CartPole-v1") -> DQNExt:
        """
        Load a model.

        :param name: the name of its file, without the suffix
        """
        return DQNExt.load(self.folder / f"{name}.zip", device="cpu")

    def config(self) -> dict[str, Any]:
        """Return the hyperparameters in the zoo's own config.yml."""
        (folder,) = [path for path in self.folder.iterdir() if path.is_dir() and (path / "config.yml").exists()]
        return dict(yaml.load((folder / "config.yml").read_text(), yaml.UnsafeLoader))  # an OrderedDict: the zoo's own file


def zoo(command: str, *arguments: str, cwd: Path, **environment: str) -> str:
    """Run a command of the zoo and return what it printed."""
    return output(python("-m", f"rl_zoo3.{command}", *arguments, cwd=cwd, **environment))


def without_hook(command: str, *arguments: str, cwd: Path, **environment: str) -> str:
    """Run our own command, where the start-up hook is off."""
    return output(python("-m", "sb3_dqn_ext.zoo", command, *arguments, cwd=cwd, SB3_DQN_EXT_NO_HOOK="1", **environment))


def weights(model: DQNExt) -> dict[str, Any]:
    """Return the parameters of a model's networks."""
    return {name: value.numpy() for name, value in model.policy.state_dict().items()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's project."""
    folder = tmp_path_factory.mktemp("project")
    write_package(folder / "envs", __init__="", wrappers=WRAPPERS)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "my_module.py").write_text("")
    (folder / "mine.yml").write_text(yaml.safe_dump({"CartPole-v1": CONFIG}))
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> Run:
    """A run with a configuration of the user's, arguments on the command line, environments in processes and checkpoints."""
    printed = zoo(
        "train",
        *(*CARTPOLE, "--seed", "1", "-n", str(N_STEPS), "-conf", "mine.yml", "--vec-env", "subproc", "-P"),
        *("--save-freq", "200", "--eval-freq", "200", "--eval-episodes", "2"),
        "-params",
        "target_policy:'double'",
        "policy_kwargs:dict(net_arch=[16], head='multi_head', head_arch=[8])",
        "replay_buffer_kwargs:dict(terminal_copies=2)",
        "exploration_kwargs:dict(schedule=dict(name='linear', start=1.0, end=0.5), epsilon_draw='shared')",
        cwd=project,
    )
    return Run(project, project / "logs/dqn_ext/CartPole-v1_1", printed)


@pytest.fixture(scope="module")
def continued(run: Run) -> Run:
    """The same run continued without learning, by our own command, with arguments of the file and of the command line."""
    printed = without_hook(
        "train",
        *(*CARTPOLE, "--seed", "2", "-n", str(N_STEPS), "-conf", "mine.yml", "-i", str(run.folder / "CartPole-v1.zip")),
        *("--eval-freq", "200", "--eval-episodes", "2", "-params", f"learning_starts:{2 * N_STEPS}", "tau:0.5"),
        cwd=run.project,
    )
    return Run(run.project, run.project / "logs/dqn_ext/CartPole-v1_2", printed)


@needs_run
def test_arguments_of_ours_come_from_the_file_and_nested_from_the_command_line(run: Run) -> None:
    model = run.model()
    assert model.target_policy == "double"
    assert model.target_update_unit == "gradient_steps"
    assert model.policy_kwargs == {"net_arch": [16], "head": "multi_head", "head_arch": [8]}
    assert "q_net.q_net.heads.1.0.weight" in model.policy.state_dict()
    assert model.replay_buffer_kwargs == {"terminal_copies": 2}
    assert model.exploration_kwargs == {"schedule": {"name": "linear", "start": 1.0, "end": 0.5}, "epsilon_draw": "shared"}
    assert model.exploration_rate == pytest.approx(0.5, abs=0.01)
    assert n_updates_of(model) > 0
    assert run.config()["policy_kwargs"] == model.policy_kwargs


@needs_run
def test_environments_run_in_processes_of_their_own_beside_a_progress_bar(run: Run) -> None:
    assert run.model().n_envs == 2
    assert len(list(run.project.glob("pid-*"))) >= 3  # two to train in, one to evaluate in; none of them in the zoo's own
    assert "Loading hyperparameters from: mine.yml" in run.printed
    assert "100%" in run.printed


@needs_run
def test_checkpoints_hold_what_was_learned_until_then(run: Run) -> None:
    checkpoints = {path.stem: run.model(path.stem) for path in run.folder.glob("rl_model_*_steps.zip")}
    assert {name: model.num_timesteps for name, model in checkpoints.items()} == {
        f"rl_model_{steps}_steps": steps for steps in (200, 400, 600)
    }
    assert len({n_updates_of(model) for model in checkpoints.values()}) == 3


@needs_run
@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        (("--load-best",), "best_model"),
        (("--load-checkpoint", "400"), "rl_model_400_steps"),
        (("--load-last-checkpoint",), "rl_model_600_steps"),
    ],
)
def test_the_best_model_and_checkpoints_are_enjoyed(chosen: tuple[str, ...], name: str, run: Run) -> None:
    enjoyed = zoo("enjoy", *CARTPOLE, "--exp-id", "1", "--no-render", "-n", "501", *chosen, cwd=run.project)
    assert f"Loading logs/dqn_ext/CartPole-v1_1/{name}.zip" in enjoyed
    assert "Loading running average" in enjoyed
    assert "Mean reward" in enjoyed


@needs_run
def test_training_goes_on_from_the_weights_with_new_arguments(run: Run, continued: Run) -> None:
    assert "Loading pretrained agent" in continued.printed
    before, after = run.model(), continued.model()
    assert after.num_timesteps == N_STEPS
    np.testing.assert_equal(weights(after), weights(before))
    assert (after.target_policy, after.tau) == ("greedy", 0.5)
    assert after.exploration_kwargs == CONFIG["exploration_kwargs"]
    assert after.exploration_rate == pytest.approx(0.1 + 0.9 * np.exp(-0.01 * N_STEPS), abs=1e-3)


# in another process: imageio leaves the pipes from ffmpeg open
VIDEO = "import imageio.v3, sys; video = imageio.v3.imread(sys.argv[1]); print(*video.shape, (video[0] != video[-1]).any())"


def assert_video(path: Path, n_frames: int = LENGTH + 1, screen: str = "400 600") -> None:
    """Check that a video has so many frames and that the first differs from the last; the default size is CartPole's."""
    assert output(python("-c", VIDEO, str(path), cwd=path.parent)) == f"{n_frames} {screen} 3 True\n"


@needs_run
@pytest.mark.parametrize(
    ("record", "chosen", "name"),
    [
        (without_hook, ("--gym-packages", "my_module"), "final-model-dqn_ext"),
        (zoo, ("--load-best",), "best-model-dqn_ext"),
        (zoo, ("--load-checkpoint", "200"), "checkpoint-200-dqn_ext"),
    ],
)
def test_a_video_is_recorded_of_any_model_of_a_run(record: Any, chosen: tuple[str, ...], name: str, run: Run) -> None:
    earlier = {*run.project.glob("pid-*")}
    record("record_video", *CARTPOLE, "--exp-id", "1", "-n", str(LENGTH), "-o", "videos", *chosen, cwd=run.project)
    assert_video(run.project / "videos" / f"{name}-CartPole-v1-step-0-to-step-{LENGTH}.mp4")
    (process,) = {*run.project.glob("pid-*")} - earlier
    assert "'sutton_barto_reward': False" in process.read_text(), "the environment of the training is recorded"


@pytest.fixture(scope="module")
def ffmpeg(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose PATH has this interpreter as ``python``, and moviepy's ``ffmpeg``: the zoo calls both by name."""
    import imageio_ffmpeg

    folder = tmp_path_factory.mktemp("ffmpeg")
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), str(folder), os.environ["PATH"]])}


@needs_run
@pytest.mark.slow
def test_a_film_is_made_of_a_whole_training(run: Run, ffmpeg: dict[str, str]) -> None:
    film = run.project / "film"  # an absolute path: ffmpeg searches for the parts beside its list of them
    without_hook("record_training", *CARTPOLE, "--exp-id", "1", "-n", str(LENGTH), "-o", str(film), cwd=run.project, **ffmpeg)
    assert_video(film / "training.mp4", 5 * (LENGTH + 1))  # three checkpoints, the final and the best model


@needs_run
def test_the_curves_of_every_run_are_plotted(run: Run, continued: Run) -> None:
    zoo("plots.plot_train", "-a", "dqn_ext", "-e", "CartPole-v1", "-f", "logs", "-w", "5", cwd=run.project, **SHOWN)
    curves = json.loads((run.project / "shown.json").read_text())
    assert curves.keys() == {run.folder.name, continued.folder.name}
    for folder in (run.folder, continued.folder):
        n_episodes = sum(len(path.read_text().splitlines()) - 2 for path in folder.glob("*.monitor.csv"))
        assert len(curves[folder.name]) == n_episodes - 4  # means over 5


@needs_run
@pytest.mark.parametrize("command", [zoo, without_hook])
def test_all_runs_are_summarised_and_plotted_from_the_summary(command: Any, run: Run, continued: Run) -> None:
    results = [np.load(folder / "evaluations.npz")["results"] for folder in (run.folder, continued.folder)]
    arguments = ("-a", "dqn_ext", "-e", "CartPole-v1", "-f", "logs", "--no-million", "-o", "summary")
    printed = command("plots.all_plots" if command is zoo else "all_plots", *arguments, cwd=run.project, **SHOWN)
    assert f"|CartPole-v1 |{np.mean([result[-1] for result in results]):.0f} +/- " in printed
    summary = pickle.loads((run.project / "summary.pkl").read_bytes())["CartPole-v1"]["DQN_EXT-logs"]
    assert summary["timesteps"].tolist() == [200, 400, 600]
    np.testing.assert_allclose(np.sort(summary["mean_per_eval"]), np.sort(np.mean(results, axis=2).T))
    assert json.loads((run.project / "shown.json").read_text())["DQN_EXT-logs"] == pytest.approx(summary["mean"])
    if command is zoo:
        import imageio.v3

        arguments = ("-i", "summary.pkl", "-o", "summary.png", "--format", "png", "-l", "ours", "-b")
        assert "keys: ['DQN_EXT-logs']" in zoo("plots.plot_from_file", *arguments, cwd=run.project, **SHOWN)
        assert json.loads((run.project / "shown.json").read_text())["ours"] == pytest.approx(summary["mean"])
        assert imageio.v3.imread(run.project / "summary.png").std() > 0


# The zoo takes `generate_metadata` from the package of the hub, which has it under this other name since version 3.2.
PUSH = """
import runpy, sys
import huggingface_sb3.push_to_hub
hub = sys.modules["huggingface_sb3.push_to_hub"]
if not hasattr(hub, "generate_metadata"):
    hub.generate_metadata = lambda *arguments: hub._generate_metadata(*arguments).to_dict()
runpy.run_module("rl_zoo3.push_to_hub", run_name="__main__", alter_sys=True)
"""


@needs_run
def test_a_run_goes_to_the_hub_and_comes_back(run: Run, ffmpeg: dict[str, str], tmp_path: Path) -> None:
    repository = ("--env", "CartPole-v1", "--algo", "dqn_ext", "-orga", "me")
    with serve_hub() as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_loopback",
            "HF_HOME": str(tmp_path),
            "TRUST_REMOTE_CODE": "True",
        }
        pushing = ("-c", PUSH, *repository, "-f", "logs", "--exp-id", "1", "-n", str(LENGTH))
        output(python(*pushing, cwd=run.project, **ffmpeg, **environment))
        assert hub.files.keys() >= {"args.yml", "config.yml", "env_kwargs.yml", "dqn_ext-CartPole-v1.zip", "vec_normalize.pkl"}
        assert "# **DQNExt** Agent playing **CartPole-v1**" in hub.files["README.md"].decode()
        assert json.loads(hub.files["results.json"])["mean_reward"] > 0
        zoo("load_from_hub", *repository, "-f", "from_hub", cwd=run.project, **environment)
    assert_video(run.project / "hub" / "dqn_ext-CartPole-v1" / "replay.mp4")
    loaded = Run(run.project, run.project / "from_hub/dqn_ext/CartPole-v1_1", "")
    np.testing.assert_equal(weights(loaded.model()), weights(run.model()))
    assert loaded.config() == run.config()


def test_a_preset_and_arguments_of_the_environment_go_through_the_cli(tmp_path: Path) -> None:
    train = ("-conf", "sb3_dqn_ext.presets.dqn_ext", "--env-kwargs", "sutton_barto_reward:True", "-n", "300")
    printed = zoo("cli", "train", *CARTPOLE, *train, "--eval-freq", "-1", "-params", "learning_starts:50", cwd=tmp_path)
    run = Run(tmp_path, tmp_path / "logs/dqn_ext/CartPole-v1_1", printed)
    assert "Loading hyperparameters from: sb3_dqn_ext.presets.dqn_ext" in printed
    assert run.config() == yaml.safe_load(Path(default_config()).read_text())["CartPole-v1"] | {"learning_starts": 50}
    with open(run.folder / "0.monitor.csv") as file:
        rewards = [float(row["r"]) for row in csv.DictReader(line for line in file if not line.startswith("#"))]
    assert rewards
    assert set(rewards) == {-1.0}  # Sutton's and Barto's; the environment's own count the steps
    enjoyed = zoo("cli", "enjoy", *CARTPOLE, "--no-render", "-n", "501", cwd=tmp_path)
    assert "Mean reward: -1.00 +/- 0.00" in enjoyed


@pytest.fixture(scope="module")
def atari(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run on a game of Atari."""
    project = tmp_path_factory.mktemp("atari")
    small = ("-params", "buffer_size:500", "learning_starts:100")
    train = (*ALGO, "--env", "BreakoutNoFrameskip-v4", "--seed", "1", "-n", "300", "--eval-freq", "-1", *small)
    return Run(project, project / "logs/dqn_ext/BreakoutNoFrameskip-v4_1", zoo("train", *train, cwd=project))


@needs_atari
def test_a_game_of_atari_is_learned_from_its_own_block(atari: Run) -> None:
    assert "Stacking 4 frames" in atari.printed
    changed = {"buffer_size": 500, "learning_starts": 100}
    assert atari.config() == yaml.safe_load(Path(default_config()).read_text())["atari"] | changed
    model = atari.model("BreakoutNoFrameskip-v4")
    assert model.observation_space.shape == (4, 84, 84)
    assert n_updates_of(model) == 50


@needs_atari
def test_a_game_of_atari_is_enjoyed_and_recorded(atari: Run) -> None:
    game = (*ALGO, "--env", "BreakoutNoFrameskip-v4")
    assert "Atari Episode Score" in zoo("enjoy", *game, "--no-render", "-n", "1000", cwd=atari.project)
    zoo("record_video", *game, "-n", str(LENGTH), "-o", "videos", cwd=atari.project)
    name = f"final-model-dqn_ext-BreakoutNoFrameskip-v4-step-0-to-step-{LENGTH}.mp4"
    assert_video(atari.project / "videos" / name, screen="210 160")


def test_the_search_offers_every_choice_and_stores_what_it_sampled(tmp_path: Path) -> None:
    occurred = json.loads(output(python("-m", "tests.trials", cwd=ROOT)))
    offered: dict[str, Collection[Any]] = {
        "target_policy": TARGET_POLICIES,
        "head": HEADS,
        "norm": ["layer", "none"],
        "optimizer_class": ["adam", "radam", "rmsprop"],
        "returns": RETURN_MODELS.keys() - {"categorical", "hl_gauss"},
        "loss": LOSSES,
        "sampler": SAMPLERS,
        "soft_targets": [False, True],
        "lambda_returns": [False, True],
        "n_steps": range(1, 6),
        "terminal_copies": range(1, 5),
    }
    assert {name: occurred[name] for name in offered} == {name: sorted(choices) for name, choices in offered.items()}
    assert len(occurred["tau"]) > 10
    assert len(occurred["td_lambda"]) > 3


OUR_CHOICES = {
    "target_policy",
    "head",
    "norm",
    "optimizer_class",
    "returns",
    "sampler",
    "soft_targets",
    "n_steps",
    "terminal_copies",
}
STORED = ("--storage", "sqlite:///study.db", "--study-name", "mine")


def search(n_trials: int, seed: int) -> list[str]:
    """Return the arguments of a search that continues the stored study."""
    short = ("-n", "120", "--n-startup-trials", "2", "--n-evaluations", "2", "--eval-episodes", "1", "--no-optim-plots")
    return [*CARTPOLE, "-conf", "mine.yml", "-optimize", "--n-trials", str(n_trials), "--seed", str(seed), *short, *STORED]


def trials(project: Path) -> list[Any]:
    """Return the trials of the stored study."""
    import optuna

    return optuna.load_study(study_name="mine", storage=f"sqlite:///{project / 'study.db'}").trials


def assert_finished(project: Path, n_trials: int) -> None:
    """Check that a study has so many trials, that each was completed or pruned, and that each contains our choices."""
    found = trials(project)
    assert len(found) == n_trials
    assert {trial.state.name for trial in found} <= {"COMPLETE", "PRUNED"}
    assert all(trial.params.keys() >= OUR_CHOICES for trial in found)


@pytest.fixture(scope="module")
def study(project: Path) -> Path:
    """The project with a study of five trials, over a configuration that fixes what the search varies."""
    zoo("train", *search(5, seed=1), cwd=project)
    return project


@needs_study
def test_a_search_is_stored_and_resumed_even_by_two_processes_at_once(study: Path) -> None:
    assert_finished(study, 5)
    zoo("train", *search(1, seed=2), cwd=study)
    assert_finished(study, 6)
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "rl_zoo3.train", *search(2, seed)],
            cwd=study,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for seed in (3, 4)
    ]
    errors = [process.communicate()[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert_finished(study, 10)


@needs_study
def test_a_stored_trial_is_trained(study: Path) -> None:
    trial = trials(study)[1]  # the zoo takes --trial-id 0 for none given
    zoo("train", *CARTPOLE, "-conf", "mine.yml", *STORED, "--trial-id", str(trial.number), "-n", "200", cwd=study)
    run = Run(study, max((study / "logs/dqn_ext").glob("CartPole-v1_*"), key=lambda path: int(path.name.split("_")[1])), "")
    config, chosen = run.config(), trial.params
    for name in ("learning_rate", "train_freq", "exploration_final_eps", "target_policy", "n_steps"):
        assert config[name] == chosen[name], name
    assert config["gamma"] == 1 - chosen["one_minus_gamma"]
    assert config["batch_size"] == 2 ** chosen["batch_size_pow"]
    assert config["replay_buffer_kwargs"] == {"sampler": chosen["sampler"], "terminal_copies": chosen["terminal_copies"]}
    network = {name: chosen[name] for name in ("head", "norm", "returns", "loss") if name in chosen}
    assert network.items() <= config["policy_kwargs"].items()
    hard, soft = (1.0, chosen["target_update_interval"], "env_steps"), (chosen.get("tau"), 1, "gradient_steps")
    targets = config["tau"], config["target_update_interval"], config["target_update_unit"]
    assert targets == (soft if chosen["soft_targets"] else hard)
    assert config["exploration_kwargs"] == {}
    assert config["n_envs"] == 2
    assert run.model().policy_kwargs["head"] == chosen["head"]


@pytest.mark.parametrize(
    ("program", "arguments", "command"),
    [
        *(("rl_zoo3." + command, "--algo dqn_ext", command) for command in COMMANDS_WITH_ALGO),
        ("rl_zoo3.train", "--env CartPole-v1 --algo=dqn_ext -P", "train"),
        ("rl_zoo3.cli", "enjoy --algo dqn_ext", "enjoy"),
        ("/opt/zoo/bin/rl_zoo3", "train --algo dqn_ext", "train"),
        ("rl_zoo3.train", "--algo dqn", ""),
        ("rl_zoo3.train", "--algo dqn -f dqn_ext", ""),
        ("rl_zoo3.train", "--algo dqn_ext_of_mine", ""),
        ("rl_zoo3.plots.plot_train", "--algo dqn_ext", ""),
        ("rl_zoo3.cli", "all_plots --algo dqn_ext", ""),
        ("rl_zoo3.cli", "", ""),
        ("sb3_dqn_ext.zoo", "train --algo dqn_ext", ""),
        ("/home/me/rl_zoo3/train.py", "--algo dqn_ext", ""),
        ("my_rl_zoo3.train", "--algo dqn_ext", ""),
        ("", "", ""),
    ],
)
def test_only_a_command_that_will_refuse_dqn_ext_is_found(program: str, arguments: str, command: str) -> None:
    assert find_refused_command(program, arguments.split()) == command


def test_where_the_hook_is_off_the_refusal_has_a_hint(project: Path) -> None:
    process = python("-m", "rl_zoo3.train", "--algo", "dqn_ext", cwd=project, SB3_DQN_EXT_NO_HOOK="1")
    assert process.returncode == 2
    first, *others = process.stderr.splitlines()
    assert "SB3_DQN_EXT_NO_HOOK=1" in first
    assert "python -m sb3_dqn_ext.zoo train ..." in first
    assert "invalid choice: 'dqn_ext'" in others[-1]


@pytest.mark.parametrize(
    ("command", "has_hint"),
    [
        ("-m rl_zoo3.train --algo dqn_ext", True),
        ("-X dev -W error -m rl_zoo3.train -n 1 --algo=dqn_ext", True),
        ("rl_zoo3 enjoy --algo dqn_ext", True),
        ("-m rl_zoo3.train --algo dqn -f dqn_ext", False),
        ("-m rl_zoo3.train", False),
        ("train.py --algo dqn_ext", False),
        ("-c pass rl_zoo3.train --algo dqn_ext", False),
        ("-V", False),
    ],
)
def test_the_start_of_python_finds_the_command_and_is_silent_for_others(command: str, has_hint: bool, tmp_path: Path) -> None:
    write_package(tmp_path / "rl_zoo3", __init__="", __main__="", train="")
    (tmp_path / "train.py").write_text("")
    stderr = python(*command.split(), cwd=tmp_path, SB3_DQN_EXT_NO_HOOK="1").stderr
    assert stderr.count("python -m sb3_dqn_ext.zoo") == stderr.count("\n") == has_hint
    assert python(*command.split(), cwd=tmp_path).stderr == ""
