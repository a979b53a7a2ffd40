"""The file that describes a sweep: merged hyperparameters, the identity of a run, and errors."""

from pathlib import Path

import pytest
import yaml

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep.spec import Task, default_conf, parse_seeds, read_spec

SPEC = """
envs:
  CartPole-v1: {batch_size: 64}
  Acrobot-v1:
seeds: 0-2,7
hyperparameters: {n_timesteps: 1000, learning_rate: 0.1, gamma: 0.9}
variants:
  plain: {algo: dqn}
  block: {conf: blocks.yml, hyperparameters: {gamma: 0.5}, envs: {CartPole-v1: {gamma: 0.6}}}
"""
BLOCKS = "CartPole-v1: {learning_rate: 0.2, policy: MlpPolicy}\ndefault: {policy: MlpPolicy, tau: 0.3}\n"


def tasks(folder: Path, text: str = SPEC) -> dict[tuple[str, str, int], Task]:
    (folder / "spec.yml").write_text(text)
    (folder / "blocks.yml").write_text(BLOCKS)
    spec = read_spec(folder / "spec.yml")
    assert spec.results == folder / "spec.csv"
    return {(task.env, task.variant, task.seed): task for task in spec.tasks}


def test_later_hyperparameters_replace_earlier_ones(tmp_path: Path) -> None:
    found = tasks(tmp_path)
    assert found["CartPole-v1", "plain", 0].hyperparameters == {
        "n_timesteps": 1000,
        "learning_rate": 0.1,
        "gamma": 0.9,
        "batch_size": 64,
    }
    assert found["CartPole-v1", "block", 0].hyperparameters == {
        "policy": "MlpPolicy",
        "learning_rate": 0.1,
        "n_timesteps": 1000,
        "gamma": 0.6,
        "batch_size": 64,
    }
    assert found["Acrobot-v1", "block", 7].hyperparameters == {
        "policy": "MlpPolicy",
        "tau": 0.3,
        "n_timesteps": 1000,
        "learning_rate": 0.1,
        "gamma": 0.5,
    }
    assert list(found)[:5] == [
        ("CartPole-v1", "plain", 0),
        ("CartPole-v1", "block", 0),
        ("Acrobot-v1", "plain", 0),
        ("Acrobot-v1", "block", 0),
        ("CartPole-v1", "plain", 1),
    ], "every variant has the first seed before any has the second"
    assert sorted({seed for _, _, seed in found}) == [0, 1, 2, 7]


def test_a_run_has_a_row_until_something_other_than_its_seed_changes(tmp_path: Path) -> None:
    before = tasks(tmp_path)
    rows = [task.key for task in before.values()]
    assert all(task.is_in(rows) for task in before.values())
    after = tasks(tmp_path, SPEC.replace("gamma: 0.6", "gamma: 0.7"))
    changed = {key for key, task in after.items() if not task.is_in(rows)}
    assert changed == {("CartPole-v1", "block", seed) for seed in (0, 1, 2, 7)}
    after = tasks(tmp_path, SPEC + "evaluation: {episodes: 3}\n")
    assert not any(task.is_in(rows) for task in after.values())
    folders = {task.folder for task in [*before.values(), *after.values()]}
    assert len(folders) == 2 * len(before), "a changed run has another folder"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("envs:", "environments:", "environments"),
        ("seeds: 0-2,7", "seed: 0-2", "the file has no argument 'seed'; .* Did you mean 'seeds'"),
        ("seeds: 0-2,7", "seeds: many", "seeds='many' must be numbers, such as 0-4"),
        ("{algo: dqn}", "{algorithm: dqn}", "variants\\['plain'\\] has no argument 'algorithm'.*Did you mean 'algo'"),
        ("n_timesteps: 1000, ", "", "n_timesteps is missing in the hyperparameters of variants\\['plain'\\] for CartPole-v1"),
        ("conf: blocks.yml", "conf: lost.yml", "conf='lost.yml' cannot be read"),
        ("seeds: 0-2,7", "evaluation: {every: 0}", "evaluation.every=0 must be"),
        ("seeds: 0-2,7", "evaluation: {frequency: 5}", "evaluation has no argument 'frequency'"),
        ("seeds: 0-2,7", "- a", "cannot be read"),
        ("n_timesteps: 1000, ", "n_timesteps: many, ", "n_timesteps='many' must be a finite number"),
        ("seeds: 0-2,7", "measure: own", "measure='own' cannot be imported"),
        ("seeds: 0-2,7", "measure: math.pi", "measure='math.pi' must be the dotted name of a function"),
        ("conf: blocks.yml", "conf: sb3_dqn_ext.presets.lost", "conf='sb3_dqn_ext.presets.lost.hyperparams' cannot be imp"),
        ("seeds: 0-2,7", "gamma: 1\ngamma: 2", "line 6: 'gamma' is a duplicate of the key in line 5"),
        ("seeds: 0-2,7", "results: 5", "results=5 must be the name of a CSV file"),
        ("seeds: 0-2,7", "results: .", "results='.' must be the name of a CSV file"),
        ("  Acrobot-v1:", "  Acrobot-v1: 5", "envs\\['Acrobot-v1'\\]=5 must be a mapping"),
        ("plain:", "a/b:", "the name 'a/b' must be a text of one line without /"),
        ("plain:", "off:", "the name False must be a text"),
        ("algo: dqn", "algo: 3", "variants\\['plain'\\].algo=3 must be the name of an algorithm"),
        ("conf: blocks.yml", "conf: 3", "variants\\['block'\\].conf=3 must be"),
        ("{CartPole-v1: {gamma: 0.6}}", "{CartPole: {}}", "variants\\['block'\\].envs='CartPole'.*Did you mean 'CartPole-v1'"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as error:
        tasks(tmp_path, SPEC.replace(old, new))
    assert "spec.yml" in str(error.value)


def test_seeds_are_numbers_lists_or_ranges() -> None:
    assert parse_seeds(3) == [3]
    assert parse_seeds([0, 5]) == [0, 5]
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("20-22, 5,5") == [20, 21, 22, 5]
    wrong: object
    for wrong in ("", "a", "3-1", []):
        with pytest.raises(ArgumentError, match="seeds="):
            parse_seeds(wrong)


def test_the_hyperparameters_are_those_that_the_zoo_would_read(tmp_path: Path) -> None:
    for algo in ("dqn", "dqn_ext"):
        assert "CartPole-v1:" in default_conf(algo).read_text()
    of_cartpole = yaml.safe_load(default_conf("dqn").read_text())["CartPole-v1"] | {"n_timesteps": 5}
    envs, steps = "envs: [CartPole-v1]", "hyperparameters: {n_timesteps: 5}"
    found = tasks(tmp_path, f"{envs}\n{steps}\nvariants: {{a: {{conf: dqn}}, b: {{conf: sb3_dqn_ext.presets.rainbow}}}}")
    assert found["CartPole-v1", "a", 0].hyperparameters == of_cartpole
    assert found["CartPole-v1", "b", 0].hyperparameters["target_policy"] == "double"


def test_atari_games_have_the_hyperparameters_of_atari(tmp_path: Path) -> None:
    found = tasks(tmp_path, "envs: [ALE/Pong-v5, Acrobot-v1]\nvariants: {a: {conf: default}}")
    assert found["ALE/Pong-v5", "a", 0].hyperparameters["policy"] == "CnnPolicy"
    assert found["Acrobot-v1", "a", 0].hyperparameters["policy"] == "MlpPolicy"


def test_numbers_are_names_of_variants_and_their_rows_are_found(tmp_path: Path) -> None:
    found = tasks(tmp_path, "envs: [A-v0]\nseeds: 0\nhyperparameters: {n_timesteps: 5}\nvariants: {1: {}, 0.5: {}}")
    assert list(found) == [("A-v0", "1", 0), ("A-v0", "0.5", 0)]
    assert all(task.is_in([{name: str(cell) for name, cell in task.key.items()}]) for task in found.values())


def test_ids_of_environments_are_texts(tmp_path: Path) -> None:
    for envs in ("[null]", "[{CartPole-v1: {gamma: 0.5}}]"):
        with pytest.raises(ArgumentError, match=r"an id in envs=.* must be a text such as CartPole-v1"):
            tasks(tmp_path, f"envs: {envs}\nvariants: {{a: }}")
