"""The choices of which a network is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch as th

from sb3_dqn_ext._validation import check_keys, check_number, check_type, choose
from sb3_dqn_ext.algorithm.fitted_actions import FITS, Fit
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.checks import check_arch
from sb3_dqn_ext.networks.heads import HEAD_SYNONYMS, HEADS
from sb3_dqn_ext.networks.init import INIT_SYNONYMS, INITS

__all__ = ["NetworkConfig"]

DTYPES: dict[str, th.dtype] = {"float32": th.float32, "float64": th.float64}
DTYPE_SYNONYMS = {"float": "float32", "single": "float32", "double": "float64"}
FLAGS = ("noisy", "batch_norm", "optimizer_per_head")
MAPPINGS = ("returns_kwargs", "noisy_kwargs")


@dataclass(frozen=True)
class NetworkConfig:
    """
    The arguments that the policies of this package have beside those of SB3's policies: keys of ``policy_kwargs``.

    :param head: ``"shared"``: one network for all actions; ``"multi_head"``: each action has layers of its own;
        ``"dueling"``: the value of the state, and the advantages of the actions (https://arxiv.org/abs/1511.06581);
        ``"action_input"``: one network whose input is the state and the action
    :param head_arch: sizes of the hidden layers behind the trunk: of each action (``multi_head``), of each of the two streams
        (``dueling``), of the network whose input the action is (``action_input``), or of all actions behind the embedded
        quantile fraction (``shared`` with ``implicit_quantile``)
    :param returns: what the network predicts of the return of an action: the ``"expected"`` value; ``"categorical"``, C51
        (https://arxiv.org/abs/1707.06887); ``"quantile"``, QR-DQN (https://arxiv.org/abs/1710.10044);
        ``"implicit_quantile"``, IQN (https://arxiv.org/abs/1806.06923)
    :param returns_kwargs: arguments of that return model, see :class:`~sb3_dqn_ext.algorithm.value_models.CategoricalReturns`,
        :class:`~sb3_dqn_ext.algorithm.value_models.QuantileReturns` and
        :class:`~sb3_dqn_ext.algorithm.value_models.ImplicitQuantileReturns`
    :param loss: of expected returns: ``"huber"`` (by default) or ``"mse"``; the other return models have a loss of their own
    :param noisy: whether the linear layers of trunk and head are noisy (https://arxiv.org/abs/1706.10295). The noise is drawn
        anew for each batch and each step; deterministic predictions are without
    :param noisy_kwargs: arguments of the noisy layers: ``{"sigma0": 0.5}``
    :param fitted_actions: ``"taken"``; or ``"all"``: the other actions are fitted to the predictions of the target network,
        and the loss is averaged over all (expected returns only)
    :param dtype: the precision of the network: ``"float32"`` or ``"float64"``; that of the replay buffer is not changed
    :param init: the initial weights: ``"torch"``, those of its layers, or ``"keras"``: Glorot uniform weights and zero biases
    :param batch_norm: whether the layers of the trunk have batch normalisation (https://arxiv.org/abs/1502.03167)
    :param optimizer_per_head: whether each head of ``multi_head`` has an optimizer of its own, over the trunk and that head.
        The transitions of a batch are then fitted action by action, one step of an optimizer for each action among them
    :raises ArgumentError: if one of them cannot work
    """

    head: str = "shared"
    head_arch: list[int] | None = None
    returns: str = "expected"
    returns_kwargs: Mapping[str, Any] | None = None
    loss: str | None = None
    noisy: bool = False
    noisy_kwargs: Mapping[str, Any] | None = None
    fitted_actions: str = "taken"
    dtype: str = "float32"
    init: str = "torch"
    batch_norm: bool = False
    optimizer_per_head: bool = False

    def __post_init__(self) -> None:
        for name in MAPPINGS:
            check_type(name, getattr(self, name), Mapping | None, "a mapping of arguments")
        for name in FLAGS:
            check_type(name, getattr(self, name), bool, "True or False")
        check_arch("head_arch", self.head_arch)
        choose("head", self.head, HEADS, HEAD_SYNONYMS)
        choose("dtype", self.dtype, DTYPES, DTYPE_SYNONYMS)
        choose("init", self.init, INITS, INIT_SYNONYMS)
        choose("fitted_actions", self.fitted_actions, FITS)
        if self.fitted_actions != "taken" and self.returns != "expected":
            raise ArgumentError(f"fitted_actions={self.fitted_actions!r} needs returns='expected', not {self.returns!r}.")
        self._check_noise()
        if self.optimizer_per_head:
            self._check_optimizer_per_head()

    def _check_noise(self) -> None:
        kwargs = self.noisy_kwargs or {}
        if not self.noisy and kwargs:
            raise ArgumentError(f"noisy_kwargs={dict(kwargs)!r} has no effect beside noisy=False; leave one out.")
        check_keys("noisy_kwargs", kwargs, {"sigma0"})
        check_number("sigma0", kwargs.get("sigma0", 0.5), low=0)

    def _check_optimizer_per_head(self) -> None:
        if self.head != "multi_head":
            raise ArgumentError(f"optimizer_per_head=True needs head='multi_head', not {self.head!r}.")
        if self.fitted_actions != "taken":
            raise ArgumentError(f"optimizer_per_head=True needs fitted_actions='taken', not {self.fitted_actions!r}.")
        if self.batch_norm:
            raise ArgumentError(
                "optimizer_per_head=True needs batch_norm=False: a batch may hold a single transition of an action."
            )

    @property
    def sigma0(self) -> float | None:
        """The initial noise of the linear layers of trunk and head; None if they are not noisy."""
        return float((self.noisy_kwargs or {}).get("sigma0", 0.5)) if self.noisy else None

    @property
    def torch_dtype(self) -> th.dtype:
        """The precision in which the network computes."""
        return DTYPES[self.dtype]

    @property
    def fit(self) -> Fit:
        """The losses of the actions that are fitted."""
        return FITS[self.fitted_actions]
