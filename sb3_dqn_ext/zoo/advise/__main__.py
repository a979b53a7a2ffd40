"""``python -m sb3_dqn_ext.zoo advise ENV_ID``: print a starting configuration for an environment."""

import argparse
import contextlib
import difflib
import importlib
import itertools
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import yaml
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_dqn_ext._command_line import print_text
from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.algorithm.action_masks import ACTION_MASK
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.encoders import is_image
from sb3_dqn_ext.zoo.advise.env_facts import Env, EnvFacts, Wrapper, contains_masks, measure
from sb3_dqn_ext.zoo.advise.rules import ACTION_MASKS, ATARI_WRAPPER, WARP_FRAME, Line, advise
from sb3_dqn_ext.zoo.commands import describe_wrong_argument
from sb3_dqn_ext.zoo.config import has_own_block
from sb3_dqn_ext.zoo.network_choice import smallest_side

COMMAND = "python -m sb3_dqn_ext.zoo advise"
COMMENT_COLUMN = 36
MAX_IMAGE_SIDE = 100
"""the largest side of images in pixels that are not resized"""


def main(arguments: list[str], program: str = COMMAND) -> None:
    """
    Run the command.

    :param arguments: the arguments of its command line
    :param program: the name of the command in help and errors
    """
    with contextlib.redirect_stdout(sys.stderr):  # what an import or an environment prints is no part of the YAML
        # Not at the top: this import takes 2.5 s and patches gymnasium. It registers the environments that train can make.
        zoo = importlib.import_module("rl_zoo3.exp_manager")
    packages: list[str] = []
    try:
        options = make_parser(program, zoo).parse_args(arguments)
        packages = options.gym_packages
        with contextlib.redirect_stdout(sys.stderr):
            text = make_configuration(options, zoo)
    except Exception as error:
        description = describe_wrong_argument(error, packages)
        if description is None:
            raise
        sys.exit(f"{program}: {description}")
    print_text(text)


def make_parser(program: str, zoo: Any) -> argparse.ArgumentParser:
    """
    Return the parser of the command line.

    :param program: the name of the command in the help
    :param zoo: the module ``rl_zoo3.exp_manager``
    """
    store_dict = importlib.import_module("rl_zoo3.utils").StoreDict
    parser = argparse.ArgumentParser(
        program,
        description="Print a configuration for an environment, chosen from its spaces, its rewards and its time limit.",
        epilog=f"example:\n  {program} CartPole-v1 > my_config.yml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("env", metavar="ENV_ID", help="the id of the environment, such as CartPole-v1")
    parser.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    parser.add_argument(
        "--env-kwargs", nargs="+", action=store_dict, default={}, help="arguments of the environment, such as side:8"
    )
    parser.add_argument("-n", "--n-timesteps", type=int, help="environment steps of a run (default: by the environment)")
    parser.add_argument("--random-steps", type=int, default=2_000, help="random steps that are measured (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random steps (default: 0)")
    return parser


def make_configuration(options: argparse.Namespace, zoo: Any) -> str:
    """
    Measure an environment, and return its configuration.

    :param options: the parsed command line
    :param zoo: the module ``rl_zoo3.exp_manager``
    :return: a text in YAML
    :raises ArgumentError: if there is no such environment, or a DQN does not support it
    """
    check_number("--random-steps", options.random_steps, low=1, integer=True)
    if options.n_timesteps is not None:
        check_number("--n-timesteps", options.n_timesteps, low=1, integer=True)
    for module in options.gym_packages:
        importlib.import_module(module)
    spec = find_spec(options.env)
    is_atari = zoo.ExperimentManager.is_atari(options.env)
    kwargs = {**(atari_kwargs(spec, {**spec.kwargs, **options.env_kwargs}) if is_atari else {}), **options.env_kwargs}
    env = make_env(spec, kwargs)
    wrappers = (*find_masks(env, options.seed), *choose_preprocessing(env.observation_space, is_atari))
    wrapped = zoo.get_wrapper_class({"env_wrapper": list(wrappers)})(env)
    measured = measure(wrapped, options.random_steps, options.seed)
    wrapped.close()
    facts = replace(measured, env_kwargs=kwargs, preprocessing=wrappers, is_atari=is_atari)
    return "\n".join([*header(options, facts), *render_block(options.env, advise(facts, options.n_timesteps))])


def find_spec(env_id: str) -> EnvSpec:
    """
    Return the spec of an environment.

    :param env_id: the id of the environment
    :raises ArgumentError: if it is not registered; the message names the nearest ids
    """
    if env_id in gym.registry:
        return gym.registry[env_id]
    close = difflib.get_close_matches(env_id, gym.registry, n=3)
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else "--gym-packages imports modules that register ids."
    raise ArgumentError(f"env={env_id!r} is not registered in gymnasium. {hint}")


def atari_kwargs(spec: EnvSpec, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with which a game of ALE does not skip frames, since AtariWrapper does, which is for images."""
    return {} if spec.kwargs.get("frameskip") == 1 or kwargs.get("obs_type") == "ram" else {"frameskip": 1}


def make_env(spec: EnvSpec, kwargs: Mapping[str, Any]) -> Env:
    """
    Make an environment.

    :param spec: its spec
    :param kwargs: its arguments
    :raises ArgumentError: if it cannot be made
    """
    try:
        return spec.make(**kwargs)
    except Exception as error:  # any error of the environment
        arguments = f" with {dict(kwargs)}" if kwargs else ""
        raise ArgumentError(f"env={spec.id!r} cannot be made{arguments}: {error}") from error


def find_masks(env: Env, seed: int) -> Iterator[Wrapper]:
    """
    Yield the wrapper that makes action masks a part of the observation, if the environment has them elsewhere.

    :param env: the environment, which is reset
    :param seed: the seed of the reset
    """
    if contains_masks(env):
        return
    if env.has_wrapper_attr("action_masks"):
        yield {ACTION_MASKS: {"source": "method"}}
    elif ACTION_MASK in env.reset(seed=seed)[1]:
        yield {ACTION_MASKS: {"source": "info"}}


def choose_preprocessing(space: spaces.Space[Any], is_atari: bool) -> tuple[str, ...]:
    """
    Choose the wrapper that makes images small enough.

    :param space: the observation space of the environment
    :param is_atari: whether it is a game of ALE
    :return: the dotted name of a wrapper, or none
    """
    if not is_image(space):
        return ()
    if is_atari:
        return (ATARI_WRAPPER,)
    is_coloured = space.dtype == np.uint8 and (space.shape or ())[-1] == 3
    return (WARP_FRAME,) if is_coloured and smallest_side(space) > MAX_IMAGE_SIDE else ()


def header(options: argparse.Namespace, facts: EnvFacts) -> Iterator[str]:
    """
    Yield the comments above the configuration.

    :param options: the parsed command line
    :param facts: the facts about the environment
    """
    packages = f" --gym-packages {shlex.join(options.gym_packages)}" if options.gym_packages else ""
    limit = "no time limit" if facts.max_episode_steps is None else f"a time limit of {facts.max_episode_steps:,} steps"
    train = f"sb3-dqn-ext train --env {options.env} -conf my_config.yml{packages}"
    yield f"# A starting configuration. With this text in my_config.yml: {train}"
    if has_own_block(options.env):
        yield f"# zoo_configs/dqn_ext.yml has a block for {options.env}, which is used without -conf."
    masks = " with action masks" if facts.has_masks else ""
    yield f"# {describe_space(facts.observation_space)} observations, {facts.n_actions} actions{masks}, {limit}."
    yield (
        f"# {facts.n_random_steps:,} random steps: rewards from {facts.min_reward:g} to {facts.max_reward:g}, "
        f"most often {facts.usual_reward:g} ({100 * facts.usual_share:.4g} %);"
    )
    yield f"# {facts.n_ends:,} episodes ended, {facts.n_terminations:,} of them by termination."


def describe_space(space: spaces.Space[Any]) -> str:
    """
    Describe an observation space in one line, without the bounds of its arrays.

    :param space: the observation space
    """
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{key}: {describe_space(part)}' for key, part in space.items())})"
    return f"Box{space.shape} {space.dtype}" if isinstance(space, spaces.Box) else " ".join(str(space).split())


def render_block(env_id: str, lines: Iterable[Line]) -> Iterator[str]:
    """
    Yield the lines of a configuration as YAML, each with its reason as a comment.

    :param env_id: the id of the environment
    :param lines: the hyperparameters; those in the same mapping are neighbours
    :raises ArgumentError: if a value cannot be written in YAML
    """
    yield f"{to_yaml(env_id)}:"
    for mapping, group in itertools.groupby(lines, lambda line: line.key.rpartition(".")[0]):
        indent = "    " if mapping else "  "
        if mapping:
            yield f"  {mapping}:"
        for line in group:
            code = f"{indent}{line.key.rpartition('.')[2]}: {to_yaml(line.value)}"
            yield f"{code:{COMMENT_COLUMN}}  # {line.reason}"


def to_yaml(value: Any) -> str:
    """
    Return a value in one line of YAML.

    :param value: plain data
    :raises ArgumentError: if it is no plain data
    """
    if type(value) is int:
        return f"{value:_}"
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    except yaml.YAMLError as error:
        raise ArgumentError(f"{value!r} cannot be written to YAML, which contains plain data only: {error}") from error
    return text.removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    main(sys.argv[1:])
