"""Tests that the numbers on the page of advice are those of the published rows."""

import re
from statistics import fmean, median

import pytest

from benchmarks.ablation import Effect, effects
from benchmarks.rows import RESULTS
from benchmarks.speed.report import Results
from benchmarks.speed.workloads import BY_NAME, WORKLOADS, Comparison
from sb3_dqn_ext.plot import interquartile_mean
from sb3_dqn_ext.sweep import Row, read_rows, read_spec, select_rows
from sb3_dqn_ext.sweep.report import cells
from tests.pages import DOCS
from tests.paths import ROOT

TEXT = (DOCS / "advice.md").read_text()
LINES = re.findall(r"^\| (?!you have|scarce|what |---)(.*) \|$", TEXT, flags=re.MULTILINE)


def rows(name: str) -> list[Row]:
    return read_rows(RESULTS / f"{name}.csv")


def iqm(name: str, env: str, variant: str) -> float:
    return float(interquartile_mean(cells(rows(name), env, variant, "score")))


def first_evaluation_at_475(variant: str) -> float:
    runs = [
        (row["eval_steps"].split(), row["eval_returns"].split()) for row in select_rows(rows("pqn_cartpole"), variant=variant)
    ]
    return median(next(int(step) for step, value in zip(*run, strict=True) if float(value) >= 475) for run in runs)


@pytest.mark.parametrize("line", LINES)
def test_each_line_names_its_measurement(line: str) -> None:
    assert line.count(" | ") == 2
    assert re.search(r"\]\((results/|atari\.md|masks\.md|choices/|\.\./zoo_configs/)", line)


def test_the_scores() -> None:
    breakout, invaders = "dqn_ext/MinAtar-Breakout-v1", "dqn_ext/MinAtar-SpaceInvaders-v1"
    ours, theirs = iqm("minatar", breakout, "dqn_ext"), iqm("minatar", breakout, "sb3")
    assert f"Breakout {ours:.1f}, SB3's DQN with the same network and number of updates {theirs:.1f}" in TEXT
    assert f"Space Invaders {iqm('minatar', invaders, 'dqn_ext'):.0f} and {iqm('minatar', invaders, 'sb3'):.0f}" in TEXT
    pong = [float(row["score"]) for row in select_rows(rows("pong"), variant="dqn_ext", steps="700000")]
    assert f"{min(pong):.1f} to {max(pong):.1f} of 21 points with three seeds" in TEXT


def test_the_scores_in_classic_environments() -> None:
    (acrobot, lander), (their_acrobot, their_lander) = (
        [iqm("classic", env, variant) for env in ("Acrobot-v1", "LunarLander-v3")] for variant in ("dqn_ext", "sb3")
    )
    assert f"Acrobot {acrobot:.1f}, LunarLander {lander:.0f}; SB3's DQN with the zoo's hyperparameters" in TEXT
    assert f"hyperparameters {their_acrobot:.1f} and {their_lander:.0f}" in TEXT
    ours, theirs = (cells(rows("classic"), "MountainCar-v0", variant, "score") for variant in ("dqn_ext", "sb3"))
    assert f"the last models are at {max(ours):.1f} to {min(ours):.1f}, those of SB3's DQN with the zoo's" in TEXT
    assert f"hyperparameters at {max(theirs):.0f} to {min(theirs):.0f}" in TEXT


def test_the_scores_of_the_default_block() -> None:
    envs = ("FrozenLake-v1", "dqn_ext/ConnectFour-v0")
    (lake, four), (their_lake, their_four) = ([iqm("default", env, variant) for env in envs] for variant in ("dqn_ext", "sb3"))
    assert f"FrozenLake {lake:.2f} and Connect Four {four:.2f} after" in TEXT
    assert f"SB3's DQN with its default arguments {their_lake:.2f} and {their_four:.2f}" in TEXT
    assert {row["score"] for row in select_rows(rows("default"), env="Taxi-v4")} == {"-200.000"}


def test_the_steps() -> None:
    ours, theirs = (
        median(float(row["steps_to_475"]) for row in select_rows(rows("cartpole_seeds"), variant=variant))
        for variant in ("sb3_dqn_ext", "stock SB3 DQN")
    )
    assert f"after {ours:,.0f} steps in the median, SB3's DQN after {theirs:,.0f};" in TEXT
    ours, theirs = (
        median(float(row["mean_return"]) for row in select_rows(rows("cartpole_seeds"), variant=variant))
        for variant in ("sb3_dqn_ext", "stock SB3 DQN")
    )
    assert f"the mean over all evaluations is {ours:.0f}, and {theirs:.0f} with SB3" in TEXT
    ours, theirs = (round(first_evaluation_at_475(variant), -3) for variant in ("dqn_ext", "pqn"))
    assert f"after {ours:,.0f} steps in the median, with PQN after {theirs:,.0f}" in TEXT


def test_the_speed() -> None:
    results = Results(rows("speed"))
    ratios = [results.ratio(BY_NAME[name], Comparison("ours", "sb3")) for name in ("cartpole-1", "zoo-lunarlander")]
    cartpole, lunar_lander = (ratio.median for ratio in ratios if ratio is not None)
    assert f"{cartpole:.1f} times as fast as SB3's DQN in CartPole, {lunar_lander:.1f} times in LunarLander" in TEXT
    quantiles = results.ratio(BY_NAME["quantile-200"], Comparison("ours", "qrdqn"))
    assert quantiles is not None
    assert f"{quantiles.median:.0f} times as fast as sb3-contrib's QR-DQN with 200 quantiles" in TEXT
    pqn, replay = (
        median(float(row["seconds_to_20"]) for row in select_rows(rows("pqn_minatar"), variant=variant))
        for variant in ("pqn", "dqn_ext")
    )
    assert f"comes after {pqn:.0f} seconds in the median, with replay after {replay:.0f}" in TEXT


def test_the_speeds_on_other_pages() -> None:
    results, quantile = Results(rows("speed")), BY_NAME["quantile"]
    ours, theirs = (median(results.cost(quantile, implementation).values()) for implementation in ("ours", "qrdqn"))
    ratio = results.ratio(quantile, Comparison("ours", "qrdqn"))
    assert ratio is not None
    page = (DOCS / "algorithms" / "qr_dqn.md").read_text()
    assert f"take {ours:.0f} µs per environment step; `QRDQN` takes {theirs:.0f} µs, {ratio.median:.1f} times as long" in page
    ratios = [results.ratio(workload, Comparison("ours", "sbx")) for workload in WORKLOADS]
    beside_sbx = [ratio.median for ratio in ratios if ratio is not None]
    page = (DOCS / "comparison.md").read_text()
    assert f"({min(beside_sbx):.1f} to {max(beside_sbx):.0f} times, [speed](speed.md))" in page


def effects_of(name: str) -> dict[str, Effect]:
    spec = read_spec(ROOT / "benchmarks" / "sweeps" / f"{name}.yml")
    return {effect.part: effect for effect in effects(spec, rows(name))}


def test_what_each_part_adds_in_breakout() -> None:
    name, env = "ablation_breakout", "dqn_ext/MinAtar-Breakout-v1"
    measured = effects_of(name)
    prioritized = [f"{float(row['score']):.1f}" for row in select_rows(rows(name), variant="with prioritized replay")]
    assert f"the default has {iqm(name, env, 'default'):.1f} points" in TEXT
    assert "the best of all variants: {}, {} and {}.".format(*prioritized) in TEXT
    assert max(measured.values(), key=lambda effect: (not effect.is_default) * effect.difference).part == "prioritized replay"
    steps, norm, soft, double, head = (
        f"{abs(measured[part].difference):.1f}"
        for part in (
            *("3-step returns", "layer normalisation", "soft targets and a falling learning rate"),
            *("double in place of Munchausen", "a dueling head"),
        )
    )
    flat = TEXT.replace("\n", " ")
    assert (
        f"{steps} points higher, with layer normalisation {norm}, with soft targets and a falling learning rate {soft};"
        in flat
    )
    assert f"double in place of Munchausen targets gives {double} more, a dueling head {head} less" in flat
    assert abs(measured["25 quantiles"].difference) < 0.2
    assert [effect.part for effect in measured.values() if effect.low > 0 or effect.high < 0] == ["a dueling head"]
    assert measured["a dueling head"].high < 0


def test_what_each_part_adds_in_lunar_lander() -> None:
    name = "ablation_lunarlander"
    measured = effects_of(name)
    norm, steps, soft, quantiles, double, head, prioritized = (
        measured[part]
        for part in (
            *("layer normalisation", "3-step returns", "soft targets and a falling learning rate", "25 quantiles", "double"),
            *("a dueling head", "prioritized replay"),
        )
    )
    flat = TEXT.replace("\n", " ")
    assert (
        f"{norm.difference:.0f} points higher with layer normalisation, {soft.difference:.0f} with soft targets and a falling "
        f"learning rate and {quantiles.difference:.0f} with 25 quantiles." in flat
    )
    assert (
        f"{-double.difference:.0f} lower with double, {-steps.difference:.0f} with 3-step returns and "
        f"{-prioritized.difference:.0f} with prioritized replay; a dueling head gives {head.difference:.0f} more" in flat
    )
    assert [effect for effect in measured.values() if effect.low > 0 or effect.high < 0] == [norm]
    minutes = [
        fmean(float(row["cpu_s"]) / 60 for row in select_rows(rows(name), variant=variant))
        for variant in ("with a dueling head", "default")
    ]
    assert "a run with it takes {:.1f} CPU minutes in the place of {:.1f}".format(*minutes) in flat
    below_0 = {
        variant: sum(float(row["score"]) < 0 for row in select_rows(rows(name), variant=variant))
        for variant in read_spec(ROOT / "benchmarks" / "sweeps" / f"{name}.yml").variants
    }
    assert {variant: count for variant, count in below_0.items() if count} == {
        "without layer normalisation": 2,
        "without 3-step returns": 1,
        "with prioritized replay": 1,
    }
    assert {len(select_rows(rows(name), variant=variant)) for variant in below_0} == {5}


def test_what_each_part_adds_beside_a_dueling_head() -> None:
    measured = effects_of("ablation_lunarlander_dueling")
    prioritized, soft = measured["prioritized replay"], measured["soft targets and a falling learning rate"]
    flat = TEXT.replace("\n", " ")
    assert f"prioritized replay takes {-prioritized.difference:.0f} points" in flat
    assert f"soft targets and a falling learning rate give {soft.difference:.0f}, and these two intervals" in flat
    assert [effect for effect in measured.values() if effect.low > 0 or effect.high < 0] == [prioritized, soft]
