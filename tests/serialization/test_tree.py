"""Nested data as JSON and arrays, there and back."""

import json
import math
import struct
from collections import Counter, OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import HealthCheck, given, settings

from sb3_dqn_ext.checkpoint.folder import read_checkpoint, write_checkpoint
from sb3_dqn_ext.serialization.tree import MAX_DEPTH, is_plain, pack, unpack
from tests.serialization.trees import TREES, bits


def through_json(tree: Any) -> Any:
    packed, arrays = pack(tree)
    return unpack(json.loads(json.dumps(packed, allow_nan=False)), arrays)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(tree=TREES)
def test_a_tree_comes_back_from_json_bit_by_bit(tree: Any) -> None:
    assert bits(through_json(tree)) == bits(tree)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(tree=TREES)
def test_a_tree_comes_back_from_the_disk_bit_by_bit(tree: Any, tmp_path: Path) -> None:
    assert bits(read_checkpoint(write_checkpoint(tmp_path, 0, tree)).tree) == bits(tree)


@pytest.mark.parametrize(
    "value",
    [
        *(-0.0, 5e-324, 0.1 + 0.2, math.inf, -math.inf, math.nan, struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]),
        *(2**63, -(2**63) - 1, 10**6000, True, 1, 1.0),
        *("\ud83d\ude00", "\U0001f600", "\ud800", "a\0"),
        *({"\ud83d\ude00": 1, "x": 2}, {2: "b", "2": "a", (1, ("x", 2)): None}, {"tuple": [1]}, {"dict": {}}, {"array": "0"}),
        *(np.str_("a\0"), np.bytes_(b"a\0"), np.longdouble("0.1"), np.datetime64("NaT"), np.float64(1), np.bool_(True)),
        *(np.empty((3, 0, 2)), np.array(7, ">i2"), np.arange(12, dtype=">f8").reshape(3, 4).T[::2], np.zeros(3, "V0")),
        *(np.zeros(2, [("x", ">u2"), ("ключ", "<f4", (2, 3))]), np.array(["é", "b"], ">U3"), np.asfortranarray(np.eye(3))),
        *(th.tensor(1.5, dtype=th.bfloat16), th.empty(0, 3), th.arange(6).view(2, 3).T, th.tensor([1 + 2j]).conj()),
        *(deque([1, 2], maxlen=2), deque(maxlen=0), np.random.PCG64(3).state),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_easily_changed_comes_back(value: Any, tmp_path: Path) -> None:
    assert bits(through_json([value])) == bits([value])
    assert bits(read_checkpoint(write_checkpoint(tmp_path, 1, {"value": value})).tree) == bits({"value": value})


def test_what_comes_back_can_be_written_to_and_trained_no_further(tmp_path: Path) -> None:
    tree = read_checkpoint(
        write_checkpoint(tmp_path, 1, {"array": np.arange(3), "tensor": th.ones(2, dtype=th.bfloat16)})
    ).tree
    tree["array"] += 1
    tree["tensor"] += 1
    assert not tree["tensor"].requires_grad
    assert tree["tensor"].device.type == "cpu"


class Text(str):
    """What would come back as its parent."""


def endless() -> list[Any]:
    tree: list[Any] = []
    tree.append(tree)
    return tree


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"callbacks": [{"best": object()}]}, r"callbacks\[0\]\.best is a builtins\.object"),
        ({"a b": {3: ({1, 2},)}}, r"\['a b'\]\[3\]\[0\] is a builtins\.set"),
        (b"bytes", "the tree is a builtins.bytes"),
        ([Text("a")], r"\[0\] is a tests\.serialization\.test_tree\.Text"),
        ({"state": Counter(a=1)}, r"state is a collections\.Counter"),
        ({"n": {True: 1}}, "n is a builtins.bool.*as a key"),
        ({"n": {(1, 2.0): 1}}, "n is a builtins.tuple.*as a key"),
        ({"o": np.array([None])}, "o is a numpy.ndarray.*with dtype object"),
        ({"o": np.zeros(2, [("a", "O")])}, "o is a numpy.ndarray.*with dtype"),
        ({"m": np.ma.ones(2)}, "m is a numpy.ma.*MaskedArray"),
        ({"w": th.nn.Parameter(th.ones(1))}, "w is a torch.nn.parameter.Parameter"),
        ({"w": th.ones(1, requires_grad=True)}, r"w is a torch.Tensor.*detach\(\)"),
        ({"w": th.ones(2).to_sparse()}, "w is a torch.Tensor.*sparse"),
        ({"w": th.ones(2, device="meta")}, "w is a torch.Tensor.*meta"),
        (endless(), "nested deeper than 100 levels, or holds itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_come_back_is_refused_by_its_place(tree: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        pack(tree)
    assert not is_plain(tree)
    assert is_plain({"a": [1]})


@pytest.mark.parametrize(
    "packed",
    [
        *(
            {},
            {"a": 1, "b": 2},
            {"eval": "1"},
            {"__reduce__": []},
            {"dict": []},
            {"tuple": {}},
            {"items": [[1]]},
            {"int": "x"},
        ),
        *({"items": [[{"array": "0"}, 1]]}, {"items": [[[1], 1]]}, {"items": [[1.5, 1]]}, {"float": "00"}, {"str": "zz"}),
        *(
            {"deque": [-1, []]},
            {"deque": [1, [1, 2]]},
            {"deque": [True, []]},
            {"deque": [None, 3]},
            {"array": "9"},
            {"array": 0},
        ),
        *({"scalar": "0"}, {"tensor": ["0", "float64x"]}, {"tensor": ["0", "float32"]}, {"tensor": ["0", []]}, {"tensor": []}),
        *({"tensor": ["1", "float64"]}, {"numpy_bytes": "q"}, {"numpy_str": 1}, {"float": 1.0}),
        *({"ordered": {"tuple": []}}, {"ordered": {}}, {"ordered": {"dict": {}, "items": []}}, {"ordered": []}),
    ],
    ids=repr,
)
def test_what_was_never_packed_is_refused(packed: Any) -> None:
    arrays = {"0": np.arange(2.0), "1": np.zeros(2, ">f8")}
    with pytest.raises(ValueError, match=r"^x\[0\]"):
        unpack({"dict": {"x": [packed]}}, arrays)


def test_nesting_has_one_limit_in_both_directions(tmp_path: Path) -> None:
    tree: Any = 1
    for _ in range(MAX_DEPTH):
        tree = OrderedDict({3: tree})  # the form that takes most levels in JSON
    assert read_checkpoint(write_checkpoint(tmp_path, 1, tree)).tree == tree
    with pytest.raises(TypeError, match="nested deeper"):
        pack([tree])
    packed: Any = 1
    for _ in range(MAX_DEPTH + 1):
        packed = [packed]
    with pytest.raises(ValueError, match="nested deeper"):
        unpack(packed, {})


def test_what_torch_calls_its_state_comes_back(tmp_path: Path) -> None:
    def made() -> tuple[th.nn.Module, th.optim.Optimizer]:
        network = th.nn.Sequential(th.nn.Linear(3, 2), th.nn.BatchNorm1d(2))
        return network, th.optim.Adam(network.parameters())

    (network, optimizer), (other, other_optimizer) = made(), made()
    network(th.ones(4, 3)).square().sum().backward()
    optimizer.step()
    tree = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "generator": th.get_rng_state()}
    restored = read_checkpoint(write_checkpoint(tmp_path, 1, tree)).tree
    assert bits(restored) == bits(tree)
    other.load_state_dict(restored["network"])
    other_optimizer.load_state_dict(restored["optimizer"])
    assert bits(other.state_dict()) == bits(network.state_dict())
    assert bits(other_optimizer.state_dict()) == bits(optimizer.state_dict())
