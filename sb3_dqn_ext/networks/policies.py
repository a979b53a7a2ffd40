"""Policies of DQNExt: SB3's, with a choice of head, return model, loss and layers."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from sb3_dqn_ext._validation import check_keys, check_number, check_type, choose, named_class, parameters_of
from sb3_dqn_ext.algorithm.batches import each
from sb3_dqn_ext.algorithm.fitted_actions import FITS, Fit
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS, make_returns
from sb3_dqn_ext.algorithm.value_models.quantile import CosineEmbedding
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.networks.flat_storage import take_apart
from sb3_dqn_ext.networks.heads import HEADS, MultiHead
from sb3_dqn_ext.networks.hooks import NetworkSnapshot
from sb3_dqn_ext.networks.noisy import NoisyLinear
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.networks.q_network import QNetwork

__all__ = ["ACTIVATIONS", "EXTRACTORS", "OPTIMIZERS", "CnnPolicy", "MlpPolicy", "MultiHeadPolicy", "MultiInputPolicy"]

Array = npt.NDArray[Any]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}
OPTIMIZERS: dict[str, type[th.optim.Optimizer]] = {
    "adam": th.optim.Adam,
    "adamw": th.optim.AdamW,
    "rmsprop": th.optim.RMSprop,
    "sgd": th.optim.SGD,
}
EXTRACTORS: dict[str, type[BaseFeaturesExtractor]] = {
    "flatten": FlattenExtractor,
    "nature_cnn": NatureCNN,
    "combined": CombinedExtractor,
}
# layers that do the same in training and in evaluation; of another's it is not known
SAME_IN_EVERY_MODE: set[Any] = {
    *(nn.Linear, NoisyLinear, nn.Conv2d, nn.Flatten, nn.Identity, nn.LayerNorm),
    *(nn.Sequential, nn.ModuleList, nn.ModuleDict),
    *ACTIVATIONS.values(),
    *EXTRACTORS.values(),
    *HEADS.values(),
    *RETURN_MODELS.values(),
    *(QNetwork, CosineEmbedding),
}

SMALLEST_IMAGE = 36  # pixels, behind which NatureCNN's three convolutions leave one
DTYPES: dict[str, th.dtype] = {"float32": th.float32, "float64": th.float64}
DTYPE_SYNONYMS = {"float": "float32", "single": "float32", "double": "float64"}


def _fit(fitted_actions: str, returns: str) -> Fit:
    fit = choose("fitted_actions", fitted_actions, FITS)
    if fitted_actions != "taken" and returns != "expected":
        raise ArgumentError(f"fitted_actions={fitted_actions!r} needs returns='expected', not {returns!r}.")
    return fit


def _sigma0(noisy: bool, noisy_kwargs: Mapping[str, Any]) -> float | None:
    """How noisy the layers start, None where they are not."""
    if not noisy and noisy_kwargs:
        raise ArgumentError(f"noisy_kwargs={dict(noisy_kwargs)!r} has no effect beside noisy=False; leave one out.")
    check_keys("noisy_kwargs", noisy_kwargs, {"sigma0"})
    sigma0 = noisy_kwargs.get("sigma0", 0.5)
    check_number("sigma0", sigma0, low=0)
    return float(sigma0) if noisy else None


def _check_optimizer_per_head(head: str, fitted_actions: str, batch_norm: bool) -> None:
    """
    :raises ArgumentError: if there is a choice beside which each head cannot have an optimizer of its own
    """
    if head != "multi_head":
        raise ArgumentError(f"optimizer_per_head=True needs head='multi_head', not {head!r}.")
    if fitted_actions != "taken":
        raise ArgumentError(f"optimizer_per_head=True needs fitted_actions='taken', not {fitted_actions!r}.")
    if batch_norm:
        raise ArgumentError(
            "optimizer_per_head=True needs batch_norm=False: a batch may hold a single transition of an action."
        )


def _parameters_but(cls: type, *names: str) -> set[str]:
    return set(parameters_of(cls)) - set(names)


def _check_optimizer_kwargs(optimizer: type[th.optim.Optimizer], kwargs: Mapping[str, Any]) -> None:
    """
    :raises ArgumentError: if a value is not of the kind that the optimizer of torch has as its default: it takes any, and
        fails in the run
    """
    if not optimizer.__module__.startswith("torch.optim."):
        return
    defaults = {name: parameter.default for name, parameter in parameters_of(optimizer).items()}
    for name, value in kwargs.items():
        if isinstance(defaults[name], bool):
            check_type(f"optimizer_kwargs[{name!r}]", value, bool, "True or False")
        elif isinstance(defaults[name], int | float):
            check_number(f"optimizer_kwargs[{name!r}]", value)


def _check_arch(argument: str, sizes: Any) -> None:
    if sizes is not None:
        check_type(argument, sizes, list | tuple, "a list of layer sizes, for example [64, 64]")
        for size in sizes:
            check_number(f"a layer of {argument}", size, low=1, integer=True)


def _check_space(space: spaces.Space[Any], extractor: type[BaseFeaturesExtractor]) -> None:
    """
    :raises UnsupportedError: if an extractor of SB3 cannot read the observations
    """
    is_dict = isinstance(space, spaces.Dict)
    if is_dict and extractor in (FlattenExtractor, NatureCNN):
        raise UnsupportedError("this policy reads one array; for Dict observations use policy='MultiInputPolicy'.")
    if not is_dict and extractor is CombinedExtractor:
        raise UnsupportedError(
            f"policy='MultiInputPolicy' reads Dict observations, not {space}; use 'MlpPolicy' or 'CnnPolicy'."
        )
    if isinstance(space, spaces.Box) and extractor is FlattenExtractor and 0 in (len(space.shape), *space.shape):
        raise UnsupportedError(
            f"observations {space} of shape {space.shape} cannot be read; at least one axis with one number is needed, "
            "see gymnasium.wrappers.ReshapeObservation."
        )
    parts = space.spaces if isinstance(space, spaces.Dict) and extractor is CombinedExtractor else {}
    layers = nn.ModuleDict()
    for key in parts:
        if not isinstance(key, str) or not key or "." in key or hasattr(layers, key):
            raise UnsupportedError(f"the key {key!r} of the Dict observations cannot name a layer of torch; rename it.")
    for image in [space] if extractor is NatureCNN else parts.values():
        if is_image_space(image) and min(image.shape[1:]) < SMALLEST_IMAGE:  # type: ignore[index]
            raise UnsupportedError(
                f"images of shape {image.shape} are too small for NatureCNN, which needs {SMALLEST_IMAGE} x {SMALLEST_IMAGE} "
                "pixels: enlarge them with gymnasium.wrappers.ResizeObservation, or give a features_extractor_class."
            )


class MlpPolicy(DQNPolicy):
    """
    Policy with a Q-network and its target network, for vectors of observations.

    Classes can be given by name, so that YAML needs plain data only: ``activation_fn="tanh"``, ``optimizer_class="sgd"``,
    ``features_extractor_class="my_package.MyExtractor"``.

    :param observation_space: Observation space
    :param action_space: Action space
    :param lr_schedule: Learning rate schedule (could be constant)
    :param net_arch: sizes of the hidden layers that all actions share; [64, 64] by default, [] behind a NatureCNN
    :param activation_fn: Activation function, a class or a name of ``ACTIVATIONS``
    :param features_extractor_class: Features extractor to use
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor
    :param normalize_images: Whether to normalize images or not, dividing by 255.0 (True by default)
    :param optimizer_class: The optimizer to use, a class or a name of ``OPTIMIZERS``
    :param optimizer_kwargs: Additional keyword arguments, excluding the learning rate, to pass to the optimizer
    :param head: ``"shared"``: one network answers for all actions; ``"multi_head"``: each action has layers of its own;
        ``"dueling"``: the value of the state, and the advantages of the actions (https://arxiv.org/abs/1511.06581);
        ``"action_input"``: one network that is told the state and the action
    :param head_arch: sizes of the hidden layers behind the trunk: of each action (``multi_head``), of each of the two streams
        (``dueling``), of the network that is told the action (``action_input``), or of all actions behind the embedded
        quantile fraction (``shared`` with ``implicit_quantile``)
    :param returns: what the network says about the return of an action: ``"expected"`` value; ``"categorical"``, C51
        (https://arxiv.org/abs/1707.06887); ``"quantile"``, QR-DQN (https://arxiv.org/abs/1710.10044);
        ``"implicit_quantile"``, IQN (https://arxiv.org/abs/1806.06923)
    :param returns_kwargs: arguments of that return model, see :class:`~sb3_dqn_ext.algorithm.value_models.CategoricalReturns`,
        :class:`~sb3_dqn_ext.algorithm.value_models.QuantileReturns` and
        :class:`~sb3_dqn_ext.algorithm.value_models.ImplicitQuantileReturns`
    :param loss: of expected returns: ``"huber"`` (by default) or ``"mse"``; the other return models have a loss of their own
    :param noisy: whether the linear layers of trunk and head are noisy (https://arxiv.org/abs/1706.10295). The noise is drawn
        anew for each batch and each step; deterministic predictions are without
    :param noisy_kwargs: arguments of the noisy layers: ``{"sigma0": 0.5}``
    :param fitted_actions: ``"taken"``; or ``"all"``: the other actions are fitted to what the target network says of them, and
        the loss is averaged over all (expected returns only)
    :param dtype: in which precision the network computes: ``"float32"`` or ``"float64"``; the replay memory stays as it is
    :param init: how weights start: ``"torch"``, as its layers do by themselves, or ``"keras"``: Glorot uniform weights and
        zero biases
    :param batch_norm: whether the layers of the trunk have batch normalisation (https://arxiv.org/abs/1502.03167)
    :param optimizer_per_head: whether each head of ``multi_head`` has an optimizer of its own, over the trunk and that head.
        The transitions of a batch are then fitted action by action, one step of an optimizer for each action among them
    :raises ArgumentError: if an argument cannot work
    """

    q_net: QNetwork
    q_net_target: QNetwork
    _snapshot: NetworkSnapshot | None = None  # until the networks are there
    _knows_modes = True

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] | str = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] | str = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] | str = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        head: str = "shared",
        head_arch: list[int] | None = None,
        returns: str = "expected",
        returns_kwargs: Mapping[str, Any] | None = None,
        loss: str | None = None,
        noisy: bool = False,
        noisy_kwargs: Mapping[str, Any] | None = None,
        fitted_actions: str = "taken",
        dtype: str = "float32",
        init: str = "torch",
        batch_norm: bool = False,
        optimizer_per_head: bool = False,
    ) -> None:
        extractor = named_class("features_extractor_class", features_extractor_class, EXTRACTORS)
        optimizer = named_class("optimizer_class", optimizer_class, OPTIMIZERS)
        mappings = {
            "features_extractor_kwargs": features_extractor_kwargs,
            "optimizer_kwargs": optimizer_kwargs,
            "returns_kwargs": returns_kwargs,
            "noisy_kwargs": noisy_kwargs,
        }
        for name, mapping in mappings.items():
            check_type(name, {} if mapping is None else mapping, Mapping, "a mapping of arguments")
        check_keys(
            "features_extractor_kwargs", features_extractor_kwargs or {}, _parameters_but(extractor, "observation_space")
        )
        check_keys("optimizer_kwargs", optimizer_kwargs or {}, _parameters_but(optimizer, "params", "lr"))
        _check_optimizer_kwargs(optimizer, optimizer_kwargs or {})
        flags = {
            "normalize_images": normalize_images,
            "noisy": noisy,
            "batch_norm": batch_norm,
            "optimizer_per_head": optimizer_per_head,
        }
        for name, flag in flags.items():
            check_type(name, flag, bool, "True or False")
        _check_arch("net_arch", net_arch)
        _check_arch("head_arch", head_arch)
        _check_space(observation_space, extractor)
        # SB3's constructor builds the networks: what they are made from must be there before
        self.head = head
        self.head_arch = list(head_arch or [])
        self.returns = returns
        self.returns_kwargs = dict(returns_kwargs or {})
        self.loss = loss
        self.noisy = noisy
        self.noisy_kwargs = dict(noisy_kwargs or {})
        self.fitted_actions = fitted_actions
        self.fit = _fit(fitted_actions, returns)
        self.dtype = dtype
        self.init = init
        self.batch_norm = batch_norm
        self.optimizer_per_head = optimizer_per_head
        if optimizer_per_head:
            _check_optimizer_per_head(head, fitted_actions, batch_norm)
        self._network_kwargs: dict[str, Any] = {
            "sigma0": _sigma0(noisy, self.noisy_kwargs),
            "dtype": choose("dtype", dtype, DTYPES, DTYPE_SYNONYMS),
            "init": init,
            "batch_norm": batch_norm,
        }
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            named_class("activation_fn", activation_fn, ACTIVATIONS),
            extractor,
            features_extractor_kwargs,
            normalize_images,
            optimizer,
            optimizer_kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        space = self.observation_space
        self._is_vector = isinstance(space, spaces.Box) and len(space.shape) == 1
        self._shape = space.shape
        self.return_model = make_returns(self.returns, self.returns_kwargs, self.loss)
        try:
            super()._build(lr_schedule)
            self._take_snapshot()
            if self.optimizer_per_head:
                self.optimizer = self._make_optimizer_per_head(lr_schedule)
        except ArgumentError:
            raise
        # what extractors and optimizers raise at arguments or observations that they cannot work with
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            raise ArgumentError(
                f"no network with its optimizer can be built for observations {space} with "
                f"features_extractor_class={self.features_extractor_class.__name__}, "
                f"features_extractor_kwargs={self.features_extractor_kwargs!r}, optimizer_kwargs={self.optimizer_kwargs!r} "
                f"and the learning rate that was given: {error}"
            ) from error

    def _make_optimizer_per_head(self, lr_schedule: Schedule) -> OptimizerPerHead:
        heads = [list(head.parameters()) for head in cast(MultiHead, self.q_net.q_net).heads]
        of_a_head = {id(parameter) for head in heads for parameter in head}
        shared = [parameter for parameter in self.q_net.parameters() if id(parameter) not in of_a_head]
        make: Any = self.optimizer_class
        return OptimizerPerHead([make([*shared, *head], lr=lr_schedule(1), **self.optimizer_kwargs) for head in heads])

    def set_training_mode(self, mode: bool) -> None:
        """
        Put the online network in training or evaluation mode, which matters to batch normalisation and dropout.

        :param mode: True for training
        """
        # SB3 asks for it again and again, and torch walks through all layers each time
        if self._snapshot is not None and not self._snapshot.same_modules():
            self._take_snapshot()
            super().set_training_mode(mode)
        elif self._knows_modes and not self.training == self.q_net.training == mode:
            super().set_training_mode(mode)

    def _take_snapshot(self) -> None:
        self._snapshot = NetworkSnapshot([self.q_net])
        self._knows_modes = any(type(layer) not in SAME_IN_EVERY_MODE for layer in self.q_net.modules())
        self._some_parameter = [next(self.q_net.parameters())]  # in a list, or it would be another of this module's own

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """
        The actions of greatest Q-value.

        :param observation: one observation, or one for each environment
        :param state: returned as it is; there for policies with a memory
        :param episode_start: not used; there for policies with a memory
        :param deterministic: whether noisy layers are silent
        :return: one action, or one for each environment, and the state
        """
        is_plain = type(self).obs_to_tensor is MlpPolicy.obs_to_tensor and "obs_to_tensor" not in self.__dict__
        if not (is_plain and self._is_vector and type(observation) is np.ndarray and observation.shape[1:] == self._shape):
            return super().predict(observation, state, episode_start, deterministic)
        # what SB3 does to observations that are as they should be
        self.set_training_mode(False)
        with th.no_grad():
            # a copy, as SB3 makes one: torch takes no negative strides, and warns of arrays that cannot be written
            actions = self._predict(th.as_tensor(np.array(observation), device=self._some_parameter[0].device), deterministic)
        return actions.cpu().numpy().reshape(-1), state

    def __getstate__(self) -> dict[str, Any]:
        take_apart(list(self.parameters()), self.optimizer)
        return vars(self)

    def obs_to_tensor(self, observation: Array | dict[str, Array]) -> tuple[PyTorchObs, bool]:
        """
        Convert observations to tensors, as SB3 does, but also images with negative strides, as mirrored ones have them.

        :param observation: one observation, or one for each environment
        :return: the tensors, and whether there is one for each environment
        """
        return super().obs_to_tensor(each(lambda part: np.array(part) if isinstance(part, np.ndarray) else part, observation))

    def make_q_net(self) -> QNetwork:
        """:return: a network with a features extractor of its own"""
        net_args = self._update_features_extractor(self.net_args, features_extractor=None)
        net = QNetwork(
            **net_args, head=self.head, head_arch=self.head_arch, return_model=self.return_model, **self._network_kwargs
        )
        return net.to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            head=self.head,
            head_arch=self.head_arch,
            returns=self.returns,
            returns_kwargs=self.returns_kwargs,
            loss=self.loss,
            noisy=self.noisy,
            noisy_kwargs=self.noisy_kwargs,
            fitted_actions=self.fitted_actions,
            dtype=self.dtype,
            init=self.init,
            batch_norm=self.batch_norm,
            optimizer_per_head=self.optimizer_per_head,
        )
        return data


class CnnPolicy(MlpPolicy):
    """
    Policy for images; its arguments are those of :class:`MlpPolicy`, with ``NatureCNN`` before the trunk.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **({"features_extractor_class": NatureCNN} | kwargs))


class MultiInputPolicy(MlpPolicy):
    """
    Policy for Dict observations; its arguments are those of :class:`MlpPolicy`, with ``CombinedExtractor`` before the trunk.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space, action_space, lr_schedule, **({"features_extractor_class": CombinedExtractor} | kwargs)
        )


class MultiHeadPolicy(MlpPolicy):
    """
    :class:`MlpPolicy` with ``head="multi_head"``: a shared trunk, then for each action its own hidden layer and output.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **({"head": "multi_head", "head_arch": [64]} | kwargs))
