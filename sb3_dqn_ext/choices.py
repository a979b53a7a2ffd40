"""The target policy and the exploration of a model, and the places of all choices in its arguments."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from sb3_dqn_ext._missing import MissingAttribute
from sb3_dqn_ext._validation import OpenChoice
from sb3_dqn_ext.algorithm.auxiliary_losses import AUXILIARY_LOSS
from sb3_dqn_ext.algorithm.exploration import EXPLORATION, SCHEDULED, Exploration, make_exploration, make_exploration_schedule
from sb3_dqn_ext.algorithm.schedule_specs import SCHEDULE
from sb3_dqn_ext.algorithm.schedules import Schedule
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICY, TargetPolicy
from sb3_dqn_ext.algorithm.value_models import RETURNS
from sb3_dqn_ext.algorithm.value_models.expected import LOSS
from sb3_dqn_ext.networks.encoders import ENCODER
from sb3_dqn_ext.networks.heads import HEAD
from sb3_dqn_ext.networks.norms import NORM
from sb3_dqn_ext.replay.samplers import SAMPLER

__all__ = ["PLACES", "Choices", "build_choices", "find_choices", "warm_up_steps"]

PLACES: dict[tuple[str, ...], OpenChoice[Any]] = {
    ("target_policy",): TARGET_POLICY,
    ("exploration",): EXPLORATION,
    **{("exploration_kwargs", key): SCHEDULE for key in SCHEDULED},
    **{("exploration_kwargs", key, "name"): SCHEDULE for key in SCHEDULED},
    ("replay_buffer_kwargs", "sampler"): SAMPLER,
    ("policy_kwargs", "encoder"): ENCODER,
    ("policy_kwargs", "encoder_kwargs", "residual_norm"): NORM,
    ("policy_kwargs", "norm"): NORM,
    ("policy_kwargs", "head"): HEAD,
    ("policy_kwargs", "returns"): RETURNS,
    ("policy_kwargs", "loss"): LOSS,
    ("policy_kwargs", "auxiliary_loss"): AUXILIARY_LOSS,
}
"""the choices that a user's own class, object or dotted name can be given for, by the keys that lead to them"""


def find_choices(arguments: object) -> Iterator[tuple[tuple[str, ...], OpenChoice[Any], Any]]:
    """
    Find the choices among the arguments of a model.

    :param arguments: the arguments by their names
    :return: the keys that lead to each choice that is there, the choice, and its value
    """
    for place, choice in PLACES.items():
        value: Any = arguments
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping):
            yield place, choice, value


class HasChoices(Protocol):
    """The attributes of a model that define its choices. A user can change them between two runs."""

    target_policy: Any
    target_policy_kwargs: Mapping[str, Any]
    exploration: Any
    exploration_kwargs: Mapping[str, Any]
    learning_starts: int
    n_envs: int


class Choices(NamedTuple):
    """The objects that are built from a model's choices."""

    source: tuple[Any, ...]
    """The names and arguments from which they were built."""
    target_policy: TargetPolicy
    exploration: Exploration
    exploration_schedule: Schedule | None
    """The schedule of the exploration's rate; None: SB3's arguments define it."""


def warm_up_steps(model: HasChoices) -> int:
    """
    Return the number of environment steps with random actions before the exploration chooses them.

    :param model: a DQNExt
    :return: the number of environment steps
    """
    return model.learning_starts if model.exploration_kwargs.get("warm_up", True) else 0


def build_choices(model: HasChoices, before: Choices | None) -> Choices:
    """
    Build the target policy, the exploration and the schedule of a model from its arguments. This function is called for a new
    model and at the start of each run.

    An object whose arguments have not changed is kept with its state. Only the others are built again.

    :param model: a DQNExt
    :param before: the present objects of the model; None for a new model
    :return: the objects; ``before`` itself if no argument has changed
    :raises ArgumentError: if an argument names no choice, or a choice has no such argument
    """
    source = (model.target_policy, {**model.target_policy_kwargs}, model.exploration, {**model.exploration_kwargs})
    if before is not None and source == before.source:
        return before
    # unchanged choices keep their state, and an updater compares its target policy by identity
    if before is not None and source[:2] == before.source[:2]:
        target_policy = before.target_policy
    else:
        target_policy = TARGET_POLICY.build(model.target_policy, model.target_policy_kwargs)
        if before is not None and target_policy == before.target_policy:
            target_policy = before.target_policy
    if before is not None and source[2:] == before.source[2:]:
        exploration = before.exploration
    else:
        exploration = make_exploration(model.exploration, model.exploration_kwargs)
    schedule = model.exploration_kwargs.get(exploration.schedule_key)
    if not isinstance(schedule, MissingAttribute):
        schedule = make_exploration_schedule(exploration, model.exploration_kwargs, warm_up_steps(model), model.n_envs)
    return Choices(source, target_policy, exploration, schedule)
