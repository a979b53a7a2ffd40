"""Compilation of a function of tensors with torch's inductor."""

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch as th
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["CompilationError", "announce_compilation", "compile_function"]

SECONDS_BEFORE_MESSAGE = 10.0
"""The seconds of compilation after which a message is printed even if the model is not verbose."""
NO_COMPILER_MESSAGE = "no C++ compiler was found; install one (on Debian: apt install g++), or name it in the variable CXX"


class CompilationError(Exception):
    """
    The error of an update that cannot be compiled.

    :param reason: the reason, for the message
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"compile has no effect, training is eager: {reason}.")


def compile_function(function: Callable[..., Any], arguments: list[th.Tensor]) -> Callable[..., Any]:
    """
    Compile a function of tensors. It may change its arguments in place.

    :param function: the function
    :param arguments: tensors with the shapes of later calls
    :return: the compiled function
    :raises CompilationError: if torch cannot compile it
    """
    try:
        with warnings.catch_warnings(), th.random.fork_rng():
            warnings.simplefilter("ignore", DeprecationWarning)  # warnings of one part of torch about another
            # imported here, since it takes more than a second and is needed for compilation only
            import torch._inductor
            from torch._guards import TracingContext, tracing
            from torch._subclasses import FakeTensorMode
            from torch.fx.experimental.proxy_tensor import make_fx
            from torch.fx.experimental.symbolic_shapes import ShapeEnv

            # fake tensors have no values, so that control flow that depends on values is an error
            trace = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
            with _OneHotOfFakeTensors():
                graph = trace(*(argument.clone() for argument in arguments))
            # without a context of shapes, torch would not use its cache of compiled graphs
            with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):
                # the random numbers of the eager path; C++ code, which is faster than Python, calls the kernels. On CUDA, it
                # would need the headers of NVIDIA's toolkit, which torch does not bring along
                on_cpu = all(argument.device.type == "cpu" for argument in arguments)
                options = {"fallback_random": True, "cpp_wrapper": on_cpu}
                result = torch._inductor.compile(graph, [*arguments], options=options)
    except Exception as error:  # the type of the error depends on the version of torch
        raise CompilationError(_reason(error)) from error
    return cast(Callable[..., Any], result)


def _reason(error: BaseException) -> str:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if any(type(cause).__name__ == "InvalidCxxCompiler" for cause in causes):
        return NO_COMPILER_MESSAGE
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


class _OneHotOfFakeTensors(TorchFunctionMode):
    """A mode in which ``one_hot`` does not check the values of its argument, which fake tensors do not have."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        def one_hot(tensor: th.Tensor, num_classes: int = -1) -> Any:
            if num_classes == -1:
                return func(tensor)
            return (tensor.unsqueeze(-1) == th.arange(num_classes, device=tensor.device)).long()

        return (one_hot if func is F.one_hot else func)(*args, **(kwargs or {}))


@contextlib.contextmanager
def announce_compilation(verbose: int) -> Iterator[None]:
    """
    Return a context manager that announces a compilation to the user. The compilation is made in its block.

    With ``verbose >= 1`` the message is printed immediately, to the standard output. Otherwise it is printed to the standard
    error if the block takes longer than :data:`SECONDS_BEFORE_MESSAGE`.

    :param verbose: the verbosity of the model
    """
    message = "Compiling the updates of the network (compile=True): some seconds, up to a minute on a busy machine."
    if verbose >= 1:
        print(message)
        yield
        return
    timer = threading.Timer(SECONDS_BEFORE_MESSAGE, print, [message], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
