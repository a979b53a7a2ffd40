"""Encoders of images and normalisations, computed in numpy, and compared with SB3."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from numpy.lib.stride_tricks import sliding_window_view
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.envs.catch import CatchEnv
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.networks import Encoder, ImpalaEncoder, MinAtarEncoder, NatureEncoder, SmallEncoder
from sb3_dqn_ext.networks.encoders import ENCODERS, DictEncoder, has_channels_last
from sb3_dqn_ext.networks.policies import CnnPolicy
from tests.internals import n_updates_of
from tests.networks.helpers import HEADS, RETURNS, arrays, layer, network, observations, relu
from tests.networks.helpers import make as make_small
from tests.own_choices import Pooled, root_mean_square
from tests.parity import assert_same, assert_same_run, learn

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]


def box(*shape: int, high: int = 1, dtype: Any = np.bool_) -> spaces.Box:
    return spaces.Box(0, high, shape, dtype)


BOOL = box(10, 10, 4)


def grid() -> gym.Env[Any, Any]:
    """Make a game whose observations are images with values of bool: the ball, the paddle, and both."""
    space = box(10, 5, 3)

    def split(image: Array) -> Array:
        rows = np.arange(10)[:, None, None] < [[[9, 0, 10]]]
        return np.asarray((image > 0) & (rows | ([[[False, True, False]]] & (np.arange(10)[:, None, None] == 9))))

    return gym.wrappers.TransformObservation(CatchEnv(), split, space)


def make(policy: Any, env: Any, algorithm: type[DQN] = DQNExt, **kwargs: Any) -> Any:
    small = {"learning_starts": 20, "buffer_size": 200, "batch_size": 8, "learning_rate": 1e-3, "seed": 0, "device": "cpu"}
    return algorithm(policy, env, **small | {"target_update_interval": 15} | kwargs)  # type: ignore[arg-type]


# the outputs


def conv(weights: Weights, name: str, x: Array, stride: int = 1, padding: int = 0) -> Array:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.asarray(np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None])


def normalized(weights: Weights, name: str, x: Array) -> Array:
    axes = tuple(range(1, x.ndim))
    scaled = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    weight, bias = (weights[f"{name}.{part}"].reshape(-1, *[1] * (x.ndim - 2)) for part in ("weight", "bias"))
    return np.asarray(scaled * weight + bias)


def max_pool(x: Array) -> Array:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return np.asarray(sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((-1, -2)))


class Numpy:
    """
    The layers of an encoder in numpy.

    :param encoder: the encoder
    :param norm: the name of its normalisation
    """

    def __init__(self, encoder: Encoder, norm: str) -> None:
        self.weights, self.has_norm = arrays(encoder), norm == "layer"
        self.step = 2 if self.has_norm else 1

    def hidden(self, place: str, i: int, x: Array, **kwargs: int) -> tuple[Array, int]:
        """Return the outputs of the layer i and its normalisation, and the index of the layer after them."""
        name = f"{place}.{i}"
        x = conv(self.weights, name, x, **kwargs) if place != "linear" else layer(self.weights, name, x)
        return (normalized(self.weights, f"{place}.{i + 1}", x) if self.has_norm else x), i + self.step

    def plain(self, x: Array, strides: list[int]) -> Array:
        i = 0
        for stride in strides:
            x, i = self.hidden("cnn", i, x, stride=stride)
            x, i = relu(x), i + 1
        return x

    def residual(self, x: Array, i: int) -> Array:
        inner, j = self.hidden(f"cnn.{i}.residual", 1, relu(x), padding=1)
        inner, _ = self.hidden(f"cnn.{i}.residual", j + 1, relu(inner), padding=1)
        return x + inner

    def impala(self, x: Array) -> Array:
        i = 0
        for _ in range(3):
            x, i = self.hidden("cnn", i, x, padding=1)
            x = self.residual(self.residual(max_pool(x), i + 1), i + 2)
            i += 3
        return relu(x)

    def dense(self, x: Array) -> Array:
        return relu(self.hidden("linear", 0, x.reshape(len(x), -1))[0])


STRIDES = {"nature": [4, 2, 1], "minatar": [1], "small": [3, 2, 1]}
SHAPES = {"nature": (3, 36, 40), "minatar": (3, 10, 12), "small": (3, 28, 33), "impala": (3, 9, 14)}


def randomized(encoder: Encoder) -> Encoder:
    """Draw all parameters, those of the normalisation as well, and convert them to float64."""
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder.double()


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("name", ENCODERS)
def test_the_features_are_those_computed_in_numpy(name: str, norm: str) -> None:
    encoder = randomized(ENCODERS[name](box(*SHAPES[name], high=255, dtype=np.uint8), norm, 7))
    images = np.random.default_rng(0).normal(size=(4, *SHAPES[name]))
    by_hand = Numpy(encoder, norm)
    outputs = by_hand.impala(images) if name == "impala" else by_hand.plain(images, STRIDES[name])
    found = encoder(th.as_tensor(images)).detach().numpy()
    assert found.shape == (4, 7)
    assert (found > 0).any()
    np.testing.assert_allclose(found, by_hand.dense(outputs), rtol=1e-9, atol=1e-9)


def test_the_sizes_are_those_of_the_papers() -> None:
    def sizes(encoder: Encoder) -> list[tuple[int, ...]]:
        return [tuple(parameter.shape) for parameter in encoder.parameters() if parameter.ndim > 1]

    stack = box(4, 84, 84, high=255, dtype=np.uint8)
    assert sizes(NatureEncoder(stack)) == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 64 * 7 * 7)]
    assert sizes(MinAtarEncoder(BOOL)) == [(16, 4, 3, 3), (128, 16 * 8 * 8)]
    small = [(32, 4, 5, 5), (32, 32, 3, 3), (32, 32, 3, 3), (256, 32 * 4 * 4)]
    assert sizes(SmallEncoder(box(4, 42, 42, high=255, dtype=np.uint8))) == small
    impala = sizes(ImpalaEncoder(stack, width=2))
    assert [size[0] for size in impala] == [32] * 5 + [64] * 10 + [256]
    assert impala[-1] == (256, 64 * 11 * 11)


@pytest.mark.parametrize("head", HEADS)
def test_the_hidden_layers_of_trunk_and_head_are_normalised(head: str) -> None:
    returns = "implicit_quantile" if head == "shared" else "quantile"
    kwargs: dict[str, Any] = {
        "returns": returns,
        "returns_kwargs": RETURNS[returns],
        "head_arch": HEADS[head] or [5],
        "noisy": True,
    }
    net = network(make_small(norm="layer", head=head, dtype="float64", **kwargs))
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    weights, found_head = arrays(net.q_net), net.q_net
    assert isinstance(found_head.trunk, nn.Module) == (head != "shared")
    first = "0" if head == "shared" else "trunk.0"
    norm = "1" if head == "shared" else "trunk.1"
    obs = observations(3).astype(float)
    hidden = relu(normalized(weights, norm, layer(weights, first, obs)))
    found: Any = found_head.trunk(th.as_tensor(obs))  # type: ignore[operator]
    np.testing.assert_allclose(found.detach().numpy(), hidden, rtol=1e-9)

    def stream(x: Array, prefix: str, i: int = 0) -> Array:
        x = relu(normalized(weights, f"{prefix}{i + 1}", layer(weights, f"{prefix}{i}", x)))
        return layer(weights, f"{prefix}{i + 3}", x)

    if head == "shared":
        expected = stream(hidden, "", 3)[:, :, None]
    elif head == "multi_head":
        expected = np.stack([stream(hidden, "heads.0."), stream(hidden, "heads.1.")], 1)
    elif head == "dueling":
        advantages = stream(hidden, "advantage.").reshape(3, 2, 4)
        expected = stream(hidden, "value.")[:, None] + advantages - advantages.mean(1, keepdims=True)
    else:
        one_hot = [np.tile(np.eye(2)[action], (3, 1)) for action in range(2)]
        expected = np.stack([stream(np.concatenate([hidden, action], 1), "joint.") for action in one_hot], 1)
    outputs: Any = found_head.outputs(found)  # type: ignore[operator]
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=1e-9)


# layouts


@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [
        ((10, 10, 4), True),
        ((4, 10, 10), False),
        ((10, 10, 10), True),
        ((8, 8, 119), True),  # more channels than pixels
        ((119, 8, 8), False),
        ((64, 48, 3), True),
        ((3, 64, 48), False),
        ((5, 7, 5), True),
    ],
)
def test_the_axis_of_the_channels_follows_from_the_shape(shape: tuple[int, ...], channels_last: bool) -> None:
    space = box(*shape)
    assert has_channels_last(space, None) == channels_last
    assert has_channels_last(space, "first") is False
    assert has_channels_last(space, "last") is True


@pytest.mark.parametrize("channels", [None, "last"])
def test_an_image_has_the_same_features_in_both_layouts(channels: str | None) -> None:
    last = MinAtarEncoder(BOOL, channels=channels)
    first = MinAtarEncoder(box(4, 10, 10, dtype=np.float32))
    first.load_state_dict(last.state_dict())
    images = th.rand(5, 10, 10, 4).round()
    np.testing.assert_allclose(
        last(images).detach().numpy(), first(images.permute(0, 3, 1, 2)).detach().numpy(), rtol=1e-4, atol=1e-6
    )


def test_sb3_moves_the_channels_of_bytes_and_they_are_divided_by_255() -> None:
    env: Any = FakeImageEnv(action_dim=3, screen_height=30, screen_width=30, n_channels=3, discrete=True)
    model = make("CnnPolicy", env, policy_kwargs={"encoder": "small"})
    assert model.observation_space.shape == (3, 30, 30)
    extractor = model.q_net.features_extractor
    assert (type(extractor), extractor.channels_last, extractor.cnn[0].in_channels) == (SmallEncoder, False, 3)
    image = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    features = extractor(th.as_tensor(image.transpose(2, 0, 1)[None] / 255.0).float())
    obs, _ = model.policy.obs_to_tensor(image)
    found = model.q_net.extract_features(obs, extractor).detach().numpy()
    np.testing.assert_allclose(found, features.detach().numpy(), rtol=1e-4, atol=1e-6)
    small_numbers = box(30, 30, 3, dtype=np.uint8)  # no image for SB3: neither moved nor divided
    env = gym.wrappers.TransformObservation(env, lambda image: image // 128, small_numbers)
    model = make("CnnPolicy", env, policy_kwargs={"encoder": "small"})
    extractor = model.q_net.features_extractor
    assert (extractor.channels_last, extractor.cnn[0].in_channels) == (True, 3)
    obs, _ = model.policy.obs_to_tensor(image // 128)
    features = extractor(th.as_tensor(image[None] // 128).float())
    assert_same(model.q_net.extract_features(obs, extractor).detach(), features.detach(), "features")


# with SB3


def small_images() -> gym.Env[Any, Any]:
    env = FakeImageEnv(action_dim=3, screen_height=36, screen_width=36, n_channels=1, discrete=True)
    env.observation_space.seed(0)  # its images are samples of the space
    return env


def test_nature_ends_with_the_bits_of_sb3s_dqn() -> None:
    def nature(algorithm: type[DQN]) -> DQN:
        ours = {"encoder": "nature", "encoder_kwargs": {"features_dim": 16}}
        theirs = {"features_extractor_kwargs": {"features_dim": 16}}
        env, kwargs = small_images(), ours if algorithm is DQNExt else theirs
        return make("CnnPolicy", env, algorithm, policy_kwargs=kwargs)  # type: ignore[no-any-return]

    ours, theirs = assert_same_run(nature, DQNExt, steps=60)
    assert type(ours.q_net.features_extractor) is NatureEncoder
    assert type(theirs.q_net.features_extractor) is NatureCNN


@pytest.mark.parametrize("policy", ["CnnPolicy", "MlpPolicy"])
@pytest.mark.parametrize("env", [grid, CatchEnv])
def test_sb3s_dqn_trains_with_the_same_encoder_to_the_same_bits(policy: str, env: Any) -> None:
    def minatar(algorithm: type[DQN]) -> DQN:
        theirs = {"features_extractor_class": MinAtarEncoder, "features_extractor_kwargs": {"norm": "layer"}, "net_arch": []}
        ours = {"encoder": "minatar", "norm": "layer"}
        return make(policy, env(), algorithm, policy_kwargs=ours if algorithm is DQNExt else theirs)  # type: ignore[no-any-return]

    assert_same_run(minatar, DQNExt, steps=60)


def test_a_game_of_minatar_is_trained_with_ours_and_with_qr_dqn(tmp_path: Path) -> None:
    pytest.importorskip("minatar")
    from sb3_contrib import QRDQN

    game = "dqn_ext/MinAtar-Breakout-v1"
    model = make("CnnPolicy", gym.make(game), policy_kwargs={"encoder": "minatar", "returns": "quantile"})
    learn(model, 40)
    assert n_updates_of(model) > 0
    kwargs: dict[str, Any] = {"features_extractor_class": MinAtarEncoder, "net_arch": [], "n_quantiles": 50}
    quantile_dqn: Any = QRDQN
    other = make("CnnPolicy", gym.make(game), quantile_dqn, policy_kwargs=kwargs)
    learn(other, 40)
    names = [name for name, _ in other.quantile_net.named_parameters()]
    shapes = {tuple(parameter.shape) for parameter in other.quantile_net.parameters()}
    assert len(names) == 6
    assert shapes == {tuple(parameter.shape) for parameter in model.q_net.parameters()}


# in a policy


def test_without_arguments_the_extractors_are_those_of_sb3() -> None:
    assert type(make("CnnPolicy", small_images()).q_net.features_extractor) is NatureCNN
    env = dictionary()
    model = make("MultiInputPolicy", env, policy_kwargs={"net_arch": [8]})
    assert type(model.q_net.features_extractor) is CombinedExtractor
    assert not any(isinstance(one, nn.LayerNorm | nn.GroupNorm) for one in model.q_net.modules())


def test_without_a_dense_layer_the_features_are_the_outputs_of_the_convolutions() -> None:
    with_layer = MinAtarEncoder(gym.spaces.Box(0, 1, (10, 10, 4), np.float32), features_dim=8)
    without = MinAtarEncoder(gym.spaces.Box(0, 1, (10, 10, 4), np.float32), features_dim=0)
    assert without.features_dim == 16 * 8 * 8
    without.cnn.load_state_dict(with_layer.cnn.state_dict())
    images = th.rand(3, 10, 10, 4)
    th.testing.assert_close(with_layer.linear(without(images)), with_layer(images))


@pytest.mark.parametrize("kwargs", [{"norm": "layer"}, {"encoder_kwargs": {"features_dim": 16}}])
def test_the_arguments_of_an_encoder_replace_the_extractor_of_a_cnn_policy(kwargs: dict[str, Any], tmp_path: Path) -> None:
    model = make("CnnPolicy", small_images(), policy_kwargs=kwargs)
    extractor = model.q_net.features_extractor
    assert type(extractor) is NatureEncoder
    assert any(isinstance(one, nn.GroupNorm) for one in extractor.modules()) == ("norm" in kwargs)
    assert extractor.features_dim == kwargs.get("encoder_kwargs", {}).get("features_dim", 512)
    assert model.policy.net_arch == []
    model.policy.save(str(tmp_path / "policy"))
    loaded = CnnPolicy.load(str(tmp_path / "policy"))
    assert_same(loaded.state_dict(), model.policy.state_dict(), "weights")
    assert type(loaded.q_net.features_extractor) is NatureEncoder


def test_norm_leaves_a_features_extractor_of_the_user_as_it_is() -> None:
    kwargs = {"features_extractor_class": "nature_cnn", "norm": "layer", "net_arch": [4]}
    model = make("CnnPolicy", small_images(), policy_kwargs=kwargs)
    assert type(model.q_net.features_extractor) is NatureCNN
    assert [type(one) for one in model.q_net.q_net] == [nn.Linear, nn.LayerNorm, nn.ReLU, nn.Linear]


@pytest.mark.parametrize(
    ("encoder", "norm"), [("impala", "layer"), (Pooled, root_mean_square), ("tests.own_choices.Pooled", "none")]
)
def test_a_model_with_an_encoder_is_saved_and_loaded(encoder: Any, norm: Any, tmp_path: Path) -> None:
    kwargs = {"encoder": encoder, "encoder_kwargs": {"features_dim": 6}, "norm": norm, "head": "dueling", "head_arch": [4]}
    model = make("CnnPolicy", grid(), policy_kwargs=kwargs)
    before = {name: value.clone() for name, value in model.q_net.named_parameters()}
    learn(model, 40)
    assert [name for name, value in model.q_net.named_parameters() if th.equal(value, before[name])] == []
    model.save(tmp_path / "model")
    is_own = encoder != "impala"
    loaded = DQNExt.load(tmp_path / "model", env=grid(), trust=is_own)
    assert_same(loaded.get_parameters(), model.get_parameters(), "parameters")
    assert type(loaded.q_net.features_extractor) is (Pooled if is_own else ImpalaEncoder)
    assert model.policy.depends_on_training_mode == is_own  # layers of a user may be any
    obs = np.random.default_rng(0).random((5, 10, 5, 3)) < 0.5
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def dictionary() -> gym.Env[Any, Any]:
    """Make an environment with an image of bool, an image of uint8, a vector and a number."""

    def parts(image: Array) -> dict[str, Any]:
        ball = image > 0
        large = image.repeat(4, 0).repeat(8, 1)
        return {"image": ball.repeat(2, -1), "bytes": large, "column": ball.any((0, 2)).astype(np.float32), "n": 2}

    space = spaces.Dict(
        image=box(10, 5, 2),
        bytes=box(40, 40, 1, high=255, dtype=np.uint8),
        column=box(5, dtype=np.float32),
        n=spaces.Discrete(3),
    )
    return gym.wrappers.TransformObservation(CatchEnv(), parts, space)


def test_each_image_of_a_dictionary_has_its_encoder() -> None:
    kwargs = {"encoder": "minatar", "encoder_kwargs": {"features_dim": 6}, "norm": "layer", "net_arch": [4]}
    model = make("MultiInputPolicy", dictionary(), policy_kwargs=kwargs)
    extractor = model.q_net.features_extractor
    assert type(extractor) is DictEncoder
    assert extractor.features_dim == 6 + 6 + 5 + 3
    kinds = {key: type(part) for key, part in extractor.extractors.items()}
    assert kinds == {"bytes": MinAtarEncoder, "column": nn.Flatten, "image": MinAtarEncoder, "n": nn.Flatten}
    learn(model, 40)
    assert n_updates_of(model) > 0
    obs = model.env.reset()
    features = model.q_net.extract_features(model.policy.obs_to_tensor(obs)[0], extractor)
    inputs = {"bytes": obs["bytes"] / 255, "image": obs["image"]}
    encoded = {key: extractor.extractors[key](th.as_tensor(image).float()) for key, image in inputs.items()}
    one_hot = th.tensor([[0.0, 0.0, 1.0]])
    expected = [encoded["image"], encoded["bytes"], th.as_tensor(obs["column"]), one_hot]
    assert_same(features.detach(), th.cat(expected, 1).detach(), "features")
    assert make("MultiInputPolicy", dictionary(), policy_kwargs={"encoder": "minatar"}).policy.net_arch == [64, 64]


# errors

CARTPOLE = "CartPole-v1"
ERRORS: list[tuple[str, Any, dict[str, Any], str]] = [
    ("CnnPolicy", grid, {"encoder": "resnet"}, "encoder='resnet' is not known.*Did you mean 'impala'"),
    ("CnnPolicy", grid, {"encoder": "cnn"}, "Did you mean 'nature'"),
    ("CnnPolicy", grid, {"encoder": "minatar", "norm": "layer_norm"}, "norm='layer_norm' .*Did you mean 'layer'"),
    ("CnnPolicy", grid, {"encoder": MinAtarEncoder(BOOL)}, "is an object; give its class"),
    ("CnnPolicy", grid, {"encoder": NatureCNN}, "is no Encoder: it has no convolutions"),
    ("CnnPolicy", grid, {"encoder": "minatar", "encoder_kwargs": {"width": 2}}, "encoder_kwargs has no argument 'width'"),
    ("CnnPolicy", grid, {"encoder": "impala", "encoder_kwargs": {"width": 0}}, r"width=0 must be a whole number in \[1"),
    (
        "CnnPolicy",
        grid,
        {"encoder": "impala", "encoder_kwargs": {"norm": "layer"}},
        r"in DQNExt it is written policy_kwargs=\{'norm': 'layer'\}",
    ),
    ("CnnPolicy", grid, {"encoder": "minatar", "encoder_kwargs": {"channels": 3}}, r"encoder_kwargs\['channels'\]=3"),
    ("CnnPolicy", grid, {"encoder": "minatar", "encoder_kwargs": {"features_dim": -1}}, "features_dim=-1 must be"),
    ("CnnPolicy", CatchEnv, {"encoder": "minatar", "encoder_kwargs": {"channels": "last"}}, "'last' contradicts the obs"),
    ("CnnPolicy", grid, {"encoder": "nature"}, "10 x 5 pixels with 3 channels are too small for NatureEncoder: take enc"),
    ("CnnPolicy", grid, {}, "NatureCNN reads images with values of uint8 from 0 to 255.*'encoder': 'minatar'"),
    ("CnnPolicy", CatchEnv, {}, "too small for NatureCNN.*'encoder': 'minatar'"),
    ("CnnPolicy", grid, {"encoder": "minatar", "features_extractor_class": "flatten"}, "is a features extractor, too"),
    ("CnnPolicy", grid, {"encoder": "minatar", "features_extractor_kwargs": {"a": 1}}, "into encoder_kwargs"),
    ("CnnPolicy", small_images, {"features_extractor_kwargs": {"features_dim": 6}, "norm": "layer"}, "encoder='nature' is a"),
    ("MlpPolicy", CARTPOLE, {"encoder": "minatar"}, "an encoder needs images.*leave encoder out"),
    ("MlpPolicy", CARTPOLE, {"encoder_kwargs": {"width": 2}}, "has no effect without encoder"),
    ("CnnPolicy", dictionary, {"encoder": "minatar"}, "must use `MultiInputPolicy`"),
    ("MultiInputPolicy", grid, {"encoder": "minatar"}, "'MultiInputPolicy' reads Dict observations"),
    ("MlpPolicy", CARTPOLE, {"norm": "layer", "batch_norm": True}, "are two normalisations of the trunk"),
    ("MlpPolicy", CARTPOLE, {"norm": "layer", "net_arch": []}, "norm='layer' has no effect on a network without hidden"),
    ("MlpPolicy", CARTPOLE, {"norm": lambda layer: layer}, "must return a list of layers"),
    ("MlpPolicy", CARTPOLE, {"norm": nn.LayerNorm}, "norm=<class 'torch.*LayerNorm'> cannot be built without"),
    ("MlpPolicy", CARTPOLE, {"layer_norm": True}, r"in DQNExt it is written policy_kwargs=\{'norm': 'layer'\}"),
]


@pytest.mark.parametrize(("policy", "env", "kwargs", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_what_cannot_be_is_refused_by_the_constructor(policy: str, env: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(policy, env if isinstance(env, str) else env(), policy_kwargs=kwargs)


def test_sb3_receives_the_same_errors() -> None:
    with pytest.raises(UnsupportedError, match="too small for NatureEncoder"):
        make("CnnPolicy", grid(), DQN, policy_kwargs={"features_extractor_class": NatureEncoder})
    with pytest.raises(UnsupportedError, match="an encoder needs images"):
        make("MlpPolicy", CARTPOLE, DQN, policy_kwargs={"features_extractor_class": MinAtarEncoder})


def test_layers_that_change_their_outputs_in_training_mode_are_evaluated_in_evaluation_mode() -> None:
    def batch_norm(hidden: Any) -> list[nn.Module]:
        is_image = isinstance(hidden, nn.Conv2d)
        return [hidden, nn.BatchNorm2d(hidden.out_channels) if is_image else nn.BatchNorm1d(hidden.out_features)]

    with pytest.warns(UserWarning, match="Not all of the model can be stored"):
        model = make("CnnPolicy", grid(), policy_kwargs={"encoder": "minatar", "norm": batch_norm})
    statistics = model.q_net.features_extractor.cnn[1].running_mean
    assert not statistics.any()  # the constructor has evaluated an image of zeros
    learn(model, 40)
    assert statistics.any()
    assert model.policy.depends_on_training_mode
