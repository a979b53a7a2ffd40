"""The output of a run in the terminal: the summary, the table, the progress bar, and Ctrl-C."""

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, ProgressBarCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import HumanOutputFormat, Logger
from stable_baselines3.common.monitor import load_results

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import DiagnosticsCallback, ExactCheckpointCallback, SummaryCallback
from tests.callbacks.test_tensorboard import each_algorithm, model_of
from tests.internals import n_updates_of
from tests.terminals import run_in_terminal

NUMBER = r"([\d.,-]+)"
RETURNS = rf"mean return, (.*?) +{NUMBER} +best +{NUMBER} at step {NUMBER}"


def number(text: str) -> float:
    return float(text.replace(",", ""))


def printed(capfd: pytest.CaptureFixture[str]) -> str:
    """Return the summary, which is the whole output."""
    return capfd.readouterr().out


@each_algorithm
def test_the_summary_prints_the_results_of_the_run(
    algorithm: type[Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = make_vec_env("CartPole-v1", seed=0, monitor_dir=str(tmp_path / "run"))
    evaluations = EvalCallback(
        make_vec_env("CartPole-v1", seed=1), eval_freq=100, log_path="run", best_model_save_path="run", verbose=0
    )
    checkpoints = CheckpointCallback(200, "run", "model")
    model = model_of(algorithm, stats_window_size=5, tensorboard_log="logs")
    model.set_env(env)
    start = time.perf_counter()
    model.learn(600, callback=[SummaryCallback(), evaluations, checkpoints], log_interval=1)
    seconds = time.perf_counter() - start
    model.logger.close()
    env.close()
    title, of_evaluations, of_training, *where = printed(capfd).splitlines()

    found = re.fullmatch(rf"Ended after {NUMBER} steps: {NUMBER} episodes, {NUMBER} steps/s", title)
    assert found
    steps, episodes, speed = map(number, found.groups())
    recorded = load_results(str(tmp_path / "run"))
    assert (steps, episodes) == (600, len(recorded))
    assert 600 / seconds <= speed + 1 <= 600 / seconds * 1.5

    results = np.load("run/evaluations.npz")
    means = results["results"].mean(axis=1)
    what, last, best, step = re.findall(RETURNS, of_evaluations)[0]
    assert what == "evaluations"
    assert (number(last), number(best)) == pytest.approx((means[-1], means.max()), abs=0.01)
    assert number(step) == results["timesteps"][means.argmax()]

    returns = recorded["r"].to_numpy()  # in the order in which the episodes ended
    windows = np.convolve(returns, np.ones(5) / 5, mode="valid")
    what, last, best, step = re.findall(RETURNS, of_training)[0]
    assert what == "last 5 episodes"
    assert (number(last), number(best)) == pytest.approx((windows[-1], windows.max()), abs=0.01)
    assert number(best) > number(last)

    places = [re.split(r"  +", line.strip()) for line in where]
    assert places == [
        ["run folder", "run"],
        ["best model", os.path.join("run", "best_model.zip")],
        ["checkpoints", os.path.join("run", "model_*_steps.zip")],
        ["TensorBoard", os.path.join("logs", f"{algorithm.__name__}_1")],
    ]
    assert all(list(tmp_path.glob(place)) for _, place in places)


def test_it_prints_nothing_at_verbose_0_and_little_without_episodes(capfd: pytest.CaptureFixture[str]) -> None:
    model_of(DQNExt).learn(50, callback=SummaryCallback(verbose=0))
    assert printed(capfd) == ""
    model = DQN("MlpPolicy", make_vec_env("MountainCar-v0"), buffer_size=100, learning_starts=1000, device="cpu")
    model.learn(52, callback=SummaryCallback())
    assert re.fullmatch(rf"Ended after 52 steps: 0 episodes, {NUMBER} steps/s\n", printed(capfd))


@pytest.mark.parametrize(
    ("verbose", "choice", "n_summaries"), [(1, None, 1), (0, None, 0), (0, True, 1), (0, {"verbose": 1}, 1), (1, False, 0)]
)
def test_among_the_diagnostics_it_prints_if_the_model_does(
    verbose: int, choice: Any, n_summaries: int, capfd: pytest.CaptureFixture[str]
) -> None:
    model = model_of(DQNExt)
    model.verbose = verbose
    model.learn(50, callback=DiagnosticsCallback(every=50, calibration=False, summary=choice))
    assert printed(capfd).count("Ended after ") == n_summaries


def test_a_run_that_a_callback_stops_ended_early(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoints = ExactCheckpointCallback(100, tmp_path)
    model_of(DQNExt).learn(5000, callback=[Stop(130), checkpoints, SummaryCallback()])
    title, _, where = printed(capfd).splitlines()
    assert title.startswith("Ended early, at step 130 of 5,000: ")
    assert where.split() == ["resume", "from", str(tmp_path)]


def test_a_resumed_run_counts_all_steps(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = model_of(DQNExt, stats_window_size=2)
    whole.learn(400, callback=[SummaryCallback()], log_interval=1)
    expected = printed(capfd).splitlines()
    first = model_of(DQNExt, stats_window_size=2)
    first.learn(400, callback=[SummaryCallback(), ExactCheckpointCallback(50, tmp_path), Stop(200)], log_interval=1)
    capfd.readouterr()
    resumed = model_of(DQNExt, stats_window_size=2).resume(tmp_path)
    resumed.learn(400, callback=[SummaryCallback(), ExactCheckpointCallback(50, tmp_path)], log_interval=1)
    title, returns, _ = printed(capfd).splitlines()
    assert title.split(",")[0] == expected[0].split(",")[0]
    assert returns == expected[1]


class Stop(BaseCallback):
    """
    :param at: the last step
    """

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        return self.num_timesteps < self.at


def test_the_table_shows_every_group_once_in_order_and_whole_names(tmp_path: Path) -> None:
    diagnostics = DiagnosticsCallback(every=60, calibration={"every": 60, "n_episodes": 2})
    model = model_of(DQNExt, n_envs=2, replay_buffer_kwargs={"sampler": "prioritized"})
    table = HumanOutputFormat(str(tmp_path / "log.txt"))
    model.set_logger(Logger(None, [table]))
    model.learn(300, callback=diagnostics, log_interval=1)
    table.close()
    shown = set()
    for block in re.split(r"^-+$", (tmp_path / "log.txt").read_text(), flags=re.MULTILINE):
        names = [line.split("|")[1][1:-1].rstrip() for line in block.splitlines() if line]
        if not names:
            continue
        assert not [name for name in names if "..." in name]
        groups = [name for name in names if not name.startswith(" ")]
        assert groups == sorted(set(groups))
        starts = [names.index(group) for group in groups]
        for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
            assert names[start + 1 : end] == sorted(names[start + 1 : end]) != []
        shown |= set(groups)
    ours = {"calibration/", "errors/", "exploration/", "network/", "replay/", "values/"}
    assert shown == ours | {"rollout/", "time/", "train/"}


# -- the zoo ---------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:rich is experimental")
@pytest.mark.parametrize("is_ours_to_make", [True, False], ids=["by learn", "as a callback"])
def test_no_bar_is_left_open_by_a_run_that_breaks_off(is_ours_to_make: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bars that are open when Python ends wait for ever."""
    bars: list[Any] = []
    begin = ProgressBarCallback._on_training_start

    def noted(bar: ProgressBarCallback) -> None:
        begin(bar)
        bars.append(bar.pbar)

    monkeypatch.setattr(ProgressBarCallback, "_on_training_start", noted)

    class CtrlC(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 20:
                raise KeyboardInterrupt
            return True

    model = model_of(DQNExt)
    callbacks = [CtrlC()] if is_ours_to_make else [CtrlC(), ProgressBarCallback()]
    with pytest.raises(KeyboardInterrupt):
        model.learn(100, callback=callbacks, progress_bar=is_ours_to_make)
    (bar,) = bars
    assert bar.disable, "tqdm's word for closed"
    assert not bar._prog.live.is_started


def test_ctrl_c_in_the_zoo_saves_a_model_and_prints_its_path_after_the_bar(tmp_path: Path) -> None:
    callbacks = ["sb3_dqn_ext.callbacks.DiagnosticsCallback"]
    train = ("-m", "rl_zoo3.train", "--algo", "dqn_ext", "--env", "CartPole-v1", "-f", "logs", "--progress", "--seed", "0")
    limits = ("-n", "1000000", "--eval-freq", "500", "--eval-episodes", "1", "--tensorboard-log", "tb")
    small = ("-params", f"callback:{callbacks}", "policy_kwargs:dict(net_arch=[16])", "learning_starts:100")
    command = (sys.executable, *train, *limits, *small)
    shown, code = run_in_terminal(command, tmp_path, columns=100, ctrl_c_after="Eval num_timesteps=1000")
    assert code == 0, shown[-3000:]
    # without the bar that was wiped, and what shows the cursor
    lines = [line.split("\x1b[2K")[-1].removeprefix("\x1b[?25h").rstrip() for line in shown.splitlines()]
    assert re.search(r"it/s", shown)
    assert any(line.startswith("| rollout/") for line in lines)

    (start,) = [i for i, line in enumerate(lines) if line.startswith("Ended")]
    title, *summary = lines[start : lines.index("Saving to logs/dqn_ext/CartPole-v1_1")]
    assert re.match(rf"Ended early, at step {NUMBER} of 1,000,000: ", title)
    assert "  run folder     logs/dqn_ext/CartPole-v1_1" in summary
    assert "  best model     logs/dqn_ext/CartPole-v1_1/best_model.zip" in summary
    assert "  TensorBoard    tb/CartPole-v1/DQNExt_1" in summary
    assert shown.rindex("\x1b[?25l") < shown.rindex("\x1b[?25h") < shown.index("Ended"), (
        "the bar ends first; the cursor is back"
    )

    folder = tmp_path / "logs" / "dqn_ext" / "CartPole-v1_1"
    model = DQNExt.load(folder / "CartPole-v1.zip", device="cpu")
    assert model.num_timesteps == number(title.split()[4])
    assert n_updates_of(model) > 0
    DQNExt.load(folder / "best_model.zip", device="cpu")
