"""
Migrations of stored files: one table of renames, which is applied to the JSON of older files when they are read.

Models, checkpoints and ``run.json`` are written with the same schema version.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["SCHEMA", "Renames", "is_known", "migrate", "unknown_schema"]

SCHEMA = 3
"""The schema version that is written. It is raised when an earlier version of this library would misread the files."""


class Renames(NamedTuple):
    """The renames from one schema version to the next."""

    classes: Mapping[str, str] = {}
    """The dotted names of classes and functions: old name -> new name."""
    names: Mapping[str, Mapping[str, str]] = {}
    """
    The keys of dictionaries: name of the dictionary -> old key -> new key.

    The name of a dictionary is the key that holds it, such as ``exploration_kwargs``. For ``attributes``, it is the new dotted
    name of the class of the object or callback, or else the key that holds the object. The root of a file is called ``model``,
    ``checkpoint`` or ``run``.
    """
    values: Mapping[str, Mapping[str, Mapping[str, str]]] = {}
    """
    Text values: name of the dictionary -> new key that holds the text -> old text -> new text. The same key in another
    dictionary, such as the arguments of a user's wrapper, is not changed.
    """


_POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MultiHeadPolicy")
_SCHEDULES = (
    *("ConstantSchedule", "ExponentialSchedule", "LinearSchedule", "MultiplicativeSchedule"),
    *("PiecewiseSchedule", "ProgressSchedule"),
)
_SCHEDULE_MODULE = "sb3_dqn_ext.algorithm.schedules"
_DIAGNOSTICS = "sb3_dqn_ext.callbacks.diagnostics"
_REPLAY_WRAPPER = "sb3_dqn_ext.checkpoint.envs.replay_wrapper"
_DIAGNOSTIC = {"_log_at": "_measurement_due", "_due": "_observation_due"}
_DRAWING = {**_DIAGNOSTIC, "_waiting": "_pending"}
_LOG_OBSERVER = {"evaluated": "evaluation_returns", "trained": "training_returns"}
MIGRATIONS: dict[int, Renames] = {
    1: Renames(
        classes={
            **{f"sb3_dqn_ext.policies.{name}": f"sb3_dqn_ext.networks.policies.{name}" for name in _POLICIES},
            **{f"sb3_dqn_ext.schedules.{name}": f"{_SCHEDULE_MODULE}.{name}" for name in _SCHEDULES},
            "sb3_dqn_ext.schedules.PerAction": f"{_SCHEDULE_MODULE}.PerActionSchedule",
        }
    ),
    2: Renames(
        classes={
            f"{_SCHEDULE_MODULE}.PerAction": f"{_SCHEDULE_MODULE}.PerActionSchedule",
            f"{_DIAGNOSTICS}.together.DiagnosticsCallback": f"{_DIAGNOSTICS}.bundle.DiagnosticsCallback",
            "sb3_dqn_ext.checkpoint.envs.Resumable": f"{_REPLAY_WRAPPER}.ReplayWrapper",
            f"{_REPLAY_WRAPPER}.Resumable": f"{_REPLAY_WRAPPER}.ReplayWrapper",
            "sb3_dqn_ext.checkpoint.envs.resumable": f"{_REPLAY_WRAPPER}.add_replay_wrapper",
        },
        names={
            "model": {"_exploration_memory": "_exploration_state"},
            "exploration_kwargs": {"coin": "epsilon_draw"},
            "checkpoint": {"model": "model_description", "saved": "saved_rows"},
            "model_description": {"memory": "replay buffer"},
            "training": {"memory": "replay_buffer_state", "_exploration_memory": "_exploration_state"},
            "ReplayBuffer": {"state": "replay_buffer_state"},
            "replay_buffer_state": {
                "_open_steps": "open_steps",
                "_ended": "ended_episodes",
                "_last_observations": "final_observations",
                "of_episodes": "episode_returns",
                "newest": "newest_next_observations",
            },
            f"{_DIAGNOSTICS}.values.QValuesCallback": _DIAGNOSTIC,
            f"{_DIAGNOSTICS}.errors.TDErrorsCallback": _DIAGNOSTIC,
            f"{_DIAGNOSTICS}.network.NetworkHealthCallback": _DIAGNOSTIC,
            f"{_DIAGNOSTICS}.video.EpisodeVideoCallback": _DIAGNOSTIC,
            f"{_DIAGNOSTICS}.replay.ReplayHealthCallback": {**_DIAGNOSTIC, "_stop_watching": "_remove_hook"},
            f"{_DIAGNOSTICS}.exploration.ExplorationCallback": {
                **_DRAWING,
                "_n_rows_seen": "_n_rows_read",
                "_is_quiet": "_is_deterministic",
            },
            f"{_DIAGNOSTICS}.calibration.ValueCalibrationCallback": _DRAWING,
            "sb3_dqn_ext.callbacks.summary.SummaryCallback": _LOG_OBSERVER,
            "sb3_dqn_ext.callbacks.tensorboard.TensorBoardCallback": _LOG_OBSERVER,
        },
        values={"replay_buffer_kwargs": {"sampler": {"rows": "vector_steps"}}},
    ),
}
"""The renames from each earlier schema version to the next."""


def is_known(schema: object) -> bool:
    """Check whether files of a schema version can be read."""
    return type(schema) is int and 1 <= schema <= SCHEMA


def unknown_schema(schema: object) -> str:
    """Return the part of an error message that names an unsupported schema version."""
    return f"the schema version {schema!r}, and this version of sb3_dqn_ext reads 1 to {SCHEMA} only"


def migrate(json_tree: Any, name: str, schema: int) -> None:
    """
    Apply all renames to the content of an older file, in place.

    :param json_tree: the content, as lists and dictionaries
    :param name: the name of the root: ``model``, ``checkpoint`` or ``run``
    :param schema: the schema version of the file
    """
    for earlier in range(schema, SCHEMA):
        _rename(json_tree, name, MIGRATIONS[earlier])


# keys that do not name the dictionary they hold: markers, and the attributes of an object
_TRANSPARENT = {"dict", "ordered", "tuple", "attributes"}


def _rename(json_tree: Any, name: str, renames: Renames) -> None:
    """Apply renames to a tree without recursion, since files may be nested as deeply as the parser accepts."""
    left = [(json_tree, name)]
    while left:
        node, holder = left.pop()
        if type(node) is list:
            for i, item in enumerate(node):
                node[i] = _renamed_text(item, {}, renames)
                left.append((item, holder))
        elif type(node) is dict:
            holder = _class_of(node, renames) or holder
            keys, texts = renames.names.get(holder, {}), renames.values.get(holder, {})
            items = list(node.items())
            node.clear()
            for key, item in items:
                new_key = keys.get(key, renames.classes.get(key, key))
                node[new_key] = _renamed_text(item, texts.get(new_key, {}), renames)
                left.append((item, holder if key in _TRANSPARENT else new_key))


def _class_of(node: dict[str, Any], renames: Renames) -> str | None:
    """Return the new dotted name of the class whose attributes a dictionary holds, or None."""
    name = node.get("class")
    return renames.classes.get(name, name) if type(name) is str and "attributes" in node else None


def _renamed_text(value: Any, texts: Mapping[str, str], renames: Renames) -> Any:
    if type(value) is not str:
        return value
    return texts.get(value, renames.classes.get(value, value))
