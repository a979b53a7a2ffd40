"""The collection of transitions from actors, in place of steps of the environments in this process."""

import os
import time
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import unwrap_wrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq
from stable_baselines3.common.utils import should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext.actors.actor import ActorSetup, Orders
from sb3_dqn_ext.actors.block import StoredStep
from sb3_dqn_ext.actors.engine import Engine
from sb3_dqn_ext.actors.env_recipe import make_recipe
from sb3_dqn_ext.actors.pool import ActorPool, InsertRatio
from sb3_dqn_ext.actors.process_engine import ProcessEngine
from sb3_dqn_ext.actors.ray_engine import RayEngine
from sb3_dqn_ext.actors.settings import ActorSettings, parse_actors
from sb3_dqn_ext.actors.weights import read_weights
from sb3_dqn_ext.checkpoint.envs.resumable_envs import episode_statistics_of, local_environments
from sb3_dqn_ext.choices import warm_up_steps
from sb3_dqn_ext.replay import DQNReplayBuffer

__all__ = ["close_actors", "collect_from_actors"]


def start_actors(model: Any) -> ActorPool:
    """
    Start the actors of a run.

    :param model: a DQNExt with ``actors``
    """
    settings = parse_actors(model.actors)
    engine = _make_engine(make_setup(model), settings, model)
    engine.broadcast(read_weights(model.q_net), model._n_updates)
    engine.order(_orders(model))
    # a resumed run does not repeat the episodes of the interrupted one
    seed = [int.from_bytes(os.urandom(4), "little") if model.seed is None else model.seed, model.num_timesteps]
    pool = ActorPool(engine, settings.n_actors, settings.max_restarts, InsertRatio(settings.samples_per_insert), seed)
    pool.weights_interval, pool.broadcast_at = settings.weights_interval, model._n_updates
    return pool


def make_setup(model: Any) -> ActorSetup:
    """
    Return the description of the actors of a model.

    :param model: a DQNExt with ``actors``
    """
    settings, buffer = parse_actors(model.actors), model.replay_buffer
    return ActorSetup(
        make_recipe(model.env),
        settings.envs_per_actor,
        settings.n_actors,
        model.policy_class,
        dict(model.policy_kwargs),
        model.observation_space,
        model.action_space,
        model.choices.exploration,
        model.choices.target_policy,
        settings.rows,
        buffer.lookahead,
        model.gamma,
        buffer.handle_timeout_termination,
        buffer.sampler.uses_td_errors,
    )


def _make_engine(setup: ActorSetup, settings: ActorSettings, model: Any) -> Engine:
    engine_class = {"processes": ProcessEngine, "ray": RayEngine}[settings.engine]
    engine: Engine = engine_class(setup, read_weights(model.q_net), settings.queue_blocks, **settings.engine_kwargs)
    return engine


def close_actors(model: Any) -> None:
    """
    End the actors of a run, if there are any.

    :param model: a DQNExt
    """
    pool, model.run_state.actor_pool = model.run_state.actor_pool, None
    if pool is not None:
        pool.close()


def _orders(model: Any) -> Orders:
    is_warm_up = model.num_timesteps < min(model.learning_starts, warm_up_steps(model))
    return Orders(model.exploration_rate, is_warm_up)


def collect_from_actors(
    model: Any,
    env: VecEnv,
    callback: BaseCallback,
    train_freq: TrainFreq,
    replay_buffer: DQNReplayBuffer,
    log_interval: int | None,
) -> RolloutReturn:
    """
    Store transitions that actors have made. A step is one of all environments of one actor.

    :param model: a DQNExt with ``actors``
    :param env: the training environment, from which those of the actors were made
    :param callback: called after every step, and at the beginning and the end
    :param train_freq: the number of steps, or of episodes, to collect
    :param replay_buffer: the replay buffer
    :param log_interval: the number of episodes between two logs; None: no logs
    :return: the number of environment steps, the number of episodes, and whether training continues
    """
    run = model.run_state
    if run.actor_pool is None:
        run.actor_pool = start_actors(model)
    pool: ActorPool = run.actor_pool
    _send(model, pool)
    monitor = EpisodeFile(env)
    # callbacks read some of these names from self.locals
    num_collected_steps = num_collected_episodes = 0
    continue_training = True
    callback.on_rollout_start()
    while continue_training and should_collect_more_steps(train_freq, num_collected_steps, num_collected_episodes):
        step = pool.next_step(model._n_updates)
        actions = buffer_actions = step.actions
        new_obs, rewards, dones, infos = step.new_observations, step.rewards, step.dones, step.infos
        model._last_obs = step.observations
        monitor.write(infos)
        model.num_timesteps += model.n_envs
        num_collected_steps += 1
        callback.update_locals(locals() | {"self": model})
        continue_training = callback.on_step()
        model._update_info_buffer(infos, dones)
        _store(replay_buffer, step)
        if step.is_last:
            for following in pool.lookahead():
                replay_buffer.add(*_arguments(following))
                replay_buffer.exclude_newest()
            pool.acknowledge()
        model._last_obs = new_obs
        if model.num_timesteps > model.learning_starts:
            pool.ratio.insert(model.n_envs)
        model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
        model._on_step()
        for _ in range(np.count_nonzero(dones)):
            num_collected_episodes += 1
            if log_interval is not None and (model._episode_num + 1) % log_interval == 0:
                pool.log(model.logger.record)
            model._count_episode(log_interval)
    if continue_training:
        callback.on_rollout_end()
    return RolloutReturn(num_collected_steps * model.n_envs, num_collected_episodes, continue_training)


def _send(model: Any, pool: ActorPool) -> None:
    """Send the exploration rate to the actors, and the weights if that is due."""
    pool.engine.order(_orders(model))
    if model._n_updates - pool.broadcast_at >= pool.weights_interval:
        pool.engine.broadcast(read_weights(model.q_net), model._n_updates)
        pool.broadcast_at = model._n_updates


def _store(buffer: DQNReplayBuffer, step: StoredStep) -> None:
    row = buffer.pos
    buffer.add(*_arguments(step))
    if step.td_errors is not None:
        indices = np.arange(row * buffer.n_envs, (row + 1) * buffer.n_envs)
        buffer.sampler.update_priorities(indices, step.td_errors.astype(np.float64))


def _arguments(step: StoredStep) -> tuple[Any, ...]:
    """Return the arguments of ``DQNReplayBuffer.add``."""
    return step.observations, step.next_observations, step.actions, step.rewards, step.dones, step.infos


class EpisodeFile:
    """
    The ``monitor.csv`` of the training environment, in which the episodes of all actors are written as they are stored.

    :param env: the training environment
    """

    def __init__(self, env: VecEnv) -> None:
        statistics, single = episode_statistics_of(env.unwrapped), local_environments(env.unwrapped)
        monitor = unwrap_wrapper(single[0], Monitor) if single else None
        if statistics is not None:
            self._writer, self._t_start = statistics.writers[0], statistics.t_starts[0]
        elif isinstance(monitor, Monitor):
            self._writer, self._t_start = monitor.results_writer, monitor.t_start
        else:
            self._writer, self._t_start = None, 0.0

    def write(self, infos: list[dict[str, Any]]) -> None:
        """
        Write the episodes that ended in a step. Their times are those at which they are stored.

        :param infos: (m,) the infos of the step
        """
        for info in infos:
            if self._t_start and "episode" in info:
                info["episode"]["t"] = round(time.time() - self._t_start, 6)
                if self._writer is not None:
                    self._writer.write_row(info["episode"])
