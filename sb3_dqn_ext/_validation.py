"""Look a name up among the choices that exist, or say what would have been right."""

import difflib
import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

from sb3_dqn_ext._other_names import EQUIVALENT_CODE
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.serialization.names import import_name

__all__ = [
    "build",
    "check_keys",
    "check_number",
    "check_type",
    "check_verbose",
    "choose",
    "equivalent_code",
    "number_hint",
    "parameters_of",
    "resolve_class",
    "unknown_key_error",
    "unknown_name_error",
]

T = TypeVar("T")


def unknown_name_error(
    what: str, name: object, allowed: Collection[str], synonyms: Mapping[str, str] | None = None
) -> ArgumentError:
    """
    The error for a name that does not exist.

    :param what: what kind of thing was named, e.g. ``"target_policy"``
    :param name: the name as the user wrote it
    :param allowed: the names that exist
    :param synonyms: other words of the field for them, in lower case, e.g. ``{"ddqn": "double"}``
    :return: the error, which names the closest match where one is close
    """
    words = {other.lower(): other for other in allowed} | dict(synonyms or {})
    word = str(name).lower()
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    meant = words[close[0]] if close else None
    hint = f" Did you mean {meant!r}?" if meant else ""
    public = ", ".join(sorted(other for other in allowed if not other.startswith("_")))
    return ArgumentError(f"{what}={name!r} is not known; it can be one of: {public}.{hint}")


def choose(argument: str, name: str, options: Mapping[str, T], synonyms: Mapping[str, str] | None = None) -> T:
    """
    :param argument: the argument's name, for the message
    :param name: the value the user gave
    :param options: what can be chosen, by name
    :param synonyms: see :func:`unknown`
    :return: ``options[name]``
    :raises ArgumentError: if there is no such name
    """
    try:
        return options[name]
    except (KeyError, TypeError):
        raise unknown_name_error(argument, name, options, synonyms) from None


def unknown_key_error(argument: str, key: object, allowed: Collection[str]) -> ArgumentError:
    """
    Make the error for an argument that does not exist, or that belongs elsewhere.

    :param argument: the name of what holds the arguments, e.g. ``"policy_kwargs"``
    :param key: the name as the user wrote it
    :param allowed: the names that exist there
    :return: the error, which says how :class:`~sb3_dqn_ext.DQNExt` writes what the name means in other libraries
    """
    written = equivalent_code(argument, key, allowed)
    if written is None:
        return unknown_name_error(f"a key of {argument}", key, allowed)
    return ArgumentError(f"{argument} has no argument {key!r}; in DQNExt it is written {written}.")


def equivalent_code(argument: str, key: object, allowed: Collection[str]) -> str | None:
    """
    :param argument: the name of what holds the arguments
    :param key: a name that does not exist there
    :param allowed: the names that exist there
    :return: the code that means the same, None if there is none, or if the key is another spelling of a name that exists
    """
    place, plain = argument.split()[0], _plain(key)
    codes = [code for code in _WRITTEN.get(plain, ()) if not code.startswith(f"{place}={{'{key}'")]
    if not codes or plain in map(_plain, allowed):
        return None
    # a name may mean something else in each place; max() takes the first of equals
    return max(codes, key=lambda code: re.search(rf"\b{re.escape(place)}\b", code) is not None)


def _plain(key: object) -> str:
    """A name without what differs between libraries: ``use_Num-Steps`` and ``n_steps`` are one."""
    word = str(key).lower().replace("-", "_")
    for pattern, instead in _SPELLINGS:
        word = re.sub(pattern, instead, word)
    return word


_SPELLINGS = (
    ("^(use|enable|is|with)_", ""),
    ("(^|_)(num|nb|number_of)_", r"\1n_"),
    ("epsilon", "eps"),
    ("frequency|interval|period", "freq"),
    ("prioritised", "prioritized"),
    ("duelling", "dueling"),
    ("_(networks?|nets?|dqn|learning)$", ""),
)
_WRITTEN: dict[str, list[str]] = {}
for _code, _names in EQUIVALENT_CODE:
    for _name in _names.split():
        _WRITTEN.setdefault(_plain(_name), []).append(_code)


def check_keys(argument: str, given: Collection[str], allowed: Collection[str]) -> None:
    """
    :param argument: the name of the argument that holds the keys, for the message
    :param given: the keys the user gave
    :param allowed: the keys that exist
    :raises ArgumentError: if a key does not exist
    """
    for key in given:
        if key not in allowed:
            raise unknown_key_error(argument, key, allowed)


def check_number(argument: str, value: Any, low: float = -math.inf, high: float = math.inf, integer: bool = False) -> None:
    """
    :param argument: the argument's name, for the message
    :param value: what the user gave
    :param low: smallest allowed value
    :param high: largest allowed value
    :param integer: whether it must be a whole number
    :raises ArgumentError: if ``value`` is not a finite number (a whole one) in ``[low, high]``
    """
    is_number = isinstance(value, Integral if integer else Real) and not isinstance(value, bool)  # numpy's are among them
    good = is_number and math.isfinite(value) and low <= value <= high
    if not good:
        kind = "a whole number" if integer else "a finite number"
        bounds = "" if low == -math.inf and high == math.inf else f" in [{_digits(low)}, {_digits(high)}]"
        raise ArgumentError(f"{argument}={value!r} must be {kind}{bounds}.{number_hint(value, low, high, integer)}")


def _digits(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def number_hint(value: Any, low: float = -math.inf, high: float = math.inf, integer: bool = False) -> str:
    """
    :param value: what is no number, or none of the kind that is wanted
    :param low: smallest allowed value
    :param high: largest allowed value
    :param integer: whether it must be a whole number
    :return: a sentence on what to write, if a number was meant: YAML reads ``1e-3`` as a string, and ``1.0e+5`` as a float
    """
    try:
        number = float(value) if isinstance(value, str | float) else math.nan
    except ValueError:
        number = math.nan
    whole = number.is_integer()
    if not (math.isfinite(number) and low <= number <= high) or (integer and not whole):
        return ""
    kind = "string" if isinstance(value, str) else "float"
    return f" It is a {kind}; write {int(number) if whole else number!r}." if integer or kind == "string" else ""


def check_verbose(value: Any) -> None:
    """
    :param value: what the user gave as ``verbose``; SB3 documents numbers, and takes True and False
    :raises ArgumentError: if it is neither a whole number from 0 on nor a bool
    """
    if not isinstance(value, bool | np.bool_):
        check_number("verbose", value, low=0, integer=True)


def check_type(argument: str, value: Any, kind: Any, called: str) -> None:
    """
    :param argument: the argument's name, for the message
    :param value: what the user gave
    :param kind: the type it must have, or a union of types
    :param called: that type in words, e.g. ``"a mapping of arguments"``
    :raises ArgumentError: if it has another
    """
    if not isinstance(value, kind) and not (kind is bool and isinstance(value, np.bool_)):
        raise ArgumentError(f"{argument}={value!r} must be {called}.")


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """
    :param function: a function or a class; a class whose ``__init__`` takes ``**kwargs`` hands them to its parent's
    :return: its parameters by name, without ``self``
    """
    if not isinstance(function, type):
        return dict(inspect.signature(function).parameters)
    found: dict[str, inspect.Parameter] = {}
    for parent in function.__mro__:
        if "__init__" in vars(parent):
            parameters = list(inspect.signature(vars(parent)["__init__"]).parameters.values())[1:]
            found = {parameter.name: parameter for parameter in parameters} | found
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                break
    return {name: parameter for name, parameter in found.items() if parameter.kind not in _VARIADIC}


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def build(
    argument: str,
    name: str,
    options: Mapping[str, Callable[..., T]],
    kwargs: Mapping[str, Any],
    synonyms: Mapping[str, str] | None = None,
) -> T:
    """
    Build the choice of a name from its arguments.

    :param argument: the argument that holds the name; its arguments are called ``{argument}_kwargs``
    :param name: the value the user gave
    :param options: a factory for each name
    :param kwargs: what to build it with
    :param synonyms: see :func:`unknown`
    :raises ArgumentError: if there is no such name, or the choice has no such argument
    """
    factory = choose(argument, name, options, synonyms)
    check_keys(f"{argument}_kwargs", kwargs, parameters_of(factory))
    return factory(**kwargs)


def resolve_class(argument: str, value: type[T] | str, options: Mapping[str, type[T]]) -> type[T]:
    """
    The class that a string names, so that YAML can hold plain data.

    :param argument: the argument's name, for the message
    :param value: a class, a name among ``options``, or the dotted name of a class
    :param options: the classes that have a short name
    :raises ArgumentError: if there is no such class
    """
    if isinstance(value, type):
        return value
    if "." not in str(value).strip("."):
        return choose(argument, value, options)
    try:
        found = import_name(str(value))
    except (ImportError, AttributeError) as error:
        raise ArgumentError(f"{argument}={value!r} cannot be imported: {error}") from error
    if not isinstance(found, type):
        raise ArgumentError(f"{argument}={value!r} is not a class.")
    return found
