"""Tests of the command behind `make bench`: its measurements, with short runs, and its tables and charts."""

import csv
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from benchmarks.speed import __main__ as bench
from benchmarks.speed import cleanrl_loop, cuda
from benchmarks.speed.__main__ import Measurement, measure_all, parse, plan, run
from benchmarks.speed.implementations import make_model
from benchmarks.speed.measure import measure, measure_parts
from benchmarks.speed.profile_update import product_times
from benchmarks.speed.report import break_even
from benchmarks.speed.stopwatch import Parts
from benchmarks.speed.tutorial_loop import Copies, Learner, Step
from benchmarks.speed.workloads import BY_NAME, LABELS, WORKLOADS_WITH_PARTS, Workload
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.sweep import Row
from sb3_dqn_ext.vec_env import make_fast_vec_env

SHORT = replace(BY_NAME["cartpole-32"], warm_up=1120, steps=320)


@pytest.mark.parametrize("implementation", ["sb3", "tutorial", "ours_eager"])
def test_all_make_the_same_updates_in_the_steps_that_are_timed(implementation: str) -> None:
    numbers = measure(SHORT, implementation, seed=0)
    assert (numbers["steps"], numbers["updates"]) == (320, 10)
    assert numbers["wall_s"] > 0


@pytest.mark.parametrize("name", ["cartpole-1", "quantile", "scaling-memory-10000"])
def test_each_kind_of_workload_trains(name: str) -> None:
    workload = BY_NAME[name]
    short = replace(workload, steps=256, warm_up=1280, width=8)
    frequency, updates = workload.arguments["train_freq"] * workload.n_envs, workload.arguments["gradient_steps"]
    numbers = measure(short, "qrdqn" if workload.n_quantiles else "sb3", seed=0)
    assert numbers["updates"] == 256 // frequency * updates


@pytest.mark.parametrize("implementation", ["sb3", "cleanrl", "ours_eager"])
def test_all_make_the_same_updates_on_images(implementation: str) -> None:
    pytest.importorskip("minatar")
    numbers = measure(replace(BY_NAME["minatar-32"], warm_up=1120, steps=96), implementation, seed=0)
    assert (numbers["steps"], numbers["updates"]) == (96, 3)


@pytest.mark.parametrize("implementation", ["sb3", "cleanrl", "ours_eager"])
def test_all_make_the_same_updates_on_frames_of_atari(implementation: str) -> None:
    pytest.importorskip("ale_py")
    numbers = measure(replace(BY_NAME["nature-1"], warm_up=104, steps=8), implementation, seed=0)
    assert (numbers["steps"], numbers["updates"]) == (8, 2)


@pytest.mark.slow
def test_all_have_the_same_networks_for_images() -> None:
    pytest.importorskip("minatar")
    pytest.importorskip("sbx")
    workload = replace(BY_NAME["minatar-32"], n_envs=1)
    policies: list[Any] = [make_model(workload, name, seed=0).policy for name in ("sb3", "sbx", "ours_eager")]
    sb3, sbx, ours = policies
    env: Any = cleanrl_loop.make_env(workload)
    torch_nets: list[Any] = [
        sb3.q_net,
        ours.q_net,
        cleanrl_loop.make_network(workload, env.observation_space, env.action_space.n),
    ]
    sizes = [sum(parameter.numel() for parameter in net.parameters()) for net in torch_nets]
    sizes.append(sum(leaf.size for leaf in pkgutil.resolve_name("jax.tree:leaves")(sbx.qf_state.params)))
    # 3 x 3 x 4 weights and a bias for each of 16 filters, whose 8 x 8 outputs go to 128 units, which go to 3 actions
    assert sizes == [37 * 16 + (8 * 8 * 16 + 1) * 128 + 129 * 3] * 4


def test_the_parts_are_those_of_the_whole() -> None:
    parts = measure_parts(SHORT, "ours_eager", seed=0)
    assert list(parts) == [*Parts.NAMES, Parts.FLOOR]
    assert all(parts[name] > 0 for name in Parts.NAMES)
    assert parts[Parts.FLOOR] == 0  # SB3's environments, and nothing is compiled


def test_the_floor_is_a_part_of_the_others() -> None:
    model = DQNExt("MlpPolicy", make_fast_vec_env("CartPole-v1", 4), learning_starts=40, policy_kwargs={"net_arch": [8]})
    parts = Parts(model)
    model.learn(200)
    assert 0 < parts.seconds[Parts.FLOOR] < parts.seconds["env"]  # nothing is compiled
    assert "sample" not in vars(model.replay_buffer)  # the methods of the faster path are measured
    assert parts.seconds["sample"] > 0


def test_a_measurement_is_a_process_and_a_row(tmp_path: Path) -> None:
    row = run(Measurement("cartpole-32", "tutorial", 3), parts=False, steps=320, caches=tmp_path)
    assert (row["workload"], row["implementation"], row["repeat"], row["cold"]) == ("cartpole-32", "tutorial", "3", "1")
    assert float(row["steps"]) == 320
    assert float(row["wall_s"]) > 0


def test_implementations_take_turns() -> None:
    turns = [m.implementation for m in plan(["cartpole-32"], list(LABELS), repeats=2, scaling_repeats=1)]
    assert turns == ["sb3", "sbx", "tutorial", "ours"] * 2


def test_rows_are_measured_once_and_become_tables_and_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def made_up(measurement: Measurement, parts: bool, steps: int | None, caches: Path) -> Row:
        calls.append(measurement)
        key = {
            "workload": measurement.workload,
            "implementation": measurement.implementation,
            "repeat": str(measurement.repeat),
        }
        key["cold"] = str(int(measurement.repeat == 0))
        if parts:
            return {**key, **dict.fromkeys([*Parts.NAMES, Parts.FLOOR], "2.5")}
        # DQNExt: 2 µs per step; SB3: 8, 10 and 6; both use the processor for half of the time
        wall = 2.0 if measurement.implementation == "ours" else [8.0, 10.0, 6.0][measurement.repeat]
        start_up = 20 - 12 * min(measurement.repeat, 1) if measurement.implementation == "ours" else 8
        updates = 1_000_000 * BY_NAME[measurement.workload].updates_per_step
        numbers = {"start_up_s": start_up, "wall_s": wall, "cpu_s": wall / 2, "steps": 1_000_000, "updates": updates}
        return {**key, **{name: str(number) for name, number in numbers.items()}}

    monkeypatch.setattr(bench, "run", made_up)
    what = "--workloads cartpole-32 scaling-envs-8 --implementations sb3 ours"
    command = f"{what} --repeats 3 --scaling-repeats 2 --results {tmp_path}"
    measure_all(parse(command.split()))
    assert len(calls) == 3 * 2 + 2 * 2 + 2
    with (tmp_path / "speed.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 10
    table = (tmp_path / "speed.md").read_text()
    assert "| DQNExt, compiled | SB3 DQN | 2.0 (2.0-2.0) | 8.0 (6.0-10.0) | 4.00 (3.00-5.00) | 4.00 |" in table
    assert "| SB3 DQN | 8.0 | 20.0 | 8.0 | 6.0 | 2,000,000 |" in table  # 12 s more, 6 µs less
    assert "| SB3 DQN | 2.5 | 2.5 | 2.5 | 2.5 | 2.5 | 2.5 | 15.0 |  |" in table
    assert "| DQNExt, compiled | 2.5 | 2.5 | 2.5 | 2.5 | 2.5 | 2.5 | 15.0 | 2.5 |" in table
    assert "| environments | 8 | 9.0 | 2.0 | 4.50 (4.00-5.00) |" in table
    for name in ("speed.png", "speed_scaling.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    measure_all(parse(command.split()))
    assert len(calls) == 12, "a measurement that has a row was repeated"
    measure_all(parse([*command.split(), "--scaling-repeats", "3"]))
    assert len(calls) == 14


def test_the_break_even_is_the_number_of_steps_that_saves_the_start_up_time() -> None:
    assert break_even(seconds=3.0, saved=200.0) == "15,000"
    assert break_even(seconds=-1.0, saved=200.0) == "0"
    assert break_even(seconds=3.0, saved=-1.0) == "never"
    assert break_even(seconds=float("nan"), saved=1.0) == "-"


def test_every_workload_takes_part_in_something() -> None:
    assert set(WORKLOADS_WITH_PARTS) <= set(BY_NAME)
    for workload in BY_NAME.values():
        ours = [name for name in workload.implementations if name.startswith("ours")]
        assert ours
        assert len(workload.implementations) > len(ours)
        assert _divides(workload), "the timed part would not hold whole trainings"


def _divides(workload: Workload) -> bool:
    frequency = workload.arguments["train_freq"] * workload.n_envs
    return workload.steps % frequency == 0 and workload.steps % workload.n_envs == 0


def test_the_loop_resets_each_copy_by_itself() -> None:
    envs = Copies(gym.make("CartPole-v1"), 2)
    first = envs.reset(seed=0)
    assert not np.array_equal(first[0], first[1])
    fallen = np.zeros(2, dtype=int)
    for _ in range(40):
        observations, rewards, dones = envs.step(np.array([0, 0]))
        fallen += dones
        assert np.all(np.abs(observations[dones]) <= 0.05), "not the first observation of an episode"
        assert rewards.tolist() == [1.0, 1.0]
    assert all(fallen >= 3)  # a pole that is pushed to the left falls within about 10 steps


def test_the_loop_fits_returns() -> None:
    th.manual_seed(0)
    learner = Learner(n_inputs=1, n_actions=2, width=24, learning_rate=2e-2, gamma=0.5)
    observations = np.array([[0.0], [1.0]])
    rewards = np.array([3.0, 1.0])
    # the second environment ends an episode; in the first, the second state follows, whose best action has the value 1
    step = Step(observations, np.array([0, 1]), rewards, np.array([[1.0], [0.0]]), np.array([False, True]))
    other = Step(observations, np.array([1, 0]), np.zeros(2), observations, np.array([True, True]))
    for i in range(900):
        if i % 10 == 0:
            learner.synchronize()
        learner.update(step if i % 2 else other)
    values = learner.q_net(th.as_tensor(observations)).detach().numpy()
    np.testing.assert_allclose(values, [[3.5, 0.0], [0.0, 1.0]], atol=0.05)
    assert learner.act(observations, epsilon=0.0).tolist() == [0, 1]


def test_a_page_of_the_speed_on_a_gpu_names_the_card_and_compares_the_times_of_the_same_repeat() -> None:
    workload = cuda.WORKLOADS[3]
    assert (workload.n_envs, workload.steps, workload.device) == (128, 300 * 128, "cuda")
    wall_s = {"sb3": (3.0, 8.0), "ours_eager": (2.0, 4.0)}
    rows = [
        {
            "workload": workload.name,
            "implementation": name,
            "repeat": str(repeat),
            "updates": "100",
            "cpu_s": "1",
            "wall_s": str(s),
        }
        for name, seconds in wall_s.items()
        for repeat, s in enumerate(seconds)
    ]
    page = cuda.page(rows, cuda.WORKLOADS, "Some Card")
    assert "\nSome Card; " in page
    # 3 s for 100 updates, and 128 steps for each update: 234.4 µs; the ratios are 3 / 2 and 8 / 4
    assert "| 234.4 (156.2-312.5) | 429.7 (234.4-625.0) | 1.75 (1.50-2.00) |" in page


def test_a_measurement_that_would_begin_too_late_is_left_out() -> None:
    short = replace(BY_NAME["cartpole-1"], warm_up=120, steps=40, width=8, comparisons=cuda.COMPARISONS[2:])
    rows = cuda.measure_in_turns([short], repeats=1, seconds=60.0)
    assert [row["implementation"] for row in rows] == ["sb3", "ours_eager"]
    assert not cuda.measure_in_turns([short], repeats=1, seconds=0.0)


@pytest.mark.slow
def test_pqn_is_compared_at_the_same_number_of_updates() -> None:
    workload = cuda.WORKLOADS[4]
    assert (workload.steps, workload.updates_per_step) == (320 * 128, 2 / 128)
    assert workload.warm_up > 2 * 32 * 128  # PQN's first training is after 32 vector steps
    short = replace(workload, device="cpu", steps=32 * 128, comparisons=workload.comparisons[:1], width=8)
    rows = cuda.measure_in_turns([short], repeats=1, seconds=600.0)
    assert {row["implementation"]: float(row["updates"]) for row in rows} == {"sb3": 64, "pqn": 64}


@pytest.mark.skipif(th.cuda.is_available(), reason="a CUDA device is present")
def test_without_a_gpu_the_benchmark_ends_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^This benchmark needs a GPU, .*: nothing was measured\.$"):
        cuda.main(tmp_path / "speed_cuda.md")
    assert not list(tmp_path.iterdir())


def test_a_matrix_product_is_timed_with_both_libraries() -> None:
    small, large = (min(product_times(size, size, size, repeats=20)) for size in (8, 512))
    assert 0 < small < large
