"""The choice of actions with exploration."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext.algorithm.exploration import Actions, Exploration, ExplorationContext, Values
from sb3_dqn_ext.algorithm.predictions import stochastic_predictions
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.numpy_forward import QValues

__all__ = ["explored_actions", "predicted_q_values"]

Array = npt.NDArray[Any]


def predicted_q_values(model: Any, observation: Array | dict[str, Array]) -> Values:
    """
    Compute the Q-values with which a model chooses actions: those of its online network, with noise.

    :param model: a DQNExt
    :param observation: (n_envs, \\*obs) the observations of the environments, or (\\*obs) one observation
    :return: (n_envs, A) Q-values; (1, A) for one observation
    """
    model.policy.set_training_mode(False)
    with th.no_grad(), stochastic_predictions(model.q_net):
        values: Values = model.q_net(model.policy.obs_to_tensor(observation)[0]).cpu().numpy()
    return values


def explored_actions(
    model: Any,
    exploration: Exploration,
    generator: np.random.Generator,
    observation: Array | dict[str, Array],
    is_batch: bool,
    state: dict[str, Array],
    numpy_q_values: QValues | None = None,
) -> Actions:
    """
    Choose actions with the exploration of a model.

    :param model: a DQNExt
    :param exploration: its exploration
    :param generator: the random generator for the exploration
    :param observation: (n_envs, \\*obs) the observations of the environments, or (\\*obs) one observation
    :param is_batch: whether there is one observation for each environment
    :param state: the arrays that the exploration keeps between steps; the exploration changes them
    :param numpy_q_values: a NumPy function that computes the Q-values of the online network, if the policy's greedy actions
        depend on nothing else; None: the policy is called
    :return: (n_envs,) actions; (1,) for one observation
    :raises ArgumentError: if the exploration returns something else
    """
    first = next(iter(observation.values())) if isinstance(observation, dict) else observation

    def greedy() -> Actions:
        if numpy_q_values is not None:
            best: Actions = numpy_q_values(first).argmax(axis=1)
            return best
        actions: Actions = model.policy.predict(observation, None, None, False)[0]
        return actions if is_batch else np.atleast_1d(actions)

    n_envs = len(first) if is_batch else 1
    q_values = partial(predicted_q_values, model, observation) if numpy_q_values is None else partial(numpy_q_values, first)
    context = ExplorationContext(n_envs, model.exploration_rate, greedy, q_values, model.action_space.sample, generator, state)
    actions = exploration(context)
    if not isinstance(actions, np.ndarray) or actions.shape != (n_envs,) or actions.dtype.kind not in "iu":
        raise ArgumentError(
            f"{type(exploration).__name__} must return an array of {n_envs} actions, which are whole numbers. "
            f"It has returned {actions!r}."
        )
    return actions
