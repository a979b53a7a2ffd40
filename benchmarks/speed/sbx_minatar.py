"""The MinAtar network for SBX."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from sbx.common.type_aliases import RLTrainState
from sbx.dqn.policies import DQNPolicy

from benchmarks.speed.workloads import CHANNELS


class MinAtarNetwork(nn.Module):
    """A convolution of 16 filters, a hidden layer and the Q-values, as :class:`~benchmarks.speed.networks.MinAtarCNN`."""

    n_actions: int
    n_units: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the (B, A) Q-values of (B, height, width, channels) images."""
        x = nn.relu(nn.Conv(CHANNELS, kernel_size=(3, 3), padding="VALID")(images.astype(jnp.float32)))
        x = nn.relu(nn.Dense(self.n_units)(x.reshape((len(x), -1))))
        return nn.Dense(self.n_actions)(x)


class MinAtarPolicy(DQNPolicy):
    """A policy with the MinAtar network. SBX has no argument for the network of DQN, so its ``build`` is repeated here."""

    def build(self, key: jax.Array, lr_schedule: Any) -> jax.Array:
        """Make the networks and the optimizer."""
        key, qf_key = jax.random.split(key)
        self.qf = MinAtarNetwork(int(self.action_space.n), self.n_units)
        params = self.qf.init(qf_key, jnp.array([self.observation_space.sample()]))
        make_optimizer, make_state = cast(Any, self.optimizer_class), cast(Any, RLTrainState).create
        self.qf_state = make_state(
            apply_fn=self.qf.apply,
            params=params,
            target_params=params,
            tx=make_optimizer(learning_rate=lr_schedule(1), **self.optimizer_kwargs),
        )
        return key
