"""Attributes of a loaded model that its file could not give, and that only training needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sb3_dqn_ext.errors import ArgumentError

__all__ = ["MissingAttribute", "check_complete", "custom_objects_hint", "learning_rate_was_set"]


@dataclass(frozen=True)
class MissingAttribute:
    """
    Stand-in for an attribute, or for what is built from it, until the user gives the real one. Saving the model again writes
    what the file said.

    :param name: the name of the attribute
    :param why: why the file could not give it
    :param node: the JSON of the attribute in the file
    :param trust_helps: whether ``trust=True`` would have given it
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
        Return 0 as the learning rate with which an optimizer is made, whose state is then loaded.

        :raises ArgumentError: as any other function
        """
        if self.name != "learning_rate":
            raise missing_attributes_error([self])
        return 0.0

    def value(self, step: int, total_steps: int) -> float:
        """:raises ArgumentError: always; an exploration rate cannot be invented"""
        raise missing_attributes_error([self])


def custom_objects_hint(names: Iterable[str]) -> str:
    """
    :param names: names of attributes
    :return: the argument of ``load`` that gives them, as a user types it
    """
    return f"custom_objects={{{', '.join(f'{name!r}: ...' for name in names)}}}"


def missing_attributes_error(missing: Iterable[MissingAttribute]) -> ArgumentError:
    """
    :param missing: stand-ins that are still in a model
    :return: the error that says what to give before training
    """
    by_name = {one.name: one for one in missing}
    what = "; ".join(f"{name} {one.why}" for name, one in by_name.items())
    ways = [f"load the model with DQNExt.load(path, {custom_objects_hint(by_name)})"]
    if all(one.trust_helps for one in by_name.values()):
        ways.append("with trust=True if you know who made the file")
    if by_name.keys() <= {"replay_buffer", "replay_buffer_class", "replay_buffer_kwargs"}:
        ways.append("give it a replay buffer by model.load_replay_buffer()")
    if set(by_name) == {"learning_rate"}:
        ways.append("set model.learning_rate")
    return ArgumentError(f"training needs what was not loaded: {what}. Before training, {', or '.join(ways)}.")


def learning_rate_was_set(model: Any) -> bool:
    """
    :param model: a DQNExt
    :return: whether the user has set a learning rate in the place of one that was missing
    """
    schedule = getattr(model.lr_schedule, "value_schedule", None)
    return isinstance(schedule, MissingAttribute) and not isinstance(model.learning_rate, MissingAttribute)


def check_complete(model: Any) -> None:
    """
    Check that a model has all that training needs.

    :param model: a DQNExt that was loaded
    :raises ArgumentError: if its file did not give something, nor the user since
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
