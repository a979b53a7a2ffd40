"""Recycled units: found, recycled, and without an effect on the outputs if they were dead."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ReDoCallback
from sb3_dqn_ext.callbacks.plasticity.hidden_layers import HiddenLayer, find_hidden_layers
from sb3_dqn_ext.callbacks.plasticity.redo import layer_scores
from sb3_dqn_ext.errors import ArgumentError
from tests.callbacks.diagnostics.helpers import At, build, networks_of
from tests.callbacks.plasticity.helpers import around, same, small_images, spectral_norms, state_of
from tests.parity import dict_cartpole, learn


class PooledImages(BaseFeaturesExtractor):
    """Two convolutions with a pooling in between, and no dense layer: the head reads 4 features of each channel."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__(observation_space, features_dim=6 * 4)
        self.cnn = nn.Sequential(
            *(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(1, 2), nn.Flatten()),
        )

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.cnn(observations)
        return features


def image_model(algorithm: Any = DQNExt, **policy_kwargs: Any) -> Any:
    return build(algorithm, small_images(), policy="CnnPolicy", policy_kwargs={"net_arch": [7]} | policy_kwargs)


def vector_model(**policy_kwargs: Any) -> Any:
    return build(DQNExt, policy_kwargs={"net_arch": [6, 5]} | policy_kwargs)


MODELS: dict[str, Any] = {
    "DQN": lambda: build(DQN),
    "QRDQN": lambda: build(QRDQN),
    "dueling": lambda: vector_model(head="dueling", head_arch=[4]),
    "dueling with noise": lambda: vector_model(head="dueling", head_arch=[4], noisy=True),
    "heads": lambda: vector_model(head="multi_head", head_arch=[4], optimizer_per_head=True),
    "the action as an input": lambda: vector_model(head="action_input", head_arch=[4]),
    "implicit quantiles": lambda: vector_model(returns="implicit_quantile", head_arch=[4]),
    "categorical": lambda: vector_model(returns="categorical", returns_kwargs={"v_min": 0, "v_max": 9}),
    "images": lambda: image_model(features_extractor_class=PooledImages),
    "images, DQN": lambda: image_model(DQN, features_extractor_class=PooledImages),
    "minatar": lambda: image_model(encoder="minatar", encoder_kwargs={"features_dim": 9}),
    "a dictionary": lambda: build(DQNExt, DummyVecEnv([dict_cartpole]), policy="MultiInputPolicy"),
}
LAYERS: dict[str, dict[str, set[str]]] = {
    "DQN": {"q_net.0": {"q_net.2"}, "q_net.2": {"q_net.4"}},
    "QRDQN": {"quantile_net.0": {"quantile_net.2"}, "quantile_net.2": {"quantile_net.4"}},
    "dueling": {
        "q_net.trunk.0": {"q_net.trunk.2"},
        "q_net.trunk.2": {"q_net.value.0", "q_net.advantage.0"},
        "q_net.value.0": {"q_net.value.2"},
        "q_net.advantage.0": {"q_net.advantage.2"},
    },
    "heads": {
        "q_net.trunk.0": {"q_net.trunk.2"},
        "q_net.trunk.2": {"q_net.heads.0.0", "q_net.heads.1.0"},
        "q_net.heads.0.0": {"q_net.heads.0.2"},
        "q_net.heads.1.0": {"q_net.heads.1.2"},
    },
    "the action as an input": {
        "q_net.trunk.0": {"q_net.trunk.2"},
        "q_net.trunk.2": {"q_net.joint.0"},
        "q_net.joint.0": {"q_net.joint.2"},
    },
    "implicit quantiles": {"q_net.0": {"q_net.2"}, "q_net.2": {"q_net.4"}, "q_net.4": {"q_net.6"}},
    "images": {
        "features_extractor.cnn.0": {"features_extractor.cnn.3"},
        "features_extractor.cnn.3": {"q_net.0"},
        "q_net.0": {"q_net.2"},
    },
    "minatar": {
        "features_extractor.cnn.0": {"features_extractor.linear.0"},
        "features_extractor.linear.0": {"q_net.0"},
        "q_net.0": {"q_net.2"},
    },
    "a dictionary": {"q_net.0": {"q_net.2"}, "q_net.2": {"q_net.4"}},
}
"""For each model, its hidden layers and the layers that read them."""
LAYERS |= {"dueling with noise": LAYERS["dueling"], "categorical": LAYERS["DQN"], "images, DQN": LAYERS["images"]}


def hidden_layers(model: Any) -> tuple[list[HiddenLayer], list[str]]:
    observation, _ = model.policy.obs_to_tensor(model.observation_space.sample())
    model.policy.set_training_mode(False)
    with th.no_grad():
        return find_hidden_layers(networks_of(model)[0], observation)


@pytest.mark.parametrize("name", MODELS)
def test_the_hidden_layers_and_their_readers_are_found(name: str) -> None:
    layers, unknown = hidden_layers(MODELS[name]())
    assert {layer.name: set(layer.readers) for layer in layers} == LAYERS[name]
    assert unknown == []


def test_the_inputs_of_each_unit_are_found() -> None:
    layers = {layer.name: layer for layer in hidden_layers(MODELS["images"]())[0]}
    channels = layers["features_extractor.cnn.3"].readers["q_net.0"]
    assert [row.nonzero().ravel().tolist() for row in channels] == [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(6)]
    assert layers["features_extractor.cnn.3"].norms == ["features_extractor.cnn.4"]
    layers = {layer.name: layer for layer in hidden_layers(MODELS["the action as an input"]())[0]}
    assert th.equal(layers["q_net.trunk.2"].readers["q_net.joint.0"], th.eye(5, 7, dtype=th.bool)), "2 inputs are actions"


def plant_dead_units(model: Any, n: int = 2) -> None:
    """Let the first units of all hidden layers return 0 at all observations."""
    net = networks_of(model)[0]
    with th.no_grad():
        for layer in hidden_layers(model)[0]:
            for key, parameter in net.get_submodule(layer.name).named_parameters():
                parameter[:n] = -1.0 if key == "bias" else 0.0
            for name in layer.norms:
                norm: Any = net.get_submodule(name)
                norm.weight[:n], norm.bias[:n], norm.running_mean[:n] = 0.0, 0.0, 7.0


@pytest.mark.parametrize("name", MODELS)
def test_dead_units_are_recycled_without_an_effect_on_the_outputs(name: str) -> None:
    model = MODELS[name]()
    model.learning_starts = 10**6
    model.learn(24)
    plant_dead_units(model)
    online, target = networks_of(model)
    batch = model.replay_buffer.sample(20).observations
    q, old, old_target = online(batch), state_of(online), state_of(target)
    callback = ReDoCallback(2, unit="env_steps", tau=0, until=27)
    model.learn(4, callback=callback, reset_num_timesteps=False)
    layers = hidden_layers(model)[0]
    assert callback.n_recycled >= 2 * len(layers)
    th.testing.assert_close(online(batch), q, rtol=1e-5, atol=1e-6)
    assert same(old_target, state_of(target)), "the target network follows later"
    for layer in layers:
        for part in (layer.name, *layer.norms):
            for key, tensor in online.get_submodule(part).named_parameters():
                is_norm_bias = part in layer.norms and key == "bias"
                assert (tensor[:2] != old[f"{part}.{key}"][:2]).any() != is_norm_bias, (part, key)
        for reader, columns in layer.readers.items():
            for key, parameter in online.get_submodule(reader).named_parameters():
                if parameter.dim() > 1:
                    assert not parameter[:, columns[:2].any(dim=0)].any()
                    assert parameter[:, columns[2:].any(dim=0)].any(), key


def test_the_averages_of_recycled_weights_alone_become_0() -> None:
    model = build(DQNExt)
    state = model.policy.optimizer.state

    def observe(model: Any) -> dict[str, Any]:
        return {
            name: {key: value.clone() for key, value in state[parameter].items()} if parameter in state else {}
            for name, parameter in model.q_net.named_parameters()
        }

    callbacks, before, after = around(ReDoCallback(20, tau=0, until=39), observe)
    learn(model, 100, callback=[At(59, plant_dead_units), *callbacks])
    (i,) = (i for i, (old, now) in enumerate(zip(before, after, strict=True)) if str(old) != str(now))
    for name, old in before[i].items():
        zero = th.zeros_like(old["exp_avg"], dtype=th.bool)
        if not name.startswith("q_net.4"):
            zero[:2] = True  # the incoming weights of the first two units
        if name in ("q_net.2.weight", "q_net.4.weight"):
            zero[:, :2] = True  # the outgoing weights of those of the layer before
        for key in ("exp_avg", "exp_avg_sq"):
            now = after[i][name][key]
            assert not now[zero].any(), name
            assert ((now == old[key]) | (now == 0)).all(), "units that died by themselves are recycled, too"
            assert now.any(), name
        assert th.equal(after[i][name]["step"], old["step"])
        assert old["exp_avg_sq"][:2].any()


def test_scores_are_those_computed_by_hand() -> None:
    """Outputs |h| with means 1, 0.5 and 0 over two states, so that scores are 1, 0.5 and 0 over the mean of 0.5."""
    model = build(DQN, policy_kwargs={"net_arch": [3], "activation_fn": nn.LeakyReLU})
    net = networks_of(model)[0]
    with th.no_grad():
        net.q_net[0].weight.zero_()
        net.q_net[0].weight[0, 0] = 1.0
        net.q_net[0].bias.copy_(th.tensor([0.0, 0.5, 0.0]))
    layers, _ = hidden_layers(model)
    with th.no_grad():
        (scores,) = layer_scores(net, layers, th.tensor([[0.5, 0, 0, 0], [1.5, 0, 0, 0]]))
    np.testing.assert_allclose(scores, [2.0, 1.0, 0.0])


def test_the_scores_of_channels_are_means_over_the_image() -> None:
    model = MODELS["images"]()
    model.policy.set_training_mode(False)
    net = networks_of(model)[0]
    layers = [layer for layer in hidden_layers(model)[0] if layer.is_convolution]
    images = th.randint(0, 255, (3, 2, 12, 12), dtype=th.uint8)
    with th.no_grad():
        found = layer_scores(net, layers, images)
        outputs = net.features_extractor.cnn[:2](images / 255)  # (3, 5, 10, 10)
    by_hand = np.array([sum(abs(float(x)) for x in outputs[:, channel].ravel()) / 300 for channel in range(5)])
    np.testing.assert_allclose(found[0], by_hand / by_hand.mean(), rtol=1e-5)


def test_only_units_up_to_tau_are_recycled() -> None:
    """In the limit all units are recycled, and all states have the same outputs until the incoming weights have grown."""
    model = build(DQNExt)
    callback = ReDoCallback(20, tau=1e9, until=39)
    states = th.randn(4, 4, generator=th.Generator().manual_seed(0))
    callbacks, _, after = around(callback, lambda model: model.q_net(states).detach())
    learn(model, 70, callback=callbacks)
    assert callback.n_recycled == 16 + 8
    n_equal = sum(th.allclose(q, q[:1].expand_as(q), atol=1e-7) for q in after)
    assert 1 <= n_equal <= 3


def test_what_cannot_be_separated_is_left_out_with_a_warning() -> None:
    model = build(DQNExt, small_images(), policy="CnnPolicy", policy_kwargs={"encoder": "impala", "net_arch": []})
    with pytest.warns(
        UserWarning, match=r"ReDoCallback leaves out features_extractor.cnn.0, .*cnn.2.residual.3.*cannot be sep"
    ):
        model.learn(1, callback=ReDoCallback())
    layers, unknown = hidden_layers(model)
    blocks = [f"features_extractor.cnn.{i}.residual" for i in (2, 3, 6, 7, 10, 11)]
    assert {layer.name for layer in layers} == {*(f"{block}.1" for block in blocks), "features_extractor.linear.0"}
    assert set(unknown) == {
        *(f"features_extractor.cnn.{i}.residual.3" for i in (2, 6, 10, 11)),  # 3 and 7 enter the next convolution at once
        *(f"features_extractor.cnn.{i}" for i in (0, 4, 8)),
    }


def test_normalised_layers_are_recycled_with_their_norm() -> None:
    model = vector_model(norm="layer")
    layers, unknown = hidden_layers(model)
    assert [(layer.name, layer.norms) for layer in layers] == [("q_net.0", ["q_net.1"]), ("q_net.3", ["q_net.4"])]
    assert unknown == []
    with th.no_grad():
        model.q_net.q_net[1].weight[:2], model.q_net.q_net[1].bias[:2] = 0.0, -1.0
    callback = ReDoCallback(20, unit="env_steps", tau=0, until=39)
    model.learning_starts = 10**6
    model.learn(30, callback=callback)
    assert callback.n_recycled >= 2
    assert model.q_net.q_net[1].weight[:2].eq(1).all()
    assert model.q_net.q_net[1].bias[:2].eq(0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"every": 0}, "every=0"), ({"tau": -1}, "tau=-1"), ({"batch_size": 0}, "batch_size=0"), ({"unit": "x"}, "unit='x'")],
    ids=str,
)
def test_an_invalid_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ReDoCallback(**arguments)


def test_a_network_without_hidden_layers_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"the network has none: give it hidden layers \(net_arch\)"):
        build(DQN, policy_kwargs={"net_arch": []}).learn(10, callback=ReDoCallback())


def test_spectral_norms_are_those_of_the_recycled_weights() -> None:
    model = vector_model(norm="spectral", net_arch=[32, 32])
    callbacks, before, after = around(ReDoCallback(20, tau=0.9, until=39), lambda model: spectral_norms(model.q_net))
    learn(model, 84, callback=callbacks)
    norms = next(now for old, now in zip(before, after, strict=True) if now != old)
    assert all(0.9 < norm < 1.1 for norm in norms), norms


def test_a_dead_layer_before_a_spectral_norm_leaves_weights_that_have_a_norm() -> None:
    model = vector_model(norm="spectral")
    with th.no_grad():
        model.q_net.q_net[0].layer.bias.fill_(-50.0)
    callback = ReDoCallback(20, unit="env_steps", tau=0, until=39)
    model.learning_starts = 10**6
    model.learn(30, callback=callback)
    assert callback.n_recycled >= 6
    np.testing.assert_allclose(spectral_norms(model.q_net), 1, atol=0.1)
