"""Check docs/steps.md: its tables are the counters of trainings, of SB3's DQN and of DQNExt."""

from typing import Any
from unittest.mock import patch

import pytest
from stable_baselines3 import DQN
from stable_baselines3.dqn import dqn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.updates import Updater
from tests.pages import DOCS, table_rows
from tests.parity import several_cartpoles

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of environments used is greater than the target network"),
    pytest.mark.filterwarnings(r"ignore:gradient_steps=\d+ for \d+ transitions"),
]
PAGE = DOCS / "steps.md"
TOTAL, LEARNING_STARTS, TRAIN_FREQ = 1024, 128, 4
INTERVALS = (64, 100, 10)
UPDATES, TARGET_UPDATES = (table_rows(PAGE, head) for head in ("`n_envs` | `gradient_steps`", "`n_envs` | interval 64"))


class Counters:
    """The numbers of trainings, gradient steps and target updates of a run."""

    def __init__(self, algorithm: type[DQN], n_envs: int, **kwargs: Any) -> None:
        self.n_trainings = self.n_target_updates = 0

        class Counted(algorithm):  # type: ignore[misc, valid-type]
            def train(_, *args: Any, **kwargs: Any) -> None:
                self.n_trainings += 1
                super().train(*args, **kwargs)

        settings: dict[str, Any] = {"train_freq": TRAIN_FREQ, "learning_starts": LEARNING_STARTS, "target_update_interval": 64}
        settings |= {"batch_size": 4, "policy_kwargs": {"net_arch": [4]}, "device": "cpu", "seed": 0}
        model = Counted("MlpPolicy", several_cartpoles(n_envs), **settings | kwargs)
        # SB3 averages the parameters, and then the statistics of batch normalisation
        with (
            patch.object(dqn, "polyak_update", self._polyak_update),
            patch.object(Updater, "update_target", self._update_target),
        ):
            model.learn(TOTAL)
        self.n_gradient_steps: int = model._n_updates

    def _polyak_update(self, params: Any, *_: Any) -> None:
        self.n_target_updates += not isinstance(params, list)

    def _update_target(self, tau: float) -> None:
        self.n_target_updates += 1


@pytest.mark.parametrize("algorithm", [DQN, DQNExt])
@pytest.mark.parametrize("row", UPDATES, ids=lambda row: f"{row[0]} environments, gradient_steps={row[1]}")
def test_the_gradient_steps_are_those_of_the_page(row: list[str], algorithm: type[DQN]) -> None:
    n_envs, gradient_steps, n_transitions, n_trainings, n_gradient_steps = map(int, row[:5])
    counters = Counters(algorithm, n_envs, gradient_steps=gradient_steps)
    assert counters.n_trainings == n_trainings
    assert counters.n_gradient_steps == n_gradient_steps
    assert n_transitions * n_trainings == TOTAL - LEARNING_STARTS
    assert float(row[5]) == pytest.approx(n_gradient_steps / (TOTAL - LEARNING_STARTS), rel=0.01)


@pytest.mark.parametrize("algorithm", [DQN, DQNExt])
@pytest.mark.parametrize("row", TARGET_UPDATES, ids=lambda row: f"{row[0]} environments")
def test_the_target_updates_are_those_of_the_page(row: list[str], algorithm: type[DQN]) -> None:
    n_envs, *n_target_updates = map(int, row)
    for interval, expected in zip(INTERVALS, n_target_updates, strict=False):
        assert Counters(algorithm, n_envs, target_update_interval=interval).n_target_updates == expected, interval
    if algorithm is DQNExt:
        counters = Counters(DQNExt, n_envs, target_update_interval=16, target_update_unit="gradient_steps")
        assert counters.n_target_updates == n_target_updates[-1]
