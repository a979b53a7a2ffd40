"""Checks that end a run before a number that is nan or infinite is stored or trained on."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqn_ext.algorithm.finite_updates import MAX_FINITE, max_finite_norm, non_finite_reason
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.exact_checkpoint import resume_hint
from sb3_dqn_ext.callbacks.finite_numbers import (
    FLOAT32,
    SAFE_NUMBER,
    SMALL_SIZE,
    describe_non_finite,
    first_items,
    is_finite,
    storage_dtypes,
)
from sb3_dqn_ext.errors import NonFiniteError

__all__ = ["StepCheck", "UpdateCheck"]

Array = npt.NDArray[Any]


def non_finite_error(model: Any, what: str) -> NonFiniteError:
    """
    Make the error that ends a run. Its message names the newest checkpoint.

    :param model: the model
    :param what: the cause, and the action that was not taken because of it
    :return: the error
    """
    run_state = getattr(model, "run_state", None)
    where = "" if run_state is None else resume_hint(model, all_callbacks(run_state.callback))
    unchanged = "the networks, the optimizer and the replay buffer are as they were before"
    return NonFiniteError(f"Step {model.num_timesteps}: {what}: {unchanged}.{where}")


class NormalizationStatistics:
    """
    The statistics of a VecNormalize up to the last finite step. VecNormalize includes a step before it can be checked.

    :param env: the VecNormalize whose statistics can be restored
    """

    def __init__(self, env: VecNormalize) -> None:
        means: Any = vars(env).get("obs_rms", {})
        running = list(means.values()) if isinstance(means, dict) else [means]
        self._env, self._running = env, [env.ret_rms, *running]
        self.save()

    def save(self) -> None:
        """Remember the statistics for :meth:`restore`, in memory."""
        attributes = vars(self._env)
        # references, except for ``returns``: a step replaces the other arrays, but may set elements of this one to 0
        latest = {name: attributes.get(name) for name in ("old_obs", "old_reward")}
        self._kept = [(vars(one), dict(vars(one))) for one in self._running]
        self._kept.append((attributes, latest | {"returns": self._env.returns.copy()}))

    def restore(self) -> None:
        """Set the statistics to those of the last :meth:`save`."""
        for now, kept in self._kept:
            now.update(kept)


class StepCheck:
    """
    A check of each transition before it is stored.

    :param model: the model, whose run is about to begin
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._types = storage_dtypes(model.observation_space)
        self._normalize: Any = model.get_vec_normalize_env()
        self._statistics = None if self._normalize is None else NormalizationStatistics(self._normalize)
        space = model.observation_space
        n_numbers = model.n_envs * math.prod(space.shape) if isinstance(space, spaces.Box) else math.inf
        self._is_small = self._normalize is None and n_numbers <= SMALL_SIZE

    def check_start(self) -> None:
        """
        Check the first observation of a run.

        :raises NonFiniteError: if it is not finite
        """
        if self._normalize is not None:
            self._check(self._normalize.old_obs, "first observation")
        self._check(self._model._last_obs, "first observation" if self._normalize is None else "normalised first observation")

    def check_step(self, new_obs: Any, rewards: Array, dones: Array, infos: Sequence[dict[str, Any]]) -> None:
        """
        Check the observations and rewards of a step. If they are finite, the normalisation statistics of the step are
        remembered.

        :param new_obs: (n_envs, ...) the observations, normalised if there is a VecNormalize
        :param rewards: (n_envs,) the rewards, normalised if there is a VecNormalize
        :param dones: (n_envs,) whether an episode ended
        :param infos: (n_envs,) the infos of the step
        :raises NonFiniteError: if an observation or a reward is not finite
        """
        if (
            self._is_small
            and math.hypot(*new_obs.ravel().tolist(), *rewards.tolist()) <= SAFE_NUMBER
            and True not in dones.tolist()
        ):
            return  # a check of most steps in a third of the time
        kind = ""
        if self._normalize is not None:
            self._check(self._normalize.old_obs, "observation", dones)
            self._check_numbers(self._normalize.old_reward, FLOAT32, "reward")
            kind = "normalised "
        self._check(new_obs, kind + "observation", dones)
        self._check_numbers(rewards, FLOAT32, kind + "reward")
        if any(ended := dones.tolist()):
            for env, last in ((env, infos[env].get("terminal_observation")) for env, done in enumerate(ended) if done):
                if last is not None:
                    self._check(last, kind + "last observation", only=env)
        if self._statistics is not None:
            self._statistics.save()

    def _check(self, observations: Any, what: str, dones: Array | None = None, only: int | None = None) -> None:
        """
        Check observations.

        :param observations: (n_envs, ...) each part of the observations, or (...) the observation of one environment
        :param what: the description of the observations
        :param dones: (n_envs,) whether an observation is the first of an episode
        :param only: the environment of the observation, if it is one
        """
        parts = observations if isinstance(observations, dict) else {None: observations}
        for key, numbers in parts.items():
            of_envs = (
                numbers if only is None else np.asarray(numbers)[None]
            )  # a Discrete observation can be a number of Python
            name = what if key is None else f"{what}[{key!r}]"
            self._check_numbers(of_envs, self._types[key], name, dones, only or 0)

    def _check_numbers(
        self, numbers: Array, stored_as: np.dtype[Any], what: str, dones: Array | None = None, first_env: int = 0
    ) -> None:
        """
        Check that numbers are finite in the type in which they will be stored. Otherwise, restore the normalisation statistics
        of the last finite step, and discard the model's last observation, so that the next run resets the environments.

        :param numbers: see :func:`~sb3_dqn_ext.callbacks.finite_numbers.describe_non_finite`, as for the following arguments
        :param stored_as: the type in which they will be stored
        :param what: the description of the numbers
        :param dones: (n_envs,) whether the numbers of an environment are the first of an episode
        :param first_env: the index of the first environment
        :raises NonFiniteError: if a number is not finite
        """
        if is_finite(numbers, stored_as):
            return
        fault = describe_non_finite(numbers, stored_as, what, dones, first_env)
        if fault is not None:
            if self._statistics is not None:
                self._statistics.restore()
            self._model._last_obs = None  # the next run begins new episodes
            raise non_finite_error(self._model, f"{fault}. It was not stored")


def train_variables(model: Any) -> dict[str, Any]:
    """
    Return the local variables of a running ``train()``. They include the loss, which SB3 logs only after the gradient step.

    :param model: an SB3 model whose ``train()`` has called the caller of this function, directly or not
    :return: the variables; empty if ``train()`` is not on the stack
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == "train" and frame.f_locals.get("self") is model:
            return frame.f_locals
    return {}


class UpdateCheck:
    """
    A check of each gradient step before it is made.

    :param model: the model, whose run is about to begin
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        # batch normalisation includes a batch before its loss is computed
        self._counted = [(numbers, numbers.clone()) for numbers in getattr(model, "batch_norm_stats", ())]
        self._hook: Any = None

    def check_rate(self) -> None:
        """
        Check the learning rate.

        :raises NonFiniteError: if the learning rate is so large that parameters would not be finite
        """
        for group in self._model.policy.optimizer.param_groups:
            if not group["lr"] <= MAX_FINITE:
                what = f"the learning rate is {group['lr']:g}, and can be {MAX_FINITE:g} at most. No update was made with it"
                raise non_finite_error(self._model, what)

    def check_update(self, loss: float, norm: float, max_grad_norm: float | None = None, n_before: int = 0) -> None:
        """
        Check the loss and the gradient of a batch.

        :param loss: the loss
        :param norm: the norm of the gradient, which is stored in the parameters' ``grad``
        :param max_grad_norm: the norm to which the gradient is about to be clipped; None (default): it is not clipped
        :param n_before: the number of updates that the model has not counted yet
        :raises NonFiniteError: if the gradient step would not be finite
        """
        if not self._counted and math.hypot(loss, norm) <= MAX_FINITE:
            return
        fault = non_finite_reason(loss, norm, max_finite_norm(max_grad_norm))
        for now, kept in self._counted:
            kept.copy_(now) if fault is None else now.copy_(kept)
        if fault is not None:
            names = [
                name
                for name, parameter in self._model.policy.named_parameters()
                if parameter.grad is not None and not bool(th.isfinite(parameter.grad).all())
            ]
            of = f"; the gradient is not finite in {first_items(names)}" if names else ""
            number = self._model._n_updates + n_before + 1
            raise non_finite_error(self._model, f"{fault} in update {number}{of}. The update was not made")

    def attach(self, optimizer: th.optim.Optimizer) -> None:
        """
        Check each step of an optimizer of SB3's algorithms, which do not call this class.

        :param optimizer: the optimizer of the model
        """
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
        gradients = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        norms = [norm.item() for norm in th._foreach_norm(gradients)] if gradients else []  # they are clipped already
        training = train_variables(self._model)
        loss = training["loss"].item() if "loss" in training else 0.0
        self.check_rate()
        self.check_update(loss, math.hypot(*norms), n_before=len(training.get("losses", ())[1:]))

    def detach(self) -> None:
        """Remove the check from the optimizer."""
        if self._hook is not None:
            self._hook.remove()
