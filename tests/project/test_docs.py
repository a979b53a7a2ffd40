"""Check that the pages of docs/ are true: their code runs, and their tables are those of the code."""

import ast
import inspect
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import metadata
from pathlib import Path
from textwrap import indent
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.exploration import EXPLORATIONS
from sb3_dqn_ext.algorithm.schedule_specs import SCHEDULES
from sb3_dqn_ext.algorithm.schedules import LinearSchedule
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.callbacks import DiagnosticsCallback, EpsilonScheduleCallback, ExactCheckpointCallback
from sb3_dqn_ext.envs import TerminalPenalty
from sb3_dqn_ext.networks.encoders import ENCODERS
from sb3_dqn_ext.networks.heads import HEADS
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.samplers import SAMPLERS
from sb3_dqn_ext.serialization.names import import_name
from sb3_dqn_ext.sweep.__main__ import EXAMPLE
from sb3_dqn_ext.sweep.results import COLUMNS
from sb3_dqn_ext.sweep.spec import SPEC_KEYS, VARIANT_KEYS
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.internals import n_updates_of
from tests.masked_envs import MASKED, strict
from tests.pages import DOCS, PAGES, blocks, commands, run_all, table_rows
from tests.parity import dict_cartpole, several_cartpoles, short_cartpole
from tests.paths import ROOT
from tests.processes import output, python
from tests.test_returned_by_environments import FORMS, Returning

ALL = [block for page in PAGES for block in blocks(DOCS / page)]
of_zoo_page = pytest.mark.xdist_group("zoo page")


# -- code ------------------------------------------------------------------------------------------------------------------


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    assert {block.language for block in ALL} <= {"python", "bash", "yaml", "text", ""}
    for block in ALL:
        if block.language in ("python", "bash") and not block.runs:
            assert re.fullmatch(r"takes minutes|not run: \w.*|excerpt of \S+", block.mark), block.where


def test_the_python_runs(tmp_path: Path) -> None:
    run_all([block for block in ALL if block.language == "python" and block.runs], tmp_path)


def test_the_python_that_is_not_run_has_arguments_that_exist() -> None:
    shown = [block for block in ALL if block.language == "python" and not block.runs and block.source is None]
    assert shown
    for block in shown:
        for call in ast.walk(ast.parse(block.text)):
            if isinstance(call, ast.Call):
                assert ast.unparse(call.func) == "DQNExt", block.where
                given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
                inspect.signature(DQNExt).bind(*map(ast.literal_eval, call.args), **given)


def test_the_excerpts_are_lines_of_their_files() -> None:
    excerpts = [(block, block.source) for block in ALL if block.source is not None]
    assert len(excerpts) >= 9
    for block, source in excerpts:
        assert any(indent(block.text, margin) in source.read_text() for margin in (" " * 4, " " * 8, " " * 12)), block.where


@of_zoo_page
def test_the_quick_commands_run_and_write_the_files_of_the_table(tmp_path: Path) -> None:
    quick = [block for block in ALL if block.language == "bash" and block.runs]
    assert {block.page for block in quick} == {"docs/zoo.md"}
    given = [command for block in quick for command in commands(block.where, block.text)]
    printed = [output(python(*command.words[1:], cwd=tmp_path)) for command in given]
    assert "is finished: it ended at step 2000" in printed[-1]
    files = [name for name, *_ in table_rows(DOCS / "index.md", "file")]
    assert len(files) == 7
    for name in files:
        assert (tmp_path / "logs/dqn_ext/CartPole-v1_1" / name.strip("`")).is_file(), name


def test_the_program_of_the_deployment_needs_neither_torch_nor_this_package(tmp_path: Path) -> None:
    (program,) = [block.text for block in blocks(DOCS / "deployment.md", "python") if block.mark == "play.py"]
    assert len(program.splitlines()) <= 30
    DQNExt("MlpPolicy", "CartPole-v1").export(tmp_path / "model.onnx")
    blocked = "import sys; sys.modules |= dict.fromkeys(['torch', 'stable_baselines3', 'sb3_dqn_ext'])\n"
    printed = output(python("-W", "error", "-c", blocked + program, cwd=tmp_path))
    assert re.fullmatch(r"(episode \d: return \d+\.0\n){3}", printed)


# -- tables ----------------------------------------------------------------------------------------------------------------


def test_the_pages_of_the_choices_list_each_of_them() -> None:
    pages = "\n".join(path.read_text() for path in (DOCS / "choices").glob("*.md"))
    listed = re.findall(r"^\| `(\w+)` \|", pages, flags=re.MULTILINE)
    for registry in (EXPLORATIONS, SCHEDULES, SAMPLERS, TARGET_POLICIES, RETURN_MODELS, HEADS, ENCODERS):
        for name in registry:
            assert listed.count(name) == 1, name


def test_the_files_in_the_table_of_the_architecture_exist() -> None:
    for _, *cells in table_rows(DOCS / "architecture.md", "you want to change"):
        for cell in cells:
            first, *others = re.findall("`([^`]+)`", cell)
            assert (ROOT / first).exists(), first
            for name in others:  # in the same folder as the first, or from the root
                assert ((ROOT / first).parent / name).exists() or (ROOT / name).exists(), name


def test_the_table_of_extras_is_complete() -> None:
    extras = metadata("sb3_dqn_ext").get_all("Provides-Extra", [])
    listed = [name for cell, _ in table_rows(DOCS / "install.md", "extra") for name in re.findall(r"`([\w-]+)`", cell)]
    assert sorted(listed) == sorted(extras)


def test_the_layers_of_the_architecture_are_those_that_are_checked() -> None:
    (layers,) = re.findall(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    lines = [re.findall(r"\w+", line) for line in layers.splitlines()]
    rows = [re.findall("`(\\w+)`", names) for _, names in table_rows(DOCS / "architecture.md", "layer")]
    checked, listed = set(itertools.chain(*lines)), set(itertools.chain(*rows))
    assert listed <= checked
    assert {name for name in checked - listed if (ROOT / "sb3_dqn_ext" / name).is_dir()} == set()
    ranks = [[rank for name in names for rank, line in enumerate(lines) if name in line] for names in rows]
    for higher, lower in itertools.pairwise(ranks):
        assert max(higher) < min(lower)


def test_the_page_of_sweeps_has_the_example_of_the_command_all_keys_and_all_columns() -> None:
    page = DOCS / "sweeps.md"
    assert [block.text for block in blocks(page, "yaml")] == [EXAMPLE]
    for head, second, names in (
        ("key", "meaning | default", SPEC_KEYS),
        ("key of a variant", "meaning", VARIANT_KEYS),
        ("column", "content", COLUMNS),
    ):
        listed = [name for first, *_ in table_rows(page, f"{head} | {second}") for name in re.findall("`(\\w+)`", first)]
        assert sorted(listed) == sorted([*names, *(["measure"] if head == "column" else [])])


class Anything(gym.Env[Any, Any]):
    """An environment with random observations of one space, which checks that actions are in another."""

    def __init__(self, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space = observations
        self.action_space = actions
        self.n_steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action} is no action")
        self.n_steps += 1
        return self.observation_space.sample(), 1.0, self.n_steps % 5 == 0, self.n_steps % 3 == 0, {}


class Own(ReplayBuffer):
    """A user's replay buffer."""


class OwnExtractor(FlattenExtractor):
    """A user's features extractor."""


Algorithm = type[DQN]
N_STEPS = 24
VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
BOOL: Any = np.bool_
SMALL_IMAGE = spaces.Box(0, 1, (10, 10, 4), BOOL)
NUMBERS = spaces.Dict(vector=VECTOR, number=spaces.Discrete(3))


def trained(algorithm: Algorithm, env: Any, policy: str = "MlpPolicy", callback: Any = None, **kwargs: Any) -> DQN:
    small: dict[str, Any] = {"learning_starts": 12, "buffer_size": 40, "batch_size": 4, "device": "cpu", "seed": 0}
    model = algorithm(policy, env, **deepcopy(small | kwargs))  # SB3 changes some of them
    model.learn(N_STEPS, callback=callback)
    if isinstance(env, VecEnv):
        env.close()
    assert n_updates_of(model) > 0
    return model


def with_actions(space: spaces.Space[Any]) -> Callable[[Algorithm, Path], Any]:
    return lambda algorithm, _: trained(algorithm, Anything(VECTOR, space), learning_starts=0, exploration_final_eps=0.5)


def observing(space: spaces.Space[Any], policy: str = "MlpPolicy", **kwargs: Any) -> Callable[[Algorithm, Path], Any]:
    return lambda algorithm, _: trained(algorithm, Anything(space, spaces.Discrete(3)), policy, **kwargs)


def small_image(algorithm: Algorithm, _: Path) -> None:
    network = {"policy_kwargs": {"encoder": "minatar"}} if algorithm is DQNExt else {}
    trained(algorithm, Anything(SMALL_IMAGE, spaces.Discrete(3)), "CnnPolicy", **network)


def around(make: Callable[[], Any], **kwargs: Any) -> Callable[[Algorithm, Path], Any]:
    return lambda algorithm, _: trained(algorithm, make(), **kwargs)


def one_array() -> VecEnv:
    return make_fast_vec_env("CartPole-v1", n_envs=2)


def in_turn() -> VecEnv:
    return make_fast_vec_env("CartPole-v1", n_envs=2, vectorization_mode="sync")


def after_episodes(make: Callable[[], Any]) -> Callable[[Algorithm, Path], Any]:
    return around(make, train_freq=(1, "episode"), gradient_steps=1, learning_starts=0)


def checkpointed(algorithm: Algorithm, folder: Path) -> None:
    trained(algorithm, short_cartpole(), callback=ExactCheckpointCallback(every=8, path=folder))


def loaded(algorithm: Algorithm, saved_by: Algorithm, folder: Path) -> DQN:
    trained(saved_by, short_cartpole()).save(folder / "model")
    return algorithm.load(folder / "model")


def argument(name: str) -> Callable[[Algorithm, Path], Any]:
    """Return a check that the algorithm or its policy has an argument whose name contains a text."""

    def find(algorithm: Algorithm, _: Path) -> None:
        names = [
            *inspect.signature(algorithm).parameters,
            *inspect.signature(algorithm.policy_aliases["MlpPolicy"]).parameters,
        ]
        if not any(name in one for one in names):
            raise ValueError(f"no argument is called *{name}*")

    return find


OUR_BUFFER = {"replay_buffer_class": DQNReplayBuffer}
WITHOUT_LIMITS = {"replay_buffer_kwargs": {"handle_timeout_termination": False}}
CASES: dict[str, Callable[[Algorithm, Path], Any]] = {
    "Box, a vector or a matrix": observing(spaces.Box(-1, 1, (3, 4), np.float32)),
    "Box, an image": observing(IMAGE, "CnnPolicy"),
    "Box, a small image of bool": small_image,
    "Discrete": observing(spaces.Discrete(4)),
    "Discrete that does not begin at 0": observing(spaces.Discrete(4, start=9)),
    "MultiDiscrete": observing(spaces.MultiDiscrete([2, 3])),
    "MultiBinary": observing(spaces.MultiBinary(3)),
    "Dict": observing(NUMBERS, "MultiInputPolicy"),
    "Dict with an image": observing(spaces.Dict(vector=VECTOR, image=IMAGE), "MultiInputPolicy"),
    "Dict in a Dict": observing(spaces.Dict(inner=NUMBERS), "MultiInputPolicy"),
    "Tuple": observing(spaces.Tuple((VECTOR, VECTOR))),
    "actions: Discrete": with_actions(spaces.Discrete(3)),
    "actions: Discrete that does not begin at 0": with_actions(spaces.Discrete(3, start=1)),
    "actions: MultiDiscrete": with_actions(spaces.MultiDiscrete([2, 2])),
    "actions: MultiBinary": with_actions(spaces.MultiBinary(2)),
    "actions: Box": with_actions(VECTOR),
    "DummyVecEnv": around(lambda: several_cartpoles(2)),
    "SubprocVecEnv": around(lambda: SubprocVecEnv([short_cartpole] * 2, start_method="fork")),
    "VecNormalize": around(lambda: VecNormalize(several_cartpoles(2))),
    "VecFrameStack": around(lambda: VecFrameStack(several_cartpoles(2), 2)),
    "VecMonitor": around(lambda: VecMonitor(several_cartpoles(2))),
    "make_fast_vec_env, all as one array": around(one_array),
    "make_fast_vec_env, one after the other": around(in_turn),
    "VecNormalize around one array": around(lambda: VecNormalize(one_array())),
    "VecFrameStack around one array": around(lambda: VecFrameStack(one_array(), 2)),
    "ends of 0 and 1, or 0.0 and 1.0": around(lambda: Returning(several_cartpoles(2), FORMS["ends of 0 and 1"])),
    "gymnasium's own vector environment": around(lambda: gym.make_vec("CartPole-v1", 2)),
    "functions for jax: brax, gymnax ...": around(type("Ant", (), {"__module__": "brax.envs"})),
    "n-step returns": around(short_cartpole, n_steps=3),
    "n-step returns with Dict observations": around(dict_cartpole, policy="MultiInputPolicy", n_steps=3),
    "n-step returns with optimize_memory_usage": around(
        short_cartpole, n_steps=3, optimize_memory_usage=True, **WITHOUT_LIMITS
    ),
    "optimize_memory_usage with time limits": around(short_cartpole, optimize_memory_usage=True),
    "optimize_memory_usage with Dict observations": around(
        dict_cartpole, policy="MultiInputPolicy", optimize_memory_usage=True, **WITHOUT_LIMITS
    ),
    "training after episodes, one environment": after_episodes(short_cartpole),
    "training after episodes, several environments": after_episodes(lambda: several_cartpoles(2)),
    "HerReplayBuffer": around(
        lambda: BitFlippingEnv(3, continuous=False, max_steps=3),
        policy="MultiInputPolicy",
        replay_buffer_class=HerReplayBuffer,
    ),
    "your own replay buffer": around(short_cartpole, replay_buffer_class=Own),
    "your own features extractor": around(
        short_cartpole, policy_kwargs={"features_extractor_class": OwnExtractor, "features_extractor_kwargs": {}}
    ),
    "DQNReplayBuffer with terminal copies": around(short_cartpole, replay_buffer_kwargs={"terminal_copies": 2}, **OUR_BUFFER),
    "DQNReplayBuffer with prioritized replay": around(
        short_cartpole, replay_buffer_kwargs={"sampler": "prioritized"}, **OUR_BUFFER
    ),
    "TerminalPenalty and the other wrappers": around(lambda: TerminalPenalty(short_cartpole(), reward=-5)),
    "our schedules for epsilon": lambda algorithm, _: trained(
        algorithm, short_cartpole(), callback=EpsilonScheduleCallback(LinearSchedule(1.0, 0.5))
    ),
    "diagnostics": lambda algorithm, _: trained(
        algorithm, short_cartpole(), callback=DiagnosticsCallback(every=8, calibration={"every": 8, "n_episodes": 1})
    ),
    "exact checkpoints": checkpointed,
    "a zip that DQN saved": lambda algorithm, folder: loaded(algorithm, DQN, folder),
    "a zip that DQNExt saved": lambda algorithm, folder: loaded(algorithm, DQNExt, folder),
    "compiled updates": argument("compile"),  # test_compiled.py tests that they work
    "masks of actions": around(strict, policy_kwargs=MASKED),
    "recurrent networks": argument("lstm"),
}
REFUSALS = (ValueError, AssertionError, NotImplementedError, TypeError, RuntimeError, IndexError)


def table_of_uses() -> list[list[str]]:
    heads = ("observations", "actions", "environments", "feature")
    found = [[head, *cells] for head in heads for cells in table_rows(DOCS / "sb3.md", head)]
    return [[f"actions: {name}" if head == "actions" else name, theirs, ours] for head, name, theirs, ours, *_ in found]


def test_the_table_of_uses_has_a_row_for_each_case() -> None:
    assert [name for name, *_ in table_of_uses()] == list(CASES)


@pytest.mark.parametrize(
    ("name", "algorithm", "cell"),
    [
        (name, algorithm, cell)
        for name, *cells in table_of_uses()
        for algorithm, cell in zip((DQN, DQNExt), cells, strict=True)
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else value,
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_the_table_of_uses_is_true(name: str, algorithm: Algorithm, cell: str, tmp_path: Path) -> None:
    assert cell in ("yes", "no")
    if cell == "yes":
        CASES[name](algorithm, tmp_path)
    else:
        with pytest.raises(REFUSALS):
            CASES[name](algorithm, tmp_path)


# -- links to other sites -----------------------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """A server that answers with the status code in the path."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_broken_links_to_other_sites_are_printed_with_their_places(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    page, module = tmp_path / "page.md", tmp_path / "module.py"
    page.write_text(f"[found]({address}/200) and\n[not found]({address}/404), [forbidden]({address}/403).\n")
    module.write_text(f'"""See {address}/200, {address}/404."""\n')
    process = subprocess.run(
        [sys.executable, str(DOCS / "site_tools/links.py"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    server.shutdown()
    server.server_close()
    assert process.returncode == 1, process.stderr
    assert process.stdout.splitlines() == [f"{address}/404: 404 ({module}:1, {page}:2)", "2 of 3 links work."]


def test_roles_in_docstrings_name_objects_that_exist() -> None:
    role = re.compile(r":(?:class|func|meth|mod|data|attr):`~?(sb3_dqn_ext\.[^`]+)`")
    sources = [*(ROOT / "sb3_dqn_ext").rglob("*.py"), *(ROOT / "envs").rglob("*.py")]
    targets = {re.sub(r"\s", "", name) for path in sources for name in role.findall(path.read_text())}
    assert len(targets) > 20
    for target in sorted(targets):
        assert is_object(target), target


def is_object(target: str) -> bool:
    """Return whether a dotted name is that of a module, an object, or an annotated attribute."""
    try:
        import_name(target)
    except AttributeError:
        owner = import_name(target.rpartition(".")[0])
        return target.rpartition(".")[2] in getattr(owner, "__annotations__", {})
    return True
