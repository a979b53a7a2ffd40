"""The values of next states at the time of acting, from which lambda returns bootstrap."""

from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.action_selection import predicted_q_values
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.algorithm.exploration import Values
from sb3_dqn_ext.fast.numpy_forward import QValues
from sb3_dqn_ext.replay.lambda_returns import LambdaReturns
from sb3_dqn_ext.replay.observations import write_row

__all__ = ["computed_q_values", "set_next_values"]

Array = npt.NDArray[Any]


def set_next_values(
    model: Any,
    lambda_returns: LambdaReturns,
    new_obs: Array | dict[str, Array],
    dones: Array,
    infos: list[dict[str, Any]],
) -> None:
    """
    Set the values after the step that is stored next, and keep the Q-values from which the next actions are chosen.

    :param model: a DQNExt
    :param lambda_returns: the lambda returns of its replay buffer
    :param new_obs: (n_envs, \\*obs) the observations after the step, as the network reads them
    :param dones: (n_envs,) whether each episode ended
    :param infos: the infos of the step; the final observation of a truncated episode is read
    """
    by_numpy = model.updater.numpy_q_values

    def q_values_of(obs: Any) -> Values:
        values: Values = predicted_q_values(model, obs) if by_numpy is None else by_numpy(obs)
        return values

    q_values = model.run_state.acting_values = q_values_of(new_obs)
    values = q_values.max(axis=1)
    # after a termination, there is no value
    truncated = [env for env in np.flatnonzero(dones).tolist() if infos[env].get("TimeLimit.truncated", False)]
    if truncated:
        last_obs = map_observation(np.array, new_obs)
        for env in truncated:
            if (last := infos[env].get("terminal_observation")) is not None:
                write_row(last_obs, env, last)
        values[truncated] = q_values_of(last_obs)[truncated].max(axis=1)
    lambda_returns.expect(values)


def computed_q_values(model: Any) -> QValues | None:
    """
    Return the Q-values of the latest observations as a function of them, if they are computed already.

    :param model: a DQNExt
    :return: the function; None if they are not computed, or the greedy actions of the policy depend on more than them
    """
    q_values = model.run_state.acting_values
    return None if q_values is None or not model.updater.acts_greedily else lambda _: q_values
