"""The actions whose predictions are fitted."""

import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.fitted_actions import fit_all
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models import (
    ExpectedReturns,
)
from tests.algorithm.value_models.helpers import A, B, numbers
from tests.internals import drawn_batch, losses_of
from tests.parity import learn, short_cartpole


def test_with_all_actions_fitted_the_others_are_held_where_the_target_network_sees_them() -> None:
    predicted, kept, target = numbers(B, A, 1), numbers(B, A, 1, seed=8), numbers(B, 1, seed=9)
    actions = th.arange(B) % A
    losses, td_errors = fit_all(
        ExpectedReturns("mse"), Prediction(predicted), actions, Prediction(target), lambda: Prediction(kept)
    )
    for b in range(B):
        total = 0.0
        for a in range(A):
            goal = float(target[b, 0]) if a == int(actions[b]) else float(kept[b, a, 0])
            total += (float(predicted[b, a, 0]) - goal) ** 2
        assert float(losses[b]) == pytest.approx(total / A, rel=1e-5)
        error = float(target[b, 0]) - float(predicted[b, int(actions[b]), 0])
        assert float(td_errors[b]) == pytest.approx(error, rel=1e-5)


def test_fitting_all_actions_is_what_the_loss_of_a_batch_does() -> None:
    kwargs = {"net_arch": [8], "loss": "mse", "fitted_actions": "all"}
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=kwargs, learning_starts=10, seed=0, device="cpu")
    learn(model, 100)
    with th.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(th.randn_like(parameter))
    batch = drawn_batch(model, 16)
    assert isinstance(batch.observations, th.Tensor)
    assert isinstance(batch.next_observations, th.Tensor)
    with th.no_grad():
        table = model.q_net_target(batch.observations)
        best = model.q_net_target(batch.next_observations).max(dim=1).values
        table[th.arange(16), batch.actions] = batch.rewards + batch.discounts * best
        expected = ((model.q_net(batch.observations) - table) ** 2).mean(dim=1)
    th.testing.assert_close(losses_of(model, batch).detach(), expected)
