"""Find and build the choices of a user, and raise errors that name what is allowed and what was probably meant."""

import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Generic, TypeVar, cast

import numpy as np

from sb3_dqn_ext._other_names import EQUIVALENT_CODE
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.serialization.names import import_name, qualified_name

__all__ = [
    "OpenChoice",
    "check_keys",
    "check_number",
    "check_type",
    "check_verbose",
    "choose",
    "equivalent_code",
    "import_dotted",
    "is_dotted",
    "no_argument_error",
    "number_hint",
    "parameters_of",
    "resolve_class",
    "unknown_key_error",
    "unknown_name_error",
]

T = TypeVar("T")


def unknown_name_error(
    what: str, name: object, allowed: Collection[str], synonyms: Mapping[str, str] | None = None, otherwise: str = ""
) -> ArgumentError:
    """
    Make the error for a name that does not exist.

    :param what: the name of the argument, e.g. ``"target_policy"``
    :param name: the name as the user wrote it
    :param allowed: the names that exist; the message does not list those that begin with an underscore
    :param synonyms: other word of the field, in lower case -> the name that exists, e.g. ``{"ddqn": "double"}``
    :param otherwise: a sentence for the message if no name is close
    :return: the error, which suggests the closest name if one is close
    """
    return ArgumentError(f"{what}={name!r} is not known; it can be {_one_of(name, allowed, synonyms, otherwise)}")


def _one_of(name: object, allowed: Collection[str], synonyms: Mapping[str, str] | None = None, otherwise: str = "") -> str:
    """Return the end of a message: the names that exist, and the one that was probably meant."""
    words = {other.lower(): other for other in allowed} | dict(synonyms or {})
    word = str(name).lower()
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    meant = words[close[0]] if close else None
    hint = f" Did you mean {meant!r}?" if meant else f" {otherwise}".rstrip()
    public = ", ".join(sorted(other for other in allowed if not other.startswith("_")))
    return f"one of: {public}.{hint}"


def choose(
    argument: str, name: str, options: Mapping[str, T], synonyms: Mapping[str, str] | None = None, otherwise: str = ""
) -> T:
    """
    Return the option that has a name.

    :param argument: the argument's name, for the message
    :param name: the value the user gave
    :param options: the options by their names
    :param synonyms: see :func:`unknown_name_error`
    :param otherwise: see :func:`unknown_name_error`
    :return: ``options[name]``
    :raises ArgumentError: if there is no such name
    """
    try:
        return options[name]
    except (KeyError, TypeError):
        raise unknown_name_error(argument, name, options, synonyms, otherwise) from None


def unknown_key_error(argument: str, key: object, allowed: Collection[str]) -> ArgumentError:
    """
    Make the error for an argument that does not exist, or that exists at another level.

    :param argument: the argument that holds the keys, e.g. ``"policy_kwargs"``
    :param key: the key that the user gave
    :param allowed: the keys that exist there
    :return: the error, with the code for :class:`~sb3_dqn_ext.DQNExt` if the key is the name of an argument in another library
    """
    code = equivalent_code(argument, key, allowed)
    if code is None:
        return no_argument_error(argument, key, allowed)
    return ArgumentError(f"{argument} has no argument {key!r}; in DQNExt it is written {code}.")


def no_argument_error(argument: str, key: object, allowed: Collection[str]) -> ArgumentError:
    """
    Make the error for an argument that does not exist, where names of other libraries are not expected.

    :param argument: the argument that holds the keys
    :param key: the key that the user gave
    :param allowed: the keys that exist there
    :return: the error, which suggests the closest name if one is close
    """
    others = f"it can be {_one_of(key, allowed)}" if allowed else "it takes none."
    return ArgumentError(f"{argument} has no argument {key!r}; {others}")


def equivalent_code(argument: str, key: object, allowed: Collection[str]) -> str | None:
    """
    Find the code for DQNExt with the meaning of a name in another library.

    :param argument: the argument that holds the keys
    :param key: a key that does not exist there
    :param allowed: the keys that exist there
    :return: the code; None if there is none, or if the key is another spelling of a key that exists
    """
    place, normalized = argument.split()[0], _normalize_name(key)
    codes = [code for code in _CODE_BY_NAME.get(normalized, ()) if not code.startswith(f"{place}={{'{key}'")]
    if not codes or normalized in map(_normalize_name, allowed):
        return None
    # the meaning of a name can depend on the place; max() returns the first of equals
    return max(codes, key=lambda code: re.search(rf"\b{re.escape(place)}\b", code) is not None)


def _normalize_name(key: object) -> str:
    """Return a name in a spelling that is the same for all libraries: ``n_steps`` for ``use_Num-Steps``."""
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
_CODE_BY_NAME: dict[str, list[str]] = {}
for _code, _names in EQUIVALENT_CODE:
    for _name in _names.split():
        _CODE_BY_NAME.setdefault(_normalize_name(_name), []).append(_code)


def check_keys(argument: str, given: Collection[str], allowed: Collection[str]) -> None:
    """
    Check that all keys exist.

    :param argument: the argument that holds the keys, for the message
    :param given: the keys that the user gave
    :param allowed: the keys that exist
    :raises ArgumentError: if a key does not exist
    """
    for key in given:
        if key not in allowed:
            raise unknown_key_error(argument, key, allowed)


def check_number(argument: str, value: Any, low: float = -math.inf, high: float = math.inf, integer: bool = False) -> None:
    """
    Check that a value is a number within bounds.

    :param argument: the name of the argument, for the message
    :param value: the value that the user gave
    :param low: the smallest allowed value
    :param high: the largest allowed value
    :param integer: whether it must be a whole number
    :raises ArgumentError: if ``value`` is not a finite number (a whole one) in ``[low, high]``
    """
    is_number = isinstance(value, Integral if integer else Real) and not isinstance(value, bool)
    good = is_number and math.isfinite(value) and low <= value <= high
    if not good:
        kind = "a whole number" if integer else "a finite number"
        bounds = "" if low == -math.inf and high == math.inf else f" in [{_digits(low)}, {_digits(high)}]"
        raise ArgumentError(f"{argument}={value!r} must be {kind}{bounds}.{number_hint(value, low, high, integer)}")


def _digits(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def number_hint(value: Any, low: float = -math.inf, high: float = math.inf, integer: bool = False) -> str:
    """
    Return a sentence for an error message: the number that the user should write. It is empty if the value looks like no
    number between the limits.

    YAML reads ``1e-3`` as a string, and ``1.0e+5`` as a float.

    :param value: a value that is not an allowed number
    :param low: the smallest allowed value
    :param high: the largest allowed value
    :param integer: whether it must be a whole number
    :return: a sentence such as ``" It is a string; write 0.001."``, or an empty string
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
    Check the argument ``verbose``. SB3 documents numbers, and also accepts True and False.

    :param value: the value that the user gave
    :raises ArgumentError: if it is neither a whole number from 0 on nor a bool
    """
    if not isinstance(value, bool | np.bool_):
        check_number("verbose", value, low=0, integer=True)


def check_type(argument: str, value: Any, kind: Any, called: str) -> None:
    """
    Check the type of a value.

    :param argument: the name of the argument, for the message
    :param value: the value that the user gave
    :param kind: the type that it must have, or a union of types
    :param called: a description of that type, e.g. ``"a mapping of arguments"``
    :raises ArgumentError: if it has another type
    """
    if not isinstance(value, kind) and not (kind is bool and isinstance(value, np.bool_)):
        raise ArgumentError(f"{argument}={value!r} must be {called}.")


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """
    Return the parameters of a function, or of the constructor of a class.

    :param function: a function, with all its parameters; or a class, without ``self``, ``*args`` and ``**kwargs``. If its
        ``__init__`` takes ``**kwargs``, the parameters of the next base class with an ``__init__`` are included
    :return: name -> parameter
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


@dataclass(frozen=True)
class OpenChoice(Generic[T]):
    """
    An argument that takes a name, a class, an object, or the dotted name of a class or object.

    :param argument: the name of the argument, for messages; the arguments of a class are given as ``{argument}_kwargs``
    :param base_class: the base class that a user's class derives from. Its docstring describes the methods and the shapes
    :param required: the methods and attributes that have no default in the base class
    :param options: name -> a class or an object
    :param synonyms: see :func:`unknown_name_error`
    """

    argument: str
    base_class: type[T]
    required: tuple[str, ...]
    options: Mapping[str, Callable[..., Any]]
    synonyms: Mapping[str, str] | None = None

    def find(self, value: object) -> Any:
        """
        Find the class or the object that a user's value means.

        A name is looked up in ``options``. A dotted name is imported. A class or an object is returned as it is. A class or an
        object from outside ``options`` must have the methods of the base class.

        :param value: a name, a dotted name, a class or an object
        :return: the class or the object
        :raises ArgumentError: if no class or object has this name, or the class or object lacks a method of the base class
        """
        if isinstance(value, str):
            if not is_dotted(value):
                return choose(self.argument, value, self.options, self.synonyms, self._own())
            found = import_dotted(self.argument, value)
        else:
            found = value
        self._check(found, value)
        return found

    def _own(self) -> str:
        kind = self.base_class.__name__
        return f"Your own {kind} is given as a class, an object, or a dotted name such as 'my_package.My{kind}'."

    def _check(self, found: object, value: object) -> None:
        lacking = self._lacking(found)
        if lacking:
            names = ", ".join(sorted(name for name in self.options if not name.startswith("_")))
            members = " and no ".join(lacking[:4])
            raise ArgumentError(
                f"{self.argument}={value!r} is no {self.base_class.__name__}: it has no {members}. Derive "
                f"it from {qualified_name(self.base_class)}, whose docstring describes the methods, or take one of: {names}."
            )

    def _lacking(self, found: object) -> list[str]:
        """
        List the methods and attributes that a user's class or object lacks.

        They are the required ones that it does not define. If it defines all of these without being derived from the base
        class, they are all public members of the base class that it does not have.
        """
        kind, base_class = found if isinstance(found, type) else type(found), self.base_class
        lacking = [name for name in self.required if _member(kind, name) is None or _is_inherited(kind, base_class, name)]
        if not isinstance(found, type):
            lacking = [name for name in lacking if _member(base_class, name) or not hasattr(found, name)]
        else:  # its constructor may set the attributes that the base class only declares
            lacking = [name for name in lacking if _member(base_class, name)]
        if lacking or issubclass(kind, base_class):
            return lacking
        members = dict.fromkeys(name for base in base_class.__mro__ for name in vars(base) if not name.startswith("_"))
        return [name for name in members if not hasattr(found, name)]

    def build(
        self, value: object, kwargs: Mapping[str, Any] | None = None, given: Mapping[str, Any] | None = None, place: str = ""
    ) -> T:
        """
        Build the object that a user's value means.

        :param value: a name, a dotted name, a class or an object
        :param kwargs: the arguments of the class, as the user gave them; None if there is no way to give any
        :param given: the first arguments of the constructor by their names, which the caller gives and a user cannot
        :param place: the name of ``kwargs``, for messages; ``{argument}_kwargs`` by default
        :return: the object; one that the user gave is returned as it is
        :raises ArgumentError: if no class or object has this name, the class has no such argument or misses one, an object is
            given with arguments, or the class or object lacks a method of the base class
        """
        given, place, found = given or {}, place or f"{self.argument}_kwargs", self.find(value)
        if not isinstance(found, type):
            if kwargs:
                raise ArgumentError(
                    f"{place}={dict(kwargs)!r} has no effect on {self.argument}={value!r}, an object that is already built: "
                    "give the class with its arguments, or the object alone."
                )
            return cast(T, found)
        parameters = parameters_of(found)
        own = {
            name: one
            for i, (name, one) in enumerate(parameters.items())
            if name not in given and (i >= len(given) or one.kind is one.KEYWORD_ONLY)
        }
        check_keys(place, kwargs or {}, own)
        missing = ", ".join(name for name, one in own.items() if one.default is one.empty and name not in (kwargs or {}))
        if missing and kwargs is None:
            raise ArgumentError(f"{self.argument}={value!r} cannot be built without its arguments {missing}: give an object.")
        if missing:
            raise ArgumentError(f"{place} misses: {missing}.")
        try:
            inspect.signature(found).bind(*given.values(), **(kwargs or {}))
        except TypeError as error:
            needs = f", called with {', '.join(given)} by position" if given else ""
            raise ArgumentError(f"{self.argument}={value!r} has a constructor that does not fit{needs}: {error}.") from error
        built: T = found(*given.values(), **(kwargs or {}))
        self._check(built, value)
        return built


def _member(kind: type, name: str) -> Any:
    """Return a member of a class itself: ``getattr`` would find the ``__call__`` by which the class is called, too."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _is_inherited(kind: type, base_class: type, name: str) -> bool:
    return _member(kind, name) is _member(base_class, name)


def is_dotted(value: object) -> bool:
    """
    Check whether a value is a dotted name, such as ``"my_package.MyPolicy"``.

    :param value: a value that a user gave
    """
    return isinstance(value, str) and "." in value.strip(".")


def import_dotted(argument: str, name: str) -> Any:
    """
    Import a class, a function or an object by its dotted name.

    :param argument: the name of the argument, for the message
    :param name: the dotted name
    :return: the class, function or object
    :raises ArgumentError: if it cannot be imported, whatever error the user's module raises
    """
    try:
        return import_name(name)
    except Exception as error:
        module, _, own = name.rpartition(".")
        others = [other for other in vars(sys.modules.get(module, object)) if not other.startswith("_")]
        close = difflib.get_close_matches(own, others, n=1)
        hint = f". Did you mean '{module}.{close[0]}'?" if close else ""
        reason = str(error) if isinstance(error, ImportError | AttributeError) else repr(error)
        raise ArgumentError(f"{argument}={name!r} cannot be imported: {reason}{hint}") from error


def resolve_class(argument: str, value: type[T] | str, options: Mapping[str, type[T]]) -> type[T]:
    """
    Return the class that a string names, so that YAML files can contain classes.

    :param argument: the argument's name, for the message
    :param value: a class, a name among ``options``, or the dotted name of a class
    :param options: the classes that have a short name
    :raises ArgumentError: if there is no such class
    """
    if isinstance(value, type):
        return value
    if not is_dotted(value):
        return choose(argument, value, options)
    found = import_dotted(argument, value)
    if not isinstance(found, type):
        raise ArgumentError(f"{argument}={value!r} is not a class.")
    return found
