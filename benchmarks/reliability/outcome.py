"""The outcome of an injected fault."""

from dataclasses import dataclass, fields
from typing import NamedTuple, TypedDict

from sb3_dqn_ext.sweep import Row


@dataclass(frozen=True)
class Outcome:
    """The outcome of an injected fault. A criterion that does not apply is None."""

    details: str = ""
    """A more precise description of the fault."""
    n_kills: int | None = None
    """The number of processes that were killed."""
    n_writing: int | None = None
    """The number of processes that were killed while they wrote a checkpoint."""
    clear: bool | None = None
    """Whether the run ended as it should, with a message that explains the reason."""
    resumed: bool | None = None
    """Whether a new process continued from the newest good checkpoint to the end of the run."""
    equal: bool | None = None
    """Whether the run ended with the same bits as a run without faults."""
    untouched: bool | None = None
    """Whether the files of the folder were the same before the fault and after it."""
    message: str = ""
    """The message that the user read."""

    def row(self, fault: str, number: int) -> Row:
        """
        Return the outcome as a row of reliability.csv.

        :param fault: the name of the fault
        :param number: the number of the trial
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"fault": fault, "number": str(number), **{name: _cell(value) for name, value in values.items()}}


def _cell(value: object) -> str:
    if value is None:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


class ResumptionFields(TypedDict):
    """The fields of an outcome that describe the continued run."""

    resumed: bool
    equal: bool
    message: str


class Resumption(NamedTuple):
    """The result of continuing a run in a new process."""

    resumed: bool
    """Whether the run continued from the expected step to its end."""
    equal: bool
    """Whether it ended with the same bits as a run without faults."""
    problems: str
    """Descriptions of everything that went wrong."""

    def after(self, message: str) -> ResumptionFields:
        """
        Return the fields of the outcome.

        :param message: the message that the user read before the run was continued
        """
        messages = "; then: ".join(part for part in (message, self.problems) if part)
        return {"resumed": self.resumed, "equal": self.equal, "message": messages}
