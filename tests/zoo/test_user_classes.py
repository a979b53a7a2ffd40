"""Runs of the zoo with classes of the user's own: its commands and the report find them, by what the run was started with."""

import contextvars
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError, ModelFileError
from sb3_dqn_ext.plot import load_model
from sb3_dqn_ext.plot.runs import read_run
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.run_folder.run_file import RunFile
from sb3_dqn_ext.versions import versions
from sb3_dqn_ext.zoo.models import find_with_model, let_pretrained_model_name_classes
from tests.parity import short_cartpole
from tests.processes import output, python, write_package

NETS = """
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from sb3_dqn_ext.networks.policies import MlpPolicy

class Tiny(BaseFeaturesExtractor):
    def __init__(self, space, features_dim=16):
        super().__init__(space, features_dim)
        self.linear = th.nn.Linear(space.shape[0], features_dim)

    def forward(self, x):
        return self.linear(x).relu()

class Swish(th.nn.Module):
    def forward(self, x):
        return x * th.sigmoid(x)

class Policy(MlpPolicy):
    pass
"""
NETWORK = {"net_arch": [4], "features_extractor_class": "own_nets.Tiny", "activation_fn": "own_nets.Swish"}
RUN = RunFile(
    "CartPole-v1",
    "/somewhere",
    {"gym_packages": ["not_there"]},
    {"policy": "own_nets.Policy", "policy_kwargs": NETWORK},
    None,
    None,
    None,
    versions(),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules, and in it a run whose model is of their classes; nothing is imported any more."""
    write_package(tmp_path / "project", own_nets=NETS)
    folder = tmp_path / "logs" / "dqn_ext" / "CartPole-v1_1"
    folder.mkdir(parents=True)
    run_file.write(folder, replace(RUN, directory=str(tmp_path / "project")))
    with monkeypatch.context() as imported:
        imported.syspath_prepend(tmp_path / "project")
        from own_nets import Policy, Swish, Tiny  # type: ignore[import-not-found]

        network = NETWORK | {"features_extractor_class": Tiny, "activation_fn": Swish}
        DQNExt(Policy, short_cartpole(), policy_kwargs=network, buffer_size=50, device="cpu").save(folder / "CartPole-v1")
        DQNExt(Policy, short_cartpole(), policy_kwargs=NETWORK, buffer_size=50, device="cpu").save(folder / "best_model")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path / "project")])
    del sys.modules["own_nets"]
    yield tmp_path
    sys.modules.pop("own_nets", None)


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function so that what it lets files name ends with it."""
    return contextvars.copy_context().run(function, *args)


FILES = ("CartPole-v1", "best_model")


def load(folder: Path) -> list[str]:
    """The networks of the models, as far as they are the user's."""
    models = [DQNExt.load(folder / name, device="cpu") for name in FILES]
    return [f"{type(model.policy).__name__} {type(model.q_net.features_extractor).__name__}" for model in models]


def test_a_zoo_command_imports_the_classes_of_the_run_that_it_names(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "logs" / "dqn_ext" / "CartPole-v1_1"

    def get_model_path(exp_id: int, folder: str, algo: str, env_name: str) -> tuple[str, str, str]:
        run = f"{folder}/{algo}/{env_name}_{exp_id}"
        return "final-model", f"{run}/{env_name}.zip", run

    def enjoy(algo: str) -> list[str]:
        find_with_model(get_model_path)(1, str(project / "logs"), algo, "CartPole-v1")
        return load(folder)

    hint = rf"'own_nets'. Give the command in {project / 'project'}, where the run was started, or say .* enjoy \.\.\. --trust"
    with pytest.raises(ArgumentError, match=rf"policy='own_nets.Policy' cannot be imported: No module named {hint}"):
        apart(enjoy, "dqn_ext")
    monkeypatch.syspath_prepend(project / "project")
    with pytest.raises(
        ModelFileError, match=r"policy_class names own_nets\.Policy, which is allowed once own_nets is imported"
    ):
        apart(enjoy, "dqn")  # whose folder it is not
    assert "own_nets" not in sys.modules
    assert apart(enjoy, "dqn_ext") == ["Policy Tiny"] * 2
    # the activation is that of the run's: no other file may name it
    with pytest.raises(ModelFileError, match=r"policy_kwargs names own_nets\.Swish, which is imported only from files"):
        load(folder)


def test_train_i_finds_the_classes_of_both_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "logs" / "dqn_ext" / "CartPole-v1_1"
    monkeypatch.syspath_prepend(project / "project")

    def train_i(hyperparameters: dict[str, Any]) -> list[str]:
        let_pretrained_model_name_classes(str(folder / "CartPole-v1.zip"), hyperparameters)
        return load(folder)

    noted: dict[str, Any]
    for run, noted in ((RUN, {}), (replace(RUN, hyperparameters={}), RUN.hyperparameters)):
        run_file.write(folder, run)
        assert apart(train_i, noted) == ["Policy Tiny"] * 2


def test_the_report_finds_the_classes_of_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(project / "logs" / "dqn_ext" / "CartPole-v1_1")
    with pytest.raises(ArgumentError, match=rf"in {project / 'project'}, where the run was started, or .* --trust of the rep"):
        load_model(run)
    for name in FILES:
        assert type(load_model(run, name, trust=True).policy).__name__ == "Policy"  # from where it was started
    del sys.modules["own_nets"]
    sys.path.remove(str(project / "project"))
    monkeypatch.syspath_prepend(project / "project")
    for name in FILES:
        assert type(load_model(run, name).policy).__name__ == "Policy"


CONFIG = """
from own_nets import Swish, Tiny

network = dict(features_extractor_class=Tiny, activation_fn=Swish)
hyperparams = {"CartPole-v1": dict(n_timesteps=100, policy="MlpPolicy", learning_starts=50, policy_kwargs=network)}
"""


@pytest.mark.slow
def test_the_zoo_trains_shows_records_and_goes_on_with_classes_of_ones_own(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    write_package(project, own_nets=NETS, conf=CONFIG)
    elsewhere.mkdir()
    ours = ("--algo", "dqn_ext", "--env", "CartPole-v1", "-f")
    quick = ("--eval-freq", "-1", "-n", "100")
    model = "logs/dqn_ext/CartPole-v1_1/CartPole-v1.zip"

    def zoo(*arguments: str) -> str:
        return output(python("-m", *arguments, cwd=project))

    zoo("rl_zoo3.train", *ours, "logs", "-conf", "conf.py", *quick)
    assert "Mean episode length" in zoo("rl_zoo3.enjoy", *ours, "logs", "-n", "60", "--no-render")
    zoo("rl_zoo3.record_video", *ours, "logs", "-n", "10")
    zoo("rl_zoo3.train", *ours, "logs", "-conf", "conf.py", *quick, "-i", model)
    assert "Mean episode length" in zoo("rl_zoo3.enjoy", *ours, "logs", "-n", "60", "--no-render")
    refused = python("-m", "sb3_dqn_ext.zoo", "enjoy", *ours, str(project / "logs"), "--no-render", cwd=elsewhere)
    assert "own_nets" in refused.stderr
    for command in ("enjoy", "record_video"):
        more = ("--no-render", "-n", "60") if command == "enjoy" else ("-n", "10")
        output(python("-m", "sb3_dqn_ext.zoo", command, *ours, str(project / "logs"), *more, "--trust", cwd=elsewhere))
    output(
        python("-m", "sb3_dqn_ext.zoo", "train", *ours, "mine", *quick, "-i", str(project / model), "--trust", cwd=elsewhere)
    )
