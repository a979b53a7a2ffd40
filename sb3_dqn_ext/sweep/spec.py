"""The YAML file that describes a sweep, and the runs that follow from it."""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sb3_dqn_ext._validation import check_number, check_type, choose, import_dotted, is_dotted, no_argument_error
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep.results import Row, has_row

__all__ = ["Evaluation", "Spec", "Task", "read_spec"]

Data = dict[str, Any]

SPEC_KEYS = ("envs", "seeds", "variants", "hyperparameters", "evaluation", "results", "save_freq", "title", "measure")
VARIANT_KEYS = ("algo", "conf", "hyperparameters", "envs", "train_arguments")


@dataclass(frozen=True)
class Evaluation:
    """The evaluations of a run, by greedy actions."""

    every: int = 10_000
    """the environment steps between two evaluations during training"""
    episodes: int = 10
    """the number of episodes of each of them"""
    last_episodes: int = 50
    """the number of fresh episodes that are played with the last model; their mean return is the score of the run"""


@dataclass(frozen=True)
class Task:
    """One run of a sweep: a variant with one seed in one environment."""

    env: str
    variant: str
    seed: int
    algo: str
    hyperparameters: Data
    """the block of the zoo's YAML"""
    evaluation: Evaluation
    save_freq: int
    """the environment steps between two exact checkpoints; only DQNExt can write them"""
    train_arguments: tuple[str, ...] = ()
    """further arguments of the zoo's command"""
    measure: str | None = None
    """
    the dotted name of a function of the zoo's run folder and the task, which returns further cells of the row. It is not part
    of the configuration: a run that has a row is not measured again
    """

    @property
    def config(self) -> str:
        """
        Eight hexadecimal digits that differ between runs whose results can differ for another reason than their seed. A row of
        the results belongs to a run if its environment, variant, seed and digits are those of the run.
        """
        parts = [self.env, self.algo, self.hyperparameters, vars(self.evaluation), self.train_arguments]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]

    @property
    def n_timesteps(self) -> int:
        """The number of environment steps."""
        return int(self.hyperparameters["n_timesteps"])

    @property
    def key(self) -> Row:
        """The cells that identify the row of this run."""
        return {"env": self.env, "variant": self.variant, "seed": str(self.seed), "config": self.config}

    @property
    def folder(self) -> str:
        """The folder of the run, below that of all runs."""
        return f"{self.env.replace('/', '-')}/{self.variant}-{self.config}/seed_{self.seed}"

    @property
    def name(self) -> str:
        """The name of the run in messages."""
        return f"{self.env} {self.variant} seed {self.seed}"

    def is_in(self, rows: list[Row]) -> bool:
        """
        Return whether this run has a row.

        :param rows: the rows of finished runs
        """
        return has_row(rows, self.key)


@dataclass(frozen=True)
class Spec:
    """The content of a file that describes a sweep."""

    path: Path
    title: str
    results: Path
    """the CSV file; the figure and the table of the sweep have its name with another ending"""
    tasks: tuple[Task, ...] = field(repr=False)
    """the runs: all environments and variants with the first seed before any with the second"""

    @property
    def variants(self) -> list[str]:
        """The names of the variants, in the order of the file."""
        return list(dict.fromkeys(task.variant for task in self.tasks))

    @property
    def envs(self) -> list[str]:
        """The ids of the environments, in the order of the file."""
        return list(dict.fromkeys(task.env for task in self.tasks))


def read_spec(path: Path | str) -> Spec:
    """
    Read the file that describes a sweep.

    :param path: the YAML file
    :raises ArgumentError: if the file cannot be read, or contains something that is not allowed
    """
    from sb3_dqn_ext.zoo.config import check_unique_keys

    path = Path(path)
    try:
        text = path.read_text()
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArgumentError(f"SPEC={str(path)!r} cannot be read: {error}") from error
    check_unique_keys(path, yaml.compose(text, yaml.SafeLoader), set())
    try:
        return _make_spec(path, data)
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from None


def _make_spec(path: Path, data: object) -> Spec:
    data = _check_mapping("the file", data, SPEC_KEYS)
    for required in ("envs", "variants"):
        if not data.get(required):
            raise ArgumentError(f"{required} is missing.")
    envs = _make_envs(data["envs"])
    variants = _make_variants(data["variants"], envs)
    evaluation = Evaluation(**_check_numbers("evaluation", data.get("evaluation"), tuple(vars(Evaluation()))))
    save_freq = data.get("save_freq", 50_000)
    check_number("save_freq", save_freq, low=1, integer=True)
    common = _check_mapping("hyperparameters", data.get("hyperparameters"))
    measure = data.get("measure")
    if measure is not None and not callable(import_dotted("measure", str(measure))):
        raise ArgumentError(f"measure={measure!r} must be the dotted name of a function.")
    settings = {"evaluation": evaluation, "save_freq": save_freq, "measure": measure}
    tasks = [
        _make_task(path.parent, env, name, seed, [common, _check_mapping(f"envs[{env!r}]", of_env)], variant, settings)
        for seed in parse_seeds(data.get("seeds", "0-9"))
        for env, of_env in envs.items()
        for name, variant in variants.items()
    ]
    results = data.get("results", f"{path.stem}.csv")
    if not isinstance(results, str) or (path.parent / results).is_dir():
        raise ArgumentError(f"results={results!r} must be the name of a CSV file.")
    return Spec(path, str(data.get("title", path.stem)), path.parent / results, tuple(tasks))


def _make_envs(envs: object) -> Data:
    """Check the ids of the environments, and return the hyperparameters for each of them."""
    if not isinstance(envs, dict):
        for env in _as_list(envs):
            check_type("an id in envs", env, str, "a text such as CartPole-v1")
        envs = dict.fromkeys(_as_list(envs))
    return {str(env): of_env for env, of_env in envs.items()}


def _make_variants(variants: object, envs: Data) -> dict[str, Data]:
    """Check the variants and their names, which are parts of the names of folders, and return them."""
    check_type("variants", variants, dict, "a mapping of names to variants")
    assert isinstance(variants, dict)
    made = {}
    for name, variant in variants.items():
        if isinstance(name, bool | None) or not str(name) or set(str(name)) & set("/\\\n"):
            raise ArgumentError(
                f"variants: the name {name!r} must be a text of one line without / and \\. YAML reads on, off, yes, no and "
                "null without quotes as something else."
            )
        where = f"variants[{name!r}]"
        made[str(name)] = _check_mapping(where, variant, VARIANT_KEYS)
        for env in _check_mapping(f"{where}.envs", made[str(name)].get("envs")):
            choose(f"{where}.envs", env, envs)
    return made


def _make_task(folder: Path, env: str, name: str, seed: int, common: list[Data], variant: Data, settings: Data) -> Task:
    """
    Merge the hyperparameters of a run. Later ones replace earlier ones: the block of the file ``conf``, those of the sweep, of
    the environment, of the variant, and of the variant in this environment.
    """
    where = f"variants[{name!r}]"
    own = _check_mapping(f"{where}.hyperparameters", variant.get("hyperparameters"))
    own_in_env = (variant.get("envs") or {}).get(env)
    algo, conf = variant.get("algo", "dqn_ext"), variant.get("conf")
    check_type(f"{where}.algo", algo, str, "the name of an algorithm of the zoo")
    check_type(f"{where}.conf", conf, str | None, "default, the name of an algorithm of the zoo, a YAML file or a module")
    merged: Data = _block(folder, conf, algo, env)
    for part in (*common, own, _check_mapping(f"{where}.envs[{env!r}]", own_in_env)):
        merged |= part
    if "n_timesteps" not in merged:
        raise ArgumentError(f"n_timesteps is missing in the hyperparameters of {where} for {env}.")
    check_number("n_timesteps", merged["n_timesteps"], low=1)
    arguments = tuple(map(str, _as_list(variant.get("train_arguments", []))))
    return Task(env, name, seed, algo, merged, train_arguments=arguments, **settings)


def _block(folder: Path, conf: str | None, algo: str, env: str) -> Data:
    """Return the hyperparameters that the zoo would read for an environment from a file or a module, or none without one."""
    if conf is None:
        return {}
    blocks = _read_conf(folder, conf, algo)
    is_atari = env.startswith("ALE/") or "NoFrameskip" in env
    block = blocks.get(env) or (is_atari and blocks.get("atari")) or blocks.get("default")
    if not block:
        raise ArgumentError(f"conf={conf!r} has no block for {env}, and none named default.")
    return dict(block)


def _read_conf(folder: Path, conf: str, algo: str) -> Data:
    if is_dotted(conf) and not conf.endswith((".yml", ".yaml")):
        return _check_mapping(f"conf={conf!r}", import_dotted("conf", f"{conf}.hyperparams"))
    path = folder / conf if is_dotted(conf) else default_conf(algo if conf == "default" else conf)
    try:
        return _check_mapping(f"conf={conf!r}", yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise ArgumentError(f"conf={conf!r} cannot be read: {error}") from error


def default_conf(algo: str) -> Path:
    """
    Return the file of hyperparameters that the zoo reads for an algorithm if it is given none.

    :param algo: the name of the algorithm in the zoo
    :raises ArgumentError: if the zoo is not installed
    """
    if algo == "dqn_ext":
        from sb3_dqn_ext.zoo.config import default_config

        return Path(default_config())
    zoo = importlib.util.find_spec("rl_zoo3")  # not imported: that changes gymnasium in this process
    if zoo is None or zoo.origin is None:
        raise ArgumentError(f"conf={algo!r} needs the RL Zoo: pip install 'sb3-dqn-ext[zoo]'")
    return Path(zoo.origin).parent / "hyperparams" / f"{algo}.yml"


def parse_seeds(seeds: object) -> list[int]:
    """
    Parse seeds.

    :param seeds: a number, a list of numbers, or a text such as ``"0-4"`` or ``"0-4,20"``
    :return: the seeds
    :raises ArgumentError: if it is nothing of this kind
    """
    found: list[int] = []
    try:
        for part in map(str, seeds if isinstance(seeds, list) else str(seeds).split(",")):
            first, _, last = part.strip().partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        found = []
    if not found:
        raise ArgumentError(f"seeds={seeds!r} must be numbers, such as 0-4 or [0, 1, 2].")
    return list(dict.fromkeys(found))


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_mapping(name: str, value: object, keys: tuple[str, ...] | None = None) -> Data:
    """Check that a part of the file is a mapping with allowed keys, and return it; an empty part is an empty mapping."""
    value = {} if value is None else value
    check_type(name, value, Mapping, "a mapping")
    assert isinstance(value, dict)
    if keys is not None:
        for key in value:
            if key not in keys:
                raise no_argument_error(name, key, keys)
    return value


def _check_numbers(name: str, value: object, keys: tuple[str, ...]) -> Data:
    data = _check_mapping(name, value, keys)
    for key, number in data.items():
        check_number(f"{name}.{key}", number, low=1, integer=True)
    return data
