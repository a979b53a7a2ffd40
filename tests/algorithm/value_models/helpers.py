"""Small batches of distribution parameters. Shapes: B batch size, A actions, K distribution parameters per action."""

import numpy as np
import torch as th

B, A, K = 6, 3, 7


def numbers(*shape: int, seed: int = 0) -> th.Tensor:
    return th.as_tensor(np.random.default_rng(seed).normal(size=shape), dtype=th.float32)


def policies() -> dict[str, th.Tensor]:
    greedy = th.nn.functional.one_hot(th.arange(B) % A, A).float()
    return {"greedy": greedy, "soft": numbers(B, A, seed=5).softmax(dim=1)}


REWARDS = numbers(B, seed=1) * 3
DISCOUNTS = th.tensor([0.9, 0.0, 1.0, 0.5, 0.0, 0.97])  # two of the transitions are terminal
