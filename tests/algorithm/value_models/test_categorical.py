"""Categorical returns, against loops that are written as the paper writes them."""

import math

import numpy as np
import pytest
import torch as th

from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models import (
    CategoricalReturns,
)
from sb3_dqn_ext.algorithm.value_models.categorical import project
from tests.algorithm.value_models.helpers import DISCOUNTS, REWARDS, A, B, K, numbers, policies


def projected_by_a_double_loop(atoms: list[float], places: list[float], probabilities: list[float]) -> list[float]:
    """Algorithm 1 of https://arxiv.org/abs/1707.06887, for one transition."""
    v_min, v_max, n = atoms[0], atoms[-1], len(atoms)
    width = (v_max - v_min) / (n - 1)
    m = [0.0] * n
    for place, probability in zip(places, probabilities, strict=True):
        b = (min(max(place, v_min), v_max) - v_min) / width
        b = round(b, 5)  # a place on an atom lies on it
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            m[lower] += probability
        else:
            m[lower] += probability * (upper - b)
            m[upper] += probability * (b - lower)
    return m


@pytest.mark.parametrize("policy", ["greedy", "soft"])
def test_the_categorical_target_is_the_projection_of_the_textbook(policy: str) -> None:
    model = CategoricalReturns(n_atoms=K, v_min=-2, v_max=4)
    logits, pi = numbers(B, A, K), policies()[policy]
    target = model.target(Prediction(logits), pi, REWARDS, DISCOUNTS).values
    atoms = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    for b in range(B):
        expected = np.zeros(K)
        places = [float(REWARDS[b]) + float(DISCOUNTS[b]) * atom for atom in atoms]
        for a in range(A):
            exps = np.exp(logits[b, a].double().numpy())
            expected += float(pi[b, a]) * np.array(projected_by_a_double_loop(atoms, places, list(exps / exps.sum())))
        np.testing.assert_allclose(target[b].numpy(), expected, atol=2e-5)
        assert float(target[b].sum()) == pytest.approx(1, abs=1e-5)


def test_a_projection_keeps_what_lies_on_an_atom_and_cuts_off_what_lies_beyond() -> None:
    atoms = th.tensor([-1.0, 0.0, 1.0])
    places = th.tensor([[-1.0, 0.0, 1.0], [-5.0, 0.25, 9.0]])
    probabilities = th.tensor([[0.2, 0.3, 0.5], [0.2, 0.4, 0.4]])
    th.testing.assert_close(project(atoms, places, probabilities), th.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]))


def test_the_categorical_loss_is_the_cross_entropy_and_the_mean_that_of_the_atoms() -> None:
    model = CategoricalReturns(n_atoms=K, v_min=-2, v_max=4)
    logits, target = numbers(B, K), numbers(B, K, seed=2).softmax(dim=1)
    losses, means = model.loss(Prediction(logits), Prediction(target)), model.mean(Prediction(logits.unsqueeze(1)))
    for b in range(B):
        exps = [math.exp(logit) for logit in logits[b].tolist()]
        p = [e / sum(exps) for e in exps]
        cross_entropy = -sum(t * math.log(q) for t, q in zip(target[b].tolist(), p, strict=True))
        assert float(losses[b]) == pytest.approx(cross_entropy, rel=1e-5)
        assert float(means[b, 0]) == pytest.approx(sum(q * (i - 2) for i, q in enumerate(p)), rel=1e-4, abs=1e-5)
