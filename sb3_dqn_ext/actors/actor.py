"""
An actor: it steps environments with its own copy of the network, and makes blocks of their steps.

Shapes: m environments, A actions.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext.action_selection import check_final_masks, explored_actions, has_action_masks, random_actions
from sb3_dqn_ext.actors.block import ActorStep, Block, block_steps, make_block
from sb3_dqn_ext.actors.env_recipe import EnvRecipe
from sb3_dqn_ext.actors.weights import load_weights
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.algorithm.exploration import Actions, EpsilonGreedy, EpsilonLadder, Exploration
from sb3_dqn_ext.algorithm.fitted_actions import fit_taken
from sb3_dqn_ext.algorithm.target_policies import TargetPolicy
from sb3_dqn_ext.algorithm.td_loss import TDLoss
from sb3_dqn_ext.algorithm.value_models import ExpectedReturns
from sb3_dqn_ext.fast.numpy_forward import QValues, chooses_greedy_actions, make_numpy_q_values
from sb3_dqn_ext.networks.q_network import QNetwork
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.observations import Obs

__all__ = ["ActingModel", "Actor", "ActorSetup", "Orders", "rung"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ActorSetup:
    """
    The description of an actor, which is sent to its process.

    :param recipe: the recipe of its environments
    :param n_envs: m
    :param n_actors: the number of actors
    :param policy_class: the class of the policy
    :param policy_kwargs: its arguments
    :param observation_space: the observation space of the learner
    :param action_space: the action space of the learner
    :param exploration: the exploration of the learner
    :param target_policy: the target policy of the learner
    :param rows: the steps of a block without lookahead
    :param lookahead: the steps after them that n-step returns read
    :param gamma: the discount factor
    :param handle_timeout_termination: whether returns bootstrap at time limits
    :param has_priorities: whether the replay buffer needs TD errors
    """

    recipe: EnvRecipe
    n_envs: int
    n_actors: int
    policy_class: Any
    policy_kwargs: Mapping[str, Any]
    observation_space: spaces.Space[Any]
    action_space: spaces.Discrete
    exploration: Exploration
    target_policy: TargetPolicy
    rows: int
    lookahead: int
    gamma: float
    handle_timeout_termination: bool
    has_priorities: bool


@dataclass(frozen=True)
class Orders:
    """
    The orders of the learner that change during a run, beside the weights.

    :param rate: the rate of the exploration
    :param is_warm_up: whether actions are random
    """

    rate: float
    is_warm_up: bool


def rung(exploration: Exploration, rate: float, index: int, n_actors: int) -> tuple[Exploration, float]:
    """
    Return the exploration of one actor. Of an epsilon ladder, each actor has one rung.

    :param exploration: the exploration of the learner
    :param rate: its rate
    :param index: the index of the actor
    :param n_actors: the number of actors
    :return: the exploration of the actor, and its rate
    """
    if isinstance(exploration, EpsilonLadder):
        return EpsilonGreedy(), float(exploration.epsilons(rate, n_actors)[index])
    return exploration, rate


@dataclass
class ActingModel:
    """The attributes of a DQNExt with which actions are chosen."""

    policy: Any
    observation_space: spaces.Space[Any]
    action_space: spaces.Discrete
    env: VecEnv
    exploration_rate: float = 0.0
    _last_obs: Any = None

    @property
    def q_net(self) -> Any:
        """The online network."""
        return self.policy.q_net


def make_policy(setup: ActorSetup) -> Any:
    """
    Make the policy of an actor, with random weights.

    :param setup: the description of the actor
    """
    kwargs = dict(setup.policy_kwargs)
    policy = setup.policy_class(setup.observation_space, setup.action_space, lambda progress: 0.0, **kwargs).to("cpu")
    if isinstance(policy.q_net, QNetwork):
        policy.q_net.find_noisy_layers()
    policy.set_training_mode(False)
    return policy


class Actor:
    """
    An actor.

    :param setup: its description
    :param index: its index
    :param seed: the seed of its environments and of all random generators of this process
    """

    def __init__(self, setup: ActorSetup, index: int, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)
        th.manual_seed(seed)
        self.setup = setup
        self.index = index
        self.n_updates = 0
        self._generator = np.random.default_rng(seed)
        env = setup.recipe.make(setup.n_envs, seed)
        setup.action_space.seed(seed)
        self.model = ActingModel(make_policy(setup), setup.observation_space, setup.action_space, env)
        self._q_values = self._numpy_q_values()
        self._exploration_state: dict[str, Any] = {}
        self._priorities = _Priorities(setup, self.model.policy) if setup.has_priorities else None
        self._orders = Orders(0.0, True)
        self._lookahead: list[ActorStep] = []  # the newest steps, which begin the next block
        self._obs: Obs = _copied(env.reset())

    def _numpy_q_values(self) -> QValues | None:
        policy, q_net = self.model.policy, self.model.q_net
        return make_numpy_q_values(q_net, self.setup.n_envs) if chooses_greedy_actions(type(policy), type(q_net)) else None

    def load(self, weights: npt.NDArray[Any], n_updates: int) -> None:
        """
        Load new weights.

        :param weights: (P,) the weights
        :param n_updates: the gradient steps with which they were learned
        """
        load_weights(self.model.q_net, weights)
        self.n_updates = n_updates

    def obey(self, orders: Orders) -> None:
        """
        Act by new orders from now on.

        :param orders: the orders
        """
        self._orders = orders

    def make_block(self, before_step: Callable[[], None] = lambda: None, seconds_waiting: float = 0.0) -> Block:
        """
        Make the steps of the next block.

        :param before_step: a function that is called before each step; it may load weights
        :param seconds_waiting: the time that the actor has waited for the learner
        """
        steps, n_updates = self._lookahead, self.n_updates
        while len(steps) < self.setup.rows + self.setup.lookahead:
            before_step()
            steps.append(self._step())
        self._lookahead = steps[self.setup.rows :]
        block = make_block(steps, self._obs, self.setup.rows, n_updates, seconds_waiting)
        return block if self._priorities is None else replace(block, td_errors=self._priorities.td_errors(block))

    def _step(self) -> ActorStep:
        model, obs = self.model, self._obs
        model._last_obs = obs
        actions = self._choose_actions(obs)
        new_obs, rewards, dones, infos = model.env.step(actions)
        dones = np.asarray(dones, dtype=bool).reshape(-1)
        if has_action_masks(model):
            check_final_masks(model, dones, infos)
        for numbers in self._exploration_state.values():
            numbers[dones] = 0
        self._obs = _copied(new_obs)
        ended = np.flatnonzero(dones).tolist()
        finals = {env: infos[env]["terminal_observation"] for env in ended if "terminal_observation" in infos[env]}
        return ActorStep(obs, actions, np.array(rewards, np.float32), dones, finals, _sparse(infos))

    def _choose_actions(self, obs: Obs) -> Actions:
        model, setup = self.model, self.setup
        if self._orders.is_warm_up:
            if has_action_masks(model):
                return random_actions(model, obs)
            return np.array([setup.action_space.sample() for _ in range(setup.n_envs)])
        exploration, model.exploration_rate = rung(setup.exploration, self._orders.rate, self.index, setup.n_actors)
        state = self._exploration_state
        return explored_actions(model, exploration, self._generator, obs, True, state, self._q_values)

    def close(self) -> None:
        """Close the environments."""
        self.model.env.close()


class _Priorities:
    """
    The absolute TD errors of the steps of a block, computed with an actor's own network, online and as the target.

    :param setup: the description of the actor
    :param policy: its policy
    """

    def __init__(self, setup: ActorSetup, policy: Any) -> None:
        self.setup, self.policy = setup, policy
        returns = getattr(policy, "return_model", None) or ExpectedReturns()
        fit = getattr(policy, "fit", fit_taken)
        self.loss = TDLoss(policy.q_net, policy.q_net, returns, setup.target_policy, fit)
        # it is read as the learner's replay buffer: with the same n-step returns
        self.buffer = DQNReplayBuffer(
            (setup.rows + setup.lookahead) * setup.n_envs,
            setup.observation_space,
            setup.action_space,
            "cpu",
            setup.n_envs,
            handle_timeout_termination=setup.handle_timeout_termination,
            n_steps=setup.lookahead + 1,
            gamma=setup.gamma,
        )

    def td_errors(self, block: Block) -> npt.NDArray[np.float32]:
        """
        Return (n_own, m) absolute TD errors.

        :param block: the block
        """
        self.buffer.reset()
        for step in block_steps(block):
            self.buffer.add(step.observations, step.next_observations, step.actions, step.rewards, step.dones, step.infos)
        with th.no_grad():
            _, errors = self.loss(self.buffer.read(np.arange(block.n_own * self.setup.n_envs)))
        absolute: npt.NDArray[np.float32] = errors.abs().float().numpy().reshape(block.n_own, self.setup.n_envs)
        return absolute


def _copied(obs: Any) -> Obs:
    return map_observation(np.array, obs)


def _sparse(infos: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the infos with other content than that no time limit has ended an episode, without final observations."""
    return {
        env: {key: value for key, value in info.items() if key != "terminal_observation"}
        for env, info in enumerate(infos)
        if len(info) > 1 or info.get("TimeLimit.truncated", True)
    }
