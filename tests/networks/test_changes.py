"""Changes of networks and attributes in the middle of a run take effect, as with SB3's DQN."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn
from torch.nn.utils import parametrizations, prune

from sb3_dqn_ext import DQNExt
from tests.internals import drawn_batch
from tests.networks.small_models import make
from tests.parity import assert_same, learn


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
        nn.init.uniform_(parameter, -0.1, 0.1)  # our network draws other random numbers when it is made
    model.policy.q_net = new
    model.policy.optimizer = th.optim.Adam(new.parameters(), lr=1e-2)
    model._create_aliases()


CHANGES: list[Callable[[Any], None]] = [
    *(freeze, replace_a_layer, replace_a_layer_and_forget_the_optimizer, add_dropout, add_a_group, prune_a_layer),
    *(normalise_weights, another_optimizer, another_network),
]


class Change(BaseCallback):
    """A callback that changes a model in the middle of a run."""

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
def test_a_changed_attribute_has_the_effect_that_it_has_in_sb3(change: Callable[[Any], None]) -> None:
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


def test_images_are_not_divided_after_normalize_images_is_set_to_false() -> None:
    from stable_baselines3.common.envs import FakeImageEnv

    observations = th.full((2, 3, 40, 40), 255, dtype=th.uint8)
    flatten: Any = nn.Flatten()
    env = FakeImageEnv(40, 40, n_channels=3, channel_first=True)
    model = DQNExt("CnnPolicy", env, buffer_size=20, batch_size=8, device="cpu")
    assert float(model.q_net.extract_features(observations, flatten).max()) == 1
    model.q_net.normalize_images = False
    assert float(model.q_net.extract_features(observations, flatten).max()) == 255


def test_choices_that_are_changed_between_two_runs_take_effect() -> None:
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


def test_changes_of_n_steps_and_gamma_take_effect_or_raise_an_error() -> None:
    model = make(DQNExt, gamma=0.9)
    learn(model, 40)
    model.n_steps = 3
    model.train(1, 8)
    discounts = drawn_batch(model, 200).discounts.double().numpy()
    assert set(np.round(discounts, 6)) - {0.0} == {0.9, round(0.9**2, 6), round(0.9**3, 6)}  # shorter at ends
    model = make(DQNExt, gamma=0.9, replay_buffer_kwargs={"monte_carlo": 1.0})
    learn(model, 40)
    model.gamma = 0.8
    with pytest.raises(ValueError, match=r"gamma=0\.8 does not fit .* Monte-Carlo returns are discounted by 0\.9"):
        model.train(1, 8)
