"""Optimizers on one flat tensor compared with those of torch."""

from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.fast.flat_optimizer import FlatOptimizer, unsupported_reason_flat
from sb3_dqn_ext.fast.numpy_forward import make_numpy_q_values
from sb3_dqn_ext.fast.optimizer_rules import RULES, AdamRule, decay_weights
from tests.parity import assert_same, learn, short_cartpole

SETTINGS: list[tuple[type[th.optim.Optimizer], dict[str, Any]]] = [
    (th.optim.Adam, {}),
    (th.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.1}),
    (th.optim.AdamW, {}),
    (th.optim.AdamW, {"weight_decay": 0.3}),
    (th.optim.RAdam, {}),
    (th.optim.RAdam, {"betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.1}),
    (th.optim.RAdam, {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    (th.optim.RMSprop, {}),
    (th.optim.RMSprop, {"alpha": 0.9, "eps": 1e-2, "weight_decay": 0.1}),
]
MANY = 300
"""The number of steps of a test; RAdam's sixth step is its first with an adaptive rate."""


def network(seed: int = 0) -> nn.Sequential:
    th.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 2))


def descend(net: nn.Module, step: int) -> None:
    net.zero_grad()
    generator = th.Generator().manual_seed(step)
    (net(th.randn(4, 3, generator=generator)) ** 2 * 10).sum().backward()


@pytest.mark.parametrize("max_grad_norm", [0.1, 1e9], ids=["clipped", "not clipped"])
@pytest.mark.parametrize(("kind", "kwargs"), SETTINGS, ids=str)
def test_the_results_have_the_bits_of_torchs(
    kind: type[th.optim.Optimizer], kwargs: dict[str, Any], max_grad_norm: float
) -> None:
    ours, theirs = network(), network()
    make: Any = kind
    optimizers = [make(net.parameters(), lr=0.01, **kwargs) for net in (ours, theirs)]
    flat = FlatOptimizer(list(ours.parameters()), optimizers[0])
    for step in range(MANY if max_grad_norm < 1 else 10):
        if step == 3:  # a state that is loaded in between takes effect
            optimizers[0].load_state_dict(optimizers[0].state_dict())
            ours.load_state_dict({key: value.clone() for key, value in ours.state_dict().items()})
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
            descend(net, step)
        assert flat.step(max_grad_norm)
        nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        optimizers[1].step()
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()), "parameters")
    assert_same(optimizers[0].state_dict(), optimizers[1].state_dict(), "optimizer")


@pytest.mark.parametrize(("kind", "kwargs"), SETTINGS, ids=str)
def test_the_compiled_equation_is_torchs(kind: type[th.optim.Optimizer], kwargs: dict[str, Any]) -> None:
    generator = th.Generator().manual_seed(0)
    theirs = nn.Parameter(th.randn(20, generator=generator, dtype=th.float64))
    make: Any = kind
    optimizer = make([theirs], lr=0.01, **kwargs)
    ours, rule, group = theirs.detach().clone(), RULES[kind], optimizer.param_groups[0]
    averages = [th.zeros(20).double() for _ in rule.averages]
    flat = FlatOptimizer([theirs], optimizer)
    flat.bind_storage()
    for of_step in flat.step_coefficients(20):
        theirs.grad = th.randn(20, generator=generator, dtype=th.float64)
        constants = {name: group[name] for name in rule.constants}
        gradient = decay_weights(ours, theirs.grad, of_step[0], constants)
        rule.tensor_step(ours, gradient, averages, of_step.unbind(), constants)
        optimizer.step()
    np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-9)


def test_the_rates_of_radam_are_those_of_the_paper_on_both_sides_of_the_threshold() -> None:
    # by hand for beta2 = 0.5: rho_inf = 3, so that no step is rectified; for beta2 = 0.9, rho_inf = 19:
    # rho_6 = 19 - 12 * 0.531441 / 0.468559 = 5.389565, rho_5 = 19 - 10 * 0.59049 / 0.40951 = 4.580572
    rule = RULES[th.optim.RAdam]
    group = {"lr": 1.0, "betas": (0.0, 0.9)}
    assert rule.step_coefficients(group, 5) == (1.0, 1.0, 0.0)
    rectification = (1.389565 * 3.389565 * 19 / (15 * 17 * 5.389565)) ** 0.5
    np.testing.assert_allclose(rule.step_coefficients(group, 6)[2], rectification * 0.468559**0.5, rtol=1e-5)
    assert rule.step_coefficients({"lr": 1.0, "betas": (0.0, 0.5)}, 1000) == (1.0, 1.0, 0.0)


def test_tensors_that_a_user_replaces_are_trained_as_by_torch() -> None:
    ours, theirs = network(), network()
    optimizers = [th.optim.Adam(net.parameters(), lr=0.01) for net in (ours, theirs)]
    flat = FlatOptimizer(list(ours.parameters()), optimizers[0])
    for step in range(9):
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            later = list(net.parameters())[2]
            if step == 3:
                later.data = later.data * 0.5
            if step == 6:
                optimizer.state[later]["exp_avg"] = th.zeros_like(later)
            descend(net, step)
        assert flat.step(0.1)
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
        optimizers[1].step()
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()), "parameters")
    assert_same(optimizers[0].state_dict(), optimizers[1].state_dict(), "optimizer")


def test_the_numbers_of_each_step_are_those_of_adam_when_rates_change_and_when_steps_are_skipped() -> None:
    net = network()
    optimizer = th.optim.Adam(net.parameters(), lr=0.1, betas=(0.8, 0.9))
    flat = FlatOptimizer(list(net.parameters()), optimizer)
    flat.bind_storage()
    done = 0
    for call in range(700):
        if call in (3, 4, 5, 400, 690):
            optimizer.param_groups[0]["lr"] *= 0.5
        if call == 500:
            optimizer.param_groups[0]["betas"] = (0.7, 0.95)
        if call == 600:
            flat.steps -= 17  # as after updates that are skipped
            done -= 17
        n, rate, (beta1, beta2) = 1 + call % 4, optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]
        expected = [(rate, rate / (1 - beta1**t), 1 / (1 - beta2**t) ** 0.5) for t in range(done + 1, done + n + 1)]
        np.testing.assert_allclose(flat.step_coefficients(n).numpy(), expected, rtol=1e-6)
        flat.steps += n
        done += n


@pytest.mark.parametrize("calls", [(1,), (4, 4), (4, 4, 1, 1), (8, 8, 1), (32, 32, 1)], ids=str)
@pytest.mark.parametrize("rate_changes", [False, True])
def test_the_numbers_of_each_step_are_computed_about_once(
    calls: tuple[int, ...], rate_changes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network()
    flat = FlatOptimizer(list(net.parameters()), th.optim.Adam(net.parameters()))
    flat.bind_storage()
    n_computed, compute = 0, AdamRule.step_coefficients

    def counted(rule: AdamRule, group: Any, step: int) -> tuple[float, ...]:
        nonlocal n_computed
        n_computed += 1
        return compute(rule, group, step)

    monkeypatch.setattr(AdamRule, "step_coefficients", counted)
    n_trainings = 2000 // sum(calls)
    for training in range(n_trainings):
        if rate_changes:
            flat.group["lr"] = 1 / (1 + training)
        for n in calls:
            flat.step_coefficients(n)
            flat.count_steps(n)
    # a call at the end of a table computes numbers again; with a new rate in each training, the second call of a training
    # computes those of three calls more
    assert n_computed <= (4 if rate_changes else 1.3) * 2000


def test_a_parameter_without_a_gradient_is_left_to_torch() -> None:
    net = network()
    optimizer = th.optim.Adam(net.parameters())
    flat = FlatOptimizer(list(net.parameters()), optimizer)
    flat.bind_storage()
    descend(net, 0)
    next(net.parameters()).grad = None
    before = [parameter.clone() for parameter in net.parameters()]
    assert not flat.step(1.0)
    assert_same([parameter.detach() for parameter in net.parameters()], [one.detach() for one in before], "parameters")


@pytest.mark.parametrize("unused", ["at first", "always"])
def test_a_layer_that_is_not_always_used_is_trained_as_by_torch(unused: str) -> None:
    ours, theirs = network(), network()
    optimizers = [th.optim.Adam(net.parameters(), lr=0.01) for net in (ours, theirs)]
    flat = FlatOptimizer(list(ours.parameters()), optimizers[0])
    for step in range(4):
        for net in (ours, theirs):
            descend(net, step)
            if unused == "always" or step < 2:
                next(net.parameters()).grad = None
        if not flat.step(1e9):
            optimizers[0].step()
        optimizers[1].step()
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()), "parameters")
    assert_same(optimizers[0].state_dict(), optimizers[1].state_dict(), "optimizer")


def test_a_setting_that_is_loaded_later_takes_effect() -> None:
    ours, theirs = network(), network()
    optimizers = [th.optim.Adam(net.parameters(), lr=0.01) for net in (ours, theirs)]
    flat = FlatOptimizer(list(ours.parameters()), optimizers[0])
    for step in range(4):
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.param_groups[0]["maximize"] = step > 1
            descend(net, step)
        if not flat.step(1e9):
            optimizers[0].step()
        optimizers[1].step()
    assert_same(dict(ours.state_dict()), dict(theirs.state_dict()), "parameters")


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (th.optim.SGD(network().parameters(), lr=1), "SGD is none of torch's Adam, AdamW, RAdam, RMSprop"),
        (th.optim.Adam(network().parameters(), amsgrad=True), "amsgrad=True"),
        (th.optim.RMSprop(network().parameters(), momentum=0.9), "momentum=0.9"),
        (th.optim.RMSprop(network().parameters(), centered=True), "centered=True"),
        (th.optim.RAdam(network().parameters(), foreach=True), "foreach=True"),
        (th.optim.Adam(network().parameters(), maximize=True), "maximize=True"),
        (th.optim.Adam([{"params": list(network().parameters())}, {"params": [nn.Parameter(th.ones(1))]}]), "several groups"),
    ],
    ids=["sgd", "amsgrad", "momentum", "centered", "foreach", "maximize", "groups"],
)
def test_the_reason_for_an_unsupported_optimizer_is_returned(optimizer: th.optim.Optimizer, reason: str) -> None:
    parameters = optimizer.param_groups[0]["params"]
    assert reason in (unsupported_reason_flat(parameters, optimizer) or "")


def test_parameters_of_two_precisions_are_left_to_torch() -> None:
    parameters = [nn.Parameter(th.ones(1)), nn.Parameter(th.ones(1).double())]
    assert unsupported_reason_flat(parameters, th.optim.Adam(parameters)) == "its parameters differ in precision or device"
    assert unsupported_reason_flat(parameters[:1], th.optim.Adam(parameters[:1])) is None


# the forward pass in numpy


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"net_arch": [16, 16]},
        {"net_arch": [16], "activation_fn": "tanh", "dtype": "float64"},
        {"net_arch": []},
        {"net_arch": [16], "returns": "quantile", "returns_kwargs": {"n_quantiles": 7}},
    ],
    ids=str,
)
def test_numpy_returns_the_q_values_of_the_network_during_training(policy_kwargs: dict[str, Any]) -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=policy_kwargs, learning_starts=10, seed=0, device="cpu")
    learn(model, 20)  # the parameters are in the flat tensor from here on
    values = make_numpy_q_values(model.q_net, n_envs=5)
    assert values is not None
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for _ in range(2):
        with th.no_grad():
            expected = model.q_net(th.as_tensor(observations)).numpy()
        np.testing.assert_allclose(values(observations), expected, rtol=1e-5, atol=1e-6)
        before = observations.copy()
        learn(model, 40, reset_num_timesteps=False)
        np.testing.assert_array_equal(observations, before)
        assert not np.allclose(values(observations), expected, rtol=1e-5, atol=1e-6), "nothing was learned"


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"head": "dueling", "head_arch": [8]},
        {"noisy": True},
        {"activation_fn": "elu"},
        {"batch_norm": True},
        {"returns": "categorical", "returns_kwargs": {"v_min": 0, "v_max": 1}},
    ],
    ids=str,
)
def test_networks_with_other_than_linear_layers_are_left_to_torch(policy_kwargs: dict[str, Any]) -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=policy_kwargs, device="cpu")
    assert make_numpy_q_values(model.q_net, n_envs=1) is None


def test_a_layer_so_large_that_numpy_would_start_threads_is_left_to_torch() -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs={"net_arch": [64, 256]}, device="cpu")
    largest = 64 * 256
    assert make_numpy_q_values(model.q_net, n_envs=2**18 // largest) is not None
    assert make_numpy_q_values(model.q_net, n_envs=2**18 // largest + 1) is None


def test_an_optimizer_that_a_user_assigns_takes_effect() -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), learning_starts=10, seed=0, device="cpu")
    learn(model, 30)
    before = [parameter.detach().clone() for parameter in model.q_net.parameters()]
    model.policy.optimizer = th.optim.SGD(model.q_net.parameters(), lr=0.5)
    model.learning_rate, model.lr_schedule = 0.5, lambda _: 0.5
    model.train(1, 8)
    steps = [
        (parameter.detach() - old, parameter.grad) for parameter, old in zip(model.q_net.parameters(), before, strict=True)
    ]
    for step, gradient in steps:
        assert gradient is not None
        th.testing.assert_close(step, -0.5 * gradient, rtol=1e-4, atol=1e-6)
