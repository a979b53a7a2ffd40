"""
Print the share of convolutions and matrix products in the time of an update: ``python -m benchmarks.speed.profile_update``.

Compiled updates are called from Python here instead of C++, as torch's profiler does not see the calls of C++.
"""

import argparse
from functools import partial
from typing import Any
from unittest.mock import patch

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


def _compile_for_python(compile_graph: Any, *args: Any, **settings: Any) -> Any:
    return compile_graph(*args, **{**settings, "cpp_wrapper": False})


if __name__ == "__main__":
    main()
