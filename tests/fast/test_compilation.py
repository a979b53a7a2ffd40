"""Matrix products in compiled functions: small ones become sums, in loops of the function."""

import gc

import pytest
import torch as th
from torch.fx.experimental.proxy_tensor import make_fx

from sb3_dqn_ext.fast.compilation import MAX_LOOP_MULTIPLICATIONS, SMALL_PRODUCTS, CompilationError, compile_function

SIZE = round(MAX_LOOP_MULTIPLICATIONS ** (1 / 3))


@pytest.mark.parametrize(("rows", "n_products"), [(SIZE, 1), (SIZE + 1, 3)])
def test_small_products_are_sums_with_the_same_result(rows: int, n_products: int) -> None:
    """A product with factors is left to torch in any case."""
    generator = th.Generator().manual_seed(0)
    a, b = (th.rand(shape, generator=generator) for shape in ((rows, SIZE), (SIZE, SIZE)))
    bias = th.rand(SIZE, generator=generator)

    def products(a: th.Tensor, b: th.Tensor, bias: th.Tensor) -> tuple[th.Tensor, ...]:
        return a @ b, th.addmm(bias, a, b), th.addmm(bias, a, b, beta=2, alpha=3)

    graph = make_fx(products, SMALL_PRODUCTS)(a, b, bias)
    calls = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert sum(target in SMALL_PRODUCTS for target in calls) == n_products
    for result, expected in zip(graph(a, b, bias), products(a, b, bias), strict=True):
        th.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_the_results_have_no_gradient_if_the_function_holds_a_network() -> None:
    teacher = th.nn.Linear(400, 300)  # too large to become a loop
    inputs = th.randn(5, 400)
    compiled = compile_function(lambda x: (teacher(x),), [inputs])
    (result,) = compiled(inputs)
    assert not result.requires_grad
    th.testing.assert_close(result, teacher(inputs).detach())


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_compilation_leaves_torch_and_python_as_they_were(is_enabled: bool) -> None:
    from torch._inductor import codecache, cpu_vec_isa

    before = codecache.torch_key, cpu_vec_isa.valid_vec_isa_list

    def depends_on_values(tensor: th.Tensor) -> tuple[th.Tensor]:
        return (tensor,) if tensor.sum() > 0 else (-tensor,)

    if not is_enabled:
        gc.disable()
    try:
        assert compile_function(lambda tensor: (tensor + 1,), [th.zeros(2)])(th.ones(2))[0].tolist() == [2, 2]
        assert gc.isenabled() is is_enabled
        with pytest.raises(CompilationError):
            compile_function(depends_on_values, [th.zeros(2)])
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()
    assert (codecache.torch_key, cpu_vec_isa.valid_vec_isa_list) == before
