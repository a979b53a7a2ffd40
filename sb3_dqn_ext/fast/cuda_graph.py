"""CUDA graphs: the kernels of a function are recorded once, and started together by each later call."""

import warnings
from collections.abc import Callable, Sequence

import torch as th

__all__ = ["GraphedFunction"]

Function = Callable[..., tuple[th.Tensor, ...]]

WARM_UP_CALLS = 2
"""The calls before the recording, in which libraries allocate what they keep."""


class GraphedFunction:
    """
    A function of tensors on a GPU as a CUDA graph. Starting one graph takes less time than starting each of its kernels.

    A graph reads and writes fixed memory. Therefore, the tensors that the function changes must stay in place: it is recorded
    again when they have moved. All other arguments are copied into tensors of the graph.

    :param function: the function; the operations that it makes depend only on the shapes of its arguments
    :param n_in_place: the number of arguments at the beginning that the function may change
    """

    def __init__(self, function: Function, n_in_place: int) -> None:
        self.function = function
        self.n_in_place = n_in_place
        self._graph: th.cuda.CUDAGraph | None = None
        self._can_record = True
        self._addresses: list[int] = []
        self._inputs: list[th.Tensor] = []
        self._results: tuple[th.Tensor, ...] = ()

    def __call__(self, *arguments: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        Call the function. If it cannot be recorded, there is one warning, and it is called without a graph.

        :param arguments: its arguments, in the shapes of the first call
        :return: copies of its results, which later calls do not overwrite
        """
        in_place, others = arguments[: self.n_in_place], arguments[self.n_in_place :]
        with th.cuda.device(in_place[0].device):  # streams are those of the current device
            addresses = [argument.data_ptr() for argument in in_place]
            if self._can_record and addresses != self._addresses:
                self._graph, self._addresses = self._record(in_place, others), addresses
            if self._graph is None:
                return self.function(*arguments)
            th._foreach_copy_(self._inputs, others)
            self._graph.replay()
            return tuple(result.clone() for result in self._results)

    def _record(self, in_place: Sequence[th.Tensor], others: Sequence[th.Tensor]) -> th.cuda.CUDAGraph | None:
        before = [argument.clone() for argument in in_place]
        self._inputs = [argument.clone() for argument in others]
        graph, current, stream = th.cuda.CUDAGraph(), th.cuda.current_stream(), th.cuda.Stream()  # type: ignore[no-untyped-call]
        try:
            # the numbers that are drawn in these calls are drawn again by the graph
            with th.random.fork_rng(devices=[in_place[0].device]):
                stream.wait_stream(current)
                with th.cuda.stream(stream):
                    for _ in range(WARM_UP_CALLS):
                        self.function(*in_place, *self._inputs)
                current.wait_stream(stream)
            # records, and runs nothing; other threads may use the GPU meanwhile
            with th.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._results = self.function(*in_place, *self._inputs)
        except RuntimeError as error:
            warnings.warn(f"compile['cuda_graphs'] has no effect: the updates cannot be recorded: {error}", stacklevel=2)
            self._can_record = False
        finally:
            th.cuda.set_stream(current)  # after an error, torch may leave its own
            for argument, value in zip(in_place, before, strict=True):
                argument.copy_(value)
        return graph if self._can_record else None
