"""Auxiliary losses: by hand, as parts of the TD loss of every return model, and at their fixed points."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.auxiliary_losses import AuxiliaryLoss, ConservativeLoss, LargeMarginLoss
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.demonstrations import SpacesEnv, from_episode
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer


def batch_of(actions: list[int], demonstrations: list[bool] | None = None) -> Batch:
    """Make a batch of transitions of which the losses read nothing but actions and flags."""
    nothing = th.zeros(len(actions))
    flags = None if demonstrations is None else th.tensor(demonstrations)
    return Batch(nothing, th.tensor(actions), nothing, nothing, nothing, None, flags, np.zeros(len(actions), dtype=np.int64))


def losses_and_gradients(loss: AuxiliaryLoss, q_values: Any, batch: Batch) -> tuple[Any, Any]:
    q = th.tensor(q_values, dtype=th.float64, requires_grad=True)
    losses = loss(q, batch)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None
    return losses.detach().numpy(), q.grad.numpy()


def test_the_large_margin_loss_by_hand() -> None:
    q_values = [[1.0, 2.0, 0.5], [1.0, 2.0, 0.5], [3.0, 2.0, 1.0], [3.0, 2.5, 1.0]]
    batch = batch_of([0, 0, 0, 0], [True, False, True, True])
    losses, gradients = losses_and_gradients(LargeMarginLoss(0.8), q_values, batch)
    # 2 + 0.8 - 1; no demonstration; 3 is 0.8 above the others; 2.5 + 0.8 - 3
    np.testing.assert_allclose(losses, [1.8, 0, 0, 0.3])
    np.testing.assert_allclose(gradients, [[-1, 1, 0], [0, 0, 0], [0, 0, 0], [-1, 1, 0]])
    losses, gradients = losses_and_gradients(LargeMarginLoss(0.5, weight=2.0), q_values, batch)
    np.testing.assert_allclose(losses, [3.0, 0, 0, 0])
    np.testing.assert_allclose(gradients[0], [-2, 2, 0])


def test_the_conservative_loss_by_hand() -> None:
    losses, gradients = losses_and_gradients(ConservativeLoss(2.0), np.log([[1.0, 2.0, 1.0]]), batch_of([1]))
    np.testing.assert_allclose(losses, 2 * (np.log(4) - np.log(2)))
    np.testing.assert_allclose(gradients, [[0.5, -1.0, 0.5]])  # 2 * (softmax - (0, 1, 0))


class Squares(AuxiliaryLoss):
    """
    The squares of all Q-values.

    :param weight: their weight
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, q_values: th.Tensor, batch: Batch) -> th.Tensor:
        return self.weight * (q_values**2).sum(dim=1)


def summed(q_values: th.Tensor, batch: Batch) -> th.Tensor:
    return q_values.sum(dim=1)


def wrong_shape(q_values: th.Tensor, batch: Batch) -> th.Tensor:
    return q_values


OBSERVATIONS = gym.spaces.Box(-1, 1, (3,), np.float64)


def steps(n: int = 12) -> list[tuple[Any, ...]]:
    """Make transitions at random."""
    OBSERVATIONS.seed(1)
    return [(OBSERVATIONS.sample(), i % 2, i / 4, OBSERVATIONS.sample(), i % 3 == 0, False) for i in range(n)]


def make(env: Any = None, demonstrations: Any = None, buffer_kwargs: Any = None, **arguments: Any) -> DQNExt:
    env = env or SpacesEnv(OBSERVATIONS, gym.spaces.Discrete(2))
    kwargs = {"demonstrations": demonstrations or steps()} | (buffer_kwargs or {})
    policy_kwargs = {"net_arch": [8]} | arguments.pop("policy_kwargs", {})
    shared: dict[str, Any] = {"batch_size": 8, "device": "cpu", "seed": 0, "replay_buffer_kwargs": kwargs}
    return DQNExt("MlpPolicy", env, policy_kwargs=policy_kwargs, **shared | arguments)


RETURNS: list[dict[str, Any]] = [
    {},
    {"head": "dueling", "head_arch": [4], "fitted_actions": "all"},
    {"returns": "categorical", "returns_kwargs": {"n_atoms": 5, "v_min": -3, "v_max": 3}},
    {"returns": "quantile", "returns_kwargs": {"n_quantiles": 4}},
    {"returns": "hl_gauss", "returns_kwargs": {"n_bins": 5, "v_min": -3, "v_max": 3}},
]


@pytest.mark.parametrize("network", RETURNS, ids=str)
def test_the_loss_of_mean_q_values_is_added_and_td_errors_are_unchanged(network: dict[str, Any]) -> None:
    plain = make(policy_kwargs=network)
    margin = make(policy_kwargs=network | {"auxiliary_loss": "large_margin", "auxiliary_loss_kwargs": {"weight": 3.0}})
    cql = make(policy_kwargs=network | {"auxiliary_loss": "cql"})
    buffer: Any = plain.replay_buffer
    batch = buffer.read(buffer.sampler.epoch(*buffer._drawn_rows()))
    assert batch.demonstrations.all()
    with th.no_grad():
        q = plain.q_net(batch.observations).double().numpy()
        of_plain, of_margin, of_cql = (model.updater.loss(batch) for model in (plain, margin, cql))
    rows = np.arange(len(q))
    taken = batch.actions.numpy()
    other = np.where(np.eye(2)[taken] > 0, q, q + 0.8).max(axis=1)
    np.testing.assert_allclose(of_margin[0] - of_plain[0], 3 * (other - q[rows, taken]), atol=2e-6)
    np.testing.assert_allclose(of_cql[0] - of_plain[0], np.log(np.exp(q).sum(axis=1)) - q[rows, taken], atol=2e-6)
    for losses, errors in (of_margin, of_cql):
        assert th.equal(errors, of_plain[1])
        assert not th.equal(losses, of_plain[0])


@pytest.mark.filterwarnings("ignore:Not all of the model can be stored")
@pytest.mark.parametrize("network", [{}, *RETURNS[2:4], {"returns": "implicit_quantile"}], ids=str)
def test_illegal_actions_are_in_no_auxiliary_loss(network: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    masks = random.integers(0, 2, (13, 4), dtype=np.int8)
    actions = random.integers(4, size=12)
    masks[np.arange(13), [*actions, 0]] = 1
    observations: Any = {"state": random.random((13, 3)), "action_mask": masks}
    recorded = from_episode(observations, actions, np.zeros(12), np.zeros(12, bool), np.zeros(12, bool))
    space = gym.spaces.Dict(state=gym.spaces.Box(0, 1, (3,), np.float64), action_mask=gym.spaces.MultiBinary(4))
    env = SpacesEnv(space, gym.spaces.Discrete(4))
    seen: list[th.Tensor] = []

    def note(q_values: th.Tensor, batch: Batch) -> th.Tensor:
        seen.append(q_values.detach())
        return th.zeros(len(q_values))

    plain, margin, cql = (
        make(env, recorded, policy_kwargs=network | {"action_masks": True, "auxiliary_loss": loss})
        for loss in (note, "large_margin", "cql")
    )
    buffer: Any = plain.replay_buffer
    batch = buffer.sample_batch(12)
    losses = []
    for model in (plain, margin, cql):
        th.manual_seed(0)  # the quantiles
        losses.append(model.updater.loss(batch)[0].detach().double().numpy())
    wanted = []
    for q, mask, action in zip(seen[0].double().numpy(), batch.observations["action_mask"], batch.actions, strict=True):
        legal = np.flatnonzero(mask)
        margins = [q[a] + 0.8 * (a != int(action)) for a in legal]
        wanted.append((max(margins) - q[action], np.log(sum(np.exp(q[a]) for a in legal)) - q[action]))
    found = np.stack([losses[1] - losses[0], losses[2] - losses[0]], axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    cql.learn_offline(5)
    assert all(bool(parameter.isfinite().all()) for parameter in cql.q_net.parameters())


def test_implicit_quantiles_have_auxiliary_losses_too() -> None:
    model = make(policy_kwargs={"returns": "implicit_quantile", "auxiliary_loss": "cql"})
    model.learn_offline(5)
    assert model._n_updates == 5


def table(rewards: list[float], actions: list[int]) -> list[tuple[Any, ...]]:
    """Make transitions of episodes of one step from the only state there is."""
    one = np.ones(1)
    return [(one, action, reward, one, True, False) for action, reward in zip(actions, rewards, strict=True)]


def fitted(loss: str, kwargs: dict[str, Any], transitions: list[tuple[Any, ...]], n_updates: int) -> Any:
    """Fit two Q-values of the only state to all transitions at a time, and return them."""
    network = {"net_arch": [], "loss": "mse", "optimizer_class": "sgd", "dtype": "float64"}
    model = make(
        SpacesEnv(gym.spaces.Box(1, 1, (1,), np.float64), gym.spaces.Discrete(2)),
        transitions,
        {"sampler_kwargs": {"replace": False}},
        batch_size=len(transitions),
        learning_rate=0.05,
        policy_kwargs=network | {"auxiliary_loss": loss, "auxiliary_loss_kwargs": kwargs},
    )
    model.learn_offline(n_updates)
    with th.no_grad():
        return model.q_net(th.ones(1, 1, dtype=th.float64)).numpy()[0]


def test_q_values_of_one_state_converge_to_the_fixed_point_of_the_conservative_loss() -> None:
    q = fitted("cql", {"alpha": 0.5}, table([1.0, 1.0, 1.0, -1.0], [0, 0, 0, 1]), 300)
    # the gradient of sum_a p_a (Q_a - r_a)^2 + alpha (log sum exp Q - sum_a p_a Q_a) is 0
    shares, rewards, softmax = np.array([0.75, 0.25]), np.array([1.0, -1.0]), np.exp(q) / np.exp(q).sum()
    np.testing.assert_allclose(2 * shares * (q - rewards) + 0.5 * (softmax - shares), 0, atol=1e-4)
    assert abs(q - rewards).max() > 0.02  # another point than without the loss


def test_q_values_of_one_state_converge_to_the_margin() -> None:
    distances = []
    for action in (0, 1):
        q = fitted("large_margin", {"margin": 0.8}, table([-2.0, -2.0], [action] * 2), 150)
        assert q[action] == pytest.approx(-2.0, abs=0.05)
        distances.append(q[action] - q[1 - action])
    # the Q-values of untrained networks are above -1
    assert distances == pytest.approx([0.8, 0.8], abs=0.1)


@pytest.mark.parametrize(
    "own",
    [
        {"auxiliary_loss": Squares, "auxiliary_loss_kwargs": {"weight": 2.0}},
        {"auxiliary_loss": Squares(2.0)},
        {"auxiliary_loss": f"{__name__}.Squares", "auxiliary_loss_kwargs": {"weight": 2.0}},
    ],
    ids=["class", "object", "dotted name"],
)
def test_a_loss_of_the_user_is_added(own: dict[str, Any]) -> None:
    plain, model = make(), make(policy_kwargs=own)
    buffer: Any = plain.replay_buffer
    batch = buffer.sample_batch(8)
    with th.no_grad():
        difference = model.updater.loss(batch)[0] - plain.updater.loss(batch)[0]
        np.testing.assert_allclose(difference, 2 * (plain.q_net(batch.observations) ** 2).sum(dim=1), atol=1e-6)


def test_a_function_is_a_loss_and_wrong_shapes_are_refused() -> None:
    make(policy_kwargs={"auxiliary_loss": summed}).learn_offline(2)
    with pytest.raises(ArgumentError, match=r"function must return \(B,\) losses: tensors of the shapes \(8,\)"):
        make(policy_kwargs={"auxiliary_loss": wrong_shape}).learn_offline(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"auxiliary_loss": "dqfd"}, r"auxiliary_loss='dqfd' is not known.*Did you mean 'large_margin'\?"),
        ({"auxiliary_loss": "cql", "auxiliary_loss_kwargs": {"alhpa": 1}}, "alhpa.*'alpha'"),
        ({"auxiliary_loss": "cql", "auxiliary_loss_kwargs": {"alpha": -1}}, r"alpha=-1 must be a finite number in \[0, inf\]"),
        ({"auxiliary_loss_kwargs": {"alpha": 1}}, "has no effect without auxiliary_loss"),
        ({"auxiliary_loss": 3}, "auxiliary_loss=3 is no AuxiliaryLoss"),
        ({"auxiliary_loss": th.nn.Linear(2, 1)}, "has parameters, which no optimizer would train"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(policy_kwargs=arguments)


def test_the_loss_of_demonstrations_needs_some() -> None:
    with pytest.raises(
        ArgumentError, match=r"auxiliary_loss='large_margin' is a loss of demonstrations and needs replay_buff"
    ):
        DQNExt("MlpPolicy", "CartPole-v1", policy_kwargs={"auxiliary_loss": "large_margin"})


def test_a_saved_model_has_its_loss(tmp_path: Any) -> None:
    model = make(policy_kwargs={"auxiliary_loss": LargeMarginLoss(0.5)})
    model.replay_buffer_kwargs = {}
    model.save(tmp_path / "model")
    loaded: Any = DQNExt.load(tmp_path / "model")
    assert vars(loaded.policy.auxiliary) == {"margin": 0.5, "weight": 1.0}
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
