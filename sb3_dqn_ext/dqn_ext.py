"""DQN for Stable-Baselines3, with every choice by name."""

import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutReturn,
    TrainFreq,
    TrainFrequencyUnit,
)
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.dqn import DQN
from stable_baselines3.dqn.policies import DQNPolicy
from typing_extensions import Unpack

from sb3_dqn_ext.arguments import (
    DQNKwargs,
    check_arguments,
    check_batch_size,
    check_buffer_kwargs,
    check_effects,
    train_freq_of,
)
from sb3_dqn_ext.batch import Batch, from_sb3
from sb3_dqn_ext.choices import ArgumentError, build, check_keys, choose, parameters_of
from sb3_dqn_ext.exploration import Actions, Moment, Values, exploration_schedule, make_exploration
from sb3_dqn_ext.networks import params_of, sampled, values_of
from sb3_dqn_ext.optimizers import OptimizerPerHead
from sb3_dqn_ext.policies import CnnPolicy, MlpPolicy, MultiHeadPolicy, MultiInputPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.returns import ExpectedReturns, Fit, ReturnModel, fit_taken
from sb3_dqn_ext.schedules import ProgressSchedule
from sb3_dqn_ext.target_policy import SYNONYMS, TARGET_POLICIES

__all__ = ["DQNExt"]

SelfDQNExt = TypeVar("SelfDQNExt", bound="DQNExt")
Observation = np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]


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
    :param target_policy: which policy is followed at the next state: ``"greedy"``, ``"double"``
        (https://arxiv.org/abs/1509.06461) or ``"munchausen"`` (https://arxiv.org/abs/2007.14430)
    :param target_policy_kwargs: arguments of the target policy
    :param exploration: ``"epsilon_greedy"``; ``"ez_greedy"``, which keeps a random action for a while
        (https://arxiv.org/abs/2006.01782); ``"epsilon_ladder"``, an epsilon for each environment
        (https://arxiv.org/abs/1803.00933); ``"boltzmann"``, a softmax of the Q-values; or ``"none"``. Before any of them
        there is a warm-up of ``learning_starts`` random actions
    :param exploration_kwargs: arguments of the exploration, see :mod:`sb3_dqn_ext.exploration`, and how it changes:
        ``schedule`` in place of the ``exploration_*`` arguments, for ``boltzmann`` ``temperature``: a number, a mapping
        ``{"name": "exponential", ...}`` or one of ``sb3_dqn_ext.schedules``; ``unit``: whether its steps are
        ``"env_steps"``, as SB3 counts them, or ``"actions"`` that each environment has chosen after the warm-up
    :param target_network: whether targets come from a slowly changing copy of the network, or from the network itself
    :param target_update_unit: what ``target_update_interval`` counts: ``"env_steps"`` as SB3 does, or ``"gradient_steps"``
    :param n_epochs: with a number, a training is no longer ``gradient_steps`` batches drawn at random: it goes that many times
        through all that can be replayed, each time in another order, in batches of ``batch_size``. How much that is say
        ``buffer_size`` and ``keep_episodes``: with ``train_freq=(10, "episode")`` and ``keep_episodes=10`` it is what was
        collected since the last training
    :param kwargs: arguments of SB3's DQN by keyword. ``train_freq`` may be a list, and ``(k, "episode")`` counts the episodes
        of all environments; with ``gradient_steps=-1`` there are then as many as steps collected. ``replay_buffer_kwargs``
        takes those of :class:`~sb3_dqn_ext.replay.DQNReplayBuffer`
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
        n_epochs: int | None = None,
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
        self.n_epochs = n_epochs
        self._generator: np.random.Generator | None = None
        self._exploration_memory: dict[str, np.ndarray[Any, Any]] = {}
        try:
            super().__init__(policy, env, *args, **kwargs)
        except (AssertionError, NotImplementedError) as error:
            # how SB3 refuses spaces and networks that do not fit
            raise ArgumentError(str(error)) from error
        if kwargs.get("_init_setup_model", True):
            given = {*list(inspect.signature(DQN).parameters)[: 2 + len(args)], *kwargs}
            check_effects(self, given if target_update_unit == "env_steps" else given | {"target_update_unit"})
            check_batch_size(self)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        return choose("policy", policy_name, self.policy_aliases)

    def _convert_train_freq(self) -> None:
        self.train_freq = train_freq_of(self.train_freq)  # type: ignore[assignment]

    def _setup_model(self) -> None:
        check_arguments(self)
        self._convert_train_freq()
        self._target_policy = build("target_policy", self.target_policy, TARGET_POLICIES, self.target_policy_kwargs, SYNONYMS)
        self._exploration = make_exploration(self.exploration, self.exploration_kwargs)
        self._exploration_schedule = exploration_schedule(
            self._exploration, self.exploration_kwargs, self.learning_starts, self.n_envs
        )
        self._setup_replay_buffer()
        saved_generator = self._generator
        with warnings.catch_warnings():
            if isinstance(self.replay_buffer, DQNReplayBuffer):
                # SB3 believes that a buffer it did not choose knows nothing of n_steps
                warnings.filterwarnings("ignore", message="`n_steps=")
            if self.target_update_unit == "gradient_steps":
                # it compares environments with environment steps
                warnings.filterwarnings("ignore", message="The number of environments used is greater than the target network")
            super()._setup_model()
        # SB3 seeds again here, also when a saved model is loaded
        self._generator = saved_generator or np.random.default_rng(self.seed)
        if self._exploration_schedule is not None:
            self._follow_schedule(max(self._total_timesteps, 1))
        self._returns: ReturnModel = getattr(self.policy, "return_model", None) or ExpectedReturns()
        self._fit: Fit = getattr(self.policy, "fit", fit_taken)

    def _setup_replay_buffer(self) -> None:
        buffer_class = self.replay_buffer_class or DQNReplayBuffer
        check_buffer_kwargs(buffer_class, self.replay_buffer_kwargs)
        if not issubclass(buffer_class, DQNReplayBuffer):
            return  # SB3 builds it; it is read through from_sb3()
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
        check_batch_size(self)
        if reset_num_timesteps or self._last_obs is None:
            # the environments are about to be reset
            self._exploration_memory = {}
            if isinstance(self.replay_buffer, DQNReplayBuffer):
                self.replay_buffer.break_off()
        horizon, callback = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if self._exploration_schedule is not None:
            self._follow_schedule(horizon)
        return horizon, callback

    def _follow_schedule(self, total_steps: int) -> None:
        """:param total_steps: environment steps of the whole run"""
        assert self._exploration_schedule is not None
        self.exploration_schedule = ProgressSchedule(self._exploration_schedule, total_steps)
        self.exploration_rate = self._exploration_schedule.value(self.num_timesteps, total_steps)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """
        Collect transitions and store them, as SB3 does, which counts the episodes of one environment only; this counts those
        of all.

        :param env: the training environments
        :param callback: called at every step, and at the beginning and the end
        :param train_freq: how many steps, or how many episodes: several may end at the same step, and are all counted
        :param replay_buffer: where to store them
        :param action_noise: not used; there for continuous actions
        :param learning_starts: environment steps of the warm-up
        :param log_interval: number of episodes between two logs
        :return: the number of environment steps and of episodes, and whether to go on
        """

        def collect(callback: BaseCallback, train_freq: TrainFreq) -> RolloutReturn:
            return super(DQNExt, self).collect_rollouts(
                env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
            )

        if env.num_envs == 1 or train_freq.unit == TrainFrequencyUnit.STEP:
            return collect(callback, train_freq)
        n_steps = n_episodes = 0
        callback.on_rollout_start()
        while n_episodes < train_freq.frequency:
            step = collect(_WithinRollout(callback), TrainFreq(1, TrainFrequencyUnit.STEP))
            n_steps += step.episode_timesteps
            n_episodes += step.n_episodes
            if not step.continue_training:
                return RolloutReturn(n_steps, n_episodes, continue_training=False)
        callback.on_rollout_end()
        return RolloutReturn(n_steps, n_episodes, continue_training=True)

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray[Any, Any],
        new_obs: Observation,
        reward: np.ndarray[Any, Any],
        dones: np.ndarray[Any, Any],
        infos: list[dict[str, Any]],
    ) -> None:
        for numbers in self._exploration_memory.values():
            numbers[dones] = 0
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    def _on_step(self) -> None:
        """Update the target network if it is due, and the exploration rate."""
        self._n_calls += 1
        # each call to step() is n_envs environment steps
        if self.target_update_unit == "env_steps" and self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:
            self._update_target_network()
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record(*self._exploration.logged(self.exploration_rate, self.n_envs))

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
        for batch in self._batches(gradient_steps, batch_size):
            losses += [self._descend(optimizer, part) for optimizer, part in self._parts(batch)]
            self._n_updates += 1
            if self.target_update_unit == "gradient_steps" and self._n_updates % self.target_update_interval == 0:
                self._update_target_network()

        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", np.mean(th.stack(losses).cpu().double().numpy()))

    def _batches(self, gradient_steps: int, batch_size: int) -> Iterator[Batch]:
        """The batches of one training."""
        if self.n_epochs is None:
            for _ in range(gradient_steps):
                yield self._sample_batch(batch_size)
            return
        assert isinstance(self.replay_buffer, DQNReplayBuffer)
        groups = [self.replay_buffer.every_cell()]
        if isinstance(self.policy.optimizer, OptimizerPerHead):
            # one head after another
            actions = self.replay_buffer.actions_at(groups[0])
            groups = [groups[0][actions == action] for action in range(self.q_net.action_space.n)]
        for cells in groups:
            for _ in range(self.n_epochs):
                yield from self.replay_buffer.epoch(cells, batch_size, self._vec_normalize_env)

    def _parts(self, batch: Batch) -> Iterable[tuple[th.optim.Optimizer, Batch]]:
        """The batch in parts, each with the optimizer that it is for."""
        optimizer = self.policy.optimizer
        return optimizer.parts(batch) if isinstance(optimizer, OptimizerPerHead) else [(optimizer, batch)]

    def _descend(self, optimizer: th.optim.Optimizer, batch: Batch) -> th.Tensor:
        """One gradient step; the loss before it."""
        errors = self._errors(batch)
        loss = (batch.weights * errors).mean()
        self.policy.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        optimizer.step()
        if isinstance(self.replay_buffer, DQNReplayBuffer) and self.replay_buffer.sampler.wants_errors:
            absolute = self._returns.absolute_errors(errors.detach()).cpu().double().numpy()
            self.replay_buffer.sampler.update(batch.cells, absolute)
        return loss.detach()

    def _sample_batch(self, batch_size: int) -> Batch:
        assert self.replay_buffer is not None
        if isinstance(self.replay_buffer, DQNReplayBuffer):
            progress = 1 - self._current_progress_remaining
            return self.replay_buffer.sample_batch(batch_size, self._vec_normalize_env, progress)
        return from_sb3(self.replay_buffer.sample(batch_size, env=self._vec_normalize_env), self.gamma)

    def _errors(self, batch: Batch) -> th.Tensor:
        """(B,) losses of B transitions: the whole algorithm."""
        online, old, returns = self.q_net, self.q_net_target, self._returns
        with sampled(online, old):
            with th.no_grad():
                params_t = params_of(old, batch.next_observations, "target")
                q_t = values_of(old, batch.next_observations, params_t, returns)
                pi_t, rewards = self._target_policy(batch, online, old, q_t)
                target = returns.target(params_t, pi_t, rewards, batch.discounts)
            params_tm1 = params_of(online, batch.observations, "online")
            return self._fit(returns, params_tm1, batch.actions, target, lambda: params_of(old, batch.observations))

    def predict(
        self,
        observation: Observation,
        state: tuple[np.ndarray[Any, Any], ...] | None = None,
        episode_start: np.ndarray[Any, Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], ...] | None]:
        """
        The policy's action, or what exploration makes of it. Explorations that keep an action for a while do so in training
        only: here, every call is the first step of an episode.

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

        def values() -> Values:
            self.policy.set_training_mode(False)
            with th.no_grad(), sampled(self.q_net):
                q_values: Values = self.q_net(self.policy.obs_to_tensor(observation)[0]).cpu().numpy()
            return q_values

        # training acts on this very object
        memory = self._exploration_memory if observation is self._last_obs else {}
        actions = self._exploration(
            Moment(
                len(first) if batched else 1,
                self.exploration_rate,
                greedy,
                values,
                self.action_space.sample,
                self._generator,
                memory,
            )
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
        ours = ["_target_policy", "_exploration", "_exploration_schedule", "_returns", "_fit"]
        return [*super()._excluded_save_params(), *ours]


class _WithinRollout(BaseCallback):
    """
    Hands every step on to a callback, and none of the beginnings and ends that lie within its rollout.

    :param callback: the callback
    """

    def __init__(self, callback: BaseCallback) -> None:
        super().__init__()
        self.callback = callback

    def update_locals(self, locals_: dict[str, Any]) -> None:
        self.callback.update_locals(locals_)

    def on_step(self) -> bool:
        return self.callback.on_step()

    def _on_step(self) -> bool:
        return True


def _signature() -> inspect.Signature:
    """The arguments of SB3's DQN, then ours."""
    theirs = inspect.signature(DQN.__init__).parameters.values()
    ours = inspect.signature(DQNExt.__init__).parameters.values()
    return inspect.Signature([*theirs, *(parameter for parameter in ours if parameter.kind is parameter.KEYWORD_ONLY)])


DQNExt.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
