"""
Write the files of a release that later versions must read: ``python -m tests.data.write tests/data/schema_1``.

It is run once for each version of a format, by the library that writes it. A file that is there already is never written
again, so a kind of model can be added to the folder of the present version.
"""

import base64
import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import yaml
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.checkpoint.envs import make_resumable
from tests.parity import dict_cartpole, short_cartpole
from tests.processes import output, python

STEPS = 200
MORE = 40
SMALL: dict[str, Any] = {
    "buffer_size": 100,
    "learning_rate": 1e-3,
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 2,
    "policy_kwargs": {"net_arch": [8]},
    "seed": 0,
    "device": "cpu",
}
HALF_RANDOM = {"exploration_final_eps": 0.5}
SEVERAL_CHOICES: dict[str, Any] = {
    "learning_rate": LinearSchedule(1e-3, 1e-4, 0.5),
    "n_steps": 3,
    "target_policy": "double",
    "exploration": "ez_greedy",
    "exploration_kwargs": {"schedule": {"name": "linear", "start": 1.0, "end": 0.1}},
    "replay_buffer_kwargs": {"sampler": "prioritized", "terminal_copies": 2},
    "policy_kwargs": {
        "net_arch": [8],
        "activation_fn": "tanh",
        "noisy": True,
        "returns": "quantile",
        "returns_kwargs": {"n_quantiles": 4},
    },
}


def cartpoles(n_envs: int) -> Callable[[Path], VecEnv]:
    return lambda _: make_resumable(DummyVecEnv([short_cartpole] * n_envs))


def dictionaries(folder: Path) -> VecEnv:
    return make_resumable(DummyVecEnv([dict_cartpole]))


def normalised(folder: Path) -> VecEnv:
    """
    Make two CartPoles that record their episodes in a folder, also after a resume, and normalise observations and rewards.
    """

    def monitored(i: int) -> Callable[[], gym.Env[Any, Any]]:
        is_new = not (folder / f"{i}.monitor.csv").exists()
        return lambda: Monitor(short_cartpole(), str(folder / str(i)), override_existing=is_new)

    return make_resumable(VecNormalize(DummyVecEnv([monitored(0), monitored(1)])))


class Kind(NamedTuple):
    """A model of which there are files."""

    make_env: Callable[[Path], VecEnv]
    """makes the environments, given the folder of their files"""
    kwargs: dict[str, Any]
    policy: str = "MlpPolicy"
    include: tuple[str, ...] = ()
    """attributes that are saved beside those that always are"""

    def make(self, folder: Path) -> DQNExt:
        return DQNExt(self.policy, self.make_env(folder), **{**SMALL, **self.kwargs})


KINDS: dict[str, Kind] = {
    "prioritized": Kind(cartpoles(2), SEVERAL_CHOICES),
    "shared_coin": Kind(cartpoles(4), HALF_RANDOM | {"exploration_kwargs": {"epsilon_draw": "shared"}}),
    "rows": Kind(cartpoles(4), HALF_RANDOM | {"replay_buffer_kwargs": {"sampler": "vector_steps"}}),
    "keep_episodes": Kind(
        cartpoles(1),
        HALF_RANDOM | {"replay_buffer_kwargs": {"monte_carlo": 0.5, "keep_episodes": 5}},
        include=("replay_buffer",),
    ),
    "dictionary": Kind(
        dictionaries,
        HALF_RANDOM
        | {"replay_buffer_kwargs": {"sampler": "prioritized"}, "policy_kwargs": {"net_arch": [8], "head": "dueling"}},
        policy="MultiInputPolicy",
        include=("replay_buffer",),
    ),
    "normalised": Kind(normalised, HALF_RANDOM | {"policy_kwargs": {"net_arch": [8], "returns": "implicit_quantile"}}),
}
ZOO_RUN = "zoo_run"
CONFIG: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_envs": 2,
    "n_timesteps": 400,
    "normalize": True,
    "learning_rate": "lin_0.001",
    "buffer_size": 100,
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 4,
    "target_policy": "munchausen",
    "exploration_kwargs": {"schedule": {"name": "exponential", "start": 1.0, "end": 0.1, "rate": 0.01}},
    "replay_buffer_kwargs": {"sampler": "prioritized"},
    "policy_kwargs": "dict(net_arch=[8], activation_fn=nn.Tanh)",
    "env_wrapper": [{"sb3_dqn_ext.envs.TerminalPenalty": {"reward": -5}}],
    "callback": [
        {"sb3_dqn_ext.callbacks.ExactCheckpointCallback": {"every": 100, "path": "exact", "keep": 1}},
        {"sb3_dqn_ext.callbacks.SoftTargetUpdateCallback": {"tau": 0.1}},
    ],
}
TRAIN = "-m rl_zoo3.train --algo dqn_ext --env CartPole-v1 -conf mine.yml --seed 1 --verbose 0"
EVALUATE = "--eval-freq 90 --eval-episodes 1"


# -- what the files lead to ------------------------------------------------------------------------------------------------


def arrays(observations: Any) -> Any:
    """The observations of a JSON file."""
    if isinstance(observations, dict):
        return {key: arrays(part) for key, part in observations.items()}
    found = np.array(observations)
    return found.astype(np.float32) if found.dtype == np.float64 else found


def outcome(model: DQNExt, observations: Any) -> dict[str, Any]:
    """The numbers by which two models are compared."""
    given = arrays(observations)
    model.policy.set_training_mode(False)
    tensor, _ = model.policy.obs_to_tensor(given)
    found = {
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "actions": model.predict(given, deterministic=True)[0].tolist(),
        "q_values": model.q_net(tensor).detach().numpy().tolist(),
        "learning_rate": model.lr_schedule(0.75),
    }
    if model.replay_buffer is not None:
        found["stored actions"] = "".join(map(str, model.replay_buffer.actions.reshape(-1)))
        found["stored rewards"] = float(model.replay_buffer.rewards.sum())
    return found


def episodes(folder: Path) -> list[list[tuple[str, str]]]:
    """The return and the length of each episode in each ``monitor.csv``."""
    return [
        [(row["r"], row["l"]) for row in csv.DictReader(path.read_text().splitlines()[1:])]
        for path in sorted(folder.glob("*.monitor.csv"))
    ]


def outcomes(name: str, files: Path, observations: Any, scratch: Path) -> dict[str, Any]:
    """
    Load, train and resume the model of a kind, and return the results.

    :param name: a key of KINDS
    :param files: the folder of its files, which are not changed
    :param observations: the observations for which actions and values are returned, as read from JSON
    :param scratch: an empty folder
    :return: the result of each operation, by its name
    """
    kind = KINDS[name]
    found = {"loaded": outcome(DQNExt.load(files / "model"), observations)}
    loaded = DQNExt.load(files / "model", env=kind.make_env(scratch / "loaded"))
    loaded.set_random_seed(1)
    found["loaded and trained"] = outcome(loaded.learn(MORE, reset_num_timesteps=False), observations)

    shutil.copytree(files, scratch / "files")
    resumed = kind.make(scratch / "files").resume(scratch / "files/checkpoint")
    found["resumed"] = outcome(resumed, observations)
    found["resumed and trained"] = outcome(resumed.learn(STEPS + MORE), observations)
    for model in (loaded, resumed):
        assert model.env is not None
        model.env.close()
    return {**found, "episodes": episodes(scratch / "files")}


def outcomes_of_zoo_run(files: Path, observations: Any, scratch: Path) -> dict[str, Any]:
    """
    Load the models of a zoo run, resume the run, and return the results.

    :param files: the folder of the run, which is not changed
    :param observations: the observations for which actions and values are returned, as read from JSON
    :param scratch: an empty folder
    :return: the result of each operation, by its name
    """
    found = {name: outcome(DQNExt.load(files / name), observations) for name in ("CartPole-v1.zip", "best_model.zip")}
    shutil.copytree(files, scratch / "files")
    output(python("-m", "sb3_dqn_ext.zoo", "resume", "files", cwd=scratch))
    assert json.loads((scratch / "files/run.json").read_text())["finished"] == CONFIG["n_timesteps"]
    with np.load(scratch / "files/evaluations.npz") as evaluations:
        found["evaluations"] = {part: evaluations[part].tolist() for part in sorted(evaluations.files)}
    return {
        **found,
        "resumed": outcome(DQNExt.load(scratch / "files/CartPole-v1.zip"), observations),
        "episodes": episodes(scratch / "files"),
    }


# -- no machine is named ---------------------------------------------------------------------------------------------------


def contents(path: Path) -> Iterator[bytes]:
    """Everything that can be read in a file: its parts if it is an archive, and what is written in base64."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts = [archive.read(name) for name in archive.namelist()]
    else:
        parts = [path.read_bytes()]
    for part in parts:
        yield part
        yield from map(base64.b64decode, re.findall(rb"(?:[A-Za-z0-9+/]{4}){6,}", part))


def names_a_machine(path: Path) -> bool:
    """Whether there is an absolute path in a file that is, or looks like, one of the computer that wrote it."""
    here = {f"{place}/".encode() for place in (Path(__file__).parents[2], Path.home(), sys.prefix, tempfile.gettempdir())}
    anywhere = {b"/home/", b"/root/", b"/tmp/", b"/usr/", b"/Users/", b"site-packages"}
    return any(name in content for content in contents(path) for name in here | anywhere)


def name_no_machine(path: Path) -> None:
    """Replace the text in a model's file that describes where it was written."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), b"- OS: one of ours\n" if name == "system_info.txt" else content)


# -- the files -------------------------------------------------------------------------------------------------------------


def write_kind(kind: Kind, folder: Path) -> None:
    """Save a model and a checkpoint, and train on for a while, so that the files of episodes have a part to be cut off."""
    folder.mkdir()
    model = kind.make(folder)
    model.learn(STEPS)
    model.save(folder / "model", include=kind.include)
    name_no_machine(folder / "model.zip")
    model.save_checkpoint(folder / "checkpoint")
    (folder / "checkpoint" / "writer.lock").unlink()
    model.learn(MORE, reset_num_timesteps=False)
    assert model.env is not None
    model.env.close()


def write_zoo_run(folder: Path) -> None:
    """Train with the zoo, interrupt it by Ctrl-C after its first checkpoint, and keep the folder of the run."""
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        run = project / "logs/dqn_ext/CartPole-v1_1"
        (project / "mine.yml").write_text(yaml.safe_dump({"CartPole-v1": CONFIG}))
        process = subprocess.Popen([sys.executable, *TRAIN.split(), *EVALUATE.split()], cwd=project)
        while process.poll() is None and not list(run.glob("exact/checkpoint_*.json")):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        (run / "exact/writer.lock").unlink()
        described = json.loads((run / "run.json").read_text())
        assert described["finished"] is None
        (run / "run.json").write_text(json.dumps({**described, "directory": "/where/it/was/started"}, indent=2) + "\n")
        command = run / "CartPole-v1/command.txt"
        command.write_text(command.read_text().replace(sys.executable, "python"))
        for path in run.glob("*.zip"):
            name_no_machine(path)
        shutil.copytree(run, folder)


def sampled_observations(name: str) -> Any:
    """Random observations, for a JSON file."""
    random = np.random.default_rng(0)
    values = random.normal(size=(20, 4)).astype(np.float32)
    if name != "dictionary":
        return values.tolist()
    return {"cart": values[:, :2].tolist(), "pole": values[:, 2:].tolist(), "side": random.integers(2, size=20).tolist()}


def write_expected(name: str, folder: Path) -> None:
    observations = sampled_observations(name)
    with tempfile.TemporaryDirectory() as scratch:
        if name == ZOO_RUN:
            found = outcomes_of_zoo_run(folder, observations, Path(scratch))
        else:
            found = outcomes(name, folder, observations, Path(scratch))
    (folder / "expected.json").write_text(json.dumps({"observations": observations, **found}) + "\n")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in [*KINDS, ZOO_RUN]:
        place = folder / name
        if not place.exists():
            write_zoo_run(place) if name == ZOO_RUN else write_kind(KINDS[name], place)
        if not (place / "expected.json").exists():
            write_expected(name, place)
    named = [str(path) for path in folder.rglob("*") if path.is_file() and names_a_machine(path)]
    if named:
        raise SystemExit(f"There are names of this machine in {', '.join(named)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
