"""DQN for Stable-Baselines3 whose improvements are chosen by name."""

import inspect
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.logger import DISABLED, Logger
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutReturn,
    TrainFreq,
)
from stable_baselines3.common.utils import LinearSchedule, should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
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
    check_normalization,
    check_step_while_learning,
    parse_train_freq,
    possibly_unstorable_arguments,
    sb3_errors_translated,
)
from sb3_dqn_ext._buffer_arguments import (
    buffer_settings,
    check_replay_buffer,
    move_frames_to_device,
    prepare_replay_buffer,
    update_buffer_arguments,
)
from sb3_dqn_ext._missing import MissingAttribute, check_complete, learning_rate_was_set
from sb3_dqn_ext._validation import check_keys, choose, parameters_of
from sb3_dqn_ext.action_selection import (
    check_final_masks,
    explored_actions,
    has_action_masks,
    random_actions,
    with_action_masks,
)
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.algorithm.exploration import Exploration
from sb3_dqn_ext.algorithm.schedules import ProgressSchedule
from sb3_dqn_ext.algorithm.target_policies import TargetPolicy
from sb3_dqn_ext.batch_source import training_batches
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.episodes import new_record
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback, checkpoint_session, resume_hint
from sb3_dqn_ext.callbacks.log_observer import logger_without_callbacks
from sb3_dqn_ext.callbacks.non_finite_guard import add_guard
from sb3_dqn_ext.callbacks.run_callback import end_run
from sb3_dqn_ext.choices import Choices, build_choices, warm_up_steps
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.fast.allocator import keep_freed_memory
from sb3_dqn_ext.last_step import LastStep, latest_reset_infos, stepped_vec_envs
from sb3_dqn_ext.networks.flat_storage import separate_parameters
from sb3_dqn_ext.networks.policies import CnnPolicy, MlpPolicy, MultiHeadPolicy, MultiInputPolicy
from sb3_dqn_ext.next_values import computed_q_values, set_next_values
from sb3_dqn_ext.offline import count_updates, learn_offline, pretrain
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.observations import write_row
from sb3_dqn_ext.resets import begin_episodes, begin_episodes_after_resets, end_open_episodes, swap_unnormalized
from sb3_dqn_ext.run_state import RunState
from sb3_dqn_ext.updates import Updater

__all__ = ["DQNExt"]

SelfDQNExt = TypeVar("SelfDQNExt", bound="DQNExt")
LOGGER_METHODS = Logger.record, Logger.dump
"""SB3's own methods, which a test or a tool may replace in the class."""
Observation = np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]


class DQNExt(DQN):
    """
    DQN (Mnih et al. 2015, https://doi.org/10.1038/nature14236) with freely combined improvements, chosen by name.

    It takes every argument of SB3's :class:`~stable_baselines3.DQN`, by position or by keyword. With the arguments below at
    their defaults, weights, optimizer state, replay buffer, actions and logged values are bit for bit those of SB3's DQN. The
    one difference: with several environments, each of them draws its own random number for epsilon-greedy exploration.

    SB3's arguments, after ``policy`` and ``env``, with their defaults:

    - ``learning_rate=1e-4``: a number, or a function of the remaining progress, which falls from 1 to 0
    - ``buffer_size=1_000_000``: the capacity of the replay buffer, in transitions of all environments
    - ``learning_starts=100``: the environment steps of the warm-up, in which actions are random and no gradient step is made
    - ``batch_size=32``: the number of transitions in a batch
    - ``tau=1.0``: the coefficient of the target network's update, target <- tau * online + (1 - tau) * target
    - ``gamma=0.99``: the discount factor
    - ``train_freq=4``: the steps of the vectorised environment between two trainings, in each of which every environment makes
      one step; ``(k, "episode")``: k episodes, counted over all environments. It may be a list, as in YAML
    - ``gradient_steps=1``: the gradient steps of a training; -1: as many as transitions were collected since the last training
    - ``replay_buffer_class``: by default :class:`~sb3_dqn_ext.replay.DQNReplayBuffer`
    - ``replay_buffer_kwargs``: the arguments of the replay buffer, such as ``{"sampler": "prioritized"}``
    - ``optimize_memory_usage=False``: whether the replay buffer stores each observation only once
    - ``n_steps=1``: the number of rewards in an n-step return
    - ``target_update_interval=10_000``: the environment steps, or gradient steps, between two updates of the target network
    - ``exploration_fraction=0.1``: the fraction of the run in which epsilon falls linearly from
      ``exploration_initial_eps=1.0`` to ``exploration_final_eps=0.05``
    - ``max_grad_norm=10``: the largest norm of the gradient; ``float("inf")``: no clipping
    - ``stats_window_size=100``: the number of episodes over which the logged return is averaged
    - ``tensorboard_log``: the folder of TensorBoard's files; by default no files
    - ``policy_kwargs``: the arguments of the policy, such as ``{"net_arch": [64], "head": "dueling", "head_arch": [64]}``
    - ``verbose=0``: 1 prints the logged values, 2 prints more
    - ``seed``: the seed of all random generators; by default a random one
    - ``device="auto"``: the device of the networks

    A warning is given if there is fewer than one gradient step per 100 transitions, or more than ten per transition.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"MultiHeadPolicy"`` or a policy class.
        ``policy_kwargs`` choose the network's heads, the model of the returns and noisy layers, see
        :class:`~sb3_dqn_ext.networks.policies.MlpPolicy`
    :param env: the environment: a ``gymnasium.Env``, a ``VecEnv`` of SB3, or the id of a registered environment
    :param args: arguments of SB3's DQN by position
    :param target_policy: the policy whose value at the next state is the target: ``"greedy"`` (default), ``"double"`` (Double
        DQN, https://arxiv.org/abs/1509.06461), ``"munchausen"`` (https://arxiv.org/abs/2007.14430), or your own
        :class:`~sb3_dqn_ext.algorithm.target_policies.TargetPolicy`: a class, an object or a dotted name, see
        docs/add_your_own.md
    :param target_policy_kwargs: arguments of the target policy
    :param exploration: ``"epsilon_greedy"`` (default); ``"ez_greedy"``, which repeats a random action for a random duration
        (https://arxiv.org/abs/2006.01782); ``"epsilon_ladder"``, a different epsilon for each environment
        (https://arxiv.org/abs/1803.00933); ``"boltzmann"``, a softmax of the Q-values; ``"none"``; or your own
        :class:`~sb3_dqn_ext.algorithm.exploration.Exploration`: a class, an object or a dotted name
    :param exploration_kwargs: arguments of the exploration, see :mod:`sb3_dqn_ext.algorithm.exploration`. For all
        explorations but ``"none"``: ``schedule`` (for ``"boltzmann"`` ``temperature``), which replaces the ``exploration_*``
        arguments: a number, a mapping such as ``{"name": "exponential", ...}``, an object of
        :mod:`sb3_dqn_ext.algorithm.schedules`, or your own; ``unit``, the unit of its steps: ``"env_steps"`` (default), the
        steps of all environments, or ``"actions"``, the actions that each environment has chosen after the warm-up;
        ``warm_up``: False leaves out the ``learning_starts`` random actions at the start
    :param target_network: whether targets are computed by the target network (default) or by the online network itself
    :param target_update_unit: the unit of ``target_update_interval``: ``"env_steps"`` (default, as in SB3) or
        ``"gradient_steps"``
    :param n_epochs: None (default): a training makes ``gradient_steps`` gradient steps on batches drawn at random. A number: a
        training goes that many times through all transitions that can be replayed, each time in a new random order, in batches
        of ``batch_size``. ``buffer_size`` and ``keep_episodes`` limit these transitions: with ``train_freq=(10, "episode")``
        and ``keep_episodes=10`` they are those collected since the last training
    :param minibatch_size: None (default): one gradient step for each batch. A number: each batch is split into minibatches of
        that many transitions, with one gradient step for each of them. ``batch_size=32, minibatch_size=1`` makes 32 updates
        for each of ``gradient_steps``
    :param compile: whether whole updates are compiled (default: False). That needs a C++ compiler and some seconds at the
        first training, and makes each training much faster. Results equal those without compilation up to rounding.
        ``{"unroll": k}``: the number of gradient steps in one call, if ``gradient_steps`` is at least k, by default 4;
        priorities are then updated after every k gradient steps. ``{"cuda_graphs": True}``: with ``device="cuda"``, a call
        starts one CUDA graph instead of every kernel by itself. What cannot be compiled runs uncompiled, with a warning
    :param step_while_learning: whether the environments make a step while the networks are trained (default: False). A
        training then waits for the first step after it: actions are chosen, the step begins, the training is made on the
        transitions stored so far, and the step is finished. These actions are those of the networks before the training; all
        else is as without. It saves time if environments step in other processes or threads, see docs/speed.md
    :param pretraining_updates: the number of gradient steps before the first step of the environments, on the demonstrations
        of ``replay_buffer_kwargs={"demonstrations": ...}`` (default: 0). Updates that were made before, for example by
        :meth:`learn_offline`, count
    :param actors: None (default): this process steps the environments. A mapping: actors in other processes do, as in Ape-X
        (https://arxiv.org/abs/1803.00933), for example ``{"engine": "processes", "n_actors": 4, "envs_per_actor": 8}``, see
        docs/actors.md and :class:`~sb3_dqn_ext.actors.settings.ActorSettings`. ``env`` is then one environment, which the
        actors make again, and ``envs_per_actor`` takes the place of the number of environments elsewhere
    :param check_finite: whether nan and infinite numbers end the run with an error before they reach the replay buffer or the
        networks (default: False), see :class:`~sb3_dqn_ext.callbacks.NonFiniteGuardCallback`
    :param kwargs: arguments of SB3's DQN by keyword
    :raises ArgumentError: if an argument has a wrong value, or contradicts another argument
    """

    default_replay_buffer_class: ClassVar[type[ReplayBuffer]] = DQNReplayBuffer
    """the replay buffer class of a model without ``replay_buffer_class``"""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
        "MultiHeadPolicy": MultiHeadPolicy,
    }

    updater_class: ClassVar[type[Updater]] = Updater
    """the class whose objects make the gradient steps; a subclass of DQNExt can replace it"""

    def __init__(
        self,
        policy: str | type[DQNPolicy],
        env: GymEnv | str,
        *args: Any,
        target_policy: str | type[TargetPolicy] | TargetPolicy = "greedy",
        target_policy_kwargs: Mapping[str, Any] | None = None,
        exploration: str | type[Exploration] | Exploration = "epsilon_greedy",
        exploration_kwargs: Mapping[str, Any] | None = None,
        target_network: bool = True,
        target_update_unit: str = "env_steps",
        n_epochs: int | None = None,
        minibatch_size: int | None = None,
        compile: bool | Mapping[str, Any] = False,
        step_while_learning: bool = False,
        pretraining_updates: int = 0,
        check_finite: bool = False,
        actors: Mapping[str, Any] | None = None,
        **kwargs: Unpack[DQNKwargs],
    ) -> None:
        check_keys("DQNExt()", kwargs, parameters_of(DQNExt))
        arguments: dict[str, Any] = dict(zip(parameters_of(DQN), (policy, env, *args), strict=False)) | kwargs
        check_early_arguments(arguments, self.policy_aliases)
        # SB3's constructor ends with _setup_model(), which reads these attributes
        self.target_policy = target_policy
        self.target_policy_kwargs = {} if target_policy_kwargs is None else target_policy_kwargs
        self.exploration = exploration
        self.exploration_kwargs = {} if exploration_kwargs is None else exploration_kwargs
        self.target_network = target_network
        self.target_update_unit = target_update_unit
        self.n_epochs = n_epochs
        self.minibatch_size = minibatch_size
        self.compile = compile
        self.step_while_learning = step_while_learning
        self.pretraining_updates = pretraining_updates
        self.check_finite = check_finite
        self.actors = actors
        self._warned_eager_reasons: set[str] = set()  # reasons for training without compilation, of which a warning was given
        self._warned_unstorable: set[str] = set()  # attributes that cannot be saved, of which a warning was given
        self.choices: Choices | None = None
        self._has_applied_changes = False  # whether user changes were applied and nothing has run since
        self._generator: np.random.Generator | None = None
        self._exploration_state: dict[str, np.ndarray[Any, Any]] = {}
        self.run_state = RunState()
        with sb3_errors_translated():
            network = arguments.get("policy_kwargs")
            if isinstance(policy, str) and isinstance(network, Mapping) and network.get("action_masks"):
                policy_class: Any = self._get_policy_from_name(policy)  # SB3 refuses "MlpPolicy" for any Dict observations
                policy = policy_class
            super().__init__(policy, env, *args, **kwargs)
        if kwargs.get("_init_setup_model", True):
            given = {*list(inspect.signature(DQN).parameters)[: 2 + len(args)], *kwargs}
            if actors is not None:
                _actors().check_actor_combinations(self, DQNExt, given)
            check_combinations(self, given if target_update_unit == "env_steps" else given | {"target_update_unit"})
            check_batch_size(self)
            check_normalization(self)
            check_step_while_learning(self, DQNExt.train)
            own = parameters_of(type(self)).keys() - parameters_of(DQNExt).keys()  # arguments of a subclass
            doubtful = possibly_unstorable_arguments(self, own - {*self._excluded_save_params()})
            self._warned_unstorable = _persistence().find_unstorable(doubtful) if doubtful else set()

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
            self.learning_rate = float(self.learning_rate)  # SB3 refuses numbers of numpy
        if self._stats_window_size is not None:
            self._stats_window_size = int(self._stats_window_size)  # so does deque()
        self._convert_train_freq()
        if self.actors is not None:
            self.n_envs = _actors().parse_actors(self.actors).envs_per_actor
        choices = self._setup_choices()
        prepare_replay_buffer(self)
        saved_generator = self._generator
        with warnings.catch_warnings():
            if isinstance(self.replay_buffer, DQNReplayBuffer | MissingAttribute):
                # SB3 warns that a buffer which it did not choose ignores n_steps
                warnings.filterwarnings("ignore", message="`n_steps=")
            if self.target_update_unit == "gradient_steps":
                # SB3 compares the interval with environment steps
                warnings.filterwarnings("ignore", message="The number of environments used is greater than the target network")
            super()._setup_model()
        has_buffer = isinstance(self.replay_buffer, ReplayBuffer)
        self._buffer_settings = buffer_settings(self.replay_buffer) if has_buffer else {}  # type: ignore[arg-type]
        # SB3's _setup_model() seeds everything, also when a saved model is loaded
        self._generator = saved_generator or np.random.default_rng(self.seed)
        if not isinstance(choices.exploration_schedule, MissingAttribute):
            self._update_exploration_schedule(max(self._total_timesteps, 1))
        self._setup_updater()

    def _setup_choices(self) -> Choices:
        self.choices = build_choices(self, self.choices)
        if self.choices.exploration_schedule is None and isinstance(
            getattr(self, "exploration_schedule", None), ProgressSchedule
        ):
            # the schedule was removed from the arguments: as SB3's constructor does
            self.exploration_schedule = LinearSchedule(
                self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
            )
        return self.choices

    def _setup_updater(self) -> None:
        assert self.choices is not None
        self.updater = self.updater_class(self, self.choices.target_policy, self._warned_eager_reasons)

    def _has_current_updater(self) -> bool:
        return self.choices is not None and self.updater.is_current(self, self.choices.target_policy)

    def _apply_changes(self) -> None:
        """
        Apply a user's changes since the last rollout or training.

        These are attributes of the model that its replay buffer has, too, networks that were replaced, and hooks of networks
        and optimizers, which the faster code paths would skip.
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

        :param seed: the seed; None (default): nothing is changed
        """
        super().set_random_seed(seed if seed is None else int(seed))  # Python's generator refuses numbers of numpy
        if seed is not None:
            self._generator = np.random.default_rng(seed)

    def load_replay_buffer(self, path: str | Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        Load a replay buffer from a pickle file. Unpickling runs code from the file, so load only files that you trust.

        The discount factor and the number of steps of n-step returns are then those of the model.

        :param path: the path of the file, or an open file
        :param truncate_last_traj: for ``HerReplayBuffer``: whether the last episode is truncated if it is incomplete
        :raises ArgumentError: if the replay buffer does not fit the arguments of the model, which then keeps its own buffer
        """
        own = self.replay_buffer
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            if (demonstrations := getattr(self.replay_buffer, "demonstrations", None)) is not None:
                demonstrations.device = self.device  # as SB3 does with that of the replay buffer
            check_replay_buffer(self, self._buffer_settings)
            update_buffer_arguments(self)
            move_frames_to_device(self, warn=False)
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
        self._check_trainable()
        assert self.env is not None
        keep_freed_memory()
        run = self.run_state
        run.guard = None  # that of a run that ended with an error
        if self.check_finite:
            callback = add_guard(callback)
        callbacks = list(all_callbacks(callback))
        if any(isinstance(one, ExactCheckpointCallback) for one in callbacks):
            _persistence().check_choice_states(self)
            _persistence().make_envs_resumable(self.env, callbacks)
        logger = None
        if run.resumed is not None:
            # the schedules of a resumed run keep the total number of steps of the whole run
            reset_num_timesteps, total_timesteps = False, total_timesteps - self.num_timesteps
            logger = _persistence().make_resumed_logger(self, run.resumed["training"])
            run.last_step = None  # it is that of another run
        else:
            run.due_training = None
        if logger is not None:
            self.set_logger(logger)
        if reset_num_timesteps or self._last_obs is None:
            end_open_episodes(self)  # super()._setup_learn() resets the environments
            self._last_obs = run.last_step = None
        horizon, callback = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        run.stepped_envs = stepped_vec_envs(self.env, [one.eval_env for one in callbacks if hasattr(one, "eval_env")])
        if run.last_step is None:
            assert self._last_obs is not None
            self._last_obs = map_observation(np.array, self._last_obs)  # a copy: the first step may reuse the array
            run.last_step = LastStep(run.stepped_envs, latest_reset_infos(run.stepped_envs), self._last_obs)
        run.callback = callback
        if logger is not None:
            self._custom_logger = False  # only this run uses the logger of the checkpoint
        self._update_exploration_schedule(horizon)
        return horizon, callback

    def _check_trainable(self) -> None:
        """Check that the model can be trained as it is now, and build its choices: the user may have changed attributes."""
        if self.env is None:
            raise UnsupportedError(
                "the model has no environment to train in: model.set_env(env), or DQNExt.load(path, env=env)."
            )
        if learning_rate_was_set(self):
            self._setup_lr_schedule()
        check_complete(self)
        self._setup_choices()
        self._has_applied_changes = False
        check_replay_buffer(self, self._buffer_settings)
        check_batch_size(self)
        check_normalization(self)
        check_step_while_learning(self, DQNExt.train)
        if self.actors is not None:
            _actors().check_actor_combinations(self, DQNExt)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """
        Set the training environment.

        :param env: the environment, with the spaces and the number of environments of the present one
        :param force_reset: whether it is reset before the next training (default)
        """
        n_envs = self.n_envs
        if self.actors is not None:
            env = self._wrap_env(env, self.verbose)
            self.n_envs = env.num_envs  # one environment, from which those of the actors are made
        try:
            super().set_env(env, force_reset)
        finally:
            self.n_envs = n_envs

    def _update_exploration_schedule(self, total_steps: int) -> None:
        """
        Set the exploration schedule and the current exploration rate.

        :param total_steps: the environment steps of the whole run
        """
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
        Collect transitions and store them in the replay buffer.

        Unlike SB3, it counts the episodes of all environments. Several episodes may end in the same step.

        :param env: the training environments
        :param callback: called after every step, and at the beginning and the end
        :param train_freq: the number of steps, or of episodes, to collect
        :param replay_buffer: the replay buffer that stores the transitions
        :param action_noise: not used; SB3's base class has it for continuous actions
        :param learning_starts: the environment steps of the warm-up
        :param log_interval: the number of episodes between two logs; None (default): no logs
        :return: the number of environment steps, the number of episodes, and whether training continues
        """
        run, normalize = self.run_state, self._vec_normalize_env
        self._begin_rollout(callback)
        if run.is_offline:
            return count_updates(self, callback)
        if self.actors is not None:
            assert isinstance(replay_buffer, DQNReplayBuffer)
            collected: RolloutReturn = _actors().collect_from_actors(
                self, env, callback, train_freq, replay_buffer, log_interval
            )
            return collected
        # callbacks read some of these names from self.locals
        num_collected_steps = num_collected_episodes = 0
        n_random = min(learning_starts, warm_up_steps(self))
        continue_training = True
        begin_episodes_after_resets(self, env)  # before a checkpoint, which on_rollout_start() may write
        callback.on_rollout_start()
        while continue_training and should_collect_more_steps(train_freq, num_collected_steps, num_collected_episodes):
            begin_episodes_after_resets(self, env)
            actions, buffer_actions = self._sample_action(n_random, action_noise, env.num_envs)
            last_obs = self._last_obs
            try:
                new_obs, rewards, dones, infos = self._step(env, actions)
                resets, originals = latest_reset_infos(run.stepped_envs), swap_unnormalized(normalize)
                self.num_timesteps += env.num_envs
                num_collected_steps += 1
                callback.update_locals(locals())
                # a callback that stops the training does so after this step, which is stored like all others
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
                self._last_obs = None  # the step is not stored: the next training begins with a reset
                raise
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._on_step()
            for _ in range(np.count_nonzero(dones)):
                num_collected_episodes += 1
                self._count_episode(log_interval)
        if continue_training:
            callback.on_rollout_end()
        # the last training of a run has no step to wait for
        run.defers_training = self.step_while_learning and self.num_timesteps < self._total_timesteps
        return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, continue_training)

    def _step(self, env: VecEnv, actions: np.ndarray[Any, Any]) -> VecEnvStepReturn:
        """Step the environments. With ``step_while_learning``, make the training that is due in the meantime."""
        run = self.run_state
        if run.due_training is None:
            return env.step(actions)
        (gradient_steps, batch_size), run.due_training = run.due_training, None
        env.step_async(actions)
        try:
            self.train(gradient_steps, batch_size)
        finally:
            results = env.step_wait()
        self.updater.set_training_mode(self.policy, False)
        return results

    def _begin_rollout(self, callback: BaseCallback) -> None:
        run = self.run_state
        run.defers_training = False
        run.acting_values = None  # the networks may have changed
        if run.resumed is not None:
            _persistence().restore_run(self, callback, run.resumed)
            run.resumed = None
        if not run.is_offline:
            pretrain(self)
        if not self._has_applied_changes:
            self._apply_changes()
        self._has_applied_changes = False
        self.updater.set_training_mode(self.policy, False)

    def _count_episode(self, log_interval: int | None) -> None:
        self._episode_num += 1
        if log_interval is not None and self._episode_num % log_interval == 0:
            self.dump_logs()

    def dump_logs(self) -> None:
        """Write the log. Without any output of the log, the means over episodes are not computed."""
        logger = self.logger
        is_plain = type(logger) is Logger and vars(logger).keys().isdisjoint(("record", "dump"))
        is_plain = is_plain and (Logger.record, Logger.dump) == LOGGER_METHODS
        if is_plain and not logger.output_formats and logger.level < DISABLED:
            logger.dump(self.num_timesteps)  # it only clears the values
        else:
            super().dump_logs()

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray[Any, Any] | None = None) -> None:
        """
        Record the returns and lengths of the episodes that ended in a step, and whether they were successful.

        An episode is recorded once, even if an environment repeats its statistics in later infos.

        :param infos: (n_envs,) the infos of the step, with the entries ``"episode"`` and ``"is_success"``
        :param dones: (n_envs,) whether an episode ended; None: no success is recorded
        """
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
        if has_action_masks(self):
            check_final_masks(self, dones, infos)
        if self._exploration_state:
            ended = np.asarray(dones, dtype=bool).ravel()  # as a mask: some environments return 0 and 1
            for numbers in self._exploration_state.values():
                numbers[ended] = 0
        lambda_returns = getattr(replay_buffer, "lambda_returns", None)
        if lambda_returns is not None:
            set_next_values(self, lambda_returns, new_obs, dones, infos)
        if self._vec_normalize_env is not None or not isinstance(replay_buffer, DQNReplayBuffer):
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            self._last_obs = map_observation(np.array, new_obs)  # a copy, see below
            return
        # the same as in SB3, without copies of observations that the replay buffer copies anyway
        next_obs = new_obs
        if np.count_nonzero(dones):
            next_obs = map_observation(np.array, new_obs)
            for env in np.asarray(dones).ravel().nonzero()[0].tolist():
                last = infos[env].get("terminal_observation")
                if last is not None:
                    write_row(next_obs, env, last)
        assert self._last_obs is not None
        replay_buffer.add(self._last_obs, next_obs, buffer_action, reward, dones, infos)
        # a copy: the observation is stored after the next step, for which some environments reuse the array
        copied = np.array(new_obs) if isinstance(new_obs, np.ndarray) else map_observation(np.array, new_obs)
        self._last_original_obs, self._last_obs = self._last_obs, copied

    def _on_step(self) -> None:
        """Update the target network if an update is due, and the exploration rate."""
        self._count_call()
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        assert self.choices is not None
        pool = self.run_state.actor_pool
        n_explorers = self.n_envs if pool is None else pool.n_actors
        self.logger.record(*self.choices.exploration.log_entry(self.exploration_rate, n_explorers))

    def _count_call(self) -> None:
        """Count a step of the vectorised environment, and update the target network if that is due."""
        self._n_calls += 1
        # each call to step() is n_envs environment steps
        if self.target_update_unit == "env_steps" and self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:
            self._update_target_network()

    def _update_target_network(self) -> None:
        if self.target_network:
            if not self._has_current_updater():  # a callback may have replaced networks
                self._setup_updater()
            self.updater.update_target(self.tau)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """
        Train the networks on transitions of the replay buffer. Log the number of updates, the learning rate and the mean loss.

        The target network is updated here only with ``target_update_unit="gradient_steps"``.

        :param gradient_steps: the number of batches that are drawn; one gradient step is made on each of them, or, with
            ``minibatch_size``, one on each minibatch. With ``n_epochs`` this argument has no effect: the batches then go
            through all transitions of the replay buffer ``n_epochs`` times
        :param batch_size: B, the number of transitions in a batch
        """
        if self.run_state.defers_training:
            self.run_state.defers_training, self.run_state.due_training = False, (gradient_steps, batch_size)
            return
        if self.run_state.actor_pool is not None:
            gradient_steps = self.run_state.actor_pool.ratio.gradient_steps(gradient_steps, batch_size)
            if gradient_steps == 0:
                return
        self._apply_changes()
        self._has_applied_changes = True
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
        action_masks: np.ndarray[Any, Any] | None = None,
    ) -> tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], ...] | None]:
        """
        Choose actions.

        An exploration that repeats actions does so in training only: here, every call is the first step of an episode. If a
        subclass overrides this method, training uses it, too.

        :param observation: \\*obs or (n_envs, \\*obs), an observation, or one for each environment
        :param state: returned unchanged; SB3's base class has it for recurrent policies
        :param episode_start: not used; SB3's base class has it for recurrent policies
        :param deterministic: whether to return greedy actions (True), or explored ones (default)
        :param action_masks: (n_actions,) or (n_envs, n_actions), 1 for each legal action; None (default): a model with action
            masks reads them from the observation
        :return: () or (n_envs,) the actions; and ``state``
        """
        if not isinstance(observation, np.ndarray | dict):
            if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
                self.policy.predict(observation)  # a result of reset(): SB3's error explains it
            observation = np.array(observation)
        if action_masks is not None or has_action_masks(self):
            observation = with_action_masks(self, observation, action_masks)
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
        if is_warm_up and has_action_masks(self):
            actions = random_actions(self, self._last_obs)  # type: ignore[arg-type]
            return actions, actions
        if is_warm_up or type(self).predict is not DQNExt.predict or "predict" in vars(self):
            return super()._sample_action(learning_starts, action_noise, n_envs)
        assert self._last_obs is not None
        assert self.choices is not None
        assert self._generator is not None
        exploration, memory = self.choices.exploration, self._exploration_state
        by_numpy = computed_q_values(self) or self.updater.numpy_q_values
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

        :param total_timesteps: the number of environment steps, over all environments
        :param callback: a callback, a list of callbacks, or a function, called after every step
        :param log_interval: the number of episodes between two logs
        :param tb_log_name: the name of the run in TensorBoard
        :param reset_num_timesteps: whether environment steps are counted from 0 (default), or from the last run's number
        :param progress_bar: whether to show a progress bar
        :return: the trained model
        :raises ArgumentError: if the model was loaded without something that training needs
        :raises EnvironmentDiedError: if the worker process of an environment ends
        :raises NonFiniteError: with ``check_finite``, if a number is nan or infinite
        """
        with self._run_session(callback):
            return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def learn_offline(
        self: SelfDQNExt,
        n_updates: int,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str = "DQNExt",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDQNExt:
        """
        Train without a step of the environments: on demonstrations, see ``replay_buffer_kwargs={"demonstrations": ...}``, and
        on what the replay buffer holds.

        Each gradient step counts as one step, in ``num_timesteps``, callbacks, logs, schedules, checkpoints and
        ``target_update_interval``. A training makes ``gradient_steps`` of them.

        :param n_updates: the number of gradient steps
        :param callback: a callback, a list of callbacks, or a function, called before every gradient step
        :param log_interval: the number of gradient steps between two logs
        :param tb_log_name: the name of the run in TensorBoard
        :param reset_num_timesteps: whether steps are counted from 0 (default), or from the last run's number
        :param progress_bar: whether to show a progress bar
        :return: the trained model
        :raises ArgumentError: if there are no transitions, or the model was loaded without something that training needs
        :raises NonFiniteError: with ``check_finite``, if a number is nan or infinite
        """
        with self._run_session(callback):
            learn_offline(self, n_updates, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        return self

    @contextmanager
    def _run_session(self, callback: MaybeCallback) -> Iterator[None]:
        """Hold the locks of a run's checkpoints, translate the errors of its environments, and release all at its end."""
        from sb3_dqn_ext.vec_env.workers import worker_errors_translated  # 8 ms, for training only

        callbacks = list(all_callbacks(callback))
        evaluated = {f"Evaluation environment of {type(one).__name__}": getattr(one, "eval_env", None) for one in callbacks}
        hint = partial(resume_hint, self, callbacks)
        with checkpoint_session(self, callback), worker_errors_translated({"Environment": self.env, **evaluated}, hint):
            try:
                yield
            finally:
                self.run_state.is_offline = False
                if self.run_state.actor_pool is not None:
                    _actors().close_actors(self)
                end_run(self)
                callback, self.run_state.callback = self.run_state.callback, None  # frees the callbacks' data
                # the thread of an open progress bar can hold a lock that prevents Python from exiting
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
        Save the model's attributes and parameters to a zip file.

        The file has the format of SB3 with JSON in place of pickles, see docs/file_format.md. An existing file is replaced
        atomically. Objects that cannot be imported by name, such as a lambda, are not saved; the constructor warns of them.

        :param path: the path of the file, or a file to write to. ``.zip`` is added to a name without suffix; missing folders
            are created
        :param exclude: names of attributes to leave out, in addition to those that are always left out
        :param include: names of attributes to save although they are normally left out, such as ``"replay_buffer"``
        """
        _persistence().save(self, path, exclude, include, self._warned_unstorable)

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
        Load a model from a zip file that :meth:`save` or SB3's DQN has written. No code from the file is run, unless ``trust``
        is True.

        The file may name spaces, schedules, policies, replay buffers, activations and optimizers of torch, SB3, the RL Zoo and
        this library, and your own features extractors, policies and replay buffers if they are imported already. Give other
        objects in ``custom_objects``, or as arguments. A model without an object that only training needs is loaded, too;
        :meth:`learn` then raises an error that names the object.

        :param path: the path of the file, or a file to read. ``.zip`` is added if the name has no suffix
        :param env: the environment to train in; None (default): the model can only predict, until :meth:`set_env`
        :param device: the device of the networks
        :param custom_objects: attribute name -> value that replaces the one in the file
        :param print_system_info: whether to print the versions with which the model was saved, and those in use
        :param force_reset: whether the environments are reset before the next training (default)
        :param trust: whether classes and functions that the file names are imported, and pickles in a file of SB3 are
            unpickled; both can run any code
        :param kwargs: attributes to set after loading
        :return: the model
        :raises ModelFileError: if the file cannot be read, or needs an object that was not given; it is a ``ValueError``
        :raises ValueError: if spaces, ``policy_kwargs`` or names of parameters differ from those in the file, as in SB3
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

    def export(
        self,
        path: str | os.PathLike[str],
        to: str | None = None,
        vec_normalize: VecNormalize | None = None,
        channels_last: bool = False,
    ) -> Path:
        """
        Write the trained policy to a file for other programs, see docs/deployment.md.

        The predictions of the file are compared with ``predict(..., deterministic=True)`` before it is written.

        :param path: the path of the file
        :param to: ``"onnx"``: a graph from observations to Q-values and greedy actions; ``"sb3"``: a file that SB3's DQN or
            sb3-contrib's QRDQN loads; None (default): the suffix of the path decides, ``.onnx`` or ``.zip``
        :param vec_normalize: statistics of observations that become part of the ONNX graph; None (default): the inputs are
            observations that are normalised already, if the model was trained with a ``VecNormalize``
        :param channels_last: whether the inputs of the ONNX graph are images before SB3 has transposed them, with the channels
            on the last axis; default: as in ``observation_space``
        :return: the path
        :raises ArgumentError: if the model cannot be exported, or an argument is wrong
        """
        from sb3_dqn_ext.export import export_model

        return export_model(self, path, to, vec_normalize, channels_last)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes of a copy, for ``copy`` and ``pickle``, without the callbacks of the current run."""
        if hasattr(self, "policy"):
            separate_parameters(list(self.policy.parameters()), self.policy.optimizer)
        logger = {"_logger": logger_without_callbacks(self._logger)} if hasattr(self, "_logger") else {}
        return vars(self) | logger

    def save_checkpoint(self, folder: str | os.PathLike[str], keep: int = 2) -> Path:
        """
        Write a checkpoint of the complete training state, from which :meth:`resume` continues bit for bit.

        Call it before or after a run. During a run, use :class:`~sb3_dqn_ext.callbacks.ExactCheckpointCallback`.

        :param folder: the folder of this run's checkpoints; it is created if it does not exist
        :param keep: the number of newest checkpoints to keep
        :return: the manifest file of the checkpoint
        :raises CheckpointError: if the folder contains checkpoints of another run, or is not writable
        :raises ArgumentError: if the states of the environments cannot be saved, see
            :func:`~sb3_dqn_ext.checkpoint.envs.make_resumable`
        """
        path: Path = _persistence().save_checkpoint(self, folder, keep, self.run_state.callback)
        return path

    def resume(self: SelfDQNExt, path: str | os.PathLike[str]) -> SelfDQNExt:
        """
        Restore the state of an interrupted run.

        Make this model and its environments with the same arguments as in that run. ``learn(total_timesteps)`` with the same
        callbacks then continues the run up to ``total_timesteps`` environment steps in total.

        :param path: a folder of checkpoints, whose newest undamaged one is used, or the manifest file of a checkpoint
        :return: this model
        :raises CheckpointError: if there is no undamaged checkpoint, or its model was made with other arguments
        """
        problems = _persistence().resume(self, path)
        for problem in problems if self.actors is None else ():  # actors begin new episodes anyway
            warnings.warn(f"{problem} It begins a new episode.", stacklevel=2)
        return self

    def _excluded_save_params(self) -> list[str]:
        built = ["choices", "updater", "_buffer_settings"]
        of_run = ["_warned_eager_reasons", "_warned_unstorable", "_has_applied_changes", "run_state"]
        return [*super()._excluded_save_params(), *built, *of_run]


def _persistence() -> Any:
    import sb3_dqn_ext.persistence as persistence  # 40 ms, for saving, loading and resuming only

    return persistence


def _actors() -> Any:
    import sb3_dqn_ext.actors.learner as learner  # multiprocessing and more, for actors only

    return learner


def _signature() -> inspect.Signature:
    """Return a signature with the arguments of SB3's DQN, then those of DQNExt."""
    theirs = inspect.signature(DQN.__init__).parameters.values()
    ours = inspect.signature(DQNExt.__init__).parameters.values()
    return inspect.Signature([*theirs, *(parameter for parameter in ours if parameter.kind is parameter.KEYWORD_ONLY)])


DQNExt.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
