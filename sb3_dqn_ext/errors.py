"""The errors that this library raises."""

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "EmptyReplayError",
    "EnvironmentDiedError",
    "ModelFileError",
    "NonFiniteError",
    "UnsupportedError",
]


class ArgumentError(ValueError):
    """An argument has a value that cannot work; the message names it, what it was, and what is allowed."""


class EmptyReplayError(ArgumentError):
    """A batch was to be drawn from a replay buffer in which nothing can be replayed yet."""

    def __init__(self) -> None:
        super().__init__(
            "there is nothing that could be replayed. With monte_carlo, no episode has ended that could be replayed (of all "
            "environments at once for sampler='vector_steps'): learning_starts must outlast an episode."
        )


class UnsupportedError(ArgumentError, AssertionError, NotImplementedError):
    """An error where SB3 itself raises an ``AssertionError`` or a ``NotImplementedError``, which projects catch."""


class NonFiniteError(ArithmeticError):
    """A number that is nan or infinite was about to enter the replay memory or the networks; the message says where from."""


class EnvironmentDiedError(RuntimeError):
    """The process of an environment has ended in the middle of a run; the message says which, and how."""


class CheckpointError(RuntimeError):
    """
    A checkpoint cannot be written, or cannot be trusted; the message names the file or the folder, and what is wrong.

    It is no :class:`ArgumentError`: the call was right and the disk is not, and what recovers from that
    must not hide wrong calls.
    """


class ModelFileError(CheckpointError, ValueError):
    """
    A saved model cannot be read, or not without trusting it; the message names the file, and what is wrong or what to give.

    It is a ``ValueError`` because SB3 raises one for a file that is no zip, and a ``CheckpointError`` so that one error stands
    for all files that this library reads. A file that is missing stays a ``FileNotFoundError``, as in SB3.
    """
