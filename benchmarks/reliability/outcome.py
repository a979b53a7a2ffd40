"""What came of a fault."""

from dataclasses import dataclass, fields
from typing import NamedTuple, TypedDict

from benchmarks.rows import Row


@dataclass(frozen=True)
class Outcome:
    """What came of a fault; None is what was not asked."""

    how: str = ""
    """more on the fault"""
    kills: int | None = None
    """how many processes were killed"""
    writing: int | None = None
    """how many of them were in the middle of a write"""
    clear: bool | None = None
    """whether it ended as it should, and said why"""
    resumed: bool | None = None
    """whether the run went on from the newest checkpoint that is good, and came to its end"""
    equal: bool | None = None
    """whether it ended with the same bits as a run that nothing happened to"""
    untouched: bool | None = None
    """whether the files of the folder were the same before the fault and after"""
    message: str = ""
    """what the user was told"""

    def row(self, fault: str, number: int) -> Row:
        """
        :param fault: its name
        :param number: which one of its kind
        :return: all of it
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"fault": fault, "number": str(number), **{name: _written(value) for name, value in values.items()}}


def _written(value: object) -> str:
    if value is None:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


class ResumptionFields(TypedDict):
    """The part of an outcome that is about the run afterwards."""

    resumed: bool
    equal: bool
    message: str


class Resumption(NamedTuple):
    """What came of a run when a new process went on with it."""

    resumed: bool
    """whether it came to its end"""
    equal: bool
    """whether that was the right one"""
    problems: str

    def after(self, message: str) -> ResumptionFields:
        """
        :param message: what the user was told before
        :return: what becomes a part of the outcome
        """
        told = "; then: ".join(part for part in (message, self.problems) if part)
        return {"resumed": self.resumed, "equal": self.equal, "message": told}
