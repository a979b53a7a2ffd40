"""Compiled updates compared with eager ones, and with SB3's DQN."""

import math
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from allpairspy import AllPairs
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn
from torch._dynamo.utils import counters

import sb3_dqn_ext.fast.compiled
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.fitted_actions import FITS
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.callbacks import ReDoCallback, ResetCallback, SoftTargetUpdateCallback
from sb3_dqn_ext.demonstrations import from_episode
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.heads import HEADS
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer, Prioritized
from sb3_dqn_ext.replay.samplers import SAMPLERS
from sb3_dqn_ext.saved_model.classes import SimpleLinearSchedule
from tests.internals import drawn_batch, n_updates_of
from tests.own_choices import Gated, LogCosh, Mellow, Pair, squared_values
from tests.parity import Records, assert_same, dict_cartpole, learn, several_cartpoles, short_cartpole
from tests.paths import ROOT
from tests.processes import output, python
from tests.test_combinations import HEAD_ARCH, RETURNS_KWARGS

SMALL: dict[str, Any] = {
    "learning_rate": 1e-3,
    "buffer_size": 300,
    "learning_starts": 40,
    "batch_size": 8,
    "train_freq": 1,
    "target_update_interval": 10,
    "seed": 0,
    "device": "cpu",
}
AT_RANDOM: dict[str, Any] = {
    "exploration_initial_eps": 1.0,
    "exploration_final_eps": 1.0,
}  # the choice of actions does not depend on the network
Compile = bool | dict[str, Any]


def make(compile: Compile = False, env: Any = None, policy: str = "MlpPolicy", **kwargs: Any) -> DQNExt:
    """
    Make a model.

    :param compile: the argument
    :param env: the environments
    :param policy: the name of a policy
    :param kwargs: arguments that replace those of ``SMALL``; ``policy_kwargs`` are merged
    """
    policy_kwargs = {"net_arch": [8]} | kwargs.pop("policy_kwargs", {})
    arguments = SMALL | kwargs
    if not arguments.get("target_network", True):
        del arguments["target_update_interval"]
    return DQNExt(policy, env or short_cartpole(), compile=compile, policy_kwargs=policy_kwargs, **arguments)


def record(model: DQNExt) -> None:
    model.set_logger(Logger(folder=None, output_formats=[Records()]))


def set_parameters(model: DQN, parameters: Any) -> None:
    model.set_parameters(deepcopy(parameters))  # an optimizer uses the given tensors without a copy


def twin(model: DQNExt, compile: Compile, **kwargs: Any) -> DQNExt:
    """
    Make another model with the same transitions and the same state.

    :param model: a model with transitions
    :param compile: the argument of the other model
    :param kwargs: the arguments of the model
    """
    other = make(compile, **kwargs)
    set_parameters(other, model.get_parameters())
    other.replay_buffer = deepcopy(model.replay_buffer)
    for name in ("_n_updates", "_current_progress_remaining", "num_timesteps"):
        setattr(other, name, getattr(model, name))
    record(other)
    return other


def pair(unroll: int, steps: int = 80, **kwargs: Any) -> tuple[DQNExt, DQNExt]:
    """
    Make an eager model, and a compiled one in the same state.

    :param unroll: the number of updates per call
    :param steps: the environment steps in which the eager model is trained; the first 40 are the warm-up
    :param kwargs: the arguments of both models
    """
    eager = make(**kwargs)
    learn(eager, steps)
    return eager, twin(eager, {"unroll": unroll}, **kwargs)


def train(model: DQNExt, n_updates: int, seed: int = 7) -> None:
    """Make updates with batches that depend on a seed only."""
    np.random.seed(seed)
    th.manual_seed(seed)
    model.train(n_updates, model.batch_size)


def tensors(numbers: Any) -> list[th.Tensor]:
    """Return the tensors in nested dictionaries and lists."""
    if isinstance(numbers, th.Tensor):
        return [numbers.detach()]
    parts = numbers.values() if isinstance(numbers, dict) else numbers if isinstance(numbers, list | tuple) else []
    return [tensor for part in parts for tensor in tensors(part)]


def assert_near(ours: DQN, theirs: DQN, tolerance: float) -> None:
    """Check that networks, target networks and optimizer state are close, and that steps and counters are equal."""
    for name, parameters in theirs.get_parameters().items():
        their, our = tensors(parameters), tensors(ours.get_parameters()[name])
        assert len(our) == len(their) > 0
        for a, b in zip(our, their, strict=True):
            assert a.dtype == b.dtype
            assert float((a - b).abs().max()) <= tolerance, name
    assert n_updates_of(ours) == n_updates_of(theirs)
    steps = [[state["step"] for state in model.policy.optimizer.state.values()] for model in (ours, theirs)]
    assert_same(steps[0], steps[1], "the optimizer's steps")


def assert_trained_alike(eager: DQNExt, compiled: DQNExt, first: int = 1, then: int = 99) -> None:
    """Check that two models differ by 1e-6 after the first updates, and by 1e-4 after many."""
    before = [tensor.clone() for tensor in tensors(eager.policy.q_net.state_dict())]
    for n_updates, tolerance in ((first, 1e-6), (then, 1e-4)):
        for model in (eager, compiled):
            train(model, n_updates)
        assert_near(compiled, eager, tolerance)
        losses = [model.logger.name_to_value["train/loss"] for model in (eager, compiled)]
        assert losses[1] == pytest.approx(losses[0], abs=tolerance, rel=1e-3)
    after = tensors(eager.policy.q_net.state_dict())
    assert max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True)) > 1e-3, "nothing was learned"
    assert_compiled(compiled)


def functions(model: DQNExt) -> dict[Any, Any]:
    """Return the functions that a model has compiled or read from torch's cache."""
    assert model.updater.compiled is not None, "it is eager"
    return model.updater.compiled._functions


def assert_compiled(model: DQNExt) -> None:
    assert functions(model)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of arguments of each function that was compiled since the test began."""
    seen: list[int] = []
    compile = sb3_dqn_ext.fast.compilation.compile_function

    def counted(function: Callable[..., Any], arguments: list[th.Tensor]) -> Callable[..., Any]:
        seen.append(len(arguments))
        return compile(function, arguments)

    monkeypatch.setattr(sb3_dqn_ext.fast.compiled, "compile_function", counted)
    return seen


# the same numbers


@pytest.mark.parametrize("steps", [40, 80], ids=["from a fresh optimizer", "after eager training"])
def test_one_update_and_a_hundred_end_like_eager_ones(steps: int) -> None:
    eager, compiled = pair(2, steps)
    assert (n_updates_of(eager) > 0) == (steps == 80)
    assert_trained_alike(eager, compiled)
    assert len(functions(compiled)) == 2  # one update, and two


def test_in_double_precision_a_hundred_updates_differ_by_rounding_only() -> None:
    eager, compiled = pair(1, policy_kwargs={"dtype": "float64"})
    for model in (eager, compiled):
        train(model, 100)
    assert_near(compiled, eager, 1e-12)


def test_a_run_ends_like_one_of_sb3() -> None:
    models, records = [], []
    for algorithm, kwargs in ((DQNExt, {"compile": {"unroll": 2}}), (DQN, {})):
        arguments = SMALL | AT_RANDOM | {"policy_kwargs": {"net_arch": [8]}} | kwargs
        models.append(algorithm("MlpPolicy", short_cartpole(), **arguments))
        records.append(learn(models[-1], 100))
    ours, theirs = models
    assert n_updates_of(theirs) == 60
    assert_near(ours, theirs, 1e-4)
    assert isinstance(ours, DQNExt)
    assert_compiled(ours)
    assert ours.replay_buffer is not None
    assert theirs.replay_buffer is not None
    assert_same(ours.replay_buffer.actions, theirs.replay_buffer.actions, "actions")
    for name in ("step", "rollout/exploration_rate", "rollout/ep_rew_mean", "train/n_updates", "train/learning_rate"):
        ours_logged, theirs_logged = ([row.get(name) for row in of_one.rows] for of_one in records)
        assert_same(ours_logged, theirs_logged, name)


@pytest.mark.parametrize(("gradient_steps", "n_envs"), [(5, 1), (-1, 4), (1, 4)])
def test_a_run_with_several_updates_per_call_ends_like_the_eager_one(gradient_steps: int, n_envs: int) -> None:
    models = []
    for compile in (False, {"unroll": 2}):
        env = several_cartpoles(n_envs)
        env.seed(0)
        models.append(make(compile, env, gradient_steps=gradient_steps, **AT_RANDOM))
        learn(models[-1], 80)
    assert n_updates_of(models[0]) == {5: 200, -1: 40, 1: 10}[gradient_steps]
    assert_near(models[1], models[0], 1e-4)
    assert_compiled(models[1])


def test_epochs_with_a_smaller_last_batch_end_like_eager_ones() -> None:
    eager, compiled = pair(4, 77, n_epochs=3, tau=0.1, target_update_interval=1, target_update_unit="gradient_steps")
    n_stored = eager.replay_buffer.size()  # type: ignore[union-attr]
    assert n_stored % eager.batch_size != 0
    before = n_updates_of(eager)
    for model in (eager, compiled):
        train(model, 0)
    assert n_updates_of(eager) - before == 3 * math.ceil(n_stored / eager.batch_size)
    assert {key[0] for key in functions(compiled)} == {4, 1}
    assert_near(compiled, eager, 1e-5)


def test_the_noise_of_layers_is_that_of_the_eager_path_update_by_update() -> None:
    eager, compiled = pair(2, policy_kwargs={"noisy": True})
    assert_trained_alike(eager, compiled, first=2, then=18)
    states = []
    for model in (eager, compiled):
        train(model, 2)
        states.append(th.get_rng_state())
    assert_same(states[1], states[0], "torch's generator")


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [False, True])
def test_drawn_taus_are_those_of_the_eager_path_update_by_update(noisy: bool) -> None:
    returns = "implicit_quantile"
    kwargs = {"returns": returns, "returns_kwargs": RETURNS_KWARGS[returns], "noisy": noisy}
    assert_trained_alike(*pair(3, policy_kwargs=kwargs), first=3, then=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"optimizer_kwargs": {"weight_decay": 0.1}},
        {"optimizer_kwargs": {"betas": (0.5, 0.9), "eps": 1e-3}},
        {"optimizer_class": "adamw", "optimizer_kwargs": {"weight_decay": 0.1}},
        {"optimizer_class": "torch.optim.RAdam", "optimizer_kwargs": {"weight_decay": 0.1}},
        {"optimizer_class": "rmsprop", "optimizer_kwargs": {"alpha": 0.9, "weight_decay": 0.1}},
        {"loss": "mse", "activation_fn": "tanh", "init": "keras"},
    ],
    ids=["weight decay", "betas and eps", "AdamW", "RAdam", "RMSprop", "loss and layers"],
)
def test_the_arguments_of_the_optimizer_take_effect(policy_kwargs: dict[str, Any]) -> None:
    assert_trained_alike(*pair(1, policy_kwargs=policy_kwargs))


@pytest.mark.slow
def test_gradients_are_clipped_to_max_grad_norm() -> None:
    eager, compiled = pair(1, max_grad_norm=0.01)
    eager.updater.loss(drawn_batch(eager, 8))[0].mean().backward()
    assert max(float(parameter.grad.norm()) for parameter in eager.q_net.parameters() if parameter.grad is not None) > 0.1
    assert_trained_alike(eager, compiled)


class Dropout(FlattenExtractor):
    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space)
        self.dropout = nn.Dropout(0.5)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        dropped: th.Tensor = self.dropout(super().forward(observations))
        return dropped


class SpectralNorm(FlattenExtractor):
    """A features extractor with buffers that change with every batch."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space)
        self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        out: th.Tensor = self.layer(super().forward(observations))
        return out


@pytest.mark.slow
@pytest.mark.parametrize("extractor", [Dropout, SpectralNorm])
def test_layers_that_depend_on_training_mode_do_so_when_they_are_compiled(extractor: type[FlattenExtractor]) -> None:
    eager, compiled = pair(2, policy_kwargs={"features_extractor_class": extractor})
    assert_trained_alike(eager, compiled, first=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        {},
        {"encoder": "nature", "norm": "layer"},
        {"encoder": "small"},
        {"encoder": "minatar", "norm": "layer", "dtype": "float64"},
        {"encoder": "impala", "norm": "layer", "dtype": "float64"},
    ],
    ids=str,
)
def test_training_on_images_equals_eager_training(network: dict[str, Any]) -> None:
    def images() -> FakeImageEnv:
        env = FakeImageEnv(action_dim=3, screen_height=36, screen_width=36, n_channels=1, discrete=True)
        env.observation_space.seed(0)  # its images are samples of the space
        return env

    sizes = "encoder_kwargs" if network else "features_extractor_kwargs"
    kwargs: dict[str, Any] = {"net_arch": [], sizes: {"features_dim": 6}} | network
    eager = make(env=images(), policy="CnnPolicy", policy_kwargs=kwargs)
    learn(eager, 60)
    compiled = twin(eager, {"unroll": 2}, env=images(), policy="CnnPolicy", policy_kwargs=kwargs)
    assert_trained_alike(eager, compiled, then=20)


# every combination

CHOICES: dict[str, list[Any]] = {
    "target_policy": sorted(TARGET_POLICIES),
    "returns": sorted(RETURN_MODELS),
    "head": sorted(HEADS),
    "noisy": [False, True],
}
SETTINGS: dict[str, list[Any]] = {
    "dtype": ["float32", "float64"],
    "fitted_actions": sorted(FITS),
    "sampler": sorted(SAMPLERS),
    "n_steps": [1, 3],
    "observations": ["Box", "Dict"],
    "norm": ["layer", "none"],  # updates of the others are not compiled
}
AXES = CHOICES | SETTINGS
Combination = dict[str, Any]


def legal(values: list[Any]) -> bool:
    """Return whether the values of a partial combination are allowed together."""
    combination = dict(zip(AXES, values, strict=False))
    return bool(combination.get("fitted_actions", "taken") == "taken" or combination["returns"] == "expected")


def pairwise() -> Iterator[Combination]:
    for values in AllPairs(list(AXES.values()), filter_func=legal):
        yield dict(zip(AXES, values, strict=True))


def all_choices() -> Iterator[Combination]:
    """Return the full product of the choices, with the settings in turn."""
    for i, values in enumerate(product(*CHOICES.values())):
        settings = {key: options[(i // 3**j) % len(options)] for j, (key, options) in enumerate(SETTINGS.items())}
        if not legal([*values, *settings.values()]):
            settings["fitted_actions"] = "taken"
        yield dict(zip(CHOICES, values, strict=True)) | settings


FIRST_EIGHT = list(islice(pairwise(), 8))


def check(combination: Combination) -> None:
    returns, head, is_dict = combination["returns"], combination["head"], combination["observations"] == "Dict"
    policy = "MultiInputPolicy" if is_dict else "MlpPolicy"
    kwargs: dict[str, Any] = {
        "target_policy": combination["target_policy"],
        "n_steps": combination["n_steps"],
        "replay_buffer_kwargs": {"sampler": combination["sampler"]},
        "policy_kwargs": {
            "head": head,
            "head_arch": HEAD_ARCH[head],
            "returns": returns,
            "returns_kwargs": RETURNS_KWARGS[returns],
            **{name: combination[name] for name in ("noisy", "dtype", "fitted_actions", "norm")},
        },
    }
    env = dict_cartpole if is_dict else short_cartpole
    eager = make(False, env(), policy, **kwargs)
    learn(eager, 60)
    compiled = twin(eager, {"unroll": 1}, env=env(), policy=policy, **kwargs)
    assert_trained_alike(eager, compiled, then=19)


def identifier(combination: Combination) -> str:
    return " ".join(str(value) for value in combination.values())


def test_every_value_is_in_a_tested_combination() -> None:
    for name, values in AXES.items():
        assert {str(combination[name]) for combination in FIRST_EIGHT} == {str(value) for value in values}, name


@pytest.mark.parametrize("combination", FIRST_EIGHT, ids=identifier)
def test_combinations_of_choices_learn_like_eager_ones(combination: Combination) -> None:
    check(combination)


@pytest.mark.slow
@pytest.mark.parametrize("combination", [*islice(pairwise(), 8, None), *all_choices()], ids=identifier)
def test_every_combination_of_choices_learns_like_the_eager_one(combination: Combination) -> None:
    check(combination)


def test_choices_of_a_user_are_compiled(compilations: list[int]) -> None:
    kwargs: dict[str, Any] = {
        "target_policy": Mellow(0.5),
        "policy_kwargs": {
            "head": Gated,
            "returns": Pair,
            "returns_kwargs": {"scale": 2.0},
            "loss": LogCosh,
            "auxiliary_loss": squared_values,
        },
    }
    eager, compiled = pair(1, **kwargs)
    assert_trained_alike(eager, compiled, then=19)
    assert len(compilations) == 1
    network = kwargs["policy_kwargs"]
    built_ins = [
        {"target_policy": "greedy"},
        *({"policy_kwargs": network | {name: None}} for name in ("loss", "auxiliary_loss")),
    ]
    for built_in in built_ins:
        other = twin(compiled, False, **kwargs | built_in)
        same = twin(compiled, False, **kwargs)
        for model in (other, same):
            train(model, 10)
        train(compiled, 10)
        assert_near(compiled, same, 1e-5)
        with pytest.raises(AssertionError):
            assert_near(compiled, other, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["large_margin", "cql"])
def test_auxiliary_losses_on_demonstrations_are_those_of_the_eager_path(loss: str) -> None:
    generator = np.random.default_rng(0)
    states, actions = generator.normal(size=(61, 4)), generator.integers(2, size=60)
    demonstrations = from_episode(states, actions, np.ones(60), np.arange(60) == 59, np.zeros(60))
    kwargs: dict[str, Any] = {
        "replay_buffer_kwargs": {"demonstrations": demonstrations, "sampler": "prioritized"},
        "policy_kwargs": {"auxiliary_loss": loss},
    }
    eager, compiled = pair(1, **kwargs)
    assert_trained_alike(eager, compiled, then=19)
    assert compiled.updater.compiled is not None


# changes during training


def test_a_decreasing_learning_rate_takes_effect_without_another_compilation(compilations: list[int]) -> None:
    kwargs: dict[str, Any] = {"learning_rate": SimpleLinearSchedule(1e-2)}
    eager, compiled = pair(1, **kwargs)
    for progress in (0.9, 0.5, 0.1, 0.0):
        for model in (eager, compiled):
            before = [parameter.detach().clone() for parameter in model.q_net.parameters()]
            model._current_progress_remaining = progress
            train(model, 1)
            moved = any(not th.equal(a, b) for a, b in zip(before, model.q_net.parameters(), strict=True))
            assert moved == (progress > 0)
            assert model.policy.optimizer.param_groups[0]["lr"] == 1e-2 * progress
        assert_near(compiled, eager, 1e-6)
    assert len(compilations) == 1


TARGETS: dict[str, tuple[dict[str, Any], int]] = {
    "hard, in env steps": ({"target_update_interval": 7}, 2),
    "soft, in env steps": ({"target_update_interval": 3, "tau": 0.3}, 2),
    "after every update": ({"target_update_unit": "gradient_steps", "target_update_interval": 1, "tau": 0.1}, 2),
    "after 3 updates, 2 at a time": ({"target_update_unit": "gradient_steps", "target_update_interval": 3}, 2),
    "after 3 updates, 4 at a time": ({"target_update_unit": "gradient_steps", "target_update_interval": 3, "tau": 0.4}, 4),
    "no target network": ({"target_network": False}, 2),
}
SLOW_TARGETS: dict[str, tuple[dict[str, Any], int]] = {
    "after 6 updates, 4 at a time": ({"target_update_unit": "gradient_steps", "target_update_interval": 6}, 4),
    "after 9 updates, 4 at a time": ({"target_update_unit": "gradient_steps", "target_update_interval": 9, "tau": 0.4}, 4),
    "after every update, 3 at a time": ({"target_update_unit": "gradient_steps", "target_update_interval": 1, "tau": 0.1}, 3),
    "after every update, one at a time": ({"target_update_unit": "gradient_steps", "target_update_interval": 1}, 1),
}


@pytest.mark.parametrize("name", [*TARGETS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TARGETS)])
def test_the_target_network_is_updated_when_it_is_due(name: str) -> None:
    kwargs, unroll = (TARGETS | SLOW_TARGETS)[name]
    kwargs = kwargs | {"train_freq": 2, "gradient_steps": 4} | AT_RANDOM
    models = []
    for compile in (False, {"unroll": unroll}):
        models.append(make(compile, **kwargs))
        learn(models[-1], 61)
    assert_near(models[1], models[0], 1e-4)
    assert all(type(parameter) is nn.Parameter for parameter in models[1].policy.parameters())
    assert n_updates_of(models[1]) == n_updates_of(models[0]) >= 40
    assert_compiled(models[1])


def test_only_the_callback_updates_the_target_network_if_there_is_one() -> None:
    kwargs: dict[str, Any] = {"target_update_unit": "gradient_steps", "target_update_interval": 1, "tau": 0.1}
    models = []
    for compile in (False, {"unroll": 2}):
        models.append(make(compile, gradient_steps=2, **(kwargs | AT_RANDOM)))
        learn(models[-1], 60, callback=SoftTargetUpdateCallback(tau=0.01, every=2))
    assert_near(models[1], models[0], 1e-4)
    assert_compiled(models[1])


def test_resets_and_recycled_units_leave_updates_compiled() -> None:
    """Recycled units and reset weights are the same as those of the eager path, and so is all that follows."""
    kwargs: dict[str, Any] = {"target_update_unit": "gradient_steps", "target_update_interval": 1, "tau": 0.1}
    models = []
    for compile in (False, {"unroll": 2}):
        models.append(make(compile, gradient_steps=2, **(kwargs | AT_RANDOM)))
        reset, redo = ResetCallback(15, shrink="q_net.0"), ReDoCallback(10, tau=0.5)
        learn(models[-1], 61, callback=[reset, redo])
        assert reset.n_acts == 2
        assert redo.n_recycled > 2
    assert_near(models[1], models[0], 1e-4)
    assert_compiled(models[1])
    assert models[1].updater.compiled is not None
    steps = {float(state["step"]) for state in models[1].policy.optimizer.state.values()}
    assert steps == {n_updates_of(models[1])}


def test_a_norm_and_a_tau_that_are_set_later_take_effect_without_another_compilation(compilations: list[int]) -> None:
    kwargs: dict[str, Any] = {"target_update_unit": "gradient_steps", "target_update_interval": 1, "tau": 0.1}
    eager, compiled = pair(1, **kwargs)
    for max_grad_norm, tau in ((10, 0.1), (0.01, 0.1), (0.01, 0.7)):
        for model in (eager, compiled):
            model.max_grad_norm, model.tau = max_grad_norm, tau
            train(model, 3)
        assert_near(compiled, eager, 1e-6)
    assert len(compilations) == 1


def test_two_models_have_separate_functions_and_parameters() -> None:
    first, second = pair(1), pair(1, max_grad_norm=0.1)
    for eager, compiled in (first, second, first, second):
        for model in (eager, compiled):
            train(model, 2)
        assert_near(compiled, eager, 1e-6)
    assert functions(first[1]) is not functions(second[1])
    assert set(functions(first[1]).values()).isdisjoint(functions(second[1]).values())


@pytest.mark.slow
def test_functions_that_differ_in_one_constant_are_compiled_separately() -> None:
    models = []
    for v_max in (20, 40, 20):
        returns_kwargs = {"n_atoms": 5, "v_min": 0, "v_max": v_max}
        eager, compiled = pair(1, policy_kwargs={"returns": "categorical", "returns_kwargs": returns_kwargs})
        assert_trained_alike(eager, compiled)
        models.append(compiled)
    assert_same(models[0].get_parameters(), models[2].get_parameters(), "parameters")
    assert any(not th.equal(a, b) for a, b in zip(models[0].q_net.parameters(), models[1].q_net.parameters(), strict=True))


# prioritized replay

PRIORITIZED: dict[str, Any] = {"replay_buffer_kwargs": {"sampler": "prioritized", "sampler_kwargs": {"beta": 0.6}}}


def memory(model: DQNExt) -> DQNReplayBuffer:
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    return model.replay_buffer


def weights_of_a_draw(model: DQNExt) -> np.ndarray[Any, Any]:
    """Return the (64,) importance sampling weights of a draw, which depend on the priorities."""
    sampler = memory(model).sampler
    assert isinstance(sampler, Prioritized)
    np.random.seed(1)
    return sampler.sample(*memory(model).replayable_rows(), 64, 0.0)[1]


def test_with_one_update_per_call_priorities_and_draws_are_those_of_the_eager_path() -> None:
    eager, compiled = pair(1, **PRIORITIZED)
    assert_trained_alike(eager, compiled)
    weights = [weights_of_a_draw(model) for model in (eager, compiled)]
    assert weights[0].min() < 0.9 * weights[0].max()
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-3)


def test_with_two_updates_per_call_both_batches_are_drawn_before_the_priorities_change() -> None:
    eager, compiled = pair(2, **PRIORITIZED)
    train(compiled, 2)
    np.random.seed(7)
    batches = drawn_batch(eager, eager.batch_size, 2)
    for batch in batches.split(2):
        eager.updater.update(eager, batch, 1, None)
    assert_near(compiled, eager, 1e-6)
    np.testing.assert_allclose(weights_of_a_draw(compiled), weights_of_a_draw(eager), rtol=1e-5)


def test_a_transition_of_weight_0_does_not_change_the_gradient() -> None:
    _, compiled = pair(1)
    twice = [twin(compiled, {"unroll": 1}) for _ in range(2)]
    batch = drawn_batch(compiled, 8)
    rewards = batch.rewards.clone()
    rewards[0] = 1000.0
    weights = th.ones(8)
    weights[0] = 0.0
    for model, given in zip(twice, (batch.rewards, rewards), strict=True):
        model.updater.begin_training(model, None)
        assert model.updater.compiled is not None
        _, errors = model.updater.compiled(batch._replace(rewards=given, weights=weights), 1)
    assert float(errors[0]) > 100
    assert_same(twice[0].get_parameters(), twice[1].get_parameters(), "parameters")


# saving and loading


def test_a_saved_model_has_the_keys_shapes_and_types_of_an_eager_one(tmp_path: Path) -> None:
    eager, compiled = pair(2)
    for name, model in (("eager", eager), ("compiled", compiled)):
        train(model, 5)
        model.save(tmp_path / name)
    (_, theirs, _), (_, ours, _) = (load_from_zip_file(tmp_path / name, load_data=False) for name in ("eager", "compiled"))
    assert list(ours) == list(theirs)
    assert_same(shapes(ours), shapes(theirs), "shapes")
    sizes = [(tmp_path / f"{name}.zip").stat().st_size for name in ("eager", "compiled")]
    assert sizes[1] < 1.1 * sizes[0]


def shapes(numbers: Any) -> Any:
    """Replace each tensor in nested dictionaries and lists by its shape and type."""
    if isinstance(numbers, th.Tensor):
        return str((tuple(numbers.shape), numbers.dtype, numbers.stride()))
    if isinstance(numbers, dict):
        return {key: shapes(value) for key, value in numbers.items()}
    return [shapes(value) for value in numbers] if isinstance(numbers, list | tuple) else numbers


def test_a_saved_model_is_loaded_compiled_eager_and_by_sb3_and_continues_like_the_eager_one(tmp_path: Path) -> None:
    _, model = pair(1)
    train(model, 5)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "memory")

    def load_with_sb3() -> DQN:
        """Load the parameters of a file into SB3's class with our policy."""
        other = DQN(MlpPolicy, short_cartpole(), policy_kwargs=model.policy_kwargs, batch_size=8, device="cpu")
        other.set_parameters(str(tmp_path / "model"))
        return other

    loaders: list[Callable[[], DQN]] = [
        lambda: DQNExt.load(tmp_path / "model", env=short_cartpole()),
        lambda: DQNExt.load(tmp_path / "model", env=short_cartpole(), compile=False),
        load_with_sb3,
    ]
    loaded = []
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for load in loaders:
        other = load()
        assert_same(other.get_parameters()["policy"], model.get_parameters()["policy"], "policy")
        assert_same(tensors(other.get_parameters()), tensors(model.get_parameters()), "parameters")
        actions, expected = (each.predict(observations, deterministic=True)[0] for each in (other, model))
        assert_same(actions, expected, "actions")
        other.load_replay_buffer(tmp_path / "memory")
        other.set_logger(Logger(folder=None, output_formats=[Records()]))
        loaded.append(other)
    assert isinstance(loaded[0], DQNExt)
    assert isinstance(loaded[1], DQNExt)
    assert loaded[0].compile == {"unroll": 1}
    assert loaded[1].updater.compiled is None
    train(model, 1)
    for other in loaded[:2]:
        assert isinstance(other, DQNExt)
        train(other, 1)
        assert_near(other, model, 1e-6)
    assert_compiled(loaded[0])
    for other in loaded:
        other.learning_starts = 0
        updates = n_updates_of(other)
        learn(other, 20, reset_num_timesteps=False)
        assert n_updates_of(other) > updates


def test_parameters_that_are_set_in_the_middle_are_trained() -> None:
    eager, compiled = pair(1)
    saved = deepcopy(eager.get_parameters())
    for model in (eager, compiled):
        train(model, 4)
        set_parameters(model, saved)
    assert_same(compiled.get_parameters(), eager.get_parameters(), "parameters")
    compiled._n_updates = n_updates_of(eager)
    assert_trained_alike(eager, compiled)


def test_tensors_that_a_user_replaces_are_trained() -> None:
    kwargs: dict[str, Any] = {"target_update_unit": "gradient_steps", "target_update_interval": 1, "tau": 0.1}
    eager, compiled = pair(1, **kwargs)
    for model in (eager, compiled):
        train(model, 4)
        for net in (model.q_net, model.q_net_target):
            weight = list(net.parameters())[2]
            weight.data = weight.data * 0.5
        optimizer = model.policy.optimizer
        optimizer.state[list(model.q_net.parameters())[2]]["exp_avg"] = th.zeros(2, 8)
    observation = np.zeros((1, 4), np.float32)
    np.testing.assert_array_equal(compiled.predict(observation)[0], eager.predict(observation)[0])
    assert_trained_alike(eager, compiled, then=20)


def test_batches_of_another_precision_are_read_as_such() -> None:
    _, compiled = pair(1)
    train(compiled, 1)
    updates = compiled.updater.compiled
    assert updates is not None
    batch = compiled.replay_buffer.sample_batch(8)  # type: ignore[union-attr]
    for one in (batch, batch._replace(rewards=batch.rewards.double())):
        with th.no_grad():
            loss = updates.loss(one)[0].mean()
        found = updates(one, 1)[0]
        assert found.item() == pytest.approx(loss.item(), rel=1e-5)


def test_an_optimizer_state_that_is_loaded_in_the_middle_takes_effect_with_its_arguments() -> None:
    eager, compiled = pair(1)
    for model in (eager, compiled):
        train(model, 4)
        state = deepcopy(model.policy.optimizer.state_dict())
        train(model, 4, seed=8)
        state["param_groups"][0].update(eps=1e-2, betas=(0.5, 0.9))
        model.policy.optimizer.load_state_dict(state)
    assert_trained_alike(eager, compiled)
    for model in (eager, compiled):
        train(model, 1)
        fresh = th.optim.Adam(model.q_net.parameters(), lr=1e-3)
        model.policy.optimizer.load_state_dict(fresh.state_dict())
    compiled.policy.load_state_dict(eager.policy.state_dict())
    assert_trained_alike(eager, compiled)


# updates that cannot be compiled


class DependsOnValues(FlattenExtractor):
    def forward(self, observations: th.Tensor) -> th.Tensor:
        x = super().forward(observations)
        return x if x.sum() > 0 else 2 * x


class DependsOnPythonNumbers(FlattenExtractor):
    """A features extractor whose computation depends on Python numbers from tensors."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        x = super().forward(observations)
        numbers: list[float] = x.detach().flatten().tolist()
        return x * sum(numbers)


class CountsPositives(FlattenExtractor):
    """A features extractor with a tensor whose size depends on the values of another."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        x = super().forward(observations)
        return x * (1 + 0.1 * len(x.nonzero()))


class CountsBatches(FlattenExtractor):
    n_batches: th.Tensor

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space)
        self.register_buffer("n_batches", th.zeros(()))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        if self.training:
            self.n_batches += 1
        return super().forward(observations) / (1 + 0.01 * self.n_batches)


class CountsCalls(FlattenExtractor):
    n_calls = 0

    def forward(self, observations: th.Tensor) -> th.Tensor:
        self.n_calls += 1
        return super().forward(observations) / (1 + 0.01 * self.n_calls)


class DoesNotUseItsLayer(FlattenExtractor):
    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space)
        self.layer = nn.Linear(3, 3)


class HasAFixedLayer(FlattenExtractor):
    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space)
        self.layer = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        out: th.Tensor = self.layer(super().forward(observations))
        return out


def extractor(kind: type[FlattenExtractor]) -> dict[str, Any]:
    return {"policy_kwargs": {"features_extractor_class": kind}}


def learned(compile: Compile, **kwargs: Any) -> DQNExt:
    model = make(compile, **kwargs)
    learn(model, 80)
    return model


HEADS_OF_THEIR_OWN = {"head": "multi_head", "head_arch": [5], "optimizer_per_head": True}
NOT_COMPILED: dict[str, tuple[dict[str, Any], str]] = {
    "sgd": ({"policy_kwargs": {"optimizer_class": "sgd"}}, "SGD is none of torch's Adam"),
    "momentum": ({"policy_kwargs": {"optimizer_class": "rmsprop", "optimizer_kwargs": {"momentum": 0.9}}}, "momentum=0.9"),
    "amsgrad": ({"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True}}}, "amsgrad=True"),
    "batch_norm": ({"policy_kwargs": {"batch_norm": True}}, "batch and spectral normalisation"),
    "spectral": ({"policy_kwargs": {"norm": "spectral"}}, "batch and spectral normalisation"),
    "optimizer_per_head": ({"policy_kwargs": HEADS_OF_THEIR_OWN}, "OptimizerPerHead is none of torch's Adam"),
    "control flow": (extractor(DependsOnValues), "data-dependent"),
    "numbers": (extractor(DependsOnPythonNumbers), "tolist"),
    "shapes": (extractor(CountsPositives), "data-dependent"),
    "a counter": (extractor(CountsBatches), "mutate a captured Tensor"),
    "a number of calls": (extractor(CountsCalls), "CountsCalls has changed its attributes"),
    "an unused layer": (extractor(DoesNotUseItsLayer), "some parameters do not affect the loss"),
    "a fixed layer": (extractor(HasAFixedLayer), "some parameters are frozen (requires_grad=False)"),
}


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_updates_that_cannot_be_compiled_are_eager_with_one_warning(name: str) -> None:
    kwargs, message = NOT_COMPILED[name]
    eager = learned(False, **kwargs)
    with pytest.warns(UserWarning, match="has no effect, training is eager") as caught:
        model = learned({"unroll": 2}, **kwargs)
    assert len(caught) == 1
    assert message in str(caught[0].message)
    assert n_updates_of(eager) > 0
    assert_same(model.get_parameters(), eager.get_parameters(), "parameters")


def test_batches_that_were_drawn_together_are_used_if_compilation_fails() -> None:
    eager, compiled = pair(2, **extractor(DependsOnValues))
    assert compiled.updater.compiled is not None
    train(eager, 5)
    with pytest.warns(UserWarning, match="training is eager") as caught:
        train(compiled, 5)
    assert len(caught) == 1
    assert_same(compiled.get_parameters(), eager.get_parameters(), "parameters")
    assert n_updates_of(compiled) == n_updates_of(eager)


def test_an_unsupported_optimizer_state_leads_to_eager_training() -> None:
    eager, compiled = pair(1)
    for model in (eager, compiled):
        train(model, 1)
    set_parameters(compiled, eager.get_parameters())
    for model in (eager, compiled):
        state = model.policy.optimizer.state_dict()
        state["param_groups"][0]["weight_decay"], state["param_groups"][0]["maximize"] = 0.01, True
        model.policy.optimizer.load_state_dict(state)
    train(eager, 3)
    with pytest.warns(UserWarning, match="the optimizer has maximize=True") as caught:
        train(compiled, 3)
    assert len(caught) == 1
    assert_same(compiled.get_parameters(), eager.get_parameters(), "parameters")


WITHOUT_COMPILER = """
import warnings
from tests.fast.test_compiled import AT_RANDOM, assert_near, learn, make

eager = make(gradient_steps=3, **AT_RANDOM)
learn(eager, 60)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = make({"unroll": 2}, gradient_steps=3, **AT_RANDOM)
    learn(model, 60)
assert_near(model, eager, 1e-6)
print("updates", model._n_updates)
print(*(f"{warning.category.__name__}: {warning.message}" for warning in caught), sep="\\n")
"""


def test_without_a_compiler_there_is_one_clear_warning_and_training_is_eager(tmp_path: Path) -> None:
    root = str(ROOT)
    process = python(
        *("-c", WITHOUT_COMPILER),
        cwd=tmp_path,
        CXX=str(tmp_path / "no-such-compiler"),
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
        PYTHONPATH=root,
    )
    printed = output(process).splitlines()
    assert printed == [
        "updates 60",
        "UserWarning: compile has no effect, training is eager: no C++ compiler was found; "
        "install one (on Debian: apt install g++), or name it in the variable CXX.",
    ]
    # on a busy machine, a message announces the wait
    errors = [line for line in process.stderr.splitlines() if not line.startswith("Compiling the updates")]
    assert not errors


# torch's cache


def test_a_second_model_uses_the_cache_of_the_first() -> None:
    learn(make({"unroll": 1}), 42)
    before = counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"]
    learn(make({"unroll": 1}), 42)
    assert counters["inductor"]["fxgraph_cache_hit"] == before[0] + 1
    assert counters["inductor"]["fxgraph_cache_miss"] == before[1]


TIMED = """
import time
from torch._dynamo.utils import counters
from tests.fast.test_compiled import make, learn

model = make({"unroll": 1})
learn(model, 40)
started = time.perf_counter()
learn(model, 41)
print(time.perf_counter() - started)
print(counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"])
"""


@pytest.mark.slow
def test_a_second_process_uses_the_cache_of_the_first(tmp_path: Path) -> None:
    root, cache = str(ROOT), tmp_path / "cache"
    times, files = [], []
    for expected in ("0 1", "1 0"):
        process = python("-c", TIMED, cwd=tmp_path, TORCHINDUCTOR_CACHE_DIR=str(cache), PYTHONPATH=root)
        seconds, hits_and_misses = output(process).splitlines()
        assert hits_and_misses == expected
        times.append(float(seconds))
        files.append({path for path in cache.rglob("*") if path.suffix in {".cpp", ".so"}})
    assert files[0]
    assert files[1] == files[0]
    assert times[1] < 0.7 * times[0]


# arguments


@pytest.mark.parametrize(
    ("compile", "message"),
    [
        ("yes", r"compile='yes' must be True, False or a mapping"),
        (1, r"compile=1 must be True, False or a mapping"),
        (None, r"compile=None must be True, False or a mapping"),
        (
            {"unrol": 2},
            r"compile has no argument 'unrol'; it can be one of: cuda_graphs, unroll\. Did you mean 'unroll'",
        ),
        ({"cuda_graphs": 1}, r"compile\['cuda_graphs'\]=1 must be True or False"),
        ({"unroll": 0}, r"compile\['unroll'\]=0 must be a whole number in \[1, inf\]"),
        ({"unroll": 2.5}, r"compile\['unroll'\]=2\.5 must be a whole number"),
        ({"unroll": True}, r"compile\['unroll'\]=True must be a whole number"),
    ],
)
def test_an_invalid_argument_raises_an_error(compile: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(compile)


@pytest.mark.parametrize(("compile", "unroll"), [(True, 4), ({}, 4), ({"unroll": 3}, 3), ({"unroll": np.int64(3)}, 3)])
def test_the_argument_defines_the_number_of_updates_per_call(compile: Any, unroll: int) -> None:
    model = make(compile)
    assert model.updater.compiled is not None
    assert model.updater.compiled.unroll == unroll
    assert make(False).updater.compiled is None


def test_cuda_graphs_have_no_effect_on_the_cpu_with_one_warning() -> None:
    with pytest.warns(
        UserWarning, match=r"compile\['cuda_graphs'\] has no effect: the networks are on 'cpu', not on 'cuda'\."
    ):
        model = make({"unroll": 4, "cuda_graphs": True})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*cuda_graphs")
        learn(model, 80)
    assert_compiled(model)
