"""The command ``sb3-dqn-ext export``."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.export.__main__ import main

PROGRAM = "sb3-dqn-ext export"


@pytest.fixture(name="model")
def saved_model(tmp_path: Path) -> Path:
    """The file of a model."""
    DQNExt("MlpPolicy", "CartPole-v1", seed=0, device="cpu").save(tmp_path / "model.zip")
    return tmp_path / "model.zip"


def test_the_new_file_lies_beside_the_model_and_its_path_is_printed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(model), "--to", "onnx"])
    main([str(model), "--to", "sb3"])
    main([str(model), "--out", str(model.parent / "new/other.onnx")])
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths == [model.with_suffix(".onnx"), model.with_name("model_sb3.zip"), model.parent / "new/other.onnx"]
    observations = np.ones((2, 4), np.float32)
    expected = DQNExt.load(model).predict(observations, deterministic=True)[0]
    for path in (paths[0], paths[2]):
        (actions,) = onnxruntime.InferenceSession(path).run(["action"], {"observation": observations})
        np.testing.assert_array_equal(actions, expected)
    loaded = DQN.load(paths[1])
    assert loaded.buffer_size == 1_000_000
    np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], expected)


def test_statistics_are_read_from_a_pickle_with_trust(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    env.obs_rms.mean += 100.0  # type: ignore[attr-defined]
    env.save(str(model.parent / "stats.pkl"))
    arguments = [str(model), "--to", "onnx", "--vec-normalize", str(model.parent / "stats.pkl")]
    with pytest.raises(SystemExit, match=f"^{PROGRAM}: --vec-normalize='.*stats.pkl' is a pickle, .* add --trust"):
        main(arguments, PROGRAM)
    main([*arguments, "--trust"])
    session = onnxruntime.InferenceSession(capsys.readouterr().out.strip())
    (q,) = session.run(["q_values"], {"observation": np.full((1, 4), 100, np.float32)})
    loaded = DQNExt.load(model, device="cpu")
    zeros = loaded.q_net(loaded.policy.obs_to_tensor(np.zeros((1, 4), np.float32))[0]).detach().numpy()
    np.testing.assert_allclose(q, zeros, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--to or --out is needed: --to onnx or sb3."),
        (["--out", "{model}"], "--out='{model}' is the model itself; give another path."),
        (["--out", "model.pt"], "path='model.pt' must end in .onnx or .zip, or `to` must be one of: onnx, sb3."),
    ],
)
def test_a_wrong_command_ends_with_one_line(arguments: list[str], message: str, model: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(model), *(word.format(model=model) for word in arguments)], PROGRAM)
    assert ended.value.code == f"{PROGRAM}: {message.format(model=model)}"


def test_a_missing_or_damaged_model_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "damaged.zip").write_bytes(b"no zip")
    for name in ("missing.zip", "damaged.zip"):
        with pytest.raises(SystemExit, match=f"^{PROGRAM}: .*{name}"):
            main([str(tmp_path / name), "--to", "onnx"], PROGRAM)
