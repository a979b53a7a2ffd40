"""The Q-network: features, a head, and a return model that reads the Q-values out of the head's numbers."""

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

from sb3_dqn_ext.algorithm.predictions import Phase, Prediction, is_sampling, stochastic_predictions
from sb3_dqn_ext.algorithm.value_models import ReturnModel
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.config import NetworkConfig
from sb3_dqn_ext.networks.flat_storage import separate_parameters
from sb3_dqn_ext.networks.heads import HEADS, HeadSizes
from sb3_dqn_ext.networks.hooks import is_instrumented
from sb3_dqn_ext.networks.init import INITS
from sb3_dqn_ext.networks.noisy import make_noisy, noisy_layers
from sb3_dqn_ext.networks.preprocessing import image_keys, preprocess

__all__ = ["QNetwork"]


class _Call(threading.local):
    """The call of a network by the current thread, of which a user's ``forward`` gets observations only."""

    purpose: Phase | None = None
    """the use of the prediction; None outside of :meth:`QNetwork.predict_returns`"""
    compute_prediction: Prediction | None = None
    """the parameters that the call has computed"""


_call = _Call()


class QNetwork(SB3QNetwork):
    """
    Q-network whose head has K outputs per action, out of which a return model reads the Q-values.

    Called by itself it is deterministic; noise is drawn, and quantile fractions too, within
    :func:`~sb3_dqn_ext.algorithm.predictions.stochastic_predictions`.

    :param observation_space: Observation space
    :param action_space: Action space
    :param features_extractor: features extractor
    :param features_dim: number of features
    :param net_arch: sizes of the hidden layers that all actions share
    :param activation_fn: Activation function
    :param normalize_images: whether to divide images by 255
    :param config: the choice of head, precision, initial weights, noise and normalisation
    :param return_model: the meaning of the K numbers
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
        self.config = config
        self.return_model = return_model
        self.n_actions = int(action_space.n)
        head_arch = list(config.head_arch or [])
        sizes = HeadSizes(
            features_dim, self.n_actions, return_model.n_params, net_arch, head_arch, activation_fn, config.batch_norm
        )
        self.embedding = return_model.embedding(sizes.hidden_dim)
        if config.head == "shared" and head_arch and self.embedding is None:
            raise ArgumentError(f"head_arch={head_arch!r} has no effect with head='shared'; write the layers into net_arch.")
        if config.batch_norm and not net_arch:
            raise ArgumentError("batch_norm=True has no effect on a trunk without layers; give net_arch, for example [64].")
        self.q_net = HEADS[config.head](sizes)  # type: ignore[assignment]
        if config.sigma0 is not None:
            make_noisy(self.q_net, config.sigma0)
        self.apply(INITS[config.init])
        self.dtype = config.torch_dtype
        self.to(self.dtype)
        self._is_vector = isinstance(observation_space, spaces.Box) and len(observation_space.shape) == 1
        self._images = image_keys(observation_space)
        self.find_noisy_layers()

    def find_noisy_layers(self) -> None:
        """Find the layers to draw noise for; again after a user has replaced some."""
        self.noisy_layers = noisy_layers(self.q_net)
        self.is_stochastic = bool(self.noisy_layers) or self.embedding is not None

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        """(B, \\*obs) observations -> (B, F) features."""
        is_plain = self._is_vector and type(features_extractor) is FlattenExtractor
        if is_plain and not is_instrumented(features_extractor) and not is_instrumented(cast(Any, features_extractor).flatten):
            return cast(th.Tensor, obs).to(self.dtype)  # which is flat
        inputs = preprocess(obs, self.observation_space, self._images if self.normalize_images else (), self.dtype)
        features: th.Tensor = features_extractor(inputs)
        return features

    def compute_prediction(self, obs: PyTorchObs, purpose: Phase = "policy") -> Prediction:
        """
        :param obs: (B, \\*obs) observations
        :param purpose: the use of the prediction, which decides the number of quantile fractions
        :return: (B, A, K) parameters
        """
        assert self.features_extractor is not None
        features = self.extract_features(obs, self.features_extractor)
        head: Any = self.q_net
        if self.embedding is None:
            return Prediction(head(features) if is_instrumented(head) else head.forward(features))  # a call takes longer
        taus: list[th.Tensor] = []
        embedding: Callable[[th.Tensor], th.Tensor] = self.embedding

        def embedded(hidden: th.Tensor) -> th.Tensor:
            """(B, H) -> (B * N, H)"""
            fractions.append(self.return_model.taus(hidden, purpose, is_sampling(self)))  # (B, N)
            return (hidden.unsqueeze(1) * embedding(fractions[0])).flatten(0, 1)

        answers = head(features, embedded)  # (B * N, A, 1)
        return Prediction(answers.view(*fractions[0].shape, self.n_actions).transpose(1, 2), fractions[0])

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """(B, \\*obs) observations -> (B, A) Q-values."""
        if _call.purpose is None:
            return self.return_model.mean(self.compute_prediction(obs))
        _call.compute_prediction = self.compute_prediction(obs, _call.purpose)
        return self.return_model.mean(_call.compute_prediction)

    def predict_returns(self, obs: PyTorchObs, purpose: Phase) -> Prediction:
        """
        Predict as :meth:`params` does. Hooks and a ``forward`` of a user's take part: the Q-values are those that a call
        returns, the distributions those that were computed for it.

        :param obs: (B, \\*obs) observations
        :param purpose: the use of the prediction
        :return: (B, A, K) parameters
        """
        if type(self).forward is QNetwork.forward and not is_instrumented(self):
            return self.compute_prediction(obs, purpose)
        _call.purpose, _call.compute_prediction = purpose, None
        try:
            q_values = self(obs)
            params = _call.compute_prediction
        finally:
            _call.purpose = _call.compute_prediction = None
        if params is None or (params.taus is None and self.return_model.n_params == 1):
            return Prediction(q_values.unsqueeze(-1))
        return params._replace(q_values=q_values if params.taus is None else None)

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
