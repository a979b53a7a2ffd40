"""Choices of a user's own: each as a class, as an object and by its dotted name, from the constructor to a resumed run."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

import sb3_dqn_ext.fast.compiled
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.exploration import Exploration, NoExploration
from sb3_dqn_ext.algorithm.schedules import LinearSchedule
from sb3_dqn_ext.algorithm.target_policies import DoubleTarget, MunchausenTarget, TargetPolicy
from sb3_dqn_ext.algorithm.value_models import CategoricalReturns, ExpectedReturns
from sb3_dqn_ext.callbacks import DiagnosticsCallback, EpsilonScheduleCallback, ExactCheckpointCallback
from sb3_dqn_ext.choices import PLACES
from sb3_dqn_ext.errors import ArgumentError, ModelFileError
from sb3_dqn_ext.fast.numpy_forward import make_numpy_q_values
from sb3_dqn_ext.fast.traced_state import TracedState
from sb3_dqn_ext.networks.heads import SharedHead
from sb3_dqn_ext.replay import Sampler
from sb3_dqn_ext.run_folder.run_file import evaluate_and_encode
from sb3_dqn_ext.run_folder.user_classes import find_class_names, import_classes, import_model_classes
from sb3_dqn_ext.saved_model import classes_allowed
from tests import own_choices
from tests.internals import exploration_of
from tests.own_choices import (
    Counting,
    Fixed,
    Gated,
    Learned,
    LogCosh,
    Mellow,
    Narrow,
    Nothing,
    OnlyAMean,
    Pair,
    Persistent,
    Recent,
    Scaled,
    Stairs,
)
from tests.pages import DOCS, blocks
from tests.parity import assert_same, assert_same_model, learn, short_cartpole
from tests.paths import ROOT
from tests.processes import output, python

# an object of torch is not stored in the file of a model: a warning names it when the model is made
pytestmark = pytest.mark.filterwarnings("ignore:Not all of the model can be stored.*policy_kwargs")

OWN = "tests.own_choices."
ROWS = 60
Arguments = dict[str, Any]


def as_classes() -> Arguments:
    return {
        "target_policy": Mellow,
        "target_policy_kwargs": {"temperature": 0.5},
        "exploration": Persistent,
        "exploration_kwargs": {"length": 2, "schedule": {"name": Stairs, "start": 0.9}},
        "replay_buffer_kwargs": {"sampler": Recent, "sampler_kwargs": {"share": 0.5}},
        "policy_kwargs": {"head": Gated, "returns": Pair, "returns_kwargs": {"scale": 2.0}, "loss": LogCosh, "norm": Scaled},
    }


def as_objects() -> Arguments:
    return {
        "target_policy": Mellow(0.5),
        "exploration": Persistent(2),
        "exploration_kwargs": {"schedule": Stairs(0.9)},
        "replay_buffer_kwargs": {"sampler": Recent(ROWS, 2, 1, False, share=0.5)},
        "policy_kwargs": {"head": Gated, "returns": Pair(2.0, LogCosh()), "norm": Scaled()},
    }


def by_dotted_names() -> Arguments:
    return {
        "target_policy": f"{OWN}Mellow",
        "target_policy_kwargs": {"temperature": 0.5},
        "exploration": f"{OWN}Persistent",
        "exploration_kwargs": {"length": 2, "schedule": {"name": f"{OWN}Stairs", "start": 0.9}},
        "replay_buffer_kwargs": {"sampler": f"{OWN}Recent", "sampler_kwargs": {"share": 0.5}},
        "policy_kwargs": {
            "head": f"{OWN}Gated",
            "returns": f"{OWN}Pair",
            "returns_kwargs": {"scale": 2.0},
            "loss": f"{OWN}LogCosh",
            "norm": f"{OWN}Scaled",
        },
    }


FORMS = {"classes": as_classes, "objects": as_objects, "dotted names": by_dotted_names}


def make(**arguments: Any) -> DQNExt:
    """A small model, with the arguments joined with its own."""
    small: Arguments = {
        "buffer_size": 2 * ROWS,
        "learning_starts": 20,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "train_freq": 1,
        "target_update_interval": 20,
        "seed": 1,
        "device": "cpu",
    }
    policy_kwargs = {"net_arch": [8]} | arguments.pop("policy_kwargs", {})
    return DQNExt("MlpPolicy", DummyVecEnv([short_cartpole] * 2), policy_kwargs=policy_kwargs, **small | arguments)


@pytest.fixture(scope="module")
def whole() -> DQNExt:
    """A model that was trained without an interruption."""
    model = make(**as_classes())
    learn(model, 160)
    return model


def sampler_of(model: Any) -> Any:
    return model.replay_buffer.sampler


# forms


@pytest.mark.parametrize("form", ["objects", "dotted names"])
def test_each_form_trains_to_the_same_bits(form: str, whole: DQNExt) -> None:
    model = make(**FORMS[form]())
    learn(model, 160)
    assert_same_model(model, whole)
    assert exploration_of(model).state_dict()["n_begun"] > 3
    assert sampler_of(model).n_drawn == sampler_of(whole).n_drawn > 400


def test_each_choice_is_the_users_own_and_changes_the_run(whole: DQNExt) -> None:
    assert whole.choices is not None
    assert type(whole.choices.target_policy) is Mellow
    assert type(exploration_of(whole)) is Persistent
    assert type(sampler_of(whole)) is Recent
    policy: Any = whole.policy
    assert (type(policy.q_net.q_net), type(policy.return_model)) == (Gated, Pair)
    assert type(policy.return_model.loss_function) is LogCosh
    assert whole.exploration_rate == Stairs(0.9).value(160, 160)
    same = make(**as_classes())
    learn(same, 60)
    others: list[Arguments] = [{"target_policy": "greedy"}, {"exploration_kwargs": {"length": 2, "schedule": 0.9}}]
    others += [{"exploration": "epsilon_greedy"}, {"replay_buffer_kwargs": {}}]
    network = as_classes()["policy_kwargs"]
    others += [{"policy_kwargs": network | {"loss": loss}} for loss in ("mse", own_choices.quartic)]
    others += [{"policy_kwargs": network | {"norm": norm}} for norm in ("none", "layer", own_choices.root_mean_square)]
    for changed in others:
        arguments = as_classes() | changed
        if changed.get("target_policy") == "greedy":
            del arguments["target_policy_kwargs"]
        if "exploration" in changed:
            arguments["exploration_kwargs"] = {"schedule": {"name": Stairs, "start": 0.9}}
        model = make(**arguments)
        learn(model, 60)
        with pytest.raises(AssertionError):
            assert_same_model(model, same)


def test_an_object_is_used_as_it_is_but_heads_and_samplers_are_copied() -> None:
    exploration, target_policy, sampler = Persistent(2), Mellow(), Recent(ROWS, 2, 1, False)
    head: Any = make().policy.q_net.q_net
    model = make(
        exploration=exploration,
        target_policy=target_policy,
        replay_buffer_kwargs={"sampler": sampler},
        policy_kwargs={"head": head},
    )
    assert model.choices is not None
    assert model.choices.exploration is exploration
    assert model.choices.target_policy is target_policy
    learn(model, 60)
    assert (sampler.n_drawn, exploration.n_begun > 0) == (0, True)
    assert len({id(net) for net in (head, model.q_net.q_net, model.q_net_target.q_net)}) == 3
    assert sampler_of(model).n_drawn > 0
    assert model.replay_buffer is not None
    model.replay_buffer.reset()
    assert sampler_of(model).n_drawn == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mellow", "target_policy"),
        ("persistent", "exploration"),
        ("pair", "returns"),
        ("log_cosh", "loss"),
        ("quartic", "loss"),
    ],
)
def test_a_dotted_name_may_be_that_of_an_object_or_a_function(name: str, kind: str) -> None:
    in_network = kind in ("returns", "loss")
    arguments: Arguments = {"policy_kwargs": {kind: OWN + name}} if in_network else {kind: OWN + name}
    model: Any = make(**arguments)
    found = model.policy.return_model if in_network else getattr(model.choices, kind)
    if kind == "returns":
        assert (type(found), found.scale) == (Pair, own_choices.pair.scale)
    else:
        assert (found.loss_function if kind == "loss" else found) is getattr(own_choices, name)


def test_models_of_different_precision_share_no_return_model() -> None:
    returns = CategoricalReturns(v_min=0, v_max=20)
    models: list[Any] = [make(policy_kwargs={"returns": returns, "dtype": dtype}) for dtype in ("float32", "float64")]
    assert [model.policy.return_model.atoms.dtype for model in models] == [th.float32, th.float64]
    assert returns.atoms.dtype == th.float32


@pytest.mark.parametrize(
    "schedule",
    [Stairs(0.8), f"{OWN}stairs", {"name": f"{OWN}Stairs", "start": 0.9, "every": 10}],
    ids=["object", "dotted object", "dotted class"],
)
def test_a_callback_takes_a_schedule_of_the_users_own(schedule: Any) -> None:
    callback = EpsilonScheduleCallback(schedule)
    assert isinstance(callback.schedule, Stairs)
    assert EpsilonScheduleCallback({"name": LinearSchedule, "start": 1, "end": 0}).schedule == LinearSchedule(1, 0)


def test_the_state_of_an_exploration_is_kept_when_another_choice_changes() -> None:
    model = make(exploration=Persistent, exploration_kwargs={"length": 2})
    learn(model, 60)
    before = exploration_of(model)
    model.target_policy = Mellow
    learn(model, 20, reset_num_timesteps=False)
    assert exploration_of(model) is before
    assert model.choices is not None
    assert type(model.choices.target_policy) is Mellow


# errors


class Sizeless(Recent):
    def __init__(self) -> None:
        super().__init__(ROWS, 2, 1, False)


class ByPosition(Mellow):
    def __init__(self, temperature: float = 1.0, /) -> None:
        super().__init__(temperature)


NETWORK = "policy_kwargs"
ERRORS: list[tuple[Arguments, str]] = [
    (
        {"target_policy": f"{OWN}Melow"},
        r"target_policy='tests\.own_choices\.Melow' cannot be imported.*mean 'tests.own_choices.Mellow'",
    ),
    ({"exploration": "not_there.Mine"}, "exploration='not_there.Mine' cannot be imported: No module named 'not_there'"),
    ({"exploration": f"{OWN}number"}, "is no Exploration: it has no __call__"),
    (
        {"target_policy": Nothing},
        "target_policy=<class '.*Nothing'> is no TargetPolicy: it has no __call__.*greedy, munchausen",
    ),
    ({"target_policy": own_choices.quartic}, "is no TargetPolicy: it has no needs_online_net"),
    (
        {"target_policy": Mellow(), "target_policy_kwargs": {"temperature": 1}},
        "has no effect on target_policy=.*already built",
    ),
    ({"target_policy": Mellow, "target_policy_kwargs": {"temprature": 1}}, "Did you mean 'temperature'"),
    ({"target_policy": "mine"}, "greedy, munchausen. Your own TargetPolicy is given as a class, an object, or a dotted name"),
    ({"exploration": Persistent}, "exploration_kwargs misses: length"),
    ({"exploration": Persistent(2), "exploration_kwargs": {"length": 2}}, "has no effect on exploration=.*already built"),
    ({"exploration": Persistent, "exploration_kwargs": {"lenght": 2}}, "'lenght'.*Did you mean 'length'"),
    ({"exploration": f"{OWN}Renamed"}, "schedule_key='rate'; it can be 'schedule' or 'temperature'"),
    ({"exploration_kwargs": {"schedule": {"name": Stairs}}}, "misses: start"),
    ({"exploration_kwargs": {"schedule": Stairs}}, "cannot be built without its arguments start: give an object"),
    ({"exploration_kwargs": {"schedule": {"name": Stairs(1), "start": 1}}}, "has no effect on schedule=.*already built"),
    ({"exploration_kwargs": {"schedule": f"{OWN}Nothing"}}, "is no Schedule: it has no value"),
    ({"replay_buffer_kwargs": {"sampler": f"{OWN}Mellow"}}, "is no Sampler: it has no sample"),
    ({NETWORK: {"head": Nothing}}, "is no Head: it has no outputs"),
    ({NETWORK: {"head": Narrow}}, r"returns a tensor of shape \(2, 1, 1\) for 2 observations: it must be \(2, 2, 1\)"),
    ({NETWORK: {"returns": OnlyAMean}}, "is no ReturnModel: it has no target and no loss"),
    ({NETWORK: {"returns": Learned}}, "has parameters, which no network would train"),
    ({NETWORK: {"returns": Pair(1.0), "loss": "mse"}}, "loss='mse' has no effect with returns="),
    ({NETWORK: {"loss": nn.HuberLoss}}, r"returns a tensor of shape \(\) .* reduction='none'"),
    ({NETWORK: {"loss": Nothing}}, "is no Loss: it has no __call__"),
    ({NETWORK: {"loss": 3}}, "loss=3 is no Loss"),
    ({NETWORK: {"norm": Nothing}}, "is no Norm: it has no __call__"),
    ({NETWORK: {"encoder": Nothing}}, "is no Encoder: it has no convolutions"),
    (
        {"replay_buffer_kwargs": {"sampler": Sizeless}},
        "has a constructor that does not fit, called with n_rows, n_envs, terminal_copies, only_added by position: too many",
    ),
    (
        {"target_policy": ByPosition, "target_policy_kwargs": {"temperature": 1}},
        "that does not fit: 'temperature' .* positional",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[message for _, message in ERRORS])
def test_what_cannot_be_is_refused_by_the_constructor(arguments: Arguments, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(**arguments)


def test_a_module_that_fails_when_it_is_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_choices.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArgumentError, match=r"'broken_choices.Mine' cannot be imported: ZeroDivisionError"):
        make(exploration="broken_choices.Mine")


def test_a_loss_of_torch_is_an_object_and_arguments_without_effect_are_named() -> None:
    model: Any = make(policy_kwargs={"loss": nn.HuberLoss(reduction="none", delta=2.0)})
    assert model.policy.return_model.loss_function.delta == 2.0
    with pytest.warns(UserWarning, match="exploration_fraction has no effect beside exploration="):
        make(exploration=Fixed, exploration_kwargs={"length": 2}, exploration_fraction=0.5)


# results of a wrong form, many of which numpy and torch would broadcast


def target_policy_of(function: Callable[[Any, Any], Any]) -> Arguments:
    class Own(TargetPolicy):
        def __call__(self, batch: Any, online: Any, target: Any, q_t: Any) -> Any:
            return function(batch, q_t)

    return {"target_policy": Own}


def returns_of(name: str, function: Callable[[Any], Any]) -> Arguments:
    def own(self: Any, *arguments: Any) -> Any:
        return function(getattr(ExpectedReturns, name)(self, *arguments))

    return {"policy_kwargs": {"returns": type("Own", (ExpectedReturns,), {name: own})}}


def exploration_of_actions(function: Callable[[Any], Any]) -> Arguments:
    class Own(Exploration):
        def __call__(self, context: Any) -> Any:
            return function(context.greedy_actions())

    return {"exploration": Own}


def sampler_of_draws(function: Callable[[int], Any]) -> Arguments:
    class Own(Sampler):
        def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> Any:
            return function(batch_size)

    return {"replay_buffer_kwargs": {"sampler": Own}}


FORMS_OF_RESULTS: list[tuple[Arguments, str]] = [
    (
        target_policy_of(lambda batch, q_t: (q_t.softmax(1), batch.rewards.unsqueeze(1))),
        r"^Own must return \(B, A\) probabilities and \(B,\) rewards: .* \(8, 2\), \(8,\)\..* \(8, 2\), \(8, 1\)\.$",
    ),
    (target_policy_of(lambda batch, q_t: (th.ones(2) / 2, batch.rewards)), r"returned \(2,\), \(8,\)"),
    (target_policy_of(lambda batch, q_t: q_t.softmax(1)), r"It has returned \(8, 2\)\."),
    (target_policy_of(lambda batch, q_t: None), "It has returned NoneType"),
    (
        returns_of("mean", lambda q: q.unsqueeze(-1)),
        r"must return \(B, A\) Q-values: .* \(8, 2\)\. It has returned \(8, 2, 1\)",
    ),
    (
        returns_of("loss", lambda losses: losses.mean()),
        r"must return \(B,\) losses and \(B,\) TD errors: .* returned \(\), \(8,\)",
    ),
    (returns_of("loss", lambda losses: losses.unsqueeze(1)), r"returned \(8, 1\), \(8,\)"),
    (exploration_of_actions(lambda actions: list(actions)), r"^Own must return an array of 2 actions.* has returned \["),
    (exploration_of_actions(lambda actions: actions[:1]), r"has returned array\(\[[01]\]\)"),
    (exploration_of_actions(lambda actions: actions.astype(float)), "which are whole numbers"),
    (sampler_of_draws(lambda n: (np.zeros(n - 1, int), None)), r"^Own\.sample must return an array of 8 indices"),
    (sampler_of_draws(lambda n: (np.zeros(n), None)), "which are whole numbers, and weights or None"),
    (sampler_of_draws(lambda n: np.zeros(n, int)), "and weights or None. It has returned array"),
    (sampler_of_draws(lambda n: (np.zeros(n, int), np.ones((n, 1)))), "must return an array of 8 weights, or None"),
    (
        sampler_of_draws(lambda n: (np.full(n, -1), None)),
        r"row \* 2 \+ env of stored transitions; 11 of 60 rows are stored, from",
    ),
    (sampler_of_draws(lambda n: (np.full(n, 2 * ROWS), None)), "stored transitions"),
    (sampler_of_draws(lambda n: (np.full(n, 22), None)), "stored transitions"),
]


@pytest.mark.filterwarnings("ignore:Not all of the model can be stored")
@pytest.mark.parametrize(("arguments", "message"), FORMS_OF_RESULTS, ids=[message for _, message in FORMS_OF_RESULTS])
def test_a_result_of_a_wrong_form_ends_the_run_with_an_error(arguments: Arguments, message: str) -> None:
    model = make(**arguments)
    with pytest.raises(ArgumentError, match=message):
        learn(model, 30)


# files


def test_a_model_in_a_file_asks_for_trust_or_for_the_choices_themselves(whole: DQNExt, tmp_path: Path) -> None:
    for name, form in FORMS.items():
        model = make(**form()) if name != "classes" else whole
        model.save(tmp_path / "model")
        with pytest.raises(ModelFileError) as error:
            DQNExt.load(tmp_path / "model")
        for expected in (
            f"target_policy names {OWN}Mellow",
            f"exploration names {OWN}Persistent",
            "policy_kwargs",
        ):
            assert expected in str(error.value), expected
        given = {key: value for key, value in form().items() if not key.startswith(("target_policy_", "exploration_"))}
        given |= {"exploration_kwargs": form()["exploration_kwargs"], "policy_kwargs": model.policy_kwargs}
        handed = DQNExt.load(tmp_path / "model", env=make().get_env(), custom_objects=given)
        loaded_models = [handed]
        if name != "objects":
            assert "trust=True" in str(error.value)
            loaded_models += [DQNExt.load(tmp_path / "model", env=make().get_env(), trust=True)]
        for loaded in loaded_models:
            assert_same(loaded.get_parameters(), model.get_parameters(), name)
            learn(loaded, 30)
            assert type(exploration_of(loaded)) is Persistent
            assert type(sampler_of(loaded)) is Recent


@pytest.mark.filterwarnings("error")
def test_the_state_of_an_object_is_in_the_file(tmp_path: Path) -> None:
    model = make(exploration=Persistent(2), target_policy=Mellow(0.3))
    learn(model, 60)
    model.save(tmp_path / "model")
    loaded: Any = DQNExt.load(tmp_path / "model", trust=True)
    assert loaded.exploration.n_begun == exploration_of(model).state_dict()["n_begun"] > 0
    assert loaded.target_policy.temperature == 0.3


def test_objects_of_this_package_need_no_trust(tmp_path: Path) -> None:
    model = make(
        target_policy=MunchausenTarget(alpha=0.5),
        policy_kwargs={"head": SharedHead, "loss": "sb3_dqn_ext.algorithm.value_models.expected.mse"},
    )
    model.save(tmp_path / "model")
    assert DQNExt.load(tmp_path / "model").choices.target_policy == MunchausenTarget(alpha=0.5)  # type: ignore[union-attr]
    make(target_policy=DoubleTarget(), exploration=NoExploration()).save(tmp_path / "model")  # objects without attributes
    loaded: Any = DQNExt.load(tmp_path / "model")
    assert (loaded.target_policy, loaded.exploration) == (DoubleTarget(), NoExploration())


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_file_does_not_make_a_model_import_or_call_what_it_names(
    place: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_module.py").write_text("class Hostile: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = make(exploration="boltzmann" if "temperature" in place else "epsilon_greedy")
    value: Any = "hostile_module.Hostile"
    for key in reversed(place[1:]):
        value = {key: value}
    setattr(model, place[0], value)
    model.save(tmp_path / "model")
    if place[0] in ("exploration_kwargs", "replay_buffer_kwargs"):  # which predictions do not need
        loaded = DQNExt.load(tmp_path / "model", env=make().get_env())
        with pytest.raises(ArgumentError, match=r"names hostile_module\.Hostile"):
            loaded.learn(10)
    else:
        with pytest.raises(ModelFileError, match=r"names hostile_module\.Hostile"):
            DQNExt.load(tmp_path / "model")
    assert "hostile_module" not in sys.modules


# checkpoints


@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_interrupted(form: str, whole: DQNExt, tmp_path: Path) -> None:
    interrupted = make(**FORMS[form]())
    learn(interrupted, 90, callback=ExactCheckpointCallback(30, tmp_path))
    learn(make(**as_classes()), 30)  # whatever happens between
    resumed = make(**FORMS[form]()).resume(tmp_path)
    assert resumed.num_timesteps == 60 > exploration_of(resumed).state_dict()["n_begun"] > 0
    learn(resumed, 160, callback=ExactCheckpointCallback(1000, tmp_path))
    assert_same_model(resumed, whole)
    assert_same(exploration_of(resumed).state_dict(), exploration_of(whole).state_dict(), "exploration")
    assert sampler_of(resumed).n_drawn == sampler_of(whole).n_drawn


def test_a_stateful_target_policy_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    model = make(target_policy=Counting)
    learn(model, 60, callback=ExactCheckpointCallback(60, tmp_path))
    model.save_checkpoint(tmp_path)
    resumed: Any = make(target_policy=Counting).resume(tmp_path)
    assert resumed.choices.target_policy.n_calls == model.choices.target_policy.n_calls > 10  # type: ignore[union-attr]


class WithGenerator(Exploration):
    """An exploration with its own generator, which a checkpoint cannot hold as it is."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(0)

    def __call__(self, context: Any) -> Any:
        return context.greedy_actions() if self.own.random() < 0.5 else np.zeros(context.n_envs, int)


class SamplerWithGenerator(Recent):
    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.own = np.random.default_rng(0)


@pytest.mark.parametrize(
    "arguments", [{"exploration": WithGenerator}, {"replay_buffer_kwargs": {"sampler": SamplerWithGenerator}}], ids=str
)
def test_a_state_that_no_checkpoint_can_hold_is_refused_at_the_start_of_the_run(arguments: Arguments, tmp_path: Path) -> None:
    model = make(**arguments)
    with pytest.raises(ArgumentError, match=r"the state of \w*WithGenerator cannot .*own is a .*Override state_dict"):
        learn(model, 60, callback=ExactCheckpointCallback(1000, tmp_path))
    assert model.num_timesteps == 0


def test_the_state_of_another_class_is_left_out_with_a_warning(tmp_path: Path) -> None:
    learn(make(exploration=Persistent(2)), 60, callback=ExactCheckpointCallback(30, tmp_path))
    with pytest.warns(UserWarning, match=r"exploration of the run was a .*Persistent, and is a .*EpsilonGreedy now"):
        make().resume(tmp_path)


# diagnostics


def test_diagnostics_run_and_change_nothing(whole: DQNExt) -> None:
    model = make(**as_classes())
    calibration = {"every": 50, "n_episodes": 1, "deterministic": False}
    rows = learn(model, 160, callback=DiagnosticsCallback(every=50, calibration=calibration)).rows
    assert_same_model(model, whole)
    logged = {key for row in rows for key in row}
    assert {"exploration/epsilon", "replay/age_mean", "errors/td_mean"} & logged
    assert len([key for key in logged if "/" in key and not key.startswith(("rollout", "train"))]) > 10


# the fast path


class Doubled(ExpectedReturns):
    """Its Q-values are twice the network's outputs, negated: the best action is another one."""

    def mean(self, params: Any) -> Any:
        return -2 * super().mean(params)


class Reversed(SharedHead):
    """The outputs of ``shared`` in the other order."""

    def outputs(self, hidden: Any) -> Any:
        return super().outputs(hidden).flip(1)


@pytest.fixture
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sb3_dqn_ext.fast.compiled, "compile_function", lambda function, arguments: function)


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("own", [{"head": Reversed}, {"returns": Doubled}], ids=str)
def test_actions_in_numpy_do_not_pass_over_a_head_or_return_model(own: Arguments) -> None:
    model, plain = make(policy_kwargs=own, compile=True), make(compile=True)
    for one in (model, plain):
        learn(one, 30)
        assert one.updater.compiled is not None
    assert plain.updater.numpy_q_values is not None
    assert model.updater.numpy_q_values is None
    assert make_numpy_q_values(model.q_net, 2) is None


@pytest.mark.usefixtures("_uncompiled")
def test_an_exploration_of_the_users_own_is_called_beside_compiled_updates() -> None:
    model = make(compile=True, exploration=Persistent(2))
    learn(model, 100)
    assert model.updater.numpy_q_values is not None
    eager = make(exploration=Persistent(2))
    learn(eager, 100)
    assert exploration_of(model).state_dict()["n_begun"] == exploration_of(eager).state_dict()["n_begun"] > 3


@pytest.mark.usefixtures("_uncompiled")
def test_a_target_policy_that_changes_is_trained_eagerly_and_one_warning_says_so() -> None:
    eager = make(target_policy=Counting)
    learn(eager, 60)
    model = make(target_policy=Counting, compile=True)
    with pytest.warns(UserWarning, match="training is eager: Counting has changed its attributes") as warned:
        learn(model, 60)
    assert len([one for one in warned if "eager" in str(one.message)]) == 1
    assert_same(model.get_parameters(), eager.get_parameters(), "parameters")
    changed_later = make(target_policy=Mellow, compile=True)
    learn(changed_later, 60)
    assert changed_later.updater.compiled is not None
    changed_later.choices.target_policy.temperature = 0.1  # type: ignore[union-attr]
    with pytest.warns(UserWarning, match="Mellow has changed its attributes"):
        learn(changed_later, 20, reset_num_timesteps=False)


def test_changes_beside_an_attribute_that_cannot_be_pickled_are_noticed() -> None:
    policy = Mellow(0.5)
    policy.transform = lambda q: q  # type: ignore[attr-defined]
    state = TracedState([policy])
    assert state.changed() is None
    policy.temperature = 0.1
    assert state.changed() == "Mellow"
    state.restore()
    assert policy.temperature == 0.5
    policy.transform = lambda q: -q  # type: ignore[attr-defined]
    assert state.changed() == "Mellow"


# run folders of the RL Zoo


def test_a_run_file_names_classes_and_an_object_is_an_obstacle() -> None:
    names = dict(by_dotted_names())
    assert evaluate_and_encode(as_classes(), {}) == names
    assert evaluate_and_encode({"policy_kwargs": {"loss": own_choices.quartic}}, {}) == {
        "policy_kwargs": {"loss": f"{OWN}quartic"}
    }
    for key, value in (("exploration", Persistent(2)), ("exploration_kwargs", {"schedule": Stairs(1)})):
        with pytest.raises(TypeError, match=rf"{key}\S* is <.*>, which is not plain data: give its class, or a dotted name"):
            evaluate_and_encode({key: value}, {})


def test_the_classes_that_a_run_file_names_must_be_derived_from_the_base_classes() -> None:
    found = list(find_class_names(by_dotted_names()))
    kinds = {"target_policy", "exploration", "schedule", "sampler", "head", "returns", "loss", "norm"}
    assert {place for place, _ in found} == kinds
    assert set(import_classes(found, "").values()) == {Mellow, Persistent, Stairs, Recent, Gated, Pair, LogCosh, Scaled}
    callback = {"callback": [{"sb3_dqn_ext.callbacks.EpsilonScheduleCallback": {"schedule": "subprocess.Popen"}}]}
    for hyperparameters in (callback, {"exploration": "subprocess.Popen"}, {"policy_kwargs": {"loss": "subprocess.Popen"}}):
        with pytest.raises(ArgumentError, match=r"'subprocess\.Popen' is not a .*; it is called only with --trust"):
            import_classes(list(find_class_names(hyperparameters)), "")


def test_a_command_lets_the_file_of_a_model_name_the_classes_of_its_run(whole: DQNExt, tmp_path: Path) -> None:
    dotted = make(**by_dotted_names())
    hyperparameters = evaluate_and_encode(by_dotted_names(), {})
    for model in (whole, dotted):
        model.save(tmp_path / "model")
        with classes_allowed(import_model_classes(hyperparameters, "")):
            loaded = DQNExt.load(tmp_path / "model", env=make().get_env())
        assert_same(loaded.get_parameters(), model.get_parameters(), "parameters")
        assert type(sampler_of(loaded)) is Recent


ZOO: Arguments = {
    "policy": "MlpPolicy",
    "n_timesteps": 160,
    "n_envs": 2,
    "buffer_size": 2 * ROWS,
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 1,
    "callback": "interruption.Interrupt",
}
SCRIPT = """
import runpy, sys
import interruption

def run(*arguments):
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)

train = ("rl_zoo3.train", "--algo", "dqn_ext", "--env", "CartPole-v1", "-conf", "mine.yml", "--seed", "1", "-f", "logs",
         "--save-freq", "40", "--eval-freq", "-1")
try:
    run(*train)
    raise SystemExit("it was not interrupted")
except interruption.Interrupted:
    interruption.AT = 10**9
run(*train)
run("sb3_dqn_ext.zoo", "resume", "logs/dqn_ext/CartPole-v1_1")
"""
COMPARISON = """
import sys
from sb3_dqn_ext import DQNExt

one, other = (DQNExt.load(path, trust=True) for path in sys.argv[1:])
assert all((a == b).all() for a, b in zip(one.policy.parameters(), other.policy.parameters()))
print("same", one.num_timesteps)
"""
INTERRUPTION = """
from stable_baselines3.common.callbacks import BaseCallback

AT = 100

class Interrupted(Exception):
    pass

class Interrupt(BaseCallback):
    def _on_step(self):
        if self.num_timesteps >= AT:
            raise Interrupted
        return True
"""


def test_the_zoo_trains_and_resumes_with_dotted_names(tmp_path: Path) -> None:
    source = (ROOT / "tests" / "own_choices.py").read_text()
    (tmp_path / "own_things.py").write_text(source)
    (tmp_path / "interruption.py").write_text(INTERRUPTION)
    text = yaml.safe_dump({"CartPole-v1": ZOO | by_dotted_names()}).replace(OWN, "own_things.")
    (tmp_path / "mine.yml").write_text(text)
    printed = output(python("-c", SCRIPT, cwd=tmp_path))
    assert "Resuming logs" in printed
    one, other = (tmp_path / f"logs/dqn_ext/CartPole-v1_{i}" for i in (1, 2))
    assert "own_things.Persistent" in (one / "run.json").read_text()
    files = (str(folder / "CartPole-v1.zip") for folder in (one, other))
    assert output(python("-c", COMPARISON, *files, cwd=tmp_path)) == "same 160\n"


# the page

PAGE = DOCS / "add_your_own.md"


def test_the_page_has_each_base_class_with_its_methods_and_a_short_example() -> None:
    page = PAGE.read_text()
    for choice in PLACES.values():
        (row,) = [line for line in page.splitlines() if line.startswith("| `") and f"[{choice.base_class.__name__}]" in line]
        assert f"`{choice.argument}`" in row
        assert all(f"`{name}" in row for name in choice.required), row
    example = [block for block in blocks(PAGE) if block.language == "python"]
    assert sum(len(block.text.splitlines()) for block in example) <= 30


def test_a_function_of_the_user_is_watched_although_it_wraps_one_of_torch() -> None:
    @wraps(th.nn.functional.smooth_l1_loss)
    def mine(*args: Any, **kwargs: Any) -> Any:
        return th.nn.functional.smooth_l1_loss(*args, **kwargs)

    state = TracedState([mine, th.nn.functional.smooth_l1_loss])
    assert state.changed() is None
    vars(mine)["scale"] = 2
    assert state.changed() == "function"
