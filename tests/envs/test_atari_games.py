"""ALE's vector environment: lives, scores and states against SB3's wrappers and against ALE itself."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv, MaxAndSkipEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import make_eval_env
from sb3_dqn_ext.checkpoint.envs import make_resumable
from sb3_dqn_ext.checkpoint.envs.states import environments_state, restore_environments
from sb3_dqn_ext.envs.atari_games import AtariGamesVectorEnv
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.vec_env import FastVecEnv, make_fast_vec_env
from tests.checkpoint.envs.helpers import dumped, exact, loaded

SMALL = {"img_height": 36, "img_width": 36, "num_threads": 1}


def atari(game: str = "Breakout", n_envs: int = 2, seed: int | None = 3, **kwargs: Any) -> FastVecEnv:
    return make_fast_vec_env(f"ALE/{game}-v5", n_envs, seed, env_kwargs=SMALL | kwargs)


@pytest.mark.parametrize(
    ("game", "n_steps", "n_lives_and_games"),
    [("Pong", 100, (0, 0)), ("Breakout", 250, (5, 1)), ("SpaceInvaders", 350, (2, 0)), ("Qbert", 400, (3, 1))],
)
def test_lives_rewards_and_ends_are_those_of_sb3s_wrappers(
    game: str, n_steps: int, n_lives_and_games: tuple[int, int], open_envs: list[VecEnv]
) -> None:
    same: dict[str, Any] = {"repeat_action_probability": 0.0, "noop_max": 0, "use_fire_reset": False}
    open_envs.append(ours := atari(game, 1, episodic_life=True, **same))
    monitor: Any = Monitor(MaxAndSkipEnv(gym.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0), 4))
    theirs = EpisodicLifeEnv(monitor)
    ours.reset()
    theirs.reset(seed=3)
    assert ours.reset_infos[0]["lives"] == theirs.lives
    generator, ends = np.random.default_rng(0), [0, 0]
    for step in range(n_steps):
        action = int(generator.integers(theirs.action_space.n))  # type: ignore[attr-defined]
        observations, rewards, dones, infos = ours.step(np.array([action]))
        result: Any = theirs.step(action)
        _, reward, terminated, truncated, info = result
        assert (rewards[0], infos[0]["raw_reward"], dones[0]) == (np.sign(reward), reward, terminated or truncated), step
        assert infos[0]["game_over"] == theirs.was_real_done
        assert not infos[0]["TimeLimit.truncated"]
        if not theirs.was_real_done:
            assert infos[0]["lives"] == info["lives"]
        if dones[0]:
            ends[theirs.was_real_done] += 1
            is_continued = np.array_equal(infos[0]["terminal_observation"], np.asarray(observations)[0])
            assert is_continued != theirs.was_real_done
            if theirs.was_real_done:
                assert [infos[0]["episode"][key] for key in "rl"] == [info["episode"][key] for key in "rl"]
            else:
                assert "episode" not in infos[0]
                ours.step(np.array([0]))  # after a life, their reset makes a step without an action
            theirs.reset()
    assert tuple(ends) == n_lives_and_games
    theirs.close()


@pytest.mark.parametrize("fire_after_life", [False, True])
def test_fire_follows_the_loss_of_a_life(fire_after_life: bool, open_envs: list[VecEnv]) -> None:
    """In Breakout, there is no ball before FIRE, so that an agent which does nothing keeps its second life."""
    kwargs: dict[str, Any] = {"fire_after_life": fire_after_life, "repeat_action_probability": 0.0}
    open_envs.append(env := atari("Breakout", 2, **kwargs))
    env.reset()
    n_games = sum(int(env.step(np.array([0, 0]))[2][0]) for _ in range(160))
    assert n_games == fire_after_life


def test_an_id_has_sticky_actions_and_the_arguments_of_ale_change_the_rest(open_envs: list[VecEnv]) -> None:
    """25 of 100 actions are the last ones again: the pictures are those of ALE with this probability."""
    differs = []
    for probability in (None, 0.0):
        chosen = {} if probability is None else {"repeat_action_probability": probability}
        open_envs.append(env := atari("Pong", 1, 7, noop_max=5, **chosen))
        theirs = AtariVectorEnv("pong", 1, repeat_action_probability=0.25, noop_max=5, **SMALL)  # type: ignore[arg-type]
        equal = [np.array_equal(np.asarray(env.reset()), theirs.reset(seed=7)[0])]
        for step in range(40):
            actions = np.array([step % 6])
            equal.append(np.array_equal(np.asarray(env.step(actions)[0]), theirs.step(actions)[0]))
        differs.append(not all(equal))
        theirs.close()
    assert differs == [False, True]


def test_environments_of_the_zoo_are_replaced_by_the_vector_form_with_its_arguments(open_envs: list[VecEnv]) -> None:
    made = make_vec_env("ALE/Pong-v5", 2, seed=7, env_kwargs={"repeat_action_probability": 0.0, "frameskip": 3})
    open_envs.append(env := FastVecEnv(made, env_kwargs=SMALL))
    open_envs.append(same := atari("Pong", 2, 7, repeat_action_probability=0.0, frameskip=3))
    assert env.vectorization_mode == same.vectorization_mode == "vector_entry_point"
    np.testing.assert_array_equal(env.reset(), same.reset())
    for step in range(20):
        (found, *_), (expected, *_, infos) = (venv.step(np.array([step % 6, 0])) for venv in (env, same))
        np.testing.assert_array_equal(found, expected)
    assert infos[0]["episode_frame_number"] == same.reset_infos[0]["episode_frame_number"] + 20 * 3
    with pytest.raises(ArgumentError, match="env_kwargs=3 must be a mapping of arguments"):
        FastVecEnv(make_vec_env("CartPole-v1"), env_kwargs=3)  # type: ignore[arg-type]


def test_diagnostics_play_the_vector_form_of_the_training(open_envs: list[VecEnv]) -> None:
    open_envs.append(env := atari(n_envs=2, episodic_life=True, frameskip=2))
    open_envs.append(made := make_eval_env(VecNormalize(env, norm_obs=False), 3, "a test"))
    assert (made.num_envs, made.observation_space) == (3, env.observation_space)
    made.reset()
    assert made.get_attr("episodic_life") == [True] * 3
    open_envs.append(filmed := make_eval_env(env, 1, "a test", "rgb_array"))
    (observation,) = np.asarray(filmed.reset())
    (picture,) = filmed.get_images()
    assert picture is not None
    assert picture.shape == (36 * 4, 36 * 4, 3)
    np.testing.assert_array_equal(picture[::4, ::4, 1], observation[-1])


def test_states_with_seeds_of_several_ages_are_restored(open_envs: list[VecEnv]) -> None:
    kwargs: dict[str, Any] = {"episodic_life": True, "reseed_every": 60, "fire_after_life": True}
    generator = np.random.default_rng(0)
    open_envs += [env := make_resumable(atari(n_envs=3, **kwargs)), other := make_resumable(atari(n_envs=3, seed=8, **kwargs))]
    env.reset()
    for _ in range(240):
        env.step(generator.integers(4, size=3))
    inner: Any = env.backend.env.unwrapped  # type: ignore[attr-defined]
    assert len({*inner.get_state()["seeded_at"].tolist()}) == 3
    assert len(inner.get_state()["actions"]) < 240
    states = loaded(dumped(environments_state(env)))
    assert restore_environments(other, states) == []
    all_infos = []
    for _ in range(60):
        actions = generator.integers(4, size=3)
        expected, found = env.step(actions), other.step(actions)
        assert exact(found) == exact(expected)
        all_infos += expected[-1]
    assert sum("episode" in info for info in all_infos) > 0


def test_other_games_are_not_taken_for_the_saved_ones() -> None:
    env, other = (AtariGamesVectorEnv(game, 1, **SMALL) for game in ("pong", "breakout"))
    other.set_state(env.get_state())  # nothing has begun
    env.reset(seed=0)
    with pytest.raises(CheckpointError, match="show other images"):
        other.set_state(env.get_state())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"life_loss_info": True}, "life_loss_info=True cannot be set: episodic_life=True ends an episode with each life"),
        ({"batch_size": 1}, "batch_size=1 cannot be set"),
        ({"img_heigth": 42}, "env_kwargs has no argument 'img_heigth'.* Did you mean 'img_height'"),
        ({"reseed_every": 0}, "reseed_every=0"),
        ({"img_height": 0}, r"img_height=0 must be a whole number in \[1, inf\]"),
        ({"stack_num": 0}, "stack_num=0 must be a whole number"),
        ({"frameskip": 0}, "frameskip=0 must be a whole number"),
        ({"noop_max": -1}, "noop_max=-1 must be a whole number"),
        ({"num_threads": 1.5}, "num_threads=1.5 must be a whole number"),
        ({"repeat_action_probability": 2}, "repeat_action_probability=2 must be a finite number in"),
        ({"episodic_life": "yes"}, "episodic_life='yes' must be True or False"),
        ({"render_mode": "human"}, "render_mode='human'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        atari(**kwargs)


def test_scores_of_whole_games_are_counted_while_lives_and_signs_are_learned(tmp_path: Path, open_envs: list[VecEnv]) -> None:
    """Space Invaders has rewards of 5 to 30 points and three lives."""
    env = make_fast_vec_env("ALE/SpaceInvaders-v5", 2, 0, env_kwargs=SMALL | {"episodic_life": True}, monitor_dir=tmp_path)
    open_envs.append(env)
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}}
    model = DQNExt("CnnPolicy", env, buffer_size=1600, learning_starts=1500, policy_kwargs=kwargs, device="cpu", seed=0)
    model.learn(1500)
    buffer: Any = model.replay_buffer
    assert {*np.unique(buffer.rewards[: buffer.pos])} == {0, 1}
    games = [line.split(",") for file in tmp_path.glob("*.csv") for line in file.read_text().splitlines()[2:]]
    assert sum(float(score) for score, _, _ in games) > 100
    assert len(games) == len(model.ep_info_buffer or ())
    assert 2 * len(games) < np.count_nonzero(buffer.dones[: buffer.pos]) <= 3 * (len(games) + 2)
    header = json.loads((tmp_path / "0.monitor.csv").read_text().splitlines()[0].removeprefix("#"))
    assert header["env_id"] == "ALE/SpaceInvaders-v5"
    results: list[Any] = []
    for episodic_life in (True, False):
        limit = {"max_num_frames_per_episode": 1200}
        open_envs.append(evaluated := atari("SpaceInvaders", 2, 5, episodic_life=episodic_life, **limit))
        results.append(evaluate_policy(model, evaluated, 2, return_episode_rewards=True))
    assert results[0] == results[1]
    assert min(results[0][1]) > 200  # more than a life
