"""Copies, pickles and threads, as with SB3's DQN."""

import copy
import gc
import io
import pickle
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import FakeImageEnv

import sb3_dqn_ext.fast.compiled
from sb3_dqn_ext import DQNExt, callbacks
from sb3_dqn_ext.algorithm.predictions import stochastic_predictions
from sb3_dqn_ext.callbacks import ExactCheckpointCallback, SummaryCallback
from sb3_dqn_ext.errors import CheckpointError
from sb3_dqn_ext.vec_env import make_fast_vec_env
from sb3_dqn_ext.vec_env.async_ import AsyncBackend
from tests.internals import drawn_batch, last_observations_of
from tests.parity import assert_same, assert_same_model, dict_cartpole, learn, several_cartpoles, short_cartpole
from tests.test_combinations import RETURNS_KWARGS


def by_torch(value: Any) -> Any:
    file = io.BytesIO()
    th.save(value, file)
    file.seek(0)
    return th.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "cloudpickle": lambda value: pickle.loads(cloudpickle.dumps(value)),
    "torch": by_torch,
}
SMALL: dict[str, Any] = {
    "learning_rate": 1e-2,
    "buffer_size": 60,
    "learning_starts": 10,
    "batch_size": 8,
    "train_freq": 2,
    "target_update_interval": 6,
    "seed": 0,
    "device": "cpu",
}


def returns(name: str) -> dict[str, Any]:
    return {"returns": name, "returns_kwargs": RETURNS_KWARGS[name]}


def images() -> gym.Env[Any, Any]:
    return FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True, channel_first=True)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"exploration_kwargs": {"schedule": {"name": "linear", "start": 1.0, "end": 0.1}}},
    "noisy dueling categorical": {
        "policy_kwargs": {"head": "dueling", "head_arch": [5], "noisy": True, **returns("categorical")},
        "replay_buffer_kwargs": {"sampler": "prioritized"},
        "exploration": "none",
        "target_policy": "double",
    },
    "an optimizer per head": {
        "policy_kwargs": {"head": "multi_head", "head_arch": [5], "optimizer_per_head": True, "loss": "mse"},
        "replay_buffer_kwargs": {"sampler": "vector_steps", "terminal_copies": 2},
        "env": several_cartpoles,
    },
    "quantiles in double precision of a dictionary": {
        "learning_starts": 20,
        "policy": "MultiInputPolicy",
        "env": dict_cartpole,
        "policy_kwargs": {"head": "action_input", "head_arch": [5], "dtype": "float64", **returns("quantile")},
        "replay_buffer_kwargs": {"monte_carlo": 0.5, "keep_episodes": 2},
        "exploration": "ez_greedy",
    },
    "implicit quantiles": {
        "policy_kwargs": returns("implicit_quantile"),
        "target_policy": "munchausen",
        "target_network": False,
        "exploration": "boltzmann",
        "n_steps": 3,
    },
    "batch normalisation": {
        "policy_kwargs": {"batch_norm": True, "fitted_actions": "all", "optimizer_class": "rmsprop"},
        "optimize_memory_usage": True,
        "check_finite": True,
    },
    "images": {"policy": "CnnPolicy", "env": images, "policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}}},
    "a quick vector of environments": {
        "env": lambda: make_fast_vec_env("CartPole-v1", 2, seed=0),
        "target_update_unit": "gradient_steps",
        "target_update_interval": 1,
        "tau": 0.1,
    },
}


def build(algorithm: type[DQN] = DQNExt, policy: str = "MlpPolicy", env: Any = short_cartpole, **kwargs: Any) -> Any:
    arguments = SMALL | kwargs | {"policy_kwargs": {"net_arch": [8]} | kwargs.get("policy_kwargs", {})}
    if not arguments.get("target_network", True):
        del arguments["target_update_interval"]
    return algorithm(policy, env(), **arguments)


def continue_training(model: DQN) -> None:
    np.random.seed(1)
    th.manual_seed(1)
    learn(model, 24, reset_num_timesteps=False)


def tensors(model: DQN) -> list[th.Tensor]:
    states = getattr(model.policy.optimizer, "state", {}).values()
    return [
        *model.policy.parameters(),
        *(value for state in states for value in state.values() if isinstance(value, th.Tensor)),
    ]


def storages(model: DQN) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors(model)}


def assert_continue_training_alike(model: DQN, twins: list[DQN]) -> None:
    before = [parameter.detach().clone() for parameter in model.q_net.parameters()]
    continue_training(model)
    assert any(not th.equal(a, b) for a, b in zip(model.q_net.parameters(), before, strict=True)), "nothing was learned"
    for twin in twins:
        assert not storages(twin) & storages(model)
        continue_training(twin)
        assert_same_model(twin, model)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_predict_like_the_original_and_continue_training_with_its_bits(kind: str, tmp_path: Path) -> None:
    model = build(**KINDS[kind])
    assert_continue_training_alike(model, [copy.deepcopy(model)])
    model.observation_space.seed(0)
    observation = model.observation_space.sample()
    for part in (model.policy, model.q_net):
        part.save(tmp_path / "part")
        for twin in (*(way(part) for way in WAYS.values()), type(part).load(tmp_path / "part", device="cpu")):
            assert type(twin) is type(part)
            assert_same(dict(twin.state_dict()), dict(part.state_dict()), "state")
            assert twin.predict(observation, deterministic=True)[0] == part.predict(observation, deterministic=True)[0]
    assert_continue_training_alike(model, [WAYS["pickle"](model)])


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not compile functions: it takes seconds, and has no effect on the storage of parameters."""
    monkeypatch.setattr(sb3_dqn_ext.fast.compiled, "compile_function", lambda function, arguments: function)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("soft", [False, True], ids=["now and then", "at each update"])
def test_a_copy_of_a_compiled_model_continues_training_with_the_bits_of_the_original(soft: bool) -> None:
    targets: dict[str, Any] = {"target_update_unit": "gradient_steps", "target_update_interval": 1, "tau": 0.1} if soft else {}
    model = build(compile={"unroll": 2}, gradient_steps=2, **targets)
    learn(model, 20)
    assert model.updater.compiled.q_values is not None
    twins = [way(model) for way in WAYS.values()]
    assert_continue_training_alike(model, twins)
    assert all(
        twin.updater.compiled.q_values is not None and twin.updater.compiled.loss.online_net is twin.q_net for twin in twins
    )


@pytest.mark.usefixtures("uncompiled")
def test_a_compiled_model_whose_weights_were_moved_to_shared_memory_uses_them() -> None:
    model = build(compile=True, exploration="none")
    learn(model, 20)
    model.q_net.share_memory()  # as when they are sent to another process: their previous storage is freed
    for action in (0, 1):
        with th.no_grad():
            for parameter in model.q_net.parameters():
                parameter.zero_()
            parameter[action] = 1
        assert model.predict(last_observations_of(model))[0] == action


def test_a_trained_policy_is_pickled_in_no_more_bytes_than_that_of_sb3() -> None:
    sizes = []
    for algorithm in (DQNExt, DQN):
        model = build(algorithm, policy_kwargs={"net_arch": [64, 64]})
        learn(model, 20)
        sizes.append([len(pickle.dumps(part)) for part in (model.policy, model.q_net, model)])
    for ours, theirs in zip(*sizes, strict=True):
        assert ours < 1.1 * theirs


class Copies(BaseCallback):
    """A callback that copies the model during the run, as self-play does."""

    def __init__(self) -> None:
        super().__init__()
        self.twins: list[Any] = []

    def _on_step(self) -> bool:
        if self.n_calls % 7 == 0:
            self.twins.append(copy.deepcopy(self.model))
            pickle.dumps(self.model.policy)
        return True


def test_a_run_in_which_the_model_is_copied_ends_with_the_same_bits() -> None:
    copied, callback = build(), Copies()
    learn(copied, 40, callback=[callback, SummaryCallback()])
    left_alone = build()
    learn(left_alone, 40)
    assert_same_model(copied, left_alone)
    assert [twin.num_timesteps for twin in callback.twins] == [7, 14, 21, 28, 35]


def test_a_shallow_copy_shares_the_attributes_of_the_original() -> None:
    model = build()
    learn(model, 20)
    twin = copy.copy(model)
    assert twin.policy is model.policy
    assert twin.replay_buffer is model.replay_buffer
    continue_training(twin)


# callbacks


class StopsAtStep5(BaseCallback):
    """A callback that can end its run at the 5th step."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def _on_step(self) -> bool:
        if self.how == "an error" and self.n_calls == 5:
            raise RuntimeError("on purpose")
        return self.how == "all steps" or self.n_calls < 5


@pytest.mark.parametrize("how", ["all steps", "False", "an error"])
def test_a_model_does_not_refer_to_its_callbacks_after_a_run(how: str) -> None:
    model, callback = build(), StopsAtStep5(how)
    try:
        learn(model, 20, callback=[callback])
    except RuntimeError:
        assert how == "an error"
    of_callback = weakref.ref(callback)
    del callback
    gc.collect()
    assert of_callback() is None
    assert copy.deepcopy(model).num_timesteps == model.num_timesteps


CALLBACKS: dict[str, dict[str, Any]] = {
    "EpsilonScheduleCallback": {"schedule": 0.1},
    "ExactCheckpointCallback": {"every": 10, "path": "checkpoints"},
    "MultistepScheduleCallback": {"gamma": 0.9},
    "ResetCallback": {"every": 10},
    "SoftTargetUpdateCallback": {"tau": 0.1},
    "StopTrainingOnEpisode": {"min_return": 1},
    "StopTrainingOnMeanReturn": {"threshold": 1, "window": 2},
}


@pytest.mark.parametrize("name", callbacks.__all__)
def test_a_callback_can_be_copied_before_its_run(name: str) -> None:
    callback = getattr(callbacks, name)(**CALLBACKS.get(name, {}))
    for way in WAYS.values():
        assert type(way(callback)) is type(callback)


class CountsSteps(BaseCallback):
    """A callback with an attribute that changes."""

    best = 0

    def _on_step(self) -> bool:
        self.best = 7 * self.n_calls
        return True


def test_a_checkpoint_after_a_run_contains_the_state_of_its_callbacks(tmp_path: Path) -> None:
    model = build()
    learn(model, 20, callback=[ExactCheckpointCallback(10**6, tmp_path), CountsSteps()])
    model.save_checkpoint(tmp_path)
    again, callback = build().resume(tmp_path), CountsSteps()
    learn(again, 22, callback=[ExactCheckpointCallback(10**6, tmp_path), callback])
    assert (callback.best, callback.n_calls) == (7 * 22, 22)


def test_a_copy_does_not_write_into_the_checkpoint_folder_of_the_original(tmp_path: Path) -> None:
    model = build()
    learn(model, 20, callback=ExactCheckpointCallback(10**6, tmp_path))
    model.save_checkpoint(tmp_path)
    twin = copy.deepcopy(model)
    continue_training(twin)
    with pytest.raises(CheckpointError, match="another run"):
        twin.save_checkpoint(tmp_path)
    continue_training(model)
    model.save_checkpoint(tmp_path)


def test_copying_environments_in_processes_raises_an_error() -> None:
    # with gymnasium and SB3, a copy fails halfway, and its remains close the pipes of the original
    for way in WAYS.values():
        with pytest.raises(TypeError, match="vectorization_mode='sync'"):
            way(AsyncBackend.__new__(AsyncBackend))


# threads


@pytest.mark.parametrize("policy_kwargs", [{"noisy": True}, {"returns": "implicit_quantile"}], ids=str)
def test_stochastic_predictions_of_one_thread_do_not_affect_another(policy_kwargs: dict[str, Any]) -> None:
    model = build(policy_kwargs=policy_kwargs)
    observations = th.as_tensor(np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))

    def values() -> th.Tensor:
        with th.no_grad():
            q_values: th.Tensor = model.q_net(observations)
        return q_values

    def sampled_values() -> th.Tensor:
        with stochastic_predictions(model.q_net):
            return values()

    certain = values()
    with ThreadPoolExecutor(1) as another, stochastic_predictions(model.q_net):
        assert not th.equal(values(), certain)
        assert th.equal(another.submit(values).result(), certain)
        state = th.get_rng_state()
        assert not th.equal(another.submit(sampled_values).result(), certain)
        assert th.equal(another.submit(values).result(), certain)
        th.set_rng_state(state)
        assert not th.equal(values(), certain), "another thread has ended what this one samples"
    assert th.equal(values(), certain)


def test_no_update_is_lost_while_another_thread_pickles_the_policy() -> None:
    model = build()
    learn(model, 20)
    twin, batch = copy.deepcopy(model), drawn_batch(model, 8)
    with ThreadPoolExecutor(1) as another:

        def pickle_repeatedly(norm: float) -> None:
            another.submit(pickle.dumps, model.policy)
            time.sleep(0.05)

        for one, check in ((model, pickle_repeatedly), (twin, None)):
            one.updater.backward(one, batch)
            assert one.updater.flat_optimizer.step(1.0, check)
    continue_training(model)
    continue_training(twin)
    assert_same_model(model, twin)
