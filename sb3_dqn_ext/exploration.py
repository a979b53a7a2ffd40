"""Exploration: what the agent does now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.choices import build, choose

__all__ = ["COINS", "EXPLORATIONS", "EpsilonGreedy", "Exploration", "NoExploration", "make_exploration"]

Actions = npt.NDArray[Any]


class Exploration(Protocol):
    """Chooses one action for each environment."""

    def __call__(
        self,
        n_envs: int,
        rate: float,
        greedy: Callable[[], Actions],
        random: Callable[[], Any],
        generator: np.random.Generator,
    ) -> Actions:
        """
        :param n_envs: number of environments
        :param rate: the exploration rate, e.g. epsilon
        :param greedy: gives the (n_envs,) actions of the policy
        :param random: gives one random action
        :param generator: the algorithm's own generator
        :return: (n_envs,) actions
        """
        ...


def per_env_coins(n_envs: int, generator: np.random.Generator) -> list[float]:
    """
    (n_envs,) uniform numbers. The first is drawn as SB3 draws its only one, so that one environment explores as it does there;
    the others are drawn from the algorithm's own generator, so that numpy's stays in step with SB3's.
    """
    return [np.random.rand(), *generator.random(n_envs - 1)]


def shared_coin(n_envs: int, generator: np.random.Generator) -> list[float]:
    """(n_envs,) times the same uniform number, as SB3 does: all environments explore, or none."""
    return [np.random.rand()] * n_envs


COINS = {"per_env": per_env_coins, "shared": shared_coin}


@dataclass(frozen=True)
class EpsilonGreedy:
    """
    A random action with probability epsilon, else the greedy one.

    :param coin: ``"per_env"``: each environment tosses a coin of its own; ``"shared"``: one coin for all, as SB3 does
    """

    coin: str = "per_env"

    def __post_init__(self) -> None:
        choose("coin", self.coin, COINS)

    def __call__(
        self,
        n_envs: int,
        rate: float,
        greedy: Callable[[], Actions],
        random: Callable[[], Any],
        generator: np.random.Generator,
    ) -> Actions:
        explorers = [env for env, coin in enumerate(COINS[self.coin](n_envs, generator)) if coin < rate]
        if len(explorers) == n_envs:
            return np.array([random() for _ in explorers])
        actions = greedy()
        for env in explorers:
            actions[env] = random()
        return actions


@dataclass(frozen=True)
class NoExploration:
    """Always the policy's own action; what exploration there is comes from the network, e.g. noisy layers."""

    def __call__(
        self,
        n_envs: int,
        rate: float,
        greedy: Callable[[], Actions],
        random: Callable[[], Any],
        generator: np.random.Generator,
    ) -> Actions:
        return greedy()


EXPLORATIONS: dict[str, Callable[..., Exploration]] = {"epsilon_greedy": EpsilonGreedy, "none": NoExploration}


def make_exploration(exploration: str, exploration_kwargs: Mapping[str, Any]) -> Exploration:
    """
    :param exploration: a name of ``EXPLORATIONS``
    :param exploration_kwargs: the arguments of that exploration; its ``schedule``, if any, is the algorithm's to follow
    """
    kwargs = {key: value for key, value in exploration_kwargs.items() if key != "schedule"}
    synonyms = {"eps_greedy": "epsilon_greedy", "egreedy": "epsilon_greedy", "e_greedy": "epsilon_greedy", "greedy": "none"}
    return build("exploration", exploration, EXPLORATIONS, kwargs, synonyms)
