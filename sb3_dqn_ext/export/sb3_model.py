"""Export to Stable-Baselines3: a file that the ``load`` of its DQN, or of sb3-contrib's QRDQN, opens without this package."""

import base64
import importlib
import io
import json
import pickletools
import re
import warnings
import zipfile
from typing import Any

import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.dqn.policies import DQNPolicy

from sb3_dqn_ext._validation import parameters_of
from sb3_dqn_ext.algorithm.value_models import ExpectedReturns, QuantileReturns
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks, q_values
from sb3_dqn_ext.errors import ArgumentError, UnsupportedError
from sb3_dqn_ext.export.predictions import check_predictions, sample_observations
from sb3_dqn_ext.networks.config import NetworkConfig
from sb3_dqn_ext.networks.encoders import NatureEncoder
from sb3_dqn_ext.networks.heads import HEAD, SharedHead
from sb3_dqn_ext.networks.norms import NORM, no_norm
from sb3_dqn_ext.networks.policies import CnnPolicy, MlpPolicy, MultiHeadPolicy, MultiInputPolicy
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.rng import rng_preserved

__all__ = ["to_sb3"]

POLICIES = {
    MlpPolicy: "MlpPolicy",
    CnnPolicy: "CnnPolicy",
    MultiInputPolicy: "MultiInputPolicy",
    MultiHeadPolicy: "MlpPolicy",
}
"""The names of SB3's policies with the same features extractors."""
POLICY_ARGUMENTS = ("net_arch", "activation_fn", "normalize_images", "optimizer_class", "optimizer_kwargs")
DURING_SETUP = {"buffer_size": 1, "n_envs": 1, "n_steps": 1, "optimize_memory_usage": False, "seed": None}
"""Values with which a model is built in little memory, without a change of the process's generators."""
LOSSES = ("loss", "fitted_actions")
"""The arguments of the network that only training depends on."""
N_SAMPLES = 4


def to_sb3(model: Any) -> bytes:
    """
    Return a model as a file of SB3's DQN or, with quantile returns, of sb3-contrib's QRDQN.

    :param model: a DQNExt
    :raises ArgumentError: if the algorithms have no such network, or the file would need this package
    """
    check_network(model.policy)
    observations = sample_observations(model.observation_space, N_SAMPLES)
    with rng_preserved():
        theirs = converted(model)
        file = io.BytesIO()
        theirs.save(file)
        check_independent(file)
        loaded = type(theirs).load(file, device="cpu", buffer_size=1, replay_buffer_class=None, replay_buffer_kwargs={})
    online, _ = find_networks(loaded, "export")
    with th.no_grad():
        q = q_values(online, loaded.policy.obs_to_tensor(observations)[0]).numpy()
    check_predictions(model, observations, q, loaded.predict(observations, deterministic=True)[0], type(theirs).__name__)
    lost = lost_choices(model)
    if lost:
        warnings.warn(f"{type(theirs).__name__} would continue a training without {', '.join(lost)}.", stacklevel=4)
    return file.getvalue()


def check_network(policy: Any) -> None:
    """
    Check that a network is one of SB3's DQN or sb3-contrib's QRDQN.

    :param policy: a policy of this package, or one of SB3's DQN
    :raises UnsupportedError: if it is not; the message contains all reasons
    """
    if not isinstance(policy, DQNPolicy) or (isinstance(policy, MlpPolicy) and type(policy) not in POLICIES):
        raise UnsupportedError(f"policy={type(policy).__name__} is no policy of SB3's DQN. Export the model to='onnx'.")
    differing = differences(policy) if isinstance(policy, MlpPolicy) else []
    if differing:
        raise UnsupportedError(
            f"{', '.join(differing)}: neither SB3's DQN nor sb3-contrib's QRDQN has such a network. Export the model "
            "to='onnx', or train it without."
        )


def differences(policy: MlpPolicy) -> list[str]:
    """
    Return the arguments with which a network is not one of SB3's or sb3-contrib's.

    :param policy: a policy of this package
    :return: names and values
    """
    config = policy.config
    same = {
        "head": HEAD.find(config.head) is SharedHead,
        "returns": type(policy.return_model) in (ExpectedReturns, QuantileReturns),
        "noisy": not config.noisy,
        "dtype": config.torch_dtype is th.float32,
        "batch_norm": not config.batch_norm,
        "norm": NORM.find(config.norm) is no_norm,
        "encoder": config.encoder is None or is_nature(policy),
    }
    return [f"{name}={getattr(config, name)!r}" for name, is_same in same.items() if not is_same]


def is_nature(policy: MlpPolicy) -> bool:
    """Return whether the encoder of a policy is SB3's NatureCNN."""
    encoder, space = policy.q_net.features_extractor, policy.observation_space
    is_same = type(encoder) is NatureEncoder and not encoder.channels_last and len(encoder.linear) > 0
    return is_same and is_image_space(space, normalized_image=not policy.normalize_images)


def converted(model: Any) -> Any:
    """
    Make a DQN or a QRDQN with the attributes, the networks and the state of the optimizer of a model.

    :param model: a DQNExt with a network of SB3's
    """
    algorithm = algorithm_of(model.policy)
    policy = POLICIES.get(type(model.policy), type(model.policy))
    theirs = algorithm(policy, None, policy_kwargs=policy_arguments(model.policy), device="cpu", _init_setup_model=False)
    shared = shared_attributes(model, theirs)
    vars(theirs).update(shared | DURING_SETUP)
    theirs._setup_model()
    vars(theirs).update(shared | replay_arguments(model))
    name = "quantile_net" if hasattr(theirs.policy, "quantile_net") else "q_net"
    parameters = {re.sub(r"\bq_net", name, key): tensor for key, tensor in model.policy.state_dict().items()}
    theirs.policy.load_state_dict(parameters)
    theirs.policy.optimizer.load_state_dict(model.policy.optimizer.state_dict())
    return theirs


def algorithm_of(policy: Any) -> Any:
    """
    Return the algorithm with the networks of a policy.

    :param policy: a policy
    :raises UnsupportedError: if it is QRDQN, and sb3-contrib is not installed
    """
    if not isinstance(policy, MlpPolicy) or type(policy.return_model) is ExpectedReturns:
        return DQN
    try:
        return importlib.import_module("sb3_contrib").QRDQN
    except ImportError as error:
        raise UnsupportedError("returns='quantile' is exported to sb3-contrib's QRDQN: pip install sb3-contrib") from error


def policy_arguments(policy: Any) -> dict[str, Any]:
    """Return the arguments with which SB3's policy builds the network of a policy."""
    arguments = {name: getattr(policy, name) for name in POLICY_ARGUMENTS}
    extractor: type[BaseFeaturesExtractor] = policy.features_extractor_class
    kwargs = dict(policy.features_extractor_kwargs)
    if extractor is NatureEncoder:
        extractor, kwargs = NatureCNN, {"features_dim": policy.q_net.features_dim}
    arguments |= {"features_extractor_class": extractor, "features_extractor_kwargs": kwargs}
    is_quantile = isinstance(policy, MlpPolicy) and isinstance(policy.return_model, QuantileReturns)
    return arguments | ({"n_quantiles": policy.return_model.n_params} if is_quantile else {})


def shared_attributes(model: Any, theirs: Any) -> dict[str, Any]:
    """Return the attributes of a model that a model of SB3 has, too, except for what is built from them."""
    built = {*theirs._excluded_save_params(), "policy_class", "policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs"}
    spaces = {"observation_space", "action_space"}
    return {name: value for name, value in vars(model).items() if name in (vars(theirs).keys() | spaces) - built}


def replay_arguments(model: Any) -> dict[str, Any]:
    """Return the replay buffer's class and its arguments, without those that only the replay buffer of this package has."""
    kind, kwargs = model.replay_buffer_class, model.replay_buffer_kwargs
    if isinstance(kind, type) and not issubclass(kind, DQNReplayBuffer):
        return {"replay_buffer_class": kind, "replay_buffer_kwargs": kwargs}
    of_sb3 = parameters_of(ReplayBuffer).keys() - {"device"}  # here, it is where frames are stored
    kept = {name: value for name, value in dict(kwargs or {}).items() if name in of_sb3}
    return {"replay_buffer_class": None, "replay_buffer_kwargs": kept}


def check_independent(file: io.BytesIO) -> None:
    """
    Check that a file can be loaded where this package is not installed.

    :param file: a file of SB3
    :raises ArgumentError: if an attribute is an object of this package
    """
    with zipfile.ZipFile(file) as archive:
        data: dict[str, Any] = json.loads(archive.read("data"))
    pickles = {
        name: value[":serialized:"] for name, value in data.items() if isinstance(value, dict) and ":serialized:" in value
    }
    needing = [name for name, text in pickles.items() if needs_this_package(base64.b64decode(text))]
    if needing:
        raise ArgumentError(
            f"{' and '.join(needing)} of the model cannot be loaded without sb3_dqn_ext; set plain values before the export, "
            "for example model.learning_rate = 1e-4."
        )


def needs_this_package(pickled: bytes) -> bool:
    """Return whether a pickle names a module of this package."""
    names = (argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str))
    return any(re.match(r"sb3_dqn_ext(\.| |$)", name) for name in names)


def lost_choices(model: Any) -> list[str]:
    """
    Return the choices of a model that SB3's algorithms do not have, and that only training depends on.

    :param model: a DQNExt
    :return: names and values
    """
    arguments = parameters_of(type(model))
    own = {name: arguments[name].default for name in arguments.keys() - parameters_of(DQN).keys()}
    chosen = {name: getattr(model, name, default) for name, default in own.items()}
    lost = {name: value for name, value in chosen.items() if value not in (own[name], {})}
    config, plain = getattr(model.policy, "config", NetworkConfig()), NetworkConfig()
    losses = {name: getattr(config, name) for name in LOSSES if getattr(config, name) != getattr(plain, name)}
    kept = replay_arguments(model)["replay_buffer_kwargs"] or {}
    buffer = {name: value for name, value in dict(model.replay_buffer_kwargs or {}).items() if name not in kept}
    return [f"{name}={value!r}" for name, value in sorted({**lost, **losses, **buffer}.items())]
