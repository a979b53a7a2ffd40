"""Export to ONNX: onnxruntime computes what torch computes, for each network and each kind of observations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch as th
from allpairspy import AllPairs
from gymnasium import spaces
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqn_ext import DQNExt, _command_line
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.export import export_model
from sb3_dqn_ext.export.onnx_functions import adaptive_max_pool2d
from sb3_dqn_ext.networks.encoders import ENCODERS
from sb3_dqn_ext.networks.heads import HEADS, Head, HeadSizes
from sb3_dqn_ext.networks.norms import NORMS

VECTOR = spaces.Box(-3, 3, (3,), np.float32)
PIXELS = spaces.Box(0, 255, (2, 40, 40), np.uint8)
BITS = spaces.Box(0, 1, (10, 10, 4), np.bool_)  # type: ignore[arg-type]
MANY = spaces.Dict(vector=VECTOR, image=PIXELS, number=spaces.Discrete(3, start=2))
OBSERVATIONS: dict[str, tuple[spaces.Space[Any], dict[str, Any]]] = {
    "vector": (VECTOR, {}),
    "vector of float64": (spaces.Box(-3, 3, (2, 2), np.float64), {}),
    "Discrete": (spaces.Discrete(4, start=1), {}),
    "MultiDiscrete": (spaces.MultiDiscrete([2, 3]), {}),
    "MultiBinary": (spaces.MultiBinary(3), {}),
    "uint8, NatureCNN": (PIXELS, {}),
    "uint8, nature": (PIXELS, {"encoder": "nature"}),
    "uint8, small": (PIXELS, {"encoder": "small"}),
    "uint8, impala": (PIXELS, {"encoder": "impala", "encoder_kwargs": {"pool": 3}}),
    "bool, minatar": (BITS, {"encoder": "minatar"}),
    "float, minatar": (spaces.Box(-1, 1, (2, 10, 10), np.float32), {"encoder": "minatar"}),
    "Dict": (MANY, {}),
    "Dict, minatar": (spaces.Dict(image=BITS, vector=VECTOR), {"encoder": "minatar"}),
}
RETURNS: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"n_atoms": 7, "v_min": 0, "v_max": 20},
    "quantile": {"n_quantiles": 5},
    "implicit_quantile": {"n_policy_quantiles": 5, "embedding_dim": 6},
    "hl_gauss": {"n_bins": 7, "v_min": 0, "v_max": 20},
}
AXES: dict[str, list[Any]] = {
    "observations": list(OBSERVATIONS),
    "returns": list(RETURNS),
    "head": sorted(HEADS),
    "norm": sorted(NORMS),
    "noisy": [False, True],
    "dtype": ["float32", "float64"],
}
QUICK = [
    ("vector", "implicit_quantile", "action_input", "layer", True, "float32"),
    ("bool, minatar", "categorical", "dueling", "batch", False, "float64"),
    ("Dict", "quantile", "multi_head", "none", False, "float32"),
]


class Observing(gym.Env[Any, Any]):
    """An environment with random observations of a space, and three actions."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


def policy_of(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if len(space.shape or ()) == 3 else "MlpPolicy"


def made(space: spaces.Space[Any], **policy_kwargs: Any) -> DQNExt:
    model = DQNExt(
        policy_of(space),
        Observing(space),
        buffer_size=4,
        batch_size=4,
        seed=1,
        device="cpu",
        policy_kwargs={"net_arch": [8], "activation_fn": "tanh", **policy_kwargs},
    )
    with th.no_grad():
        for name, buffer in model.q_net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 2)
    return model


def combined(observations: str, returns: str, head: str, norm: str, noisy: bool, dtype: str) -> DQNExt:
    space, encoder = OBSERVATIONS[observations]
    arch = {} if head == "shared" else {"head_arch": [6]}
    choices = {"returns": returns, "returns_kwargs": RETURNS[returns], "head": head, **arch}
    return made(space, **choices, norm=norm, noisy=noisy, dtype=dtype, **encoder)


def opened(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def sampled(space: spaces.Space[Any], n: int) -> Any:
    samples = [space.sample() for _ in range(n)]
    return (
        {key: np.stack([one[key] for one in samples]) for key in samples[0]}
        if isinstance(samples[0], dict)
        else np.stack(samples)
    )


def assert_computes(
    session: onnxruntime.InferenceSession,
    model: Any,
    raw: Any,
    change: Callable[[Any], Any] = lambda observations: observations,
) -> None:
    """Check Q-values and actions for observations; the model takes the changed ones."""
    q, actions = session.run(["q_values", "action"], raw if isinstance(raw, dict) else {"observation": raw})
    tensors = model.policy.obs_to_tensor(change(raw))[0]
    with th.no_grad():
        expected = model.q_net(tensors) if hasattr(model, "q_net") else model.quantile_net(tensors).mean(dim=1)
    scale = max(1.0, float(expected.abs().max()))
    np.testing.assert_allclose(q, expected.numpy(), rtol=0, atol=1e-5 * scale)
    top = expected.sort(dim=1).values[:, -2:]
    clear = (top[:, 1] - top[:, 0] > 2e-5 * scale).numpy()  # of others, rounding decides
    assert clear.any()
    np.testing.assert_array_equal(actions[clear], model.predict(change(raw), deterministic=True)[0][clear])


def check(row: Any, folder: Path) -> None:
    model = combined(*row)
    session = opened(model.export(folder / "model.onnx"))
    for n in (1, 2, 7):
        assert_computes(session, model, sampled(model.observation_space, n))


def test_the_axes_contain_all_names() -> None:
    assert set(RETURNS) == set(RETURN_MODELS)
    assert {kwargs.get("encoder") for _, kwargs in OBSERVATIONS.values()} == {None, *ENCODERS}


@pytest.mark.parametrize("row", QUICK, ids=str)
def test_onnxruntime_computes_what_torch_computes(row: Any, tmp_path: Path) -> None:
    check(row, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("row", [list(row) for row in AllPairs(list(AXES.values()))], ids=str)
def test_all_pairs_of_observations_and_networks(row: Any, tmp_path: Path) -> None:
    check(row, tmp_path)


def test_inputs_and_outputs_have_names_types_and_a_free_batch_size(tmp_path: Path) -> None:
    session = opened(made(MANY).export(tmp_path / "model.onnx"))
    assert [(one.name, one.shape, one.type) for one in session.get_inputs()] == [
        ("vector", ["batch", 3], "tensor(float)"),
        ("image", ["batch", 2, 40, 40], "tensor(uint8)"),
        ("number", ["batch"], "tensor(int64)"),
    ]
    assert [(one.name, one.shape, one.type) for one in session.get_outputs()] == [
        ("q_values", ["batch", 3], "tensor(float)"),
        ("action", ["batch"], "tensor(int64)"),
    ]


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
def test_models_of_other_libraries_are_exported_too(algorithm: Any, tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", Observing(VECTOR), buffer_size=4, batch_size=4, device="cpu")
    session = opened(export_model(model, tmp_path / "new/model", to="onnx"))
    assert_computes(session, model, sampled(VECTOR, 5))
    assert (tmp_path / "new/model.onnx").is_file()


def normalized_env(space: spaces.Space[Any], **kwargs: Any) -> VecNormalize:
    env = VecNormalize(DummyVecEnv([lambda: Observing(space)]), clip_obs=1.5, **kwargs)
    env.reset()
    for _ in range(20):
        env.step(np.array([0]))
    return env


@pytest.mark.parametrize(("space", "kwargs"), [(VECTOR, {}), (MANY, {"norm_obs_keys": ["vector"]})], ids=["Box", "Dict"])
def test_statistics_of_observations_become_part_of_the_graph(
    space: spaces.Space[Any], kwargs: dict[str, Any], tmp_path: Path
) -> None:
    env = normalized_env(space, **kwargs)
    model = DQNExt(policy_of(space), env, buffer_size=4, batch_size=4, seed=1, device="cpu")
    session = opened(model.export(tmp_path / "model.onnx", vec_normalize=env))
    raw = sampled(space, 9)
    assert_computes(session, model, raw, env.normalize_obs)
    with pytest.raises(AssertionError):
        assert_computes(session, model, raw)


def test_images_can_have_their_channels_on_the_last_axis(tmp_path: Path) -> None:
    env = FakeImageEnv(screen_height=40, screen_width=44, n_channels=2, discrete=True)
    model = DQNExt("CnnPolicy", env, buffer_size=4, batch_size=4, device="cpu")
    session = opened(model.export(tmp_path / "model.onnx", channels_last=True))
    assert session.get_inputs()[0].shape == ["batch", 40, 44, 2]
    assert_computes(session, model, sampled(env.observation_space, 3), lambda raw: raw.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("size", [(6, 4), 3, (None, 5), (11, 7)])
def test_pooling_by_slices_is_that_of_torch(size: Any) -> None:
    images = th.randn(2, 3, 11, 7)
    assert th.equal(adaptive_max_pool2d(images, size), th.nn.AdaptiveMaxPool2d(size)(images))


def test_a_training_continues_with_the_same_bits_after_an_export(tmp_path: Path) -> None:
    def trained(exports: bool) -> DQNExt:
        model = DQNExt("MlpPolicy", "CartPole-v1", learning_starts=10, batch_size=8, buffer_size=100, seed=3, device="cpu")
        model.learn(40)
        if exports:
            model.export(tmp_path / "model.onnx")
            model.export(tmp_path / "model.zip")
        return model.learn(40, reset_num_timesteps=False)

    for one, other in zip(trained(True).policy.parameters(), trained(False).policy.parameters(), strict=True):
        assert th.equal(one, other)


# -- errors ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kwargs", "message"),
    [
        ("model.pt", {}, r"path='.*model.pt' must end in .onnx or .zip"),
        ("model", {}, r"must end in .onnx or .zip, or `to` must be one of: onnx, sb3"),
        ("model.onnx", {"to": "onxx"}, "to='onxx' is not known.*Did you mean 'onnx'"),
        ("model.onnx", {"channels_last": True}, "channels_last=True has no effect"),
        ("model.onnx", {"channels_last": "last"}, "channels_last='last' must be True or False"),
        ("model.zip", {"channels_last": True}, "channels_last=True has no effect with to='sb3'"),
        ("model.onnx", {"vec_normalize": "stats.pkl"}, "vec_normalize='stats.pkl'"),
    ],
)
def test_wrong_arguments_are_errors(path: str, kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=message):
        made(VECTOR).export(tmp_path / path, **kwargs)
    assert not list(tmp_path.iterdir())


def test_wrong_statistics_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"statistics of shape \(3,\), and observations are Box\(0, 255, \(2, 40, 40\)"):
        made(PIXELS).export(tmp_path / "model.onnx", vec_normalize=normalized_env(VECTOR))
    with pytest.raises(ArgumentError, match="norm_obs=False"):
        made(VECTOR).export(tmp_path / "model.onnx", vec_normalize=normalized_env(VECTOR, norm_obs=False))


def test_an_input_cannot_have_the_name_of_an_output(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="the key 'action' of the Dict observations"):
        made(spaces.Dict(action=VECTOR)).export(tmp_path / "model.onnx")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(_command_line.EXTRAS, "onnx", ("sb3_dqn_ext", "not_installed"))
    with pytest.raises(UnsupportedError, match=r"needs not_installed: pip install 'sb3-dqn-ext\[onnx\]'"):
        made(VECTOR).export(tmp_path / "model.onnx")


class Cautious(DQNExt):
    """A model with its own way to choose actions."""

    def predict(self, observation: Any, *args: Any, **kwargs: Any) -> Any:
        return np.argmin(self.q_net(self.policy.obs_to_tensor(observation)[0]).detach().numpy(), axis=1), None


@pytest.mark.parametrize("path", ["model.onnx", "model.zip"])
def test_a_file_that_would_choose_other_actions_is_not_written(path: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="has other actions in "):
        Cautious("MlpPolicy", Observing(VECTOR), buffer_size=4, batch_size=4).export(tmp_path / path)
    assert not list(tmp_path.iterdir())


class FixedBatch(Head):
    """A head whose graph is valid for one batch size only."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        self.trunk = th.nn.Sequential(*sizes.trunk())
        self.out = sizes.stream(sizes.hidden_dim, sizes.n_actions)

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        values: th.Tensor = self.out(hidden).unsqueeze(-1)
        return values + th.zeros(len(hidden), 1, 1)


def test_a_graph_for_one_batch_size_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="has other Q-values in onnxruntime"):
        made(VECTOR, head=FixedBatch).export(tmp_path / "model.onnx")
