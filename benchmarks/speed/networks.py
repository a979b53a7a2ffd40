"""The networks of the workloads: one for each name, the same for all implementations."""

from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from benchmarks.speed.workloads import CHANNELS, Workload


class MinAtarCNN(BaseFeaturesExtractor):
    """
    The convolution of the networks of MinAtar (Young and Tian, 2019): 16 filters of 3 x 3 pixels.

    :param observation_space: the space of (height, width, channels) images of zeros and ones
    """

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        height, width, channels = observation_space.shape
        super().__init__(observation_space, CHANNELS * (height - 2) * (width - 2))
        self.layers = nn.Sequential(nn.Conv2d(channels, CHANNELS, kernel_size=3), nn.ReLU(), nn.Flatten())

    def forward(self, images: th.Tensor) -> th.Tensor:
        """
        Compute the features.

        :param images: (B, height, width, channels) images
        :return: (B, F) features
        """
        features: th.Tensor = self.layers(images.permute(0, 3, 1, 2))
        return features


def network_arguments(workload: Workload, implementation: str) -> tuple[Any, dict[str, Any]]:
    """
    Return the policy and its arguments.

    :param workload: the workload
    :param implementation: the name of the implementation
    """
    width, is_sbx = workload.width, implementation == "sbx"  # the policies of SBX take no features extractor
    if workload.network == "mlp":
        return "MlpPolicy", {"net_arch": [width, width]}
    if workload.network == "nature":
        return "CnnPolicy", {"net_arch": [width]} if is_sbx else {}
    if is_sbx:
        from benchmarks.speed.sbx_minatar import MinAtarPolicy  # it imports jax

        return MinAtarPolicy, {"net_arch": [width]}
    if implementation == "sb3":
        return "MlpPolicy", {"features_extractor_class": MinAtarCNN, "net_arch": [width]}
    return "MlpPolicy", {"encoder": "minatar", "encoder_kwargs": {"features_dim": width}}
