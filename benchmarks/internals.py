"""Access to attributes of this package that are not public and that benchmarks read."""

from sb3_dqn_ext import DQNExt


def random_number(model: DQNExt) -> float:
    """Draw a number from the generator of a model's exploration."""
    assert model._generator is not None
    return float(model._generator.random())
