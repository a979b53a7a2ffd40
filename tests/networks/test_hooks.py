"""What a user attaches to networks and optimizers, and changes in them later, counts as often as with SB3's DQN."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.optimizer import register_optimizer_step_post_hook

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.networks.q_network import QNetwork
from tests.parity import assert_same, learn, short_cartpole

SMALL: dict[str, Any] = {
    "learning_rate": 1e-2,
    "buffer_size": 300,
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 2,
    "target_update_interval": 6,
    "seed": 0,
    "device": "cpu",
}
Make = Callable[..., DQN]


def make(algorithm: Make, policy: Any = "MlpPolicy", policy_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    return algorithm(policy, short_cartpole(8), policy_kwargs={"net_arch": [8]} | (policy_kwargs or {}), **(SMALL | kwargs))


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


def another_to_torch(model: Any, counter: Counter[str]) -> None:
    inner = model.replay_buffer.to_torch

    def to_torch(array: Any, copy: bool = True) -> Any:
        counter["called"] = 1  # SB3 makes one tensor more: dones
        return inner(array, copy)

    model.replay_buffer.to_torch = to_torch


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
        assert model._n_updates > 20
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
    assert counter["target"] == hooked._n_updates * (2 if returns == "implicit_quantile" else 1)
    assert counter["online"] == n_greedy_steps + hooked._n_updates
    assert_same(hooked.get_parameters(), plain.get_parameters(), "parameters")


def test_a_hook_that_is_removed_leaves_the_faster_ways_free_again() -> None:
    model = make(DQNExt, compile=True)
    handle = model.q_net.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="training is eager: a hook is registered on its modules"):
        model._follow_changes()
    assert model.updater.compiled is None
    handle.remove()
    model._follow_changes()
    assert model.updater.compiled is not None


def test_a_profiler_sees_the_steps_of_the_optimizer() -> None:
    model = make(DQNExt)
    learn(model, 40)
    with th.profiler.profile() as profile:
        model.train(3, 8)
    assert sum(event.name == "Optimizer.step#Adam.step" for event in profile.events()) == 3


# what is changed later


def freeze(model: Any) -> None:
    model.q_net.q_net[0].requires_grad_(False)


def replace_a_layer(model: Any) -> None:
    th.manual_seed(1)
    for net in (model.q_net, model.q_net_target):
        net.q_net[0] = nn.Linear(4, 8)
    model.policy.optimizer = th.optim.Adam(model.q_net.parameters(), lr=1e-2)


def replace_a_layer_and_forget_the_optimizer(model: Any) -> None:
    th.manual_seed(1)
    for net in (model.q_net, model.q_net_target):
        net.q_net[0] = nn.Linear(4, 8)


def add_dropout(model: Any) -> None:
    model.q_net.q_net.insert(1, nn.Dropout(0.5))
    model.q_net_target.q_net.insert(1, nn.Identity())


def add_a_group(model: Any) -> None:
    model.policy.extra = nn.Parameter(th.ones(3))
    model.policy.optimizer.add_param_group({"params": [model.policy.extra]})


def prune_a_layer(model: Any) -> None:
    for net in (model.q_net, model.q_net_target):
        prune.l1_unstructured(net.q_net[0], "weight", 0.5)  # type: ignore[no-untyped-call]


def normalise_weights(model: Any) -> None:
    for net in (model.q_net, model.q_net_target):
        parametrizations.weight_norm(net.q_net[0])
    model.policy.optimizer = th.optim.Adam(model.q_net.parameters(), lr=1e-2)


def another_optimizer(model: Any) -> None:
    model.policy.optimizer = th.optim.SGD(model.q_net.parameters(), lr=1e-2)


def another_network(model: Any) -> None:
    th.manual_seed(2)
    for parameter in (new := model.policy.make_q_net()).parameters():
        nn.init.uniform_(parameter, -0.1, 0.1)  # ours draws other numbers when it is made
    model.policy.q_net = new
    model.policy.optimizer = th.optim.Adam(new.parameters(), lr=1e-2)
    model._create_aliases()


CHANGES: list[Callable[[Any], None]] = [
    *(freeze, replace_a_layer, replace_a_layer_and_forget_the_optimizer, add_dropout, add_a_group, prune_a_layer),
    *(normalise_weights, another_optimizer, another_network),
]


class Change(BaseCallback):
    """Change a model in the middle of a run."""

    def __init__(self, change: Callable[[Any], None], at: int = 30) -> None:
        super().__init__()
        self.change = change
        self.at = at

    def _on_step(self) -> bool:
        if self.n_calls == self.at:
            self.change(self.model)
        return True


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_that_is_changed_in_the_middle_of_a_run_learns_as_with_sb3(change: Callable[[Any], None]) -> None:
    models = []
    for algorithm in (DQN, DQNExt):
        models.append(make(algorithm))
        learn(models[-1], 70, callback=Change(change))
    theirs, ours = models
    assert_same(list(ours.q_net.parameters()), list(theirs.q_net.parameters()), "online")
    assert_same(list(ours.q_net_target.parameters()), list(theirs.q_net_target.parameters()), "target")
    assert_same(ours.replay_buffer.actions, theirs.replay_buffer.actions, "actions")


def later_gamma(model: Any) -> None:
    model.gamma = 0.5


def later_norm(model: Any) -> None:
    model.max_grad_norm = 0.01


def later_batch_size(model: Any) -> None:
    model.batch_size = 4


def later_target_updates(model: Any) -> None:
    model.target_update_interval, model.tau = 3, 0.2


def later_training(model: Any) -> None:
    model.train_freq, model.gradient_steps = type(model.train_freq)(3, model.train_freq.unit), 2


def later_rate(model: Any) -> None:
    model.lr_schedule = lambda progress: 1e-3 * progress


def later_exploration(model: Any) -> None:
    model.exploration_schedule = lambda progress: 0.5


def later_start(model: Any) -> None:
    model.learning_starts = 50


def no_time_limits(model: Any) -> None:
    model.replay_buffer.handle_timeout_termination = False


ATTRIBUTES: list[Callable[[Any], None]] = [
    *(later_gamma, later_norm, later_batch_size, later_target_updates, later_training, later_rate, later_exploration),
    *(later_start, no_time_limits),
]


@pytest.mark.parametrize("change", ATTRIBUTES)
def test_an_attribute_that_sb3_follows_is_followed(change: Callable[[Any], None]) -> None:
    models = []
    for algorithm in (DQN, DQNExt):
        models.append(make(algorithm))
        learn(models[-1], 70, callback=Change(change, at=5))
    theirs, ours = models
    assert_same(ours.get_parameters(), theirs.get_parameters(), "parameters")
    assert_same(ours.replay_buffer.actions, theirs.replay_buffer.actions, "actions")
    unchanged = make(DQN)
    learn(unchanged, 70)
    assert any(not th.equal(a, b) for a, b in zip(theirs.q_net.parameters(), unchanged.q_net.parameters(), strict=True))


def test_images_are_no_longer_divided_when_that_is_switched_off() -> None:
    from stable_baselines3.common.envs import FakeImageEnv

    observations = th.full((2, 3, 40, 40), 255, dtype=th.uint8)
    flatten: Any = nn.Flatten()
    env = FakeImageEnv(40, 40, n_channels=3, channel_first=True)
    model = DQNExt("CnnPolicy", env, buffer_size=20, batch_size=8, device="cpu")
    assert float(model.q_net.extract_features(observations, flatten).max()) == 1
    model.q_net.normalize_images = False
    assert float(model.q_net.extract_features(observations, flatten).max()) == 255


def test_choices_that_are_changed_between_two_runs_are_followed() -> None:
    changed = make(DQNExt, exploration="none")
    made = make(DQNExt, target_policy="double", exploration_kwargs={"schedule": 0.3})
    learn(changed, 10)
    learn(made, 10)
    changed.target_policy, changed.exploration, changed.exploration_kwargs = "double", "epsilon_greedy", {"schedule": 0.3}
    for model in (changed, made):
        model.set_random_seed(1)
        learn(model, 60)
    assert_same(changed.get_parameters(), made.get_parameters(), "parameters")
    changed.exploration_kwargs = {}
    learn(changed, 20)
    assert changed.exploration_rate == changed.exploration_final_eps > 0


def test_the_number_of_steps_of_returns_and_gamma_are_followed_and_refused_where_they_do_not_fit() -> None:
    model = make(DQNExt, gamma=0.9)
    learn(model, 40)
    model.n_steps = 3
    model.train(1, 8)
    discounts = model._sample_batch(200).discounts.double().numpy()
    assert set(np.round(discounts, 6)) - {0.0} == {0.9, round(0.9**2, 6), round(0.9**3, 6)}  # shorter at ends
    model = make(DQNExt, gamma=0.9, replay_buffer_kwargs={"monte_carlo": 1.0})
    learn(model, 40)
    model.gamma = 0.8
    with pytest.raises(ValueError, match=r"gamma=0\.8 does not fit .* Monte-Carlo returns are discounted by 0\.9"):
        model.train(1, 8)


# methods of a user's own


class MasksAction0(QNetwork):
    def forward(self, obs: Any) -> th.Tensor:
        values = super().forward(obs).clone()
        values[:, 0] = -1e6
        return values


class MaskedPolicy(MlpPolicy):
    def make_q_net(self) -> QNetwork:
        args = self._update_features_extractor(self.net_args, features_extractor=None)
        return MasksAction0(**args)


@pytest.mark.parametrize("target_policy", ["greedy", "double", "munchausen"])
@pytest.mark.parametrize("returns", ["expected", "quantile"])
def test_a_forward_that_masks_an_action_counts_in_every_target(returns: str, target_policy: str) -> None:
    returns_kwargs = {"n_quantiles": 3} if returns == "quantile" else {}
    kwargs: dict[str, Any] = {
        "policy_kwargs": {"returns": returns, "returns_kwargs": returns_kwargs},
        "target_policy": target_policy,
    }
    model = make(DQNExt, MaskedPolicy, gamma=0.9, **kwargs)
    learn(model, 19)
    with th.no_grad():
        for net in (model.q_net, model.q_net_target):
            net.q_net[-1].bias.view(-1, 2)[:, 0] = 50.0  # of action 0, which would look best; (quantiles, actions)
    batch = model._sample_batch(64)
    with th.no_grad():
        target = model.updater.loss.target(batch).values  # (B, K)
        features = model.q_net_target.q_net(batch.next_observations.float())  # (B, A, K)
    rewards = batch.rewards
    if target_policy == "munchausen":  # the policy takes action 1 for certain: its logarithm is 0, that of action 0 clipped
        rewards = rewards + 0.9 * th.where(batch.actions == 0, -1.0, 0.0)
    right = rewards.unsqueeze(1) + batch.discounts.unsqueeze(1) * features[:, 1]
    np.testing.assert_allclose(target, right, rtol=1e-5, atol=1e-5)


class TakesAction1(MlpPolicy):
    def _predict(self, observation: Any, deterministic: bool = True) -> th.Tensor:
        return th.ones(len(observation), 1, dtype=th.long)


class MirrorsObservations(MlpPolicy):
    def obs_to_tensor(self, observation: Any) -> Any:
        tensor: Any
        tensor, is_batch = super().obs_to_tensor(observation)
        return -tensor, is_batch


@pytest.mark.parametrize("where", ["policy", "network"])
def test_a_method_that_is_assigned_later_chooses_the_actions_of_compiled_training_too(where: str) -> None:
    model = make(DQNExt, exploration="none", learning_starts=0, train_freq=4, compile={"unroll": 1})
    learn(model, 24)
    assert model.updater.numpy_q_values is not None

    def one(observation: Any, deterministic: bool = True) -> th.Tensor:
        return th.ones(len(observation), dtype=th.long)

    (model.policy if where == "policy" else model.q_net)._predict = one
    learn(model, 40, reset_num_timesteps=False)
    assert model.updater.compiled is not None
    assert set(model.replay_buffer.actions[24:64].flat) == {1}


def test_methods_of_a_policy_of_ones_own_choose_the_actions() -> None:
    model = make(DQNExt, TakesAction1, exploration="none", learning_starts=0)
    learn(model, 30)
    assert set(model.replay_buffer.actions[:30].flat) == {1}
    plain, mirrored = make(DQNExt), make(DQNExt, MirrorsObservations)
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    expected = plain.predict(-observations, deterministic=True)[0]
    np.testing.assert_array_equal(mirrored.predict(observations, deterministic=True)[0], expected)
    assert (expected != plain.predict(observations, deterministic=True)[0]).any()


def test_a_replay_buffer_whose_to_torch_is_assigned_makes_its_tensors_by_it() -> None:
    model, counter = make(DQNExt), Counter[str]()
    learn(model, 30)
    another_to_torch(model, counter)
    model.train(1, 8)
    assert counter["called"]
