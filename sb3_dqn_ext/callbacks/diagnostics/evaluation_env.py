"""Evaluation environments that are made like those of training and are separate from them."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy.typing as npt
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
    unwrap_vec_normalize,
)

from sb3_dqn_ext._arguments import check_environment
from sb3_dqn_ext._validation import parameters_of
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["EnvNotReproducibleError", "check_eval_env", "make_eval_env", "original_rewards", "sync_normalization", "vectorize"]

Array = npt.NDArray[Any]
Env = gym.Env[Any, Any]

RECORDING_WRAPPERS = (
    *("Monitor", "ReplayWrapper", "RecordVideo", "RenderCollection", "HumanRendering"),
    "AtariWrapper",  # it applies other wrappers when it is made, and does no more
)
"""the names of wrappers that record episodes, and change neither observations nor rewards"""
ARGUMENT_ATTRIBUTES = {
    "NoopResetEnv": {"noop_max": "noop_max"},
    "MaxAndSkipEnv": {"skip": "_skip"},
    "StickyActionEnv": {"action_repeat_probability": "action_repeat_probability"},
    "WarpFrame": {"width": "width", "height": "height"},
}
"""the attributes in which SB3's wrappers keep the arguments of their constructors, as no EnvSpec records these"""


class EnvNotReproducibleError(ArgumentError):
    """Another environment like those of training cannot be made."""


def make_eval_env(venv: VecEnv, n_envs: int, owner: str, render_mode: str | None = None) -> VecEnv:
    """
    Make environments like those of training, with the same wrappers, but without records in files and without a window. They
    are not seeded.

    :param venv: the training environments
    :param n_envs: the number of environments
    :param owner: the name of the callback, for the message
    :param render_mode: the render mode of the environments
    :return: the environments
    :raises EnvNotReproducibleError: if the arguments of an environment or of a wrapper are not recorded, or making them fails
    """
    try:
        inner, *layers = layers_of(venv)
        has_vector_form = getattr(inner, "vectorization_mode", None) == "vector_entry_point"
        spec = inner.spec if has_vector_form else inner.get_attr("spec")[0]
        if spec is None:
            raise EnvNotReproducibleError("they were not made by gymnasium.make")
        wrappers = [(one, _wrapper_arguments(one, inner)) for one in spec.additional_wrappers if _changes_steps(one)]
        kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        bare = replace(spec, additional_wrappers=(), kwargs=kwargs)
        made: VecEnv = DummyVecEnv([lambda: _make_env(bare, wrappers)] * n_envs)
        if has_vector_form and inner.observation_space != made.observation_space:
            made.close()  # the vector form is another environment, as of Atari
            made = _make_vector_form(inner, n_envs, render_mode)
        for layer in layers:
            made = _copy_wrapper(layer, made)
    except Exception as error:  # constructors of environments may raise any error
        reason = str(error) if isinstance(error, EnvNotReproducibleError) else repr(error)
        raise EnvNotReproducibleError(
            f"{owner} cannot make environments like those of training: {reason}. Give it an eval_env."
        ) from error
    return made


def _make_vector_form(venv: Any, n_envs: int, render_mode: str | None) -> VecEnv:
    """Make environments by the vector entry point of a FastVecEnv, with the same arguments."""
    factory = replace(venv.factories[0].without_file(), seed=None)
    kwargs = {} if render_mode is None else {"render_mode": render_mode}
    made: VecEnv = type(venv)([factory] * n_envs, venv.vectorization_mode, kwargs)
    return made


def _changes_steps(wrapper: WrapperSpec) -> bool:
    """Return whether a wrapper can change observations, rewards or ends of episodes."""
    return wrapper.name not in RECORDING_WRAPPERS


def _wrapper_arguments(wrapper: WrapperSpec, venv: VecEnv) -> dict[str, Any]:
    """Return the arguments of a wrapper of the training environments, beside the environment."""
    if wrapper.kwargs is not None:
        return wrapper.kwargs
    names = list(parameters_of(load_env_creator(wrapper.entry_point)))[1:]
    attributes = ARGUMENT_ATTRIBUTES.get(wrapper.name, {})
    if not set(names) <= set(attributes):
        raise EnvNotReproducibleError(
            f"the wrapper {wrapper.name} does not record its arguments (gymnasium.utils.RecordConstructorArgs), which are "
            f"{', '.join(names)}"
        )
    return {name: venv.get_attr(attributes[name])[0] for name in names}


def _make_env(bare: EnvSpec, wrappers: list[tuple[WrapperSpec, dict[str, Any]]]) -> Env:
    """Make an environment from its specification without wrappers, and apply wrappers with their arguments."""
    env: Env = gym.make(bare, disable_env_checker=True)
    assert env.spec is not None
    n_applied = sum(map(_changes_steps, env.spec.additional_wrappers))  # by the entry point itself
    for wrapper, arguments in wrappers[n_applied:]:
        wrap: Any = load_env_creator(wrapper.entry_point)
        env = wrap(env, **arguments)
    return env


def _copy_wrapper(layer: VecEnvWrapper, venv: VecEnv) -> VecEnv:
    """Wrap environments in a wrapper like one of the training environments."""
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
    raise EnvNotReproducibleError(f"a {type(layer).__name__} is not supported")


def vectorize(env: Env | VecEnv) -> VecEnv:
    """
    Wrap an environment in a VecEnv, unless it is one.

    :param env: an environment, or several
    :return: the VecEnv
    """
    check_environment(env)
    return env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])


def check_eval_env(model: Any, env: VecEnv, owner: str) -> None:
    """
    Check that a model can play in environments without changing those of training.

    :param model: the model
    :param env: the evaluation environments
    :param owner: the name of the callback, for the message
    :raises ArgumentError: if it cannot
    """
    if _base_envs(env) & _base_envs(model.get_env()):
        raise ArgumentError(f"The eval_env of {owner} must not be the environment of training, which it would disturb.")
    try:
        check_for_correct_spaces(env, model.observation_space, model.action_space)
        sync_normalization(model, env)
    except (ValueError, AssertionError) as error:
        raise ArgumentError(
            f"The eval_env of {owner} must have the spaces of the training environments, and the same wrappers around them, "
            f"such as VecNormalize: {error}"
        ) from error


def _base_envs(venv: VecEnv) -> set[int]:
    """Return the identities of the environments below all wrappers."""
    bare: Any = venv.unwrapped
    return {id(env.unwrapped) for env in getattr(bare, "envs", [])} | {id(bare)}


def sync_normalization(model: Any, env: VecEnv) -> None:
    """
    Give evaluation environments the current normalisation statistics of training.

    :param model: a model, with or without a VecNormalize
    :param env: the evaluation environments
    """
    if model.get_vec_normalize_env() is not None:
        sync_envs_normalization(model.get_env(), env)


def original_rewards(env: VecEnv, rewards: Array) -> Array:
    """
    Return the rewards of the latest step in the unit of the environment.

    :param env: the environments that made the step, with or without a VecNormalize
    :param rewards: (n_envs,) the rewards that ``env.step`` returned
    :return: (n_envs,) the rewards before a VecNormalize normalised them
    """
    normalize = unwrap_vec_normalize(env)
    return rewards if normalize is None else normalize.get_original_reward()
