"""What a user attaches to networks and optimizers is called as often as with SB3's DQN."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch as th
from stable_baselines3 import DQN
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from sb3_dqn_ext import DQNExt
from tests.internals import apply_changes, n_updates_of
from tests.networks.small_models import SMALL, Make, make
from tests.parity import assert_same, learn

# what is attached

Attach = Callable[[Any, Counter[str]], Any]


def count(counter: Counter[str], key: str) -> Callable[..., None]:
    def called(*_: Any) -> None:
        counter[key] += 1

    return called


def gradient_hooks(model: Any, counter: Counter[str]) -> None:
    for name, parameter in model.q_net.named_parameters():
        parameter.register_hook(count(counter, name))


def accumulation_hooks(model: Any, counter: Counter[str]) -> None:
    for name, parameter in model.q_net.named_parameters():
        parameter.register_post_accumulate_grad_hook(count(counter, name))


def forward_hooks(model: Any, counter: Counter[str]) -> None:
    for name, net in {"online": model.q_net, "target": model.q_net_target}.items():
        net.register_forward_hook(count(counter, name))
        net.register_forward_pre_hook(count(counter, f"{name}, before"))


def inner_forward_hooks(model: Any, counter: Counter[str]) -> None:
    for name, net in {"online": model.q_net, "target": model.q_net_target}.items():
        net.q_net.register_forward_hook(count(counter, f"{name} layers"))
        net.q_net[0].register_forward_hook(count(counter, f"{name} layer 0"))
        net.features_extractor.register_forward_hook(count(counter, f"{name} extractor"))


def hooks_inside_the_extractor(model: Any, counter: Counter[str]) -> None:
    for name, net in {"online": model.q_net, "target": model.q_net_target}.items():
        net.features_extractor.flatten.register_forward_hook(count(counter, name))


def backward_hooks(model: Any, counter: Counter[str]) -> None:
    model.q_net.register_full_backward_hook(count(counter, "network"))
    model.q_net.q_net[0].register_full_backward_hook(count(counter, "layer"))


def hooks_of_all_modules(model: Any, counter: Counter[str]) -> Any:
    def called(module: nn.Module, *_: Any) -> None:
        if isinstance(module, nn.Linear):
            counter["linear"] += 1

    return nn.modules.module.register_module_forward_hook(called)


def another_forward(model: Any, counter: Counter[str]) -> None:
    inner = model.q_net.forward

    def forward(obs: Any) -> Any:
        counter["forward"] += 1
        return inner(obs) * 0.5

    model.q_net.forward = forward


def another_extract_features(model: Any, counter: Counter[str]) -> None:
    for name, net in {"online": model.q_net, "target": model.q_net_target}.items():

        def extract(obs: Any, extractor: Any, name: str = name, inner: Any = net.extract_features) -> Any:
            counter[name] += 1
            return inner(obs, extractor) * 0.5

        net.extract_features = extract


def optimizer_hooks(model: Any, counter: Counter[str]) -> None:
    model.policy.optimizer.register_step_pre_hook(count(counter, "before"))
    model.policy.optimizer.register_step_post_hook(count(counter, "after"))


def hooks_of_all_optimizers(model: Any, counter: Counter[str]) -> Any:
    return register_optimizer_step_post_hook(count(counter, "step"))


def another_step(model: Any, counter: Counter[str]) -> None:
    optimizer = model.policy.optimizer
    step, zero_grad = optimizer.step, optimizer.zero_grad
    optimizer.step = lambda *args: (count(counter, "step")(), step(*args))[1]
    optimizer.zero_grad = lambda *args: (count(counter, "zero_grad")(), zero_grad(*args))[1]


def another_class_step(model: Any, counter: Counter[str]) -> Any:
    step = th.optim.Adam.step

    def counted(self: Any, *args: Any) -> Any:
        counter["step"] += 1
        return step(self, *args)

    patch = pytest.MonkeyPatch()
    patch.setattr(th.optim.Adam, "step", counted)
    return patch


def scheduler(model: Any, counter: Counter[str]) -> None:
    # it notes in the optimizer that there was a step, and warns otherwise
    schedule = th.optim.lr_scheduler.ExponentialLR(model.policy.optimizer, 0.5)
    model.policy.optimizer.register_step_post_hook(lambda *_: schedule.step())


ATTACHED: list[Attach] = [
    *(gradient_hooks, accumulation_hooks, forward_hooks, inner_forward_hooks, hooks_inside_the_extractor, backward_hooks),
    *(hooks_of_all_modules, another_forward, optimizer_hooks, hooks_of_all_optimizers, another_step, another_class_step),
    *(another_extract_features, scheduler),
]


@contextmanager
def attached(attach: Attach, model: Any) -> Iterator[Counter[str]]:
    counter: Counter[str] = Counter()
    handle = attach(model, counter)
    with ExitStack() as stack:
        if handle is not None:
            stack.callback(handle.undo if isinstance(handle, pytest.MonkeyPatch) else handle.remove)
        yield counter


@pytest.mark.parametrize("attach", ATTACHED)
def test_what_is_attached_is_called_as_often_as_with_sb3_compiled_or_not(attach: Attach) -> None:
    results = []
    runs: list[tuple[Make, dict[str, Any]]] = [(DQN, {}), (DQNExt, {}), (DQNExt, {"compile": True})]
    for algorithm, compile in runs:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = make(algorithm, **compile)
            with attached(attach, model) as counter:
                learn(model, 60)
                learn(model, 20, reset_num_timesteps=False)
        assert n_updates_of(model) > 20
        results.append((model.get_parameters(), dict(counter)))
        told = [str(warning.message) for warning in caught if "training is eager" in str(warning.message)]
        assert len(told) == bool(compile), "one warning that names the reason, where something is left"
    assert results[0][1] or attach is scheduler
    for found in results[1:]:
        assert found[1] == results[0][1]
        assert_same(found[0], results[0][0], "parameters")


@pytest.mark.parametrize(
    ("returns", "returns_kwargs"),
    [("categorical", {"n_atoms": 5, "v_min": 0, "v_max": 9}), ("quantile", {"n_quantiles": 3}), ("implicit_quantile", {})],
)
def test_hooks_of_networks_of_distributions_are_called_once_for_each_use(returns: str, returns_kwargs: dict[str, Any]) -> None:
    policy_kwargs = {"returns": returns, "returns_kwargs": returns_kwargs}
    kwargs: dict[str, Any] = {"policy_kwargs": policy_kwargs, "exploration": "none"}
    counter: Counter[str] = Counter()
    plain = make(DQNExt, **kwargs)
    learn(plain, 60)
    hooked = make(DQNExt, **kwargs)
    forward_hooks(hooked, counter)
    learn(hooked, 60)
    n_greedy_steps = 60 - SMALL["learning_starts"]
    # the Q-values of drawn quantiles are computed apart from the distribution of the target
    assert counter["target"] == n_updates_of(hooked) * (2 if returns == "implicit_quantile" else 1)
    assert counter["online"] == n_greedy_steps + n_updates_of(hooked)
    assert_same(hooked.get_parameters(), plain.get_parameters(), "parameters")


def test_a_hook_that_is_removed_leaves_the_faster_ways_free_again() -> None:
    model = make(DQNExt, compile=True)
    handle = model.q_net.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="training is eager: a hook is registered on its modules"):
        apply_changes(model)
    assert model.updater.compiled is None
    handle.remove()
    apply_changes(model)
    assert model.updater.compiled is not None


def test_a_profiler_sees_the_steps_of_the_optimizer() -> None:
    model = make(DQNExt)
    learn(model, 40)
    with th.profiler.profile() as profile:
        model.train(3, 8)
    assert sum(event.name == "Optimizer.step#Adam.step" for event in profile.events()) == 3
