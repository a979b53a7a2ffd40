"""Return types of environments: DQNExt learns the same from unusual types as SB3's DQN from bools and arrays."""

from collections.abc import Callable
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.dqn.policies import DQNPolicy

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks.diagnostics.evaluation import play
from sb3_dqn_ext.callbacks.episodes import EpisodeFinder
from sb3_dqn_ext.errors import ArgumentError
from tests.internals import n_updates_of
from tests.parity import assert_same, several_cartpoles, short_cartpole

Array = npt.NDArray[Any]
Step = tuple[Any, Any, Any, Any]
N_ENVS = 3


class Returning(VecEnvWrapper):
    """A vector environment whose results are converted to other types."""

    def __init__(self, venv: VecEnv, form: Callable[[Step], Step]) -> None:
        super().__init__(venv)
        self.form = form

    def reset(self) -> Any:
        n = self.num_envs
        return self.form((self.venv.reset(), np.zeros(n, np.float32), np.zeros(n, bool), [{} for _ in range(n)]))[0]

    def step_wait(self) -> Any:
        return self.form(self.venv.step_wait())


class InTheSameArrays:
    """Return each step in the arrays and dictionaries of the previous step."""

    def __init__(self) -> None:
        self.step: Any = None

    def __call__(self, step: Step) -> Step:
        if self.step is None:
            self.step = (*(np.array(part) for part in step[:3]), [{} for _ in step[3]])
        for kept, part in zip(self.step[:3], step[:3], strict=True):
            kept[:] = part
        for kept, info in zip(self.step[3], step[3], strict=True):
            kept.update(info)
        return self.step  # type: ignore[no-any-return]


def unchanged(step: Step) -> Step:
    return step


def ends(form: Callable[[Array], Any]) -> Callable[[Step], Step]:
    return lambda step: (step[0], step[1], form(step[2]), step[3])


def rewards(form: Callable[[Array], Any]) -> Callable[[Step], Step]:
    return lambda step: (step[0], form(step[1]), step[2], step[3])


def observations(form: Callable[[Array], Any]) -> Callable[[Step], Step]:
    def last(info: dict[str, Any]) -> dict[str, Any]:
        return {key: form(part) if key == "terminal_observation" else part for key, part in info.items()}

    return lambda step: (form(step[0]), step[1], step[2], [last(info) for info in step[3]])


def limits(form: Callable[[bool], Any]) -> Callable[[Step], Step]:
    def of(info: dict[str, Any]) -> dict[str, Any]:
        return {key: form(part) if key == "TimeLimit.truncated" else part for key, part in info.items()}

    return lambda step: (*step[:3], tuple(of(info) for info in step[3]))


def mirrored(array: Array) -> Array:
    """Return an equal array with reversed order in memory."""
    backwards: Array = array[..., ::-1].copy()[..., ::-1]
    return backwards


def read_only(array: Array) -> Array:
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


FORMS: dict[str, Callable[[Step], Step]] = {
    "ends of 0 and 1": ends(lambda array: array.astype(np.uint8)),
    "ends of 0.0 and 1.0": ends(lambda array: array.astype(np.float32)),
    "ends in a list": ends(lambda array: [int(end) for end in array]),
    "ends in a tensor": ends(th.as_tensor),
    "whole rewards": rewards(lambda array: array.astype(np.int64)),
    "rewards in a list": rewards(lambda array: [np.array(reward, np.float64) for reward in array]),
    "mirrored observations": observations(mirrored),
    "observations in the order of Fortran": observations(np.asfortranarray),
    "observations that are read only": observations(read_only),
    "observations in double precision": observations(lambda array: array.astype(np.float64)),
    "infos in a tuple with limits of numpy": limits(np.bool_),
    "limits of 0 and 1": limits(int),
}


def learned(algorithm: type[DQN], env: VecEnv, steps: int = 120, **kwargs: Any) -> list[Array]:
    """Train a model and return its weights and its replay buffer."""
    small: dict[str, Any] = {"learning_starts": 30, "buffer_size": 300, "batch_size": 8, "train_freq": 4, "seed": 0}
    small |= {"device": "cpu", "policy_kwargs": {"net_arch": [8]}, "target_update_interval": 30}
    if algorithm is DQNExt:
        small["exploration_kwargs"] = {"epsilon_draw": "shared"}
    model = algorithm("MlpPolicy", env, **(small | kwargs))
    model.learn(steps)
    memory: Any = model.replay_buffer
    arrays = [memory.observations, memory.next_observations, memory.actions, memory.rewards, memory.dones, memory.timeouts]
    assert memory.dones.any()
    return [*(weight.detach().numpy() for weight in model.policy.parameters()), *arrays]


def same(ours: list[Array], theirs: list[Array]) -> bool:
    return all(map(np.array_equal, ours, theirs))


@cache
def stock() -> list[Array]:
    return learned(DQN, several_cartpoles(N_ENVS))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_form_of_what_is_returned_makes_no_difference(form: Callable[[Step], Step]) -> None:
    assert same(learned(DQNExt, Returning(several_cartpoles(N_ENVS), form)), stock())


@pytest.mark.parametrize("kwargs", [{}, {"replay_buffer_class": ReplayBuffer}])
def test_steps_may_be_written_into_the_same_arrays(kwargs: dict[str, Any]) -> None:
    assert same(learned(DQNExt, Returning(several_cartpoles(N_ENVS), InTheSameArrays()), **kwargs), stock())


@cache
def with_extras(form: Callable[[Step], Step]) -> list[Array]:
    return learned(
        DQNExt,
        Returning(several_cartpoles(N_ENVS), form),
        exploration="ez_greedy",
        exploration_kwargs={"schedule": 0.3},
        n_steps=3,
        replay_buffer_kwargs={"terminal_copies": 2, "keep_episodes": 8},
        check_finite=True,
    )


@pytest.mark.parametrize("form", ["ends of 0 and 1", "ends of 0.0 and 1.0", "rewards in a list"])
def test_what_uses_ends_as_an_index_takes_them_in_any_form(form: str) -> None:
    assert same(with_extras(FORMS[form]), with_extras(unchanged))


def test_an_end_may_be_an_array_of_one_number_for_each_environment() -> None:
    assert same(learned(DQNExt, Returning(several_cartpoles(N_ENVS), ends(lambda array: array[:, None]))), stock())


def test_a_stale_time_limit_flag_in_an_info_does_not_truncate_returns() -> None:
    def still_told(step: Step) -> Step:
        for info in step[3]:
            info["TimeLimit.truncated"] = bool(info.get("TimeLimit.truncated")) or "terminal_observation" not in info
        return step

    venvs = several_cartpoles(N_ENVS), Returning(several_cartpoles(N_ENVS), still_told)
    expected, got = (learned(DQNExt, venv, n_steps=3) for venv in venvs)
    assert same(got, expected)


def test_the_value_of_a_last_observation_that_is_left_out_is_that_of_the_one_observed() -> None:
    steps: list[Step] = []

    def without(step: Step) -> Step:
        for info in step[3]:
            info.pop("terminal_observation", None)
        steps.append(step)
        return step

    venv = Returning(DummyVecEnv([lambda: short_cartpole(5)]), without)
    model = DQNExt("MlpPolicy", venv, gamma=0.9, device="cpu")
    (played,) = play(model, venv, n_episodes=1, max_steps=100, deterministic=True, seed=0)
    with th.no_grad():
        value = model.q_net(th.as_tensor(steps[-1][0])).max().item()
    assert played.realised[-1] == pytest.approx(1 + 0.9 * value)


# -- infos that are used again ----------------------------------------------------------------------------------------------


class OneInfo(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that reuses one dictionary for all infos."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.info: dict[str, Any] = {}

    def step(self, action: Any) -> Any:
        return (*self.env.step(action)[:4], self.info)


class Counting(BaseCallback):
    """Record the returns of all episodes by the callbacks of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.returns: list[float] = []
        self._ended = EpisodeFinder("Counting")

    def _on_step(self) -> bool:
        self.returns += [episode.total for episode in self._ended(self.locals)]
        return True


@pytest.mark.parametrize("algorithm", [DQN, DQNExt])
def test_an_episode_counts_once_where_an_environment_uses_its_info_again(algorithm: type[DQN]) -> None:
    def counted(make: Callable[[], gym.Env[Any, Any]]) -> tuple[list[float], list[float]]:
        model = algorithm("MlpPolicy", DummyVecEnv([make] * 2), learning_starts=1000, seed=0)
        model.learn(200, callback=(callback := Counting()))
        return callback.returns, [record["r"] for record in model.ep_info_buffer or ()]

    plain, used_again = (
        counted(make) for make in (lambda: Monitor(short_cartpole()), lambda: Monitor(OneInfo(short_cartpole())))
    )
    assert plain[0] == plain[1] == used_again[0]
    assert len(plain[0]) > 8
    if algorithm is DQNExt:  # SB3's list contains it several times
        assert used_again[1] == plain[1]


# -- spaces -----------------------------------------------------------------------------------------------------------------


class Numbers(gym.Env[Any, Any]):
    """An environment with discrete observations that begin at the start of the space."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: Any) -> None:
        self.observation_space = space
        self.random = np.random.default_rng(0)

    def observed(self, space: Any) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self.observed(part) for key, part in space.items()}
        n: Any = space.n if isinstance(space, spaces.Discrete) else space.nvec
        return space.start + self.random.integers(n)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.n_steps = 0
        return self.observed(self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        return self.observed(self.observation_space), float(action), self.n_steps == 5, False, {}


def grid(*start: int) -> spaces.Space[Any]:
    return spaces.Dict(
        at=spaces.MultiDiscrete(np.array([3, 4]), start=np.array(start[:2])), on=spaces.Discrete(4, start=start[2])
    )


@pytest.mark.parametrize(
    ("space", "from_zero"), [(spaces.Discrete(4, start=-2), spaces.Discrete(4)), (grid(1, -7, 5), grid(0, 0, 0))]
)
def test_numbers_that_begin_elsewhere_are_learned_from_as_numbers_from_0(space: Any, from_zero: Any) -> None:
    def trained(algorithm: type[DQN], space: Any) -> DQN:
        policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
        model = algorithm(policy, Numbers(space), learning_starts=10, buffer_size=100, batch_size=4, seed=0, device="cpu")
        return model.learn(40)

    ours, theirs = trained(DQNExt, space), trained(DQN, from_zero)
    assert n_updates_of(ours) > 0
    assert_same(ours.get_parameters(), theirs.get_parameters(), "parameters")
    seen = [Numbers(one).reset()[0] for one in (space, from_zero)]
    assert ours.predict(seen[0], deterministic=True)[0] == theirs.predict(seen[1], deterministic=True)[0]


@pytest.mark.parametrize(
    ("policy", "space", "message"),
    [
        (DQNPolicy, spaces.Discrete(4, start=1), r"DQNPolicy does not support .*start=1\), which does not start at 0"),
        (
            "MlpPolicy",
            spaces.Box(-1, 1, (), np.float32),
            r"Box\(.* of shape \(\) are not supported by a network: .*FlattenObservation",
        ),
        (
            "MlpPolicy",
            spaces.MultiDiscrete(np.array([[2, 3], [2, 2]])),
            r"MultiDiscrete(.|\n)* of shape \(2, 2\) are not supported .*FlattenObservation",
        ),
        ("MlpPolicy", spaces.Box(-1, 1, (0,), np.float32), r"Box\(.* of shape \(0,\) contain no number: leave them out"),
        (
            "MultiInputPolicy",
            spaces.Dict(a=spaces.Box(-1, 1, (2, 0), np.float32), b=spaces.Discrete(2)),
            r"Box\(.* of shape \(2, 0\) contain no number: leave them out",
        ),
        ("MultiInputPolicy", spaces.Dict(), r"Dict\(\) has no parts, so that there is nothing to learn from"),
    ],
)
def test_a_space_that_no_network_reads_is_refused(policy: Any, space: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        DQNExt(policy, Numbers(space))


# -- observations for predict() ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [mirrored, read_only])
@pytest.mark.parametrize(
    ("policy", "space"),
    [("MlpPolicy", spaces.Box(-1, 1, (4,), np.float32)), ("CnnPolicy", spaces.Box(0, 255, (1, 36, 36), np.uint8))],
)
def test_predict_takes_observations_in_any_memory_layout(policy: str, space: Any, form: Callable[[Array], Array]) -> None:
    model = DQNExt(policy, gym.make("CartPole-v1"), _init_setup_model=False)
    model.observation_space, model.env = space, None
    model._setup_model()
    seen = np.stack([space.sample() for _ in range(5)])
    expected = model.q_net(th.as_tensor(seen)).argmax(dim=1).numpy()
    np.testing.assert_array_equal(model.predict(form(seen), deterministic=True)[0], expected)


# -- values that are not environments------------------------------------------------------------------------------------------


def test_a_vector_environment_of_gymnasium_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"CartPoleVectorEnv.* is not an environment: .*make_fast_vec_env\(id, n_envs\)"):
        DQNExt("MlpPolicy", gym.make_vec("CartPole-v1", 2))  # type: ignore[arg-type]


def test_functions_for_jax_are_refused() -> None:
    kind = type("Ant", (), {"__module__": "brax.envs.ant"})
    with pytest.raises(ArgumentError, match=r"an environment of brax consists of functions for jax.*gymnasium.Env"):
        DQNExt("MlpPolicy", kind())
