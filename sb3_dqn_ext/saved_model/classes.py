"""The classes that the file of a model may name: a fixed list, and classes of the user that are already imported."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any

import stable_baselines3.common.buffers
import stable_baselines3.common.torch_layers
import stable_baselines3.common.utils
import stable_baselines3.dqn.policies
import stable_baselines3.her.her_replay_buffer
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch.nn.modules import activation

import sb3_dqn_ext.algorithm.schedules
import sb3_dqn_ext.demonstrations
import sb3_dqn_ext.networks.policies
import sb3_dqn_ext.replay
from sb3_dqn_ext.algorithm.auxiliary_losses import AUXILIARY_LOSSES
from sb3_dqn_ext.algorithm.exploration import EXPLORATIONS
from sb3_dqn_ext.algorithm.schedule_specs import SCHEDULES
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.algorithm.value_models.expected import LOSSES
from sb3_dqn_ext.networks.encoders import ENCODERS
from sb3_dqn_ext.networks.heads import HEADS
from sb3_dqn_ext.networks.norms import NORMS
from sb3_dqn_ext.replay.samplers import SAMPLERS
from sb3_dqn_ext.serialization.names import import_name, qualified_name
from sb3_dqn_ext.serialization.tree import NotSerializableError

__all__ = [
    "ALLOWED_CLASSES",
    "RECONSTRUCTIBLE",
    "NeedsTrustError",
    "Place",
    "SimpleLinearSchedule",
    "allow_classes",
    "classes_allowed",
    "find_class",
    "import_trusted",
    "importable_name",
]

Place = tuple[Any, ...]
"""The position of a value: the name of the attribute, then the keys and indices that lead to it."""


@dataclass(frozen=True)
class SimpleLinearSchedule:
    """
    A linear schedule with the formula of ``rl_zoo3.utils.SimpleLinearSchedule``, which the RL Zoo creates from ``lin_0.001``.

    A loaded model has this class in place of the zoo's, because importing ``rl_zoo3`` changes gymnasium's registry.

    :param initial_value: the value at the start of the run; it decreases to 0
    """

    initial_value: float

    def __call__(self, progress_remaining: float) -> float:
        """
        Return the current value.

        :param progress_remaining: 1 at the start of the run, 0 at its end
        """
        return progress_remaining * self.initial_value


def _by_dotted_name(module: ModuleType, names: Iterable[str]) -> dict[str, Any]:
    return {f"{module.__name__}.{name}": getattr(module, name) for name in names}


def _by_qualified_name(*registries: Mapping[str, Any]) -> dict[str, Any]:
    return {qualified_name(kind): kind for registry in registries for kind in registry.values()}


def _optimizer_names() -> list[str]:
    return [name for name, kind in vars(th.optim).items() if isinstance(kind, type) and issubclass(kind, th.optim.Optimizer)]


ALLOWED_CLASSES: dict[str, type] = {
    **_by_dotted_name(th.nn, activation.__all__),
    **_by_dotted_name(th.optim, _optimizer_names()),
    **_by_dotted_name(stable_baselines3.dqn.policies, ["DQNPolicy", "CnnPolicy", "MultiInputPolicy"]),
    **_by_dotted_name(sb3_dqn_ext.networks.policies, ["MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MultiHeadPolicy"]),
    **_by_dotted_name(stable_baselines3.common.torch_layers, ["FlattenExtractor", "NatureCNN", "CombinedExtractor"]),
    **_by_dotted_name(stable_baselines3.common.buffers, ["ReplayBuffer", "DictReplayBuffer", "NStepReplayBuffer"]),
    **_by_dotted_name(stable_baselines3.her.her_replay_buffer, ["HerReplayBuffer"]),
    **_by_dotted_name(sb3_dqn_ext.replay, ["DQNReplayBuffer"]),
    **_by_qualified_name(
        AUXILIARY_LOSSES, ENCODERS, EXPLORATIONS, HEADS, LOSSES, NORMS, RETURN_MODELS, SAMPLERS, SCHEDULES, TARGET_POLICIES
    ),
}
"""The classes, and the losses, which are functions, that a file may name, by dotted name."""
RECONSTRUCTIBLE: dict[str, type] = {
    **_by_dotted_name(stable_baselines3.common.utils, ["ConstantSchedule", "FloatSchedule", "LinearSchedule"]),
    **_by_dotted_name(
        sb3_dqn_ext.algorithm.schedules,
        ["ConstantSchedule", "ExponentialSchedule", "LinearSchedule", "MultiplicativeSchedule"],
    ),
    **_by_dotted_name(sb3_dqn_ext.algorithm.schedules, ["PerActionSchedule", "PiecewiseSchedule", "ProgressSchedule"]),
    **_by_dotted_name(sb3_dqn_ext.demonstrations, ["Transitions"]),
    **_by_qualified_name(AUXILIARY_LOSSES, EXPLORATIONS, TARGET_POLICIES),
    "rl_zoo3.utils.SimpleLinearSchedule": SimpleLinearSchedule,
}
"""The classes of objects that a file may hold. Their attributes are the arguments of their constructors."""
_NAMES = {kind: name for name, kind in (ALLOWED_CLASSES | RECONSTRUCTIBLE).items()}
_USER_CLASS_BASES: dict[Place, type] = {
    ("policy_class",): BasePolicy,
    ("replay_buffer_class",): ReplayBuffer,
    ("policy_kwargs", "features_extractor_class"): BaseFeaturesExtractor,
}
"""The positions at which a file may name a class of the user that is already imported, with the base class it has to have."""
_USER_CLASSES: ContextVar[Mapping[str, type]] = ContextVar(
    "classes that the command of the user names", default=MappingProxyType({})
)


class NeedsTrustError(ValueError):
    """
    An error for a file that needs something only the caller can give: trust, or the value itself.

    :param message: the end of a sentence that begins with the attribute
    :param trust_helps: whether ``trust=True`` is enough
    """

    def __init__(self, message: str, trust_helps: bool = True) -> None:
        super().__init__(message)
        self.trust_helps = trust_helps


def allow_classes(classes: Mapping[str, type]) -> Token[Mapping[str, type]]:
    """
    Allow files to name further classes from now on.

    :param classes: the classes that the user's own command names, by dotted name
    :return: the token that restores the previous state
    """
    return _USER_CLASSES.set({**_USER_CLASSES.get(), **classes})


@contextlib.contextmanager
def classes_allowed(classes: Mapping[str, type]) -> Iterator[None]:
    """
    Allow files to name further classes inside a ``with`` block.

    :param classes: see :func:`allow_classes`
    """
    token = allow_classes(classes)
    try:
        yield
    finally:
        _USER_CLASSES.reset(token)


def find_class(place: Place, name: str, allowed: Mapping[str, type]) -> type:
    """
    Find a class that a file names. Nothing is imported for it, and no code of a module or class runs.

    :param place: the position of the name in the file
    :param name: the dotted name of the class
    :param allowed: the classes that a file may name there
    :return: the class
    :raises NeedsTrustError: if the class is neither among these, nor named by the user's command, nor an imported class
        with the base class of that position
    """
    if name in allowed:
        return allowed[name]
    if name in _USER_CLASSES.get():
        return _USER_CLASSES.get()[name]
    if place not in _USER_CLASS_BASES:
        raise NeedsTrustError(f"names {name}, which is imported only from files that are trusted")
    module_name, _, own_name = name.rpartition(".")
    if module_name and module_name not in sys.modules:
        raise NeedsTrustError(f"names {name}, which is allowed once {module_name} is imported")
    base, module = _USER_CLASS_BASES[place], sys.modules.get(module_name)
    # reading an attribute of a module with a custom type may run code
    kind: Any = vars(module).get(own_name) if type(module) is ModuleType else None
    if kind is None and module_name == "__main__":
        raise NeedsTrustError(f"names {name}, which your script must define or import as {own_name}", trust_helps=False)
    # neither isinstance() nor issubclass() nor `in`: a metaclass or a property may override them
    if not (issubclass(type(kind), type) and any(parent is base for parent in _mro_of(kind))):
        raise NeedsTrustError(f"names {name}, which is imported only from files that are trusted: it is no {base.__name__}")
    own: type = kind
    return own


_mro_of: Callable[[Any], tuple[type, ...]] = type.__dict__["__mro__"].__get__


def importable_name(value: Any) -> str:
    """
    Return the dotted name by which a class or function can be imported.

    :param value: a class or function
    :raises NotSerializableError: if its module does not contain it under its name
    """
    if isinstance(value, type) and value in _NAMES:
        return _NAMES[value]
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        raise NotSerializableError(f"{type(value).__name__} {name or value!r}, which no module has by that name")
    return f"{module}.{name}"


def import_trusted(name: str) -> Any:
    """
    Import a class or function that a trusted file names.

    :param name: its dotted name
    :raises NeedsTrustError: if it does not exist here
    """
    try:
        return import_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise NeedsTrustError(f"names {name}, which cannot be imported here", trust_helps=False) from error
