"""Compilation of a function of tensors with torch's inductor."""

import contextlib
import gc
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch as th
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["CompilationError", "announce_compilation", "compile_function"]

SECONDS_BEFORE_MESSAGE = 10.0
"""The seconds of compilation after which a message is printed even if the model is not verbose."""
INDUCTOR_SETTINGS = {"realize_opcount_threshold": 8}
"""
Values that take more operations than this and are read more than once are stored. With inductor's 30, the targets of
quantiles are computed again for each pair, in loops without vector instructions: with 200 quantiles, an update takes three
times as long.
"""
MAX_LOOP_MULTIPLICATIONS = 2**15
"""
Matrix products with at most so many multiplications become loops of the compiled function. For larger ones, a call of the
library of matrix products is faster.
"""
VECTOR_INSTRUCTIONS = {"AVX2": ["VecAVX2"], "AVX512": ["VecAVX512", "VecAVX2"]}
"""For each of the processor's capabilities: the classes of its vector instructions in inductor, the preferred one first."""
COMPILING = threading.RLock()
"""Held during a compilation, which replaces functions of torch."""
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

    :param function: the function, which returns a tuple of tensors
    :param arguments: tensors with the shapes of later calls
    :return: the compiled function
    :raises CompilationError: if torch cannot compile it
    """
    try:
        with COMPILING, warnings.catch_warnings(), th.random.fork_rng(), _without_garbage_collection():
            warnings.simplefilter("ignore", DeprecationWarning)  # warnings of one part of torch about another
            # imported here, since it takes a second and is needed for compilation only
            from torch._guards import TracingContext, tracing
            from torch._inductor import config
            from torch._inductor.compile_fx import compile_fx_inner
            from torch._inductor.decomposition import select_decomp_table
            from torch._inductor.virtualized import V
            from torch._subclasses import FakeTensorMode
            from torch.fx.experimental.proxy_tensor import make_fx
            from torch.fx.experimental.symbolic_shapes import ShapeEnv

            # C++ code, which is faster than Python, calls the kernels. On CUDA, it would need the headers of NVIDIA's toolkit,
            # which torch does not bring along
            on_cpu = all(argument.device.type == "cpu" for argument in arguments)
            # fake tensors have no values, so that control flow that depends on values is an error. Without their shapes, torch
            # would not use its cache of compiled graphs
            fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
            # the random numbers of the eager path
            with config.patch({"fallback_random": True, **INDUCTOR_SETTINGS}), _without_probes():
                inputs = [fake.from_tensor(argument, static_shapes=True) for argument in arguments]
                with fake, _OneHotOfFakeTensors():
                    functional = th.func.functionalize(function, remove="mutations")
                    decompositions = {**select_decomp_table(), **(SMALL_PRODUCTS if on_cpu else {})}
                    graph = make_fx(functional, decompositions, _allow_non_fake_inputs=True)(*inputs)
                graph.graph.eliminate_dead_code()
                # those of a network in a user's object; some kernels refuse them otherwise
                needs_no_grad = any(tensor.requires_grad for tensor in _captured_tensors(graph))
                # The graph is compiled as it is: torch._inductor.compile would trace it once more, which takes a second, and
                # put its checks around each call
                with V.set_fake_mode(fake), tracing(TracingContext(fake)):
                    result: Any = compile_fx_inner(graph, inputs, is_inference=True, cpp_wrapper=on_cpu)
    except Exception as error:  # the type of the error depends on the version of torch
        raise CompilationError(_reason(error)) from error
    call = result.current_callable  # it empties the list of its arguments
    return th.no_grad()(lambda *tensors: call([*tensors])) if needs_no_grad else lambda *tensors: call([*tensors])


def _captured_tensors(graph: th.fx.GraphModule) -> Iterator[th.Tensor]:
    """Return the tensors that a traced function uses and does not have as arguments."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            captured = getattr(graph, node.target, None)
            if isinstance(captured, th.Tensor):
                yield captured


def _small_product(a: th.Tensor, b: th.Tensor) -> Any:
    """Return the product of an (m, k) and a (k, n) matrix as a sum, or NotImplemented if they are too large."""
    if a.shape[0] * b.numel() > MAX_LOOP_MULTIPLICATIONS:
        return NotImplemented
    return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)


def _small_product_and_bias(bias: th.Tensor, a: th.Tensor, b: th.Tensor, **factors: float) -> Any:
    """Return a @ b + bias, see :func:`_small_product`."""
    product = NotImplemented if factors else _small_product(a, b)
    return product if product is NotImplemented else product + bias


SMALL_PRODUCTS: dict[Any, Callable[..., Any]] = {
    th.ops.aten.mm.default: _small_product,
    th.ops.aten.addmm.default: _small_product_and_bias,
}
"""The operations of torch that are replaced, and their replacements."""


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Switch off the search for unreachable objects, which takes 0.2 seconds: imports and traces make many that stay."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _without_probes() -> Iterator[None]:
    """
    Return a context manager that gives inductor what it would find out in half a second, and longer without its cache: the
    vector instructions of the processor, for which it compiles tests and runs them in further processes, and a checksum of all
    files of torch.
    """
    from torch._inductor import codecache, cpu_vec_isa

    version = f"{th.__version__} {th.version.git_version}".encode()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_replaced(codecache, "torch_key", lambda: version))
        names = VECTOR_INSTRUCTIONS.get(th.backends.cpu.get_cpu_capability(), [])
        kinds = [kind for name in names if (kind := getattr(cpu_vec_isa, name, None)) is not None]
        # an instance would run a test to compute its truth value
        known = [type(kind.__name__, (kind,), {"__bool__": lambda self: True, "__hash__": kind.__hash__})() for kind in kinds]
        if known:
            stack.enter_context(_replaced(cpu_vec_isa, "valid_vec_isa_list", lambda: known))
        yield


@contextlib.contextmanager
def _replaced(module: ModuleType, name: str, function: Callable[[], Any]) -> Iterator[None]:
    """Replace a function of a module, if it has one of this name."""
    original = getattr(module, name, None)
    if original is None:
        yield
        return
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, original)


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
