"""Q-values of images from a compiled function, compared with those of the network."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.fast.compiled_forward import compile_q_values
from sb3_dqn_ext.networks.flat_storage import flatten_parameters
from sb3_dqn_ext.vec_env import make_fast_vec_env

ENCODER = {"encoder": "minatar", "encoder_kwargs": {"features_dim": 8}}


def make(**kwargs: Any) -> DQNExt:
    env = make_fast_vec_env("dqn_ext/Catch-v0", n_envs=2, seed=0)
    arguments: dict[str, Any] = {
        "learning_starts": 16,
        "buffer_size": 100,
        "batch_size": 8,
        "train_freq": 1,
        "seed": 0,
        "device": "cpu",
    }
    return DQNExt("MlpPolicy", env, **arguments, **{"policy_kwargs": ENCODER, **kwargs})


def images(model: DQNExt) -> Any:
    return np.array([model.observation_space.sample() for _ in range(2)])


def eager_q_values(model: DQNExt, observations: Any) -> Any:
    with th.no_grad():
        return model.q_net(th.as_tensor(observations)).numpy()


def test_training_chooses_actions_by_the_compiled_function() -> None:
    model = make(compile={"unroll": 1})
    model.learn(60)
    compiled = model.updater.numpy_q_values
    assert compiled is not None
    observations = images(model)
    before = compiled(observations)
    np.testing.assert_allclose(before, eager_q_values(model, observations), rtol=1e-5, atol=1e-6)
    pickle.dumps(model.policy)  # it separates the parameters, as checkpoints do
    model.learn(60, reset_num_timesteps=False)
    compiled = model.updater.numpy_q_values
    assert compiled is not None
    assert np.abs(compiled(observations) - before).max() > 1e-4, "the parameters are those before the second training"
    np.testing.assert_allclose(compiled(observations), eager_q_values(model, observations), rtol=1e-5, atol=1e-6)
    # SB3's VecTransposeImage gives arrays in another order in memory
    reordered = np.asfortranarray(observations)
    np.testing.assert_array_equal(compiled(reordered), compiled(observations))
    np.testing.assert_array_equal(compiled(observations.astype(np.float64)), compiled(observations))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"policy_kwargs": {**ENCODER, "noisy": True}},
        {"policy_kwargs": {**ENCODER, "returns": "implicit_quantile"}},
        {"policy_kwargs": {"net_arch": [8]}, "env_id": "CartPole-v1"},
    ],
)
def test_other_networks_are_evaluated_by_the_policy(kwargs: dict[str, Any]) -> None:
    env_id = kwargs.pop("env_id", "dqn_ext/Catch-v0")
    model = DQNExt("MlpPolicy", make_fast_vec_env(env_id, n_envs=1, seed=0), device="cpu", **kwargs)
    flat = flatten_parameters(list(model.q_net.parameters()))
    assert compile_q_values(model.q_net, flat, 1) is None
