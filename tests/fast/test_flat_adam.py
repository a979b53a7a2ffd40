"""Parameters side by side, against torch's own Adam with each by itself."""

from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.fast.flat_adam import FlatAdam, adam_step, unsupported_reason_flat
from sb3_dqn_ext.fast.numpy_forward import make_numpy_q_values
from tests.parity import assert_same, learn, short_cartpole

SETTINGS: list[tuple[type[th.optim.Optimizer], dict[str, Any]]] = [
    (th.optim.Adam, {}),
    (th.optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.1}),
    (th.optim.AdamW, {}),
    (th.optim.AdamW, {"weight_decay": 0.3}),
]


def network(seed: int = 0) -> nn.Sequential:
    th.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 2))


def descend(net: nn.Module, step: int) -> None:
    net.zero_grad()
    generator = th.Generator().manual_seed(step)
    (net(th.randn(4, 3, generator=generator)) ** 2 * 10).sum().backward()


@pytest.mark.parametrize("max_grad_norm", [0.1, 1e9], ids=["clipped", "not clipped"])
@pytest.mark.parametrize(("kind", "kwargs"), SETTINGS, ids=str)
def test_the_numbers_are_those_of_torch_to_the_last_bit(
    kind: type[th.optim.Optimizer], kwargs: dict[str, Any], max_grad_norm: float
) -> None:
    ours, theirs = network(), network()
    make: Any = kind
    optimizers = [make(net.parameters(), lr=0.01, **kwargs) for net in (ours, theirs)]
    flat = FlatAdam(list(ours.parameters()), optimizers[0])
    for step in range(5):
        if step == 3:  # a state that is loaded in between is followed
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
def test_the_equation_that_is_compiled_is_adam(kind: type[th.optim.Optimizer], kwargs: dict[str, Any]) -> None:
    generator = th.Generator().manual_seed(0)
    theirs = nn.Parameter(th.randn(20, generator=generator, dtype=th.float64))
    make: Any = kind
    optimizer = make([theirs], lr=0.01, **kwargs)
    ours, averages = theirs.detach().clone(), (th.zeros(20).double(), th.zeros(20).double())
    flat = FlatAdam([theirs], optimizer)
    flat.bind_storage()
    numbers = flat.step_coefficients(7)
    for of_step in numbers:
        theirs.grad = th.randn(20, generator=generator, dtype=th.float64)
        adam_step(ours, theirs.grad, averages, of_step, optimizer.param_groups[0])
        optimizer.step()
    np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-9)


def test_a_parameter_without_a_gradient_is_left_to_torch() -> None:
    net = network()
    optimizer = th.optim.Adam(net.parameters())
    flat = FlatAdam(list(net.parameters()), optimizer)
    flat.bind_storage()
    descend(net, 0)
    next(net.parameters()).grad = None
    before = [parameter.clone() for parameter in net.parameters()]
    assert not flat.step(1.0)
    assert_same([parameter.detach() for parameter in net.parameters()], [one.detach() for one in before], "parameters")


@pytest.mark.parametrize("unused", ["at first", "always"])
def test_a_network_with_a_layer_that_is_not_always_used_is_as_torch_has_it(unused: str) -> None:
    ours, theirs = network(), network()
    optimizers = [th.optim.Adam(net.parameters(), lr=0.01) for net in (ours, theirs)]
    flat = FlatAdam(list(ours.parameters()), optimizers[0])
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


def test_a_setting_that_is_loaded_later_is_followed() -> None:
    ours, theirs = network(), network()
    optimizers = [th.optim.Adam(net.parameters(), lr=0.01) for net in (ours, theirs)]
    flat = FlatAdam(list(ours.parameters()), optimizers[0])
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
        (th.optim.SGD(network().parameters(), lr=1), "SGD is not Adam"),
        (th.optim.Adam(network().parameters(), amsgrad=True), "amsgrad=True"),
        (th.optim.Adam(network().parameters(), maximize=True), "maximize=True"),
        (th.optim.Adam([{"params": list(network().parameters())}, {"params": [nn.Parameter(th.ones(1))]}]), "several groups"),
    ],
    ids=["sgd", "amsgrad", "maximize", "groups"],
)
def test_what_is_not_done_as_the_optimizer_does_it_is_said(optimizer: th.optim.Optimizer, reason: str) -> None:
    parameters = optimizer.param_groups[0]["params"]
    assert reason in (unsupported_reason_flat(parameters, optimizer) or "")


def test_parameters_of_two_precisions_are_left_to_torch() -> None:
    parameters = [nn.Parameter(th.ones(1)), nn.Parameter(th.ones(1).double())]
    assert unsupported_reason_flat(parameters, th.optim.Adam(parameters)) == "its parameters differ in precision or device"
    assert unsupported_reason_flat(parameters[:1], th.optim.Adam(parameters[:1])) is None


# acting


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
def test_numpy_gives_the_values_of_the_network_while_it_learns(policy_kwargs: dict[str, Any]) -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=policy_kwargs, learning_starts=10, seed=0, device="cpu")
    learn(model, 20)  # its parameters are where they stay from now on
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
def test_what_is_more_than_linear_layers_is_left_to_torch(policy_kwargs: dict[str, Any]) -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=policy_kwargs, device="cpu")
    assert make_numpy_q_values(model.q_net, n_envs=1) is None


def test_a_layer_so_large_that_numpy_would_start_threads_is_left_to_torch() -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs={"net_arch": [64, 256]}, device="cpu")
    largest = 64 * 256
    assert make_numpy_q_values(model.q_net, n_envs=2**18 // largest) is not None
    assert make_numpy_q_values(model.q_net, n_envs=2**18 // largest + 1) is None


def test_an_optimizer_that_the_user_puts_in_its_place_is_followed() -> None:
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
