"""Look a name up among the choices that exist, or say what would have been right."""

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

__all__ = [
    "ArgumentError",
    "build",
    "check_keys",
    "check_number",
    "check_type",
    "choose",
    "named_class",
    "parameters_of",
    "unknown",
]

T = TypeVar("T")


class ArgumentError(ValueError):
    """An argument has a value that cannot work; the message names it, what it was, and what is allowed."""


def unknown(what: str, name: object, allowed: Collection[str], synonyms: Mapping[str, str] | None = None) -> ArgumentError:
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
        raise unknown(argument, name, options, synonyms) from None


def check_keys(argument: str, given: Collection[str], allowed: Collection[str]) -> None:
    """
    :param argument: the name of the argument that holds the keys, for the message
    :param given: the keys the user gave
    :param allowed: the keys that exist
    :raises ArgumentError: if a key does not exist
    """
    for key in given:
        if key not in allowed:
            raise unknown(f"a key of {argument}", key, allowed)


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
        bounds = "" if low == -math.inf and high == math.inf else f" in [{low:g}, {high:g}]"
        raise ArgumentError(f"{argument}={value!r} must be {kind}{bounds}.")


def check_type(argument: str, value: Any, kind: Any, called: str) -> None:
    """
    :param argument: the argument's name, for the message
    :param value: what the user gave
    :param kind: the type it must have, or a union of types
    :param called: that type in words, e.g. ``"a mapping of arguments"``
    :raises ArgumentError: if it has another
    """
    if not isinstance(value, kind):
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


def named_class(argument: str, value: type[T] | str, options: Mapping[str, type[T]]) -> type[T]:
    """
    The class that a string names, so that YAML can hold plain data.

    :param argument: the argument's name, for the message
    :param value: a class, a name among ``options``, or the dotted name of a class
    :param options: the classes that have a short name
    :raises ArgumentError: if there is no such class
    """
    if isinstance(value, type):
        return value
    module, _, name = str(value).rpartition(".")
    if not module:
        return choose(argument, value, options)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ArgumentError(f"{argument}={value!r} cannot be imported: {error}") from error
    if not isinstance(found, type):
        raise ArgumentError(f"{argument}={value!r} is not a class.")
    return found
