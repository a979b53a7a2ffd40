"""
Heads: the layers between the features of an observation and K numbers per action.

Shapes: B batch, A actions, F features, H hidden, N quantile fractions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

from sb3_dqn_ext.errors import ArgumentError

__all__ = ["HEADS", "HEAD_SYNONYMS", "ActionInputHead", "DuelingHead", "Head", "HeadSizes", "MultiHead", "SharedHead"]


class Head(nn.Module):
    """A trunk that maps features to a hidden vector, and output layers with K outputs per action."""

    trunk: Callable[[th.Tensor], th.Tensor]
    """(B, F) features -> (B, H)"""

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        """(B, H) -> (B, A, K)"""
        raise NotImplementedError

    def forward(self, features: th.Tensor, embedded: Callable[[th.Tensor], th.Tensor] | None = None) -> th.Tensor:
        """
        :param features: (B, F)
        :param embedded: a function from the trunk's (B, H) output to (B * N, H), at N quantile fractions of each
        :return: (B, A, K), or (B * N, A, K)
        """
        hidden = self.trunk(features)
        return self.outputs(hidden if embedded is None else embedded(hidden))


@dataclass(frozen=True)
class HeadSizes:
    """The sizes from which a head is built."""

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
    """whether the trunk has batch normalisation"""

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


class SharedHead(nn.Sequential, Head):
    """
    One network for all actions, as SB3's: its last layer has K outputs for each of them.

    Its layers have the names and the order of those of SB3's DQN, and of sb3-contrib's QR-DQN.
    """

    def __init__(self, sizes: HeadSizes) -> None:
        trunk = sizes.trunk()
        last = create_mlp(sizes.hidden_dim, sizes.n_actions * sizes.n_params, sizes.head_arch, sizes.activation_fn)
        nn.Sequential.__init__(self, *trunk, *last)
        self.n_trunk, self.n_actions, self.n_params = len(trunk), sizes.n_actions, sizes.n_params

    def trunk(self, features: th.Tensor) -> th.Tensor:
        for layer in islice(self, self.n_trunk):
            features = layer(features)
        return features

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        for layer in islice(self, self.n_trunk, None):
            hidden = layer(hidden)
        if self.n_params == 1:
            return hidden.unsqueeze(-1)
        return hidden.view(-1, self.n_params, self.n_actions).transpose(1, 2)

    def forward(self, features: th.Tensor, embedded: Callable[[th.Tensor], th.Tensor] | None = None) -> th.Tensor:
        return Head.forward(self, features, embedded)


class MultiHead(Head):
    """A shared trunk, then a network of its own for each action."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        _needs_layers("multi_head", "a hidden layer for each action", sizes.head_arch)
        self.trunk = nn.Sequential(*sizes.trunk())
        self.heads = nn.ModuleList(sizes.stream(sizes.hidden_dim, sizes.n_params) for _ in range(sizes.n_actions))

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        return th.stack([head(hidden) for head in self.heads], dim=1)


class DuelingHead(Head):
    """The value of the state, plus the centred advantages of the actions (https://arxiv.org/abs/1511.06581, equation 9)."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*sizes.trunk())
        self.value = sizes.stream(sizes.hidden_dim, sizes.n_params)
        self.advantage = sizes.stream(sizes.hidden_dim, sizes.n_actions * sizes.n_params)
        self.n_actions, self.n_params = sizes.n_actions, sizes.n_params

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        advantages: th.Tensor = self.advantage(hidden).view(-1, self.n_actions, self.n_params)
        value: th.Tensor = self.value(hidden).unsqueeze(1)  # (B, 1, K)
        return value + advantages - advantages.mean(dim=1, keepdim=True)


class ActionInputHead(Head):
    """One network whose input is the state and the action, as a one-hot vector; all actions are one batch of B * A."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        _needs_layers("action_input", "a hidden layer where state and action meet", sizes.head_arch)
        self.trunk = nn.Sequential(*sizes.trunk())
        self.joint = sizes.stream(sizes.hidden_dim + sizes.n_actions, sizes.n_params)
        self.n_actions, self.n_params = sizes.n_actions, sizes.n_params

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        n_batch, n_actions = len(hidden), self.n_actions
        states = hidden.unsqueeze(1).expand(-1, n_actions, -1)  # (B, A, H)
        actions = th.eye(n_actions, dtype=hidden.dtype, device=hidden.device).expand(n_batch, -1, -1)  # (B, A, A)
        outputs: th.Tensor = self.joint(th.cat([states, actions], dim=2).flatten(0, 1))  # (B * A, K)
        return answers.view(n_batch, n_actions, self.n_params)


def _needs_layers(head: str, what: str, head_arch: list[int]) -> None:
    if not head_arch:
        raise ArgumentError(f"head={head!r} needs {what}: give head_arch, for example [64].")


HEADS: dict[str, Callable[[HeadSizes], Head]] = {
    "shared": SharedHead,
    "multi_head": MultiHead,
    "dueling": DuelingHead,
    "action_input": ActionInputHead,
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
