"""Tests of the figures of real runs of the RL Zoo: the reading of run folders, and the command."""

import csv
import json
import math
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
import torch as th
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecFrameStack
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.envs import TerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot import (
    event_folder,
    final_scores,
    find_runs,
    group_runs,
    load_model,
    make_env,
    plot_evaluations,
    plot_learning,
    plot_log,
    plot_value_map,
    read_run,
    scalars,
)
from sb3_dqn_ext.plot.__main__ import main
from tests.processes import output, python

Array = npt.NDArray[Any]

pytestmark = pytest.mark.xdist_group("plot")

PENALTY = {"sb3_dqn_ext.envs.TerminalPenalty": {"reward": -5.0}}

# four trainings in one process, so that the zoo is imported once
TRAIN = f"""
import runpy, sys
both = ["--num-threads", "1", "-f", "logs", "--tensorboard-log", "tb", "--eval-freq", "200", "--eval-episodes", "2"]
small = ["policy_kwargs:dict(net_arch=[16])", "learning_starts:50", "buffer_size:1000", "gradient_steps:1"]
cartpole = ["--algo", "dqn_ext", "--env", "CartPole-v1", "-n", "600"]
wrapped = "env_wrapper:[{json.dumps(PENALTY).replace('"', "'")}]"
for arguments in (
    [*cartpole, "--seed", "1", *both, "-params", *small, wrapped],
    [*cartpole, "--seed", "2", *both, "-params", *small, wrapped],
    [*cartpole, "--seed", "3", *both, "-params", *small, wrapped, "max_grad_norm:5"],
    ["--algo", "dqn", "--env", "MountainCar-v0", "-n", "600", "--seed", "1", *both, "-params", *small],
):
    sys.argv[1:] = arguments
    runpy.run_module("rl_zoo3.train", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the zoo has trained two seeds of one configuration, one seed of another, and SB3's DQN."""
    folder = tmp_path_factory.mktemp("project")
    output(python("-c", TRAIN, cwd=folder))
    return folder


@pytest.fixture(scope="module")
def cartpoles(project: Path) -> list[Path]:
    return [project / "logs" / "dqn_ext" / f"CartPole-v1_{i}" for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def mountain_car(project: Path) -> Path:
    return project / "logs" / "dqn" / "MountainCar-v0_1"


# -- the same numbers, by hand ---------------------------------------------------------------------------------------------


class Episodes(NamedTuple):
    ends: list[int]
    returns: list[float]


def episodes_in(run: Path) -> Episodes:
    """Read the episodes of a run of one environment."""
    with open(run / "0.monitor.csv") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    ends = [sum(int(row["l"]) for row in rows[: i + 1]) for i in range(len(rows))]
    return Episodes(ends, [float(row["r"]) for row in rows])


def logged_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read all scalars of the event files of a folder, in their order there."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def line(axes: Axes, i: int = 0) -> tuple[Array, Array]:
    drawn = axes.get_lines()[i]
    return np.asarray(drawn.get_xdata(), dtype=float), np.asarray(drawn.get_ydata(), dtype=float)


# -- the data of a run -----------------------------------------------------------------------------------------------------


def test_a_run_of_dqn_ext_is_described_by_its_run_json(cartpoles: list[Path], project: Path) -> None:
    run = read_run(cartpoles[0])
    assert (run.env_id, run.algo, run.name) == ("CartPole-v1", "dqn_ext", "dqn_ext/CartPole-v1_1")
    assert run.hyperparameters["env_wrapper"] == [PENALTY]
    assert event_folder(run) == project / "tb" / "CartPole-v1" / "DQNExt_1"


def test_a_run_of_sb3_is_described_by_the_files_of_the_zoo(
    mountain_car: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the zoo stores the folder of the log relative to another directory
    run = read_run(mountain_car)
    assert (run.env_id, run.algo) == ("MountainCar-v0", "dqn")
    assert run.hyperparameters["train_freq"] == 16
    assert event_folder(run) == project / "tb" / "MountainCar-v0" / "DQN_1"


def test_the_arguments_of_the_environment_are_those_of_the_command_or_of_the_yaml_file(
    cartpoles: list[Path], tmp_path: Path
) -> None:
    path = shutil.copytree(cartpoles[0], tmp_path / "run") / "run.json"
    data = json.loads(path.read_text())
    for in_command, in_yaml, expected in (
        (None, {"a": 1}, {"a": 1}),
        ({"b": 2}, {"a": 1}, {"b": 2}),
        (None, None, {}),
    ):
        data["arguments"]["env_kwargs"], data["hyperparameters"]["env_kwargs"] = in_command, in_yaml
        path.write_text(json.dumps(data))
        assert read_run(path.parent).env_kwargs == expected


def test_runs_are_found_at_any_depth(project: Path, cartpoles: list[Path], mountain_car: Path) -> None:
    assert find_runs(project) == [mountain_car, *cartpoles]
    assert find_runs(cartpoles[0]) == [cartpoles[0]]


def test_runs_of_one_configuration_are_seeds_and_others_are_labelled_by_their_differences(
    cartpoles: list[Path], mountain_car: Path
) -> None:
    groups = group_runs([read_run(folder) for folder in cartpoles])
    assert {label: [run.folder for run in runs] for label, runs in groups.items()} == {
        "dqn_ext": cartpoles[:2],
        "dqn_ext, max_grad_norm=5": cartpoles[2:],
    }
    named = [read_run(folder, label="mine") for folder in cartpoles]
    assert {label: len(runs) for label, runs in group_runs(named).items()} == {"mine": 3}
    assert list(group_runs([read_run(mountain_car)])) == ["dqn"]


def test_runs_of_unknown_configuration_are_not_seeds_of_each_other(cartpoles: list[Path], tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        shutil.copy(cartpoles[0] / "0.monitor.csv", tmp_path / name)
    runs = [read_run(tmp_path / name) for name in ("one", "other")]
    assert [(run.env_id, run.algo) for run in runs] == [("CartPole-v1", None)] * 2
    assert list(group_runs(runs)) == ["one", "other"]


def test_python_objects_in_a_configuration_are_not_made(mountain_car: Path, tmp_path: Path) -> None:
    copy = tmp_path / "logs" / "dqn" / "MountainCar-v0_1"
    shutil.copytree(mountain_car, copy)
    witness = tmp_path / "witness"
    with open(copy / "MountainCar-v0" / "config.yml", "a") as file:
        file.write(f"  - - extra\n    - !!python/object/apply:os.mkdir ['{witness}']\n")
    run = read_run(copy)
    assert run.env_id == "MountainCar-v0"
    with pytest.raises(ArgumentError, match=r"config\.yml contains Python objects, which are not loaded"):
        make_env(run)
    assert not witness.exists()


def test_a_log_that_was_created_at_the_same_time_is_distinguished_by_its_returns(cartpoles: list[Path], project: Path) -> None:
    logs = [project / "tb" / "CartPole-v1" / f"DQNExt_{i}" for i in (1, 2, 3)]
    for i, folder in enumerate(cartpoles):
        begun = json.loads((folder / "0.monitor.csv").read_text().partition("\n")[0][1:])["t_start"]
        place = project / f"same_time_{i}"
        for log in logs:
            (place / log.name).mkdir(parents=True)
            (file,) = log.iterdir()
            shutil.copy(file, place / log.name / f"events.out.tfevents.{math.floor(begun)}.host.1.0")
        elsewhere = place / "run"
        elsewhere.mkdir()
        shutil.copy(folder / "0.monitor.csv", elsewhere)
        found = event_folder(read_run(elsewhere, tensorboard=place))
        assert found == place / logs[i].name
        shutil.rmtree(place)


def test_a_log_of_another_time_does_not_belong_to_a_run(cartpoles: list[Path], project: Path, tmp_path: Path) -> None:
    shutil.copy(cartpoles[0] / "0.monitor.csv", tmp_path)
    path = tmp_path / "0.monitor.csv"
    header, _, rest = path.read_text().partition("\n")
    later = {**json.loads(header[1:]), "t_start": json.loads(header[1:])["t_start"] + 1000}
    path.write_text(f"#{json.dumps(later)}\n{rest}")
    assert event_folder(read_run(tmp_path, tensorboard=project / "tb")) is None


# -- figures ---------------------------------------------------------------------------------------------------------------


def test_a_learning_curve_is_the_mean_of_the_rolling_means_of_its_seeds(cartpoles: list[Path]) -> None:
    window = 5
    of_seeds = [episodes_in(folder) for folder in cartpoles[:2]]
    figure = plot_learning(group_runs([read_run(folder) for folder in cartpoles[:2]]), "title", window)
    (axes,) = figure.axes
    steps, drawn = line(axes)
    assert steps[0] == max(ends[0] for ends, _ in of_seeds)
    assert steps[-1] == min(ends[-1] for ends, _ in of_seeds)
    means = [[np.mean(returns[max(0, i - window + 1) : i + 1]) for i in range(len(returns))] for _, returns in of_seeds]
    expected = np.array([np.interp(steps, ends, mean) for (ends, _), mean in zip(of_seeds, means, strict=True)])
    np.testing.assert_allclose(drawn, expected.mean(axis=0))  # two of two are the middle half
    # a quarter of the resamples of two seeds are the lower one twice, so the 2.5 % quantile is the lower seed
    edges: Any = axes.collections[0].get_paths()[0].vertices
    for step, low, high in zip(steps[::50], expected.min(axis=0)[::50], expected.max(axis=0)[::50], strict=True):
        at_step = edges[edges[:, 0] == step, 1]
        np.testing.assert_allclose([at_step.min(), at_step.max()], [low, high])
    legend: Any = axes.get_legend()
    assert legend.get_title().get_text() == "interquartile mean of 2 seeds, 95 % interval"


def test_curves_of_evaluations_and_scores_are_those_in_the_files(cartpoles: list[Path]) -> None:
    results = []
    for folder in cartpoles:
        with np.load(folder / "evaluations.npz") as file:
            results.append(file["results"].mean(axis=1))
    groups = group_runs([read_run(folder) for folder in cartpoles])
    (axes,) = plot_evaluations(groups, "title").axes
    np.testing.assert_array_equal(line(axes)[0], [200, 400, 600])
    np.testing.assert_allclose(line(axes, 0)[1], (results[0] + results[1]) / 2)
    np.testing.assert_allclose(line(axes, 1)[1], results[2])
    assert len(axes.collections) == 1, "a single run has no interval"
    found, label = final_scores(groups)
    np.testing.assert_allclose(next(iter(found.values())), [results[0][-1], results[1][-1]])
    assert label == "return of the last evaluation"


def test_runs_without_evaluations_are_compared_by_their_last_episodes(cartpoles: list[Path], tmp_path: Path) -> None:
    shutil.copy(cartpoles[0] / "0.monitor.csv", tmp_path)
    found, label = final_scores({"both": [read_run(tmp_path), read_run(cartpoles[1])]})
    expected = [np.mean(episodes_in(folder).returns[-100:]) for folder in cartpoles[:2]]
    np.testing.assert_allclose(found["both"], expected)
    assert label == "return of the last 100 training episodes"


def test_epsilon_and_loss_are_drawn_as_they_were_logged(project: Path) -> None:
    folder = project / "tb" / "CartPole-v1" / "DQNExt_1"
    expected = logged_in(folder)
    found = scalars(folder)
    assert found.keys() == expected.keys()
    figure = plot_log(found, "title")
    for axes, name in zip(figure.axes, ("rollout/exploration_rate", "train/loss"), strict=True):
        np.testing.assert_allclose(np.transpose(line(axes)), expected[name])
    assert [axes.get_ylabel() for axes in figure.axes] == ["epsilon", "loss"]


def test_entries_of_a_resumed_run_replace_earlier_ones(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for suffix, steps in ((".first", (10, 20, 30, 40)), (".second", (30, 35, 50))):
        with SummaryWriter(str(tmp_path), filename_suffix=suffix) as writer:
            for step in steps:
                writer.add_scalar("train/loss", step + 0.5 * (suffix == ".second"), step)
    (loss,) = scalars(tmp_path).values()
    assert loss.steps.tolist() == [10, 20, 30, 35, 50]
    assert loss.values.tolist() == [10, 20, 30.5, 35.5, 50.5]


def check_map(figure: Figure, row: int, model: Any, xs: Sequence[float], ys: Sequence[float], state: Any) -> None:
    """Compare some points of a map with the outputs of the network for single states."""
    drawn: list[Any] = [axes.collections[0].get_array() for axes in figure.axes[2 * row : 2 * row + 2]]
    values, actions = drawn
    assert values.shape == actions.shape == (len(ys), len(xs))
    for i, j in ((0, 0), (3, 17), (len(xs) - 1, 2), (11, len(ys) - 1)):
        with th.no_grad():
            q = model.q_net(th.as_tensor(state(xs[i], ys[j]), dtype=th.float32)[None])[0].numpy()
        np.testing.assert_allclose(values[j, i], q.max(), rtol=1e-5)
        assert actions[j, i] == q.argmax()


def test_the_map_of_a_mountain_car_is_the_output_of_its_network(mountain_car: Path) -> None:
    run = read_run(mountain_car)
    model = load_model(run)
    assert type(model) is DQN
    figure = plot_value_map(model, run.name, "MountainCar-v0", n_points=31)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("position", "velocity")
    xs, ys = np.linspace(-1.2, 0.6, 31), np.linspace(-0.07, 0.07, 31)
    check_map(figure, 0, model, xs.tolist(), ys.tolist(), lambda x, y: [x, y])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["push left", "no push", "push right"]


def test_slices_of_cartpole_leave_the_other_two_at_zero(cartpoles: list[Path]) -> None:
    model = load_model(read_run(cartpoles[0]))
    assert type(model) is DQNExt
    figure = plot_value_map(model, "title", "CartPole-v1", n_points=31, ranges={3: (-1.0, 1.0)})
    xs, ys = np.linspace(-0.2095, 0.2095, 31), np.linspace(-1, 1, 31)
    check_map(figure, 0, model, xs.tolist(), ys.tolist(), lambda x, y: [0, 0, x, y])
    xs, ys = np.linspace(-2.4, 2.4, 31), np.linspace(-3, 3, 31)
    check_map(figure, 1, model, xs.tolist(), ys.tolist(), lambda x, y: [x, y, 0, 0])


# -- the environment -------------------------------------------------------------------------------------------------------


def test_the_environment_has_the_wrappers_of_the_run(cartpoles: list[Path], mountain_car: Path) -> None:
    env = make_env(read_run(cartpoles[0]))
    assert env.env_is_wrapped(TerminalPenalty) == [True]
    env.seed(0)
    env.reset()
    rewards = [env.step(np.array([0]))[1][0] for _ in range(20)]
    assert set(rewards) == {1.0, -5.0}
    env.close()
    assert make_env(read_run(mountain_car)).env_is_wrapped(TerminalPenalty) == [False]


def edited(run: Path, place: Path, **hyperparameters: Any) -> Path:
    """Copy a run of DQNExt and change its run.json."""
    shutil.copytree(run, place)
    data = json.loads((place / "run.json").read_text())
    data["hyperparameters"] |= hyperparameters
    (place / "run.json").write_text(json.dumps(data))
    return place


def test_stacked_frames_are_stacked_and_normalised_ones_refused(cartpoles: list[Path], tmp_path: Path) -> None:
    env = make_env(read_run(edited(cartpoles[0], tmp_path / "stacked", frame_stack=3)))
    assert isinstance(env, VecFrameStack)
    assert env.observation_space.shape == (12,)
    with pytest.raises(ArgumentError, match="normalize=True, and the statistics of that are in a pickle"):
        make_env(read_run(edited(cartpoles[0], tmp_path / "normalised", normalize=True)))
    with pytest.raises(ArgumentError, match=r"env_wrapper='pathlib\.Path' is not a Wrapper"):
        make_env(read_run(edited(cartpoles[0], tmp_path / "strange", env_wrapper="pathlib.Path")))


# -- the command -----------------------------------------------------------------------------------------------------------


def test_the_command_draws_all_figures_that_have_data(
    cartpoles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(cartpoles[0]), "-o", str(tmp_path / "pictures"), "--episodes", "2"])
    printed = capsys.readouterr()
    written = sorted((tmp_path / "pictures").iterdir())
    assert sorted(printed.out.split()) == [str(path) for path in written]
    kinds = ("run", "log", "calibration", "panels", "map")
    assert {path.name for path in written} == {f"dqn_ext_CartPole-v1_1_{kind}.png" for kind in kinds}
    for path in written:
        pixels = imread(path)
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 10, path
    assert "No dqn_ext_CartPole-v1_1_calibration_log: The log of dqn_ext/CartPole-v1_1 has none of calibration/" in printed.err
    assert len(printed.err.splitlines()) == 1


def test_the_command_writes_vector_graphics_of_the_requested_kinds(cartpoles: list[Path], tmp_path: Path) -> None:
    kinds = ("--kind", "learning", "--kind", "evaluations", "--kind", "scores")
    main(
        [
            f"ours={cartpoles[0]}",
            f"ours={cartpoles[1]}",
            f"theirs={cartpoles[2]}",
            *kinds,
            "--format",
            "svg",
            "-o",
            str(tmp_path),
        ]
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "CartPole-v1_learning.svg",
        "CartPole-v1_evaluations.svg",
        "CartPole-v1_scores.svg",
    }
    for path in tmp_path.iterdir():
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_folder_without_data_of_a_run_is_an_error_that_lists_the_files_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plot", "empty"])
    monkeypatch.delitem(sys.modules, "sb3_dqn_ext.plot.__main__")
    with pytest.raises(SystemExit) as exit_:  # as `python -m` would run it
        runpy.run_module("sb3_dqn_ext.plot", run_name="__main__")
    assert exit_.value.code == (
        "python -m sb3_dqn_ext.plot: RUN_FOLDERS='empty' contains no data of a run: there is none of *monitor.csv "
        "(training episodes), evaluations.npz (evaluations), *.zip (models), events.out.tfevents.* (TensorBoard's log)."
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere"], "RUN_FOLDERS='nowhere' must be a folder, and there is none of that name."),
        (["run", "--kind", "lerning"], "--kind='lerning' is not known"),
        (["run", "--gym-packages", "no_such_module"], "No module named 'no_such_module'"),
    ],
    ids=["no folder", "no such kind", "no such module"],
)
def test_wrong_arguments_are_errors_of_one_sentence(
    arguments: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with pytest.raises(SystemExit, match=problem.replace("*", r"\*")):
        main(arguments)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("evaluations", "has no evaluations.npz."),
        ("map", "has no model: neither best_model.zip, nor CartPole-v1.zip, nor another *.zip."),
        ("log", "try --tensorboard FOLDER."),
    ],
)
def test_a_figure_without_data_is_an_error_with_the_reason(
    kind: str, problem: str, cartpoles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(cartpoles[0] / "0.monitor.csv", tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path), "--kind", kind, "-o", str(tmp_path / "pictures")])
    assert exit_.value.code == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()


def test_damaged_files_prevent_their_own_figures_only(
    cartpoles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "dqn_ext" / "CartPole-v1_9"
    shutil.copytree(cartpoles[0], place)
    (place / "evaluations.npz").write_bytes(b"PK no archive")
    (place / "best_model.zip").write_bytes((place / "best_model.zip").read_bytes()[:500])
    with open(place / "0.monitor.csv", "a") as file:
        file.write("9.0,9")  # killed in the middle of a line
    main([str(place), "-o", str(tmp_path / "pictures")])
    printed = capsys.readouterr()
    assert [Path(path).name for path in printed.out.split()] == ["dqn_ext_CartPole-v1_9_log.png"]
    assert "evaluations.npz is damaged" in printed.err
    assert "best_model.zip cannot be loaded" in printed.err
    main([str(place), "--kind", "map", "--model", "CartPole-v1", "-o", str(tmp_path / "pictures")])
    assert (tmp_path / "pictures" / "dqn_ext_CartPole-v1_9_map.png").is_file()
