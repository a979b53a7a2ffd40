"""DQN for Stable-Baselines3, with every choice by name."""

import inspect
import io
import os
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutReturn,
    TrainFreq,
)
from stable_baselines3.common.utils import LinearSchedule, should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.dqn import DQN
from stable_baselines3.dqn.policies import DQNPolicy
from typing_extensions import Unpack

from sb3_dqn_ext._arguments import (
    DQNKwargs,
    check_arguments,
    check_batch_size,
    check_combinations,
    check_early_arguments,
    check_environment,
    parse_train_freq,
    possibly_unstorable_arguments,
    sb3_errors_translated,
)
from sb3_dqn_ext._buffer_arguments import buffer_settings, check_replay_buffer, prepare_replay_buffer, update_buffer_arguments
from sb3_dqn_ext._missing import MissingAttribute, check_complete, learning_rate_was_set
from sb3_dqn_ext._validation import check_keys, choose, parameters_of
from sb3_dqn_ext.action_selection import explored_actions
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.algorithm.schedules import ProgressSchedule
from sb3_dqn_ext.batch_source import training_batches
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.episodes import new_record
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback, checkpoint_session, resume_hint
from sb3_dqn_ext.callbacks.log_observer import logger_without_callbacks
from sb3_dqn_ext.callbacks.non_finite_guard import add_guard
from sb3_dqn_ext.callbacks.run_callback import end_run
from sb3_dqn_ext.choices import Choices, build_choices, warm_up_steps
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.last_step import LastStep, latest_reset_infos, stepped_vec_envs
from sb3_dqn_ext.networks.flat_storage import separate_parameters
from sb3_dqn_ext.networks.policies import CnnPolicy, MlpPolicy, MultiHeadPolicy, MultiInputPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.observations import write_row
from sb3_dqn_ext.resets import begin_episodes, begin_episodes_after_resets, end_open_episodes, swap_unnormalized
from sb3_dqn_ext.run_state import RunState
from sb3_dqn_ext.updates import Updater

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
        What the network says about each action is chosen in ``policy_kwargs``, see
        :class:`~sb3_dqn_ext.networks.policies.MlpPolicy`
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param args: arguments of SB3's DQN by position
    :param target_policy: which policy is followed at the next state: ``"greedy"``, ``"double"``
        (https://arxiv.org/abs/1509.06461) or ``"munchausen"`` (https://arxiv.org/abs/2007.14430)
    :param target_policy_kwargs: arguments of the target policy
    :param exploration: ``"epsilon_greedy"``; ``"ez_greedy"``, which keeps a random action for a while
        (https://arxiv.org/abs/2006.01782); ``"epsilon_ladder"``, an epsilon for each environment
        (https://arxiv.org/abs/1803.00933); ``"boltzmann"``, a softmax of the Q-values; or ``"none"``. Before any of them
        there is a warm-up of ``learning_starts`` random actions, unless ``exploration_kwargs["warm_up"]`` is False
    :param exploration_kwargs: arguments of the exploration, see :mod:`sb3_dqn_ext.algorithm.exploration`, and how it changes:
        ``schedule`` in place of the ``exploration_*`` arguments, for ``boltzmann`` ``temperature``: a number, a mapping
        ``{"name": "exponential", ...}`` or one of ``sb3_dqn_ext.algorithm.schedules``; ``unit``: whether its steps are
        ``"env_steps"``, as SB3 counts them, or ``"actions"`` that each environment has chosen after the warm-up
    :param target_network: whether targets come from a slowly changing copy of the network, or from the network itself
    :param target_update_unit: what ``target_update_interval`` counts: ``"env_steps"`` as SB3 does, or ``"gradient_steps"``
    :param n_epochs: with a number, a training is no longer ``gradient_steps`` batches drawn at random: it goes that many times
        through all that can be replayed, each time in another order, in batches of ``batch_size``. How much that is say
        ``buffer_size`` and ``keep_episodes``: with ``train_freq=(10, "episode")`` and ``keep_episodes=10`` it is what was
        collected since the last training
    :param minibatch_size: with a number, each batch that is drawn is fitted in parts of that many transitions, one update
        after the other: ``batch_size=32, minibatch_size=1`` makes 32 updates for each of ``gradient_steps``
    :param compile: whether whole updates are compiled, which needs a C++ compiler and some seconds at the
        first training of a model, and makes each training much quicker. Results then equal those of the eager path up to
        rounding. ``{"unroll": k}``: how many updates one call makes where ``gradient_steps`` are so many, 4 by default;
        prioritized replay then learns of their errors k updates at a time. What cannot be compiled says so once and is eager
    :param check_finite: whether a run ends with an error before a number that is nan or infinite enters the replay memory or
        the networks, see :class:`~sb3_dqn_ext.callbacks.NonFiniteGuardCallback`
    :param kwargs: arguments of SB3's DQN by keyword. ``train_freq`` may be a list, and ``(k, "episode")`` counts the episodes
        of all environments; with ``gradient_steps=-1`` there are then as many as steps collected. ``replay_buffer_kwargs``
        takes those of :class:`~sb3_dqn_ext.replay.DQNReplayBuffer`
    :raises ArgumentError: if an argument cannot work
    """

    default_replay_buffer_class: ClassVar[type[ReplayBuffer]] = DQNReplayBuffer
    """the replay buffer of a model for which none is named"""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
        "MultiHeadPolicy": MultiHeadPolicy,
    }

    updater_class: ClassVar[type[Updater]] = Updater
    """makes the gradient steps"""

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
        minibatch_size: int | None = None,
        compile: bool | Mapping[str, Any] = False,
        check_finite: bool = False,
        **kwargs: Unpack[DQNKwargs],
    ) -> None:
        check_keys("DQNExt()", kwargs, parameters_of(DQNExt))
        check_early_arguments(dict(zip(parameters_of(DQN), (policy, env, *args), strict=False)) | kwargs, self.policy_aliases)
        # SB3's constructor ends in _setup_model(), which reads these
        self.target_policy = target_policy
        self.target_policy_kwargs = {} if target_policy_kwargs is None else target_policy_kwargs
        self.exploration = exploration
        self.exploration_kwargs = {} if exploration_kwargs is None else exploration_kwargs
        self.target_network = target_network
        self.target_update_unit = target_update_unit
        self.n_epochs = n_epochs
        self.minibatch_size = minibatch_size
        self.compile = compile
        self.check_finite = check_finite
        self._known_reasons: set[str] = set()  # for eager training, of which a warning was given
        self._known_losses: set[str] = set()  # the attributes that cannot be stored, of which a warning was given
        self.choices: Choices | None = None
        self._has_followed = False  # whether nothing can have been changed since the last check for changes
        self._generator: np.random.Generator | None = None
        self._exploration_state: dict[str, np.ndarray[Any, Any]] = {}
        self.run_state = RunState()
        with sb3_errors_translated():
            super().__init__(policy, env, *args, **kwargs)
        if kwargs.get("_init_setup_model", True):
            given = {*list(inspect.signature(DQN).parameters)[: 2 + len(args)], *kwargs}
            check_combinations(self, given if target_update_unit == "env_steps" else given | {"target_update_unit"})
            check_batch_size(self)
            own = parameters_of(type(self)).keys() - parameters_of(DQNExt).keys()  # those of a subclass
            doubtful = possibly_unstorable_arguments(self, own - {*self._excluded_save_params()})
            self._known_losses = _persistence().find_unstorable(doubtful) if doubtful else set()

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        check_environment(env)
        return DQN._wrap_env(env, verbose, monitor_wrapper)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        return choose("policy", policy_name, self.policy_aliases)

    def _convert_train_freq(self) -> None:
        self.train_freq = parse_train_freq(self.train_freq)  # type: ignore[assignment]

    def _setup_model(self) -> None:
        check_arguments(self)
        if isinstance(self.learning_rate, np.number):
            self.learning_rate = float(self.learning_rate)  # SB3 takes no other
        if self._stats_window_size is not None:
            self._stats_window_size = int(self._stats_window_size)  # nor does a deque
        self._convert_train_freq()
        choices = self._setup_choices()
        prepare_replay_buffer(self)
        saved_generator = self._generator
        with warnings.catch_warnings():
            if isinstance(self.replay_buffer, DQNReplayBuffer | MissingAttribute):
                # SB3 believes that a buffer it did not choose knows nothing of n_steps
                warnings.filterwarnings("ignore", message="`n_steps=")
            if self.target_update_unit == "gradient_steps":
                # it compares environments with environment steps
                warnings.filterwarnings("ignore", message="The number of environments used is greater than the target network")
            super()._setup_model()
        has_buffer = isinstance(self.replay_buffer, ReplayBuffer)
        self._buffer_settings = buffer_settings(self.replay_buffer) if has_buffer else {}  # type: ignore[arg-type]
        # SB3 seeds again here, also when a saved model is loaded
        self._generator = saved_generator or np.random.default_rng(self.seed)
        if not isinstance(choices.exploration_schedule, MissingAttribute):
            self._follow_schedule(max(self._total_timesteps, 1))
        self._setup_updater()

    def _setup_choices(self) -> Choices:
        self.choices = build_choices(self, self.choices)
        if self.choices.exploration_schedule is None and isinstance(
            getattr(self, "exploration_schedule", None), ProgressSchedule
        ):
            # as SB3's constructor does
            self.exploration_schedule = LinearSchedule(
                self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
            )
        return self.choices

    def _setup_updater(self) -> None:
        assert self.choices is not None
        self.updater = self.updater_class(self, self.choices.target_policy, self._known_reasons)

    def _has_current_updater(self) -> bool:
        return self.choices is not None and self.updater.is_current(self, self.choices.target_policy)

    def _follow_changes(self) -> None:
        """
        Notice what a user has changed since the last rollout or training: attributes of the model that its replay buffer has
        as well, and what was replaced in the networks, or attached to them or to the optimizer, which faster code would skip.
        """
        update_buffer_arguments(self)
        if self._has_current_updater():
            self.updater.detect_hooks(self)
        else:
            self._setup_updater()

    def _create_aliases(self) -> None:
        if not hasattr(self.policy, "q_net"):
            raise ArgumentError(
                f"policy={self.policy_class.__name__} has no q_net and q_net_target: a policy of another algorithm; "
                f"it can be one of: {', '.join(sorted(self.policy_aliases))}, or a subclass of DQNPolicy."
            )
        if not self.target_network:
            self.policy.q_net_target = self.policy.q_net
        super()._create_aliases()

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Set the seed of the pseudo-random generators (python, numpy, pytorch, gym, action_space, and the algorithm's own).

        :param seed: nothing happens if it is None
        """
        super().set_random_seed(seed if seed is None else int(seed))  # Python's generator takes no number of numpy
        if seed is not None:
            self._generator = np.random.default_rng(seed)

    def load_replay_buffer(self, path: str | Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        Load a replay buffer from a pickle file, which runs what is in it. The discount factor and the number of steps of the
        returns are the model's from then on.

        :param path: the file
        :param truncate_last_traj: see SB3, for ``HerReplayBuffer``
        :raises ArgumentError: if the replay buffer does not fit the arguments of the model, which then keeps its own
        """
        own = self.replay_buffer
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            check_replay_buffer(self, self._buffer_settings)
            update_buffer_arguments(self)
        except Exception:
            self.replay_buffer = own
            raise

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if self.env is None:
            raise UnsupportedError(
                "the model has no environment to train in: model.set_env(env), or DQNExt.load(path, env=env)."
            )
        if learning_rate_was_set(self):
            self._setup_lr_schedule()
        check_complete(self)
        self._setup_choices()
        self._has_followed = False
        check_replay_buffer(self, self._buffer_settings)
        check_batch_size(self)
        run = self.run_state
        run.guard = None  # that of a run that broke off
        if self.check_finite:
            callback = add_guard(callback)
        callbacks = list(all_callbacks(callback))
        if any(isinstance(one, ExactCheckpointCallback) for one in callbacks):
            _persistence().make_envs_resumable(self.env, callbacks)
        logger = None
        if run.resumed is not None:
            # the run that continues has a horizon of its own
            reset_num_timesteps, total_timesteps = False, total_timesteps - self.num_timesteps
            logger = _persistence().make_resumed_logger(self, run.resumed["training"])
            run.last_step = None  # of another run
        if logger is not None:
            self.set_logger(logger)
        if reset_num_timesteps or self._last_obs is None:
            end_open_episodes(self)  # the environments are about to be reset
            self._last_obs = run.last_step = None
        horizon, callback = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        assert self.env is not None
        run.stepped_envs = stepped_vec_envs(self.env, [one.eval_env for one in callbacks if hasattr(one, "eval_env")])
        if run.last_step is None:
            assert self._last_obs is not None
            self._last_obs = map_observation(np.array, self._last_obs)  # the first step may be written into the same array
            run.last_step = LastStep(run.stepped_envs, latest_reset_infos(run.stepped_envs), self._last_obs)
        run.callback = callback
        if logger is not None:
            self._custom_logger = False  # a later run has its own
        self._follow_schedule(horizon)
        return horizon, callback

    def _follow_schedule(self, total_steps: int) -> None:
        """:param total_steps: environment steps of the whole run"""
        schedule = None if self.choices is None else self.choices.exploration_schedule
        if schedule is not None:
            self.exploration_schedule = ProgressSchedule(schedule, total_steps)
            self.exploration_rate = schedule.value(self.num_timesteps, total_steps)

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
        run, normalize = self.run_state, self._vec_normalize_env
        self._begin_rollout(callback)
        # callbacks read some of these names
        num_collected_steps = num_collected_episodes = 0
        n_random = min(learning_starts, warm_up_steps(self))
        continue_training = True
        begin_episodes_after_resets(self, env)  # a checkpoint may be written now
        callback.on_rollout_start()
        while continue_training and should_collect_more_steps(train_freq, num_collected_steps, num_collected_episodes):
            begin_episodes_after_resets(self, env)
            actions, buffer_actions = self._sample_action(n_random, action_noise, env.num_envs)
            last_obs = self._last_obs
            try:
                new_obs, rewards, dones, infos = env.step(actions)
                resets, originals = latest_reset_infos(run.stepped_envs), swap_unnormalized(normalize)
                self.num_timesteps += env.num_envs
                num_collected_steps += 1
                callback.update_locals(locals())
                # a callback that ends the training does so after this step, which is stored as all others are
                continue_training = callback.on_step()
                self._update_info_buffer(infos, dones)
                obs_now, self._last_obs = self._last_obs, last_obs
                originals = swap_unnormalized(normalize, originals)
                self._store_transition(replay_buffer, buffer_actions, new_obs, rewards, dones, infos)  # type: ignore[arg-type]
                swap_unnormalized(normalize, originals)
                run.last_step = LastStep(run.stepped_envs, resets, self._last_obs)
                if obs_now is not last_obs:  # the callback has reset the environments
                    begin_episodes(self, obs_now)
            except BaseException:
                self._last_obs = None  # of a step that is not stored nothing is known: the next training begins with a reset
                raise
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._on_step()
            for _ in range(np.count_nonzero(dones)):
                num_collected_episodes += 1
                self._count_episode(log_interval)
        if continue_training:
            callback.on_rollout_end()
        return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, continue_training)

    def _begin_rollout(self, callback: BaseCallback) -> None:
        run = self.run_state
        if run.resumed is not None:
            _persistence().restore_run(self, callback, run.resumed)
            run.resumed = None
        if not self._has_followed:
            self._follow_changes()
        self._has_followed = False
        self.updater.set_training_mode(self.policy, False)

    def _count_episode(self, log_interval: int | None) -> None:
        self._episode_num += 1
        if log_interval is not None and self._episode_num % log_interval == 0:
            self.dump_logs()

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray[Any, Any] | None = None) -> None:
        """As SB3's, but an episode counts once where an environment leaves its record in the infos of later steps."""
        assert self.ep_info_buffer is not None
        assert self.ep_success_buffer is not None
        for env, info in enumerate(infos):
            if "episode" in info or "is_success" in info:  # most infos have neither
                done = dones is not None and dones[env]
                if (record := new_record(info, done, self.ep_info_buffer)) is not None:
                    self.ep_info_buffer.append(record)
                if done and info.get("is_success") is not None:
                    self.ep_success_buffer.append(info["is_success"])

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray[Any, Any],
        new_obs: Observation,
        reward: np.ndarray[Any, Any],
        dones: np.ndarray[Any, Any],
        infos: list[dict[str, Any]],
    ) -> None:
        if self._exploration_state:
            ended = np.asarray(dones, dtype=bool).ravel()  # environments may have 0 and 1, which are no index
            for numbers in self._exploration_state.values():
                numbers[ended] = 0
        if self._vec_normalize_env is not None or not isinstance(replay_buffer, DQNReplayBuffer):
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            self._last_obs = map_observation(np.array, new_obs)  # as below
            return
        # as SB3 does, but for copies of observations that the memory copies anyway
        next_obs = new_obs
        if np.count_nonzero(dones):
            next_obs = map_observation(np.array, new_obs)
            for env in np.flatnonzero(dones).tolist():
                last = infos[env].get("terminal_observation")
                if last is not None:
                    write_row(next_obs, env, last)
        assert self._last_obs is not None
        replay_buffer.add(self._last_obs, next_obs, buffer_action, reward, dones, infos)
        # a copy: it is stored after the next step, which some environments write into the same array
        copied = np.array(new_obs) if isinstance(new_obs, np.ndarray) else map_observation(np.array, new_obs)
        self._last_original_obs, self._last_obs = self._last_obs, copied

    def _on_step(self) -> None:
        """Update the target network if it is due, and the exploration rate."""
        self._n_calls += 1
        # each call to step() is n_envs environment steps
        if self.target_update_unit == "env_steps" and self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:
            self._update_target_network()
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        assert self.choices is not None
        self.logger.record(*self.choices.exploration.log_entry(self.exploration_rate, self.n_envs))

    def _update_target_network(self) -> None:
        if self.target_network:
            if not self._has_current_updater():  # a callback may have changed them since
                self._setup_updater()
            self.updater.update_target(self.tau)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """
        Draw batches from the replay memory and descend the gradient of their losses.

        :param gradient_steps: number of updates
        :param batch_size: B
        """
        self._follow_changes()
        self._has_followed = True
        self.updater.set_training_mode(self.policy, True)
        self._update_learning_rate(self.policy.optimizer)
        updater, guard = self.updater, self.run_state.guard
        updater.begin_training(self, guard)
        batches = training_batches(self, gradient_steps, batch_size, updater.n_updates_per_call)
        losses = [updater.update(self, batch, n_updates, guard) for batch, n_updates in batches]

        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        loss = losses[0] if len(losses) == 1 else th.cat(losses)
        mean = np.float64(loss.item()) if loss.numel() == 1 else loss.cpu().double().numpy().mean()
        self.logger.record("train/loss", mean)

    def predict(
        self,
        observation: Observation,
        state: tuple[np.ndarray[Any, Any], ...] | None = None,
        episode_start: np.ndarray[Any, Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], ...] | None]:
        """
        The policy's action, or what exploration makes of it. Explorations that keep an action for a while do so in training
        only: here, every call is the first step of an episode. A subclass that overrides this method chooses the actions of
        training by it, too.

        :param observation: one observation, or one for each environment
        :param state: returned as it is; there for policies with a memory
        :param episode_start: not used; there for policies with a memory
        :param deterministic: whether to leave exploration out
        :return: one action, or one for each environment, and the state
        """
        if not isinstance(observation, np.ndarray | dict):
            if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
                self.policy.predict(observation)  # what reset() returns, which SB3 explains by an error
            observation = np.array(observation)
        if deterministic:
            return self.policy.predict(observation, state, episode_start, deterministic)
        is_batch = self.policy.is_vectorized_observation(observation)
        assert self.choices is not None
        assert self._generator is not None
        actions = explored_actions(self, self.choices.exploration, self._generator, observation, is_batch, {})
        return (actions if is_batch else np.array(actions[0])), state

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        is_warm_up = self.num_timesteps < learning_starts
        if is_warm_up or type(self).predict is not DQNExt.predict or "predict" in vars(self):
            return super()._sample_action(learning_starts, action_noise, n_envs)
        assert self._last_obs is not None
        assert self.choices is not None
        assert self._generator is not None
        exploration, memory, by_numpy = self.choices.exploration, self._exploration_state, self.updater.numpy_q_values
        actions = explored_actions(self, exploration, self._generator, self._last_obs, True, memory, by_numpy)
        return actions, actions

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
        :raises ArgumentError: if the model was loaded without something that training needs
        :raises EnvironmentDiedError: if the process of an environment ends
        :raises NonFiniteError: with ``check_finite``, if a number is nan or infinite
        """

        callbacks = list(all_callbacks(callback))
        evaluated = {f"Evaluation environment of {type(one).__name__}": getattr(one, "eval_env", None) for one in callbacks}
        hint = partial(resume_hint, self, callbacks)
        with checkpoint_session(self, callback), explained({"Environment": self.env, **evaluated}, hint):
            try:
                return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
            finally:
                end_run(self)
                callback, self.run_state.callback = self.run_state.callback, None  # callbacks hold all that they have seen
                # a bar that is open may keep Python from ending: its thread stops with a lock that others wait for
                for one in all_callbacks(callback):
                    if isinstance(one, ProgressBarCallback) and hasattr(one, "pbar"):
                        one.pbar.close()

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        Save all attributes of the model and its parameters in a zip file: the archive of SB3, with JSON in the place of
        pickles, see docs/file_format.md. A file of that name is whole at every moment, before and after.

        What has no name to be found again by, such as a lambda, is not stored; a warning says so when the model is made.

        :param path: where to; ``.zip`` is added to a name that has no suffix, and folders are made. Or a file to write to
        :param exclude: attributes to leave out beside those that are always left out
        :param include: attributes to store though they are among these, such as ``"replay_buffer"``
        """
        _persistence().save(self, path, exclude, include, self._known_losses)

    @classmethod
    def load(
        cls: type[SelfDQNExt],
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trust: bool = False,
        **kwargs: Any,
    ) -> SelfDQNExt:
        """
        Load a model from a zip file that :meth:`save` or SB3's DQN wrote. Nothing in it is run, unless ``trust`` is True.

        Spaces, schedules, and the classes of policies, replay memories, activations and optimizers of torch, SB3, the RL Zoo
        and this library are known by name, and your own features extractors, policies and replay buffers that are imported
        already. Where a file names others, give them in ``custom_objects``, or as arguments. What only training needs does
        not prevent loading: :meth:`learn` asks for it.

        :param path: of the file; ``.zip`` is added if there is none. Or a file to read
        :param env: the environment to go on with; it may be left out for predictions
        :param device: where the networks go
        :param custom_objects: attributes in the place of those in the file
        :param print_system_info: whether to print what the model was saved with, and what is here
        :param force_reset: whether the environments are reset before the next training
        :param trust: whether classes and functions that the file names are imported, and pickles in a file of SB3's are
            unpickled, which runs whatever code is in them
        :param kwargs: attributes to change once it is loaded
        :return: the model
        :raises ModelFileError: if the file cannot be read, or needs what is not given; it is a ``ValueError``
        :raises ValueError: as SB3 does, if spaces, ``policy_kwargs`` or names of parameters are not those of the file
        :raises FileNotFoundError: if there is no file
        """
        as_dqn = cls._get_torch_save_params is DQN._get_torch_save_params
        names = DQN._get_torch_save_params(cls.__new__(cls)) if as_dqn else None
        bare: Any = DQNExt("MlpPolicy", None, device="cpu", _init_setup_model=False)  # type: ignore[arg-type]
        needed = {*vars(bare), "observation_space", "action_space"}
        load_by_sb3 = super().load

        def make(archive: Any, attributes: dict[str, Any]) -> SelfDQNExt:
            return load_by_sb3(archive, env, device, attributes, print_system_info, force_reset, **kwargs)

        model: SelfDQNExt = _persistence().load(path, custom_objects, kwargs, trust, names, needed, make)
        return model

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has, for ``copy`` and ``pickle``: all but what belongs to the run of this model."""
        if hasattr(self, "policy"):
            separate_parameters(list(self.policy.parameters()), self.policy.optimizer)
        logger = {"_logger": logger_without_callbacks(self._logger)} if hasattr(self, "_logger") else {}
        return vars(self) | logger

    def save_checkpoint(self, folder: str | os.PathLike[str], keep: int = 2) -> Path:
        """
        Write a checkpoint of all that training depends on, from which :meth:`resume` goes on with the same bits. Before the
        run, after it, or by :class:`~sb3_dqn_ext.callbacks.ExactCheckpointCallback` in its course.

        :param folder: of the checkpoints of this run; it is made if need be
        :param keep: how many of the newest stay
        :return: the file that makes the checkpoint exist
        :raises CheckpointError: if the folder holds checkpoints of another run, or cannot be written to
        :raises ArgumentError: if the environments cannot be asked for their states, see
            :func:`~sb3_dqn_ext.checkpoint.envs.make_resumable`
        """
        path: Path = _persistence().save_checkpoint(self, folder, keep, self.run_state.callback)
        return path

    def resume(self: SelfDQNExt, path: str | os.PathLike[str]) -> SelfDQNExt:
        """
        Take over the state of a run that was interrupted. This model and its environments must have been made as those were;
        ``learn(total_timesteps)`` with the same callbacks then goes on to the same number of steps in all.

        :param path: the folder of the checkpoints, to take the newest that is good, or the file of one
        :return: this model
        :raises CheckpointError: if there is no good checkpoint, or it is of a model that was made otherwise
        """
        for problem in _persistence().resume(self, path):
            warnings.warn(f"{problem} It begins a new episode.", stacklevel=2)
        return self

    def _excluded_save_params(self) -> list[str]:
        built = ["choices", "updater", "_buffer_settings"]
        return [*super()._excluded_save_params(), *built, "_known_reasons", "_known_losses", "_has_followed", "run_state"]


def _persistence() -> Any:
    import sb3_dqn_ext.persistence as persistence  # 40 ms, for those who save, load or resume

    return persistence


def _signature() -> inspect.Signature:
    """The arguments of SB3's DQN, then ours."""
    theirs = inspect.signature(DQN.__init__).parameters.values()
    ours = inspect.signature(DQNExt.__init__).parameters.values()
    return inspect.Signature([*theirs, *(parameter for parameter in ours if parameter.kind is parameter.KEYWORD_ONLY)])


DQNExt.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
