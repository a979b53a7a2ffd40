"""The search space of ``-optimize``: the zoo's space for DQN, and the choices of this package."""

from collections.abc import Callable
from typing import Any

from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.algorithm.value_models.expected import LOSSES
from sb3_dqn_ext.networks.heads import HEADS
from sb3_dqn_ext.replay.samplers import SAMPLERS

TrialParams = dict[str, Any]
ParamsConverter = Callable[[TrialParams], TrialParams]
ParamsSampler = Callable[[Any, int, int, TrialParams], TrialParams]

# The zoo's space has epsilon-greedy exploration, and hard target updates counted in environment steps. Other arguments of a
# configuration are replaced: a schedule would contradict the sampled arguments, and a tau would stay.
EPSILON_GREEDY = {"exploration": "epsilon_greedy", "exploration_kwargs": {}}
HARD_TARGETS = {"tau": 1.0, "target_update_unit": "env_steps"}
SOFT_TARGETS = {"target_update_interval": 1, "target_update_unit": "gradient_steps"}

# The support of categorical returns depends on the environment's rewards, for which a search has no value.
SEARCHED_RETURNS = sorted(set(RETURN_MODELS) - {"categorical"})

DQN_EXT_PARAMS = ("target_policy", "head", "returns", "loss", "n_steps", "sampler", "terminal_copies", "soft_targets", "tau")


def make_sampler(dqn_sampler: ParamsSampler) -> ParamsSampler:
    """
    :param dqn_sampler: the zoo's for ``dqn``
    :return: a function of (Optuna's trial, number of actions, number of environments, the zoo's further arguments) that gives
        arguments of ``DQNExt``
    """

    def sample(trial: Any, n_actions: int, n_envs: int, additional_args: TrialParams) -> TrialParams:
        converted = dqn_sampler(trial, n_actions, n_envs, additional_args)
        params = {
            "target_policy": trial.suggest_categorical("target_policy", sorted(TARGET_POLICIES)),
            "head": trial.suggest_categorical("head", sorted(HEADS)),
            "returns": trial.suggest_categorical("returns", SEARCHED_RETURNS),
            "soft_targets": trial.suggest_categorical("soft_targets", [False, True]),
        }
        if params["returns"] == "expected":  # the others have a loss of their own
            params["loss"] = trial.suggest_categorical("loss", sorted(LOSSES))
        if params["soft_targets"]:
            params["tau"] = trial.suggest_float("tau", 1e-3, 0.1, log=True)
        if not additional_args.get("using_her_replay_buffer"):  # it replays transitions in its own way
            params["n_steps"] = trial.suggest_int("n_steps", 1, 5)
            # a batch of rows is a multiple of the environments, and the zoo's smallest batch holds 4
            samplers = sorted(name for name in SAMPLERS if name != "rows" or 4 % n_envs == 0)
            params["sampler"] = trial.suggest_categorical("sampler", samplers)
            params["terminal_copies"] = trial.suggest_int("terminal_copies", 1, 4)
        return _with_ours(converted, params)

    return sample


def make_converter(dqn_converter: ParamsConverter) -> ParamsConverter:
    """
    :param dqn_converter: the zoo's for ``dqn``
    :return: a function of the parameters that a study stored, which gives arguments of ``DQNExt``
    """

    def convert(params: TrialParams) -> TrialParams:
        theirs = {key: value for key, value in params.items() if key not in DQN_EXT_PARAMS}
        return _with_ours(dqn_converter(theirs), params)

    return convert


def _with_ours(converted: TrialParams, params: TrialParams) -> TrialParams:
    """The arguments that the zoo made of its parameters, and those that ours mean."""
    network = _those(params, "head", "returns", "loss")
    if "head" in network:
        network["head_arch"] = [] if network["head"] == "shared" else [64]
    memory = _those(params, "sampler", "terminal_copies")
    targets = SOFT_TARGETS | _those(params, "tau") if params.get("soft_targets") else HARD_TARGETS
    arguments = {**converted, **EPSILON_GREEDY, **targets, **_those(params, "target_policy", "n_steps")}
    arguments["policy_kwargs"] = {**converted.get("policy_kwargs", {}), **network}
    if memory:
        arguments["replay_buffer_kwargs"] = {**converted.get("replay_buffer_kwargs", {}), **memory}
    return arguments


def _those(params: TrialParams, *names: str) -> TrialParams:
    """Those of the parameters that are there: an older study, or one of plain ``dqn``, lacks some of ours."""
    return {name: params[name] for name in names if name in params}
