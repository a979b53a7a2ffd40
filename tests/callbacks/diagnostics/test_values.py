"""The Q-values of a fixed set of states."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    QValuesCallback,
)
from tests.callbacks.diagnostics.helpers import At, build, networks_of, ours, poles, states_of
from tests.closed_form_env import model_with_true_values, true_values
from tests.parity import learn


def test_values_are_those_of_the_stored_states(algorithm: Any) -> None:
    found = ours(learn(model_with_true_values(algorithm), 60, callback=QValuesCallback(50)).rows)
    q = true_values()
    assert q[:, 1].min() - 1e-5 <= found["values/mean"] <= q[:, 1].max() + 1e-5
    assert found["values/min"] == pytest.approx(0, abs=1e-5)
    assert found["values/max"] == pytest.approx(q.max(), abs=1e-5)
    assert found["values/spread"] == pytest.approx(found["values/mean"], abs=1e-5)
    assert found["values/action_gap"] == pytest.approx(found["values/mean"], abs=1e-5)
    assert found["values/target_outputs"] > 0
    assert found["values/histogram"].shape == (512,)


def test_values_are_those_of_normalised_observations() -> None:
    callback = QValuesCallback(50, batch_size=20)
    model = build(DQN, VecNormalize(poles(2)), learning_starts=10**6, buffer_size=1000)
    statistics: list[Any] = []

    def inspect(model: Any) -> None:
        of_observations = model.get_vec_normalize_env().obs_rms
        statistics.extend([of_observations.mean.copy(), of_observations.var.copy()])

    found = ours(learn(model, 90, callback=[callback, At(50, inspect)]).rows)
    mean, var = statistics
    normalised = np.clip((states_of(callback) - mean) / np.sqrt(var + 1e-8), -10, 10).astype(np.float32)
    with th.no_grad():
        expected = model.q_net(th.as_tensor(normalised))
    np.testing.assert_allclose(found["values/histogram"], expected.flatten(), rtol=1e-5)
    of_env = [model.replay_buffer.observations[:, env].tolist() for env in range(2)]
    n_of_env = [sum(state in stored for state in states_of(callback).tolist()) for stored in of_env]
    assert sum(n_of_env) == 20
    assert min(n_of_env) > 0, "of both environments"


def test_the_target_is_as_far_away_as_its_parameters_and_outputs(algorithm: Any) -> None:
    model = build(algorithm)
    distances: list[tuple[float, float]] = []

    def inspect(model: Any) -> None:
        """Compute the distance over all parameters, number by number."""
        online, target = networks_of(model)
        total = 0.0
        for some, others in zip(online.parameters(), target.parameters(), strict=True):
            for one, other in zip(some.flatten().tolist(), others.flatten().tolist(), strict=True):
                total += (one - other) ** 2
        states = th.as_tensor(states_of(callback))
        with th.no_grad():
            some, others = ((of.mean(dim=1) if of.dim() == 3 else of) for of in (online(states), target(states)))
        distances.append((float(total**0.5), float((some - others).abs().mean())))

    callback = QValuesCallback(30)
    found = ours(learn(model, 118, callback=[callback, At(90, inspect)]).rows)
    ((of_parameters, of_outputs),) = distances
    assert found["values/target_parameters"] == pytest.approx(of_parameters, rel=1e-5)
    assert found["values/target_outputs"] == pytest.approx(of_outputs, rel=1e-4)
    assert min(of_parameters, of_outputs) > 0


def test_where_there_is_no_target_network_none_is_compared() -> None:
    found = ours(learn(build(DQNExt, target_network=False), 60, callback=QValuesCallback(30)).rows)
    assert not {"values/target_parameters", "values/target_outputs"} & found.keys()
    assert "values/action_gap" in found


def test_churn_is_seen_where_the_greedy_actions_were_changed() -> None:
    def swap(model: Any) -> None:
        with th.no_grad():
            weight = model.q_net.q_net[0].weight
            weight[:, :3] = weight[[1, 0], :3].clone()  # the other action is the best in states 0, 1 and 2

    callback = QValuesCallback(20)
    model = model_with_true_values(DQN)
    rows = learn(model, 95, callback=[callback, At(50, swap)]).rows
    churns = [row["values/churn"] for row in rows if "values/churn" in row]
    states = states_of(callback).argmax(axis=1)
    assert churns == [0, pytest.approx((states < 3).mean()), 0]
