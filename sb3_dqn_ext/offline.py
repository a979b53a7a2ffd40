"""Training without steps of an environment: from demonstrations, and from what a replay buffer holds."""

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer

__all__ = ["count_updates", "learn_offline", "pretrain"]


def learn_offline(
    model: Any,
    n_updates: int,
    callback: MaybeCallback,
    log_interval: int | None,
    tb_log_name: str,
    reset_num_timesteps: bool,
    progress_bar: bool,
) -> None:
    """
    Make gradient steps on stored transitions, each of which counts as one step of the run. This is the loop of SB3's
    ``learn``, where :func:`count_updates` takes the place of the steps of the environments.

    :param model: a DQNExt
    :param n_updates: the number of gradient steps
    :param callback: see :meth:`~sb3_dqn_ext.DQNExt.learn_offline`, as for the other arguments
    :param log_interval: the number of gradient steps between two logs; None: no logs
    :param tb_log_name: the name of the run in TensorBoard
    :param reset_num_timesteps: whether steps are counted from 0
    :param progress_bar: whether to show a progress bar
    :raises ArgumentError: if an argument is wrong, or there are no transitions
    """
    check_number("n_updates", n_updates, low=0, integer=True)
    if log_interval is not None:
        check_number("log_interval", log_interval, low=1, integer=True)
    _check_offline(model)
    # callbacks read this name from their locals, as in SB3
    total_timesteps, events = model._setup_learn(n_updates, callback, reset_num_timesteps, tb_log_name, progress_bar)
    events.on_training_start({"self": model, **locals()}, globals())
    model.run_state.is_offline = True
    next_log = None if log_interval is None else (model.num_timesteps // log_interval + 1) * log_interval
    while model.num_timesteps < total_timesteps:
        rollout = model.collect_rollouts(
            model.env, events, model.train_freq, model.replay_buffer, None, model.learning_starts, log_interval
        )
        if not rollout.continue_training:
            break
        model.train(gradient_steps=rollout.episode_timesteps, batch_size=model.batch_size)
        if next_log is not None and log_interval is not None and model.num_timesteps >= next_log:
            next_log += log_interval
            model.dump_logs()
    events.on_training_end()


def _check_offline(model: Any) -> None:
    """:raises ArgumentError: if a model cannot learn from what its replay buffer holds"""
    if model.n_epochs is not None:
        raise ArgumentError(f"learn_offline() draws random batches, and n_epochs={model.n_epochs} draws none: leave it out.")
    buffer = model.replay_buffer
    has_demonstrations = isinstance(buffer, DQNReplayBuffer) and buffer.demonstrations is not None
    if not has_demonstrations and (buffer is None or buffer.size() == 0):
        raise ArgumentError(
            "learn_offline() needs transitions: give replay_buffer_kwargs={'demonstrations': ...}, or load some with "
            "model.load_replay_buffer()."
        )


def count_updates(model: Any, callback: BaseCallback) -> RolloutReturn:
    """
    Count the gradient steps of the next training as steps, in place of steps of the environments.

    :param model: a DQNExt
    :param callback: the callback of the run, called for each of them
    :return: the number of gradient steps, no episode, and whether the training continues
    """
    callback.on_rollout_start()
    n_steps, continue_training = 0, True
    nothing = np.empty(0)
    # callbacks read these names from their locals, as in SB3; no environment has made a step
    step = {"self": model, "env": model.env, "new_obs": model._last_obs, "actions": nothing, "rewards": nothing}
    step |= {"dones": nothing.astype(bool), "infos": []}
    # a step of several environments counts as many
    n_wanted = min(max(model.gradient_steps, model.n_envs), model._total_timesteps - model.num_timesteps)
    while n_steps < n_wanted and continue_training:
        n_now = min(model.n_envs, n_wanted - n_steps)
        n_steps += n_now
        model.num_timesteps += n_now
        callback.update_locals(dict(step))
        continue_training = callback.on_step()
        model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
        model._count_call()
    if continue_training:
        callback.on_rollout_end()
    return RolloutReturn(n_steps, 0, continue_training)


def pretrain(model: Any) -> None:
    """
    Make the gradient steps that precede the first step of the environments, unless they were made already.

    :param model: a DQNExt at the beginning of a rollout
    """
    n_updates = model.pretraining_updates - model._n_updates
    if model.num_timesteps == 0 and n_updates > 0:
        model.train(n_updates, model.batch_size)
