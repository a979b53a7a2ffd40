"""DQNExt with the arguments and defaults of sb3-contrib's QRDQN, for the tests of sb3-contrib."""

import math
from operator import attrgetter
from typing import Any

from sb3_dqn_ext import DQNExt

DEFAULTS = {
    "learning_rate": 5e-5,
    "target_update_interval": 10_000,
    "exploration_fraction": 0.005,
    "exploration_final_eps": 0.01,
    "max_grad_norm": math.inf,
}


class QuantileDQN(DQNExt):
    """
    DQNExt with ``returns="quantile"`` and the arguments of QRDQN.

    :param policy: the policy, see DQNExt
    :param env: the environment, see DQNExt
    :param batch_size: the number of transitions of each gradient step
    :param policy_kwargs: the arguments of QRDQN's policies: ``n_quantiles``, and those of SB3's policies
    :param kwargs: the other arguments of QRDQN
    """

    quantile_net = property(attrgetter("q_net"))
    quantile_net_target = property(attrgetter("q_net_target"))

    def __init__(
        self, policy: Any, env: Any, batch_size: int = 32, policy_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        of_policy = dict(policy_kwargs or {})
        n_quantiles = of_policy.pop("n_quantiles", 200)
        if "optimizer_class" not in of_policy:
            of_policy["optimizer_kwargs"] = {"eps": 0.01 / batch_size}
        of_policy |= {"returns": "quantile", "returns_kwargs": {"n_quantiles": n_quantiles}}
        super().__init__(policy, env, batch_size=batch_size, policy_kwargs=of_policy, **{**DEFAULTS, **kwargs})
