"""The Q-network: a features extractor, a head, and a return model that computes Q-values from the head's outputs."""

import threading
from collections.abc import Callable
from typing import Any, cast

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import QNetwork as SB3QNetwork
from torch import nn

from sb3_dqn_ext.algorithm.action_masks import legal_actions, mask_q_values, without_mask
from sb3_dqn_ext.algorithm.predictions import Phase, Prediction, is_sampling, stochastic_predictions
from sb3_dqn_ext.algorithm.value_models import ReturnModel
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.config import NetworkConfig
from sb3_dqn_ext.networks.flat_storage import separate_parameters
from sb3_dqn_ext.networks.heads import HEAD, HeadSizes, SharedHead, make_head
from sb3_dqn_ext.networks.hooks import is_instrumented
from sb3_dqn_ext.networks.init import INITS
from sb3_dqn_ext.networks.noisy import make_noisy, noisy_layers
from sb3_dqn_ext.networks.norms import batch_norm, make_norm, no_norm
from sb3_dqn_ext.networks.preprocessing import image_keys, preprocess
from sb3_dqn_ext.networks.spectral_norm import estimate_spectral_norms

__all__ = ["QNetwork"]


class _ForwardContext(threading.local):
    """
    The arguments and the result of a call for the current thread, since ``forward`` has only observations as its argument.
    """

    phase: Phase | None = None
    """The use of the prediction; None outside of :meth:`QNetwork.predict_returns`."""
    prediction: Prediction | None = None
    """The prediction that the call has computed."""


_forward_context = _ForwardContext()


class QNetwork(SB3QNetwork):
    """
    A Q-network with K outputs per action, from which a return model computes the Q-values.

    It is deterministic outside of :func:`~sb3_dqn_ext.algorithm.predictions.stochastic_predictions`. Within, its noise and its
    quantile fractions are random. With ``config.action_masks``, its Q-values of illegal actions are
    :data:`~sb3_dqn_ext.algorithm.action_masks.ILLEGAL_VALUE`.

    :param observation_space: the observation space
    :param action_space: the action space
    :param features_extractor: the features extractor
    :param features_dim: F, the number of features
    :param net_arch: the sizes of the hidden layers that all actions share
    :param activation_fn: the activation function
    :param normalize_images: whether images are divided by 255
    :param config: the choice of head, precision, initial weights, noise and normalisation
    :param return_model: the model of the return, with K outputs per action
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
        config: NetworkConfig,
        return_model: ReturnModel,
    ) -> None:
        # not SB3QNetwork's constructor, which would build other layers and draw from torch's generator
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
        self.config = config
        self.return_model = return_model
        self.n_actions = int(action_space.n)
        head_arch = list(config.head_arch or [])
        norm = make_norm(config.norm)
        layers = net_arch, head_arch, activation_fn, norm, batch_norm if config.batch_norm else norm
        sizes = HeadSizes(features_dim, self.n_actions, return_model.n_params, *layers)
        self.embedding = return_model.embedding(sizes.hidden_dim)
        if HEAD.find(config.head) is SharedHead and head_arch and self.embedding is None:
            raise ArgumentError(f"head_arch={head_arch!r} has no effect with head='shared'; write the layers into net_arch.")
        if config.batch_norm and not net_arch:
            raise ArgumentError("batch_norm=True has no effect on a trunk without layers; give net_arch, for example [64].")
        if not net_arch and not head_arch and config.encoder is None and sizes.norm is not no_norm:
            raise ArgumentError(f"norm={config.norm!r} has no effect on a network without hidden layers; give net_arch.")
        self.q_net = make_head(config.head, sizes)  # type: ignore[assignment]
        if config.sigma0 is not None:
            make_noisy(self.q_net, config.sigma0)
        self.apply(INITS[config.init])
        self.dtype = config.torch_dtype
        self.to(self.dtype)
        estimate_spectral_norms(self)
        self.action_masks = config.action_masks
        self.input_space: spaces.Space[Any] = without_mask(observation_space) if self.action_masks else observation_space
        self._is_vector = isinstance(self.input_space, spaces.Box) and len(self.input_space.shape) == 1
        self._images = image_keys(self.input_space)
        self.find_noisy_layers()

    def find_noisy_layers(self) -> None:
        """Find the noisy layers. It is called again after a user has replaced layers."""
        self.noisy_layers = noisy_layers(self.q_net)
        self.is_stochastic = bool(self.noisy_layers) or self.embedding is not None

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        """
        Preprocess observations, and extract features from them. Flat vectors are only converted to the dtype of the network if
        the extractor is SB3's FlattenExtractor.

        :param obs: (B, \\*obs) observations
        :param features_extractor: the features extractor
        :return: (B, F) features
        """
        if self.action_masks:
            obs = without_mask(obs)
        is_plain = self._is_vector and type(features_extractor) is FlattenExtractor
        if is_plain and not is_instrumented(features_extractor) and not is_instrumented(cast(Any, features_extractor).flatten):
            return cast(th.Tensor, obs).to(self.dtype)  # flat already
        inputs = preprocess(obs, self.input_space, self._images if self.normalize_images else (), self.dtype)
        features: th.Tensor = features_extractor(inputs)
        return features

    def compute_prediction(self, obs: PyTorchObs, phase: Phase = "policy") -> Prediction:
        """
        Predict the returns of all actions, without the hooks of this network. See :meth:`predict_returns`.

        :param obs: (B, \\*obs) observations
        :param phase: the use of the prediction, on which the number of quantile fractions depends
        :return: (B, A, K) distribution parameters
        """
        assert self.features_extractor is not None
        features = self.extract_features(obs, self.features_extractor)
        head: Any = self.q_net
        if self.embedding is None:
            return Prediction(head(features) if is_instrumented(head) else head.forward(features))  # faster than a call
        taus: list[th.Tensor] = []
        embedding: Callable[[th.Tensor], th.Tensor] = self.embedding

        def embed_taus(hidden: th.Tensor) -> th.Tensor:
            """Multiply the (B, H) hidden vector with the embeddings of N fractions: (B * N, H)."""
            taus.append(self.return_model.taus(hidden, phase, is_sampling(self)))  # (B, N)
            return (hidden.unsqueeze(1) * embedding(taus[0])).flatten(0, 1)

        outputs = head(features, embed_taus)  # (B * N, A, 1)
        return Prediction(outputs.view(*taus[0].shape, self.n_actions).transpose(1, 2), taus[0])

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """Compute (B, A) Q-values from (B, \\*obs) observations."""
        if _forward_context.phase is None:
            return self._q_values(self.compute_prediction(obs), obs)
        _forward_context.prediction = self.compute_prediction(obs, _forward_context.phase)
        return self._q_values(_forward_context.prediction, obs)

    def _q_values(self, prediction: Prediction, obs: PyTorchObs) -> th.Tensor:
        return mask_q_values(self.return_model.mean(prediction), legal_actions(self, obs))

    def predict_returns(self, obs: PyTorchObs, phase: Phase) -> Prediction:
        """
        Predict the returns of all actions for training.

        Without hooks and without a user's ``forward``, the prediction is computed directly. Otherwise the network is called as
        a module, so that the hooks and the user's ``forward`` take effect: the Q-values are the result of this call, and the
        distribution is the one that was computed during the call.

        :param obs: (B, \\*obs) observations
        :param phase: the use of the prediction
        :return: (B, A, K) distribution parameters, or (B, A, 1) Q-values
        """
        if type(self).forward is QNetwork.forward and not is_instrumented(self):
            return self.compute_prediction(obs, phase)
        _forward_context.phase, _forward_context.prediction = phase, None
        try:
            q_values = self(obs)
            prediction = _forward_context.prediction
        finally:
            _forward_context.phase = _forward_context.prediction = None
        if prediction is None or (prediction.taus is None and self.return_model.n_params == 1):
            return Prediction(q_values.unsqueeze(-1))
        return prediction._replace(q_values=q_values if prediction.taus is None else None)

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        if deterministic or not self.is_stochastic:
            return self(observation).argmax(dim=1)  # type: ignore[no-any-return]
        with stochastic_predictions(self):
            return self(observation).argmax(dim=1)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        separate_parameters(list(self.parameters()))
        return vars(self)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"config": self.config, "return_model": self.return_model}
