"""Malicious and damaged models and checkpoints: they are refused without side effects."""

import base64
import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import stat
import struct
import sys
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3 import DQN
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext._missing import MissingAttribute
from sb3_dqn_ext.checkpoint.folder import read_checkpoint, write_checkpoint
from sb3_dqn_ext.errors import ArgumentError, CheckpointError, ModelFileError
from sb3_dqn_ext.saved_model import DERIVED, RESET_ON_LOAD, TRAINING_ONLY
from sb3_dqn_ext.saved_model.classes import NeedsTrustError
from sb3_dqn_ext.saved_model.sb3_values import read_pickled_value
from sb3_dqn_ext.saved_model.values import unpack_value
from sb3_dqn_ext.serialization.sb3_pickle import NamedObject, RecordedCall, describe_pickle
from sb3_dqn_ext.serialization.tree import unpack
from tests.parity import learn, short_cartpole
from tests.paths import ROOT
from tests.processes import output, python

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""The number of damaged files for each test. ``make fuzz`` sets it higher."""
SMALL: dict[str, Any] = {
    "buffer_size": 50,
    "learning_starts": 10,
    "batch_size": 4,
    "seed": 1,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [4]},
}
Parts = dict[str, bytes]


def parts_of(archive: bytes) -> Parts:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def archive_of(parts: Parts, compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return data.getvalue()


def trained(kind: type[DQN]) -> bytes:
    model = kind("MlpPolicy", short_cartpole(), **(SMALL | {"policy_kwargs": {"net_arch": [4]}}))
    learn(model, 40)
    data = io.BytesIO()
    model.save(data)
    return data.getvalue()


OURS, THEIRS = parts_of(trained(DQNExt)), parts_of(trained(DQN))


def with_data(parts: Parts, **changes: Any) -> bytes:
    return archive_of(parts | {"data": json.dumps(json.loads(parts["data"]) | changes).encode()})


def load(archive: bytes, **kwargs: Any) -> DQNExt:
    return DQNExt.load(io.BytesIO(archive), **kwargs)


def test_what_is_not_changed_is_good() -> None:
    for parts in (OURS, THEIRS):
        assert load(archive_of(parts)).num_timesteps == 40
        assert load(archive_of(parts, zipfile.ZIP_DEFLATED)).num_timesteps == 40  # by a tool of the user's


# pickles


class Bomb:
    """An object whose unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mknod, (self.marker,)


def pickled(value: Any) -> dict[str, str]:
    """Return the JSON of a value that SB3 pickles."""
    return {":type:": "<class 'dict'>", ":serialized:": base64.b64encode(cloudpickle.dumps(value)).decode()}


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "exploded"
    yield path
    assert not path.exists()


def test_the_bomb_is_real(tmp_path: Path) -> None:
    marker = tmp_path / "exploded"
    for load in (DQN.load, lambda file: DQNExt.load(file, trust=True)):
        load(io.BytesIO(with_data(THEIRS, _my_own=pickled(Bomb(marker)))))
        assert marker.exists()
        marker.unlink()


NAMES = sorted({*json.loads(OURS["data"]), *json.loads(THEIRS["data"])} - {":schema:", ":for SB3:"})


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize("name", [*NAMES, "_my_own"])
def test_no_attribute_is_unpickled(name: str, whose: str, marker: Path) -> None:
    parts = OURS if whose == "ours" else THEIRS
    bomb = Bomb(marker)
    for hostile in (bomb, {"net_arch": [bomb]}, [[bomb]], (bomb,)):
        archive = with_data(parts, **{name: pickled(hostile)})
        if whose == "theirs" and name in {*DERIVED, *RESET_ON_LOAD}:
            assert load(archive).num_timesteps == 40  # not looked at, or done without
        elif whose == "theirs" and name in {*TRAINING_ONLY, "_my_own"}:
            with pytest.raises(ArgumentError, match=rf"training needs what was not loaded: {name} .*trust=True"):
                load(archive, env=short_cartpole()).learn(1)
        else:
            with pytest.raises(ModelFileError, match=rf"cannot be loaded: (its )?{name} .*"):
                load(archive)
    for instead in ({"custom_objects": {name: None}}, {name: None}):
        with contextlib.suppress(ValueError):  # what is given is not looked at; the model may do without, or not
            load(with_data(parts, **{name: pickled(bomb)}), **instead)


def test_what_is_there_for_sb3_is_never_looked_at(marker: Path) -> None:
    for parts in (OURS, THEIRS):
        assert load(with_data(parts, **{":for SB3:": pickled(Bomb(marker))})).num_timesteps == 40
    assert not marker.exists()


@pytest.mark.parametrize("place", ["policy_kwargs", "replay_buffer_kwargs", "exploration_kwargs"])
def test_nothing_inside_of_an_attribute_is_unpickled(place: str, marker: Path) -> None:
    for node in (pickled(Bomb(marker)), {"dict": {"net_arch": pickled(Bomb(marker))}}):
        with pytest.raises(ValueError, match=r"cannot be loaded: its|has no argument|is not known"):
            load(with_data(OURS, **{place: node}))
    with pytest.raises(ValueError, match="has no argument"):  # for SB3, this is plain JSON
        load(with_data(THEIRS, policy_kwargs={"bomb": pickled(Bomb(marker))}))


def pth(tree: Any, **records: bytes) -> bytes:
    """Return a file of ``torch.save`` with additional or replaced records."""
    data = io.BytesIO()
    th.save(tree, data)
    found = {name.partition("/")[2]: content for name, content in parts_of(data.getvalue()).items()}
    found |= {name.replace("__", "/").replace("_pkl", ".pkl"): content for name, content in records.items()}
    return archive_of({f"archive/{name}": content for name, content in found.items()})


PTH = ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"]


@pytest.mark.parametrize("name", PTH)
def test_no_parameters_are_unpickled(name: str, marker: Path) -> None:
    bomb = Bomb(marker)
    legacy = io.BytesIO()
    th.save(bomb, legacy, _use_new_zipfile_serialization=False)
    scripted = pth({}, constants_pkl=pickle.dumps(bomb, 2))
    for hostile in (
        *(pickle.dumps(bomb), pickle.dumps(bomb, 2), cloudpickle.dumps({"a": bomb}), legacy.getvalue(), scripted),
        *(pth(bomb), pth({"q_net": bomb}), pth({}, data_pkl=pickle.dumps(bomb, 2)), pth({}, data_pkl=pickle.dumps(bomb, 5))),
    ):
        with pytest.raises(ModelFileError, match=rf"its part '{name}' holds no parameters"):
            load(archive_of(OURS | {name: hostile}))


def test_no_other_parameters_are_unpickled(marker: Path) -> None:
    with pytest.raises(ModelFileError, match=r"its part 'extra\.pth' holds no parameters"):
        load(archive_of(OURS | {"extra.pth": pth(Bomb(marker))}))
    for name in ("tensors.pth", "policy.q_net.pth", "other.pth"):  # SB3 reads these, too
        with pytest.raises(ModelFileError, match=r"it has the parameters \["):
            load(archive_of(OURS | {name: pth({"gamma": th.ones(1)})}))


@pytest.mark.parametrize(
    "node",
    [
        {"class": "os.system"},
        {"function": "os.system"},
        {"object": {"class": "subprocess.Popen", "attributes": {"args": "true"}}},
        {"class": "tests.exploding.Anything"},
        {"class": "sb3_dqn_ext.zoo.register"},
        {"object": {"class": "torch.nn.Tanh", "attributes": {}}},
        {"class": "sb3_dqn_ext.algorithm.schedules.LinearSchedule.__init__.__globals__"},
    ],
    ids=repr,
)
def test_nothing_is_imported_and_nothing_is_called(node: Any) -> None:
    refused = "names .*, which is (imported only from files that are trusted|allowed once .* is imported)"
    for name in ("learning_rate", "_my_own", "replay_buffer_class"):  # not needed to predict
        with pytest.raises(ArgumentError, match=f"training needs what was not loaded: {name} {refused}"):
            load(with_data(OURS, **{name: node}), env=short_cartpole()).learn(1)
    for name in ("policy_class", "policy_kwargs", "exploration_kwargs"):
        with pytest.raises(ModelFileError, match=f"{name} {refused}"):
            load(with_data(OURS, **{name: node if name == "policy_class" else {"dict": {"net_arch": node}}}))


@pytest.mark.parametrize("argument", ["activation_fn", "features_extractor_class", "optimizer_class"])
def test_no_policy_imports_what_a_text_names(argument: str, marker: Path) -> None:
    """A dictionary is something to go through, and so are the arguments of a process."""
    observations = {"Dict": {"spaces": [{"tuple": [word, box([1])]} for word in ("touch", str(marker))], "generator": None}}
    for parts, kwargs in ((OURS, {"dict": {argument: "subprocess.Popen"}}), (THEIRS, {argument: "subprocess.Popen"})):
        archive = with_data(parts, policy_kwargs=kwargs)
        with pytest.raises(ModelFileError, match=r"policy_kwargs names subprocess\.Popen, which is imported only from files"):
            load(archive)
    of_several = {
        "observation_space": observations,
        "policy_class": {"class": "sb3_dqn_ext.networks.policies.MultiInputPolicy"},
    }
    with pytest.raises(ModelFileError, match=r"policy_kwargs names subprocess\.Popen"):
        load(with_data(OURS, policy_kwargs={"dict": {argument: "subprocess.Popen"}}, **of_several))
    named = {"activation_fn": "torch.nn.ELU", "features_extractor_class": "flatten", "optimizer_class": "torch.optim.Adam"}
    assert load(with_data(OURS, policy_kwargs={"dict": {"net_arch": [4]} | named})).num_timesteps == 40


class Exploded(BaseException):
    """An error that is raised when code runs because a file names something."""


ARMED: list[str] = []
"""Not empty while no code may run."""


def explode(*args: Any, **kwargs: Any) -> Any:
    if ARMED:
        raise Exploded
    return NotImplemented


class Loud(type):
    """A metaclass that raises an error whenever its classes are used."""

    def __getattribute__(cls, name: str) -> Any:
        explode()
        return super().__getattribute__(name)

    __call__ = __instancecheck__ = __subclasscheck__ = __eq__ = explode
    __hash__ = type.__hash__


class LoudClass(metaclass=Loud):
    """A class that is not a subclass of any expected class."""


class Claims:
    """An object that pretends to be a class and a subclass of any other class."""

    __class__ = __mro__ = property(explode)


class Registered:
    """A virtual subclass of SB3's policy, which does not inherit from it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        explode()


BasePolicy.register(Registered)


class Outer:
    """A class that contains another class."""

    class Inner(FlattenExtractor):
        """A subclass that is not at the top level of its module."""


class LoudModule(ModuleType):
    """A module whose attributes import other modules."""

    def __getattribute__(self, name: str) -> Any:
        explode()
        return super().__getattribute__(name)


class Plain(FlattenExtractor):
    """A features extractor of the user."""

    def __init__(self, observation_space: Any, extra: Any = None, width: int = 4) -> None:
        super().__init__(observation_space)
        self.layer = th.nn.Linear(width, 4)


@pytest.fixture
def loud_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Create modules whose code may not run, and a module with objects that are not network classes."""
    lazy, asked, holder = LoudModule("lazy_nets"), ModuleType("asked_nets"), ModuleType("held_nets")
    vars(asked)["__getattr__"] = explode
    vars(holder).update(LoudClass=LoudClass, claims=Claims(), Registered=Registered)
    for name, module in {"lazy_nets": lazy, "asked_nets": asked, "held_nets": holder, "blocked_nets": None}.items():
        monkeypatch.setitem(sys.modules, name, module)
    ARMED.append("now")
    yield
    ARMED.clear()


def serialized(data: bytes) -> dict[str, str]:
    return {":type:": "", ":serialized:": base64.b64encode(data).decode()}


STRANGERS = [
    *("lazy_nets.Net", "asked_nets.Net", "held_nets.LoudClass", "held_nets.claims", "held_nets.Registered"),
    *("torch.nn.modules.os.system", "torch.fx.graph_module.GraphModule", "torch.jit._script.ScriptModule", "os.system"),
    *("torch.nn.modules.container.Sequential", "torch.nn.modules.linear.Linear", "torch.nn.Module", "torch.nn.Linear"),
    *("stable_baselines3.common.policies.BasePolicy.__init__", "stable_baselines3.common.buffers.np", "builtins.type"),
    *(f"{__name__}.Outer.Inner", f"{__name__}.Bomb", f"{__name__}.Missing", "Net", "", ".", "..Net", "sys.modules", "a b.c"),
    *("blocked_nets.Net", "json.tool.main", "antigravity.x", "this.s", "tests.exploding.Anything"),
]


def pickles_of(name: str) -> tuple[bytes, bytes]:
    """Return a pickle of a name, and a pickle of policy_kwargs with that name as the features extractor."""
    module, _, last = name.rpartition(".")
    words = [b"\x8c" + bytes([len(word)]) + word.encode() for word in ("features_extractor_class", module, last)]
    return b"\x80\x04" + words[1] + words[2] + b"\x93.", b"\x80\x04}" + b"".join(words) + b"\x93s."


@pytest.mark.usefixtures("loud_modules")
def test_a_name_that_is_not_of_an_imported_class_with_the_right_base_is_refused() -> None:
    imported = set(sys.modules)
    for name in STRANGERS:
        alone, in_kwargs = pickles_of(name)
        node: Any = {"class": name}
        kwargs: Any = {"dict": {"features_extractor_class": node}}
        asked: list[Callable[[], Any]] = [
            *(partial(unpack_value, node, place=(place,)) for place in ("policy_class", "replay_buffer_class")),
            *(partial(read_pickled_value, alone, (place,)) for place in ("policy_class", "replay_buffer_class")),
            partial(unpack_value, kwargs, place=("policy_kwargs",)),
            partial(read_pickled_value, in_kwargs, ("policy_kwargs",)),
        ]
        for ask in asked:
            with pytest.raises(NeedsTrustError, match=r"^names "):
                ask()
    assert not (sys.modules.keys() - imported) & {"antigravity", "this", "tests.exploding", "json.tool"}


@pytest.mark.usefixtures("loud_modules")
@pytest.mark.parametrize("name", ["held_nets.LoudClass", "torch.nn.modules.os.system", "torch.fx.graph_module.GraphModule"])
def test_a_file_that_names_something_else_is_refused(name: str) -> None:
    alone, in_kwargs = pickles_of(name)
    for archive in (
        with_data(OURS, policy_class={"function": name}),
        with_data(OURS, policy_kwargs={"dict": {"features_extractor_class": {"class": name}}}),
        with_data(OURS, policy_kwargs={"dict": {"features_extractor_class": name}}),
        with_data(THEIRS, policy_class=serialized(alone)),
        with_data(THEIRS, policy_kwargs=serialized(in_kwargs)),
    ):
        with pytest.raises(ModelFileError, match=f"policy_(class|kwargs) names {name}"):
            load(archive)
    for archive in (
        with_data(OURS, replay_buffer_class={"class": name}),
        with_data(THEIRS, replay_buffer_class=serialized(alone)),
    ):
        with pytest.raises(ArgumentError, match=f"needs what was not loaded: replay_buffer_class names {name}"):
            load(archive, env=short_cartpole()).learn(1)


OWN = {"class": f"{__name__}.Plain"}


def own(**kwargs: Any) -> bytes:
    """Return a file whose features extractor is a class of this module."""
    return net(net_arch=[4], features_extractor_class=OWN, features_extractor_kwargs={"dict": kwargs})


def test_a_class_of_the_users_own_gets_what_is_known_by_name_and_no_other_class() -> None:
    with pytest.raises(
        ModelFileError, match=r"cannot be made a model again: .*layer"
    ):  # it is made, and has other parameters than the file
        load(own(extra={"dict": {"a": [1, {"tuple": ["/tmp/a path"]}], "b": {"class": "torch.nn.Tanh"}}}))
    for hostile in (OWN, {"tuple": [OWN]}, {"dict": {"features_extractor_class": OWN}}, {"function": "os.system"}):
        with pytest.raises(ModelFileError, match=r"policy_kwargs names .*, which is imported only from files"):
            load(own(extra=hostile))
    for place in ("activation_fn", "optimizer_class", "features_extractor_kwargs"):
        for named in (OWN, OWN["class"]):
            with pytest.raises(ValueError, match=r"policy_kwargs names|must be a mapping"):
                load(net(net_arch=[4], **{place: named}))
    for place in ("policy_class", "exploration_kwargs", "target_policy_kwargs", "_last_obs_", "replay_buffer_class"):
        with contextlib.suppress(ValueError):
            model = load(with_data(OURS, **{place: OWN}), env=short_cartpole())
            assert isinstance(vars(model)[place], MissingAttribute)


def test_a_class_of_the_users_own_cannot_be_made_larger_than_the_file() -> None:
    for kwargs in ({"width": GREAT}, {"width": {"int": hex(10**18)}}):
        with pytest.raises(ModelFileError, match=r"far larger than the parameters|cannot be made a model again"):
            load(own(**kwargs))


def test_a_pickle_that_remembers_far_away_takes_no_memory() -> None:
    """The C unpickler would allocate a memo up to the index in the pickle."""
    tracemalloc.start()
    try:
        assert read_pickled_value(b"\x80\x04Nr\xff\xff\xff\xff.") is None
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_nothing_but_names_and_calls_is_on_the_stack_of_the_unpickler() -> None:
    for value in (Bomb(Path("a")), {"a": {1: th.nn.Tanh}}, OrderedDict(a=1), np.arange(3), spaces.Box(0, 1, (2,))):
        for protocol in (2, 4, 5):
            kinds = {type(part) for part in parts_of_description(describe_pickle(cloudpickle.dumps(value, protocol)))}
            assert kinds <= {NamedObject, RecordedCall, str, int, float, bool, bytes, bytearray, tuple, list, type(None)}


def parts_of_description(said: Any) -> Iterator[Any]:
    """Iterate over all parts of a description, each once, since it may contain itself."""
    left, seen = [said], set()
    while left:
        part = left.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            inside = [*part.arguments, part.state, *part.appended, *part.pairs] if isinstance(part, RecordedCall) else part
            left.extend(inside if isinstance(inside, list | tuple) else [])


def test_pickles_are_read_on_paper_only(marker: Path) -> None:
    """Read pickles that SB3 could have written, and pickles that replace them."""
    assert read_pickled_value(pickle.dumps({"a": [1, (2.5, None)], 3: np.arange(3)}, 5)).keys() == {"a", 3}
    stranger = Bomb(marker)
    for value in (stranger, [stranger], {"a": stranger}, os.system, lambda: 1, {1, 2}, print, type, Path("a"), 1j):
        for protocol in (2, 5):
            with pytest.raises(NeedsTrustError):
                read_pickled_value(cloudpickle.dumps(value, protocol))
    for state in (b"", b".", b"\x80\x05", b"\x80\x05.", b"N", b"0.", b"\x80\x05K\x01\x85R.", pickle.dumps([1] * 9)[:-3]):
        with pytest.raises((ValueError, LookupError, NeedsTrustError)):
            read_pickled_value(state)


# archives


def renamed(name: str) -> bytes:
    return archive_of(OURS | {name: b"x"})


def link() -> bytes:
    data = io.BytesIO(archive_of(OURS))
    info = zipfile.ZipInfo("policy.txt")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(data, "a") as file:
        file.writestr(info, "/etc/passwd")
    return data.getvalue()


def twice() -> bytes:
    data = io.BytesIO(archive_of(OURS | {"dat_": OURS["data"]}))
    return data.getvalue().replace(b"dat_", b"data")


def encrypted() -> bytes:
    data = bytearray(archive_of(OURS))
    (start,) = struct.unpack_from("<I", data, data.rindex(b"PK\x05\x06") + 16)
    data[start + 8] |= 1
    return bytes(data)


def over_each_other() -> bytes:
    """Return a zip with many entries for the same bytes."""
    data = archive_of({"a.txt": bytes(10**6)})
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entries = b"".join(data[start:end].replace(b"a.txt", b"%05d" % i) for i in range(500))
    return data[:start] + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 500, 500, len(entries), start, 0)


def packed_inside(compression: int) -> bytes:
    """Return a small .pth file that decompresses to a large one."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as file:
        for name, content in parts_of(OURS["policy.pth"]).items():
            file.writestr(name, bytes(3 * 10**8) if name.endswith("data/0") else content)
    return archive_of(OURS | {"policy.pth": data.getvalue()})


def larger_than_its_record() -> bytes:
    records = parts_of(OURS["policy.pth"])
    name = next(name for name in records if name.endswith("data.pkl"))
    changed = records[name].replace(b"K\x10tq", b"J\x10\x00\x00\x10tq", 1)  # numbers of the first weight
    assert changed != records[name]
    return archive_of(OURS | {"policy.pth": archive_of(records | {name: changed})})


def laughs(depth: int) -> Any:
    tree: Any = [1.0]
    for _ in range(depth):
        tree = [tree] * 10
    return tree


def deep_pickle(depth: int) -> bytes:
    return b"\x80\x02N" + b"\x85" * depth + b"."


DEEP = b")" + b"\x85" * 10**6
"""Deeply nested tuples: their hash overflows the stack."""
ENDLESS = b")" + b"q\x00h\x00\x86" * 100
"""a tuple of the same tuple twice, and so on: to hash it takes forever"""


def keys(key: bytes) -> dict[str, bytes]:
    """Return pickles of .pth files in which a key is hashed."""
    ordered, pairs = b"ccollections\nOrderedDict\n", b"](" + key + b"K\x01\x86e"
    found = {
        "a dictionary": b"}" + key + b"K\x01s",
        "several items": b"}(" + key + b"K\x01u",
        "ordered": ordered + b")R" + key + b"K\x01s",
        "ordered pairs": ordered + pairs + b"\x85R",
        "ordered state": ordered + b")R" + pairs + b"b",
        "a storage": b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + key + b"X\x03\x00\x00\x00cpuK\x01tQ",
    }
    return {name: b"\x80\x02" + instructions + b"." for name, instructions in found.items()}


def calls(function: bytes, argument: bytes) -> bytes:
    return b"\x80\x02c" + function + b"\n" + argument + b"\x85R."


def wide() -> Any:
    return th.zeros(1).expand(10**10)


def numbers_of(shape: str) -> str:
    return f'{{"array": ["<f8", {shape}, "AAAAAAAAAAA="]}}'


def box(shape: Any, low: Any = 0.0) -> Any:
    fields = {"low": low, "high": 1.0, "bounded_below": True, "bounded_above": True, "shape": shape, "dtype": "float32"}
    return {"Box": fields | {"generator": None}}


def buffer(rows: Any = None, **state: Any) -> bytes:
    """Return a file with a replay buffer."""
    sampler = {"dict": {"members": None, "terminal": {"array": ["<i8", [0], ""]}}}
    state = {"pos": 2, "full": False, "n_added": 2, "sampler": sampler} | state
    fields = {"size": 50, "n_envs": 1, "first": 0, "rows": {"dict": rows or {}}, "replay_buffer_state": {"dict": state}}
    return with_data(OURS, replay_buffer={"ReplayBuffer": fields})


def raw(text: str) -> bytes:
    return archive_of(OURS | {"data": text.encode()})


def inserted(text: str) -> bytes:
    return raw(OURS["data"].decode().rstrip()[:-1] + f', "_my_own": {text}}}')


def net(**kwargs: Any) -> bytes:
    return with_data(OURS, policy_kwargs={"dict": kwargs})


GREAT = 10**9  # elements: few enough for an allocation to succeed
HOSTILE: dict[str, Callable[[], bytes]] = {
    **{f"a part {name!r}": partial(renamed, name) for name in ("../a", "/a", "a/../../b", "..\\a", "C:\\a", "C:a", "\\a")},
    "a part with a line in its name": lambda: renamed("a\nb"),
    "a part of parameters elsewhere": lambda: archive_of(OURS | {"../policy.pth": OURS["policy.pth"]}),
    "parameters of what is private": lambda: archive_of(OURS | {"policy.__class__.pth": OURS["policy.pth"]}),
    "a link": link,
    "a part twice": twice,
    "an encrypted part": encrypted,
    "packed by bzip2": lambda: archive_of(OURS | {"data": b" " * 10**7}, zipfile.ZIP_BZIP2),
    "packed by lzma": lambda: archive_of(OURS | {"data": b" " * 10**7}, zipfile.ZIP_LZMA),
    "data of spaces": lambda: archive_of(OURS | {"data": b" " * 3 * 10**8}, zipfile.ZIP_DEFLATED),
    "parameters of zeros": lambda: archive_of(OURS | {"policy.pth": bytes(3 * 10**8)}, zipfile.ZIP_DEFLATED),
    "anything of zeros": lambda: archive_of(OURS | {"notes": bytes(3 * 10**8)}, zipfile.ZIP_DEFLATED),
    "a text of zeros": lambda: archive_of(OURS | {"system_info.txt": bytes(10**6)}),
    "parts over each other": over_each_other,
    "no data": lambda: archive_of({name: content for name, content in OURS.items() if name != "data"}),
    "no parts": lambda: archive_of({}),
    "no archive": lambda: b"PK\x03\x04",
    "a pickle": lambda: pickle.dumps({"a": 1}),
    # parameters
    "records of a .pth that unpack to a lot": lambda: packed_inside(zipfile.ZIP_DEFLATED),
    "a .pth in a .pth": lambda: archive_of(OURS | {"policy.pth": archive_of({"archive/policy.pth": b""})}),
    "a call of bytearray": lambda: archive_of(
        OURS | {"policy.pth": pth({}, data_pkl=calls(b"builtins\nbytearray", b"\x8a\x05\x00\x00\x00\x40\x00"))}
    ),
    "a call of a storage": lambda: archive_of(
        OURS | {"policy.pth": pth({}, data_pkl=calls(b"torch\nUntypedStorage", b"J\x00\x00\x00\x40"))}
    ),
    "a call of a tensor": lambda: archive_of(
        OURS | {"policy.pth": pth({}, data_pkl=calls(b"torch\nTensor", b"J\x00\x00\x00\x40"))}
    ),
    "a tensor that is seen many times": lambda: archive_of(OURS | {"policy.optimizer.pth": pth({"state": {0: wide()}})}),
    "a tensor of sparse numbers": lambda: archive_of(OURS | {"policy.pth": pth({"a": th.eye(3).to_sparse()})}),
    "a tensor without numbers": lambda: archive_of(OURS | {"policy.pth": pth({"a": th.empty(GREAT, device="meta")})}),
    "lists of lists of the same": lambda: archive_of(OURS | {"policy.optimizer.pth": pth({"state": laughs(12)})}),
    "a deep .pth": lambda: archive_of(OURS | {"policy.pth": pth({}, data_pkl=deep_pickle(10**5))}),
    **{
        f"{name} of a .pth with a key of {what}": partial(
            lambda data: archive_of(OURS | {"policy.pth": pth({}, data_pkl=data)}), data
        )
        for what, key in {"a deep tuple": DEEP, "a tuple that never ends": ENDLESS}.items()
        for name, data in keys(key).items()
    },
    **{
        f"a pickle with a key of {what}": partial(
            lambda data: with_data(THEIRS, gamma=serialized(data)), b"\x80\x04}" + key + b"K\x01s."
        )
        for what, key in {"a deep tuple": DEEP, "a tuple that never ends": ENDLESS}.items()
    },
    "a pickle that remembers far away": lambda: with_data(
        THEIRS, gamma=serialized(b"\x80\x04Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.")
    ),
    "a pickle of bytes that are not there": lambda: with_data(
        THEIRS, gamma=serialized(b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".")
    ),
    "parameters of another network": lambda: archive_of(OURS | {"policy.pth": pth({"a": th.ones(3)})}),
    "an optimizer of nothing": lambda: archive_of(OURS | {"policy.optimizer.pth": pth({"state": 3, "param_groups": None})}),
    "parameters that are a number": lambda: archive_of(OURS | {"policy.pth": pth(3)}),
    "no parameters": lambda: archive_of({name: content for name, content in OURS.items() if not name.endswith(".pth")}),
    "variables of what is private": lambda: archive_of(OURS | {"pytorch_variables.pth": pth({"__class__.load": th.ones(1)})}),
    "a tensor that is larger than its record": larger_than_its_record,
    # JSON
    "lists 10,000 deep": lambda: inserted("[" * 10_000 + "]" * 10_000),
    "lists that never end": lambda: raw("[" * 10_000),
    "objects 10,000 deep": lambda: inserted('{"dict":{"a":' * 10_000 + "1" + "}}" * 10_000),
    "pairs 200 deep": lambda: inserted('{"tuple":[' * 200 + "]}" * 200),
    "very many lists": lambda: inserted("[" + "[]," * (10**7 - 1) + "[]]"),
    "very many numbers": lambda: inserted("[" + "1.5," * (7 * 10**6) + "1]"),
    "a number of very many digits": lambda: inserted("1" * 10_000),
    "data that are a list": lambda: raw("[]"),
    "data that are no text": lambda: archive_of(OURS | {"data": b"\xff\xfe"}),
    "an array larger than its text": lambda: inserted(numbers_of(f"[{GREAT}]")),
    "an array of a negative shape": lambda: inserted(numbers_of("[-1]")),
    "an array of objects": lambda: inserted('{"array": ["|O", [1], "AAAAAAAAAAA="]}'),
    "an array of great items": lambda: inserted('{"array": ["|V1000000000", [1], ""]}'),
    "a tensor of what it is not": lambda: inserted('{"tensor": [["<f8", [1], "AAAAAAAAAAA="], "float32"]}'),
    "a marker that is not known": lambda: inserted('{"eval": "1"}'),
    "no attributes": lambda: raw('{":schema:": 3}'),
    "another version": lambda: with_data(OURS, **{":schema:": "3"}),
    # what it describes
    "a great observation": lambda: with_data(OURS, observation_space=box([GREAT])),
    "a great discrete observation": lambda: with_data(
        OURS, observation_space={"Discrete": {"n": GREAT, "start": 0, "dtype": "int64", "generator": None}}
    ),
    "many actions": lambda: with_data(
        OURS, action_space={"Discrete": {"n": GREAT, "start": 0, "dtype": "int64", "generator": None}}
    ),
    "bits": lambda: with_data(OURS, observation_space={"MultiBinary": {"n": GREAT, "generator": None}}),
    "bounds that are not there": lambda: with_data(OURS, observation_space={"Box": {}}),
    "bounds of another shape": lambda: with_data(OURS, observation_space=box([4], {"array": ["<f4", [1], "AAAAAA=="]})),
    "a great layer": lambda: net(net_arch=[GREAT]),
    "two layers with a great product": lambda: net(net_arch=[30_000, 30_000]),
    "very many layers": lambda: net(net_arch=[1] * 300_000),
    "very many quantiles": lambda: net(net_arch=[4], returns="quantile", returns_kwargs={"dict": {"n_quantiles": GREAT}}),
    "very many atoms": lambda: net(
        net_arch=[4], returns="categorical", returns_kwargs={"dict": {"n_atoms": GREAT, "v_min": 0, "v_max": 1}}
    ),
    "a great extractor": lambda: net(net_arch=[4], features_extractor_class="nature_cnn"),
    "a great encoder": lambda: with_data(
        OURS,
        observation_space=box([1, 9, 9]),
        policy_kwargs={"dict": {"encoder": "impala", "encoder_kwargs": {"dict": {"width": GREAT}}}},
    ),
    "a great image": lambda: with_data(
        OURS, observation_space=box([1, 7000, 7000]), policy_kwargs={"dict": {"encoder": "minatar"}}
    ),
    "very many environments": lambda: with_data(OURS, n_envs=GREAT),
    "no policy": lambda: with_data(OURS, policy_class={"class": "torch.nn.Tanh"}),
    "no policy by name": lambda: with_data(OURS, policy_class="MlpPolicy"),
    "a method that is a number": lambda: with_data(OURS, _setup_model=3),
    "a generator of no state": lambda: with_data(
        OURS, _generator={"Generator": {"state": {"dict": {"bit_generator": "PCG64"}}}}
    ),
    "a generator of another state": lambda: with_data(
        OURS, _generator={"Generator": {"state": {"dict": {"bit_generator": "MT19937"}}}}
    ),
    "a replay buffer that is filled beyond its end": lambda: buffer(pos=GREAT),
    "a replay buffer that is filled before its beginning": lambda: buffer(pos=-1),
    "a replay buffer that is full of a word": lambda: buffer(full="yes"),
    "a replay buffer with other rows": lambda: buffer({"dones": {"array": ["<f4", [2, 3], "AAAA" * 8]}}),
    "a replay buffer with rows of nothing": lambda: buffer({"nothing": {"array": ["<f4", [1, 1], "AAAAAA=="]}}),
    "a replay buffer of no state": lambda: with_data(OURS, replay_buffer={"ReplayBuffer": {"size": 50}}),
    "negative steps": lambda: with_data(OURS, num_timesteps=-1),
    "steps that are a word": lambda: with_data(OURS, num_timesteps="1"),
}

LOADS = """
import json, re, sys
from pathlib import Path
from sb3_dqn_ext import DQNExt

def most():
    "The most memory that there has been since the last call, in MiB."
    found = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    Path("/proc/self/clear_refs").write_text("5")
    return found

folder = Path(sys.argv[1])
DQNExt.load(folder / "good.zip")  # what is imported then
most()
usual, found = most(), {}
for path in sorted(folder.glob("[0-9]*.zip")):
    try:
        DQNExt.load(path)
    except Exception as error:
        found[path.stem] = [[kind.__name__ for kind in type(error).__mro__], str(error)]
    else:
        found[path.stem] = [[], "loaded"]
    found[path.stem].append(most() - usual)
a_lot = bytearray(2**28)
del a_lot
found["a_lot"] = most() - usual
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], str, float]]:
    """Load each file in its own process; return the types of its error, the message, and the allocated memory in MiB."""
    folder = tmp_path_factory.mktemp("hostile") / "files"
    folder.mkdir()
    (folder / "good.zip").write_bytes(archive_of(OURS))
    for i, make in enumerate(HOSTILE.values()):
        (folder / f"{i:03d}.zip").write_bytes(make())
    said = json.loads(output(python("-W", "error", "-c", LOADS, str(folder), cwd=ROOT)).splitlines()[-1])
    assert list(folder.parent.iterdir()) == [folder]  # nothing was written beside them
    assert len(list(folder.iterdir())) == 1 + len(HOSTILE)
    assert said["a_lot"] > 250  # it can be measured
    return {name: said[f"{i:03d}"] for i, name in enumerate(HOSTILE)}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(name: str, refusals: dict[str, tuple[list[str], str, float]]) -> None:
    kinds, words, megabytes = refusals[name]
    assert {"ModelFileError", "ArgumentError"} & set(kinds), words
    assert len(words) < 3000
    if kinds[0] == "ModelFileError":
        assert re.match(r"\S+\d{3}\.zip cannot be (loaded|made a model again): ", words)
    assert megabytes < 250, words


# damage


def examples(n: int) -> settings:
    """
    Return deterministic settings for a number of examples.

    :param n: the number of examples; ``make fuzz`` multiplies it
    """
    return settings(
        max_examples=EXAMPLES or n,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


Change = tuple[float, int, bytes]
CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=5
)
"""The position, the number of removed bytes, and the inserted bytes of each change."""


def mutated(data: bytes, changes: list[Change]) -> bytes:
    for place, n_bytes, other in changes:
        at = int(place * len(data))
        data = data[:at] + other + data[at + n_bytes :]
    return data


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from([GREAT, -GREAT, 10**400]),
    lambda nodes: (
        st.lists(nodes, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dict", "tuple", "array", "class", "object", "Box", "Discrete", "not stored", "a"]), nodes
        )
    ),
    max_leaves=6,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return all paths in a JSON tree."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def put(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    key, *rest = path
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[key] = put(node[key], tuple(rest), value)
    return copy


DATA = {"ours": json.loads(OURS["data"]), "theirs": json.loads(THEIRS["data"])}
PLACES = [(whose, place) for whose, data in DATA.items() for place in places(data)[1:]]


def check_load(archive: bytes) -> None:
    """Load an archive, which yields a model or a documented error."""
    with warnings.catch_warnings(), contextlib.suppress(ValueError):  # which ModelFileError and ArgumentError are
        warnings.simplefilter("ignore")  # such as that of a memory which is too large for this machine
        load(archive)


@examples(60)
@given(changes=CHANGES)
def test_a_damaged_archive_is_refused_or_harmless(changes: list[Change]) -> None:
    check_load(mutated(archive_of(OURS), changes))


@examples(60)
@given(name=st.sampled_from(["data", *PTH]), changes=CHANGES, whose=st.sampled_from([OURS, THEIRS]))
def test_a_damaged_part_is_refused_or_harmless(name: str, changes: list[Change], whose: Parts) -> None:
    check_load(archive_of(whose | {name: mutated(whose[name], changes)}))


@examples(60)
@given(record=st.sampled_from(["data.pkl", "data/0", "byteorder", "version"]), changes=CHANGES, name=st.sampled_from(PTH[:2]))
def test_damaged_parameters_are_refused_or_harmless(record: str, changes: list[Change], name: str) -> None:
    records = parts_of(OURS[name])
    place = next(place for place in records if place.endswith(record))
    check_load(archive_of(OURS | {name: archive_of(records | {place: mutated(records[place], changes)})}))


@examples(100)
@given(place=st.sampled_from(PLACES), value=JUNK)
def test_data_that_say_something_else_are_refused_or_harmless(place: tuple[str, tuple[Any, ...]], value: Any) -> None:
    whose, path = place
    parts = OURS if whose == "ours" else THEIRS
    check_load(archive_of(parts | {"data": json.dumps(put(DATA[whose], path, value)).encode()}))


PICKLES = [base64.b64decode(node[":serialized:"]) for node in DATA["theirs"].values() if ":serialized:" in str(node)]


@examples(100)
@given(data=st.sampled_from(PICKLES), changes=CHANGES)
def test_a_damaged_pickle_is_refused_or_harmless(data: bytes, changes: list[Change]) -> None:
    serialized = base64.b64encode(mutated(data, changes)).decode()
    check_load(with_data(THEIRS, _my_own={":type:": "dict", ":serialized:": serialized}))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = {"a": np.arange(20.0), "b": [1, (2, None), {3: th.ones(2)}], "c": float("inf")}
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), 7, tree, {"rows": [("k", {"x": np.arange(5)})]})


@examples(60)
@given(changes=CHANGES, which=st.sampled_from(["checkpoint_", "state_", "segment_"]))
def test_a_damaged_checkpoint_is_refused(changes: list[Change], which: str, checkpoint: Path) -> None:
    (file,) = checkpoint.parent.glob(f"{which}*")
    good = file.read_bytes()
    try:
        bad = mutated(good, changes)
        file.write_bytes(bad)
        if bad == good:
            return
        with pytest.raises(CheckpointError):
            read_checkpoint(checkpoint)
    finally:
        file.write_bytes(good)


def signed(manifest: bytes) -> bytes:
    """Return a manifest with a correct checksum."""
    text = manifest.partition(b"\n")[2]
    head = f'{{"format": "sb3_dqn_ext checkpoint", "schema": 3, "sha256": "{hashlib.sha256(text).hexdigest()}",\n'
    return head.encode() + text


@examples(60)
@given(changes=CHANGES)
def test_a_checkpoint_that_is_damaged_and_signed_is_refused_or_harmless(changes: list[Change], checkpoint: Path) -> None:
    good = checkpoint.read_bytes()
    head, _, rest = good.partition(b"\n")
    try:
        checkpoint.write_bytes(signed(head + b"\n" + mutated(rest, changes)))
        with contextlib.suppress(CheckpointError):
            read_checkpoint(checkpoint)
    finally:
        checkpoint.write_bytes(good)


@examples(60)
@given(changes=CHANGES)
def test_arrays_that_are_damaged_and_signed_are_refused_or_harmless(changes: list[Change], checkpoint: Path) -> None:
    (file,) = checkpoint.parent.glob("state_*")
    manifest, arrays = checkpoint.read_bytes(), file.read_bytes()
    bad = mutated(arrays, changes)
    try:
        file.write_bytes(bad)
        said = json.loads(manifest)["manifest"]
        said["state"] |= {"size": len(bad), "sha256": hashlib.sha256(bad).hexdigest()}
        checkpoint.write_bytes(signed(b"\n" + b'"manifest": ' + json.dumps(said).encode() + b"}\n"))
        with contextlib.suppress(CheckpointError):
            read_checkpoint(checkpoint)
    finally:
        file.write_bytes(arrays)
        checkpoint.write_bytes(manifest)


MARKERS = ["dict", "items", "tuple", "deque", "ordered", "array", "scalar", "tensor", "str", "int", "float", "numpy_str"]
NODES = st.recursive(
    JUNK | st.sampled_from(["0", "1", "float32", "ff"]),
    lambda nodes: st.lists(nodes, max_size=3) | st.dictionaries(st.sampled_from(MARKERS), nodes, max_size=2),
    max_leaves=10,
)


@examples(200)
@given(node=NODES)
def test_any_tree_is_refused_or_harmless(node: Any) -> None:
    with contextlib.suppress(ValueError):
        unpack(node, {"0": np.arange(2.0), "1": np.array(1, np.float32)})


def test_what_is_refused_takes_no_memory_of_python(refusals: dict[str, tuple[list[str], str, float]]) -> None:
    """Arrays that a text promises without holding them are not allocated."""
    for make in ("an array larger than its text", "a great observation", "records of a .pth that unpack to a lot"):
        archive = HOSTILE[make]()
        tracemalloc.start()
        try:
            check_load(archive)
            assert tracemalloc.get_traced_memory()[1] < 30e6
        finally:
            tracemalloc.stop()
