"""
``python -m tests.trials``: draw many trials of the zoo's search, check each, and print all values that occurred, as JSON.

It runs in a separate process, since importing the zoo patches gymnasium.
"""

import collections
import json
import warnings
from typing import Any

import gymnasium as gym
import optuna
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from sb3_dqn_ext import DQNExt

N_TRIALS = 150
ADDITIONAL: dict[str, Any] = {"using_her_replay_buffer": False, "her_kwargs": {}}

# A configuration that contradicts the trials: the values of the trials replace it.
CONFIGURED: dict[str, Any] = {
    "tau": 0.01,
    "target_update_interval": 1,
    "target_update_unit": "gradient_steps",
    "exploration_kwargs": {"schedule": {"name": "exponential", "start": 1.0, "end": 0.1, "rate": 0.01}},
    "policy_kwargs": {"net_arch": [16]},
}


def parameters_of_model(sampled: dict[str, Any]) -> dict[str, Any]:
    """
    Build a model and return the parameters of the study that its attributes show.

    :param sampled: the sampled arguments of DQNExt
    :return: the parameters by name
    """
    with gym.make("CartPole-v1") as env:
        model = DQNExt("MlpPolicy", env, device="cpu", **(CONFIGURED | sampled))
    policy: Any = model.policy
    buffer: Any = model.replay_buffer
    return {
        "target_policy": model.target_policy,
        "head": policy.head,
        "norm": policy.norm,
        "optimizer_class": type(policy.optimizer).__name__.lower(),
        "returns": policy.returns,
        **({"loss": policy.loss} if policy.returns == "expected" else {}),
        "n_steps": buffer.n_steps,
        "sampler": model.replay_buffer_kwargs["sampler"],
        "terminal_copies": buffer.terminal_copies,
        "soft_targets": model.target_update_unit == "gradient_steps",
        "tau": model.tau,
        "td_lambda": buffer.td_lambda,
        "batch_size_pow": model.batch_size.bit_length() - 1,
        "exploration_final_eps": model.exploration_schedule(0.0),
    }


def main() -> None:
    """Draw the trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("error", "tau|target_update")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    sample, convert = HYPERPARAMS_SAMPLER["dqn_ext"], HYPERPARAMS_CONVERTER["dqn_ext"]
    occurred = collections.defaultdict(set)
    for _ in range(N_TRIALS):
        trial = study.ask()
        sampled = sample(trial, 2, 1, ADDITIONAL)
        stored = study.trials[trial.number].params
        assert convert(stored) == sampled, stored
        model = parameters_of_model(sampled)
        expected = {"tau": 1.0, "td_lambda": None} | {name: stored[name] for name in model if name in stored}
        if "td_lambda" in stored:  # without a target network, the sampled arguments of its updates are left out
            expected |= {"tau": 1.0, "soft_targets": False}
        assert model == expected, stored
        for name, value in stored.items():
            occurred[name].add(value)

    # with HER, whose replay buffer has other arguments
    with_her = sample(study.ask(), 2, 1, ADDITIONAL | {"using_her_replay_buffer": True})
    assert with_her["replay_buffer_kwargs"].keys() == {"n_sampled_goal", "goal_selection_strategy"}
    assert "n_steps" not in with_her

    # a study of --algo dqn
    trial = study.ask()
    HYPERPARAMS_SAMPLER["dqn"](trial, 2, 1, ADDITIONAL)
    with gym.make("CartPole-v1") as env:
        assert DQNExt("MlpPolicy", env, device="cpu", **convert(trial.params)).learning_rate == trial.params["learning_rate"]

    print(json.dumps({name: sorted(values) for name, values in occurred.items()}))


if __name__ == "__main__":
    main()
