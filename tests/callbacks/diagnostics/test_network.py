"""Gradients, weights, units and features of the network."""

from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import DQN

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    NetworkHealthCallback,
)
from tests.callbacks.diagnostics.helpers import At, build, networks_of, ours
from tests.parity import learn


@pytest.mark.parametrize("max_grad_norm", [0.3, 1000.0])
@pytest.mark.parametrize("stock", [DQN, QRDQN], ids=["DQN", "QRDQN"])
def test_norms_are_those_that_the_gradients_have_before_they_are_clipped(
    stock: Any, max_grad_norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []
    clip = th.nn.utils.clip_grad_norm_
    model = build(stock, gradient_steps=2, max_grad_norm=max_grad_norm)

    def noted(*args: Any, **kwargs: Any) -> th.Tensor:
        norm = clip(*args, **kwargs)
        seen.append((model.num_timesteps, norm.item()))
        return norm

    monkeypatch.setattr(th.nn.utils, "clip_grad_norm_", noted)
    found = ours(learn(model, 210, callback=NetworkHealthCallback(100, batch_size=50)).rows)
    # from step 198 on, before the training after step 200
    norms = [norm for step, norm in seen if 198 <= step < 200]
    assert len(norms) == 2
    assert found["network/gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert found["network/gradient_norm_max"] == pytest.approx(max(norms), rel=1e-5)
    assert found["network/clipped"] == pytest.approx(np.mean([norm > max_grad_norm for norm in norms]))
    assert (found["network/clipped"] > 0) == (max_grad_norm < 1)


def test_the_norms_of_dqnext_are_those_of_dqn() -> None:
    found = [ours(learn(build(algorithm), 210, callback=NetworkHealthCallback(100)).rows) for algorithm in (DQN, DQNExt)]
    for key in ("network/gradient_norm", "network/clipped", "network/weight_norm", "network/dormant", "network/feature_rank"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-6), key


def test_updates_that_are_rare_are_waited_for() -> None:
    """One training in 100 steps, and a measurement every 40."""
    rows = learn(build(DQN, train_freq=100, learning_starts=0), 260, callback=NetworkHealthCallback(40)).rows
    assert ours(rows)["network/gradient_norm"] > 0


def test_where_there_were_no_updates_the_next_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements at 40 and 80, and updates after 50, 60, 70 ...: the window lasts until 50, and the next contains 70."""
    seen: dict[int, float] = {}
    clip = th.nn.utils.clip_grad_norm_
    model = build(DQN, train_freq=10, learning_starts=41)

    def noted(*args: Any, **kwargs: Any) -> th.Tensor:
        norm = clip(*args, **kwargs)
        seen[model.num_timesteps] = norm.item()
        return norm

    monkeypatch.setattr(th.nn.utils, "clip_grad_norm_", noted)
    found = ours(learn(model, 110, callback=NetworkHealthCallback(40)).rows)
    assert found["network/gradient_norm"] == pytest.approx((seen[50] + seen[70]) / 2)


def test_units_that_were_put_to_sleep_are_found(algorithm: Any) -> None:
    model = build(algorithm, learning_starts=10**6)

    def put_to_sleep(model: Any) -> None:
        first, second, _ = (layer for layer in networks_of(model)[0].modules() if isinstance(layer, th.nn.Linear))
        with th.no_grad():
            for layer, n_asleep in ((first, 5), (second, 4)):
                layer.bias.fill_(10.0)
                layer.bias[:n_asleep] = -1000.0  # of 16, of 8

    rows = learn(model, 90, callback=[At(50, put_to_sleep), NetworkHealthCallback(80)]).rows
    found = ours(rows)
    assert found["network/dormant"] == pytest.approx(9 / 24)
    assert (found["network/dormant_1"], found["network/dormant_2"]) == (pytest.approx(5 / 16), pytest.approx(4 / 8))
    assert 1 <= found["network/feature_rank"] <= 4, "of 8, of which 4 are silent"
    assert found["network/feature_rank_share"] == found["network/feature_rank"] / 8
    assert not any(layer._forward_hooks for layer in model.policy.modules()), "it listens no longer"


def test_the_weights_are_measured_together_and_one_by_one(algorithm: Any) -> None:
    model = build(algorithm, learning_starts=10**6)
    found = ours(learn(model, 60, callback=NetworkHealthCallback(50)).rows)
    norms = [value for key, value in found.items() if key.startswith("network/norm_of_")]
    parameters = list(networks_of(model)[0].parameters())
    assert sorted(norms) == pytest.approx(sorted(float(np.linalg.norm(one.detach().numpy())) for one in parameters))
    assert found["network/weight_norm"] == pytest.approx(np.sqrt(np.square(norms).sum()))
    assert "network/gradient_norm" not in found, "there were no updates"
