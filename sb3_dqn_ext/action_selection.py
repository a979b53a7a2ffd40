"""The choice of actions: with exploration, and among legal actions. Shapes: N environments, A actions."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces

from sb3_dqn_ext.algorithm.action_masks import ACTION_MASK
from sb3_dqn_ext.algorithm.exploration import Actions, Exploration, ExplorationContext, Values
from sb3_dqn_ext.algorithm.predictions import stochastic_predictions
from sb3_dqn_ext.env_factory import env_id
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.numpy_forward import QValues

__all__ = [
    "check_final_masks",
    "explored_actions",
    "has_action_masks",
    "predicted_q_values",
    "random_actions",
    "with_action_masks",
]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Observations = Array | dict[str, Array]


def predicted_q_values(model: Any, observation: Observations) -> Values:
    """
    Compute the Q-values with which a model chooses actions: those of its online network, with noise.

    :param model: a DQNExt
    :param observation: (N, \\*obs) the observations of the environments, or (\\*obs) one observation
    :return: (N, A) Q-values; (1, A) for one observation
    """
    model.policy.set_training_mode(False)
    with th.no_grad(), stochastic_predictions(model.q_net):
        values: Values = model.q_net(model.policy.obs_to_tensor(observation)[0]).cpu().numpy()
    return values


def explored_actions(
    model: Any,
    exploration: Exploration,
    generator: np.random.Generator,
    observation: Observations,
    is_batch: bool,
    state: dict[str, Array],
    numpy_q_values: QValues | None = None,
) -> Actions:
    """
    Choose actions with the exploration of a model.

    :param model: a DQNExt
    :param exploration: its exploration
    :param generator: the random generator for the exploration
    :param observation: (N, \\*obs) the observations of the environments, or (\\*obs) one observation
    :param is_batch: whether there is one observation for each environment
    :param state: the arrays that the exploration keeps between steps; the exploration changes them
    :param numpy_q_values: a NumPy function that computes the Q-values of the online network, if the policy's greedy actions
        depend on nothing else; None: the policy is called
    :return: (N,) actions; (1,) for one observation
    :raises ArgumentError: if the exploration returns something else, or an illegal action, or if no action is legal
    """
    first = next(iter(observation.values())) if isinstance(observation, dict) else observation

    def greedy() -> Actions:
        if numpy_q_values is not None:
            best: Actions = numpy_q_values(observation).argmax(axis=1)
            return best
        actions: Actions = model.policy.predict(observation, None, None, False)[0]
        return actions if is_batch else np.atleast_1d(actions)

    n_envs = len(first) if is_batch else 1
    legal = _legal_actions(model, observation)
    random = partial(_random_action, model.action_space, legal)
    q_values = partial(predicted_q_values, model) if numpy_q_values is None else numpy_q_values
    context = ExplorationContext(
        n_envs, model.exploration_rate, greedy, partial(q_values, observation), random, generator, state, legal
    )
    actions = exploration(context)
    if not isinstance(actions, np.ndarray) or actions.shape != (n_envs,) or actions.dtype.kind not in "iu":
        raise ArgumentError(
            f"{type(exploration).__name__} must return an array of {n_envs} actions, which are whole numbers. "
            f"It has returned {actions!r}."
        )
    if legal is not None and not legal[np.arange(n_envs), actions].all():
        raise ArgumentError(
            f"{type(exploration).__name__}, or a method of {type(model.policy).__name__}, has chosen an illegal action: "
            f"{actions!r}. context.legal_actions are {legal!r}."
        )
    return actions


# action masks


def has_action_masks(model: Any) -> bool:
    """
    Return whether a model chooses among legal actions only.

    :param model: a DQNExt
    """
    return bool(getattr(model.policy, "action_masks", False))


def with_action_masks(model: Any, observation: Observations, action_masks: Array | None) -> dict[str, Array]:
    """
    Return an observation with a mask, and check that an action is legal.

    :param model: a DQNExt
    :param observation: (N, \\*obs) observations or (\\*obs) one observation, with or without a mask
    :param action_masks: (N, A) or (A,) masks, which replace those of the observation; None: the observation has a mask
    :return: the observation
    :raises ArgumentError: if there is no mask, or the model has no action masks, or no action is legal
    """
    if not has_action_masks(model):
        raise ArgumentError("predict(action_masks=...) needs a model with policy_kwargs={'action_masks': True}.")
    parts = observation if isinstance(observation, dict) else {_key_of_array(model): observation}
    if action_masks is not None:
        parts = {**parts, ACTION_MASK: np.asarray(action_masks)}
    if ACTION_MASK not in parts:
        raise ArgumentError(
            f"the observation has no part {ACTION_MASK!r}: give predict(observation, action_masks=...), or wrap the "
            "environment in sb3_dqn_ext.envs.ActionMaskInObservation, as in training."
        )
    _legal_actions(model, parts)
    return parts


def _key_of_array(model: Any) -> str:
    """Return the key of an observation that is one array in the observations with a mask."""
    others = [key for key in model.observation_space.spaces if key != ACTION_MASK]
    if len(others) > 1:
        raise ArgumentError(f"the observation must be a dictionary with the keys {others}, and not one array.")
    return str(others[0])


def random_actions(model: Any, observation: Observations) -> Actions:
    """
    Draw random legal actions.

    :param model: a DQNExt with action masks
    :param observation: (N, \\*obs) the observations of the environments
    :return: (N,) actions
    :raises ArgumentError: if no action is legal
    """
    legal = _legal_actions(model, observation)
    assert legal is not None
    return np.array([_random_action(model.action_space, legal, env) for env in range(len(legal))])


def check_final_masks(model: Any, dones: Array, infos: list[dict[str, Any]]) -> None:
    """
    Check that an action is legal in the final observation of each truncated episode, whose value is part of a target.

    :param model: a DQNExt with action masks
    :param dones: (N,) whether each episode ended
    :param infos: the infos of the step
    :raises ArgumentError: if no action is legal
    """
    for env in np.flatnonzero(dones).tolist():
        last = infos[env].get("terminal_observation")
        if last is not None and infos[env].get("TimeLimit.truncated", False) and not np.any(last[ACTION_MASK]):
            raise ArgumentError(f"no action is legal in the final observation of {_describe(model, env)}, which is truncated.")


def _random_action(space: spaces.Discrete, legal: Bools | None, env: int | None = None) -> Any:
    """Draw a random action, a legal one if there are masks."""
    if legal is None:
        return space.sample()
    if env is None and len(legal) > 1:
        raise ArgumentError("with action masks, write context.random_action(env) with the index of the environment.")
    return space.sample(mask=legal[env or 0].astype(np.int8))


def _legal_actions(model: Any, observation: Any) -> Bools | None:
    """Return (N, A) which actions are legal, None without action masks, and check that there is one for each observation."""
    if not has_action_masks(model):
        return None
    legal: Bools = np.asarray(observation[ACTION_MASK]).reshape(-1, int(model.action_space.n)) != 0
    if not legal.any(axis=1).all():
        row = int(legal.any(axis=1).argmin())
        place = _describe(model, row) if observation is model._last_obs else f"observation {row}"
        raise ArgumentError(f"no action is legal in {place}: its {ACTION_MASK!r} has no 1.")
    return legal


def _describe(model: Any, env: int) -> str:
    return f"environment {env} ({env_id(model.env, env)})"
