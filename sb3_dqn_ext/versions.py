"""The versions of the packages that a run uses."""

import platform

import gymnasium
import numpy as np
import stable_baselines3
import torch as th

from sb3_dqn_ext._version import __version__

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Return the versions of the libraries on which the numbers of a run depend, and of Python."""
    modules = {"stable_baselines3": stable_baselines3, "gymnasium": gymnasium, "numpy": np}
    found = {name: str(module.__version__) for name, module in modules.items()}
    return {"sb3_dqn_ext": __version__} | found | {"torch": str(th.__version__), "python": platform.python_version()}
