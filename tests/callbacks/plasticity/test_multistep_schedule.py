"""Schedules of n and gamma."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback, MultistepScheduleCallback, ResetCallback
from sb3_dqn_ext.checkpoint.folder import checkpoints
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.callbacks.diagnostics.helpers import At, build
from tests.internals import n_updates_of
from tests.parity import assert_same, assert_same_model, learn

N = {"name": "geometric", "start": 10, "end": 3, "steps": 20}
GAMMA = {"name": "geometric", "start": 0.97, "end": 0.997, "steps": 20, "asymptote": 1}
LAMBDA = {"replay_buffer_kwargs": {"td_lambda": 0.5}, "policy_kwargs": {"fitted_actions": "all"}}  # reads the target network
MONTE_CARLO = {"replay_buffer_kwargs": {"monte_carlo": 0.5}}
HL_GAUSS = {"gamma": 0.9, "policy_kwargs": {"returns": "hl_gauss", "returns_kwargs": {"reward_range": [0, 1], "gamma": 0.9}}}


class TrainedWith(DQNExt):
    """A DQNExt that records the number of updates, n and gamma of each training."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        before = n_updates_of(self)
        super().train(gradient_steps, batch_size)
        buffer: Any = self.replay_buffer
        vars(self).setdefault("seen", []).append((before, buffer.n_steps, buffer.gamma))


def by_hand(step: int) -> tuple[int, float]:
    """Return n and gamma of the equations of BBF, after 20 instead of 10,000 updates."""
    part = min(step / 20, 1)
    return int(np.round(10 ** (1 - part) * 3**part)), 1 - 0.03 ** (1 - part) * 0.003**part


@pytest.mark.parametrize("callbacks_in_order", [True, False])
def test_n_and_gamma_of_each_training_follow_the_schedules_after_each_reset(callbacks_in_order: bool) -> None:
    model = build(TrainedWith, gamma=0.9)
    own: list[Any] = []
    callbacks: list[BaseCallback] = [ResetCallback(30), MultistepScheduleCallback(N, GAMMA)]
    observer = At(100, lambda model: own.append((model.n_steps, model.gamma)))
    learn(model, 140, callback=[observer, *(callbacks if callbacks_in_order else callbacks[::-1])])
    seen = vars(model)["seen"]
    assert len(seen) == 60
    for n_updates, n, gamma in seen:
        expected_n, expected_gamma = by_hand(n_updates % 30)
        assert n == expected_n, n_updates
        assert gamma == pytest.approx(expected_gamma, rel=1e-12), n_updates
    assert {n for _, n, _ in seen} == {*range(3, 11)}
    assert own == [(1, 0.9)], "other callbacks see the original values"
    assert (model.n_steps, model.gamma) == (1, 0.9)


def test_without_restarts_steps_are_counted_from_the_start() -> None:
    models = []
    for restart in (True, False):
        models.append(build(TrainedWith))
        schedule = MultistepScheduleCallback(n_steps=N, restart_at_resets=restart)
        learn(models[-1], 100, callback=[schedule, ResetCallback(30)])
    later = [[n for step, n, _ in vars(model)["seen"] if step >= 30] for model in models]
    assert later[0][0] == 10
    assert set(later[1]) == {3}


def test_steps_can_be_environment_steps() -> None:
    model = build(TrainedWith)
    learn(model, 60, callback=MultistepScheduleCallback({"name": "linear", "start": 6, "end": 1}, unit="env_steps"))
    # the training after step t begins with the rollout at step t - 2
    assert [n for _, n, _ in vars(model)["seen"]] == [round(6 - 5 * (t - 2) / 60) for t in range(22, 62, 2)]


@pytest.mark.parametrize("algorithm", [DQN, QRDQN, DQNExt], ids=["DQN", "QRDQN", "DQNExt"])
def test_a_constant_schedule_ends_with_the_bits_of_the_argument(algorithm: Any) -> None:
    models = []
    for gamma, callback in ((0.5, []), (0.99, [MultistepScheduleCallback(gamma=0.5)])):
        models.append(build(algorithm, gamma=gamma))
        learn(models[-1], 90, callback=callback)
    models[1].gamma = 0.5
    assert_same_model(*models)


def test_a_schedule_of_n_ends_with_the_bits_of_the_argument() -> None:
    models = []
    for n_steps, callback in ((4, []), (1, [MultistepScheduleCallback(n_steps=4)])):
        models.append(build(DQNExt, n_steps=n_steps))
        learn(models[-1], 90, callback=callback)
    assert_same_model(*models)


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    def callbacks(folder: str) -> list[BaseCallback]:
        checkpoint = ExactCheckpointCallback(30, tmp_path / folder, keep=9)
        return [checkpoint, MultistepScheduleCallback(N, GAMMA), ResetCallback(8)]

    def make() -> Any:
        return build(TrainedWith, make_vec_env("CartPole-v1", seed=0))

    whole = make()
    learn(whole, 80, callback=callbacks("whole"))
    part = make().resume(checkpoints(tmp_path / "whole")[0])
    assert part.num_timesteps == 30
    learn(part, 80, callback=callbacks("part"))
    assert vars(part)["seen"] == vars(whole)["seen"][-len(vars(part)["seen"]) :]
    assert_same(part.get_parameters(), whole.get_parameters(), "parameters")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a schedule: give n_steps, gamma or both"),
        ({"n_steps": 0}, "n_steps at step 0=0.0 must be"),
        ({"gamma": {"name": "piecewise", "points": [[0, 0.9], [5, 1.5]]}}, "gamma at step 5=1.5 must be"),
        ({"gamma": {"name": "linear", "start": 0.9, "end": 0.99}}, "known in environment steps only: take unit='env_steps'"),
        ({"gamma": 0.9, "unit": "updates"}, "Did you mean 'gradient_steps'"),
        ({"gamma": 0.9, "restart_at_resets": 1}, "restart_at_resets=1 must be True or False"),
    ],
    ids=str,
)
def test_an_invalid_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        MultistepScheduleCallback(**arguments)


STOCK_WITH_OURS = {"replay_buffer_class": DQNReplayBuffer, "replay_buffer_kwargs": {"gamma": 0.99}}


@pytest.mark.parametrize(
    ("algorithm", "model", "arguments", "message"),
    [
        (
            DQN,
            {},
            {"n_steps": N},
            "n_steps needs a DQNExt with a DQNReplayBuffer, and this is a DQN whose ReplayBuffer has an n",
        ),
        (DQN, {"n_steps": 3}, {"gamma": GAMMA}, "gamma needs a DQNExt .* a DQN whose NStepReplayBuffer has a gamma"),
        (DQN, STOCK_WITH_OURS, {"gamma": GAMMA}, "gamma needs a DQNExt .* a DQN whose DQNReplayBuffer has a gamma"),
        (DQNExt, LAMBDA, {"n_steps": N}, "a schedule of n_steps does not fit td_lambda=0.5"),
        (DQNExt, MONTE_CARLO, {"gamma": GAMMA}, "a schedule of gamma does not fit monte_carlo=0.5"),
        (
            DQNExt,
            HL_GAUSS,
            {"gamma": GAMMA},
            r"gamma at step .*=0.97 must be .* returns_kwargs\['gamma'\]=0.9 would be clipped",
        ),
        (DQNExt, {"buffer_size": 8}, {"n_steps": N}, r"n_steps at step 0=10.0 must be a finite number in \[1, 8\]"),
    ],
    ids=str,
)
def test_a_model_that_cannot_follow_is_refused_at_the_start(
    algorithm: Any, model: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        build(algorithm, **model).learn(10, callback=MultistepScheduleCallback(**arguments))
