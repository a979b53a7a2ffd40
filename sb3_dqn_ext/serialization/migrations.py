"""What files of earlier schemas name otherwise."""

__all__ = ["current_class_name"]

_POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MultiHeadPolicy")
_SCHEDULES = (
    *("ConstantSchedule", "ExponentialSchedule", "LinearSchedule", "MultiplicativeSchedule"),
    *("PerAction", "PiecewiseSchedule", "ProgressSchedule"),
)
MOVED_CLASSES = {
    **{f"sb3_dqn_ext.policies.{name}": f"sb3_dqn_ext.networks.policies.{name}" for name in _POLICIES},
    **{f"sb3_dqn_ext.schedules.{name}": f"sb3_dqn_ext.algorithm.schedules.{name}" for name in _SCHEDULES},
}
"""dotted names of classes in files of schema 1, and where the classes are now"""


def current_class_name(name: str) -> str:
    """
    Find a class that an earlier version of this library had in another module.

    :param name: the dotted name in a file
    :return: the dotted name of the class now
    """
    return MOVED_CLASSES.get(name, name)
