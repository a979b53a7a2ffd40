"""
The names of Stable-Baselines3 that are not public there and that this package uses.

With a version that lacks one of them this package cannot work; the test shows which. Those of the RL Zoo's manager are in
``sb3_dqn_ext.zoo.manager.OVERRIDDEN_METHODS`` and are tested with the start-up hook.
"""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import stable_baselines3
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

import sb3_dqn_ext
from tests.paths import ROOT

USED: dict[type, set[str]] = {
    DQN: {
        # methods that DQNExt overrides
        *("_convert_train_freq", "_create_aliases", "_excluded_save_params", "_get_policy_from_name", "_on_step"),
        *("_setup_learn", "_setup_model", "_store_transition", "_update_info_buffer", "_wrap_env"),
        # methods that it calls
        *("_get_torch_save_params", "_sample_action", "_setup_lr_schedule", "_update_current_progress_remaining"),
        "_update_learning_rate",
        # attributes
        *("_current_progress_remaining", "_custom_logger", "_episode_num", "_last_episode_starts", "_last_obs"),
        *("_last_original_obs", "_logger", "_n_calls", "_n_updates", "_num_timesteps_at_start", "_stats_window_size"),
        *("_total_timesteps", "_vec_normalize_env"),
    },
    DQNPolicy: {"_build", "_get_constructor_parameters", "_predict", "_update_features_extractor"},
    QNetwork: {"_get_constructor_parameters", "_predict"},
    ReplayBuffer: {"_get_samples", "_maybe_cast_dtype", "_normalize_obs", "_normalize_reward"},
    BaseCallback: {
        *("_init_callback", "_on_rollout_end", "_on_rollout_start", "_on_step", "_on_training_end", "_on_training_start"),
    },
    DummyVecEnv: {"_get_indices", "_options", "_reset_options", "_reset_seeds", "_save_obs", "_seeds"},
}
LISTED = {name for names in USED.values() for name in names}


class _Nothing(BaseCallback):
    def _on_step(self) -> bool:
        return True


@pytest.fixture(scope="module")
def objects() -> dict[type, object]:
    """An object of each class, after a short training."""
    env = make_vec_env("CartPole-v1", vec_env_cls=DummyVecEnv)
    model = DQN("MlpPolicy", env, buffer_size=100, device="cpu").learn(1)
    assert model.replay_buffer is not None
    return {
        DQN: model,
        DQNPolicy: model.policy,
        QNetwork: model.q_net,
        ReplayBuffer: model.replay_buffer,
        BaseCallback: _Nothing(),
        DummyVecEnv: env,
    }


@pytest.mark.parametrize("owner", USED, ids=lambda owner: owner.__name__)
def test_what_is_used_exists(owner: type, objects: dict[type, object]) -> None:
    assert not [name for name in sorted(USED[owner]) if not hasattr(objects[owner], name)]


def modules() -> Iterator[str]:
    """The modules of this package, without commands and without those that import the zoo."""
    for module in pkgutil.walk_packages(sb3_dqn_ext.__path__[:1], "sb3_dqn_ext."):
        if not module.name.endswith("__main__") and ".zoo" not in module.name:
            yield module.name


def overridden(kind: type) -> set[str]:
    """The private methods of Stable-Baselines3 that a class of this package defines anew."""
    theirs = {name for base in kind.__mro__ if base.__module__.startswith("stable_baselines3.") for name in vars(base)}
    return {name for name in vars(kind).keys() & theirs if name.startswith("_") and not name.startswith(("__", "_abc_"))}


def test_what_is_overridden_is_listed() -> None:
    kinds = [
        kind
        for name in modules()
        for kind in vars(importlib.import_module(name)).values()
        if isinstance(kind, type) and kind.__module__ == name
    ]
    found = {f"{kind.__name__}.{name}" for kind in kinds for name in overridden(kind) if name not in LISTED}
    assert not found
    assert "_setup_model" in overridden(sb3_dqn_ext.DQNExt)


def private(folder: Path, define: bool) -> set[str]:
    """The private names of attributes and methods that the modules of a folder define, or else read."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) == define:
                names.add(node.attr)
            elif define and isinstance(node, ast.FunctionDef):
                names.add(node.name)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_what_is_read_is_listed() -> None:
    ours, theirs = ROOT / "sb3_dqn_ext", Path(stable_baselines3.__file__).parent
    of_sb3 = private(ours, define=False) & private(theirs, define=True)
    assert of_sb3 - private(ours, define=True) - LISTED == set()
    assert "_vec_normalize_env" in of_sb3
