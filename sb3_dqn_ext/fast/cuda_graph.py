"""CUDA graphs: the kernels of a function are recorded once, and started together by each later call."""

from collections.abc import Callable, Sequence

import torch as th

from sb3_dqn_ext.fast.compilation import CompilationError

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
        self._addresses: list[int] = []
        self._inputs: list[th.Tensor] = []
        self._results: tuple[th.Tensor, ...] = ()

    def __call__(self, *arguments: th.Tensor) -> tuple[th.Tensor, ...]:
        """
        Call the function.

        :param arguments: its arguments, in the shapes of the first call
        :return: copies of its results, which later calls do not overwrite
        :raises CompilationError: if it cannot be recorded; its arguments are not changed then
        """
        in_place, others = arguments[: self.n_in_place], arguments[self.n_in_place :]
        addresses = [argument.data_ptr() for argument in in_place]
        if self._graph is None or addresses != self._addresses:
            self._record(in_place, others)
            self._addresses = addresses
        else:
            th._foreach_copy_(self._inputs, others)
        assert self._graph is not None
        self._graph.replay()
        return tuple(result.clone() for result in self._results)

    def _record(self, in_place: Sequence[th.Tensor], others: Sequence[th.Tensor]) -> None:
        before = [argument.clone() for argument in in_place]
        self._graph, self._inputs = None, [argument.clone() for argument in others]
        graph, stream = th.cuda.CUDAGraph(), th.cuda.Stream()  # type: ignore[no-untyped-call]
        try:
            # the numbers that are drawn in these calls are drawn again by the graph
            with th.random.fork_rng(devices=[in_place[0].device]):
                stream.wait_stream(th.cuda.current_stream())
                with th.cuda.stream(stream):
                    for _ in range(WARM_UP_CALLS):
                        self.function(*in_place, *self._inputs)
                th.cuda.current_stream().wait_stream(stream)
            with th.cuda.graph(graph):  # records, and runs nothing
                self._results = self.function(*in_place, *self._inputs)
        except RuntimeError as error:
            raise CompilationError(f"its updates cannot be recorded as a CUDA graph: {error}") from error
        finally:
            for argument, value in zip(in_place, before, strict=True):
                argument.copy_(value)
        self._graph = graph
