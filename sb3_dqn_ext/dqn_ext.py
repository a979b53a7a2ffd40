"""DQN for Stable-Baselines3, with every choice by name."""

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import ConstantSchedule, polyak_update
from stable_baselines3.dqn.dqn import DQN
from stable_baselines3.dqn.policies import DQNPolicy
from typing_extensions import Unpack

from sb3_dqn_ext.batch import Batch, from_sb3
from sb3_dqn_ext.choices import ArgumentError, build, check_keys, check_number, check_type, choose, parameters_of
from sb3_dqn_ext.exploration import Actions, make_exploration
from sb3_dqn_ext.networks import params_of
from sb3_dqn_ext.policies import CnnPolicy, MlpPolicy, MultiHeadPolicy, MultiInputPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.returns import ExpectedReturns, ReturnModel, taken
from sb3_dqn_ext.schedules import ProgressSchedule, make_schedule
from sb3_dqn_ext.target_policy import SYNONYMS, TARGET_POLICIES

__all__ = ["DQNExt", "DQNKwargs"]

SelfDQNExt = TypeVar("SelfDQNExt", bound="DQNExt")
Observation = np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]


class DQNKwargs(TypedDict, total=False):
    """The arguments of SB3's DQN behind ``policy`` and ``env``."""

    learning_rate: float | Schedule
    buffer_size: int
    learning_starts: int
    batch_size: int
    tau: float
    gamma: float
    train_freq: int | tuple[int, str]
    gradient_steps: int
    replay_buffer_class: type[ReplayBuffer] | None
    replay_buffer_kwargs: dict[str, Any] | None
    optimize_memory_usage: bool
    n_steps: int
    target_update_interval: int
    exploration_fraction: float
    exploration_initial_eps: float
    exploration_final_eps: float
    max_grad_norm: float
    stats_window_size: int
    tensorboard_log: str | None
    policy_kwargs: dict[str, Any] | None
    verbose: int
    seed: int | None
    device: th.device | str
    _init_setup_model: bool


OWN_BUFFER_KEYS = set(parameters_of(DQNReplayBuffer)) - set(parameters_of(ReplayBuffer)) - {"n_steps", "gamma"}

# lowest and highest value, and whether it must be a whole number
NUMBERS: dict[str, tuple[float, float, bool]] = {
    "buffer_size": (1, math.inf, True),
    "learning_starts": (0, math.inf, False),
    "batch_size": (1, math.inf, True),
    "tau": (0, 1, False),
    "gamma": (0, 1, False),
    "gradient_steps": (-1, math.inf, True),
    "n_steps": (1, math.inf, True),
    "target_update_interval": (1, math.inf, False),
    "exploration_fraction": (0, 1, False),
    "exploration_initial_eps": (0, 1, False),
    "exploration_final_eps": (0, 1, False),
}
EXPLORATION_ARGUMENTS = ("exploration_fraction", "exploration_initial_eps", "exploration_final_eps")
TARGET_ARGUMENTS = ("tau", "target_update_interval", "target_update_unit")


class DQNExt(DQN):
    """
    DQN whose exploration, replay, target and network are chosen by name and combine freely.

    It takes every argument of SB3's :class:`~stable_baselines3.DQN`, by position or by keyword. With the arguments below at
    their defaults it ends with the same bits: weights, optimizer state, replay memory, actions and logged values.
    The one difference: each of several environments tosses an exploration coin of its own.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"MultiHeadPolicy"`` or a policy class.
        What the network says about each action is chosen in ``policy_kwargs``, see :class:`~sb3_dqn_ext.policies.MlpPolicy`
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param args: arguments of SB3's DQN by position
    :param target_policy: which policy is followed at the next state: ``"greedy"`` or
        ``"double"`` (https://arxiv.org/abs/1509.06461)
    :param target_policy_kwargs: arguments of the target policy
    :param exploration: ``"epsilon_greedy"``, or ``"none"``
    :param exploration_kwargs: arguments of the exploration: ``coin`` (``"per_env"``, or ``"shared"`` as in SB3) and
        ``schedule`` in place of the ``exploration_*`` arguments: ``{"name": "exponential", ...}`` or one of
        ``sb3_dqn_ext.schedules``
    :param target_network: whether targets come from a slowly changing copy of the network, or from the network itself
    :param target_update_unit: what ``target_update_interval`` counts: ``"env_steps"`` as SB3 does, or ``"gradient_steps"``
    :param kwargs: arguments of SB3's DQN by keyword; ``replay_buffer_kwargs`` takes those of
        :class:`~sb3_dqn_ext.replay.DQNReplayBuffer`
    :raises ArgumentError: if an argument cannot work
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
        "MultiHeadPolicy": MultiHeadPolicy,
    }

    def __init__(
        self,
        policy: str | type[DQNPolicy],
        env: GymEnv | str,
        *args: Any,
        target_policy: str = "greedy",
        target_policy_kwargs: Mapping[str, Any] | None = None,
        exploration: str = "epsilon_greedy",
        exploration_kwargs: Mapping[str, Any] | None = None,
        target_network: bool = True,
        target_update_unit: str = "env_steps",
        **kwargs: Unpack[DQNKwargs],
    ) -> None:
        check_keys("DQNExt()", kwargs, parameters_of(DQNExt))
        # SB3's constructor ends in _setup_model(), which reads these
        self.target_policy = target_policy
        self.target_policy_kwargs = {} if target_policy_kwargs is None else target_policy_kwargs
        self.exploration = exploration
        self.exploration_kwargs = {} if exploration_kwargs is None else exploration_kwargs
        self.target_network = target_network
        self.target_update_unit = target_update_unit
        self._generator: np.random.Generator | None = None
        try:
            super().__init__(policy, env, *args, **kwargs)
        except AssertionError as error:
            # how SB3 refuses spaces and networks that do not fit
            raise ArgumentError(str(error)) from error
        if kwargs.get("_init_setup_model", True):
            given = {*list(inspect.signature(DQN).parameters)[: 2 + len(args)], *kwargs}
            self._check_effects(given if target_update_unit == "env_steps" else given | {"target_update_unit"})
            self._check_batch_size()

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        return choose("policy", policy_name, self.policy_aliases)

    def _check_arguments(self) -> None:
        for name, (low, high, integer) in NUMBERS.items():
            check_number(name, getattr(self, name), low, high, integer)
        for name in ("target_policy_kwargs", "exploration_kwargs", "replay_buffer_kwargs", "policy_kwargs"):
            check_type(name, getattr(self, name), Mapping, "a mapping of arguments")
        for name in ("target_network", "optimize_memory_usage"):
            check_type(name, getattr(self, name), bool, "True or False")
        choose("target_update_unit", self.target_update_unit, {"env_steps": 0, "gradient_steps": 0})
        network = set(parameters_of(self.policy_class)) - {"observation_space", "action_space", "lr_schedule"}
        check_keys(f"policy_kwargs of {self.policy_class.__name__}", self.policy_kwargs, network)

    def _check_effects(self, given: set[str]) -> None:
        """
        :param given: the arguments that the user named, whatever their values
        :raises ArgumentError: if one of them contradicts another
        """
        own_schedule = "schedule" in self.exploration_kwargs
        if self.exploration == "none" and own_schedule:
            raise ArgumentError("exploration_kwargs['schedule'] has no effect beside exploration='none'; leave one out.")
        for name in given.intersection(EXPLORATION_ARGUMENTS) if self.exploration == "none" or own_schedule else ():
            other = "exploration_kwargs['schedule']" if own_schedule else "exploration='none'"
            raise ArgumentError(f"{name} has no effect beside {other}; leave one out.")
        for name in given.intersection(TARGET_ARGUMENTS) if not self.target_network else ():
            warnings.warn(f"{name} has no effect beside target_network=False.", stacklevel=3)
        if "terminal_on" in self.replay_buffer_kwargs and self.replay_buffer_kwargs.get("terminal_copies", 1) == 1:
            warnings.warn("replay_buffer_kwargs['terminal_on'] has no effect beside terminal_copies=1.", stacklevel=3)

    def _check_batch_size(self) -> None:
        """Not when a model is loaded: to predict, it may well be loaded with a memory of one transition."""
        if self.batch_size > self.buffer_size:
            raise ArgumentError(
                f"batch_size={self.batch_size} can never be stored; it can be up to buffer_size={self.buffer_size}."
            )

    def _setup_model(self) -> None:
        self._check_arguments()
        self._target_policy = build("target_policy", self.target_policy, TARGET_POLICIES, self.target_policy_kwargs, SYNONYMS)
        self._exploration = make_exploration(self.exploration, self.exploration_kwargs)
        self._exploration_schedule = (
            make_schedule(self.exploration_kwargs["schedule"]) if "schedule" in self.exploration_kwargs else None
        )
        self._setup_replay_buffer()
        saved_generator = self._generator
        with warnings.catch_warnings():
            if isinstance(self.replay_buffer, DQNReplayBuffer):
                # SB3 believes that a buffer it did not choose knows nothing of n_steps
                warnings.filterwarnings("ignore", message="`n_steps=")
            super()._setup_model()
        # SB3 seeds again here, also when a saved model is loaded
        self._generator = saved_generator or np.random.default_rng(self.seed)
        if self.exploration == "none":
            self.exploration_schedule = ConstantSchedule(0.0)
        self._returns: ReturnModel = getattr(self.policy, "return_model", None) or ExpectedReturns()

    def _setup_replay_buffer(self) -> None:
        buffer_class = self.replay_buffer_class or DQNReplayBuffer
        if not issubclass(buffer_class, DQNReplayBuffer):
            # SB3 builds it; it is read through from_sb3()
            for key in OWN_BUFFER_KEYS & set(self.replay_buffer_kwargs) - set(parameters_of(buffer_class)):
                raise ArgumentError(
                    f"replay_buffer_kwargs[{key!r}]={self.replay_buffer_kwargs[key]!r} is an argument of DQNReplayBuffer "
                    f"and has no effect on replay_buffer_class={buffer_class.__name__}."
                )
            return
        given_by_us = set(parameters_of(ReplayBuffer)) - {"handle_timeout_termination"} | {"n_steps", "gamma"}
        check_keys("replay_buffer_kwargs", self.replay_buffer_kwargs, set(parameters_of(buffer_class)) - given_by_us)
        self.replay_buffer_class = buffer_class
        if self.replay_buffer is None:
            self.replay_buffer = buffer_class(
                self.buffer_size,
                self.observation_space,
                self.action_space,
                device=self.device,
                n_envs=self.n_envs,
                optimize_memory_usage=self.optimize_memory_usage,
                n_steps=self.n_steps,
                gamma=self.gamma,
                **self.replay_buffer_kwargs,
            )

    def _create_aliases(self) -> None:
        if not self.target_network:
            self.policy.q_net_target = self.policy.q_net
        super()._create_aliases()

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Set the seed of the pseudo-random generators (python, numpy, pytorch, gym, action_space, and the algorithm's own).

        :param seed: nothing happens if it is None
        """
        super().set_random_seed(seed)
        if seed is not None:
            self._generator = np.random.default_rng(seed)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._check_batch_size()
        if isinstance(self.replay_buffer, DQNReplayBuffer) and (reset_num_timesteps or self._last_obs is None):
            self.replay_buffer.break_off()
        horizon, callback = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if self._exploration_schedule is not None:
            self.exploration_schedule = ProgressSchedule(self._exploration_schedule, horizon)
            self.exploration_rate = self._exploration_schedule.value(self.num_timesteps, horizon)
        return horizon, callback

    def _on_step(self) -> None:
        """Update the target network if it is due, and the exploration rate."""
        self._n_calls += 1
        # each call to step() is n_envs environment steps
        if self.target_update_unit == "env_steps" and self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:
            self._update_target_network()
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def _update_target_network(self) -> None:
        if self.target_network:
            polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), self.tau)
            polyak_update(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """
        Draw batches from the replay memory and descend the gradient of their losses.

        :param gradient_steps: number of updates
        :param batch_size: B
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses = []
        for _ in range(gradient_steps):
            batch = self._sample_batch(batch_size)
            loss = (batch.weights * self._errors(batch)).mean()
            self.policy.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
            losses.append(loss.detach())
            self._n_updates += 1
            if self.target_update_unit == "gradient_steps" and self._n_updates % self.target_update_interval == 0:
                self._update_target_network()

        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(th.stack(losses).cpu().double().numpy()))

    def _sample_batch(self, batch_size: int) -> Batch:
        assert self.replay_buffer is not None
        if isinstance(self.replay_buffer, DQNReplayBuffer):
            return self.replay_buffer.sample_batch(batch_size, env=self._vec_normalize_env)
        return from_sb3(self.replay_buffer.sample(batch_size, env=self._vec_normalize_env), self.gamma)

    def _errors(self, batch: Batch) -> th.Tensor:
        """(B,) losses of B transitions: the whole algorithm."""
        returns = self._returns
        with th.no_grad():
            params_t = params_of(self.q_net_target, batch.next_observations)
            pi_t, rewards = self._target_policy(batch, self.q_net, self.q_net_target, returns.mean(params_t))
            target = returns.target(params_t, pi_t, rewards, batch.discounts)
        params_tm1 = params_of(self.q_net, batch.observations)
        return returns.loss(taken(params_tm1, batch.actions), target)

    def predict(
        self,
        observation: Observation,
        state: tuple[np.ndarray[Any, Any], ...] | None = None,
        episode_start: np.ndarray[Any, Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], ...] | None]:
        """
        The policy's action, or what exploration makes of it.

        :param observation: one observation, or one for each environment
        :param state: returned as it is; there for policies with a memory
        :param episode_start: not used; there for policies with a memory
        :param deterministic: whether to leave exploration out
        :return: one action, or one for each environment, and the state
        """
        if deterministic:
            return self.policy.predict(observation, state, episode_start, deterministic)
        assert self._generator is not None
        batched = self.policy.is_vectorized_observation(observation)
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation

        def greedy() -> Actions:
            return np.atleast_1d(self.policy.predict(observation, state, episode_start, deterministic)[0])

        actions = self._exploration(
            len(first) if batched else 1, self.exploration_rate, greedy, self.action_space.sample, self._generator
        )
        return (actions if batched else np.array(actions[0])), state

    def learn(
        self: SelfDQNExt,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "DQNExt",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDQNExt:
        """
        Train for a number of environment steps.

        :param total_timesteps: how many, over all environments
        :param callback: called at every step
        :param log_interval: number of episodes between two logs
        :param tb_log_name: the name of the run in TensorBoard
        :param reset_num_timesteps: whether to count from 0, or to go on counting
        :param progress_bar: whether to show one
        :return: the trained model
        """
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_target_policy", "_exploration", "_exploration_schedule", "_returns"]


def _signature() -> inspect.Signature:
    """The arguments of SB3's DQN, then ours."""
    theirs = inspect.signature(DQN.__init__).parameters.values()
    ours = inspect.signature(DQNExt.__init__).parameters.values()
    return inspect.Signature([*theirs, *(parameter for parameter in ours if parameter.kind is parameter.KEYWORD_ONLY)])


DQNExt.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
