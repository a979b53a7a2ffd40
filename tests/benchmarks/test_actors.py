"""The cost model of actors, and the page that describes it."""

import pytest

from benchmarks import actor_costs
from benchmarks.actor_costs import Costs, predicted_rate, useful_actors
from benchmarks.rows import RESULTS
from sb3_dqn_ext.sweep import read_rows


def test_the_costs_of_a_hand_computed_case() -> None:
    costs = Costs(transition_bytes=1e3, weights_bytes=1e6, act_us=5e3, store_us=20, sample_us=10)
    assert costs.samples_per_second == pytest.approx(100_000)
    assert costs.max_inserts == pytest.approx(10_000)  # 20 us to store and 8 times 10 us to learn
    assert costs.actor_rate(0.005) == pytest.approx(100)  # 5 ms to act and 5 ms to step
    assert costs.broadcast_rate == pytest.approx(25e6)  # 2500 gradient steps, 25 broadcasts of 1 MB
    assert costs.network_inserts() == pytest.approx(125_000)
    assert useful_actors(costs) == pytest.approx(100)
    assert predicted_rate(costs, 50, 0.005) == pytest.approx(5_000)
    assert predicted_rate(costs, 400, 0.005) == pytest.approx(10_000)


def test_the_page_has_the_costs_that_were_measured() -> None:
    (shown,) = actor_costs.TABLE.findall(actor_costs.PAGE.read_text())
    assert shown == actor_costs.table(read_rows(RESULTS / "actor_costs.csv"))
    assert (RESULTS / "actor_scale.png").stat().st_size > 10_000
