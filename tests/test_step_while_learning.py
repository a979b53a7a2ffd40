"""Environments that make a step while the networks are trained."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.exploration import Exploration
from sb3_dqn_ext.errors import ArgumentError, NonFiniteError, UnsupportedError
from sb3_dqn_ext.updates import Updater
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.parity import ARRAYS, assert_same, learn, short_cartpole

ENVS: dict[str, Callable[[], VecEnv]] = {
    "DummyVecEnv": lambda: DummyVecEnv([short_cartpole] * 2),
    "VecNormalize": lambda: VecNormalize(DummyVecEnv([short_cartpole] * 2)),
    "SubprocVecEnv": lambda: SubprocVecEnv([short_cartpole] * 2, start_method="fork"),
    **{
        mode: partial(make_fast_vec_env, "CartPole-v1", 2, seed=0, vectorization_mode=mode)
        for mode in ("sync", "async", "vector_entry_point")
    },
}


def make(env: VecEnv, **arguments: Any) -> DQNExt:
    defaults: dict[str, Any] = {"learning_starts": 20, "buffer_size": 90, "batch_size": 8, "learning_rate": 1e-2, "seed": 0}
    defaults |= {"device": "cpu", "train_freq": 3, "target_update_interval": 20, "policy_kwargs": {"net_arch": [16]}}
    return DQNExt("MlpPolicy", env, **defaults | arguments)


class Alternating(Exploration):
    """An exploration whose actions depend neither on the networks nor on a generator."""

    turn = 0

    def __call__(self, context: Any) -> np.ndarray[Any, Any]:
        self.turn += 1
        actions: np.ndarray[Any, Any] = (np.arange(context.n_envs) + self.turn // 3) % 2
        return actions


# processes of forkserver take seconds to begin
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "async")) for name in ENVS])
def test_fixed_actions_give_the_same_bits_as_training_between_the_steps(name: str, open_envs: list[VecEnv]) -> None:
    ends = []
    for step_while_learning in (False, True):
        open_envs.append(env := ENVS[name]())
        env.seed(3)
        model = make(env, step_while_learning=step_while_learning, exploration=Alternating)
        rows = learn(model, 120).rows
        buffer: Any = model.replay_buffer
        names = {"train/loss", "train/n_updates"}  # these are logged one step later
        kept = [{key: value for key, value in row.items() if key not in names} for row in rows]
        ends.append([model.get_parameters(), [getattr(buffer, name) for name in ARRAYS], kept, model._n_updates])
    assert ends[0][-1] == 17
    assert_same(ends[1], ends[0], name)


class Journal(BaseCallback):
    """A callback and an updater that write down the order of what happens."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    def _on_rollout_start(self) -> None:
        self.events.append("rollout start")

    def _on_step(self) -> bool:
        self.events.append("on_step")
        return True

    def _on_rollout_end(self) -> None:
        self.events.append("rollout end")


class Recorded(VecEnvWrapper):
    def __init__(self, venv: VecEnv, events: list[str]) -> None:
        super().__init__(venv)
        self.events = events

    def reset(self) -> Any:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        self.events.append(f"begin with action {actions[0]}")
        super().step_async(actions)

    def step_wait(self) -> Any:
        self.events.append("finish")
        return self.venv.step_wait()


class ActionOfUpdates(Updater):
    """An updater after whose k-th update the greedy action is k % 2."""

    events: list[str]

    def update(self, model: Any, *arguments: Any) -> th.Tensor:
        losses = super().update(model, *arguments)
        self.events.append("update")
        with th.no_grad():
            for parameter in model.policy.q_net.parameters():
                parameter.zero_()
            parameter[model._n_updates % 2] = 1
        return losses


@pytest.mark.parametrize("step_while_learning", [False, True])
def test_the_order_of_events(step_while_learning: bool) -> None:
    events: list[str] = []

    class Model(DQNExt):
        updater_class = type("MyUpdater", (ActionOfUpdates,), {"events": events})

    model = Model(
        "MlpPolicy",
        Recorded(DummyVecEnv([partial(short_cartpole, 500)]), events),
        exploration="none",
        learning_starts=1,
        train_freq=1,
        step_while_learning=step_while_learning,
        device="cpu",
        seed=0,
    )
    model.learn(4, callback=Journal(events))
    expected = {
        False: """
            rollout start, begin with action R, finish, on_step, rollout end,
            rollout start, begin with action R, finish, on_step, rollout end, update,
            rollout start, begin with action 1, finish, on_step, rollout end, update,
            rollout start, begin with action 0, finish, on_step, rollout end, update
        """,
        True: """
            rollout start, begin with action R, finish, on_step, rollout end,
            rollout start, begin with action R, finish, on_step, rollout end,
            rollout start, begin with action R, update, finish, on_step, rollout end,
            rollout start, begin with action 1, update, finish, on_step, rollout end, update
        """,
    }[step_while_learning]
    wanted = [" ".join(event.split()) for event in expected.split(",")]
    assert len(events) == len(wanted)
    for found, want in zip(events, wanted, strict=True):
        assert found == want or (want.endswith("R") and found.startswith("begin with action"))
    assert model._n_updates == 3


def test_an_error_in_the_training_leaves_no_step_unfinished(open_envs: list[VecEnv]) -> None:
    open_envs.append(env := ENVS["SubprocVecEnv"]())
    model = make(env, step_while_learning=True, check_finite=True, learning_rate=1e38)
    with pytest.raises(NonFiniteError):
        model.learn(120)
    make(env, step_while_learning=True).learn(60)


class Trained(DQNExt):
    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        super().train(gradient_steps, batch_size)


class OwnStep(VecEnvWrapper):
    def reset(self) -> Any:
        return self.venv.reset()

    def step(self, actions: np.ndarray[Any, Any]) -> Any:
        return self.venv.step(actions)

    def step_wait(self) -> Any:
        raise AssertionError


def test_what_cannot_be_divided_is_refused() -> None:
    env = DummyVecEnv([short_cartpole])
    with pytest.raises(UnsupportedError, match=r"step_while_learning=True postpones train\(\), which Trained overrides"):
        Trained("MlpPolicy", env, step_while_learning=True)
    with pytest.raises(UnsupportedError, match=r"OwnStep overrides step\(\): leave it out, or override step_wait\(\)"):
        make(OwnStep(env), step_while_learning=True)
    model = make(env, step_while_learning=True)
    model.set_env(OwnStep(env))
    with pytest.raises(UnsupportedError, match="OwnStep overrides"):
        model.learn(20)
    with pytest.raises(ArgumentError, match="step_while_learning='yes' must be True or False"):
        make(env, step_while_learning="yes")


def test_a_call_of_train_by_the_user_trains_at_once() -> None:
    model = make(DummyVecEnv([short_cartpole]), step_while_learning=True)
    model.learn(40)
    before = model._n_updates
    model.train(5, 8)
    assert model._n_updates == before + 5
