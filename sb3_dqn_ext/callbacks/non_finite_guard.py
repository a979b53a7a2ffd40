"""Stop before numbers that are nan or infinite are remembered or learned."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqn_ext.algorithm.finite_updates import LARGEST, fault_of_update, largest_norm
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.exact_checkpoint import where_to_go_on
from sb3_dqn_ext.callbacks.run_callback import RunCallback
from sb3_dqn_ext.errors import ArgumentError, NonFiniteError

Array = npt.NDArray[Any]
SHOWN = 3  # entries and parameters that a message names
FEW = 16  # so many numbers are looked at in Python sooner than in numpy
SMALL = 6e4  # every type of floating-point numbers holds it
FLOAT32 = np.dtype(np.float32)  # in which rewards are remembered


def is_finite(numbers: Array, limit: float) -> bool:
    """
    :param numbers: of any shape and type
    :param limit: the largest number of the type in which they will be stored
    :return: False if one of them would be nan or infinite there, or could be, and has to be looked at
    """
    if numbers.dtype.kind != "f":
        return True
    if numbers.size <= FEW:
        return math.hypot(*numbers.ravel().tolist()) <= limit
    # The square of the norm is one call, and no number from 1 on is larger than it.
    return bool(np.vdot(numbers, numbers) <= limit)


def not_finite(numbers: Array, limit: float) -> Array:
    """
    :param numbers: of any shape and type
    :param limit: see :func:`is_finite`
    :return: (k, dimensions) where those are that would be nan or infinite
    """
    return np.argwhere(~(np.abs(numbers) <= limit)) if numbers.dtype.kind == "f" else np.empty((0, numbers.ndim), int)


def shown(items: list[str]) -> str:
    """
    :param items: to list
    :return: some of them, and how many more there are
    """
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def types_of(space: spaces.Space[Any]) -> dict[str | None, np.dtype[Any]]:
    """
    :param space: of observations
    :return: the type in which each part of them is stored, if it is one of floating-point numbers, else float32, which
        networks are told
    """
    boxes = space.spaces if isinstance(space, spaces.Dict) else {None: space}
    return {key: box.dtype if box.dtype is not None and box.dtype.kind == "f" else FLOAT32 for key, box in boxes.items()}


class Statistics:
    """
    What a VecNormalize has counted up to the last good step: it counts a step before anybody can look at it.

    :param env: whose statistics can be put back
    """

    def __init__(self, env: VecNormalize) -> None:
        means: Any = vars(env).get("obs_rms", {})
        running = list(means.values()) if isinstance(means, dict) else [means]
        self._env, self._running = env, [env.ret_rms, *running]
        self.keep()

    def keep(self) -> None:
        """Remember them. Each step makes new arrays, so that none has to be copied."""
        env = self._env
        self._kept = [(vars(one), dict(vars(one))) for one in self._running]
        self._kept.append((vars(env), {name: vars(env).get(name) for name in ("returns", "old_obs", "old_reward")}))

    def put_back(self) -> None:
        """Make them what they were."""
        for now, kept in self._kept:
            now.update(kept)


def training_of(model: Any) -> dict[str, Any]:
    """
    :param model: of SB3, in the middle of its ``train()``
    :return: the variables of that method, which keeps the loss there and tells it to nobody before its gradient is followed
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == "train" and frame.f_locals.get("self") is model:
            return frame.f_locals
    return {}


class Guard:
    """
    Looks at what is about to be remembered and learned in a run.

    :param model: whose run is about to begin
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._types = types_of(model.observation_space)
        self._limits = {key: float(np.finfo(of_part).max) for key, of_part in self._types.items()}
        self._reward_limit = float(np.finfo(FLOAT32).max)
        self._normalize: Any = model.get_vec_normalize_env()
        self._statistics = None if self._normalize is None else Statistics(self._normalize)
        # batch normalisation counts a batch before its loss is known
        self._counted = [(numbers, numbers.clone()) for numbers in getattr(model, "batch_norm_stats", ())]
        self._hook: Any = None
        space = model.observation_space
        n_numbers = model.n_envs * math.prod(space.shape) if isinstance(space, spaces.Box) else math.inf
        self._has_few = self._normalize is None and n_numbers <= FEW

    # -- steps --

    def check_start(self) -> None:
        """:raises NonFiniteError: if the run would begin at an observation that is not finite"""
        if self._normalize is not None:
            self._check(self._normalize.old_obs, "first observation")
        self._check(self._model._last_obs, "first observation" if self._normalize is None else "normalised first observation")

    def check_step(self, new_obs: Any, rewards: Array, dones: Array, infos: Sequence[dict[str, Any]]) -> None:
        """
        :param new_obs: (n_envs, ...) what was observed, normalised if there is a VecNormalize
        :param rewards: (n_envs,) normalised if there is a VecNormalize
        :param dones: (n_envs,) whether an episode ended
        :param infos: (n_envs,)
        :raises NonFiniteError: if something of it is not finite
        """
        if self._has_few and math.hypot(*new_obs.ravel().tolist(), *rewards.tolist()) <= SMALL and True not in dones.tolist():
            return  # what most steps are, in a third of the time
        kind = ""
        if self._normalize is not None:
            self._check(self._normalize.old_obs, "observation", dones)
            self._check_rewards(self._normalize.old_reward, "reward")
            kind = "normalised "
        self._check(new_obs, kind + "observation", dones)
        self._check_rewards(rewards, kind + "reward")
        if any(ended := dones.tolist()):
            for env, last in ((env, infos[env].get("terminal_observation")) for env, done in enumerate(ended) if done):
                if last is not None:
                    self._check(last, kind + "last observation", only=env)
        if self._statistics is not None:
            self._statistics.keep()

    def _check(self, observations: Any, what: str, dones: Array | None = None, only: int | None = None) -> None:
        """
        :param observations: (n_envs, ...) each part of them, or (...) of one environment
        :param what: they are, in words
        :param dones: (n_envs,) whether they are the first of an episode
        :param only: of which environment they are
        """
        if not isinstance(observations, dict):
            self._check_part(observations, None, what, dones, only)
            return
        for key, numbers in observations.items():
            self._check_part(numbers, key, f"{what}[{key!r}]", dones, only)

    def _check_part(self, numbers: Array, key: str | None, what: str, dones: Array | None, only: int | None) -> None:
        if only is not None:
            numbers = np.asarray(numbers)[None]  # a choice can be a number of Python
        if not is_finite(numbers, self._limits[key]):
            self._refuse(numbers, self._types[key], what, dones, only or 0)

    def _check_rewards(self, rewards: Array, what: str) -> None:
        if not is_finite(rewards, self._reward_limit):
            self._refuse(rewards, FLOAT32, what)

    def _refuse(
        self, numbers: Array, stored_as: np.dtype[Any], what: str, dones: Array | None = None, first_env: int = 0
    ) -> None:
        """
        :param numbers: (n_envs, ...) which may be not finite
        :param stored_as: the type they would be stored in
        :param what: they are, in words
        :param dones: (n_envs,) whether they are the first of an episode
        :param first_env: whose numbers come first
        """
        places = not_finite(numbers, float(np.finfo(stored_as).max))
        if not len(places):
            return
        envs = np.unique(places[:, 0]).tolist()
        entries = [
            f"{[*place]} = {numbers[env][tuple(place)]:g}" if place else f"{numbers[env]:g}"
            for env, *place in places.tolist()
            if env == envs[0]
        ]
        new = ", the first of a new episode," if dones is not None and dones[envs[0]] else ""
        others = f" (nor that of environments {shown([str(first_env + env) for env in envs[1:]])})" if envs[1:] else ""
        if self._statistics is not None:
            self._statistics.put_back()
        self._model._last_obs = None  # what comes next does not follow it
        self._end(
            f"the {what} of environment {first_env + envs[0]}{new} is no finite {stored_as}{others}: {shown(entries)}. "
            "It was not stored"
        )

    # -- updates --

    def check_rate(self) -> None:
        """:raises NonFiniteError: if the learning rate would bring the parameters out of the finite numbers"""
        for group in self._model.policy.optimizer.param_groups:
            if not group["lr"] <= LARGEST:
                self._end(f"the learning rate is {group['lr']:g}, and can be {LARGEST:g} at most. No update was made with it")

    def check_update(self, loss: float, norm: float, max_grad_norm: float | None = None, n_before: int = 0) -> None:
        """
        :param loss: of the batch
        :param norm: of its gradient, which lies in the parameters' ``grad``
        :param max_grad_norm: to which norm it is about to be clipped, if it is
        :param n_before: updates that the model has not counted yet
        :raises NonFiniteError: if its step would not be finite
        """
        if not self._counted and math.hypot(loss, norm) <= LARGEST:
            return
        fault = fault_of_update(loss, norm, largest_norm(max_grad_norm))
        for now, kept in self._counted:
            kept.copy_(now) if fault is None else now.copy_(kept)
        if fault is not None:
            names = [
                name
                for name, parameter in self._model.policy.named_parameters()
                if parameter.grad is not None and not bool(th.isfinite(parameter.grad).all())
            ]
            of = f"; the gradient is not finite in {shown(names)}" if names else ""
            self._end(f"{fault} in update {self._model._n_updates + n_before + 1}{of}. The update was not made")

    def follow(self, optimizer: th.optim.Optimizer) -> None:
        """
        Look at each step of an optimizer of SB3's algorithms, which do not ask.

        :param optimizer: of the model
        """
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
        gradients = [of.grad for group in optimizer.param_groups for of in group["params"] if of.grad is not None]
        norms = [norm.item() for norm in th._foreach_norm(gradients)] if gradients else []  # they are clipped already
        training = training_of(self._model)
        loss = training["loss"].item() if "loss" in training else 0.0
        self.check_rate()
        self.check_update(loss, math.hypot(*norms), n_before=len(training.get("losses", ())[1:]))

    def leave(self) -> None:
        """Let the optimizer be."""
        if self._hook is not None:
            self._hook.remove()

    def _end(self, what: str) -> NoReturn:
        self.leave()
        run_state = getattr(self._model, "run_state", None)
        where = "" if run_state is None else where_to_go_on(self._model, all_callbacks(run_state.callback))
        raise NonFiniteError(
            f"Step {self._model.num_timesteps}: {what}: the networks, the optimizer and the replay memory are as they were "
            f"before.{where}"
        )


class NonFiniteGuardCallback(RunCallback):
    """
    End the run by a :class:`~sb3_dqn_ext.errors.NonFiniteError` before a number that is nan or infinite enters the replay
    memory or the networks. The message names what is at fault: which entries of an observation, or the reward, of which
    environment; the loss, or the gradient of which parameters, in which update.

    The networks, the optimizer, the replay memory and the statistics of a VecNormalize are then as they were before, and so is
    the newest checkpoint of an :class:`~sb3_dqn_ext.callbacks.ExactCheckpointCallback`, which the message names. A next
    ``learn`` begins new episodes.

    Each step is checked before any callback gets it, also where an event callback such as ``EveryNTimesteps`` holds this one.

    ``DQNExt(..., check_finite=True)`` puts one before the callbacks of each run.

    :raises ArgumentError: at the start of the run, if the model has not one optimizer, as DQN and QRDQN have
    """

    _guard: Guard | None = None

    @property
    def _observes_from(self) -> int:
        return 0

    def _on_run_start(self, continues: bool) -> None:
        model: Any = self.model
        optimizer = getattr(model.policy, "optimizer", None)
        if not isinstance(optimizer, th.optim.Optimizer):
            raise ArgumentError(f"NonFiniteGuardCallback needs a DQN or QRDQN, not {type(model).__name__}.")
        self._guard = Guard(model)
        if hasattr(model, "check_finite"):
            model.run_state.guard = self._guard
        else:
            self._guard.follow(optimizer)
        self._guard.check_start()

    def _on_run_step(self, seen: Mapping[str, Any]) -> None:
        assert self._guard is not None
        # environments may have lists, and 0 and 1 as ends
        rewards, dones = np.asarray(seen["rewards"]), np.asarray(seen["dones"], dtype=bool)
        self._guard.check_step(seen["new_obs"], rewards.ravel(), dones.ravel(), seen["infos"])

    def _put_back(self) -> None:
        model: Any = self.model
        if self._guard is not None:
            self._guard.leave()
            if hasattr(model, "run_state") and model.run_state.guard is self._guard:
                model.run_state.guard = None
        self._guard = None


def guarded_too(callback: MaybeCallback) -> MaybeCallback:
    """
    :param callback: what ``learn`` takes
    :return: the same with a :class:`NonFiniteGuardCallback` before it, if there is none
    """
    if any(isinstance(one, NonFiniteGuardCallback) for one in all_callbacks(callback)):
        return callback
    others = callback if isinstance(callback, list) else [] if callback is None else [callback]
    return [NonFiniteGuardCallback(), *(one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in others)]
