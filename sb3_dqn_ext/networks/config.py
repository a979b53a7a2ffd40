"""The configuration of a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch as th

from sb3_dqn_ext._validation import check_keys, check_number, check_type, choose
from sb3_dqn_ext.algorithm.fitted_actions import FITS, Fit
from sb3_dqn_ext.algorithm.value_models import RETURNS, ExpectedReturns
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.checks import check_arch
from sb3_dqn_ext.networks.encoders import ENCODER
from sb3_dqn_ext.networks.heads import HEAD, MultiHead
from sb3_dqn_ext.networks.init import INIT_SYNONYMS, INITS
from sb3_dqn_ext.networks.norms import NORM, batch_norm, no_norm

__all__ = ["NetworkConfig"]

DTYPES: dict[str, th.dtype] = {"float32": th.float32, "float64": th.float64}
DTYPE_SYNONYMS = {"float": "float32", "single": "float32", "double": "float64"}
FLAGS = ("noisy", "batch_norm", "optimizer_per_head")
MAPPINGS = ("returns_kwargs", "noisy_kwargs", "encoder_kwargs", "auxiliary_loss_kwargs")


def _is(found: Any, kind: type) -> bool:
    """Return whether a class is derived from another one, or an object is one of it."""
    return issubclass(found, kind) if isinstance(found, type) else isinstance(found, kind)


@dataclass(frozen=True)
class NetworkConfig:
    """
    The arguments that policies of this package have in addition to those of SB3's policies: keys of ``policy_kwargs``.

    ``head``, ``returns`` and ``loss`` are names, or your own: a class, an object or a dotted name of a
    :class:`~sb3_dqn_ext.networks.heads.Head`, a :class:`~sb3_dqn_ext.algorithm.value_models.ReturnModel` and a
    :class:`~sb3_dqn_ext.algorithm.value_models.expected.Loss`.

    :param head: the layers after the trunk. ``"shared"``: the same layers for all actions; ``"multi_head"``: separate layers
        for each action; ``"dueling"``: a value and an advantage stream (Wang et al., 2016, https://arxiv.org/abs/1511.06581);
        ``"action_input"``: a network whose input is the hidden vector and the action
    :param head_arch: the sizes of the hidden layers after the trunk: of each action (``multi_head``), of each of the two
        streams (``dueling``), of the network with the action as an input (``action_input``), or after the embedding of the
        quantile fractions (``shared`` with ``implicit_quantile``)
    :param returns: the return model. ``"expected"``: the expected return; ``"categorical"``: C51 (Bellemare et al., 2017,
        https://arxiv.org/abs/1707.06887); ``"quantile"``: QR-DQN (Dabney et al., 2018, https://arxiv.org/abs/1710.10044);
        ``"implicit_quantile"``: IQN (Dabney et al., 2018, https://arxiv.org/abs/1806.06923); ``"hl_gauss"``: HL-Gauss
        (Farebrother et al., 2024, https://arxiv.org/abs/2403.03950)
    :param returns_kwargs: the arguments of that return model, see
        :class:`~sb3_dqn_ext.algorithm.value_models.CategoricalReturns`,
        :class:`~sb3_dqn_ext.algorithm.value_models.QuantileReturns`,
        :class:`~sb3_dqn_ext.algorithm.value_models.ImplicitQuantileReturns` and
        :class:`~sb3_dqn_ext.algorithm.value_models.HLGaussReturns`
    :param loss: the loss of expected returns: ``"huber"`` (default) or ``"mse"``; the other return models define their losses
    :param auxiliary_loss: a loss that is added to that of the returns. ``"large_margin"``: the loss of demonstrations of DQfD
        (Hester et al., 2018, https://arxiv.org/abs/1704.03732); ``"cql"``: the regularizer of conservative Q-learning (Kumar
        et al., 2020, https://arxiv.org/abs/2006.04779); or your own
        :class:`~sb3_dqn_ext.algorithm.auxiliary_losses.AuxiliaryLoss`; None (default): no such loss
    :param auxiliary_loss_kwargs: the arguments of that loss: ``{"margin": 0.8, "weight": 1.0}`` or ``{"alpha": 1.0}``
    :param noisy: whether the linear layers of trunk and head are noisy (Fortunato et al., 2018,
        https://arxiv.org/abs/1706.10295). New noise is drawn for each batch and each step of the environments; deterministic
        predictions have no noise
    :param noisy_kwargs: the arguments of the noisy layers: ``{"sigma0": 0.5}``
    :param fitted_actions: the actions in the loss. ``"taken"``: the action of each transition; ``"all"``: all actions, where
        the targets of the others are the target network's predictions, and the loss is the mean (expected returns only)
    :param dtype: the precision of the network: ``"float32"`` or ``"float64"``; the replay buffer keeps its precision
    :param init: the initial weights. ``"torch"``: torch's defaults; ``"keras"``: Glorot uniform weights and zero biases
    :param batch_norm: whether the layers of the trunk, and no others, have batch normalisation (Ioffe and Szegedy, 2015,
        https://arxiv.org/abs/1502.03167); for all hidden layers, take ``norm="batch"``
    :param optimizer_per_head: whether each head of ``multi_head`` has its own optimizer, over the trunk and that head. An
        update then makes one gradient step for each action in the batch, with the transitions of that action
    :param encoder: the layers that map images to features, before the trunk. ``"nature"``: three convolutions for 84 x 84
        pixels, as in SB3; ``"minatar"``: one convolution, for 10 x 10 pixels; ``"small"``: three small convolutions, for about
        42 x 42 pixels; ``"impala"``: a residual network; or your own subclass of
        :class:`~sb3_dqn_ext.networks.encoders.Encoder`; None (default): the ``features_extractor_class``. The default of
        ``net_arch`` is then [], and [64, 64] for Dict observations, whose images are encoded
    :param encoder_kwargs: the arguments of the encoder: ``{"features_dim": 256, "channels": "last"}``, and ``width``, ``pool``
        and ``residual_norm`` of ``"impala"``
    :param norm: the normalisation of all hidden layers of encoder, trunk and head, before the activation. ``"none"``;
        ``"layer"``: layer normalisation; ``"batch"``: batch normalisation; ``"spectral"``: weights of spectral norm 1 (Miyato
        et al., 2018, https://arxiv.org/abs/1802.05957); or your own :class:`~sb3_dqn_ext.networks.norms.Norm`, for example a
        function
    :param action_masks: whether observations are a Dict with the part ``action_mask``, which marks the legal actions. Other
        actions are never chosen and never part of a target. The network reads the other parts; a single one is read by
        ``MlpPolicy`` or ``CnnPolicy``. See :class:`sb3_dqn_ext.envs.ActionMaskInObservation`
    :raises ArgumentError: if an argument is not allowed, or two of them exclude each other
    """

    head: Any = "shared"
    head_arch: list[int] | None = None
    returns: Any = "expected"
    returns_kwargs: Mapping[str, Any] | None = None
    loss: Any = None
    noisy: bool = False
    noisy_kwargs: Mapping[str, Any] | None = None
    fitted_actions: str = "taken"
    dtype: str = "float32"
    init: str = "torch"
    batch_norm: bool = False
    optimizer_per_head: bool = False
    encoder: Any = None
    encoder_kwargs: Mapping[str, Any] | None = None
    norm: Any = "none"
    auxiliary_loss: Any = None
    auxiliary_loss_kwargs: Mapping[str, Any] | None = None
    action_masks: bool = False

    def __post_init__(self) -> None:
        for name in MAPPINGS:
            check_type(name, getattr(self, name), Mapping | None, "a mapping of arguments")
        for name in FLAGS:
            check_type(name, getattr(self, name), bool, "True or False")
        source = "where masks are found is an argument of sb3_dqn_ext.envs.ActionMaskInObservation"
        check_type("action_masks", self.action_masks, bool, f"True or False; {source}")
        check_arch("head_arch", self.head_arch)
        HEAD.find(self.head)
        choose("dtype", self.dtype, DTYPES, DTYPE_SYNONYMS)
        choose("init", self.init, INITS, INIT_SYNONYMS)
        choose("fitted_actions", self.fitted_actions, FITS)
        if self.fitted_actions != "taken" and not _is(RETURNS.find(self.returns), ExpectedReturns):
            raise ArgumentError(f"fitted_actions={self.fitted_actions!r} needs returns='expected', not {self.returns!r}.")
        self._check_noise()
        self._check_encoder()
        if self.optimizer_per_head:
            self._check_optimizer_per_head()

    def _check_noise(self) -> None:
        kwargs = self.noisy_kwargs or {}
        if not self.noisy and kwargs:
            raise ArgumentError(f"noisy_kwargs={dict(kwargs)!r} has no effect beside noisy=False; leave one out.")
        check_keys("noisy_kwargs", kwargs, {"sigma0"})
        check_number("sigma0", kwargs.get("sigma0", 0.5), low=0)

    def _check_encoder(self) -> None:
        if self.encoder is None and self.encoder_kwargs:
            raise ArgumentError(f"encoder_kwargs={dict(self.encoder_kwargs)!r} has no effect without encoder; give one.")
        if self.encoder is not None and not isinstance(ENCODER.find(self.encoder), type):
            raise ArgumentError(
                f"encoder={self.encoder!r} is an object; give its class, with its arguments in encoder_kwargs."
            )
        if NORM.find(self.norm) is not no_norm and self.batch_norm:
            raise ArgumentError(f"norm={self.norm!r} and batch_norm=True are two normalisations of the trunk; leave one out.")

    def _check_optimizer_per_head(self) -> None:
        if not _is(HEAD.find(self.head), MultiHead):
            raise ArgumentError(f"optimizer_per_head=True needs head='multi_head', not {self.head!r}.")
        if self.fitted_actions != "taken":
            raise ArgumentError(f"optimizer_per_head=True needs fitted_actions='taken', not {self.fitted_actions!r}.")
        if self.batch_norm or NORM.find(self.norm) is batch_norm:
            raise ArgumentError(
                "optimizer_per_head=True needs a network without batch normalisation: a batch may hold a single transition "
                "of an action."
            )

    @property
    def sigma0(self) -> float | None:
        """The initial noise of the linear layers of trunk and head; None if they are not noisy."""
        return float((self.noisy_kwargs or {}).get("sigma0", 0.5)) if self.noisy else None

    @property
    def torch_dtype(self) -> th.dtype:
        """The precision of the network."""
        return DTYPES[self.dtype]

    @property
    def fit(self) -> Fit:
        """The function that computes losses and TD errors."""
        return FITS[self.fitted_actions]
