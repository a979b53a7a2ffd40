"""
What files of earlier schemas name otherwise: the one table of renames, which is applied to their JSON when they are read.

Models, checkpoints and ``run.json`` are written with the same schema version.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["SCHEMA", "Renames", "is_known", "migrate", "unknown_schema"]

SCHEMA = 3
"""version of what is written; it is raised when an earlier version of this library would misread that"""


class Renames(NamedTuple):
    """What the next schema names otherwise."""

    classes: Mapping[str, str] = {}
    """dotted names of classes and functions: the old one, and the new one"""
    names: Mapping[str, Mapping[str, str]] = {}
    """
    Keys of dictionaries: the name of the dictionary, and for each old key the new one. The name of a dictionary is the key
    under which it stands, such as ``exploration_kwargs``. Under ``attributes``, it is the new dotted name of the class of an
    object or a callback, or else the key above. All of a file is called ``model``, ``checkpoint`` or ``run``.
    """
    values: Mapping[str, Mapping[str, str]] = {}
    """texts: the new key under which they stand, and for each old text the new one, such as ``{"sampler": {"rows": ...}}``"""


_POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MultiHeadPolicy")
_SCHEDULES = (
    *("ConstantSchedule", "ExponentialSchedule", "LinearSchedule", "MultiplicativeSchedule"),
    *("PiecewiseSchedule", "ProgressSchedule"),
)
MIGRATIONS: dict[int, Renames] = {
    1: Renames(
        classes={
            **{f"sb3_dqn_ext.policies.{name}": f"sb3_dqn_ext.networks.policies.{name}" for name in _POLICIES},
            **{f"sb3_dqn_ext.schedules.{name}": f"sb3_dqn_ext.algorithm.schedules.{name}" for name in _SCHEDULES},
            "sb3_dqn_ext.schedules.PerAction": "sb3_dqn_ext.algorithm.schedules.PerActionSchedule",
        }
    ),
    2: Renames(
        classes={"sb3_dqn_ext.algorithm.schedules.PerAction": "sb3_dqn_ext.algorithm.schedules.PerActionSchedule"},
        names={
            "exploration_kwargs": {"coin": "epsilon_draw"},
            "training": {"_exploration_memory": "_exploration_state"},
        },
    ),
}
"""for each earlier schema, what changed in the next"""


def is_known(schema: object) -> bool:
    """Whether files of a schema version are read."""
    return type(schema) is int and 1 <= schema <= SCHEMA


def unknown_schema(schema: object) -> str:
    """The part of an error that names a version that is not read."""
    return f"the schema version {schema!r}, and this version of sb3_dqn_ext reads 1 to {SCHEMA} only"


def migrate(json_tree: Any, name: str, schema: int) -> None:
    """
    Rename in place what a file of an earlier schema names otherwise.

    :param json_tree: what is in the file, as lists and dictionaries
    :param name: the name of all of it: ``model``, ``checkpoint`` or ``run``
    :param schema: the schema version of the file
    """
    for earlier in range(schema, SCHEMA):
        _rename(json_tree, name, MIGRATIONS[earlier])


# keys under which a dictionary has the name of what it is in: markers, and the attributes of something
_TRANSPARENT = {"dict", "ordered", "tuple", "attributes"}


def _rename(json_tree: Any, name: str, renames: Renames) -> None:
    """Go through a tree without recursion: a file may nest it as deep as the parser takes it."""
    left = [(json_tree, name)]
    while left:
        node, holder = left.pop()
        if type(node) is list:
            for i, item in enumerate(node):
                node[i] = _renamed_text(item, holder, renames)
                left.append((item, holder))
        elif type(node) is dict:
            holder = _class_of(node, renames) or holder
            keys = renames.names.get(holder, {})
            items = list(node.items())
            node.clear()
            for key, item in items:
                new_key = keys.get(key, renames.classes.get(key, key))
                node[new_key] = _renamed_text(item, new_key, renames)
                left.append((item, holder if key in _TRANSPARENT else new_key))


def _class_of(node: dict[str, Any], renames: Renames) -> str | None:
    """The new dotted name of the class whose attributes a dictionary holds, if it does."""
    name = node.get("class")
    return renames.classes.get(name, name) if type(name) is str and "attributes" in node else None


def _renamed_text(value: Any, key: str, renames: Renames) -> Any:
    if type(value) is not str:
        return value
    return renames.values.get(key, {}).get(value, renames.classes.get(value, value))
