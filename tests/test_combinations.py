"""Every legal pair of choices is built, trained, saved, loaded and trained again."""

from collections.abc import Iterator
from itertools import combinations, islice, product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from allpairspy import AllPairs

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.exploration import EXPLORATIONS
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.envs import ActionMaskInObservation
from sb3_dqn_ext.networks.heads import HEADS
from sb3_dqn_ext.networks.norms import NORMS
from sb3_dqn_ext.replay.samplers import SAMPLERS
from tests.internals import n_updates_of
from tests.parity import InParts, assert_same, learn, several_cartpoles

RETURNS_KWARGS: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"n_atoms": 7, "v_min": 0, "v_max": 20},
    "quantile": {"n_quantiles": 5},
    "implicit_quantile": {"n_quantiles": 3, "n_target_quantiles": 4, "n_policy_quantiles": 5, "embedding_dim": 6},
    "hl_gauss": {"n_bins": 7, "v_min": 0, "v_max": 20},
}
HEAD_ARCH = {"shared": [], "multi_head": [5], "dueling": [5], "action_input": [5]}
MULTISTEP: dict[str, tuple[int, dict[str, Any]]] = {
    "1 step": (1, {}),
    "3 steps": (3, {}),
    "Monte-Carlo": (1, {"monte_carlo": 1.0}),
    "mixed": (3, {"monte_carlo": 0.5}),
    "lambda": (1, {"td_lambda": 0.6}),
}

Combination = dict[str, Any]
Axes = dict[str, list[Any]]

CHOICES: Axes = {
    "multistep": list(MULTISTEP),
    "target_policy": sorted(TARGET_POLICIES),
    "exploration": sorted(EXPLORATIONS),
    "sampler": sorted(SAMPLERS),
    "returns": sorted(RETURN_MODELS),
    "head": sorted(HEADS),
    "noisy": [False, True],
}
SETTINGS: Axes = {
    "terminal_copies": [1, 3],
    "keep_episodes": [None, 2],
    "compact": [False, True],
    "observations": ["Box", "Dict", "image", "masked"],
    "norm": sorted(NORMS),
    "n_envs": [1, 4],
    "target_network": [True, False],
    "dtype": ["float32", "float64"],
    "train_freq": [4, (1, "episode")],
}
AXES = CHOICES | SETTINGS


def is_legal(combination: Combination) -> bool:
    return combination.get("multistep") != "lambda" or combination.get("target_policy", "greedy") == "greedy"


def pairwise(axes: Axes = AXES) -> list[Combination]:
    """Return combinations that contain every legal pair of values."""
    rows = AllPairs(list(axes.values()), filter_func=lambda row: is_legal(dict(zip(axes, row, strict=False))))
    found = [dict(zip(axes, values, strict=True)) for values in rows]
    # with a filter, AllPairs misses a few pairs
    for first, second in combinations(axes, 2):
        for pair in product(axes[first], axes[second]):
            if not any((one[first], one[second]) == pair for one in found):
                changed = (one | dict(zip((first, second), pair, strict=True)) for one in found)
                found.extend(islice(filter(is_legal, changed), 1))
    return found


def all_choices() -> Iterator[Combination]:
    """Return the legal part of the full product of the five choices, with the settings in turn."""
    settings = [list(values) for values in SETTINGS.values()]
    for i, values in enumerate(product(*CHOICES.values())):
        around = {
            key: options[(i >> j) % len(options)] for j, (key, options) in enumerate(zip(SETTINGS, settings, strict=True))
        }
        if is_legal(chosen := dict(zip(CHOICES, values, strict=True))):
            yield chosen | around


class AsImage(gym.ObservationWrapper[Any, Any, Any]):
    """A wrapper that shows the signs of CartPole's four numbers as an image of bool with four channels."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        dtype: Any = np.bool_
        self.observation_space = gym.spaces.Box(0, 1, (5, 5, 4), dtype)

    def observation(self, observation: Any) -> Any:
        return np.tile(observation > 0, (5, 5, 1))


def half_masked(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Wrap CartPole so that action 1 is illegal in the left half of the track."""
    masked: gym.Env[Any, Any] = ActionMaskInObservation(env, lambda env, _: np.array([True, env.unwrapped.state[0] > 0]))
    return masked


POLICIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Box": ("MlpPolicy", {}, {}),
    "Dict": ("MultiInputPolicy", {"wrapper": InParts}, {}),
    "masked": ("MlpPolicy", {"wrapper": half_masked}, {"action_masks": True}),
    "image": ("CnnPolicy", {"wrapper": AsImage}, {"encoder": "minatar", "encoder_kwargs": {"features_dim": 8}}),
}


def make_env(combination: Combination) -> Any:
    env = several_cartpoles(combination["n_envs"], **POLICIES[combination["observations"]][1])
    env.seed(0)
    return env


def make(combination: Combination) -> DQNExt:
    n_steps, multistep_kwargs = MULTISTEP[combination["multistep"]]
    keep_episodes = combination["keep_episodes"]
    if keep_episodes and combination["sampler"] == "vector_steps":
        keep_episodes = 4 * combination["n_envs"]  # with fewer, no row may be complete in all environments
    policy, _, network = POLICIES[combination["observations"]]
    return DQNExt(
        policy,
        make_env(combination),
        exploration=combination["exploration"],
        target_policy=combination["target_policy"],
        target_network=combination["target_network"],
        n_steps=n_steps,
        optimize_memory_usage=combination["compact"],
        train_freq=combination["train_freq"],
        replay_buffer_kwargs={
            "sampler": combination["sampler"],
            **multistep_kwargs,
            "keep_episodes": keep_episodes,
            "terminal_copies": combination["terminal_copies"],
        },
        policy_kwargs={
            "net_arch": [8],
            "head": combination["head"],
            "head_arch": HEAD_ARCH[combination["head"]],
            "returns": combination["returns"],
            "returns_kwargs": RETURNS_KWARGS[combination["returns"]],
            "noisy": combination["noisy"],
            "dtype": combination["dtype"],
            "norm": combination["norm"],
            **network,
        },
        buffer_size=160,
        learning_starts=100,
        batch_size=8,
        seed=0,
        device="cpu",
    )


def check(combination: Combination, folder: Path) -> None:
    model = make(combination)
    learn(model, 130)
    assert n_updates_of(model) > 0
    model.save(folder / "model")
    loaded = [DQNExt.load(folder / "model", env=make_env(combination)) for _ in range(2)]
    assert model.env is not None
    obs: Any = model.env.reset()
    actions, _ = model.predict(obs, deterministic=True)
    for other in loaded:
        assert_same(other.get_parameters(), model.get_parameters(), "parameters")
        assert_same(other.predict(obs, deterministic=True)[0], actions, "actions")
        other.set_random_seed(1)
        other.learning_starts = 230
        learn(other, 130, reset_num_timesteps=False)
    assert_same(loaded[0].get_parameters(), loaded[1].get_parameters(), "parameters after more training")
    assert n_updates_of(loaded[0]) > n_updates_of(model)
    for parameter in loaded[0].q_net.parameters():
        assert np.isfinite(parameter.detach().numpy()).all()


def identifier(combination: Combination) -> str:
    return " ".join(str(value) for value in combination.values())


@pytest.mark.parametrize("combination", pairwise(), ids=identifier)
def test_every_pair_of_choices_is_trained_saved_loaded_and_continued(combination: Combination, tmp_path: Path) -> None:
    check(combination, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("combination", list(all_choices()), ids=identifier)
def test_every_combination_of_the_five_choices_is_trained_saved_loaded_and_continued(
    combination: Combination, tmp_path: Path
) -> None:
    check(combination, tmp_path)


def test_the_combinations_contain_all_pairs() -> None:
    rows = pairwise()
    for (first, firsts), (second, seconds) in product(AXES.items(), AXES.items()):
        if first < second:
            found = {(str(one[first]), str(one[second])) for one in rows}
            legal = {(str(a), str(b)) for a, b in product(firsts, seconds) if is_legal({first: a, second: b})}
            assert found == legal, (first, second)
