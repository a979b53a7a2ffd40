"""Callbacks that SB3's event callbacks hold, on SB3's DQN, sb3-contrib's QRDQN and DQNExt, and the model after a run."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import ARS, QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    DiagnosticsCallback,
    EpsilonScheduleCallback,
    ExactCheckpointCallback,
    NonFiniteGuardCallback,
    SoftTargetUpdateCallback,
    StopTrainingOnEpisode,
    StopTrainingOnMeanReturn,
    SummaryCallback,
    TensorBoardCallback,
)
from sb3_dqn_ext.checkpoint.folder import checkpoints
from sb3_dqn_ext.errors import ArgumentError, NonFiniteError
from tests.callbacks.test_callbacks import Observer, build, cartpoles, networks, recorded_episodes, weights
from tests.parity import assert_same_model, short_cartpole

Hold = Callable[[BaseCallback], Any]


@pytest.fixture(params=[DQN, QRDQN, DQNExt], ids=lambda algorithm: algorithm.__name__)
def algorithm(request: pytest.FixtureRequest) -> Any:
    return request.param


def evaluation(**kwargs: Any) -> EvalCallback:
    return EvalCallback(DummyVecEnv([lambda: Monitor(short_cartpole())]), eval_freq=20, n_eval_episodes=1, verbose=0, **kwargs)


HOLDERS: dict[str, Hold] = {
    "alone": lambda callback: callback,
    "every": lambda callback: EveryNTimesteps(20, callback),
    "new best": lambda callback: [evaluation(callback_on_new_best=callback)],
    "after eval": lambda callback: evaluation(callback_after_eval=callback),
    "deep": lambda callback: [CallbackList([EveryNTimesteps(10, CallbackList([evaluation(callback_on_new_best=callback)]))])],
}
holder = pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)


class Breaks(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that raises an error, or returns nan, at one step."""

    at: int | None = None
    is_nan = False

    def step(self, action: Any) -> Any:
        self.at = None if self.at is None else self.at - 1
        if self.at == 0 and not self.is_nan:
            raise OSError("the simulator is gone")
        observation, *others = self.env.step(action)
        return (observation * np.nan if self.at == 0 else observation), *others


class Starts(BaseCallback):
    """A callback that calls a function at the start of the training."""

    def __init__(self, act: Callable[[Any], Any]) -> None:
        super().__init__()
        self.act = act

    def _on_training_start(self) -> None:
        self.act(self.model)

    def _on_step(self) -> bool:
        return True


class Stops(BaseCallback):
    def _on_step(self) -> bool:
        return self.num_timesteps < 33


# what a run leaves behind


def settings(model: Any) -> dict[str, Any]:
    """Return all state that a callback may change for a run, and that a run does not change by itself."""
    schedule = model.exploration_schedule
    optimizer = model.policy.optimizer
    return {
        "attributes": sorted(vars(model)),
        "class": type(model),
        "interval": model.target_update_interval,
        "schedule": type(schedule) if isinstance(model, DQNExt) else schedule,  # a DQNExt makes one for each run
        "guard": model.run_state.guard if isinstance(model, DQNExt) else None,
        "optimizer": len(optimizer._optimizer_step_pre_hooks),
        "gradients": [bool(of._post_accumulate_grad_hooks) for of in model.policy.parameters()],
        "layers": [len(layer._forward_hooks) for layer in model.policy.modules()],
        "memory": sorted(vars(model.replay_buffer)),
        "formats": list(model.logger.output_formats),
    }


def raise_interrupt(*_: Any) -> Any:
    raise KeyboardInterrupt


def raise_in_training(model: Any) -> None:
    if model.num_timesteps == 33:
        (parameter, *_) = model.policy.parameters()
        handles: list[Any] = []

        def interrupt(_: Any) -> None:
            handles[0].remove()
            raise_interrupt()

        handles.append(parameter.register_hook(interrupt))


ENDS: dict[str, tuple[type[BaseException] | None, Callable[[], list[BaseCallback]]]] = {
    "regular": (None, list),
    "a callback stops": (None, lambda: [Stops()]),
    "the environment": (OSError, list),
    "a callback": (KeyboardInterrupt, lambda: [Observer(lambda model: model.num_timesteps < 33 or raise_interrupt())]),
    "training": (KeyboardInterrupt, lambda: [Observer(raise_in_training)]),
    "the start of a later one": (KeyboardInterrupt, lambda: [Starts(raise_interrupt)]),
    "a start that is refused": (ArgumentError, lambda: [EveryNTimesteps(5, Refuses())]),
}


class Refuses(SummaryCallback):
    def _on_run_start(self, continues: bool) -> None:
        raise ArgumentError("not with this model")


def all_kinds() -> list[BaseCallback]:
    calibration = {"every": 40, "n_episodes": 1, "eval_env": short_cartpole()}
    diagnostics = DiagnosticsCallback(every=20, calibration=calibration, summary=False)
    return [
        EveryNTimesteps(15, SoftTargetUpdateCallback(0.1)),
        evaluation(callback_on_new_best=EpsilonScheduleCallback(0.5), callback_after_eval=NonFiniteGuardCallback()),
        EveryNTimesteps(5, CallbackList([diagnostics, TensorBoardCallback()])),
        EpsilonScheduleCallback(0.4),
    ]


@pytest.mark.parametrize(
    ("algorithm", "end"),
    [*((algorithm, end) for algorithm in (DQN, DQNExt) for end in ENDS), (QRDQN, "regular"), (QRDQN, "the environment")],
    ids=lambda of: of if isinstance(of, str) else of.__name__,
)
def test_all_is_put_back_however_a_run_ends_and_a_next_one_works(algorithm: Any, end: str) -> None:
    env = Breaks(gym.make("CartPole-v1"))
    model = build(algorithm, DummyVecEnv([lambda: env]), target_update_interval=7)
    model.set_logger(configure(None, []))
    model.learn(4)
    before, callbacks = settings(model), all_kinds()
    error, others = ENDS[end]
    env.at = 33 if error is OSError else None
    raised = None
    try:
        model.learn(60, callback=[*callbacks, *others()])
    except BaseException as caught:
        raised = caught
    assert raised is None if error is None else isinstance(raised, error)
    after = settings(model)
    if end == "the start of a later one" and algorithm is not DQNExt:  # nothing is called then, and nothing was changed yet
        after["class"] = after["class"].__base__
    assert after == before
    assert not any("on_training_end" in vars(one) for one in callbacks)
    model.learn(10)
    assert settings(model) == before
    model.learn(40, callback=callbacks)
    assert settings(model) == before
    another = build(algorithm, target_update_interval=7)
    rates: list[float] = []
    another.learn(40, callback=[*callbacks, Observer(lambda model: rates.append(model.exploration_rate))])
    assert set(rates) == {0.4}
    assert another.target_update_interval == 7


def test_copies_that_are_made_at_the_start_are_of_the_models_own_class(algorithm: Any) -> None:
    made: list[Any] = []

    def copied(model: Any) -> None:
        assert isinstance(model, algorithm)
        made.append(copy.copy(model))

    model = build(algorithm)
    model.learn(10, callback=[EpsilonScheduleCallback(0.5), Starts(copied)])
    assert [type(one) for one in (*made, model)] == [algorithm] * 2


def test_an_algorithm_without_rollouts_and_one_that_cannot_be_checkpointed_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="need an algorithm with rollouts, not ARS"):
        ARS("MlpPolicy", "Pendulum-v1").learn(10, callback=StopTrainingOnMeanReturn(1, 1))
    model = build(DQN)
    with pytest.raises(ArgumentError, match="ExactCheckpointCallback needs a DQNExt, not DQN"):
        model.learn(100, callback=evaluation(callback_on_new_best=ExactCheckpointCallback(1, tmp_path)))
    assert model.num_timesteps == 0


# what they do where another one holds them


@holder
def test_epsilon_follows_its_schedule_whatever_holds_it(algorithm: Any, hold: Hold) -> None:
    seen: list[float] = []
    schedule = {"name": "linear", "start": 1.0, "end": 0.0}
    model = build(algorithm)
    held = hold(EpsilonScheduleCallback(schedule))
    callbacks = held if isinstance(held, list) else [held]
    model.learn(40, callback=[*callbacks, Observer(lambda model: seen.append(model.exploration_rate))])
    assert seen == pytest.approx([1 - step / 40 for step in range(40)])


@holder
def test_each_step_is_checked_whatever_holds_the_guard(algorithm: Any, hold: Hold) -> None:
    env = Breaks(gym.make("CartPole-v1"))
    env.at, env.is_nan = 33, True
    model = build(algorithm, DummyVecEnv([lambda: env]))
    with pytest.raises(NonFiniteError, match=r"^Step 33: "):
        model.learn(100, callback=hold(NonFiniteGuardCallback()))
    assert np.isfinite(model.replay_buffer.next_observations).all()


def test_soft_updates_are_made_at_the_events(algorithm: Any) -> None:
    model = build(algorithm)
    expected, online = weights(networks(model)[1]), {}
    observer = Observer(lambda model: online.update({model.num_timesteps: weights(networks(model)[0])}))
    model.learn(100, callback=[EveryNTimesteps(15, SoftTargetUpdateCallback(0.1, every=20)), observer])
    for step in (30, 45, 60, 90):  # the first events after 20, 40, 60, 80
        expected = 0.9 * expected + 0.1 * online[step]
    np.testing.assert_allclose(weights(networks(model)[1]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "is_enough"),
    [
        (lambda: StopTrainingOnEpisode(max_length=9), lambda lengths: lengths[-1] <= 9),
        (lambda: StopTrainingOnMeanReturn(40, 3), lambda lengths: len(lengths) >= 3 and sum(lengths[-3:]) >= 120),
    ],
    ids=["episode", "mean"],
)
def test_no_episode_is_missed_and_the_next_event_stops(
    algorithm: Any, make: Callable[[], BaseCallback], is_enough: Callable[[list[float]], bool], tmp_path: Path
) -> None:
    model = build(algorithm, cartpoles(monitor_dir=str(tmp_path)), learning_starts=10**6)
    model.learn(6000, callback=[EveryNTimesteps(50, make())], log_interval=10**6)
    model.env.close()
    episodes = recorded_episodes(tmp_path, 1)
    lengths = [episode[2] for episode in episodes]
    end = next(episodes[i][0] for i in range(len(lengths)) if is_enough(lengths[: i + 1]))
    assert model.num_timesteps == -(-end // 50) * 50 < 6000


@holder
def test_the_summary_and_the_score_of_tensorboard_come_whatever_holds_them(
    hold: Hold, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build(DQN)
    model.set_logger(configure(str(tmp_path), ["tensorboard"]))
    board: Any = model.logger.output_formats[0]
    written: list[str] = []
    board.writer.add_scalar = lambda tag, *args: written.append(tag)
    model.learn(110, callback=hold(CallbackList([SummaryCallback(), TensorBoardCallback()])))
    assert capfd.readouterr().out.count("Ended after 110 steps: ") == 1
    assert "achieved/final_return" in written
    model.logger.close()


# checkpoints


def make_ext(**kwargs: Any) -> Any:
    return build(DQNExt, cartpoles(), policy_kwargs={"batch_norm": True}, **kwargs)


@pytest.mark.parametrize("train_freq", [1, 8])
def test_a_checkpoint_is_written_after_each_event(train_freq: int, tmp_path: Path) -> None:
    """The checkpoint is written between two rollouts, as one in the middle would lack a transition."""

    def callbacks(folder: Path) -> list[BaseCallback]:
        soft = SoftTargetUpdateCallback(0.3)
        return [EveryNTimesteps(50, CallbackList([soft, ExactCheckpointCallback(1, folder, keep=9)]))]

    whole = make_ext(train_freq=train_freq)
    whole.learn(200, callback=callbacks(tmp_path / "whole"))
    steps = [int(path.stem.rpartition("_")[2]) for path in checkpoints(tmp_path / "whole")]
    assert steps == [-(-step // train_freq) * train_freq for step in (50, 100, 150, 200)]
    part = make_ext(train_freq=train_freq).resume(checkpoints(tmp_path / "whole")[1])
    part.learn(200, callback=callbacks(tmp_path / "whole"))
    assert_same_model(part, whole)
    for name, tensor in whole.q_net_target.state_dict().items():
        assert th.equal(part.q_net_target.state_dict()[name], tensor), name


@pytest.mark.parametrize("where", ["callback_on_new_best", "callback_after_eval"])
def test_a_checkpoint_is_written_after_evaluations(where: str, tmp_path: Path) -> None:
    make_ext().learn(60, callback=evaluation(**{where: ExactCheckpointCallback(1, tmp_path, keep=9)}))
    steps = [int(path.stem.rpartition("_")[2]) for path in checkpoints(tmp_path)]
    assert steps == [20, 40, 60] if where == "callback_after_eval" else steps[:1] == [20]
