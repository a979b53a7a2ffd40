"""One actor in this process: its network is that of the learner, its priorities are TD errors, its actions are legal."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.actors import collection
from sb3_dqn_ext.actors.actor import Actor, ActorSetup, Orders, rung
from sb3_dqn_ext.actors.block import Block, block_steps
from sb3_dqn_ext.actors.process_engine import SharedWeights
from sb3_dqn_ext.actors.weights import load_weights, read_weights
from sb3_dqn_ext.algorithm.exploration import Boltzmann, EpsilonGreedy, EpsilonLadder
from tests.actors.helpers import make_model
from tests.masked_envs import MASKED

POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "MLP": ("serial/Serial-v0", {"net_arch": [16]}),
    "dueling, categorical": (
        "serial/Serial-v0",
        {"head": "dueling", "returns": "categorical", "returns_kwargs": {"v_min": -5, "v_max": 5}},
    ),
    "spectral norm": ("serial/Serial-v0", {"net_arch": [16, 16], "norm": "spectral"}),
    "float64": ("serial/Serial-v0", {"net_arch": [16], "dtype": "float64"}),
    "images": ("serial/Stack-v0", {"encoder": "minatar"}),
}


def setup_of(model: DQNExt) -> ActorSetup:
    """Return the description of the actors of a model."""
    return collection.make_setup(model)


def weighted_actor(model: DQNExt, **changes: Any) -> Actor:
    """Return an actor with the weights of a model that acts greedily."""
    actor = Actor(replace(setup_of(model), **changes), 0, seed=1)
    actor.load(read_weights(model.q_net), 7)
    actor.obey(Orders(0.0, False))
    return actor


@pytest.mark.parametrize("name", POLICIES)
def test_the_q_values_of_an_actor_are_those_of_the_learner(name: str) -> None:
    env_id, policy_kwargs = POLICIES[name]
    policy = "CnnPolicy" if name == "images" else "MlpPolicy"
    model = make_model(env_id, policy=policy, policy_kwargs=policy_kwargs)
    with th.no_grad():
        for tensor in [*model.q_net.parameters(), *model.q_net.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(th.rand_like(tensor) * 0.1)
    actor = weighted_actor(model)
    observations = np.array([model.observation_space.sample() for _ in range(1)])
    model.policy.set_training_mode(False)
    with th.no_grad():
        ours, theirs = (net(th.as_tensor(observations)).numpy() for net in (actor.model.q_net, model.q_net))
    assert np.array_equal(ours, theirs)
    assert actor._q_values is None or np.allclose(actor._q_values(observations), theirs, rtol=1e-4)
    assert (actor._q_values is not None) == (name in ("MLP", "float64"))  # the others are computed by torch


def test_weights_are_one_flat_array() -> None:
    model, other = make_model(), make_model(seed=1)
    weights = read_weights(model.q_net)
    assert weights.shape == (3 * 8 + 8 + 8 * 2 + 2,)
    assert weights.dtype == np.float32
    load_weights(other.q_net, weights)
    assert all(map(th.equal, other.q_net.parameters(), model.q_net.parameters()))


def test_shared_weights_that_are_being_written_are_not_read() -> None:
    from multiprocessing import get_context

    shared = SharedWeights(get_context("spawn"), np.zeros(3, np.float32))
    assert shared.read() is not None
    assert shared.read() is None  # they are not new
    shared.write(np.array([1, 2, 3], np.float32), 5)
    after = shared._state[1]
    shared._state[1] = after - 0.5  # the end of the write is not visible yet
    assert shared.read() is None
    shared._state[1] = after
    shared._array()[0] = 9  # the checksum is that of other numbers
    assert shared.read() is None
    shared._array()[0] = 1
    found = shared.read()
    assert found is not None
    assert found[0].tolist() == [1, 2, 3]
    assert found[1] == 5


def loop_td_errors(model: DQNExt, block: Block, n_steps: int, gamma: float) -> list[list[float]]:
    """Compute |R + gamma^n max Q(s', b) - Q(s, a)| with loops over steps and environments."""
    steps = list(block_steps(block))

    def q(observation: Any) -> Any:
        with th.no_grad():
            return model.q_net(th.as_tensor(observation[None])).numpy()[0]

    errors: list[list[float]] = []
    for row in range(block.n_own):
        errors.append([])
        for env in range(block.dones.shape[1]):
            total, discount, at = 0.0, 1.0, row
            while True:
                step = steps[at]
                total += discount * float(step.rewards[env])
                discount *= gamma
                if step.dones[env]:
                    discount *= step.infos[env]["TimeLimit.truncated"]
                    break
                at += 1
                if at == row + n_steps:
                    break
            following: Any = step.next_observations
            target = total + discount * q(following[env]).max()
            now: Any = steps[row].observations
            errors[-1].append(abs(target - q(now[env])[steps[row].actions[env]]))
    return errors


@pytest.mark.parametrize("n_steps", [1, 3])
def test_initial_priorities_are_the_td_errors_of_a_loop(n_steps: int) -> None:
    model = make_model(
        actors={"envs_per_actor": 2, "block_size": 40},
        n_steps=n_steps,
        gamma=0.9,
        replay_buffer_kwargs={"sampler": "prioritized"},
    )
    actor = weighted_actor(model)
    for _ in range(2):
        block = actor.make_block()
        assert block.n_own == 20
        assert len(block.actions) == 20 + n_steps - 1
        assert block.n_updates == 7
        assert block.td_errors is not None
        np.testing.assert_allclose(block.td_errors, loop_td_errors(model, block, n_steps, 0.9), rtol=1e-3, atol=1e-3)


def test_the_priorities_of_the_replay_buffer_are_those_of_the_actors() -> None:
    buffer_kwargs = {"sampler": "prioritized", "sampler_kwargs": {"alpha": 1.0, "eps": 0.5}}
    model = make_model(replay_buffer_kwargs=buffer_kwargs, learning_starts=10_000, gamma=0.9, actors={"n_actors": 1})
    model.learn(200)  # no gradient step: all priorities are those of the actor, whose weights have not changed
    buffer: Any = model.replay_buffer
    found = buffer.sampler.priorities()
    batch = buffer.read(found.indices)
    with th.no_grad():
        target = batch.rewards + batch.discounts * model.q_net(batch.next_observations).max(dim=1).values
        q = model.q_net(batch.observations).gather(1, batch.actions.reshape(-1, 1))[:, 0]
    assert len(found.indices) == 200
    np.testing.assert_allclose(found.values, (target - q).abs() + 0.5, rtol=1e-4)


def test_actors_choose_legal_actions_only() -> None:
    model = make_model("tests/Strict-v0", policy_kwargs=MASKED, n_steps=2, actors={"envs_per_actor": 2})
    model.learn(600)  # the environment raises an error at an illegal action
    buffer: Any = model.replay_buffer
    batch = buffer.read(np.arange(buffer.size() * 2))
    assert bool((batch.observations["action_mask"].gather(1, batch.actions.reshape(-1, 1)) == 1).all())


def test_each_actor_has_one_rung_of_the_ladder() -> None:
    rates = [rung(EpsilonLadder(alpha=7.0), 0.4, actor, 4) for actor in range(4)]
    assert [rate for _, rate in rates] == pytest.approx([0.4, 0.4 ** (1 + 7 / 3), 0.4 ** (1 + 14 / 3), 0.4**8])
    assert all(exploration == EpsilonGreedy() for exploration, _ in rates)
    assert rung(Boltzmann(), 2.0, 1, 4) == (Boltzmann(), 2.0)


def test_the_share_of_random_actions_is_that_of_the_rung() -> None:
    model = make_model(
        actors={"n_actors": 2}, exploration="epsilon_ladder", exploration_kwargs={"schedule": 0.5, "alpha": 1.0}
    )
    shares = []
    for index in range(2):
        actor = Actor(setup_of(model), index, seed=1)
        actor.load(read_weights(model.q_net), 0)
        actor.obey(Orders(0.5, False))
        model.policy.set_training_mode(False)
        n_other = n = 0
        for _ in range(20):
            block = actor.make_block()
            observations: Any = block.observations
            with th.no_grad():
                greedy = model.q_net(th.as_tensor(observations[:-1, 0])).numpy().argmax(axis=1)
            n_other += int((greedy != block.actions[:, 0]).sum())
            n += len(greedy)
        shares.append(n_other / n)
    assert shares == pytest.approx([0.25, 0.125], abs=0.06)  # half of the random actions are greedy
