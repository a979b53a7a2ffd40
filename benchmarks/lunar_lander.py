"""A function that benchmarks with LunarLander need."""

import importlib
import warnings


def import_box2d() -> None:
    """Import Box2D before an environment does, without the warnings of its first import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("Box2D")
