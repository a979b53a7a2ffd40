"""Errors for wrong names and numbers contain the allowed values."""

from typing import Any

import pytest
from torch import nn

from sb3_dqn_ext._validation import check_keys, check_number, choose, resolve_class
from sb3_dqn_ext.errors import ArgumentError


def test_a_name_that_exists_gives_what_it_stands_for() -> None:
    assert choose("colour", "red", {"red": 1, "blue": 2}) == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [("rad", " Did you mean 'red'?"), ("azure", " Did you mean 'blue'?"), ("RED", " Did you mean 'red'?"), ("zzz", "")],
)
def test_a_wrong_name_is_answered_with_all_names_and_the_closest_or_its_synonym(name: str, hint: str) -> None:
    with pytest.raises(ArgumentError) as error:
        choose("colour", name, {"red": 1, "blue": 2}, {"azure": "blue"})
    assert str(error.value) == f"colour={name!r} is not known; it can be one of: blue, red.{hint}"


@pytest.mark.parametrize("name", [None, 3, ["red"], {}])
def test_what_is_no_name_at_all_is_answered_alike(name: Any) -> None:
    with pytest.raises(ArgumentError, match="it can be one of: blue, red"):
        choose("colour", name, {"red": 1, "blue": 2})


def test_an_unknown_key_is_named_with_the_closest() -> None:
    check_keys("paint_kwargs", {"coats": 2}, ["coats", "gloss"])
    with pytest.raises(ArgumentError, match=r"paint_kwargs has no argument 'coat'.*Did you mean 'coats'"):
        check_keys("paint_kwargs", {"coat": 2}, ["coats", "gloss"])


@pytest.mark.parametrize("value", [0.0, 1, 0.5])
def test_a_number_in_its_range_passes(value: float) -> None:
    check_number("share", value, low=0, high=1)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "2", "half", None, True])
def test_anything_else_is_answered_with_the_range(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^share=.* must be a finite number in \[0, 1\]\.$"):
        check_number("share", value, low=0, high=1)


@pytest.mark.parametrize("value", [0, 1.5, "1.5"])
def test_a_count_must_be_a_whole_number(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^copies=.* must be a whole number in \[1, inf\]\.$"):
        check_number("copies", value, low=1, integer=True)


def test_a_class_can_be_given_named_or_named_with_its_module() -> None:
    options: dict[str, type[nn.Module]] = {"relu": nn.ReLU}
    for given, expected in ((nn.Tanh, nn.Tanh), ("relu", nn.ReLU), ("torch.nn.Tanh", nn.Tanh)):
        assert resolve_class("activation_fn", given, options) is expected
