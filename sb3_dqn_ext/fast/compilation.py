"""Compile a function of tensors with torch's inductor, or explain why that is not possible."""

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
"""seconds of compiling after which a message explains the wait even where the model is silent"""
NO_COMPILER_MESSAGE = "no C++ compiler was found; install one (on Debian: apt install g++), or name it in the variable CXX"


class CompilationError(Exception):
    """
    An update cannot be compiled.

    :param reason: why
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"compile has no effect, training is eager: {reason}.")


def compile_function(function: Callable[..., Any], arguments: list[th.Tensor]) -> Callable[..., Any]:
    """
    Compile a function of tensors, which may change them in place.

    :param function: the function
    :param arguments: tensors of the shapes with which it will be called
    :return: the compiled function
    :raises CannotCompile: if torch cannot compile it
    """
    try:
        with warnings.catch_warnings(), th.random.fork_rng():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of other parts of torch
            # importing these takes more than a second, and only compilation needs them
            import torch._inductor
            from torch._guards import TracingContext, tracing
            from torch._subclasses import FakeTensorMode
            from torch.fx.experimental.proxy_tensor import make_fx
            from torch.fx.experimental.symbolic_shapes import ShapeEnv

            # nothing is computed, so that what depends on a tensor's values is an error
            trace = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
            with _OneHotOfFakeTensors():
                graph = trace(*(argument.clone() for argument in arguments))
            # without a context of shapes, torch would not look for the graph in its cache
            with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):
                # random numbers are those of the eager path, and the code that calls the kernels is C++, too
                options = {"fallback_random": True, "cpp_wrapper": True}
                result = torch._inductor.compile(graph, [*arguments], options=options)
    except Exception as error:  # what torch raises here differs from version to version
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
    """torch's ``one_hot`` without its check of the values, which do not exist while a function is traced."""

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
    Print that an update is compiled while the block runs: at once with ``verbose=1``, as SB3 prints what it makes; otherwise
    only if it takes long, and then to the standard error.

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
