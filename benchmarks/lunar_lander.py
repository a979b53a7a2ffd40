"""What LunarLander needs in a benchmark."""

import importlib
import warnings


def import_box2d() -> None:
    """Import Box2D, whose wrapper warns about itself at its first import, before an environment does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("Box2D")
