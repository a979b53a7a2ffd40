"""Q-networks: a trunk and a head, which says K numbers about each action. Shapes: B batch, A actions, F features, H hidden."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import QNetwork as SB3QNetwork
from torch import nn

from sb3_dqn_ext._validation import choose
from sb3_dqn_ext.algorithm.value_models import Params, Purpose, ReturnModel
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.flat_adam import take_apart
from sb3_dqn_ext.networks.hooks import is_watched
from sb3_dqn_ext.networks.noisy import make_noisy, noisy_layers

__all__ = [
    "HEADS",
    "INITS",
    "ActionInput",
    "Dueling",
    "Head",
    "MultiHead",
    "QNetwork",
    "Shared",
    "params_of",
    "sampled",
    "values_of",
]


class Head(nn.Module):
    """A trunk, which describes the state, and what says K numbers about each action from there."""

    trunk: Callable[[th.Tensor], th.Tensor]
    """(B, F) features -> (B, H)"""

    def answers(self, hidden: th.Tensor) -> th.Tensor:
        """(B, H) -> (B, A, K)"""
        raise NotImplementedError

    def forward(self, features: th.Tensor, embedded: Callable[[th.Tensor], th.Tensor] | None = None) -> th.Tensor:
        """
        :param features: (B, F)
        :param embedded: gives (B * N, H) for the trunk's (B, H) output, at N quantile fractions of each
        :return: (B, A, K), or (B * N, A, K)
        """
        hidden = self.trunk(features)
        return self.answers(hidden if embedded is None else embedded(hidden))


@dataclass(frozen=True)
class Sizes:
    """What a head is built from."""

    features_dim: int
    """F"""
    n_actions: int
    """A"""
    n_params: int
    """K"""
    net_arch: list[int]
    """the trunk's layers"""
    head_arch: list[int]
    """the layers behind the trunk"""
    activation_fn: type[nn.Module]
    batch_norm: bool = False
    """whether the trunk normalises what its layers say"""

    @property
    def hidden_dim(self) -> int:
        """H"""
        return self.net_arch[-1] if self.net_arch else self.features_dim

    def trunk(self) -> list[nn.Module]:
        """(B, F) -> (B, H)"""
        after: list[type[nn.Module]] = [nn.BatchNorm1d] if self.batch_norm else []
        return create_mlp(self.features_dim, -1, self.net_arch, self.activation_fn, post_linear_modules=after)

    def stream(self, n_in: int, n_out: int) -> nn.Module:
        """(B, n_in) -> (B, n_out) through layers of ``head_arch``"""
        return nn.Sequential(*create_mlp(n_in, n_out, self.head_arch, self.activation_fn))


class Shared(nn.Sequential, Head):
    """
    One network for all actions, as SB3's: its last layer answers for each of them.

    Its layers have the names and the order of those of SB3's DQN, and of sb3-contrib's QR-DQN.
    """

    def __init__(self, sizes: Sizes) -> None:
        trunk = sizes.trunk()
        last = create_mlp(sizes.hidden_dim, sizes.n_actions * sizes.n_params, sizes.head_arch, sizes.activation_fn)
        nn.Sequential.__init__(self, *trunk, *last)
        self.n_trunk, self.n_actions, self.n_params = len(trunk), sizes.n_actions, sizes.n_params

    def trunk(self, features: th.Tensor) -> th.Tensor:
        for layer in islice(self, self.n_trunk):
            features = layer(features)
        return features

    def answers(self, hidden: th.Tensor) -> th.Tensor:
        for layer in islice(self, self.n_trunk, None):
            hidden = layer(hidden)
        if self.n_params == 1:
            return hidden.unsqueeze(-1)
        return hidden.view(-1, self.n_params, self.n_actions).transpose(1, 2)

    def forward(self, features: th.Tensor, embedded: Callable[[th.Tensor], th.Tensor] | None = None) -> th.Tensor:
        return Head.forward(self, features, embedded)


class MultiHead(Head):
    """A shared trunk, then a network of its own for each action."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        _needs_layers("multi_head", "a hidden layer for each action", sizes.head_arch)
        self.trunk = nn.Sequential(*sizes.trunk())
        self.heads = nn.ModuleList(sizes.stream(sizes.hidden_dim, sizes.n_params) for _ in range(sizes.n_actions))

    def answers(self, hidden: th.Tensor) -> th.Tensor:
        return th.stack([head(hidden) for head in self.heads], dim=1)


class Dueling(Head):
    """The value of the state, and what each action adds to the mean of all (https://arxiv.org/abs/1511.06581, equation 9)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*sizes.trunk())
        self.value = sizes.stream(sizes.hidden_dim, sizes.n_params)
        self.advantage = sizes.stream(sizes.hidden_dim, sizes.n_actions * sizes.n_params)
        self.n_actions, self.n_params = sizes.n_actions, sizes.n_params

    def answers(self, hidden: th.Tensor) -> th.Tensor:
        advantages: th.Tensor = self.advantage(hidden).view(-1, self.n_actions, self.n_params)
        value: th.Tensor = self.value(hidden).unsqueeze(1)  # (B, 1, K)
        return value + advantages - advantages.mean(dim=1, keepdim=True)


class ActionInput(Head):
    """One network that is told the state and the action; it is asked about all actions in one batch of B * A."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        _needs_layers("action_input", "a hidden layer where state and action meet", sizes.head_arch)
        self.trunk = nn.Sequential(*sizes.trunk())
        self.joint = sizes.stream(sizes.hidden_dim + sizes.n_actions, sizes.n_params)
        self.n_actions, self.n_params = sizes.n_actions, sizes.n_params

    def answers(self, hidden: th.Tensor) -> th.Tensor:
        n_batch, n_actions = len(hidden), self.n_actions
        states = hidden.unsqueeze(1).expand(-1, n_actions, -1)  # (B, A, H)
        actions = th.eye(n_actions, dtype=hidden.dtype, device=hidden.device).expand(n_batch, -1, -1)  # (B, A, A)
        answers: th.Tensor = self.joint(th.cat([states, actions], dim=2).flatten(0, 1))  # (B * A, K)
        return answers.view(n_batch, n_actions, self.n_params)


def _needs_layers(head: str, what: str, head_arch: list[int]) -> None:
    if not head_arch:
        raise ArgumentError(f"head={head!r} needs {what}: give head_arch, for example [64].")


HEADS: dict[str, Callable[[Sizes], Head]] = {
    "shared": Shared,
    "multi_head": MultiHead,
    "dueling": Dueling,
    "action_input": ActionInput,
}
HEAD_SYNONYMS = {
    "multihead": "multi_head",
    "per_action": "multi_head",
    "default": "shared",
    "mlp": "shared",
    "duel": "dueling",
    "d3qn": "dueling",
    "dueling_dqn": "dueling",
    "state_action": "action_input",
    "one_hot": "action_input",
}


def keras_init(module: nn.Module) -> None:
    """Glorot uniform weights (https://proceedings.mlr.press/v9/glorot10a.html) and zero biases, as Keras starts a layer."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def torch_init(module: nn.Module) -> None:
    """As the layers of torch start by themselves."""


INITS: dict[str, Callable[[nn.Module], None]] = {"torch": torch_init, "keras": keras_init}
INIT_SYNONYMS = {"default": "torch", "pytorch": "torch", "glorot": "keras", "glorot_uniform": "keras", "xavier": "keras"}


def preprocess(obs: PyTorchObs, space: spaces.Space[Any], images: Collection[str | None], dtype: th.dtype) -> PyTorchObs:
    """
    SB3's ``preprocess_obs`` in another precision: images between 0 and 1, choices as one-hot vectors.

    :param obs: (B, \\*obs) observations
    :param space: their space
    :param images: keys of the images that are divided by 255, None where the observation is one array
    :param dtype: the precision
    :return: the input of the features extractor
    """
    if isinstance(obs, dict):
        parts = cast(spaces.Dict, space).spaces
        return cast(PyTorchObs, {key: _preprocess(part, parts[key], key in images, dtype) for key, part in obs.items()})
    return _preprocess(obs, space, None in images, dtype)


def _preprocess(obs: th.Tensor, space: spaces.Space[Any], is_image: bool, dtype: th.dtype) -> th.Tensor:
    if not isinstance(space, spaces.Box):
        return cast(th.Tensor, preprocess_obs(from_zero(obs, space), space)).to(dtype)
    return obs.to(dtype) / 255.0 if is_image else obs.to(dtype)


def from_zero(obs: th.Tensor, space: spaces.Space[Any]) -> th.Tensor:
    """
    Number the values of a Discrete or a MultiDiscrete space from 0, as one-hot vectors need them, wherever the space starts.

    :param obs: (B, \\*obs) observations
    :param space: their space
    :return: (B, \\*obs) numbers of the values
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start):
        return obs.long() - th.as_tensor(space.start, device=obs.device)
    return obs


def image_keys(space: spaces.Space[Any]) -> set[str | None]:
    """
    :param space: of observations
    :return: keys of its parts that are images, None where it is one image; it takes long to tell
    """
    if isinstance(space, spaces.Dict):
        return {key for key, part in space.spaces.items() if is_image_space(part)}
    return {None} if is_image_space(space) else set()


class QNetwork(SB3QNetwork):
    """
    Q-network whose head says K numbers about each action, and whose return model reads the Q-values out of them.

    Called by itself it is deterministic; noise is drawn, and quantile fractions too, within :func:`sampled`.

    :param observation_space: Observation space
    :param action_space: Action space
    :param features_extractor: features extractor
    :param features_dim: number of features
    :param net_arch: sizes of the hidden layers that all actions share
    :param activation_fn: Activation function
    :param normalize_images: whether to divide images by 255
    :param head: a name of ``HEADS``
    :param head_arch: sizes of the hidden layers behind the trunk
    :param return_model: what the K numbers mean
    :param batch_norm: whether the trunk has batch normalisation
    :param sigma0: how noisy the linear layers of trunk and head start, if they are noisy
    :param init: a name of ``INITS``
    :param dtype: in which precision it computes
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        normalize_images: bool,
        head: str,
        head_arch: list[int],
        return_model: ReturnModel,
        batch_norm: bool = False,
        sigma0: float | None = None,
        init: str = "torch",
        dtype: th.dtype = th.float32,
    ) -> None:
        # not SB3QNetwork's, which would build its own layers and so draw from torch's generator
        BasePolicy.__init__(
            self,
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.net_arch = net_arch
        self.activation_fn = activation_fn
        self.features_dim = features_dim
        self.head = head
        self.head_arch = head_arch
        self.return_model = return_model
        self.batch_norm = batch_norm
        self.n_actions = int(action_space.n)
        make_head = choose("head", head, HEADS, HEAD_SYNONYMS)
        sizes = Sizes(features_dim, self.n_actions, return_model.n_params, net_arch, head_arch, activation_fn, batch_norm)
        self.embedding = return_model.embedding(sizes.hidden_dim)
        if head == "shared" and head_arch and self.embedding is None:
            raise ArgumentError(f"head_arch={head_arch!r} has no effect with head='shared'; write the layers into net_arch.")
        if batch_norm and not net_arch:
            raise ArgumentError("batch_norm=True has no effect on a trunk without layers; give net_arch, for example [64].")
        self.q_net = make_head(sizes)  # type: ignore[assignment]
        if sigma0 is not None:
            make_noisy(self.q_net, sigma0)
        self.sigma0 = sigma0
        self.init = init
        self.apply(choose("init", init, INITS, INIT_SYNONYMS))
        self.dtype = dtype
        self.to(dtype)
        self._is_vector = isinstance(observation_space, spaces.Box) and len(observation_space.shape) == 1
        self._images = image_keys(observation_space)
        self.find_noisy_layers()

    def find_noisy_layers(self) -> None:
        """Look for the layers to draw noise for; again after a user has replaced some."""
        self.noisy_layers = noisy_layers(self.q_net)
        self.knows_chance = bool(self.noisy_layers) or self.embedding is not None

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        """(B, \\*obs) observations -> (B, F) features."""
        is_plain = self._is_vector and type(features_extractor) is FlattenExtractor
        if is_plain and not is_watched(features_extractor) and not is_watched(cast(Any, features_extractor).flatten):
            return cast(th.Tensor, obs).to(self.dtype)  # which is flat
        inputs = preprocess(obs, self.observation_space, self._images if self.normalize_images else (), self.dtype)
        features: th.Tensor = features_extractor(inputs)
        return features

    def params(self, obs: PyTorchObs, purpose: Purpose = "policy") -> Params:
        """
        :param obs: (B, \\*obs) observations
        :param purpose: what the answer is for, where that decides how many quantile fractions are asked
        :return: (B, A, K) numbers
        """
        assert self.features_extractor is not None
        features = self.extract_features(obs, self.features_extractor)
        head: Any = self.q_net
        if self.embedding is None:
            return Params(head(features) if is_watched(head) else head.forward(features))  # a call takes longer
        fractions: list[th.Tensor] = []
        embedding: Callable[[th.Tensor], th.Tensor] = self.embedding

        def embedded(hidden: th.Tensor) -> th.Tensor:
            """(B, H) -> (B * N, H)"""
            fractions.append(self.return_model.fractions(hidden, purpose, self in _thread.sampling))  # (B, N)
            return (hidden.unsqueeze(1) * embedding(fractions[0])).flatten(0, 1)

        answers = head(features, embedded)  # (B * N, A, 1)
        return Params(answers.view(*fractions[0].shape, self.n_actions).transpose(1, 2), fractions[0])

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """(B, \\*obs) observations -> (B, A) Q-values."""
        if _thread.purpose is None:
            return self.return_model.mean(self.params(obs))
        _thread.params = self.params(obs, _thread.purpose)
        return self.return_model.mean(_thread.params)

    def params_of_call(self, obs: PyTorchObs, purpose: Purpose) -> Params:
        """
        :meth:`params` by way of a call, so that hooks and a ``forward`` of a subclass take part: the Q-values are what the
        call returns, the distributions those that were computed for it.
        """
        _thread.purpose, _thread.params = purpose, None
        try:
            q_values = self(obs)
            params = _thread.params
        finally:
            _thread.purpose = _thread.params = None
        if params is None or (params.fractions is None and self.return_model.n_params == 1):
            return Params(q_values.unsqueeze(-1))
        return params._replace(q_values=q_values if params.fractions is None else None)

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        if deterministic or not self.knows_chance:
            return self(observation).argmax(dim=1)  # type: ignore[no-any-return]
        with sampled(self):
            return self(observation).argmax(dim=1)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        take_apart(list(self.parameters()))
        return vars(self)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            head=self.head,
            head_arch=self.head_arch,
            return_model=self.return_model,
            batch_norm=self.batch_norm,
            sigma0=self.sigma0,
            init=self.init,
            dtype=self.dtype,
        )
        return data


class _Thread(threading.local):
    """What the current thread is doing; another may use the same networks meanwhile."""

    sampling: frozenset[nn.Module] = frozenset()
    """the networks that it samples from: others get deterministic answers from them"""
    purpose: Purpose | None = None
    """what the call of a network is for, of which a user's ``forward`` knows nothing ..."""
    params: Params | None = None
    """... and what that call has computed"""


_thread = _Thread()


@contextmanager
def sampled(*nets: nn.Module) -> Iterator[None]:
    """
    Draw noise for each of the networks, and let quantile fractions be drawn too, for the current thread. Outside of it, and in
    all other threads, every answer is deterministic.

    :param nets: networks; those that know no chance are left alone
    """
    by_chance = [net for net in dict.fromkeys(nets) if isinstance(net, QNetwork) and net.knows_chance]
    layers = [layer for net in by_chance for layer in net.noisy_layers]
    before = _thread.sampling
    try:
        for layer in layers:
            layer.draw()
        _thread.sampling = before.union(by_chance)
        yield
    finally:
        _thread.sampling = before
        for layer in layers:
            layer.silence()


def params_of(net: SB3QNetwork, obs: PyTorchObs, purpose: Purpose = "policy") -> Params:
    """(B, A, K) what a network says; SB3's own, or a user's, says one number per action: the Q-value."""
    if not isinstance(net, QNetwork):
        return Params(net(obs).unsqueeze(-1))
    is_plain = type(net).forward is QNetwork.forward and not is_watched(net)
    return net.params(obs, purpose) if is_plain else net.params_of_call(obs, purpose)


def values_of(net: SB3QNetwork, obs: PyTorchObs, params: Params, returns: ReturnModel) -> th.Tensor:
    """
    (B, A) Q-values: read out of the parameters, or, where these are samples, out of others, so that no action is chosen by
    the same luck by which it is valued (https://arxiv.org/abs/1806.06923, section 3.1).
    """
    if params.q_values is not None:
        return params.q_values
    return returns.mean(params) if params.fractions is None else net(obs)
