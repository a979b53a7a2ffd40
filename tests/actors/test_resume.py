"""A learner that is killed resumes from its checkpoint."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import load_results

from tests.actors.envs import LENGTH
from tests.actors.helpers import KeepPool, is_alive, make_model, own_indices, time_limit
from tests.actors.learner_run import CHECKPOINTS, MONITORS, run
from tests.actors.test_blocks import first_steps, serials_by_env
from tests.internals import n_updates_of
from tests.paths import ROOT


def wait_for(condition: Any, seconds: float = 120) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_learner_that_was_killed_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    with time_limit(300):
        command = [sys.executable, "-m", "tests.actors.learner_run", str(tmp_path), "1000000000"]
        learner = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        wait_for(lambda: len(list((tmp_path / CHECKPOINTS).glob("*.json"))) >= 2 or learner.poll() is not None)
        learner.send_signal(signal.SIGKILL)
        learner.wait()
        processes = list(map(int, (tmp_path / "processes").read_text().split()))
        assert len(processes) == 2
        wait_for(lambda: not any(map(is_alive, processes)))  # actors end without their learner
        saved = max(int(path.stem.rpartition("_")[2]) for path in (tmp_path / CHECKPOINTS).glob("*.json"))
        model = run(tmp_path, saved + 500)
        buffer: Any = model.replay_buffer
        rows = [tuple(row) for row in buffer.read_observations(own_indices(model)).astype(int).tolist()]
        assert model.num_timesteps == len(rows) == saved + 500
        assert set(Counter(rows).values()) == {1}  # no step is stored twice
        assert {process for process, _, _ in rows[:saved]} <= set(processes)  # one of them may have had no time until then
        assert {process for process, _, _ in rows[saved:]}.isdisjoint(processes)
        # the samples before and after, up to a batch for each of the two processes
        assert abs(n_updates_of(model) * 16 - 4 * (saved + 500 - 100)) <= 2 * 16 + 4 * 4
        results = load_results(str(tmp_path / MONITORS))
        assert len(results) == buffer.dones.reshape(-1)[own_indices(model)].sum()
        assert set(results["l"]) == {LENGTH}
        assert (np.diff(results["t"]) >= 0).all()


@pytest.mark.slow
def test_actors_of_a_ray_cluster_fill_the_replay_buffer_while_one_is_killed() -> None:
    class Kill(BaseCallback):
        """Kill one actor, and stop 200 steps after the first one of the actor that takes its place."""

        lives: ClassVar[dict[int, int]] = {}

        def _on_step(self) -> bool:
            process = int(self.locals["new_obs"][0, 0])
            self.lives.setdefault(process, self.num_timesteps)
            if self.n_calls == 300:
                os.kill(process, signal.SIGKILL)
            return len(self.lives) < 3 or self.num_timesteps < max(self.lives.values()) + 200

    arguments: dict[str, Any] = {"replay_buffer_kwargs": {"sampler": "prioritized"}, "buffer_size": 200_000}
    with time_limit(200), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Actor . has ended")
        model = make_model(actors={"engine": "ray", "samples_per_insert": 2}, n_steps=3, **arguments)
        keep, before = KeepPool(), signal.getsignal(signal.SIGTERM)
        model.learn(190_000, [keep, Kill()])
    assert signal.getsignal(signal.SIGTERM) is before
    assert keep.pool.n_restarts == 1
    serials = serials_by_env(model)
    assert len(serials) == 3
    for stored in serials.values():
        assert stored == first_steps(len(stored))
    assert sum(map(len, serials.values())) == model.num_timesteps
    assert n_updates_of(model) * 16 == pytest.approx(2 * (model.num_timesteps - 100), abs=24)
