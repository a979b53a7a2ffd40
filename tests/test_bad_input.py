"""A wrong word costs ten seconds: one error at construction, which names the argument, its value and what is allowed."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import IdentityEnvBox
from stable_baselines3.dqn import MlpPolicy as SB3MlpPolicy

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.choices import ArgumentError
from sb3_dqn_ext.envs import TerminalPenalty
from tests.parity import dict_cartpole, short_cartpole

SMALL: dict[str, Any] = {"buffer_size": 200, "learning_starts": 5, "batch_size": 8, "seed": 1, "device": "cpu"}


def make(**kwargs: Any) -> DQNExt:
    policy, env = kwargs.pop("policy", "MlpPolicy"), kwargs.pop("env", None) or short_cartpole()
    return DQNExt(policy, env, **(SMALL | kwargs))


class TupleObservations(gym.Env[Any, Any]):
    """An environment whose observations no policy of SB3 can read."""

    observation_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])
    action_space = spaces.Discrete(2)


CASES: list[tuple[dict[str, Any], str]] = [
    ({"target_policy": "ddqn"}, r"target_policy='ddqn' is not known.*double, greedy.*'double'"),
    ({"target_policy_kwargs": {"alpha": 1}}, r"a key of target_policy_kwargs='alpha'"),
    (
        {"target_policy": "munchausen", "target_policy_kwargs": {"tau": 0.1}},
        r"a key of target_policy_kwargs='tau'.*temperature",
    ),
    ({"exploration": "eps_greedy"}, r"exploration='eps_greedy'.*'epsilon_greedy'"),
    ({"exploration_kwargs": {"coins": "shared"}}, r"a key of exploration_kwargs='coins'.*'coin'"),
    ({"exploration_kwargs": {"coin": "per-env"}}, r"coin='per-env'.*'per_env'"),
    ({"exploration_kwargs": {"schedule": {"name": "exponental"}}}, r"'exponental'.*'exponential'"),
    (
        {"exploration_kwargs": {"schedule": 0.1}, "exploration_fraction": 0.5},
        r"exploration_fraction has no effect beside exploration_kwargs\['schedule'\]",
    ),
    ({"target_update_unit": "gradient_step"}, r"target_update_unit='gradient_step'.*'gradient_steps'"),
    ({"tau": 1.5}, r"tau=1.5 must be a finite number in \[0, 1\]"),
    ({"gamma": -0.1}, r"gamma=-0.1 must be a finite number in \[0, 1\]"),
    ({"replay_buffer_kwargs": {"terminal_copy": 2}}, r"'terminal_copy'.*'terminal_copies'"),
    ({"replay_buffer_kwargs": {"n_steps": 3}}, r"a key of replay_buffer_kwargs='n_steps'"),
    (
        {"replay_buffer_class": ReplayBuffer, "replay_buffer_kwargs": {"terminal_copies": 2}},
        r"terminal_copies.*=2 is an argument of DQNReplayBuffer and has no effect on replay_buffer_class=ReplayBuffer",
    ),
    ({"policy_kwargs": {"head": "multihead"}}, r"head='multihead'.*'multi_head'"),
    ({"policy_kwargs": {"head": "multi_head"}}, r"head_arch, for example \[64\]"),
    ({"policy_kwargs": {"head_arch": [8]}}, r"head_arch=\[8\] has no effect with head='shared'"),
    ({"policy_kwargs": {"loss": "hubert"}}, r"loss='hubert'.*'huber'"),
    ({"policy_kwargs": {"returns": "expectd"}}, r"returns='expectd'.*'expected'"),
    ({"policy_kwargs": {"returns": "C51"}}, r"returns='C51' is not known.*'categorical'"),
    ({"policy_kwargs": {"returns": "distributional"}}, r"'categorical'\?"),
    ({"policy_kwargs": {"returns": "qrdqn"}}, r"Did you mean 'quantile'"),
    ({"policy_kwargs": {"returns": "iqn"}}, r"'implicit_quantile'\?"),
    ({"policy_kwargs": {"head": "d3qn"}}, r"head='d3qn' is not known.*'dueling'\?"),
    ({"policy_kwargs": {"head": "action_input"}}, r"head='action_input' needs .* head_arch, for example \[64\]"),
    ({"policy_kwargs": {"returns": "quantile", "head_arch": [8]}}, r"head_arch=\[8\] has no effect with head='shared'"),
    ({"policy_kwargs": {"returns": "categorical"}}, r"returns='categorical' needs .*v_min and v_max"),
    (
        {"policy_kwargs": {"returns": "categorical", "returns_kwargs": {"v_min": 1, "v_max": 1}}},
        r"v_min=1 must be below v_max=1",
    ),
    (
        {"policy_kwargs": {"returns": "categorical", "returns_kwargs": {"v_min": 0, "v_max": 1, "n_atoms": 1}}},
        r"n_atoms=1 must be a whole number in \[2, inf\]",
    ),
    ({"policy_kwargs": {"returns": "quantile", "returns_kwargs": {"n_quantiles": 0}}}, r"n_quantiles=0 must be a whole"),
    ({"policy_kwargs": {"returns": "quantile", "returns_kwargs": {"kappa": -1}}}, r"kappa=-1 must be a finite number"),
    (
        {"policy_kwargs": {"returns": "implicit_quantile", "returns_kwargs": {"n_policy_quantiles": 1.5}}},
        r"n_policy_quantiles=1.5 must be a whole number",
    ),
    (
        {"policy_kwargs": {"returns": "implicit_quantile", "returns_kwargs": {"embeding_dim": 8}}},
        r"a key of returns_kwargs='embeding_dim'.*'embedding_dim'",
    ),
    (
        {"policy_kwargs": {"returns": "quantile", "loss": "mse"}},
        r"loss='mse' has no effect with returns='quantile', which has a loss of its own",
    ),
    (
        {"policy_kwargs": {"returns": "quantile", "fitted_actions": "all"}},
        r"fitted_actions='all' needs returns='expected', not 'quantile'",
    ),
    ({"policy_kwargs": {"fitted_actions": "every"}}, r"fitted_actions='every' is not known; it can be one of: all, taken"),
    ({"policy_kwargs": {"noisy": "yes"}}, r"noisy='yes' must be True or False"),
    ({"policy_kwargs": {"noisy_kwargs": {"sigma0": 0.1}}}, r"noisy_kwargs=.* has no effect beside noisy=False"),
    ({"policy_kwargs": {"noisy": True, "noisy_kwargs": {"sigma": 1}}}, r"a key of noisy_kwargs='sigma'.*'sigma0'"),
    ({"policy_kwargs": {"noisy": True, "noisy_kwargs": {"sigma0": -1}}}, r"sigma0=-1 must be a finite number"),
    ({"policy_kwargs": {"noisy_kwargs": 0.5}}, r"noisy_kwargs=0.5 must be a mapping of arguments"),
    ({"policy_kwargs": {"dtype": "double"}}, r"dtype='double' is not known.*'float64'\?"),
    ({"policy_kwargs": {"init": "glorot"}}, r"init='glorot' is not known.*'keras'\?"),
    ({"policy_kwargs": {"batch_norm": 1}}, r"batch_norm=1 must be True or False"),
    ({"policy_kwargs": {"batch_norm": True, "net_arch": []}}, r"batch_norm=True has no effect on a trunk without layers"),
    ({"policy_kwargs": {"batch_norm": True}, "batch_size": 1}, r"batch_size=1 leaves batch_norm=True nothing"),
    ({"policy_kwargs": {"activation_fn": "rellu"}}, r"activation_fn='rellu'.*'relu'"),
    (
        {"policy_kwargs": {"optimizer_class": "torch.optim.Adamm"}},
        r"optimizer_class='torch.optim.Adamm' cannot be imported",
    ),
    ({"policy_kwargs": {"optimizer_class": "torch.optim.lr_scheduler"}}, r"is not a class"),
    # names
    ({"policy": "MultiHead"}, r"policy='MultiHead' is not known.*'MultiHeadPolicy'"),
    ({"learning_rat": 1e-3}, r"a key of DQNExt\(\)='learning_rat'.*'learning_rate'"),
    ({"policy_kwargs": {"net_archs": [8]}}, r"a key of policy_kwargs of MlpPolicy='net_archs'.*'net_arch'"),
    ({"policy": SB3MlpPolicy, "policy_kwargs": {"head": "multi_head"}}, r"a key of policy_kwargs of DQNPolicy='head'"),
    ({"policy_kwargs": {"returns_kwargs": {"n_atoms": 51}}}, r"a key of returns_kwargs='n_atoms'"),
    ({"policy_kwargs": {"optimizer_kwargs": {"epsilon": 1e-7}}}, r"a key of optimizer_kwargs='epsilon'.*'eps'"),
    ({"policy_kwargs": {"optimizer_kwargs": {"lr": 1e-3}}}, r"a key of optimizer_kwargs='lr'"),
    ({"policy_kwargs": {"optimizer_kwargs": {"eps": -1}}}, r"optimizer_kwargs=\{'eps': -1\}.*Invalid epsilon value: -1"),
    (
        {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}}},
        r"a key of features_extractor_kwargs='features_dim'",
    ),
    ({"exploration_kwargs": {"schedule": {"name": "linear", "begin": 1}}}, r"a key of schedule linear='begin'"),
    ({"exploration_kwargs": {"schedule": {"name": "linear", "start": 1}}}, r"schedule linear misses: end"),
    # numbers
    ({"buffer_size": 1.5}, r"buffer_size=1.5 must be a whole number"),
    ({"buffer_size": 0}, r"buffer_size=0 must be a whole number in \[1, inf\]"),
    ({"batch_size": "32"}, r"batch_size='32' must be a whole number"),
    ({"gradient_steps": -2}, r"gradient_steps=-2 must be a whole number in \[-1, inf\]"),
    ({"n_steps": 0}, r"n_steps=0 must be a whole number"),
    ({"learning_starts": -1}, r"learning_starts=-1 must be a finite number in \[0, inf\]"),
    ({"target_update_interval": 0}, r"target_update_interval=0 must be a finite number in \[1, inf\]"),
    ({"tau": float("nan")}, r"tau=nan must be a finite number in \[0, 1\]"),
    ({"exploration_fraction": 2}, r"exploration_fraction=2 must be a finite number in \[0, 1\]"),
    ({"exploration_final_eps": -0.1}, r"exploration_final_eps=-0.1 must be"),
    ({"replay_buffer_kwargs": {"monte_carlo": -0.5}}, r"monte_carlo=-0.5 must be a finite number in \[0, 1\]"),
    ({"replay_buffer_kwargs": {"terminal_copies": 0}}, r"terminal_copies=0 must be a whole number in \[1, inf\]"),
    ({"replay_buffer_kwargs": {"terminal_copies": 2.0}}, r"terminal_copies=2.0 must be a whole number"),
    ({"policy_kwargs": {"net_arch": [64, 0]}}, r"a layer of net_arch=0 must be a whole number in \[1, inf\]"),
    ({"n_steps": 500}, r"buffer_size=200 leaves 200 rows for each of 1 environments, too few for n_steps=500"),
    ({"batch_size": 300}, r"batch_size=300 can never be stored; it can be up to buffer_size=200"),
    # types
    ({"target_network": "false"}, r"target_network='false' must be True or False"),
    ({"optimize_memory_usage": 1}, r"optimize_memory_usage=1 must be True or False"),
    ({"exploration_kwargs": "linear"}, r"exploration_kwargs='linear' must be a mapping of arguments"),
    ({"replay_buffer_kwargs": [1]}, r"replay_buffer_kwargs=\[1\] must be a mapping of arguments"),
    ({"replay_buffer_kwargs": {"sampler": "per"}}, r"sampler='per' is not known.*'prioritized'"),
    (
        {"replay_buffer_kwargs": {"sampler": "prioritized", "sampler_kwargs": {"alfa": 0.6}}},
        r"a key of sampler_kwargs='alfa'.*'alpha'",
    ),
    ({"replay_buffer_kwargs": {"sampler_kwargs": 3}}, r"sampler_kwargs=3 must be a mapping of arguments"),
    ({"policy_kwargs": {"net_arch": 64}}, r"net_arch=64 must be a list of layer sizes, for example \[64, 64\]"),
    ({"policy_kwargs": {"normalize_images": "yes"}}, r"normalize_images='yes' must be True or False"),
    ({"exploration_kwargs": {"schedule": "linear"}}, r"schedule='linear' must be a schedule, a number, or a mapping"),
    # spaces
    ({"env": IdentityEnvBox()}, r"The algorithm only supports .*Discrete.* as action spaces but Box"),
    ({"env": "Pendulum-v1"}, r"The algorithm only supports .*Discrete.* as action spaces but Box"),
    ({"policy": "CnnPolicy"}, r"You should use NatureCNN only with images"),
    ({"policy": "MultiHeadPolicy", "env": dict_cartpole()}, r"for Dict observations use policy='MultiInputPolicy'"),
    # what would have no effect
    ({"exploration": "none", "exploration_final_eps": 0.1}, r"exploration_final_eps has no effect beside exploration='none'"),
    (
        {"exploration": "none", "exploration_kwargs": {"schedule": 0.1}},
        r"\['schedule'\] has no effect beside exploration='none'",
    ),
]


def identifier(case: Any) -> str | None:
    if not isinstance(case, dict):
        return ""
    return ", ".join(f"{key}={value!r}" if isinstance(value, str | int | float | dict) else key for key, value in case.items())


@pytest.mark.parametrize(("kwargs", "message"), CASES, ids=identifier)
def test_a_wrong_argument_is_named_with_what_is_allowed(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"target_network": False, "tau": 0.1}, r"tau has no effect beside target_network=False"),
        (
            {"target_network": False, "target_update_unit": "gradient_steps"},
            r"target_update_unit has no effect beside target_network=False",
        ),
        ({"replay_buffer_kwargs": {"monte_carlo": 1}, "n_steps": 3}, r"n_steps=3 has no effect beside monte_carlo=1"),
        ({"replay_buffer_kwargs": {"terminal_on": "done"}}, r"terminal_on'\] has no effect beside terminal_copies=1"),
        ({"replay_buffer_class": ReplayBuffer, "n_steps": 2}, r"`n_steps=2` is ignored"),
    ],
    ids=identifier,
)
def test_an_argument_without_effect_is_answered_with_a_warning(kwargs: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        make(**kwargs)


def test_observations_that_no_policy_reads_are_refused() -> None:
    with pytest.raises(ArgumentError, match="Tuple"):
        make(env=TupleObservations())


def test_actions_that_do_not_begin_at_0_are_refused() -> None:
    env = gym.wrappers.TransformAction(gym.make("CartPole-v1"), lambda action: action - 5, gym.spaces.Discrete(2, start=5))
    with pytest.raises(ArgumentError, match=r"Discrete\(2, start=5\) must begin at 0.*TransformAction, which adds 5"):
        DQNExt("MlpPolicy", env)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), "-50", None])
def test_a_reward_that_is_no_finite_number_is_refused(reward: Any) -> None:
    with pytest.raises(ArgumentError, match=r"reward=.* must be a finite number"):
        TerminalPenalty(short_cartpole(), reward=reward)


def test_a_wrong_argument_at_load_is_refused_just_so(tmp_path: Any) -> None:
    make().save(tmp_path / "model")
    for kwargs, message in (
        ({"target_policy": "doubel"}, "'double'"),
        ({"tau": 3}, "tau=3"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            DQNExt.load(tmp_path / "model", env=short_cartpole(), **kwargs)
    # a memory of one transition is enough to predict with
    small = DQNExt.load(tmp_path / "model", env=short_cartpole(), buffer_size=1)
    small.predict(np.zeros(4, dtype=np.float32))
    with pytest.raises(ArgumentError, match="batch_size=8 can never be stored"):
        small.learn(10)


def kwargs_of(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with some of these keys, at times misspelt, and at times with a value of another kind."""
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 3), st.floats(-2, 2), st.text(max_size=3), st.just([]), st.just({})
    )
    right = st.fixed_dictionaries({}, optional=values)
    return st.one_of(
        right,
        right,
        st.fixed_dictionaries({}, optional={key: st.one_of(value, odd) for key, value in values.items()}),
        st.dictionaries(st.sampled_from([*values, *(key[:-1] for key in values), "x"]), odd, max_size=2),
    )


SCHEDULE = st.one_of(
    st.floats(0, 1),
    kwargs_of(
        name=st.sampled_from(["linear", "constant", "exponential", "multiplicative", "piecewise", "step"]),
        start=st.floats(0, 1),
        end=st.floats(0, 1),
        end_fraction=st.floats(0, 1),
        rate=st.floats(-1, 1),
        factor=st.floats(0, 1.5),
        val=st.floats(0, 1),
        points=st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), max_size=3),
    ),
)
UNIT = st.sampled_from(["env_steps", "actions"])
ARCH = st.lists(st.integers(1, 8), max_size=2)
QUANTILES = {"n_quantiles": st.integers(1, 5), "kappa": st.floats(0, 2)}
FRACTIONS = {"n_policy_quantiles": st.integers(1, 4), "embedding_dim": st.integers(1, 3)}


def named(choice: str, name: str, kwargs: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A choice, and the arguments that go with it."""
    return st.fixed_dictionaries({choice: st.just(name), kwargs: values})


NETWORK_PARTS: list[st.SearchStrategy[dict[str, Any]]] = [
    st.one_of(
        kwargs_of(head=st.sampled_from(["shared", "multi_head", "dueling", "action_input"]), head_arch=ARCH),
        *(named("head", name, "head_arch", ARCH) for name in ("multi_head", "dueling", "action_input")),
    ),
    st.one_of(
        kwargs_of(loss=st.sampled_from(["huber", "mse"]), fitted_actions=st.sampled_from(["taken", "all"])),
        kwargs_of(returns=st.sampled_from(["expected", "categorical", "quantile"]), returns_kwargs=kwargs_of(**QUANTILES)),
        named("returns", "categorical", "returns_kwargs", kwargs_of(n_atoms=st.integers(2, 5), v_min=st.floats(-9, 9))),
        named("returns", "categorical", "returns_kwargs", st.fixed_dictionaries({"v_min": st.just(0), "v_max": st.just(9)})),
        named("returns", "quantile", "returns_kwargs", kwargs_of(**QUANTILES)),
        named("returns", "implicit_quantile", "returns_kwargs", kwargs_of(**QUANTILES, **FRACTIONS)),
    ),
    st.one_of(
        kwargs_of(noisy=st.booleans(), noisy_kwargs=kwargs_of(sigma0=st.floats(0, 1))),
        st.fixed_dictionaries({"noisy": st.just(True)}, optional={"noisy_kwargs": kwargs_of(sigma0=st.floats(0, 1))}),
    ),
    kwargs_of(
        net_arch=ARCH,
        dtype=st.sampled_from(["float32", "float64"]),
        init=st.sampled_from(["torch", "keras"]),
        batch_norm=st.booleans(),
        activation_fn=st.sampled_from(["relu", "tanh", "torch.nn.ELU", "torch.nn.Nothing"]),
    ),
    kwargs_of(
        optimizer_class=st.sampled_from(["adam", "sgd", "rmsprop"]),
        optimizer_kwargs=kwargs_of(eps=st.floats(1e-8, 1e-3), weight_decay=st.floats(0, 0.1), momentum=st.floats(0, 0.9)),
    ),
]
NETWORK = st.tuples(*NETWORK_PARTS).map(lambda parts: {key: value for part in parts for key, value in part.items()})
MEMORY = kwargs_of(
    sampler=st.sampled_from(["uniform", "prioritized", "rows"]),
    sampler_kwargs=kwargs_of(
        replace=st.booleans(), alpha=st.floats(0, 1), beta=st.floats(0, 1), beta_end=st.floats(0, 1), eps=st.floats(0, 1)
    ),
    terminal_copies=st.integers(0, 5),
    terminal_on=st.sampled_from(["terminated", "truncated", "done"]),
    handle_timeout_termination=st.booleans(),
    monte_carlo=st.floats(0, 1.2),
    keep_episodes=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    policy_kwargs=NETWORK,
    replay_buffer_kwargs=MEMORY,
    exploration=st.sampled_from(["epsilon_greedy", "ez_greedy", "epsilon_ladder", "boltzmann", "none"]),
    exploration_kwargs=st.one_of(
        kwargs_of(coin=st.sampled_from(["per_env", "shared"]), schedule=SCHEDULE, unit=UNIT),
        kwargs_of(mu=st.floats(1, 3), max_duration=st.integers(1, 100), schedule=SCHEDULE),
        kwargs_of(alpha=st.floats(0, 9), schedule=SCHEDULE),
        kwargs_of(temperature=SCHEDULE, unit=UNIT),
    ),
    target_policy=st.sampled_from(["greedy", "double", "munchausen"]),
    target_policy_kwargs=kwargs_of(alpha=st.floats(0, 1), temperature=st.floats(1e-6, 2), clip=st.floats(-2, 0)),
)
def test_any_mapping_builds_a_model_that_trains_or_is_answered_with_our_error(**kwargs: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has no effect", category=UserWarning)
        try:
            model = make(train_freq=1, **kwargs)
        except ArgumentError:
            return
        # with monte_carlo, an episode must have ended before there is anything to learn from
        model.learning_starts = 20
        model.learn(40)
    assert model._n_updates > 0


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(policy_kwargs=NETWORK)
def test_any_network_trains_or_is_answered_with_our_error(policy_kwargs: dict[str, Any]) -> None:
    try:
        model = make(train_freq=4, policy_kwargs=policy_kwargs)
    except ArgumentError:
        return
    model.learn(16)
    assert model._n_updates > 0
