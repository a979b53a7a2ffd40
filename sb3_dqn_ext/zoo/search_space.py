"""The search space of ``-optimize``: the zoo's space for DQN, extended by the choices of this package."""

from collections.abc import Callable
from typing import Any

from sb3_dqn_ext._arguments import TARGET_DEFAULTS
from sb3_dqn_ext.algorithm.target_policies import TARGET_POLICIES
from sb3_dqn_ext.algorithm.value_models import RETURN_MODELS
from sb3_dqn_ext.algorithm.value_models.expected import LOSSES
from sb3_dqn_ext.networks.heads import HEADS
from sb3_dqn_ext.replay.samplers import SAMPLERS

TrialParams = dict[str, Any]
ParamsConverter = Callable[[TrialParams], TrialParams]
ParamsSampler = Callable[[Any, int, int, TrialParams], TrialParams]

# The zoo's space samples the arguments of epsilon-greedy exploration and of hard target updates in environment steps. These
# arguments replace those of the configuration file, whose schedule or tau would contradict the sampled ones. So do the
# arguments of the sampled target policy, which can be another one than that of the file.
EPSILON_GREEDY = {"exploration": "epsilon_greedy", "exploration_kwargs": {}}
HARD_TARGETS = {"tau": 1.0, "target_update_unit": "env_steps"}
SOFT_TARGETS = {"target_update_interval": 1, "target_update_unit": "gradient_steps"}

# Without the return models whose bounds depend on the rewards of the environment.
SEARCHED_RETURNS = sorted(set(RETURN_MODELS) - {"categorical", "hl_gauss"})

SEARCHED_NORMS = ["layer", "none"]
SEARCHED_OPTIMIZERS = ["adam", "radam", "rmsprop"]

DQN_EXT_PARAMS = (
    *("target_policy", "head", "returns", "loss", "n_steps", "sampler", "terminal_copies", "soft_targets", "tau"),
    *("norm", "optimizer_class", "lambda_returns", "td_lambda"),
)


def make_hyperparameter_sampler(dqn_sampler: ParamsSampler) -> ParamsSampler:
    """
    Return the zoo's sampler of hyperparameters for ``dqn_ext``.

    :param dqn_sampler: the zoo's sampler for ``dqn``
    :return: a function of (Optuna's trial, number of actions, number of environments, further arguments of the zoo) that
        returns arguments of ``DQNExt``
    """

    def sample(trial: Any, n_actions: int, n_envs: int, additional_args: TrialParams) -> TrialParams:
        converted = dqn_sampler(trial, n_actions, n_envs, additional_args)
        params = {
            "target_policy": trial.suggest_categorical("target_policy", sorted(TARGET_POLICIES)),
            "head": trial.suggest_categorical("head", sorted(HEADS)),
            "returns": trial.suggest_categorical("returns", SEARCHED_RETURNS),
            "soft_targets": trial.suggest_categorical("soft_targets", [False, True]),
        }
        if params["returns"] == "expected":  # other return models define their own loss
            params["loss"] = trial.suggest_categorical("loss", sorted(LOSSES))
        if params["soft_targets"]:
            params["tau"] = trial.suggest_float("tau", 1e-3, 0.1, log=True)
        if not additional_args.get("using_her_replay_buffer"):  # its buffer has no samplers and no n-step returns
            params["n_steps"] = trial.suggest_int("n_steps", 1, 5)
            # Such a batch is a multiple of the number of environments, and the smallest batch of the zoo has 4 transitions.
            samplers = sorted(name for name in SAMPLERS if name != "vector_steps" or 4 % n_envs == 0)
            params["sampler"] = trial.suggest_categorical("sampler", samplers)
            params["terminal_copies"] = trial.suggest_int("terminal_copies", 1, 4)
        # new parameters come last, and the values of none change, so that stored studies can be continued
        params["norm"] = trial.suggest_categorical("norm", SEARCHED_NORMS)
        params["optimizer_class"] = trial.suggest_categorical("optimizer_class", SEARCHED_OPTIMIZERS)
        allows_lambda = params.get("n_steps") == 1 and params["target_policy"] == "greedy"
        if allows_lambda and trial.suggest_categorical("lambda_returns", [False, True]):
            params["td_lambda"] = trial.suggest_float("td_lambda", 0.3, 0.98)
        return _merge_arguments(converted, params)

    return sample


def make_converter(dqn_converter: ParamsConverter) -> ParamsConverter:
    """
    Return the zoo's converter of stored parameters for ``dqn_ext``.

    :param dqn_converter: the zoo's converter for ``dqn``
    :return: a function of the parameters of a trial, as a study stores them, that returns arguments of ``DQNExt``
    """

    def convert(params: TrialParams) -> TrialParams:
        zoo_params = {key: value for key, value in params.items() if key not in DQN_EXT_PARAMS}
        return _merge_arguments(dqn_converter(zoo_params), params)

    return convert


def _merge_arguments(converted: TrialParams, params: TrialParams) -> TrialParams:
    """Merge the arguments that the zoo has made from its own parameters with those for ``DQN_EXT_PARAMS``."""
    network = _select(params, "head", "norm", "returns", "loss", "optimizer_class")
    if "head" in network:
        network["head_arch"] = [] if network["head"] == "shared" else [64]
    replay_buffer = _select(params, "sampler", "terminal_copies", "td_lambda")
    targets = SOFT_TARGETS | _select(params, "tau") if params.get("soft_targets") else HARD_TARGETS
    if "td_lambda" in params:  # such a trial never reads the target network
        targets = TARGET_DEFAULTS
    arguments = {**converted, **EPSILON_GREEDY, **targets, **_select(params, "target_policy", "n_steps")}
    if "target_policy" in arguments:
        arguments["target_policy_kwargs"] = {}
    arguments["policy_kwargs"] = {**converted.get("policy_kwargs", {}), **network}
    if replay_buffer:
        arguments["replay_buffer_kwargs"] = {**converted.get("replay_buffer_kwargs", {}), **replay_buffer}
    return arguments


def _select(params: TrialParams, *names: str) -> TrialParams:
    """Select parameters by name, except those that an older study, or a study of ``dqn``, does not contain."""
    return {name: params[name] for name in names if name in params}
