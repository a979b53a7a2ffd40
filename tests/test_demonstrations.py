"""Demonstrations and offline training of DQNExt: loading, DQfD, training without steps, and exact resumption."""

import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    DiagnosticsCallback,
    ExactCheckpointCallback,
    ReplayHealthCallback,
    StopTrainingOnEpisode,
    TDErrorsCallback,
)
from sb3_dqn_ext.demonstrations import (
    SpacesEnv,
    Transitions,
    from_episode,
    join,
    load_transitions,
    read_replay_buffer,
    write_npz,
)
from sb3_dqn_ext.errors import ArgumentError, CheckpointError, NonFiniteError
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.internals import n_updates_of
from tests.masked_envs import MASKED, strict
from tests.parity import Records, assert_same, assert_same_model, dict_cartpole, learn, several_cartpoles, short_cartpole

Policy = Callable[[Any], int]


def pole_policy(observation: Any) -> int:
    """Push to the side to which the pole falls: some hundred steps."""
    return int(observation[2] + 0.5 * observation[3] > 0)


def episodes(env: Any, policy: Policy, n: int) -> Transitions:
    """Play episodes as a user would record them."""
    parts = []
    for seed in range(n):
        observation, _ = env.reset(seed=seed)
        observations: list[Any] = [observation]
        actions: list[int] = []
        rewards: list[float] = []
        terminated: list[bool] = []
        truncated: list[bool] = []
        while not actions or not (terminated[-1] or truncated[-1]):
            actions.append(policy(observation))
            observation, reward, is_terminated, is_truncated, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
            terminated.append(is_terminated)
            truncated.append(is_truncated)
        parts.append(from_episode(observations, actions, rewards, terminated, truncated))
    return join(parts)


def assert_same_transitions(ours: Transitions, theirs: Transitions) -> None:
    assert ours.arrays().keys() == theirs.arrays().keys()
    for name, array in theirs.arrays().items():
        np.testing.assert_array_equal(ours.arrays()[name], array, err_msg=name)


@pytest.fixture(scope="module")
def demonstrations() -> Transitions:
    """Five episodes of 30 steps."""
    return episodes(short_cartpole(30), pole_policy, 5)


# loading


def test_a_data_set_of_minari_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demonstrations: Transitions) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari = pytest.importorskip("minari")
    buffer_class = pytest.importorskip("minari.data_collector").EpisodeBuffer
    arrays = demonstrations.arrays()
    parts = np.split(np.arange(150), 5)  # Minari's DataCollector would need jax
    buffers = [
        buffer_class(
            id=number,
            observations=np.concatenate([arrays["observations"][steps], arrays["next_observations"][steps[-1:]]]),
            actions=arrays["actions"][steps],
            rewards=list(arrays["rewards"][steps]),
            terminations=list(arrays["terminated"][steps]),
            truncations=list(arrays["truncated"][steps]),
        )
        for number, steps in enumerate(parts)
    ]
    with warnings.catch_warnings():  # Minari misses a description of the data
        warnings.simplefilter("ignore")
        dataset = minari.create_dataset_from_buffers("cartpole/test-v0", buffers, "CartPole-v1", algorithm_name="pole_policy")
    for source in (dataset, "cartpole/test-v0"):
        assert_same_transitions(load_transitions(source), demonstrations)
    model = DQNExt("MlpPolicy", "CartPole-v1", replay_buffer_kwargs={"demonstrations": "cartpole/test-v0"})
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    assert model.replay_buffer.sample_batch(4).demonstrations.all()  # type: ignore[union-attr]
    with pytest.raises(ArgumentError, match=r"no data set of Minari on this machine.*minari download cartpole/other-v0"):
        load_transitions("cartpole/other-v0")


@pytest.mark.parametrize(
    ("n_envs", "arguments"),
    [
        (1, {}),
        (1, {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}),
        (2, {"n_steps": 3}),
        (1, {"policy": "MultiInputPolicy"}),
    ],
)
def test_a_saved_replay_buffer_of_sb3_is_read(n_envs: int, arguments: dict[str, Any], tmp_path: Path) -> None:
    make_env: Callable[[], Any] = dict_cartpole if "policy" in arguments else partial(short_cartpole, 9)
    env: Any = several_cartpoles(n_envs) if n_envs > 1 else make_env()
    kwargs: dict[str, Any] = {"policy": "MlpPolicy", "buffer_size": 60 * n_envs, "learning_starts": 10_000, "seed": 0}
    model = DQN(env=env, **kwargs | arguments)
    for steps in (40 * n_envs, 60 * n_envs):  # before and after the ring is full
        model.learn(steps, reset_num_timesteps=False)
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        buffer: Any = model.replay_buffer
        found = load_transitions(tmp_path / "buffer.pkl")
        assert_same_transitions(read_replay_buffer(buffer), found)
        hidden = buffer.optimize_memory_usage and buffer.full
        assert len(found) == (buffer.size() - hidden) * n_envs
        newest = (buffer.pos - 1) % buffer.buffer_size
        assert found.rewards[-1] == buffer.rewards[newest, -1]
        is_last = found.terminated | found.truncated
        for name, array in found.arrays().items():
            if name.startswith("next_observations"):  # each step continues where the one before ended
                before = found.arrays()[name.removeprefix("next_")]
                np.testing.assert_array_equal(array[:-1][~is_last[:-1]], before[1:][~is_last[:-1]])
        assert 1 < is_last.sum() < len(found)
        if not arguments:
            assert found.truncated[:-1].sum() == buffer.timeouts.sum() > 0


class Hostile:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('the code of a pickle was run')",)


def test_no_code_of_a_pickle_is_run(tmp_path: Path) -> None:
    buffer = ReplayBuffer(4, gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2), "cpu")
    buffer.add(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    for content in (Hostile(), {"buffer": buffer}, 3):
        (tmp_path / "buffer.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ArgumentError, match="cannot be read as a replay buffer of SB3"):
            load_transitions(tmp_path / "buffer.pkl")
    buffer.actions = Hostile()  # type: ignore[assignment]
    (tmp_path / "buffer.pkl").write_bytes(pickle.dumps(buffer))
    with pytest.raises(ArgumentError, match=r"builtins\.exec makes no array"):
        load_transitions(tmp_path / "buffer.pkl")


def test_a_replay_buffer_of_dqn_ext_is_read(demonstrations: Transitions) -> None:
    buffer = DQNReplayBuffer(len(demonstrations), short_cartpole().observation_space, gym.spaces.Discrete(2), "cpu")
    for obs, action, reward, next_obs, terminated, truncated in zip(*vars(demonstrations).values(), strict=True):
        infos = [{"TimeLimit.truncated": truncated}]
        buffer.add(obs[None], next_obs[None], action[None], reward[None], np.array([terminated | truncated]), infos)
    assert_same_transitions(load_transitions(buffer), demonstrations)


def test_files_of_numpy_and_iterables_are_read(tmp_path: Path, demonstrations: Transitions) -> None:
    write_npz(tmp_path / "all.npz", demonstrations)
    assert_same_transitions(load_transitions(tmp_path / "all.npz"), demonstrations)
    steps = list(zip(*vars(demonstrations).values(), strict=True))
    for source in (steps, iter(steps), [steps], [tmp_path / "all.npz"]):
        assert_same_transitions(load_transitions(source), demonstrations)
    assert len(load_transitions([demonstrations, str(tmp_path / "all.npz")])) == 2 * len(demonstrations)
    nested = episodes(dict_cartpole(), lambda observation: 0, 2)
    write_npz(tmp_path / "dict.npz", nested)
    assert_same_transitions(load_transitions(tmp_path / "dict.npz"), nested)
    dicts = [({"a": np.ones(2), "b": i}, 0, 0.0, {"a": np.zeros(2), "b": i}, False, False) for i in range(3)]
    assert load_transitions(dicts).observations["b"].tolist() == [0, 1, 2]
    one = episodes(short_cartpole(), pole_policy, 1)
    observations = np.concatenate([one.observations, one.next_observations[-1:]])  # type: ignore[index]
    rest: dict[str, Any] = {name: array for name, array in one.arrays().items() if "observations" not in name}
    np.savez(tmp_path / "one.npz", observations=observations, **rest)
    assert_same_transitions(load_transitions(tmp_path / "one.npz"), one)
    np.savez(tmp_path / "half.npz", observations=observations, actions=one.actions)
    with pytest.raises(ArgumentError, match="has no array rewards, terminated, truncated; it has observations, actions"):
        load_transitions(tmp_path / "half.npz")


# training with demonstrations


def make(source: Any, env: Any = None, **arguments: Any) -> DQNExt:
    shared: dict[str, Any] = {
        "learning_rate": 5e-3,
        "buffer_size": 60,
        "learning_starts": 20,
        "batch_size": 16,
        "train_freq": 2,
        "target_update_unit": "gradient_steps",
        "target_update_interval": 20,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": {"net_arch": [16], "auxiliary_loss": "large_margin"},
        "n_steps": 3,
        "replay_buffer_kwargs": {"demonstrations": source, "sampler": "prioritized"},
    }
    return DQNExt("MlpPolicy", env or short_cartpole(), **shared | arguments)


def margin_violation(model: DQNExt, demonstrations: Transitions) -> float:
    """Return by how much other actions exceed the demonstrated ones less 0.8, in the mean over all demonstrations."""
    with th.no_grad():
        q = model.q_net(th.tensor(demonstrations.observations)).numpy()
    of_expert, of_other = q[np.arange(len(q)), demonstrations.actions], q[np.arange(len(q)), 1 - demonstrations.actions]
    return float(np.maximum(of_other + 0.8 - of_expert, 0).mean())


def test_pretraining_imitates_and_precedes_the_first_step_once(demonstrations: Transitions) -> None:
    at_first_step: list[int] = []

    def note(locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        at_first_step.append(locals_["self"]._n_updates)

    model = make(demonstrations, pretraining_updates=200)
    plain = make(demonstrations, pretraining_updates=200, policy_kwargs={"net_arch": [16]})
    for one in (model, plain):
        learn(one, 20, callback=note)
        assert at_first_step[0] == 200 == n_updates_of(one)
        at_first_step.clear()
    assert margin_violation(model, demonstrations) < 0.75 * margin_violation(plain, demonstrations)
    learn(model, 20, callback=note)
    assert at_first_step[0] == 200
    learn(model, 60)
    buffer: Any = model.replay_buffer
    drawn = buffer.sample_batch(500)
    assert 0.2 < float(drawn.demonstrations.double().mean()) < 1


def test_a_replay_buffer_from_another_device_moves_with_its_demonstrations(
    demonstrations: Transitions, tmp_path: Path
) -> None:
    model = make(demonstrations)
    learn(model, 30)
    buffer: Any = model.replay_buffer
    buffer.device = buffer.demonstrations.device = th.device("meta")  # in place of a GPU
    model.save_replay_buffer(tmp_path / "buffer")
    other = make(demonstrations)
    other.load_replay_buffer(tmp_path / "buffer")
    learn(other, 30)
    assert n_updates_of(other)


def test_diagnostics_measure_a_run_with_demonstrations(demonstrations: Transitions) -> None:
    for sampler in ("uniform", "prioritized"):
        model = make(demonstrations, replay_buffer_kwargs={"demonstrations": demonstrations, "sampler": sampler})
        records = learn(model, 200, callback=[ReplayHealthCallback(50), TDErrorsCallback(50)])
        assert any("replay/age_mean" in row and "errors/bootstrapped" in row for row in records.rows)


def legal_policy(observation: Any) -> int:
    return int(np.flatnonzero(observation["action_mask"])[-1])


COMBINATIONS: list[dict[str, Any]] = [
    {"n_steps": 3, "policy_kwargs": {"auxiliary_loss": "large_margin"}, "pretraining_updates": 3},
    {"n_envs": 3, "policy_kwargs": {"auxiliary_loss": "cql"}, "replay_buffer_kwargs": {"sampler": "uniform"}},
    {"replay_buffer_kwargs": {"monte_carlo": 0.5}, "n_envs": 2},
    {"optimize_memory_usage": True, "replay_buffer_kwargs": {"sampler": "uniform", "terminal_copies": 2}},
    {"replay_buffer_kwargs": {"keep_episodes": 4}, "n_steps": 2},
    {"n_epochs": 1, "train_freq": 20, "replay_buffer_kwargs": {"sampler": "uniform"}},
]


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_demonstrations_and_masks_with_other_choices(combination: dict[str, Any], tmp_path: Path) -> None:
    recorded = episodes(strict(), legal_policy, 6)

    def new() -> DQNExt:
        arguments: Any = {"n_steps": 1} | combination
        env = DummyVecEnv([strict] * arguments.pop("n_envs", 1))
        buffer = {"demonstrations": recorded, "sampler": "prioritized"} | arguments.pop("replay_buffer_kwargs", {})
        network = {"net_arch": [8]} | MASKED | arguments.pop("policy_kwargs", {})
        return make(recorded, env, replay_buffer_kwargs=buffer, policy_kwargs=network, **arguments)

    whole = new()
    learn(whole, 96)  # an illegal action would be an error
    learn(new(), 96, callback=[ExactCheckpointCallback(30, tmp_path), StopAt(70)])
    resumed = new().resume(tmp_path)
    assert 0 < resumed.num_timesteps < 96
    learn(resumed, 96, callback=ExactCheckpointCallback(1000, tmp_path))
    assert_same_model(resumed, whole)


def test_a_model_of_masked_spaces_learns_from_masked_data() -> None:
    env = gym.make("tests/Strict-v0")
    recorded = episodes(env, legal_policy, 6)
    spaces_only = SpacesEnv(env.observation_space, env.action_space)
    model = make(recorded, spaces_only, policy_kwargs={"net_arch": [8], "auxiliary_loss": "cql"} | MASKED)
    model.learn_offline(20, log_interval=5)
    assert n_updates_of(model) == 20
    model.set_env(env)
    model.learn_offline(20, callback=DiagnosticsCallback(5), log_interval=5)
    records = learn(model, 60, callback=DiagnosticsCallback(20))
    assert any("errors/td_error_mean" in row or "errors/bootstrapped" in row for row in records.rows)


class StopAt(BaseCallback):
    """
    Ends a run early.

    :param step: the last step
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self.step


def test_a_resumed_run_with_demonstrations_ends_with_the_same_bits(demonstrations: Transitions, tmp_path: Path) -> None:
    def new(source: Any = demonstrations) -> DQNExt:
        return make(source, pretraining_updates=30)

    whole = new()
    learn(whole, 160)
    learn(new(), 160, callback=[ExactCheckpointCallback(40, tmp_path), StopAt(90)])
    resumed = new().resume(tmp_path)
    learn(resumed, 160, callback=ExactCheckpointCallback(1000, tmp_path))
    assert_same_model(resumed, whole)
    buffers: list[Any] = [resumed.replay_buffer, whole.replay_buffer]
    assert_same(buffers[0].sampler.state_dict(), buffers[1].sampler.state_dict(), "sampler")
    other = Transitions(**vars(demonstrations) | {"rewards": demonstrations.rewards + 1})
    with pytest.raises(CheckpointError, match=r"150 demonstrations \(\w{8}\), and this one has .*150 demonstrations"):
        new(other).resume(tmp_path)


def test_a_saved_model_predicts_without_its_demonstrations_and_learns_with_them(
    demonstrations: Transitions, tmp_path: Path
) -> None:
    write_npz(tmp_path / "demonstrations.npz", demonstrations)
    model = make(str(tmp_path / "demonstrations.npz"))
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    learn(loaded, 40)
    (tmp_path / "demonstrations.npz").unlink()
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    actions, _ = loaded.predict(demonstrations.observations, deterministic=True)
    np.testing.assert_array_equal(actions, model.predict(demonstrations.observations, deterministic=True)[0])
    with pytest.raises(ArgumentError, match=r"demonstrations='.*demonstrations\.npz' cannot be read"):
        loaded.learn(10)
    make(demonstrations).save(tmp_path / "model")  # the data are in the file
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert_same_transitions(loaded.replay_buffer_kwargs["demonstrations"], demonstrations)
    loaded.learn_offline(5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_update_unit": "env_steps"}, "pretraining_updates=10 needs target_update_unit='gradient_steps'"),
        ({"replay_buffer_kwargs": {}, "policy_kwargs": {}}, r"pretraining_updates=10 needs replay_buffer_kwargs=\{'demonstr"),
        ({"pretraining_updates": -1}, r"pretraining_updates=-1 must be a whole number in \[0, inf\]"),
        ({"n_epochs": 2, "replay_buffer_kwargs": {"demonstrations": "HERE"}}, "has no meaning beside n_epochs"),
        (
            {"replay_buffer_class": ReplayBuffer, "replay_buffer_kwargs": {"demonstrations": "HERE"}},
            r"\['demonstrations'\]=.* is an argument of DQNReplayBuffer",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str, demonstrations: Transitions) -> None:
    kwargs = arguments.get("replay_buffer_kwargs", {})
    if "demonstrations" in kwargs:
        kwargs["demonstrations"] = demonstrations
    with pytest.raises(ArgumentError, match=message):
        make(demonstrations, **{"pretraining_updates": 10} | arguments)


# training without steps


def falling_rate(progress_remaining: float) -> float:
    return 1e-3 * progress_remaining


class Counting(BaseCallback):
    """Counts its calls and notes the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, int]] = []
        self.n_trainings = 0

    def _on_training_start(self) -> None:
        self.n_trainings += 1

    def _on_step(self) -> bool:
        self.steps.append((self.num_timesteps, n_updates_of(self.model)))
        return len(self.steps) < 70

    def _on_training_end(self) -> None:
        self.n_trainings += 1


def test_each_update_counts_as_a_step_of_callbacks_logs_and_schedules(demonstrations: Transitions, tmp_path: Path) -> None:
    model = make(demonstrations, learning_rate=falling_rate, tensorboard_log=str(tmp_path))
    evaluation = EvalCallback(Monitor(short_cartpole()), eval_freq=25, n_eval_episodes=1, log_path=str(tmp_path), verbose=0)
    records, counting = Records(), Counting()
    model.learn_offline(60, callback=[counting, evaluation], log_interval=20)
    assert counting.steps == [(step, step - 1) for step in range(1, 61)]
    assert counting.n_trainings == 2
    assert (model.num_timesteps, n_updates_of(model), model.replay_buffer.size()) == (60, 60, 0)  # type: ignore[union-attr]
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [25, 50]
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.0
    assert [path.name for path in tmp_path.glob("DQNExt_*")] == ["DQNExt_1"]
    model._logger.output_formats, model._custom_logger = [records], True
    model.learn_offline(45, log_interval=20, reset_num_timesteps=False)
    assert [row["step"] for row in records.rows] == [80, 100]
    assert all({"train/loss", "train/n_updates", "train/learning_rate"} <= row.keys() for row in records.rows)
    assert not any("rollout/exploration_rate" in row for row in records.rows)
    # a callback ends it: as with SB3, without the update of its last step
    model = make(demonstrations)
    model.learn_offline(100, callback=Counting())
    assert (model.num_timesteps, n_updates_of(model)) == (70, 69)
    learn(model, 30)
    assert model.num_timesteps == 30


def test_callbacks_that_read_steps_see_none(demonstrations: Transitions) -> None:
    seen: list[tuple[Any, ...]] = []

    def note(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        seen.append((locals_["self"], *(len(locals_[name]) for name in ("actions", "rewards", "dones", "infos"))))
        return True

    env = VecNormalize(DummyVecEnv([short_cartpole] * 2))
    model = make(demonstrations, env, check_finite=True)
    callbacks: list[Any] = [note, StopTrainingOnMaxEpisodes(1), StopTrainingOnEpisode(min_length=1)]
    learn(model, 10)
    model.learn_offline(20, callback=callbacks)
    assert seen == [(model, 0, 0, 0, 0)] * 10
    assert model.num_timesteps == 20
    with th.no_grad():
        next(model.q_net.parameters()).fill_(th.nan)
    with pytest.raises(NonFiniteError):
        model.learn_offline(20)


def test_the_target_network_is_updated_when_it_is_due(demonstrations: Transitions) -> None:
    for unit in ("gradient_steps", "env_steps"):
        model = make(demonstrations, target_update_unit=unit, target_update_interval=20)
        model.learn_offline(59)
        before = [parameter.clone() for parameter in model.q_net_target.parameters()]
        model.learn_offline(1, reset_num_timesteps=False)
        assert not all(map(th.equal, before, model.q_net_target.parameters())), unit
        model.learn_offline(15, reset_num_timesteps=False)
        after = list(model.q_net_target.parameters())
        model.learn_offline(2, reset_num_timesteps=False)
        assert all(map(th.equal, after, model.q_net_target.parameters())), unit


def test_a_model_of_spaces_learns_what_a_model_of_the_environment_learns(demonstrations: Transitions) -> None:
    env = short_cartpole()
    envs = env, SpacesEnv(env.observation_space, env.action_space)
    models = [make(demonstrations, one).learn_offline(20) for one in envs]
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")
    with pytest.raises(ArgumentError, match=r"spaces only: a model of it learns by learn_offline"):
        models[1].learn(5)


def test_several_environments_and_several_updates_at_a_time(demonstrations: Transitions) -> None:
    model = make(demonstrations, several_cartpoles(4), gradient_steps=6, buffer_size=240)
    model.learn_offline(26)
    assert (model.num_timesteps, n_updates_of(model)) == (26, 26)


@pytest.mark.parametrize("spaces_only", [False, True])
def test_a_resumed_offline_training_ends_with_the_same_bits(
    spaces_only: bool, demonstrations: Transitions, tmp_path: Path
) -> None:
    def new() -> DQNExt:
        env = short_cartpole()
        return make(demonstrations, SpacesEnv(env.observation_space, env.action_space) if spaces_only else env)

    whole = new().learn_offline(100)
    new().learn_offline(100, callback=[ExactCheckpointCallback(30, tmp_path), StopAt(70)])
    resumed = new().resume(tmp_path)
    assert resumed.num_timesteps == 60 == n_updates_of(resumed)
    resumed.learn_offline(100, callback=ExactCheckpointCallback(1000, tmp_path))
    assert_same_model(resumed, whole)


def test_a_loaded_replay_buffer_is_data_too(tmp_path: Path) -> None:
    stock = DQN("MlpPolicy", short_cartpole(), learning_starts=1000, train_freq=1, buffer_size=60, seed=0)
    stock.learn(50)
    stock.save_replay_buffer(tmp_path / "buffer")
    model = DQNExt("MlpPolicy", short_cartpole(), replay_buffer_class=ReplayBuffer, buffer_size=60, device="cpu", seed=0)
    with pytest.raises(ArgumentError, match=r"learn_offline\(\) needs transitions"):
        model.learn_offline(5)
    model.load_replay_buffer(tmp_path / "buffer")
    model.learn_offline(5)
    assert (n_updates_of(model), model.replay_buffer.size()) == (5, 50)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "n_updates", "message"),
    [
        ({}, -1, r"n_updates=-1 must be a whole number"),
        ({"n_epochs": 2, "replay_buffer_kwargs": {"demonstrations": "HERE"}}, 5, "draws random batches, and n_epochs=2"),
    ],
)
def test_wrong_offline_trainings_are_refused(
    arguments: dict[str, Any], n_updates: int, message: str, demonstrations: Transitions
) -> None:
    if "replay_buffer_kwargs" in arguments:
        arguments = arguments | {"replay_buffer_kwargs": {"demonstrations": demonstrations}}
    with pytest.raises(ArgumentError, match=message):
        make(demonstrations, **arguments).learn_offline(n_updates)
