"""Q-networks: a trunk and a head, which says K numbers about each action."""

from collections.abc import Callable
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import QNetwork as SB3QNetwork
from torch import nn

from sb3_dqn_ext.choices import ArgumentError, choose
from sb3_dqn_ext.returns import Params, ReturnModel

__all__ = ["HEADS", "MultiHead", "QNetwork", "params_of"]


class MultiHead(nn.Module):
    """
    A shared trunk, then for each action a small network of its own.

    :param trunk: (B, \\*) features -> (B, T)
    :param heads: one network for each action, (B, T) -> (B, K)
    """

    def __init__(self, trunk: nn.Module, heads: list[nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads)

    def forward(self, features: th.Tensor) -> th.Tensor:
        """(B, F) features -> (B, A * K)"""
        hidden = self.trunk(features)
        return th.cat([head(hidden) for head in self.heads], dim=1)


def shared(
    features_dim: int, n_actions: int, n_params: int, net_arch: list[int], head_arch: list[int], activation_fn: type[nn.Module]
) -> nn.Module:
    """One network for all actions, as SB3's: its last layer answers for each of them."""
    if head_arch:
        raise ArgumentError(f"head_arch={head_arch!r} has no effect with head='shared'; write the layers into net_arch.")
    return nn.Sequential(*create_mlp(features_dim, n_actions * n_params, net_arch, activation_fn))


def multi_head(
    features_dim: int, n_actions: int, n_params: int, net_arch: list[int], head_arch: list[int], activation_fn: type[nn.Module]
) -> nn.Module:
    """A shared trunk of ``net_arch``, then for each action its own layers of ``head_arch``."""
    if not head_arch:
        raise ArgumentError("head='multi_head' needs a hidden layer for each action: give head_arch, for example [64].")
    trunk = nn.Sequential(*create_mlp(features_dim, -1, net_arch, activation_fn))
    trunk_dim = net_arch[-1] if net_arch else features_dim
    heads = [nn.Sequential(*create_mlp(trunk_dim, n_params, head_arch, activation_fn)) for _ in range(n_actions)]
    return MultiHead(trunk, list(heads))


HEADS: dict[str, Callable[[int, int, int, list[int], list[int], type[nn.Module]], nn.Module]] = {
    "shared": shared,
    "multi_head": multi_head,
}
HEAD_SYNONYMS = {"multihead": "multi_head", "per_action": "multi_head", "default": "shared", "mlp": "shared"}


class QNetwork(SB3QNetwork):
    """
    Q-network whose head says K numbers about each action, and whose return model reads the Q-values out of them.

    :param observation_space: Observation space
    :param action_space: Action space
    :param features_extractor: features extractor
    :param features_dim: number of features
    :param net_arch: sizes of the hidden layers that all actions share
    :param activation_fn: Activation function
    :param normalize_images: whether to divide images by 255
    :param head: ``"shared"`` or ``"multi_head"``
    :param head_arch: sizes of the hidden layers that every action has for itself
    :param return_model: what the K numbers mean
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
        self.n_actions = int(action_space.n)
        make_head = choose("head", head, HEADS, HEAD_SYNONYMS)
        self.q_net = make_head(  # type: ignore[assignment]
            features_dim, self.n_actions, return_model.n_params, net_arch, head_arch, activation_fn
        )

    def params(self, obs: PyTorchObs) -> Params:
        """(B, \\*obs) observations -> (B, A, K) numbers."""
        assert self.features_extractor is not None
        answers = self.q_net(self.extract_features(obs, self.features_extractor))
        return Params(answers.view(-1, self.n_actions, self.return_model.n_params))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """(B, \\*obs) observations -> (B, A) Q-values."""
        return self.return_model.mean(self.params(obs))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(head=self.head, head_arch=self.head_arch, return_model=self.return_model)
        return data


def params_of(net: SB3QNetwork, obs: PyTorchObs) -> Params:
    """(B, A, K) what a network says; SB3's own, or a user's, says one number per action: the Q-value."""
    return net.params(obs) if isinstance(net, QNetwork) else Params(net(obs).unsqueeze(-1))
