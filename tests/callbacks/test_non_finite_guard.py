"""DQNExt, SB3's DQN and QRDQN refuse numbers that are nan or infinite before they are stored or trained on."""

import math
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback, NonFiniteGuardCallback
from sb3_dqn_ext.callbacks.finite_checks import NormalizationStatistics
from sb3_dqn_ext.checkpoint.folder import checkpoints
from sb3_dqn_ext.errors import ArgumentError, NonFiniteError
from sb3_dqn_ext.updates import Updater
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.internals import n_updates_of
from tests.parity import InParts, assert_same, assert_same_model, learn, short_cartpole
from tests.processes import python, write_package

BAD = 61  # the step at which something is bad; training is every 4 steps
ALGORITHMS = [DQN, QRDQN, DQNExt]
Make = Callable[..., Any]

algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.__name__)


class Poisoned(gym.Wrapper[Any, Any, Any, Any]):
    """
    An environment that goes wrong once.

    :param env: the environment
    :param what: ``"observation"``, ``"reward"``, ``"last"`` observation of an episode, or ``"first"``; ``""``: nothing
    :param value: the number in its place
    :param at: the first step, over all episodes, with that number
    :param index: the index of the entry of the observation
    """

    def __init__(self, env: Any, what: str, value: float = math.nan, at: int = BAD, index: int = 2) -> None:
        super().__init__(env)
        self.what, self.value, self.at, self.index = what, value, at, index
        self.n_steps = self.n_resets = 0

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.n_steps += 1
        if self._is_due("observation") or ((terminated or truncated) and self._is_due("last")):
            observation = self._spoilt(observation)
        if self._is_due("reward"):
            reward, self.what = self.value, ""
        return observation, reward, terminated, truncated, info

    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        self.n_resets += 1
        return (self._spoilt(observation) if self._is_due("first") else observation), info

    def _is_due(self, what: str) -> bool:
        return self.what == what and self.n_steps >= self.at

    def _spoilt(self, observation: Any) -> Any:
        self.what = ""
        spoilt = (
            {key: np.array(part) for key, part in observation.items()} if isinstance(observation, dict) else observation.copy()
        )
        (spoilt["pole"] if isinstance(spoilt, dict) else spoilt)[self.index] = self.value
        return spoilt


def build(algorithm: Make, env: Any, **kwargs: Any) -> Any:
    """Make a small model whose exploration does not depend on the length of the run."""
    net: dict[str, Any] = {"net_arch": [8]} | kwargs.pop("policy_kwargs", {})
    if algorithm is QRDQN:
        net["n_quantiles"] = 5
    defaults: dict[str, Any] = {
        "policy": "MlpPolicy",
        "buffer_size": 200,
        "learning_starts": 20,
        "batch_size": 8,
        "learning_rate": 0.01,
        "exploration_initial_eps": 0.5,
        "exploration_final_eps": 0.5,
        "seed": 0,
        "device": "cpu",
    }
    return algorithm(env=env, **(defaults | kwargs), policy_kwargs=net)


def refused(model: Any, steps: int = 200, **kwargs: Any) -> str:
    """:return: the message of the error that ends the run"""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)  # of numpy, when it computes with such numbers
        with pytest.raises(NonFiniteError) as raised:
            learn(model, steps, **(kwargs or {"callback": NonFiniteGuardCallback()}))
    return str(raised.value)


def is_finite(tree: Any) -> bool:
    if isinstance(tree, dict | list | tuple):
        return all(is_finite(part) for part in (tree.values() if isinstance(tree, dict) else tree))
    if isinstance(tree, th.Tensor):
        return bool(tree.isfinite().all())
    return bool(np.isfinite(tree).all()) if isinstance(tree, float | np.ndarray) else True


def stored(model: Any) -> list[Any]:
    buffer = model.replay_buffer
    arrays = [buffer.observations, buffer.next_observations, buffer.rewards]
    return [part for array in arrays for part in (array.values() if isinstance(array, dict) else [array])]


def all_of(model: Any) -> list[Any]:
    return [model.get_parameters(), stored(model)]


class Stopped(Exception):
    """An error that a callback raises."""


class BreakOffAt(BaseCallback):
    """A callback that ends a run in the middle of a rollout, before the transition is stored."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.step:
            raise Stopped
        return True


# -- observations and rewards ----------------------------------------------------------------------------------------------

STEPS = [
    ("observation", math.nan, rf"Step {BAD}: the observation of environment 0 is no finite float32: \[2\] = nan\. It was not"),
    ("observation", -math.inf, rf"Step {BAD}: the observation of environment 0 is no finite float32: \[2\] = -inf\. "),
    ("reward", math.nan, rf"Step {BAD}: the reward of environment 0 is no finite float32: nan\. "),
    ("reward", math.inf, rf"Step {BAD}: the reward of environment 0 is no finite float32: inf\. "),
    ("last", math.nan, r"the last observation of environment 0 is no finite float32: \[2\] = nan\. "),
    ("first", math.inf, r"the observation of environment 0, the first of a new episode, is no finite float32: \[2\] = inf\. "),
]
steps = pytest.mark.parametrize(("what", "value", "message"), STEPS, ids=[f"{what} {value}" for what, value, _ in STEPS])


@algorithms
@steps
def test_a_step_that_is_not_finite_ends_the_run_and_leaves_all_as_it_was_before(
    algorithm: Make, what: str, value: float, message: str
) -> None:
    model = build(algorithm, Poisoned(short_cartpole(), what, value))
    found = refused(model)
    assert re.search(message, found), found
    clean = build(algorithm, short_cartpole())
    with pytest.raises(Stopped):
        learn(clean, 200, callback=BreakOffAt(model.num_timesteps))
    assert n_updates_of(clean) > 5
    assert_same(all_of(model), all_of(clean), "what is left")


@algorithms
@steps
def test_without_the_guard_it_is_remembered_and_learned(algorithm: Make, what: str, value: float, message: str) -> None:
    model = build(algorithm, Poisoned(short_cartpole(), what, value), buffer_size=400, batch_size=32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        learn(model, 400)
    assert not is_finite(stored(model))
    if what == "observation" or math.isnan(value):  # with the loss of Huber, the gradient of an infinite error is 1
        assert not is_finite(model.get_parameters())


def test_the_key_of_a_dictionary_is_named_and_whole_numbers_are_not_checked() -> None:
    message = refused(build(DQNExt, Poisoned(InParts(short_cartpole()), "observation", index=1), policy="MultiInputPolicy"))
    assert f"Step {BAD}: the observation['pole'] of environment 0 is no finite float32: [1] = nan." in message


@algorithms
def test_the_environment_is_named(algorithm: Make) -> None:
    envs = DummyVecEnv([partial(Poisoned, short_cartpole(), what, at=20) for what in ("", "last", "")])
    message = refused(build(algorithm, envs))
    assert "the last observation of environment 1 is no finite float32: [2] = nan." in message
    envs = DummyVecEnv([partial(Poisoned, short_cartpole(), what, at=20) for what in ("", "reward", "reward")])
    message = refused(build(algorithm, envs))
    assert "Step 60: the reward of environment 1 is no finite float32 (nor that of environments 2): nan." in message


def poisoned() -> Any:
    return Poisoned(gym.make("CartPole-v1", max_episode_steps=20), "observation", at=20)


@pytest.mark.parametrize("mode", ["sync", "vector_entry_point"])
def test_fast_environments_are_checked_too(mode: str) -> None:
    if mode == "sync":
        if "tests/Poisoned-v0" not in gym.registry:
            gym.register("tests/Poisoned-v0", "tests.callbacks.test_non_finite_guard:poisoned")
        envs = make_fast_vec_env("tests/Poisoned-v0", n_envs=3, vectorization_mode=mode)
        assert "Step 60: the observation of environment 0 is no finite" in refused(build(DQNExt, envs))
    else:
        envs = make_fast_vec_env("CartPole-v1", n_envs=3, vectorization_mode=mode)

        class Spoil(BaseCallback):
            def _on_step(self) -> bool:
                if self.n_calls == 20:
                    envs.backend.env.unwrapped.state[1, 2] = np.nan  # type: ignore[attr-defined]
                return True

        assert "of environment 2 is no finite" in refused(build(DQNExt, envs), callback=[NonFiniteGuardCallback(), Spoil()])


class TooMuch(gym.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return 1e39


def test_a_number_is_refused_that_is_infinite_only_where_it_is_stored() -> None:
    envs = SubprocVecEnv([lambda: TooMuch(short_cartpole())], start_method="fork")  # its rewards are not float32
    try:
        assert "Step 1: the reward of environment 0 is no finite float32: 1e+39." in refused(build(DQNExt, envs))
    finally:
        envs.close()


def test_large_numbers_are_none_of_its_business() -> None:
    class Large(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, _, terminated, truncated, info = self.env.step(action)
            return observation * np.float32(1e25), -3e38, terminated, truncated, info

    model = build(DQNExt, Large(short_cartpole()), learning_starts=100)
    learn(model, 50, callback=NonFiniteGuardCallback())
    assert max(abs(model.replay_buffer.observations[:50]).max(), 3e38) > 1e24


@algorithms
def test_a_run_does_not_begin_at_an_observation_that_is_not_finite(algorithm: Make) -> None:
    model = build(algorithm, Poisoned(short_cartpole(), "first", at=0))
    assert "Step 0: the first observation of environment 0 is no finite float32: [2] = nan." in refused(model)
    assert model.replay_buffer.size() == 0


@algorithms
@pytest.mark.parametrize(("what", "value"), [("observation", math.inf), ("observation", math.nan), ("reward", math.nan)])
def test_the_statistics_of_normalisation_are_what_they_were(algorithm: Make, what: str, value: float) -> None:
    def envs(env: Any) -> VecNormalize:
        return VecNormalize(DummyVecEnv([lambda: env]))

    normalised = envs(Poisoned(short_cartpole(), what, value))
    model = build(algorithm, normalised)
    assert f"Step {BAD}: the {what} of environment 0 is no finite float32" in refused(model)
    clean = envs(short_cartpole())
    learn(build(algorithm, clean), BAD - 1)
    assert clean.ret_rms.count > BAD - 1
    names = ("obs_rms", "ret_rms")
    ours, theirs = ([vars(getattr(one, name)) for name in names] for one in (normalised, clean))
    assert_same(ours, theirs, "statistics")
    assert_same(normalised.returns, clean.returns, "returns")
    assert is_finite([stored(model), model.get_parameters()])


def test_statistics_that_are_not_updated_are_restored_after_the_end_of_an_episode() -> None:
    envs = VecNormalize(DummyVecEnv([lambda: short_cartpole(1)]), training=False)
    envs.reset()
    envs.returns = np.array([5.0])
    statistics = NormalizationStatistics(envs)
    assert envs.step(np.array([0]))[2].all(), "the episode has ended"
    assert envs.returns == [0]
    statistics.restore()
    assert envs.returns == [5]


def test_statistics_that_make_an_observation_infinite_are_distinguished_from_the_environment() -> None:
    envs = VecNormalize(DummyVecEnv([short_cartpole]))

    class Spoil(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 30:
                vars(envs)["obs_rms"].var[1] = np.nan
            return True

    message = refused(build(DQNExt, envs), callback=[Spoil(), NonFiniteGuardCallback()])
    assert "Step 31: the normalised observation of environment 0 is no finite float32: [1] = nan." in message


@algorithms
def test_what_is_left_can_be_saved_and_trained_on(algorithm: Make, tmp_path: Path) -> None:
    env = Poisoned(short_cartpole(), "observation")
    model = build(algorithm, env)
    refused(model)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "memory")
    again = algorithm.load(tmp_path / "model", device="cpu")  # type: ignore[attr-defined]
    again.load_replay_buffer(tmp_path / "memory")
    assert is_finite([stored(again), again.get_parameters()])
    resets = env.n_resets
    learn(model, 60, reset_num_timesteps=False, callback=NonFiniteGuardCallback())
    assert env.n_resets > resets
    first = model.replay_buffer.observations[BAD - 1, 0]
    assert abs(first).max() < 0.06, "as after a reset"


# -- losses and gradients --------------------------------------------------------------------------------------------------


class Kinked(BaseFeaturesExtractor):
    """An identity. Where the first entry is 0, the gradient of ``scale`` is nan, and all other numbers are finite."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__(observation_space, features_dim=4)
        self.scale = nn.Parameter(th.ones(1))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return observations + 0 * (self.scale * observations[:, :1]).abs().sqrt()


class RecordingUpdater(Updater):
    """An updater that records the parameters before each eager update, and the first update that makes them not finite."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.before: list[Any] = []
        self.first_bad: int | None = None

    def gradient_step(self, model: Any, *args: Any) -> th.Tensor:
        kept = {name: value.clone() for name, value in model.policy.state_dict().items()}
        try:
            return super().gradient_step(model, *args)
        finally:
            if self.first_bad is None:
                self.before.append(kept)
                self.first_bad = None if is_finite(model.policy.state_dict()) else n_updates_of(model) + 1


class Recorder(DQNExt):
    updater_class = RecordingUpdater


ADAM: dict[str, Any] = {"policy_kwargs": {"features_extractor_class": Kinked}}
KINDS: dict[str, dict[str, Any]] = {
    "Adam": ADAM,
    "SGD": {"policy_kwargs": {"features_extractor_class": Kinked, "optimizer_class": "sgd"}},
    "prioritized": ADAM | {"replay_buffer_kwargs": {"sampler": "prioritized"}},
    "a head each": {
        "policy_kwargs": {
            "features_extractor_class": Kinked,
            "head": "multi_head",
            "head_arch": [8],
            "optimizer_per_head": True,
        }
    },
    "compiled": ADAM | {"compile": True},
    "compiled, soft targets": ADAM
    | {"compile": True, "tau": 0.1, "target_update_unit": "gradient_steps", "target_update_interval": 1},
    "compiled, prioritized": ADAM | {"compile": {"unroll": 2}, "replay_buffer_kwargs": {"sampler": "prioritized"}},
}


def kinked(algorithm: Make = DQNExt, **kwargs: Any) -> Any:
    env = Poisoned(short_cartpole(), "observation", 0.0, index=0)
    return build(algorithm, env, batch_size=4, gradient_steps=8, **({"seed": 8} | kwargs))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_not_finite_is_not_followed(kind: str) -> None:
    eager = {name: value for name, value in KINDS[kind].items() if name != "compile"}
    recorder = kinked(Recorder, **eager)
    with suppress(FloatingPointError):  # of prioritized replay, at the update after
        learn(recorder, 200)
    first_bad = recorder.updater.first_bad
    assert first_bad is not None
    assert not is_finite(recorder.get_parameters()), "without the guard it is learned"
    model = kinked(**KINDS[kind], check_finite=True)
    message = refused(model, callback=None)
    n = int(message.partition(" in update ")[2].partition(";")[0])
    assert "the gradient has a norm of nan in update" in message
    assert "; the gradient is not finite in q_net.features_extractor.scale. The update was not made" in message
    assert is_finite([model.get_parameters(), stored(model)])
    assert n_updates_of(model) == n - 1
    if kind == "compiled, prioritized":
        return  # it draws other transitions if it gets the errors of several updates at a time
    assert n == first_bad
    compiled = bool(model.compile)
    if compiled:
        assert (n - 1) % model.gradient_steps % 4 in (1, 2), "in the middle of a call"
        assert model.updater.flat_optimizer.steps.tolist() == [n - 1] * len(model.updater.flat_optimizer.steps)
    for name, expected in recorder.updater.before[-1].items():
        if not compiled or "target" not in name or "soft" not in kind:
            ours = model.policy.state_dict()[name]
            th.testing.assert_close(ours, expected, rtol=1e-3 if compiled else 0, atol=1e-4 if compiled else 0, msg=name)


@pytest.mark.parametrize("kind", ["prioritized", "compiled, prioritized"])
def test_prioritized_replay_gets_no_errors_that_are_not_finite(kind: str) -> None:
    arguments = KINDS[kind] | {"policy_kwargs": {"loss": "mse"}}
    unguarded = build(DQNExt, Poisoned(short_cartpole(), "reward", 2e38), **arguments)
    with pytest.raises(
        FloatingPointError, match="a TD error of the batch is not finite"
    ):  # the sampler's own, an update too late
        learn(unguarded, 200)
    assert not is_finite(unguarded.get_parameters())
    model = build(DQNExt, Poisoned(short_cartpole(), "reward", 2e38), **arguments, check_finite=True)
    assert "the loss is inf in update" in refused(model, callback=None)
    assert n_updates_of(model) < n_updates_of(unguarded)
    assert is_finite(model.get_parameters())
    assert is_finite(model.replay_buffer.sampler.priorities().values)


@pytest.mark.parametrize("algorithm", [DQN, QRDQN], ids=lambda algorithm: algorithm.__name__)
def test_a_gradient_that_is_not_finite_is_not_followed_by_sb3(algorithm: Make) -> None:
    unguarded = kinked(algorithm, policy_kwargs={"features_extractor_class": Kinked})
    before: list[dict[str, th.Tensor]] = []

    def keep(*_: Any) -> None:
        before.append({name: value.clone() for name, value in unguarded.policy.state_dict().items()})

    unguarded.policy.optimizer.register_step_pre_hook(keep)
    learn(unguarded, 200)
    bad = next(n for n, parameters in enumerate(before) if not is_finite(parameters))
    model = kinked(algorithm, policy_kwargs={"features_extractor_class": Kinked})
    message = refused(model)
    assert f"the gradient has a norm of nan in update {bad}; the gradient is not finite in " in message
    assert "features_extractor.scale" in message
    assert_same(dict(model.policy.state_dict()), before[bad - 1], "parameters")
    assert is_finite(all_of(model))


@algorithms
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_a_loss_that_is_infinite_is_not_followed(algorithm: Make, compile: bool) -> None:
    if compile and algorithm is not DQNExt:
        pytest.skip("SB3 has no compiled updates")
    model = build(algorithm, TooMuchButFinite(short_cartpole()), **({"compile": True, "gradient_steps": 4} if compile else {}))
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    assert re.search(r"the loss is inf in update 1[.;].* The update was not made", refused(model))
    assert_same(dict(model.policy.state_dict()), before, "parameters")
    assert n_updates_of(model) == 0


class TooMuchButFinite(gym.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return 3e38


RUNAWAY = [
    ({"learning_rate": 2e37}, r"the learning rate is 2e\+37, and can be 1e\+15 at most\. No update was made with it"),
    ({"learning_rate": 1e14, "policy_kwargs": {"net_arch": [8, 8, 8]}}, r"the (loss|gradient) .* in update 2"),
]


@algorithms
@pytest.mark.parametrize(("arguments", "message"), RUNAWAY, ids=["a learning rate", "weights"])
def test_weights_that_run_away_stay_finite(algorithm: Make, arguments: dict[str, Any], message: str) -> None:
    model = build(algorithm, short_cartpole(), **arguments)
    found = refused(model)
    assert re.search(message, found), found
    assert is_finite(model.get_parameters())
    unguarded = build(algorithm, short_cartpole(), **arguments)
    learn(unguarded, 200)
    assert not is_finite(unguarded.get_parameters())


def test_a_gradient_too_large_for_the_step_that_follows_it_is_refused() -> None:
    class Large(gym.RewardWrapper[Any, Any]):
        def reward(self, reward: Any) -> float:
            return 1e17

    for compile in (False, True):
        model = build(DQNExt, Large(short_cartpole()), max_grad_norm=1e30, policy_kwargs={"loss": "mse"}, compile=compile)
        message = refused(model)
        assert "and is not clipped to 1e+15 or less in update 1. The update was not made" in message
        learn(build(DQNExt, Large(short_cartpole()), policy_kwargs={"loss": "mse"}, compile=compile, check_finite=True), 40)


def test_running_averages_of_batches_are_what_they_were() -> None:
    arguments: dict[str, Any] = {
        "policy_kwargs": {"net_arch": [8, 8], "batch_norm": True},
        "learning_rate": 1e14,
        "check_finite": True,
    }
    model = build(DQNExt, TooMuchButFinite(short_cartpole()), **arguments)
    before = [numbers.clone() for numbers in model.batch_norm_stats]
    assert "in update 1" in refused(model, callback=None)
    assert before
    assert_same(list(model.batch_norm_stats), before, "running averages")


# -- the run ---------------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_the_checkpoint_before_and_ends_as_one_that_was_never_poisoned(tmp_path: Path) -> None:
    def model(env: Any) -> DQNExt:
        made: DQNExt = build(DQNExt, Monitor(env), check_finite=True)
        return made

    # the time limit is inside, so that the two environments are of the same kind
    first = model(Poisoned(short_cartpole(), "observation", at=75))
    message = refused(first, 160, callback=ExactCheckpointCallback(20, tmp_path, keep=9))
    newest = checkpoints(tmp_path)[-1]
    assert [path.stem[-3:] for path in checkpoints(tmp_path)] == ["020", "040", "060"]
    assert f"The newest checkpoint of the run is {newest}: model.resume({str(tmp_path)!r}) continues from there." in message
    again = model(Poisoned(short_cartpole(), "")).resume(tmp_path)
    assert again.num_timesteps == 60
    assert is_finite(all_of(again))
    learn(again, 160, callback=ExactCheckpointCallback(20, tmp_path))
    undisturbed = model(Poisoned(short_cartpole(), ""))
    learn(undisturbed, 160)
    assert_same_model(again, undisturbed)


def test_the_error_of_a_run_without_a_checkpoint_says_that_there_is_none(tmp_path: Path) -> None:
    model = build(DQNExt, Poisoned(short_cartpole(), "observation"), check_finite=True)
    message = refused(model, callback=ExactCheckpointCallback(100, tmp_path))
    assert f"The run has written no checkpoint to {tmp_path} yet." in message


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_the_guard_changes_no_bit_of_a_run(compile: bool) -> None:
    ends = []
    for arguments in ({}, {"check_finite": True}):
        model = build(DQNExt, short_cartpole(), gradient_steps=4, compile=compile, **arguments)
        guards: list[Any] = []
        rows = learn(
            model, 200, callback=lambda variables, _, seen=guards: [seen.append(variables["self"].run_state.guard)]
        ).rows
        assert {guard is None for guard in guards} == {not arguments}
        assert model.run_state.guard is None
        ends.append((model, rows))
    (plain, rows), (guarded, guarded_rows) = ends
    assert_same_model(guarded, plain)
    assert_same(guarded_rows, rows, "logged")


@pytest.mark.parametrize("algorithm", [DQN, QRDQN], ids=lambda algorithm: algorithm.__name__)
def test_the_guard_changes_no_bit_of_a_run_of_sb3_and_leaves_its_optimizer_alone(algorithm: Make) -> None:
    models = []
    for callback in (None, NonFiniteGuardCallback()):
        models.append(build(algorithm, short_cartpole()))
        learn(models[-1], 200, callback=callback)
    assert_same_model(models[1], models[0])
    assert not models[1].policy.optimizer._optimizer_step_pre_hooks


class Count(BaseCallback):
    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("kind", ["none", "a function", "one", "a list", "a guard"])
def test_with_the_option_there_is_one_guard_and_it_comes_first(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    def function(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        called.append(variables["self"].num_timesteps)
        return True

    own = NonFiniteGuardCallback()
    given = {"none": None, "a function": function, "one": Count(), "a list": [Count(), Count()], "a guard": [Count(), own]}[
        kind
    ]
    model = build(DQNExt, Poisoned(short_cartpole(), "reward"), check_finite=True)
    set_up = model._setup_learn
    runs: list[Any] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        runs.append(set_up(*args, **kwargs))
        return runs[-1]

    monkeypatch.setattr(model, "_setup_learn", noted)
    refused(model, callback=given)
    callbacks = runs[0][1].callbacks
    guards = [one for one in callbacks if isinstance(one, NonFiniteGuardCallback)]
    assert len(guards) == 1
    assert (guards[0] is own) is (kind == "a guard")
    others = [one for one in callbacks if one is not guards[0]]
    assert [one.n_calls for one in others] == [BAD - 1] * len(others)
    assert called == (list(range(1, BAD)) if kind == "a function" else [])


def test_the_option_is_saved_with_the_model_and_the_guard_of_a_run_is_not(tmp_path: Path) -> None:
    model = build(DQNExt, short_cartpole(), check_finite=True)
    learn(model, 40)
    model.save(tmp_path / "model")
    again = DQNExt.load(tmp_path / "model", device="cpu")
    assert again.check_finite is True
    assert again.run_state.guard is None


def test_an_option_that_cannot_be_is_refused() -> None:
    with pytest.raises(ArgumentError, match="check_finite='yes' must be True or False"):
        build(DQNExt, short_cartpole(), check_finite="yes")


def test_a_model_with_several_optimizers_is_refused() -> None:
    with pytest.raises(ArgumentError, match="NonFiniteGuardCallback needs a DQN or QRDQN, not SAC"):
        SAC("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=100).learn(10, callback=NonFiniteGuardCallback())


BROKEN = """
import gymnasium as gym
import numpy as np

class Broken(gym.Wrapper):
    n_steps = 0

    def step(self, action):
        observation, *rest = self.env.step(action)
        self.n_steps += 1
        return observation if self.n_steps < 120 else observation * np.nan, *rest
"""


@pytest.mark.parametrize("how", ["callback", "check_finite"])
def test_the_zoo_takes_it_from_its_yaml(how: str, tmp_path: Path) -> None:
    write_package(tmp_path / "own", __init__="", broken=BROKEN)
    guard = {"callback": "sb3_dqn_ext.callbacks.NonFiniteGuardCallback"} if how == "callback" else {"check_finite": True}
    block = {"policy": "MlpPolicy", "n_timesteps": 300, "learning_starts": 50, "env_wrapper": "own.broken.Broken", **guard}
    (tmp_path / "conf.yml").write_text(yaml.dump({"CartPole-v1": block}))
    arguments = ("--algo", "dqn_ext", "--env", "CartPole-v1", "-conf", "conf.yml", "-f", "logs", "--device", "cpu")
    process = python("-m", "rl_zoo3.train", *arguments, cwd=tmp_path)
    assert process.returncode == 1
    assert "NonFiniteError: Step 120: the " in process.stderr
