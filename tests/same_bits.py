"""
Compare two checkouts bit by bit: ``python -m tests.same_bits OLD NEW [-k PART_OF_A_NAME]``.

More than 60 short trainings run in each checkout, in a separate process on this machine. For each training, digests of the
weights, the optimizer, the replay buffer, the states of all generators and the logged values are compared. Use it for changes
that should not change any number: OLD is a git worktree of the commit before the first change.
"""

import hashlib
import json
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.checkouts import imported, report, results, start, two_checkouts

RENAMED: dict[str, str] = {"rows": "vector_steps", "coin": "epsilon_draw"}
"""Names of arguments and values in OLD, and their names in NEW."""

SMALL: dict[str, Any] = {
    "learning_rate": 1e-3,
    "buffer_size": 200,
    "learning_starts": 30,
    "batch_size": 8,
    "train_freq": 2,
    "target_update_interval": 10,
    "seed": 0,
    "device": "cpu",
}
RETURNS: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"n_atoms": 5, "v_min": 0.0, "v_max": 20.0},
    "quantile": {"n_quantiles": 5},
    "implicit_quantile": {"n_quantiles": 4, "n_target_quantiles": 4, "n_policy_quantiles": 4},
}
EXPONENTIAL: dict[str, Any] = {"name": "exponential", "start": 1.0, "end": 0.1, "rate": 0.02}
HEADS: dict[str, list[int]] = {"shared": [], "multi_head": [6], "dueling": [6], "action_input": [6]}


class Training(NamedTuple):
    """The arguments of a training."""

    kwargs: Mapping[str, Any] = MappingProxyType({})
    env: str = "cartpole"
    policy: str = "MlpPolicy"
    callback: str = ""
    then: str = ""


def policy_kwargs(**kwargs: Any) -> dict[str, Any]:
    return {"policy_kwargs": kwargs}


def buffer(**kwargs: Any) -> dict[str, Any]:
    return {"replay_buffer_kwargs": kwargs}


def exploration(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"exploration": name, "exploration_kwargs": kwargs}


def trainings() -> dict[str, Training]:
    """List trainings with every value of every choice, several environments, Dict observations, compilation and resuming."""
    every_update = {"target_update_unit": "gradient_steps", "target_update_interval": 1, "tau": 0.1}
    four = {"env": "four"}
    found: dict[str, Training] = {
        "defaults": Training(),
        "double": Training({"target_policy": "double"}),
        "munchausen": Training({"target_policy": "munchausen"}),
        "ez_greedy": Training(exploration("ez_greedy", schedule=0.3), **four),
        "epsilon_ladder": Training(exploration("epsilon_ladder", schedule=0.4), **four),
        "boltzmann": Training(exploration("boltzmann", temperature=0.5), **four),
        "no exploration": Training(exploration("none") | policy_kwargs(noisy=True)),
        "one draw for all environments": Training({"exploration_kwargs": {"coin": "shared"}}, **four),
        "no warm-up": Training({"exploration_kwargs": {"warm_up": False}}),
        "exponential": Training({"exploration_kwargs": {"schedule": EXPONENTIAL}}),
        "actions": Training({"exploration_kwargs": {"schedule": EXPONENTIAL, "unit": "actions"}}, **four),
        "without replacement": Training(buffer(sampler_kwargs={"replace": False})),
        "prioritized": Training(buffer(sampler="prioritized")),
        "prioritized copies": Training(buffer(sampler="prioritized", terminal_copies=3), **four),
        "rows": Training(buffer(sampler="rows"), **four),
        "rows copies": Training(buffer(sampler="rows", terminal_copies=3), **four),
        "copies": Training(buffer(terminal_copies=4, terminal_on="done")),
        "n steps": Training({"n_steps": 3}),
        "n steps, four": Training({"n_steps": 3}, **four),
        "monte_carlo": Training(buffer(monte_carlo=1.0)),
        "mixed monte_carlo": Training({"n_steps": 2, "learning_starts": 100} | buffer(monte_carlo=0.5), **four),
        "keep_episodes": Training(buffer(keep_episodes=5)),
        "epochs": Training({"n_epochs": 2, "train_freq": (1, "episode")}),
        "minibatches": Training({"minibatch_size": 2}),
        "optimize_memory_usage": Training(
            {"optimize_memory_usage": True, "n_steps": 2}, env="dict", policy="MultiInputPolicy"
        ),
        "episodes": Training({"train_freq": (2, "episode"), "gradient_steps": -1}, **four),
        "no target network": Training({"target_network": False, "target_update_interval": None}),
        "every update": Training(every_update),
        "mse": Training(policy_kwargs(loss="mse", init="keras", activation_fn="tanh")),
        "fitted to all": Training(policy_kwargs(fitted_actions="all")),
        "float64": Training(policy_kwargs(dtype="float64", optimizer_class="adamw")),
        "batch_norm": Training(policy_kwargs(batch_norm=True, optimizer_class="rmsprop")),
        "optimizer per head": Training(policy_kwargs(head="multi_head", head_arch=[6], optimizer_per_head=True)),
        "sgd": Training(policy_kwargs(optimizer_class="sgd")),
        "dict": Training(env="dict", policy="MultiInputPolicy"),
        "images": Training({"learning_starts": 10}, env="image", policy="CnnPolicy"),
        "normalised": Training(env="normalised"),
        "sync": Training(env="sync"),
        "vector entry point": Training(env="vector"),
        "guarded": Training({"check_finite": True}),
        "SB3's replay buffer": Training({"replay_buffer_class": "ReplayBuffer"}),
        "soft updates by a callback": Training(callback="SoftTargetUpdateCallback"),
        "a schedule by a callback": Training(callback="EpsilonScheduleCallback"),
        "stopped": Training(callback="StopTrainingOnMeanReturn"),
        "diagnostics": Training(callback="DiagnosticsCallback"),
        "evaluated": Training(callback="EvalCallback"),
        "two runs": Training(then="learn"),
        "saved and loaded": Training(then="load"),
    }
    for returns, returns_kwargs in RETURNS.items():
        for head, head_arch in HEADS.items():
            noisy = head == "dueling"
            kwargs = policy_kwargs(head=head, head_arch=head_arch, returns=returns, returns_kwargs=returns_kwargs, noisy=noisy)
            found[f"{returns}, {head}"] = Training({"target_policy": "double"} | kwargs)
    for name in ("defaults", "prioritized copies", "mixed monte_carlo", "dict", "ez_greedy", "implicit_quantile, dueling"):
        found[f"{name}, resumed"] = found[name]._replace(then="resume")
    for name in (
        "defaults",
        "prioritized",
        "every update",
        "quantile, shared",
        "implicit_quantile, dueling",
        "vector entry point",
    ):
        training = found[name]
        kwargs = {**training.kwargs, "compile": {"unroll": 2}, "gradient_steps": 2}
        found[f"{name}, compiled"] = training._replace(kwargs=kwargs)
    return found


# in a process of one checkout


class Logged(KVWriter):
    """An output format of SB3's logger that keeps all values except times."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        values = {key: float(value) for key, value in key_values.items() if isinstance(value, int | float | np.number)}
        self.rows.append((step, sorted((key, value) for key, value in values.items() if not key.startswith("time/"))))

    def close(self) -> None:
        pass


class InParts(gym.ObservationWrapper[dict[str, Any], Any, Any]):
    """A wrapper that divides CartPole's observation into the parts of a dictionary."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        part = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = gym.spaces.Dict(cart=part, pole=part, side=gym.spaces.Discrete(2))

    def observation(self, observation: Any) -> dict[str, Any]:
        return {"cart": observation[:2], "pole": observation[2:], "side": int(observation[2] > 0)}


def cartpole() -> gym.Env[Any, Any]:
    return gym.make("CartPole-v1", max_episode_steps=20)


def seeded_images() -> gym.Env[Any, Any]:
    env = FakeImageEnv(36, 36, n_channels=1, discrete=True)
    env.observation_space.seed(0)
    return env


def evaluation() -> DummyVecEnv:
    env = DummyVecEnv([cartpole])
    env.seed(0)
    return env


def make_env(name: str) -> Any:
    from sb3_dqn_ext.vec_env import make_fast_vec_env

    kinds: dict[str, Callable[[], Any]] = {
        "cartpole": cartpole,
        "dict": lambda: InParts(cartpole()),
        "four": lambda: DummyVecEnv([cartpole] * 4),
        "image": seeded_images,
        "normalised": lambda: VecNormalize(DummyVecEnv([cartpole] * 2)),
        "sync": lambda: make_fast_vec_env("CartPole-v1", 3, seed=0, vectorization_mode="sync"),
        "vector": lambda: make_fast_vec_env("CartPole-v1", 3, seed=0, vectorization_mode="vector_entry_point"),
    }
    return kinds[name]()


def make_callback(name: str) -> Any:
    import sb3_dqn_ext.callbacks as ours

    schedule = {"name": "linear", "start": 1.0, "end": 0.1, "end_fraction": 0.5}

    kinds: dict[str, Callable[[], Any]] = {
        "": lambda: None,
        "SoftTargetUpdateCallback": lambda: ours.SoftTargetUpdateCallback(tau=0.1, every=3),
        "EpsilonScheduleCallback": lambda: ours.EpsilonScheduleCallback(schedule),
        "StopTrainingOnMeanReturn": lambda: ours.StopTrainingOnMeanReturn(threshold=15.0, window=3),
        "DiagnosticsCallback": lambda: ours.DiagnosticsCallback(every=40, calibration={"every": 60}),
        "EvalCallback": lambda: EvalCallback(evaluation(), n_eval_episodes=2, eval_freq=50, verbose=0),
    }
    return kinds[name]()


def make_model(training: Training) -> Any:
    from stable_baselines3.common.buffers import ReplayBuffer

    from sb3_dqn_ext import DQNExt

    kwargs = {name: value for name, value in {**SMALL, **training.kwargs}.items() if value is not None}
    if training.policy != "CnnPolicy":
        kwargs["policy_kwargs"] = {"net_arch": [8]} | kwargs.get("policy_kwargs", {})
    if kwargs.get("replay_buffer_class") == "ReplayBuffer":
        kwargs["replay_buffer_class"] = ReplayBuffer
    return DQNExt(training.policy, make_env(training.env), **kwargs)


def renamed(value: Any, names: dict[str, str]) -> Any:
    """Return nested data with other names."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(item, names) for key, item in value.items()}
    if isinstance(value, str):
        return names.get(value, value)
    return value


def learn(model: Any, training: Training, steps: int, logged: Logged, **kwargs: Any) -> None:
    model.set_logger(Logger(folder=None, output_formats=[logged]))
    model.learn(steps, callback=make_callback(training.callback), log_interval=1, **kwargs)


def trained(training: Training, folder: str) -> tuple[Any, Logged]:
    logged, model = Logged(), make_model(training)
    if training.then == "resume":
        imported("make_resumable")(model.env)
    steps = 60 if training.env == "image" else 160
    learn(model, training, steps, logged)
    if training.then == "learn":
        learn(model, training, 60, logged)
    elif training.then == "load":
        model.save(f"{folder}/model")
        model = type(model).load(f"{folder}/model", env=make_env(training.env))
        learn(model, training, 60, logged, reset_num_timesteps=False)
    elif training.then == "resume":
        model.save_checkpoint(f"{folder}/checkpoints")
        model = make_model(training).resume(f"{folder}/checkpoints")
        learn(model, training, 220, logged)
    return model, logged


def digest(value: Any) -> str:
    """Return the sha256 of nested lists, dictionaries, arrays and tensors."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():  # in their order, as names may change
                add(item)
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        elif isinstance(value, th.Tensor):
            found.update(value.detach().cpu().numpy().tobytes())
        elif isinstance(value, np.ndarray):
            found.update(value.tobytes())
        else:
            found.update(repr(value).encode())

    add(value)
    return found.hexdigest()[:16]


def arrays_of(replay_buffer: Any) -> Iterable[Any]:
    held = replay_buffer.buffer_size if replay_buffer.full else replay_buffer.pos
    names = ["observations", "actions", "rewards", "dones"]
    if not replay_buffer.optimize_memory_usage:
        names.append("next_observations")
    for name in names:
        stored = getattr(replay_buffer, name)
        parts = stored.values() if isinstance(stored, dict) else [stored]
        yield from (part[:held] for part in parts)


def digests(model: DQN, logged: Logged) -> dict[str, str]:
    generator: Any = getattr(model, "_generator", None)
    return {
        "weights": digest(list(model.policy.state_dict().values())),
        "optimizer": digest(model.policy.optimizer.state_dict()),
        "replay buffer": digest(list(arrays_of(model.replay_buffer))),
        "generators": digest(
            [random.getstate(), np.random.get_state(), th.get_rng_state(), generator and generator.bit_generator.state]
        ),
        "log": digest(logged.rows),
        "counters": digest([model.num_timesteps, model._n_updates, model._episode_num, float(model.exploration_rate)]),
    }


def run(names: str, new_names: str) -> None:
    """
    Report the digests of each training.

    :param names: a JSON list of trainings
    :param new_names: a JSON object with the names of arguments and values in this checkout
    """
    th.set_num_threads(1)
    warnings.simplefilter("ignore")
    every = trainings()
    for name in json.loads(names):
        training = every[name]
        kwargs = renamed(dict(training.kwargs), json.loads(new_names))
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = digests(*trained(training._replace(kwargs=kwargs), folder))
            except Exception as error:  # errors are compared too
                found = {"error": repr(error)[:300]}
        report([name, found])


# in the process that compares


def of_checkout(checkout: Path, names: list[str], new_names: dict[str, str]) -> dict[str, dict[str, str]]:
    found = {}
    for name, parts in results(start(checkout, __spec__.name, json.dumps(names), json.dumps(new_names))):
        found[name] = parts
        print(f"\r{checkout.resolve().name}: {len(found)} of {len(names)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def main() -> None:
    parser = two_checkouts(str(__doc__))
    parser.add_argument("-k", default="", help="only trainings with this in their name")
    options = parser.parse_args()
    names = [name for name in trainings() if options.k in name]
    old, new = of_checkout(options.old, names, {}), of_checkout(options.new, names, RENAMED)
    differing = {
        name: [part for part in old[name] | new[name] if part == "error" or old[name].get(part) != new[name].get(part)]
        for name in names
    }
    for name, parts in differing.items():
        if parts:
            error = new[name].get("error") or old[name].get("error") or ""
            print(f"{name}: {', '.join(parts)} {error}".rstrip())
    n_same = sum(not parts for parts in differing.values())
    print(f"{n_same} of {len(names)} trainings end with the same bits")
    raise SystemExit(n_same < len(names))


if __name__ == "__main__":
    main()
