"""Environments for evaluation: made like those of training, and no part of it."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec, load_env_creator
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    sync_envs_normalization,
)

from sb3_dqn_ext._arguments import check_environment
from sb3_dqn_ext._validation import parameters_of
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["EnvNotReproducibleError", "check_eval_env", "make_eval_env", "sync_normalization", "vectorize"]

Env = gym.Env[Any, Any]

# what records, and changes nothing
RECORDING_WRAPPERS = (
    *("Monitor", "ReplayWrapper", "RecordVideo", "RenderCollection", "HumanRendering"),
    "AtariWrapper",  # it puts the others on when it is made, and does no more
)
# SB3's wrappers do not record their arguments; under which names they keep them
ARGUMENT_ATTRIBUTES = {
    "NoopResetEnv": {"noop_max": "noop_max"},
    "MaxAndSkipEnv": {"skip": "_skip"},
    "StickyActionEnv": {"action_repeat_probability": "action_repeat_probability"},
    "WarpFrame": {"width": "width", "height": "height"},
}


class EnvNotReproducibleError(ArgumentError):
    """Another environment like those of training cannot be made."""


def make_eval_env(venv: VecEnv, n_envs: int, owner: str, render_mode: str | None = None) -> VecEnv:
    """
    Environments like those of training, with the same wrappers, but without a record in files, and without a window. They are
    not seeded.

    :param venv: the training environments
    :param n_envs: how many
    :param owner: who asks, for the message
    :param render_mode: of the environments
    :raises CannotMake: if it is not known how they were made, or they cannot be made again
    """
    try:
        inner, *around = layers_of(venv)
        spec = inner.spec if getattr(inner, "vectorization_mode", None) == "vector_entry_point" else inner.get_attr("spec")[0]
        if spec is None:
            raise EnvNotReproducibleError("they were not made by gymnasium.make")
        wrappers = [(wrapper, _arguments(wrapper, inner)) for wrapper in spec.additional_wrappers if _matters(wrapper)]
        kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        bare = replace(spec, additional_wrappers=(), kwargs=kwargs)
        made: VecEnv = DummyVecEnv([lambda: _make(bare, wrappers)] * n_envs)
        for layer in around:
            made = _around(layer, made)
    except Exception as error:  # whatever those raise who make them
        reason = str(error) if isinstance(error, EnvNotReproducibleError) else repr(error)
        raise EnvNotReproducibleError(
            f"{owner} cannot make environments like those of training: {reason}. Give it an eval_env of your own."
        ) from error
    return made


def _matters(wrapper: WrapperSpec) -> bool:
    return wrapper.name not in RECORDING_WRAPPERS


def _arguments(wrapper: WrapperSpec, venv: VecEnv) -> dict[str, Any]:
    """What the wrapper was told, beside the environment."""
    if wrapper.kwargs is not None:
        return wrapper.kwargs
    names = list(parameters_of(load_env_creator(wrapper.entry_point)))[1:]
    kept = ARGUMENT_ATTRIBUTES.get(wrapper.name, {})
    if not set(names) <= set(kept):
        raise EnvNotReproducibleError(
            f"the wrapper {wrapper.name} does not record its arguments (gymnasium.utils.RecordConstructorArgs), which are "
            f"{', '.join(names)}"
        )
    return {name: venv.get_attr(kept[name])[0] for name in names}


def _make(bare: EnvSpec, wrappers: list[tuple[WrapperSpec, dict[str, Any]]]) -> Env:
    env: Env = gym.make(bare, disable_env_checker=True)
    assert env.spec is not None
    n_of_its_own = sum(map(_matters, env.spec.additional_wrappers))  # which its entry point puts around
    for wrapper, arguments in wrappers[n_of_its_own:]:
        around: Any = load_env_creator(wrapper.entry_point)
        env = around(env, **arguments)
    return env


def _around(layer: VecEnvWrapper, venv: VecEnv) -> VecEnv:
    """A wrapper like another one."""
    if isinstance(layer, VecNormalize):
        return VecNormalize(
            venv,
            training=False,
            norm_obs=layer.norm_obs,
            norm_reward=False,
            clip_obs=layer.clip_obs,
            epsilon=layer.epsilon,
            norm_obs_keys=layer.norm_obs_keys,
        )
    if isinstance(layer, VecFrameStack):
        stacked: Any = layer.stacked_obs
        parts = getattr(stacked, "sub_stacked_observations", None)
        first = {key: part.channels_first for key, part in parts.items()} if parts else stacked.channels_first
        order = map_observation(lambda is_first: "first" if is_first else "last", first)
        return VecFrameStack(venv, stacked.n_stack, order)
    if isinstance(layer, VecTransposeImage):
        return VecTransposeImage(venv, layer.skip)
    if isinstance(layer, VecExtractDictObs):
        return VecExtractDictObs(venv, layer.key)
    if isinstance(layer, (VecMonitor, VecCheckNan)):
        return venv
    raise EnvNotReproducibleError(f"it is not known how a {type(layer).__name__} is made")


def vectorize(env: Env | VecEnv) -> VecEnv:
    """
    :param env: an environment, or several
    :return: the same in a VecEnv
    """
    check_environment(env)
    return env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])


def check_eval_env(model: Any, env: VecEnv, owner: str) -> None:
    """
    :param model: which is to play
    :param env: where
    :param owner: who asks, for the message
    :raises ArgumentError: if it cannot
    """
    if _games(env) & _games(model.get_env()):
        raise ArgumentError(f"The eval_env of {owner} must not be the environment of training, which it would disturb.")
    try:
        check_for_correct_spaces(env, model.observation_space, model.action_space)
        sync_normalization(model, env)
    except (ValueError, AssertionError) as error:
        raise ArgumentError(
            f"The eval_env of {owner} must have the spaces of the training environments, and the same wrappers around them, "
            f"such as VecNormalize: {error}"
        ) from error


def _games(venv: VecEnv) -> set[int]:
    """What is stepped in the end, without wrappers."""
    bare: Any = venv.unwrapped
    return {id(env.unwrapped) for env in getattr(bare, "envs", [])} | {id(bare)}


def sync_normalization(model: Any, env: VecEnv) -> None:
    """
    :param model: whose VecNormalize counts, if it has one
    :param env: normalises by the same numbers from now on
    """
    if model.get_vec_normalize_env() is not None:
        sync_envs_normalization(model.get_env(), env)
