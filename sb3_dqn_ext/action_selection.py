"""The actions of a model that explores."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext.algorithm.exploration import Actions, Exploration, ExplorationContext, Values
from sb3_dqn_ext.algorithm.predictions import stochastic_predictions
from sb3_dqn_ext.fast.numpy_forward import QValues

__all__ = ["explored_actions"]

Array = npt.NDArray[Any]


def explored_actions(
    model: Any,
    exploration: Exploration,
    generator: np.random.Generator,
    observation: Array | dict[str, Array],
    is_batch: bool,
    memory: dict[str, Array],
    numpy_q_values: QValues | None = None,
) -> Actions:
    """
    Choose actions as exploration does.

    :param model: a DQNExt
    :param exploration: its exploration
    :param generator: its generator of random numbers
    :param observation: one observation, or one for each environment
    :param is_batch: whether there is one for each environment
    :param memory: the arrays that the exploration keeps from step to step
    :param numpy_q_values: the Q-values of the online network in numpy, where the greedy actions are those of this network
    :return: (n_envs,) actions
    """
    first = next(iter(observation.values())) if isinstance(observation, dict) else observation

    def greedy() -> Actions:
        if numpy_q_values is not None:
            best: Actions = numpy_q_values(first).argmax(axis=1)
            return best
        actions: Actions = model.policy.predict(observation, None, None, False)[0]
        return actions if is_batch else np.atleast_1d(actions)

    def q_values() -> Values:
        model.policy.set_training_mode(False)
        with th.no_grad(), stochastic_predictions(model.q_net):
            found: Values = model.q_net(model.policy.obs_to_tensor(observation)[0]).cpu().numpy()
        return found

    n_envs = len(first) if is_batch else 1
    return exploration(
        ExplorationContext(n_envs, model.exploration_rate, greedy, q_values, model.action_space.sample, generator, memory)
    )
