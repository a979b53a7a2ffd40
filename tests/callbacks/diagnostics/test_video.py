"""Films of episodes."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.logger import Logger, configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    EpisodeVideoCallback,
)
from sb3_dqn_ext.callbacks.diagnostics.model_access import (
    find_networks,
    q_value_function,
)
from sb3_dqn_ext.errors import ArgumentError
from tests.callbacks.diagnostics.helpers import build
from tests.closed_form_env import ALGORITHMS


def test_a_film_lies_beside_the_run_and_moves_in_tensorboard(algorithm: Any, tmp_path: Path) -> None:
    from imageio_ffmpeg import count_frames_and_secs
    from PIL import Image as Pillow
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    env = DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"), str(tmp_path / "run"))])
    model = build(algorithm, env)
    model.set_logger(configure(str(tmp_path / "board"), ["tensorboard", "csv"]))
    model.learn(150, callback=EpisodeVideoCallback(80, skip=2))
    model.logger.close()
    env.close()
    (film,) = (tmp_path / "videos").iterdir()
    assert film.name == "step_80.mp4"
    n_filmed, seconds = count_frames_and_secs(film)
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    (event,) = board.Images("video/episode")
    assert event.step == 80
    (tmp_path / "episode.gif").write_bytes(event.encoded_image_string)
    with Pillow.open(tmp_path / "episode.gif") as animation:
        n_frames, size = animation.n_frames, animation.size
    length = board.Scalars("video/length")[0].value
    assert n_filmed == (length + 1) // 2
    assert seconds == pytest.approx(n_filmed / 25, abs=0.05), "half of the 50 frames a second that CartPole has"
    assert 1 < n_frames <= n_filmed, "frames that are the same are put together"
    assert size[0] == 320
    assert size[1] % 16 == 0


def test_a_bar_is_as_high_as_its_value() -> None:
    from sb3_dqn_ext.callbacks.diagnostics.film import GREY, ORANGE, add_q_bars

    picture = add_q_bars(np.zeros((100, 160, 3), np.uint8), np.array([1.0, 4.0]), 0.0, 4.0)
    heights = {}
    for color in (GREY, ORANGE):
        xs = np.nonzero((picture == color).all(axis=2))[1]
        heights[color] = int(np.bincount(xs).max())
        assert (xs > 160).all() == (color == ORANGE), "the best is the second"
    assert heights[ORANGE] - 3 == pytest.approx(4 * (heights[GREY] - 3), abs=2)


def test_a_film_needs_a_folder_and_pictures(tmp_path: Path) -> None:
    model = build(DQN)
    model.set_logger(Logger(folder=None, output_formats=[]))
    with pytest.raises(ArgumentError, match="finds no folder of the run: give it a folder"):
        model.learn(10, callback=EpisodeVideoCallback())
    with pytest.raises(ArgumentError, match=r"render_mode='rgb_array', not None"):
        model.learn(10, callback=EpisodeVideoCallback(folder=tmp_path, eval_env=gym.make("CartPole-v1")))


def test_a_program_that_writes_films_is_needed_when_the_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import imageio_ffmpeg

    model = build(DQN, DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    with pytest.raises(ArgumentError, match="EpisodeVideoCallback needs ffmpeg: install it"):
        model.learn(50, callback=EpisodeVideoCallback(20, tmp_path))

    def fail() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", fail)
    with pytest.raises(ArgumentError, match="EpisodeVideoCallback needs ffmpeg: install it"):
        model.learn(50, callback=EpisodeVideoCallback(20, tmp_path))
    assert model.num_timesteps == 0


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_of_environments_in_processes_the_film_lies_beside_the_best_model(tmp_path: Path) -> None:
    def monitored(i: int) -> Any:
        return lambda: Monitor(gym.make("CartPole-v1"), str(tmp_path / str(i)))

    env = SubprocVecEnv([monitored(i) for i in range(2)], "fork")
    evaluation = EvalCallback(gym.make("CartPole-v1"), eval_freq=1000, best_model_save_path=str(tmp_path / "run"))
    build(DQN, env).learn(60, callback=[EpisodeVideoCallback(40, max_steps=8), evaluation])
    env.close()
    assert [film.name for film in (tmp_path / "run" / "videos").iterdir()] == ["step_40.mp4"]


def test_the_return_of_a_film_is_in_the_unit_of_the_environment(tmp_path: Path) -> None:
    def normalised(render_mode: str | None = None) -> VecNormalize:
        return VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1", render_mode=render_mode)]))

    model = build(DQN, normalised())
    model.set_logger(configure(str(tmp_path / "log"), ["json"]))
    film = EpisodeVideoCallback(40, tmp_path, eval_env=normalised("rgb_array"), max_steps=8)
    model.learn(60, callback=film)
    model.logger.close()
    rows = [json.loads(line) for line in (tmp_path / "log" / "progress.json").read_text().splitlines()]
    (row,) = (row for row in rows if "video/return" in row)
    assert row["video/return"] == row["video/length"], "each step of CartPole has the reward 1"


@pytest.mark.parametrize(
    ("algorithm", "policy_kwargs"),
    [*((one, {}) for one in ALGORITHMS), (DQNExt, {"head": "dueling"}), (DQNExt, {"returns": "quantile"})],
    ids=["DQN", "QRDQN", "DQNExt", "DQNExt dueling", "DQNExt quantile"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64], ids=["uint8", "float64"])
def test_values_of_what_an_environment_shows_are_those_that_the_policy_goes_by(
    algorithm: Any, dtype: Any, policy_kwargs: Any
) -> None:
    class Numbers(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(0, 9, (3,), dtype)
        action_space = gym.spaces.Discrete(4)

    model = build(algorithm, DummyVecEnv([Numbers]), policy_kwargs=policy_kwargs)
    observations = np.array([[0, 3, 9], [9, 2, 1], [4, 4, 4], [8, 0, 5], [1, 7, 2]], dtype=dtype)
    with th.no_grad():
        q = q_value_function(model, find_networks(model, "a test")[0], 5)(observations)
    assert q.shape == (5, 4)
    greedy, _ = model.predict(observations, deterministic=True)
    np.testing.assert_array_equal(q.argmax(axis=1), greedy)
    by_hand = find_networks(model, "a test")[0](th.as_tensor(observations).float()).detach()
    np.testing.assert_allclose(q, by_hand if by_hand.dim() == 2 else by_hand.mean(dim=1), rtol=1e-5, atol=1e-6)
