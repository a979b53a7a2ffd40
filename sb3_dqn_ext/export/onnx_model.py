"""Export to ONNX: the greedy policy with its preprocessing as one graph."""

import importlib
import io
import warnings
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_dqn_ext._command_line import check_extra
from sb3_dqn_ext._validation import check_type
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks, q_values
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.export.onnx_functions import OnnxFunctions
from sb3_dqn_ext.export.predictions import Observations, check_predictions, sample_observations
from sb3_dqn_ext.networks.preprocessing import image_keys

__all__ = ["to_onnx"]

Array = npt.NDArray[Any]
Prepare = Callable[[th.Tensor], th.Tensor]

OPSET = 18
OUTPUTS = ("q_values", "action")
INPUT = "observation"
"""The name of the input of a policy whose observations are one array."""
N_SAMPLES = 4


class Input(NamedTuple):
    """One input of the graph: the observations, or one part of Dict observations."""

    name: str
    samples: Array
    """(B, \\*part) examples of what the environment returns."""
    prepare: Prepare
    """A function from (B, \\*part) arrays of the environment to those that the policy takes."""


class GreedyPolicy(nn.Module):
    """
    The function that is exported: from observations of the environment to Q-values and greedy actions.

    :param net: the network
    :param inputs: the inputs
    :param is_dict: whether the observations are a dictionary of the inputs
    """

    def __init__(self, net: nn.Module, inputs: list[Input], is_dict: bool) -> None:
        super().__init__()
        self.net, self.inputs, self.is_dict = net, inputs, is_dict
        self.eval()

    def forward(self, *arrays: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Map (B, \\*part) arrays to (B, A) Q-values and (B,) actions."""
        parts = {one.name: one.prepare(array) for one, array in zip(self.inputs, arrays, strict=True)}
        q = q_values(self.net, parts if self.is_dict else parts[INPUT])
        return q, q.argmax(dim=1)


def to_onnx(model: Any, vec_normalize: VecNormalize | None = None, channels_last: bool = False) -> bytes:
    """
    Return a model as an ONNX file, whose predictions have been compared with those of the model.

    :param model: a DQNExt, a DQN of SB3, or a QRDQN of sb3-contrib
    :param vec_normalize: the statistics with which observations are normalised in the graph; None (default): not in the graph
    :param channels_last: whether the inputs are images with channels on the last axis, for images that SB3 transposes
    :raises ArgumentError: if the model cannot be exported, or an argument is wrong
    """
    check_extra("the export to ONNX", "onnx")
    net, _ = find_networks(model, "export")
    raw, normalized = observations_of_env(model, vec_normalize, channels_last)
    parts = raw if isinstance(raw, dict) else {INPUT: raw}
    check_names(parts)
    preparations = {key: preparation(model, key, vec_normalize, channels_last) for key in parts}
    inputs = [Input(key, array, preparations[key]) for key, array in parts.items()]
    model.policy.set_training_mode(False)
    content = traced(GreedyPolicy(net, inputs, isinstance(raw, dict)), model.device)
    check_graph(content, inputs, model, normalized)
    return content


def check_graph(content: bytes, inputs: list[Input], model: Any, normalized: Observations) -> None:
    """
    Check that onnxruntime predicts the same as a model, for batches of several sizes.

    :param content: an ONNX file
    :param inputs: the inputs of its graph
    :param model: the model
    :param normalized: (B, \\*obs) the samples of the inputs, as the model takes them
    :raises UnsupportedError: if it does not
    """
    session = open_session(content)
    for n in (1, N_SAMPLES):
        q, actions = run_session(session, {one.name: one.samples[:n] for one in inputs})
        check_predictions(model, map_observation(itemgetter(slice(n)), normalized), q, actions, "onnxruntime")


def observations_of_env(model: Any, statistics: VecNormalize | None, channels_last: bool) -> tuple[Observations, Observations]:
    """
    Return examples of what the environment returns, and the same after normalisation, which ``predict`` takes.

    :param model: the model
    :param statistics: the statistics of the normalisation; None: there is none
    :param channels_last: whether the channels of images are on the last axis
    :return: (B, \\*obs) observations; (B, \\*obs) normalised observations
    :raises ArgumentError: if the model has no such images, or the statistics are those of other observations
    """
    space = model.observation_space
    samples = sample_observations(space, N_SAMPLES)
    if channels_last:
        samples = with_channels_last(samples, image_keys(space), space)
    if statistics is None:
        return samples, samples
    check_statistics(statistics, space)
    types = map_observation(lambda array: array.dtype, samples)
    raw: Any = statistics.unnormalize_obs(samples)
    raw = {key: raw[key].astype(types[key]) for key in raw} if isinstance(raw, dict) else raw.astype(types)
    return raw, statistics.normalize_obs(raw)


def with_channels_last(samples: Observations, images: set[str | None], space: spaces.Space[Any]) -> Observations:
    """Return observations whose images have their channels on the last axis, as before SB3 has transposed them."""
    if not images:
        raise ArgumentError(f"channels_last=True has no effect: SB3 transposes no image of {space}; leave it out.")
    if isinstance(samples, dict):
        return {key: np.moveaxis(array, 1, -1) if key in images else array for key, array in samples.items()}
    return np.moveaxis(samples, 1, -1)


def check_statistics(statistics: VecNormalize, space: spaces.Space[Any]) -> None:
    """:raises ArgumentError: if they are no statistics of observations of a space"""
    check_type("vec_normalize", statistics, VecNormalize, "a VecNormalize, see VecNormalize.load()")
    if not statistics.norm_obs:
        raise ArgumentError("vec_normalize has no effect: it was made with norm_obs=False; leave it out.")
    parts = space.spaces if isinstance(space, spaces.Dict) else {None: space}
    if isinstance(statistics.obs_rms, dict) != isinstance(space, spaces.Dict):
        raise ArgumentError(f"vec_normalize has statistics of {statistics.observation_space}, and observations are {space}.")
    for key, part in parts.items():
        found = statistics_of(statistics, key)
        if found is not None and found.mean.shape != part.shape:
            raise ArgumentError(f"vec_normalize has statistics of shape {found.mean.shape}, and observations are {part}.")


def statistics_of(statistics: VecNormalize, key: Any) -> RunningMeanStd | None:
    """Return the statistics of the part of observations with a key; None if this part is not normalised."""
    found: Any = statistics.obs_rms
    return found.get(key) if isinstance(found, dict) else found


def check_names(parts: dict[str, Array]) -> None:
    """:raises UnsupportedError: if a part of the observations has the name of an output"""
    for key in parts:
        if key in OUTPUTS:
            raise UnsupportedError(
                f"the key {key!r} of the Dict observations is the name of an output of the graph; rename it."
            )


def preparation(model: Any, key: str, statistics: VecNormalize | None, channels_last: bool) -> Prepare:
    """Return the function that does to one input what wrappers of SB3 do between the environment and the policy."""
    is_dict = isinstance(model.observation_space, spaces.Dict)
    found = None if statistics is None else statistics_of(statistics, key if is_dict else None)
    if statistics is not None and found is not None:
        mean, std = (
            th.as_tensor(array, dtype=th.float64, device=model.device)
            for array in (found.mean, np.sqrt(found.var + statistics.epsilon))
        )
        return partial(normalize, mean=mean, std=std, limit=statistics.clip_obs)
    if channels_last and (key if is_dict else None) in image_keys(model.observation_space):
        return channels_first
    return unchanged


def normalize(array: th.Tensor, mean: th.Tensor, std: th.Tensor, limit: float) -> th.Tensor:
    """Normalise observations as VecNormalize does: ``clip((x - mean) / sqrt(var + epsilon), -limit, limit)``."""
    return ((array.double() - mean) / std).clamp(-limit, limit).float()


def channels_first(images: th.Tensor) -> th.Tensor:
    """Move the last axis of (B, height, width, C) images: (B, C, height, width)."""
    return images.permute(0, 3, 1, 2)


def unchanged(array: th.Tensor) -> th.Tensor:
    """Return the array."""
    return array


def traced(policy: GreedyPolicy, device: th.device) -> bytes:
    """
    Trace a policy, and return its graph as an ONNX file. The size of the batch is a variable of the graph.

    :param policy: the policy
    :param device: the device of its network
    :raises UnsupportedError: if torch cannot export one of its layers
    """
    names = [one.name for one in policy.inputs]
    file = io.BytesIO()
    with warnings.catch_warnings(), OnnxFunctions():
        # torch announces its other exporter, which takes 20 s where this one takes 0.5 s
        warnings.simplefilter("ignore")
        try:
            th.onnx.export(
                policy,
                tuple(th.as_tensor(one.samples, device=device) for one in policy.inputs),
                file,  # type: ignore[arg-type]  # its annotation is that of the other exporter
                input_names=names,
                output_names=list(OUTPUTS),
                dynamic_axes={name: {0: "batch"} for name in (*names, *OUTPUTS)},
                opset_version=OPSET,
                dynamo=False,
            )
        except (th.onnx.errors.OnnxExporterError, RuntimeError, TypeError) as error:
            raise UnsupportedError(f"torch cannot export this network to ONNX: {error}") from error
    return file.getvalue()


def open_session(content: bytes) -> Any:
    """
    Open an ONNX file with onnxruntime.

    :param content: the file
    :return: an ``onnxruntime.InferenceSession``
    :raises UnsupportedError: if onnxruntime lacks an operation of its graph
    """
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors that it prints are raised, too
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each of its errors, and no common one
        raise UnsupportedError(f"onnxruntime cannot evaluate this network: {error}") from error


def run_session(session: Any, arrays: dict[str, Array]) -> tuple[Array, Array]:
    """
    Evaluate a graph.

    :param session: the result of :func:`open_session`
    :param arrays: (B, \\*part) arrays by the names of the inputs
    :return: (B, A) Q-values, (B,) actions
    :raises UnsupportedError: if the graph is not valid for B observations
    """
    try:
        q, actions = session.run(list(OUTPUTS), arrays)
    except Exception as error:  # see above
        n = len(next(iter(arrays.values())))
        raise UnsupportedError(f"the graph of this network is not valid for {n} observations: {error}") from error
    return q, actions
