"""Stand-ins for attributes that the file of a loaded model did not contain, and that only training needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sb3_dqn_ext.errors import ArgumentError

__all__ = ["MissingAttribute", "check_complete", "custom_objects_hint", "learning_rate_was_set"]


@dataclass(frozen=True)
class MissingAttribute:
    """
    A stand-in for an attribute, or for an object that is built from it, until the user gives a value. Saving the model again
    writes the stored JSON of the attribute.

    :param name: the name of the attribute
    :param why: the reason why it was not loaded
    :param node: the stored JSON of the attribute
    :param trust_helps: whether ``trust=True`` would have loaded it
    """

    name: str
    why: str
    node: Any
    trust_helps: bool

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, progress_remaining: float) -> float:
        """
        Return 0 as the initial learning rate of an optimizer, whose state is loaded afterwards.

        :raises ArgumentError: for any other function
        """
        if self.name != "learning_rate":
            raise missing_attributes_error([self])
        return 0.0

    def value(self, step: int, total_steps: int) -> float:
        """
        Refuse to compute an exploration rate.

        :raises ArgumentError: always
        """
        raise missing_attributes_error([self])


def custom_objects_hint(names: Iterable[str]) -> str:
    """
    Return the argument of ``load`` that gives attributes, as a user would type it.

    :param names: the names of the attributes
    """
    return f"custom_objects={{{', '.join(f'{name!r}: ...' for name in names)}}}"


def missing_attributes_error(missing: Iterable[MissingAttribute]) -> ArgumentError:
    """
    Make the error for a training that needs attributes that were not loaded. Its message contains the ways to supply them.

    :param missing: the stand-ins that are still in the model
    """
    by_name = {one.name: one for one in missing}
    what = "; ".join(f"{name} {one.why}" for name, one in by_name.items())
    ways = [f"load the model with DQNExt.load(path, {custom_objects_hint(by_name)})"]
    if all(one.trust_helps for one in by_name.values()):
        ways.append("with trust=True if you trust its author")
    if by_name.keys() <= {"replay_buffer", "replay_buffer_class", "replay_buffer_kwargs"}:
        ways.append("give it a replay buffer by model.load_replay_buffer()")
    if set(by_name) == {"learning_rate"}:
        ways.append("set model.learning_rate")
    return ArgumentError(f"training needs what was not loaded: {what}. Before training, {', or '.join(ways)}.")


def learning_rate_was_set(model: Any) -> bool:
    """
    Check whether the user has set a learning rate in place of a missing one.

    :param model: a DQNExt
    """
    schedule = getattr(model.lr_schedule, "value_schedule", None)
    return isinstance(schedule, MissingAttribute) and not isinstance(model.learning_rate, MissingAttribute)


def check_complete(model: Any) -> None:
    """
    Check that a model has all attributes that training needs.

    :param model: a loaded DQNExt
    :raises ArgumentError: if an attribute was neither in the file nor set since
    """
    is_replaced = {
        "learning_rate": not isinstance(getattr(model.lr_schedule, "value_schedule", None), MissingAttribute),
        "replay_buffer_class": not isinstance(model.replay_buffer, MissingAttribute),
        "replay_buffer_kwargs": not isinstance(model.replay_buffer, MissingAttribute),
    }
    missing = [
        value
        for name, value in vars(model).items()
        if isinstance(value, MissingAttribute) and not is_replaced.get(name, False)
    ]
    if missing:
        raise missing_attributes_error(missing)
