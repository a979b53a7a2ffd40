"""The import of Box2D, on which LunarLander depends."""

import importlib
import warnings


def import_box2d() -> None:
    """
    Import Box2D before a test turns warnings into errors.

    Its compiled part warns at its first import, and crashes the process if that warning is an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("Box2D")
