"""A run with actors and checkpoints: ``python -m tests.actors.learner_run FOLDER STEPS`` begins it, or resumes it."""

import sys
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.actors import envs  # noqa: F401  registers the environments
from tests.actors.helpers import SMALL

MONITORS = "monitors"
CHECKPOINTS = "checkpoints"


class WriteProcesses(BaseCallback):
    """
    A callback that writes the ids of the processes of the actors.

    :param path: the file
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def _on_step(self) -> bool:
        if self.n_calls == 1:
            processes = self.model.run_state.actor_pool.engine.process_ids().values()  # type: ignore[attr-defined]
            self.path.write_text(" ".join(map(str, processes)))
        return True


def make(folder: Path) -> DQNExt:
    """
    Make the model of the run.

    :param folder: the folder of the run
    """
    is_new = not (folder / MONITORS).exists()
    monitor = {"override_existing": is_new}
    env = make_fast_vec_env("serial/Serial-v0", 1, monitor_dir=folder / MONITORS, monitor_kwargs=monitor)
    actors = {"n_actors": 2, "block_size": 20, "samples_per_insert": 4}
    return DQNExt("MlpPolicy", env, actors=actors, n_steps=3, **SMALL)


def run(folder: Path, steps: int) -> DQNExt:
    """
    Begin the run, or resume it.

    :param folder: the folder of the run
    :param steps: the environment steps of the whole run
    """
    model = make(folder)
    if any((folder / CHECKPOINTS).glob("*.json")):
        model.resume(folder / CHECKPOINTS)
    model.learn(steps, [ExactCheckpointCallback(100, folder / CHECKPOINTS), WriteProcesses(folder / "processes")])
    assert model.env is not None
    model.env.close()
    return model


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
