"""The classes that the file of a model may name: those of a list, and the user's own that are imported already."""

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
import sb3_dqn_ext.networks.policies
import sb3_dqn_ext.replay
from sb3_dqn_ext.serialization.names import import_name
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
"""where a value stands: the name of the attribute, then the keys and indices in it"""


@dataclass(frozen=True)
class SimpleLinearSchedule:
    """
    The schedule that the RL Zoo makes of ``lin_0.001``, by the same formula. A model that is loaded has this one in the place
    of the zoo's, for to import ``rl_zoo3`` changes gymnasium.

    :param initial_value: value at the start of the run; it falls to 0
    """

    initial_value: float

    def __call__(self, progress_remaining: float) -> float:
        """:param progress_remaining: 1 at the start of the run, 0 at its end"""
        return progress_remaining * self.initial_value


def _named(module: ModuleType, names: Iterable[str]) -> dict[str, Any]:
    return {f"{module.__name__}.{name}": getattr(module, name) for name in names}


def _optimizers() -> list[str]:
    return [name for name, kind in vars(th.optim).items() if isinstance(kind, type) and issubclass(kind, th.optim.Optimizer)]


ALLOWED_CLASSES: dict[str, type] = {
    **_named(th.nn, activation.__all__),
    **_named(th.optim, _optimizers()),
    **_named(stable_baselines3.dqn.policies, ["DQNPolicy", "CnnPolicy", "MultiInputPolicy"]),
    **_named(sb3_dqn_ext.networks.policies, ["MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MultiHeadPolicy"]),
    **_named(stable_baselines3.common.torch_layers, ["FlattenExtractor", "NatureCNN", "CombinedExtractor"]),
    **_named(stable_baselines3.common.buffers, ["ReplayBuffer", "DictReplayBuffer", "NStepReplayBuffer"]),
    **_named(stable_baselines3.her.her_replay_buffer, ["HerReplayBuffer"]),
    **_named(sb3_dqn_ext.replay, ["DQNReplayBuffer"]),
}
"""classes that a file may name"""
RECONSTRUCTIBLE: dict[str, type] = {
    **_named(stable_baselines3.common.utils, ["ConstantSchedule", "FloatSchedule", "LinearSchedule"]),
    **_named(
        sb3_dqn_ext.algorithm.schedules,
        ["ConstantSchedule", "ExponentialSchedule", "LinearSchedule", "MultiplicativeSchedule"],
    ),
    **_named(sb3_dqn_ext.algorithm.schedules, ["PerAction", "PiecewiseSchedule", "ProgressSchedule"]),
    "rl_zoo3.utils.SimpleLinearSchedule": SimpleLinearSchedule,
}
"""classes of which a file may hold objects; their attributes are the arguments that make another"""
_NAMES = {kind: name for name, kind in (ALLOWED_CLASSES | RECONSTRUCTIBLE).items()}
_OWN: dict[Place, type] = {
    ("policy_class",): BasePolicy,
    ("replay_buffer_class",): ReplayBuffer,
    ("policy_kwargs", "features_extractor_class"): BaseFeaturesExtractor,
}
"""the places at which a file may name a class of the user's that is imported already, and the base class that it must have"""
_GIVEN: ContextVar[Mapping[str, type]] = ContextVar("classes that the user's command names", default=MappingProxyType({}))


class NeedsTrustError(ValueError):
    """
    A file asks for what only the caller can give: trust, or the value itself.

    :param message: what it asks for
    :param trust_helps: whether ``trust=True`` gives it
    """

    def __init__(self, message: str, trust_helps: bool = True) -> None:
        super().__init__(message)
        self.trust_helps = trust_helps


def allow_classes(classes: Mapping[str, type]) -> Token[Mapping[str, type]]:
    """
    :param classes: classes that the user's own command names, by their dotted names; files may name them from now on
    :return: the token to undo it with
    """
    return _GIVEN.set({**_GIVEN.get(), **classes})


@contextlib.contextmanager
def classes_allowed(classes: Mapping[str, type]) -> Iterator[None]:
    """
    Let files name some classes more while this is entered.

    :param classes: see :func:`let_files_name`
    """
    token = allow_classes(classes)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def find_class(place: Place, name: str, known: Mapping[str, type]) -> type:
    """
    :param place: where the name stands
    :param name: the dotted name of a class, as a file has it
    :param known: classes that a file may name there
    :return: the class; nothing is imported for it, and no code of any module or class runs
    :raises AskedFor: if it is not among these, not given by the user's command, and not a class that is imported already and
        has the base class of that place
    """
    if name in known:
        return known[name]
    if name in _GIVEN.get():
        return _GIVEN.get()[name]
    if place not in _OWN:
        raise NeedsTrustError(f"names {name}, which is imported only from files that are trusted")
    module_name, _, own_name = name.rpartition(".")
    if module_name and module_name not in sys.modules:
        raise NeedsTrustError(f"names {name}, which is known once {module_name} is imported")
    base, module = _OWN[place], sys.modules.get(module_name)
    # a module of a type of its own may import others when it is looked into
    kind: Any = vars(module).get(own_name) if type(module) is ModuleType else None
    if kind is None and module_name == "__main__":
        raise NeedsTrustError(f"names {name}, which your script must define or import as {own_name}", trust_helps=False)
    # neither isinstance() nor issubclass() nor `in`: a metaclass or a property may have its own idea of them
    if not (issubclass(type(kind), type) and any(parent is base for parent in _mro_of(kind))):
        raise NeedsTrustError(f"names {name}, which is imported only from files that are trusted: it is no {base.__name__}")
    own: type = kind
    return own


_mro_of: Callable[[Any], tuple[type, ...]] = type.__dict__["__mro__"].__get__


def importable_name(value: Any) -> str:
    """
    :param value: a class or function
    :return: the name by which it is found again
    :raises NotSerializableError: if no module has it by its name
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
    :param name: the dotted name of a class or function, in a file that is trusted
    :return: what has that name
    :raises AskedFor: if there is no such thing here
    """
    try:
        return import_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise NeedsTrustError(f"names {name}, which cannot be imported here", trust_helps=False) from error
