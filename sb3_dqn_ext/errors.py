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
    """An error for an invalid argument. The message contains its name, its value, and the allowed values."""


class EmptyReplayError(ArgumentError):
    """An error for sampling from a replay buffer that contains no transition that can be replayed yet."""

    def __init__(self) -> None:
        super().__init__(
            "there is no transition that can be replayed. With monte_carlo, no complete episode is stored yet (of all "
            "environments at once for sampler='vector_steps'): learning_starts must outlast an episode."
        )


class UnsupportedError(ArgumentError, AssertionError, NotImplementedError):
    """An error where SB3 raises an ``AssertionError`` or a ``NotImplementedError``, which existing projects catch."""


class NonFiniteError(ArithmeticError):
    """
    An error for a NaN or an infinity before it enters the replay buffer or the networks. The message contains its origin.
    """


class EnvironmentDiedError(RuntimeError):
    """An error for an environment process that ended during a run. The message contains its index and its exit reason."""


class CheckpointError(RuntimeError):
    """
    An error for a checkpoint that cannot be written, or that is damaged. The message contains the file or folder, and the
    fault.

    It is not an :class:`ArgumentError`: the call was right and the disk is at fault. Code that handles a bad disk does not
    hide wrong calls this way.
    """


class ModelFileError(CheckpointError, ValueError):
    """
    An error for a saved model that cannot be read, or only with trust. The message contains the file, and the fault or the
    remedy.

    It is a ``ValueError``, which SB3 raises for a file that is not a zip, and a ``CheckpointError``, so that one error covers
    all files that this library reads. A missing file raises ``FileNotFoundError``, as in SB3.
    """
