"""DQN for Stable-Baselines3 whose exploration, replay, targets, heads and return models are chosen by name."""

import os
from typing import TYPE_CHECKING, Any

from sb3_dqn_ext._version import __version__

# In a checkout, envs/ and zoo_configs/ are beside this package; in a wheel, they are inside it.
_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(_root, "pyproject.toml")):
    __path__.append(_root)

import sb3_dqn_ext.envs as envs  # noqa: E402  registers the environment ids
from sb3_dqn_ext.errors import ArgumentError  # noqa: E402

if TYPE_CHECKING:
    from sb3_dqn_ext.dqn_ext import DQNExt
else:

    def __getattr__(name: str) -> Any:
        """Import ``DQNExt`` at its first use: it takes torch with it, more than a second that the command line saves."""
        if name != "DQNExt":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from sb3_dqn_ext.dqn_ext import DQNExt

        return DQNExt

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = ["ArgumentError", "DQNExt", "__version__", "envs"]
