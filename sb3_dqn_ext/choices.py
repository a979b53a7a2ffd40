"""What the choices of a model by name are built into: its target policy and its exploration."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from sb3_dqn_ext._missing import MissingAttribute
from sb3_dqn_ext._validation import build
from sb3_dqn_ext.algorithm.exploration import Exploration, make_exploration, make_exploration_schedule
from sb3_dqn_ext.algorithm.schedules import Schedule
from sb3_dqn_ext.algorithm.target_policies import SYNONYMS, TARGET_POLICIES, TargetPolicy

__all__ = ["Choices", "build_choices", "warm_up_steps"]


class HasChoices(Protocol):
    """The attributes of a model that name its choices. A user may change them between two runs."""

    target_policy: str
    target_policy_kwargs: Mapping[str, Any]
    exploration: str
    exploration_kwargs: Mapping[str, Any]
    learning_starts: int
    n_envs: int


class Choices(NamedTuple):
    """What was built."""

    source: tuple[Any, ...]
    """the names and arguments of which it was built"""
    target_policy: TargetPolicy
    exploration: Exploration
    exploration_schedule: Schedule | None
    """how the exploration's rate changes, None if SB3's arguments define it"""


def warm_up_steps(model: HasChoices) -> int:
    """
    :param model: a DQNExt
    :return: the number of environment steps with random actions before those that exploration chooses
    """
    return model.learning_starts if model.exploration_kwargs.get("warm_up", True) else 0


def build_choices(model: HasChoices, before: Choices | None) -> Choices:
    """
    Build the choices of a model, when it is made, and at the start of a run if its user has chosen otherwise.

    :param model: a DQNExt
    :param before: what was built for it before; the same object is returned if it is up to date
    :return: what was built
    :raises ArgumentError: if there is no such choice, or it has no such arguments
    """
    source = (model.target_policy, {**model.target_policy_kwargs}, model.exploration, {**model.exploration_kwargs})
    if before is not None and source == before.source:
        return before
    target_policy = build("target_policy", model.target_policy, TARGET_POLICIES, model.target_policy_kwargs, SYNONYMS)
    if before is not None and target_policy == before.target_policy:
        target_policy = before.target_policy  # an updater recognizes its own by identity
    exploration = make_exploration(model.exploration, model.exploration_kwargs)
    schedule = model.exploration_kwargs.get(exploration.schedule_key)
    if not isinstance(schedule, MissingAttribute):
        schedule = make_exploration_schedule(exploration, model.exploration_kwargs, warm_up_steps(model), model.n_envs)
    return Choices(source, target_policy, exploration, schedule)
