"""Resets, and shrink and perturb, on SB3's DQN, sb3-contrib's QRDQN and DQNExt."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.callbacks import BaseCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback, ReDoCallback, ResetCallback
from sb3_dqn_ext.checkpoint.folder import checkpoints
from sb3_dqn_ext.errors import ArgumentError
from tests.callbacks.diagnostics.helpers import build, networks_of, poles
from tests.callbacks.plasticity.helpers import around, same, small_images, spectral_norms, state_of
from tests.internals import n_updates_of
from tests.parity import assert_same, assert_same_model, learn

ALL = [DQN, QRDQN, DQNExt]
NAMES = [algorithm.__name__ for algorithm in ALL]


def observe(model: Any) -> dict[str, Any]:
    """Return the number of updates, the weights of both networks, and the optimizer's state by the name of a parameter."""
    online, target = networks_of(model)
    state = model.policy.optimizer.state
    moments = {
        name: {key: value.clone() for key, value in state[parameter].items()} if parameter in state else {}
        for name, parameter in online.named_parameters()
    }
    return {"updates": n_updates_of(model), "online": state_of(online), "target": state_of(target), "adam": moments}


def head_of(algorithm: Any) -> str:
    return "quantile_net" if algorithm is QRDQN else "q_net"


@pytest.mark.parametrize("algorithm", ALL, ids=NAMES)
def test_the_layers_after_the_features_extractor_are_reset_every_k_updates(algorithm: Any) -> None:
    """A training makes 3 updates, so that updates 10, 20 ... are passed at 12, 21, 30 ..."""
    callback = ResetCallback(10)
    callbacks, before, after = around(callback, observe)
    rows = learn(build(algorithm, gradient_steps=3, target_update_interval=1000), 84, callback=callbacks).rows
    changed = [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if not same(one["online"], other["online"])]
    assert [before[i]["updates"] for i in changed] == [12, 21, 30, 42, 51, 60, 72, 81, 90]
    for i in changed:
        assert len(after[i]["online"]) == 6
        for name, now in after[i]["online"].items():
            assert not th.equal(now, before[i]["online"][name]), name
            assert th.equal(now, after[i]["target"][name]), "as in a new model"
    weights = [after[i]["online"][f"{head_of(algorithm)}.0.weight"] for i in changed]
    assert len({float(one.sum()) for one in weights}) == 9, "new weights each time"
    assert all(float(one.abs().max()) <= 0.5 for one in weights), "torch's initial weights of 4 inputs are below 1/sqrt(4)"
    assert all(float(one.abs().max()) > 0.45 for one in weights)
    assert callback.n_acts == 9
    logged = [row["train/resets"] for row in rows if "train/resets" in row]
    assert logged == sorted({*logged})
    assert logged[0] == 0
    assert 8 <= logged[-1] <= 9


@pytest.mark.parametrize("algorithm", ALL, ids=NAMES)
def test_shrink_and_perturb_mixes_weights_with_those_of_a_reset(algorithm: Any) -> None:
    """Both resets have the same seed, and so the same initial weights."""
    head = head_of(algorithm)
    runs = []
    for arguments in (
        {"reset": "*"},
        {"reset": f"{head}.4", "shrink": f"{head}.[02]"},
        {"shrink": "*", "reset_target": False},
    ):
        callbacks, before, after = around(
            ResetCallback(10, until=19, shrink_factor=0.8, perturb_factor=0.3, **arguments),
            observe,
        )
        learn(build(algorithm, target_update_interval=8), 60, callback=callbacks)
        (i,) = (i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not same(a["online"], b["online"]))
        runs.append((before[i], after[i]))
    (_, whole), (start, mixed), (_, shrunk) = runs
    for name, fresh in whole["online"].items():
        for network in ("online", "target"):
            old = start[network][name]
            expected = fresh if f"{head}.4" in name else 0.8 * old + 0.3 * fresh
            th.testing.assert_close(mixed[network][name], expected, msg=name)
        th.testing.assert_close(shrunk["online"][name], 0.8 * start["online"][name] + 0.3 * fresh)
        assert th.equal(shrunk["target"][name], start["target"][name])


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_only_the_averages_of_changed_parameters_become_0(optimizer: str) -> None:
    policy_kwargs = {"optimizer_class": optimizer} | ({"optimizer_kwargs": {"momentum": 0.9}} if optimizer == "sgd" else {})
    callbacks, before, after = around(ResetCallback(10, reset="q_net.4", until=19), observe)
    learn(build(DQNExt, policy_kwargs=policy_kwargs), 60, callback=callbacks)
    (i,) = (i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not same(a["online"], b["online"]))
    for name, old in before[i]["adam"].items():
        assert {key for key, value in old.items() if value.any()} == set(old), "all of them are used"
        for key, value in old.items():
            now = after[i]["adam"][name][key]
            assert not now.any() if name.startswith("q_net.4") and key != "step" else th.equal(now, value), (name, key)


def test_spectral_norms_are_those_of_the_new_weights() -> None:
    """An estimate from the vectors of the old weights would be near 0, and the layer would multiply its inputs by many."""
    model = build(DQNExt, policy_kwargs={"norm": "spectral", "net_arch": [32, 32]})
    callback = ResetCallback(10, until=19, reset=[], shrink="*", shrink_factor=0, perturb_factor=1)
    callbacks, before, after = around(
        callback, lambda model: [spectral_norms(model.q_net), spectral_norms(model.q_net_target)]
    )
    learn(model, 84, callback=callbacks)
    norms = next(now for old, now in zip(before, after, strict=True) if now != old)
    assert [len(one) for one in norms] == [2, 2]
    assert all(0.9 < norm < 1.1 for one in norms for norm in one), norms


V_RANGE = {"v_min": 0, "v_max": 9}
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "noisy, dueling, categorical": (
        {"noisy": True, "head": "dueling", "head_arch": [6], "returns": "categorical", "returns_kwargs": V_RANGE},
        {"reset": ["q_net.value", "q_net.advantage.2"]},
        r"q_net\.(value|advantage\.2).*",
    ),
    "shrunk noise": ({"noisy": True}, {"reset": [], "shrink": "q_net.[02]"}, r"q_net\.[02]\..*"),
    "heads with optimizers": (
        {"head": "multi_head", "head_arch": [6], "optimizer_per_head": True},
        {"reset": "q_net.heads.0"},
        r"q_net\.heads\.0.*",
    ),
    "implicit quantiles": ({"returns": "implicit_quantile"}, {"shrink": "embedding"}, ".*"),
    "batch normalisation": ({"batch_norm": True}, {}, ".*"),
}
"""For each network: its arguments, the modules, and a pattern of the tensors that change."""


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_all_kinds_are_reset(name: str) -> None:
    policy_kwargs, modules, pattern = NETWORKS[name]
    model = build(DQNExt, policy_kwargs=policy_kwargs)
    callbacks, before, after = around(ResetCallback(10, until=19, **modules), lambda model: state_of(model.q_net))
    learn(model, 60, callback=callbacks)
    (i,) = (i for i, (old, now) in enumerate(zip(before, after, strict=True)) if not same(old, now))
    trained = {name for name, tensor in model.q_net.named_parameters()} | {"q_net.1.running_mean"} & set(before[i])
    changed = {name for name in trained if not th.equal(before[i][name], after[i][name])}
    assert changed == {name for name in trained if re.fullmatch(pattern, name)}
    if name == "batch normalisation":
        assert not after[i]["q_net.1.running_mean"].any()
    if name == "heads with optimizers":
        states = [optimizer.state for optimizer in model.policy.optimizer.optimizers]
        assert all(state[parameter]["exp_avg"].any() for state in states for parameter in state), "trained since"


@pytest.mark.parametrize(("shrink", "extractor_changes"), [((), False), ("features_extractor", True)])
def test_an_encoder_is_kept_or_shrunk(shrink: Any, extractor_changes: bool) -> None:
    model = build(DQNExt, small_images(), policy="CnnPolicy", policy_kwargs={"encoder": "minatar", "net_arch": [4]})
    callbacks, before, after = around(ResetCallback(3, until=5, shrink=shrink), lambda model: state_of(model.q_net))
    learn(model, 30, callback=callbacks)
    (i,) = (i for i, (old, now) in enumerate(zip(before, after, strict=True)) if not same(old, now))
    for name, tensor in after[i].items():
        assert th.equal(tensor, before[i][name]) != (extractor_changes or name.startswith("q_net.")), name


def test_initial_weights_are_those_of_the_policy() -> None:
    callbacks, before, after = around(ResetCallback(10, until=19), observe)
    learn(build(DQNExt, policy_kwargs={"init": "keras"}), 60, callback=callbacks)
    (i,) = (i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not same(a["online"], b["online"]))
    assert all(not tensor.any() for name, tensor in after[i]["online"].items() if name.endswith("bias"))
    assert all(tensor.any() for name, tensor in before[i]["online"].items() if name.endswith("bias"))


def test_adam_on_one_flat_tensor_continues_as_that_of_torch_does() -> None:
    models = []
    for algorithm in (DQN, DQNExt):
        models.append(build(algorithm))
        reset, redo = ResetCallback(13, shrink="q_net.0"), ReDoCallback(7, tau=0.5)
        learn(models[-1], 120, callback=[reset, redo])
        assert reset.n_acts == 3
        assert redo.n_recycled > 3
    assert_same_model(models[1], models[0])


@pytest.mark.parametrize("algorithm", ALL, ids=NAMES)
@pytest.mark.parametrize("make", [lambda: ResetCallback(10**6), lambda: ReDoCallback(5, tau=0)], ids=["reset", "redo"])
def test_a_callback_that_changes_no_weight_changes_no_bit(algorithm: Any, make: Any) -> None:
    policy_kwargs: dict[str, Any] = {"activation_fn": nn.Tanh}  # whose outputs are never 0
    models, rows = [], []
    for callbacks in ([make()], []):
        models.append(
            build(algorithm, poles(2), policy_kwargs=dict(policy_kwargs), seed=5)
        )  # not that of the first fresh network
        rows.append(learn(models[-1], 120, callback=callbacks).rows)
    assert_same_model(*models)
    kept = [{k: v for k, v in row.items() if k not in ("train/resets", "train/recycled_units")} for row in rows[0]]
    assert_same(kept, rows[1], "logged")


def test_the_units_of_steps_and_the_last_step() -> None:
    def steps_of_resets(**arguments: Any) -> list[int]:
        callbacks, before, after = around(ResetCallback(**arguments), lambda model: (model.num_timesteps, observe(model)))
        learn(build(DQNExt), 100, callback=callbacks)
        pairs = zip(before, after, strict=True)
        return [step for (step, old), (_, now) in pairs if not same(old["online"], now["online"])]

    assert steps_of_resets(every=30, unit="env_steps") == [30, 60, 90]
    assert steps_of_resets(every=30, unit="env_steps", until=60) == [30, 60]
    assert steps_of_resets(every=10) == [40, 60, 80], "an update after steps 22, 24 ...; none after the last rollout"
    assert steps_of_resets(every=1000) == []


def test_an_event_callback_that_holds_it_changes_nothing() -> None:
    models = []
    for callback in (ResetCallback(10), EveryNTimesteps(50, ResetCallback(10))):
        models.append(build(DQNExt))
        learn(models[-1], 90, callback=callback)
    assert_same_model(*models)


def test_a_second_call_of_learn_continues_the_count() -> None:
    callbacks = [ResetCallback(15), ResetCallback(15)]
    models = [build(DQNExt) for _ in range(2)]
    models[0].learn(120, callback=callbacks[0])
    for total in (62, 58):
        models[1].learn(total, callback=callbacks[1], reset_num_timesteps=False)
    assert [one.n_acts for one in callbacks] == [3, 3]


@pytest.mark.parametrize("seed", [0, None])
def test_a_resumed_run_has_the_same_bits(seed: int | None, tmp_path: Path) -> None:
    """The model without a seed draws one, which the checkpoint holds. Checkpoints are written before or after resets."""

    def callbacks(folder: str) -> list[BaseCallback]:
        acts: list[BaseCallback] = [ResetCallback(5, shrink="q_net.0"), ReDoCallback(2, tau=0.3)]
        checkpoint = ExactCheckpointCallback(20, tmp_path / folder, keep=9)
        return [checkpoint, *acts] if seed is None else [*acts, checkpoint]

    def make() -> DQNExt:
        model: DQNExt = build(DQNExt, make_vec_env("CartPole-v1", seed=0), seed=seed)
        return model

    whole = make()
    learn(whole, 70, callback=callbacks("whole"))
    part = make().resume(checkpoints(tmp_path / "whole")[1])
    assert (part.num_timesteps, n_updates_of(part)) == (40, 10), "both callbacks act at that step"
    learn(part, 70, callback=callbacks("part"))
    assert_same(part.get_parameters(), whole.get_parameters(), "parameters")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every=0 must be a whole number"),
        ({"every": 5, "unit": "updates"}, "unit='updates' is not known.*Did you mean 'gradient_steps'"),
        ({"every": 5, "until": 0}, "until=0"),
        ({"every": 5, "until": 4}, "until=4 is below every=5"),
        ({"every": 5, "reset": 3}, "reset=3 must be a name or a pattern of modules"),
        ({"every": 5, "shrink": [3]}, "shrink=3 must be a name or a pattern of modules"),
        ({"every": 5, "shrink_factor": 1.5}, "shrink_factor=1.5"),
        ({"every": 5, "perturb_factor": -1}, "perturb_factor=-1"),
        ({"every": 5, "reset_target": "yes"}, "reset_target='yes'"),
        ({"every": 5, "reset": []}, r"reset=\[\] and shrink=\(\) name no module"),
    ],
    ids=str,
)
def test_an_invalid_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ResetCallback(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"reset": "q_nett"},
            r"reset='q_nett' is not known; it can be one of: q_net, q_net.0, q_net.2, q_net.4. Did you mean 'q_net'",
        ),
        ({"shrink": "encoder.*"}, r"shrink='encoder.\*' is not known; it can be one of: q_net"),
        ({"reset": "q_net.4", "shrink": "q_net"}, "have q_net.4.bias, q_net.4.weight in common; name it once"),
    ],
    ids=str,
)
def test_wrong_modules_are_refused_at_the_start(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build(DQNExt).learn(10, callback=ResetCallback(5, **arguments))


def test_other_algorithms_and_replaced_layers_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"rollouts|needs a DQN or QRDQN, not A2C"):
        A2C("MlpPolicy", "CartPole-v1", device="cpu").learn(10, callback=ResetCallback(5))
    model = build(DQN)
    model.q_net.q_net[4] = nn.Sequential(nn.Linear(8, 2))
    with pytest.raises(ArgumentError, match=r"other layers than that: q_net.4.0.bias, q_net.4.0.weight"):
        model.learn(10, callback=ResetCallback(5))
