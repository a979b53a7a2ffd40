"""The check of a file of hyperparameters reports the file and the line of a fault."""

from pathlib import Path

import pytest

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.zoo import default_config
from sb3_dqn_ext.zoo.config import check_config
from tests.processes import python

WRONG = {
    "a tab": ("A:\n\tn_steps: 1\n", r"line 2: .*Indent with spaces: YAML takes no tabs"),
    "an open bracket": ("A:\n  n_steps: [1\nB:\n", r"line 3: "),
    "a duplicate key": (
        "A:\n  n_steps: 1\n  tau: 1\n  n_steps: 3\n",
        r"line 4: 'n_steps' is a duplicate of the key in line 2",
    ),
    "a duplicate key in an inner mapping": (
        "A:\n  policy_kwargs:\n    head: shared\n    head: multi_head\n",
        r"line 4: 'head' is a duplicate of the key in line 3",
    ),
    "a duplicate environment": ("A: &a\n  tau: 1\nB: *a\nA: *a\n", r"line 4: 'A' is a duplicate of the key in line 1"),
    "a misspelt key": ("A:\n  tau: 1\n  n_timestep: 4\n", r"line 3: .*'n_timestep' is not known.*Did you mean 'n_timesteps'"),
    "a misspelt key of ours": ("A:\n  target_polcy: double\n", r"line 2: .*Did you mean 'target_policy'"),
    "an argument that the zoo sets": ("A:\n  seed: 1\n", r"line 2: .*'seed' is not known"),
    "text for a number": ("A:\n  buffer_size: many\n", r"line 2: buffer_size='many' must be a whole number in \[1, inf\]\.$"),
    "a name of other libraries": ("A:\n  lr: 0.1\n", r"line 2: hyperparameter='lr' is not known; in DQNExt .* learning_rate="),
    "1e5, which is text": ("A:\n  buffer_size: 1e5\n", r"line 2: .*YAML reads 1e5 as text: write 100_000"),
    "a fraction for a count": ("A:\n  batch_size: 1.5\n", r"line 2: batch_size=1.5 must be a whole number"),
    "a learning rate of another kind": (
        "A:\n  learning_rate: cos_0.1\n",
        r"line 2: learning_rate='cos_0.1' must be a number, or lin_",
    ),
    "a list for a mapping": ("A:\n  exploration_kwargs: [1]\n", r"line 2: exploration_kwargs=\[1\] must be a mapping"),
    "text for a boolean": ("A:\n  target_network: maybe\n", r"line 2: target_network='maybe' must be true or false"),
    "a value behind an anchor": ("A: &a\n  n_steps: x\nB:\n  <<: *a\n", r"line 2: n_steps='x'"),
    "a key that YAML reads as true": (
        "A:\n  tau: 1\n  env_wrapper:\n    - a.Wrapper: {reward: -50, on: done}\n",
        r"line 3: a key in \{'reward': -50, True: 'done'\} is True: YAML reads on and yes as true, .* Write \"on\" in quotes",
    ),
    "no hyperparameters": ("A: 3\n", r"line 1: 'A' must be followed by hyperparameters, indented"),
    "no environments": ("- A\n", r"must map environment ids to hyperparameters"),
    "nothing at all": ("", r"must map environment ids to hyperparameters"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_configuration_is_answered_with_its_file_and_line(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=message) as error:
        check_config(path)
    assert str(error.value).startswith(str(path))


def test_what_the_zoo_reads_passes(tmp_path: Path) -> None:
    check_config(default_config())
    path = tmp_path / "mine.yml"
    path.write_text(
        """
A: &a
  n_timesteps: !!float 1e5
  n_envs: 4
  policy: MlpPolicy
  learning_rate: lin_1e-3
  normalize: {norm_reward: false}
  train_freq: [1, episode]
  env_wrapper: [gymnasium.wrappers.ClipReward: {min_reward: -1}]
  policy_kwargs: "dict(net_arch=[64])"
  replay_buffer_class: HerReplayBuffer
B:
  <<: *a
  learning_rate: 0.001
  env_wrapper:
"""
    )
    check_config(path)


def test_the_zoo_stops_at_a_wrong_configuration_before_it_trains(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("CartPole-v1:\n  n_timesteps: 300\n  policy: MlpPolicy\n  gama: 0.9\n")
    process = python(*["-m", "rl_zoo3.train", "--algo", "dqn_ext", "--env", "CartPole-v1", "-conf", "mine.yml"], cwd=tmp_path)
    assert process.returncode == 1
    assert "mine.yml, line 4: hyperparameter='gama' is not known" in process.stderr.splitlines()[-1]
    assert "Did you mean 'gamma'?" in process.stderr
