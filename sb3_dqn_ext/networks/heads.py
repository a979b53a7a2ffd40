"""
Heads: the layers between the features of an observation and K outputs per action.

Shapes: B batch size, A actions, K outputs per action, F features, H hidden units, N quantile fractions.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise

import torch as th
from torch import nn

from sb3_dqn_ext._validation import OpenChoice
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.norms import NormFunction, no_norm

__all__ = ["HEAD", "HEADS", "ActionInputHead", "DuelingHead", "Head", "HeadSizes", "MultiHead", "SharedHead", "make_head"]


class Head(nn.Module):
    """
    A trunk that maps features to a hidden vector, and output layers with K outputs per action.

    A subclass takes :class:`HeadSizes` as the argument of its constructor, sets :attr:`trunk`, and overrides :meth:`outputs`.
    ``sizes.trunk()`` returns the layers that ``net_arch`` describes, ``sizes.stream(n_in, n_out)`` those of ``head_arch``.
    Its parameters are trained and saved as those of any ``nn.Module``.
    """

    trunk: Callable[[th.Tensor], th.Tensor]
    """A function from (B, F) features to the (B, H) hidden vector."""

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        """
        Compute the outputs of all actions.

        :param hidden: (B, H) the output of the trunk, with H = ``sizes.hidden_dim``
        :return: (B, A, K)
        """
        raise NotImplementedError

    def forward(self, features: th.Tensor, embed_taus: Callable[[th.Tensor], th.Tensor] | None = None) -> th.Tensor:
        """
        Compute the outputs of all actions.

        :param features: (B, F) features
        :param embed_taus: a function from the (B, H) hidden vector to (B * N, H), its products with the embeddings of N
            quantile fractions; None (default): there are no fractions
        :return: (B, A, K) outputs, or (B * N, A, K)
        """
        hidden = self.trunk(features)
        return self.outputs(hidden if embed_taus is None else embed_taus(hidden))


@dataclass(frozen=True)
class HeadSizes:
    """The sizes from which a head is built."""

    features_dim: int
    """F, the number of features."""
    n_actions: int
    """A, the number of actions."""
    n_params: int
    """K, the number of outputs per action."""
    net_arch: list[int]
    """The sizes of the trunk's hidden layers."""
    head_arch: list[int]
    """The sizes of the hidden layers after the trunk."""
    activation_fn: type[nn.Module]
    """The activation after each hidden layer."""
    norm: NormFunction = no_norm
    """The normalisation of the hidden layers after the trunk."""
    trunk_norm: NormFunction = no_norm
    """The normalisation of the hidden layers of the trunk."""

    @property
    def hidden_dim(self) -> int:
        """H, the width of the trunk's output."""
        return self.net_arch[-1] if self.net_arch else self.features_dim

    def trunk(self) -> list[nn.Module]:
        """Make the layers of the trunk, from (B, F) features to (B, H)."""
        return _hidden_layers(self.features_dim, self.net_arch, self.activation_fn, self.trunk_norm)

    def stream(self, n_in: int, n_out: int) -> nn.Sequential:
        """Make a network from (B, n_in) to (B, n_out), with hidden layers of the sizes ``head_arch``."""
        hidden = _hidden_layers(n_in, self.head_arch, self.activation_fn, self.norm)
        return nn.Sequential(*hidden, nn.Linear([n_in, *self.head_arch][-1], n_out))


def _hidden_layers(n_in: int, sizes: list[int], activation_fn: type[nn.Module], norm: NormFunction) -> list[nn.Module]:
    """Make dense layers from (B, n_in) to (B, sizes[-1]), each with its normalisation and activation."""
    return [layer for n, n_out in pairwise([n_in, *sizes]) for layer in (*norm(nn.Linear(n, n_out)), activation_fn())]


class SharedHead(nn.Sequential, Head):
    """
    A head with the same layers for all actions, as in SB3: the last layer has K outputs per action.

    Its layers have the names and the order of those in SB3's DQN and sb3-contrib's QR-DQN.
    """

    def __init__(self, sizes: HeadSizes) -> None:
        trunk = sizes.trunk()
        last = sizes.stream(sizes.hidden_dim, sizes.n_actions * sizes.n_params)
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

    def forward(self, features: th.Tensor, embed_taus: Callable[[th.Tensor], th.Tensor] | None = None) -> th.Tensor:
        return Head.forward(self, features, embed_taus)


class MultiHead(Head):
    """A head with a shared trunk and a separate network for each action."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        _check_head_arch("multi_head", "a hidden layer for each action", sizes.head_arch)
        self.trunk = nn.Sequential(*sizes.trunk())
        self.heads = nn.ModuleList(sizes.stream(sizes.hidden_dim, sizes.n_params) for _ in range(sizes.n_actions))

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        return th.stack([head(hidden) for head in self.heads], dim=1)


class DuelingHead(Head):
    """
    A dueling head: the value V of the state plus the centred advantages of the actions (Wang et al., 2016,
    https://arxiv.org/abs/1511.06581, equation 9)::

        Q(s, a) = V(s) + A(s, a) - mean_b A(s, b)
    """

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
    """A head whose input is the hidden vector and the one-hot action; all actions are evaluated as one batch of B * A."""

    def __init__(self, sizes: HeadSizes) -> None:
        super().__init__()
        _check_head_arch("action_input", "a hidden layer for state and action", sizes.head_arch)
        self.trunk = nn.Sequential(*sizes.trunk())
        self.joint = sizes.stream(sizes.hidden_dim + sizes.n_actions, sizes.n_params)
        self.n_actions, self.n_params = sizes.n_actions, sizes.n_params

    def outputs(self, hidden: th.Tensor) -> th.Tensor:
        n_batch, n_actions = hidden.shape[0], self.n_actions  # len() would be a constant in exported graphs
        states = hidden.unsqueeze(1).expand(-1, n_actions, -1)  # (B, A, H)
        actions = th.eye(n_actions, dtype=hidden.dtype, device=hidden.device).expand(n_batch, -1, -1)  # (B, A, A)
        outputs: th.Tensor = self.joint(th.cat([states, actions], dim=2).flatten(0, 1))  # (B * A, K)
        return outputs.view(n_batch, n_actions, self.n_params)


def _check_head_arch(head: str, what: str, head_arch: list[int]) -> None:
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
HEAD = OpenChoice("head", Head, ("trunk", "outputs"), HEADS, HEAD_SYNONYMS)


def make_head(head: object, sizes: HeadSizes) -> Head:
    """
    Build the head of one network.

    :param head: a name of ``HEADS``, a subclass of :class:`Head`, an object, or a dotted name; an object is copied
    :param sizes: the sizes that the head must have
    :raises ArgumentError: if there is no such head, or its output has another shape than (B, A, K)
    """
    built = HEAD.build(head, given={"sizes": sizes})
    if type(built) in HEADS.values():
        return copy.deepcopy(built) if built is head else built
    built = copy.deepcopy(built)
    shape = _shape_of_output(built, head, sizes)
    if shape != (2, sizes.n_actions, sizes.n_params):
        raise ArgumentError(
            f"head={head!r} returns a tensor of shape {shape} for 2 observations: it must be (2, {sizes.n_actions}, "
            f"{sizes.n_params}), for {sizes.n_actions} actions with {sizes.n_params} numbers each."
        )
    return built


def _shape_of_output(head: Head, choice: object, sizes: HeadSizes) -> tuple[int, ...]:
    was_training = head.training
    try:
        with th.no_grad(), th.random.fork_rng(devices=[]):
            return tuple(head.eval()(th.zeros(2, sizes.features_dim)).shape)
    except (RuntimeError, TypeError, IndexError, AttributeError, NotImplementedError) as error:
        raise ArgumentError(f"head={choice!r} cannot read features of shape (2, {sizes.features_dim}): {error}") from error
    finally:
        head.train(was_training)
