"""
Print the share of convolutions and matrix products in the time of an update: ``python -m benchmarks.speed.profile_update``.

Compiled updates are called from Python here instead of C++, as torch's profiler does not see the calls of C++. Then it prints
the times of matrix products of these sizes with the libraries of torch (MKL in the wheels for x86) and of numpy (OpenBLAS).
"""

import argparse
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.speed.implementations import make_model
from benchmarks.speed.workloads import BY_NAME, LABELS

KINDS = {"convolutions": ("conv",), "matrix products": ("aten::mm", "aten::addmm")}
"""The beginnings or parts of the names of operations, by kind."""


def kind_of(operation: str) -> str:
    """Return the kind of an operation of torch."""
    return next((kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), "rest")


def shares(model: OffPolicyAlgorithm, n_updates: int) -> tuple[float, dict[str, float]]:
    """
    Profile updates.

    :param model: the model, whose replay buffer holds transitions
    :param n_updates: the number of updates
    :return: the microseconds of an update, and the share of each kind
    """
    model.train(1, model.batch_size)
    with th.profiler.profile() as profile:
        for _ in range(n_updates):
            model.train(1, model.batch_size)
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    times = dict.fromkeys([*KINDS, "rest"], 0.0)
    for event in events:
        times[kind_of(event.key)] += event.self_cpu_time_total
    return total / n_updates, {kind: time / total for kind, time in times.items()}


def product_times(rows: int, inner: int, columns: int, repeats: int = 200) -> tuple[float, float]:
    """
    Measure the product of a (rows, inner) and an (inner, columns) matrix.

    :param rows: the number of rows
    :param inner: the number of columns of the first matrix and of rows of the second
    :param columns: the number of columns
    :param repeats: the number of products in each of five measurements, whose fastest counts
    :return: the microseconds with the library of torch, and with that of numpy
    """
    random = np.random.default_rng(0)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in ((rows, inner), (inner, columns)))
    out = np.empty((rows, columns), np.float32)
    tensors, result = (th.from_numpy(a), th.from_numpy(b)), th.from_numpy(out)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: th.mm(*tensors, out=result),
        lambda: np.matmul(a, b, out=out),
    )
    of_torch, of_numpy = (1e6 * min(timeit.repeat(call, number=repeats, repeat=5)) / repeats for call in calls)
    return of_torch, of_numpy


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.profile_update", description=__doc__)
    parser.add_argument("--workload", default="nature-1", choices=BY_NAME)
    parser.add_argument("--updates", type=int, default=50)
    args = parser.parse_args()
    th.set_num_threads(1)
    workload = BY_NAME[args.workload]
    from torch._inductor import compile_fx

    compile_graph: Any = compile_fx.compile_fx_inner
    with patch.object(compile_fx, "compile_fx_inner", partial(_compile_for_python, compile_graph)):
        for name in ("sb3", "ours_eager", "ours"):
            model = make_model(workload, name, seed=0)
            model.learn(workload.warm_up)
            microseconds, of_kinds = shares(model, args.updates)
            text = ", ".join(f"{kind} {share:.0%}" for kind, share in of_kinds.items())
            print(f"{LABELS[name]}: {microseconds:.0f} µs per update: {text}")
    weights = {tuple(layer.weight.shape) for layer in model.policy.modules() if isinstance(layer, th.nn.Linear)}
    for outputs, inputs in sorted(weights):
        for sizes in ((model.batch_size, inputs, outputs), (outputs, model.batch_size, inputs)):
            of_torch, of_numpy = product_times(*sizes)
            print(f"{' x '.join(map(str, sizes))}: torch {of_torch:.1f} µs, numpy {of_numpy:.1f} µs")


def _compile_for_python(compile_graph: Any, *args: Any, **settings: Any) -> Any:
    return compile_graph(*args, **{**settings, "cpp_wrapper": False})


if __name__ == "__main__":
    main()
