"""DQN for Stable-Baselines3, with every choice by name."""

import inspect
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
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
    buffer_settings,
    check_arguments,
    check_batch_size,
    check_buffer_kwargs,
    check_effects,
    check_environment,
    check_read_first,
    check_replay_buffer,
    train_freq_of,
)
from sb3_dqn_ext._missing import Missing, needed_for_training
from sb3_dqn_ext._validation import build, check_keys, choose, parameters_of
from sb3_dqn_ext.algorithm.batches import Batch, each, from_sb3, joined
from sb3_dqn_ext.algorithm.exploration import Actions, Moment, Values, exploration_schedule, make_exploration
from sb3_dqn_ext.algorithm.predictions import sampled
from sb3_dqn_ext.algorithm.schedules import ProgressSchedule
from sb3_dqn_ext.algorithm.target_policies import SYNONYMS, TARGET_POLICIES
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.episodes import new_record
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback, where_to_go_on, with_checkpoints
from sb3_dqn_ext.callbacks.logged import without_callbacks
from sb3_dqn_ext.callbacks.non_finite_guard import guarded_too
from sb3_dqn_ext.callbacks.run_callback import end_run
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.fast.numpy_forward import QValues
from sb3_dqn_ext.last_step import LastStep, latest_resets, with_sharing
from sb3_dqn_ext.networks.flat_storage import take_apart
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.networks.policies import CnnPolicy, MlpPolicy, MultiHeadPolicy, MultiInputPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.observations import write
from sb3_dqn_ext.replay.truncation import truncate_open_episodes
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
        check_read_first(dict(zip(parameters_of(DQN), (policy, env, *args), strict=False)) | kwargs, self.policy_aliases)
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
        self._chosen: tuple[Any, ...] | None = None
        self._has_followed = False  # whether nothing can have been changed since the last check for changes
        self._generator: np.random.Generator | None = None
        self._exploration_memory: dict[str, np.ndarray[Any, Any]] = {}
        self.run_state = RunState()
        try:
            super().__init__(policy, env, *args, **kwargs)
        except ArgumentError:
            raise
        except ValueError as error:
            raise ArgumentError(str(error)) from error
        except (AssertionError, NotImplementedError) as error:
            # how SB3 refuses spaces and networks that do not fit
            raise UnsupportedError(str(error)) from error
        if kwargs.get("_init_setup_model", True):
            given = {*list(inspect.signature(DQN).parameters)[: 2 + len(args)], *kwargs}
            check_effects(self, given if target_update_unit == "env_steps" else given | {"target_update_unit"})
            check_batch_size(self)
            self._known_losses = self._unstorable()

    def _unstorable(self) -> set[str]:
        """Warn of arguments that the file of the model will not hold, before a long run, and return their names."""
        own = parameters_of(type(self)).keys() - parameters_of(DQNExt).keys()  # those of a subclass
        names = ({*_OF_ANY_TYPE} | own) - {*self._excluded_save_params()}
        known = {*self.policy_aliases.values(), DQNReplayBuffer}
        open_ones = {name: value for name, value in vars(self).items() if name in names and not _is_plain(value, known)}
        return _persistence().unstorable(open_ones) if open_ones else set()

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        check_environment(env)
        return DQN._wrap_env(env, verbose, monitor_wrapper)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        return choose("policy", policy_name, self.policy_aliases)

    def _convert_train_freq(self) -> None:
        self.train_freq = train_freq_of(self.train_freq)  # type: ignore[assignment]

    def _setup_model(self) -> None:
        check_arguments(self)
        if isinstance(self.learning_rate, np.number):
            self.learning_rate = float(self.learning_rate)  # SB3 takes no other
        if self._stats_window_size is not None:
            self._stats_window_size = int(self._stats_window_size)  # nor does a deque
        self._convert_train_freq()
        self._setup_choices()
        self._setup_replay_buffer()
        saved_generator = self._generator
        with warnings.catch_warnings():
            if isinstance(self.replay_buffer, DQNReplayBuffer | Missing):
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
        if self._exploration_schedule is not None and not isinstance(self._exploration_schedule, Missing):
            self._follow_schedule(max(self._total_timesteps, 1))
        self._setup_updater()

    def _setup_choices(self) -> None:
        """Build what is chosen by name: when the model is made, and at the start of a run if the user has chosen otherwise."""
        chosen = (self.target_policy, {**self.target_policy_kwargs}, self.exploration, {**self.exploration_kwargs})
        if chosen == self._chosen:
            return
        self._chosen = chosen
        target_policy = build("target_policy", self.target_policy, TARGET_POLICIES, self.target_policy_kwargs, SYNONYMS)
        if target_policy != getattr(self, "_target_policy", None):
            self._target_policy = target_policy  # another updater
        self._exploration = make_exploration(self.exploration, self.exploration_kwargs)
        schedule = self.exploration_kwargs.get(self._exploration.scheduled)
        self._exploration_schedule = (
            schedule
            if isinstance(schedule, Missing)
            else exploration_schedule(self._exploration, self.exploration_kwargs, self._warm_up_steps, self.n_envs)
        )
        if self._exploration_schedule is None and isinstance(getattr(self, "exploration_schedule", None), ProgressSchedule):
            # as SB3's constructor does
            self.exploration_schedule = LinearSchedule(
                self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
            )

    def _setup_updater(self) -> None:
        self.updater = self.updater_class(self, self._target_policy, self._known_reasons)

    def _follow_changes(self) -> None:
        """
        Notice what a user has changed since the last rollout or training: attributes of the model that its replay buffer has
        as well, and what was replaced in the networks, or attached to them or to the optimizer, which faster code would skip.
        """
        self._follow_arguments()
        if self.updater.is_current(self, self._target_policy):
            self.updater.follow(self)
        else:
            self._setup_updater()

    def _setup_replay_buffer(self) -> None:
        missing = [one for one in (self.replay_buffer_class, self.replay_buffer_kwargs) if isinstance(one, Missing)]
        if missing:
            self.replay_buffer_class = self.replay_buffer_class or DQNReplayBuffer
            if self.replay_buffer is None:
                self.replay_buffer = missing[0]  # type: ignore[assignment]  # predictions need none
            return
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
            self._follow_arguments()
        except Exception:
            self.replay_buffer = own
            raise

    def _follow_arguments(self) -> None:
        """Give the replay buffer the model's ``n_steps`` and ``gamma``, which a user may have changed."""
        if isinstance(self.replay_buffer, DQNReplayBuffer):
            self.replay_buffer.follow(self.n_steps, self.gamma)
        elif isinstance(self.replay_buffer, NStepReplayBuffer) and self.replay_buffer_class is not type(self.replay_buffer):
            self.replay_buffer.n_steps, self.replay_buffer.gamma = self.n_steps, self.gamma

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
        self._check_nothing_is_missing()
        self._setup_choices()
        self._has_followed = False
        check_replay_buffer(self, self._buffer_settings)
        check_batch_size(self)
        run = self.run_state
        run.guard = None  # that of a run that broke off
        if self.check_finite:
            callback = guarded_too(callback)
        callbacks = list(all_callbacks(callback))
        if any(isinstance(one, ExactCheckpointCallback) for one in callbacks):
            _persistence().make_envs_resumable(self.env, callbacks)
        logger = None
        if run.resumed is not None:
            # the run that continues has a horizon of its own
            reset_num_timesteps, total_timesteps = False, total_timesteps - self.num_timesteps
            logger = _persistence().logger_of(self, run.resumed["training"])
            run.last_step = None  # of another run
        if logger is not None:
            self.set_logger(logger)
        if reset_num_timesteps or self._last_obs is None:
            self._truncate_open_episodes()  # the environments are about to be reset
            self._last_obs = run.last_step = None
        horizon, callback = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        assert self.env is not None
        run.stepped_envs = with_sharing(self.env, [one.eval_env for one in callbacks if hasattr(one, "eval_env")])
        if run.last_step is None:
            assert self._last_obs is not None
            self._last_obs = each(np.array, self._last_obs)  # the first step may be written into the same array
            run.last_step = LastStep(run.stepped_envs, latest_resets(run.stepped_envs), self._last_obs)
        run.callback = callback
        if logger is not None:
            self._custom_logger = False  # a later run has its own
        if self._exploration_schedule is not None:
            self._follow_schedule(horizon)
        return horizon, callback

    def _truncate_open_episodes(self) -> None:
        """Nothing that is stored or explored continues over a reset in mid-episode."""
        self._exploration_memory = {}
        assert self.replay_buffer is not None
        truncate_open_episodes(self.replay_buffer)

    def _continue_episodes(self, env: VecEnv) -> None:
        """Begin new ones if somebody else has reset the environments since the last step: a callback, or an evaluation."""
        last, obs = self.run_state.last_step, self._last_obs
        is_replaced = obs is None or (last is not None and obs is not last.observations)
        if is_replaced or (last is not None and last.is_undone(env)):
            self._start_from(env.reset() if obs is None or not is_replaced else obs)

    def _swap_originals(self, originals: tuple[Any, Any] | None) -> tuple[Any, Any] | None:
        """Exchange what VecNormalize keeps of the latest observations and rewards, from before it normalized them."""
        normalize = self._vec_normalize_env
        if normalize is None:
            return None
        before = normalize.old_obs, normalize.old_reward
        if originals is not None:
            normalize.old_obs, normalize.old_reward = originals
        return before

    def _start_from(self, obs: Any) -> None:
        """:param obs: (n_envs, \\*obs) the first observations of new episodes; None if a reset is still to come"""
        self._truncate_open_episodes()
        envs = self.run_state.stepped_envs
        self._last_obs, self.run_state.last_step = obs, LastStep(envs, latest_resets(envs), obs)
        if self._vec_normalize_env is not None:
            self._last_original_obs = self._vec_normalize_env.get_original_obs()

    def _check_nothing_is_missing(self) -> None:
        """:raises ArgumentError: if the file that the model was loaded from did not give all that training needs"""
        schedule = getattr(self.lr_schedule, "value_schedule", None)
        if isinstance(schedule, Missing) and not isinstance(self.learning_rate, Missing):
            self._setup_lr_schedule()  # the rate was set since
            schedule = None
        given = set() if isinstance(schedule, Missing) else {"learning_rate"}
        if not isinstance(self.replay_buffer, Missing):
            given |= {"replay_buffer_class", "replay_buffer_kwargs"}
        missing = [value for name, value in vars(self).items() if isinstance(value, Missing) and name not in given]
        if missing:
            raise needed_for_training(missing)

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
        run = self.run_state
        if run.resumed is not None:
            _persistence().restore_run(self, callback, run.resumed)
            run.resumed = None
        if not self._has_followed:
            self._follow_changes()
        self._has_followed = False
        self.policy.set_training_mode(False)  # it matters to batch normalisation and dropout
        # callbacks read some of these names
        num_collected_steps = num_collected_episodes = 0
        n_random = min(learning_starts, self._warm_up_steps)
        continue_training = True
        self._continue_episodes(env)  # a checkpoint may be written now
        callback.on_rollout_start()
        while continue_training and should_collect_more_steps(train_freq, num_collected_steps, num_collected_episodes):
            self._continue_episodes(env)
            actions, buffer_actions = self._sample_action(n_random, action_noise, env.num_envs)
            last_obs = self._last_obs
            try:
                new_obs, rewards, dones, infos = env.step(actions)
                resets, originals = latest_resets(run.stepped_envs), self._swap_originals(None)
                self.num_timesteps += env.num_envs
                num_collected_steps += 1
                callback.update_locals(locals())
                # a callback that ends the training does so after this step, which is stored as all others are
                continue_training = callback.on_step()
                self._update_info_buffer(infos, dones)
                obs_now, self._last_obs = self._last_obs, last_obs
                originals = self._swap_originals(originals)
                self._store_transition(replay_buffer, buffer_actions, new_obs, rewards, dones, infos)  # type: ignore[arg-type]
                self._swap_originals(originals)
                run.last_step = LastStep(run.stepped_envs, resets, self._last_obs)
                if obs_now is not last_obs:  # the callback has reset the environments
                    self._start_from(obs_now)
            except BaseException:
                self._last_obs = None  # of a step that is not stored nothing is known: the next training begins with a reset
                raise
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._on_step()
            for _ in range(np.count_nonzero(dones)):
                num_collected_episodes += 1
                self._episode_num += 1
                if log_interval is not None and self._episode_num % log_interval == 0:
                    self.dump_logs()
        if continue_training:
            callback.on_rollout_end()
        return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, continue_training)

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
        if self._exploration_memory:
            ended = np.asarray(dones, dtype=bool).ravel()  # environments may have 0 and 1, which are no index
            for numbers in self._exploration_memory.values():
                numbers[ended] = 0
        if self._vec_normalize_env is not None or not isinstance(replay_buffer, DQNReplayBuffer):
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            self._last_obs = each(np.array, new_obs)  # as below
            return
        # as SB3 does, but for copies of observations that the memory copies anyway
        next_obs = new_obs
        if np.count_nonzero(dones):
            next_obs = each(np.array, new_obs)
            for env in np.flatnonzero(dones).tolist():
                last = infos[env].get("terminal_observation")
                if last is not None:
                    write(next_obs, env, last)
        assert self._last_obs is not None
        replay_buffer.add(self._last_obs, next_obs, buffer_action, reward, dones, infos)
        # a copy: it is stored after the next step, which some environments write into the same array
        self._last_original_obs, self._last_obs = self._last_obs, each(np.array, new_obs)

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
            if not self.updater.is_current(self, self._target_policy):  # a callback may have changed them since
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
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        updater, guard = self.updater, self.run_state.guard
        updater.begin(self, guard)
        batches = self._random_batches(gradient_steps, batch_size) if self.n_epochs is None else self._epochs(batch_size)
        losses = [updater.update(self, batch, n_updates, guard) for batch, n_updates in batches]

        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        loss = losses[0] if len(losses) == 1 else th.cat(losses)
        mean = np.float64(loss.item()) if loss.numel() == 1 else loss.cpu().double().numpy().mean()
        self.logger.record("train/loss", mean)

    def _random_batches(self, gradient_steps: int, batch_size: int) -> Iterator[tuple[Batch, int]]:
        """Sampled batches, those of several updates as one, and the number of updates."""
        n_at_once, parts = self.updater.n_at_once, self.minibatch_size
        if parts is None:
            n_left = gradient_steps
            while n_left > 0:
                n_updates = n_at_once(self, n_left)
                yield self._sample_batch(batch_size, n_updates), n_updates
                n_left -= n_updates
            return
        for _ in range(gradient_steps):
            batch, start = self._sample_batch(batch_size), 0
            while start < batch_size:
                n_updates = n_at_once(self, (batch_size - start) // parts)
                end = start + n_updates * parts
                yield batch.part(slice(start, end)), n_updates
                start = end

    def _epochs(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        """The batches of ``n_epochs`` passes through all transitions that can be replayed, each for one update."""
        assert isinstance(self.replay_buffer, DQNReplayBuffer)
        assert self.n_epochs is not None
        groups = [self.replay_buffer.all_indices()]
        if isinstance(self.policy.optimizer, OptimizerPerHead):
            # one head after another
            actions = self.replay_buffer.actions.take(groups[0])
            groups = [groups[0][actions == action] for action in range(self.q_net.action_space.n)]
        for indices in groups:
            for _ in range(self.n_epochs):
                for batch in self.replay_buffer.epoch(indices, batch_size, self._vec_normalize_env):
                    yield batch, 1

    def _sample_batch(self, batch_size: int, n_batches: int = 1) -> Batch:
        """Some batches, one after the other."""
        assert self.replay_buffer is not None
        if isinstance(self.replay_buffer, DQNReplayBuffer):
            progress = 1 - self._current_progress_remaining
            return self.replay_buffer.sample_batch(batch_size, self._vec_normalize_env, progress, n_batches)
        samples = (self.replay_buffer.sample(batch_size, env=self._vec_normalize_env) for _ in range(n_batches))
        return joined([from_sb3(some, self.gamma) for some in samples])

    @property
    def _warm_up_steps(self) -> int:
        """Environment steps with random actions before those that exploration chooses."""
        return self.learning_starts if self.exploration_kwargs.get("warm_up", True) else 0

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
        if not isinstance(observation, np.ndarray | dict):
            if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
                self.policy.predict(observation)  # what reset() returns, which SB3 explains by an error
            observation = np.array(observation)
        if deterministic:
            return self.policy.predict(observation, state, episode_start, deterministic)
        batched = self.policy.is_vectorized_observation(observation)
        actions = self._explored(observation, {}, batched)
        return (actions if batched else np.array(actions[0])), state

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        is_warm_up = self.num_timesteps < learning_starts
        if is_warm_up or type(self).predict is not DQNExt.predict or "predict" in vars(self):
            return super()._sample_action(learning_starts, action_noise, n_envs)
        assert self._last_obs is not None
        actions = self._explored(self._last_obs, self._exploration_memory, True, self.updater.numpy_q_values)
        return actions, actions

    def _explored(
        self,
        observation: Observation,
        memory: dict[str, np.ndarray[Any, Any]],
        batched: bool,
        numpy_q_values: QValues | None = None,
    ) -> Actions:
        """
        :param observation: one observation, or one for each environment
        :param memory: what exploration keeps from step to step
        :param batched: whether there is one observation for each environment
        :param numpy_q_values: the Q-values of the online network in numpy, if the greedy actions are those of its network
        :return: (n_envs,) actions
        """
        assert self._generator is not None
        first = next(iter(observation.values())) if isinstance(observation, dict) else observation

        def greedy() -> Actions:
            if numpy_q_values is not None:
                best: Actions = numpy_q_values(first).argmax(axis=1)
                return best
            actions = self.policy.predict(observation, deterministic=False)[0]
            return actions if batched else np.atleast_1d(actions)

        def values() -> Values:
            self.policy.set_training_mode(False)
            with th.no_grad(), sampled(self.q_net):
                q_values: Values = self.q_net(self.policy.obs_to_tensor(observation)[0]).cpu().numpy()
            return q_values

        n_envs = len(first) if batched else 1
        sample = self.action_space.sample
        return self._exploration(Moment(n_envs, self.exploration_rate, greedy, values, sample, self._generator, memory))

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
        from sb3_dqn_ext.vec_env.workers import explained  # only those wait for its imports who train

        callbacks = list(all_callbacks(callback))
        evaluated = {f"Evaluation environment of {type(one).__name__}": getattr(one, "eval_env", None) for one in callbacks}
        hint = partial(where_to_go_on, self, callbacks)
        with with_checkpoints(self, callback), explained({"Environment": self.env, **evaluated}, hint):
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
            take_apart(list(self.policy.parameters()), self.policy.optimizer)
        logger = {"_logger": without_callbacks(self._logger)} if hasattr(self, "_logger") else {}
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
        built = ["_target_policy", "_exploration", "_exploration_schedule", "_chosen", "updater", "_buffer_settings"]
        return [*super()._excluded_save_params(), *built, "_known_reasons", "_known_losses", "_has_followed", "run_state"]


def _persistence() -> Any:
    import sb3_dqn_ext.persistence as persistence  # 40 ms, for those who save, load or resume

    return persistence


_OF_ANY_TYPE = (
    *("policy_class", "policy_kwargs", "learning_rate", "replay_buffer_class", "replay_buffer_kwargs"),
    *("exploration_kwargs", "target_policy_kwargs"),
)
"""attributes in which a user may give what a file cannot hold"""


def _is_plain(value: Any, known: set[Any]) -> bool:
    """:param known: classes that a file can name"""
    if isinstance(value, Mapping):
        return all(_is_plain(item, known) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(item, known) for item in value)
    return value is None or isinstance(value, bool | int | float | str) or (isinstance(value, type) and value in known)


def _signature() -> inspect.Signature:
    """The arguments of SB3's DQN, then ours."""
    theirs = inspect.signature(DQN.__init__).parameters.values()
    ours = inspect.signature(DQNExt.__init__).parameters.values()
    return inspect.Signature([*theirs, *(parameter for parameter in ours if parameter.kind is parameter.KEYWORD_ONLY)])


DQNExt.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
