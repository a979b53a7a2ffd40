"""Nested data of every storable type, and their comparison."""

import struct
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Array = npt.NDArray[Any]


def bits(value: Any) -> Any:
    """Return a value that is equal for two trees exactly if all types, orders and bits are equal."""
    if isinstance(value, np.ndarray):
        return np.ndarray, value.dtype.str, value.dtype.descr, value.shape, value.tobytes()
    if isinstance(value, np.generic) and not isinstance(value, (np.str_, np.bytes_)):
        padded = type(value) is np.longdouble
        return type(value), value.dtype.str, repr(value) if padded else value.tobytes()
    if isinstance(value, th.Tensor):
        return th.Tensor, value.dtype, value.shape, bytes(value.clone().resolve_conj().reshape(-1).untyped_storage())
    if isinstance(value, dict):
        return type(value), [(bits(key), bits(item)) for key, item in value.items()]
    if isinstance(value, deque):
        return deque, value.maxlen, [bits(item) for item in value]
    if isinstance(value, (list, tuple)):
        return type(value), [bits(item) for item in value]
    if isinstance(value, float):
        return type(value), struct.pack("<d", value)
    return type(value), value


MARKERS = st.sampled_from(
    [
        "str",
        "int",
        "float",
        "tuple",
        "deque",
        "dict",
        "items",
        "ordered",
        "array",
        "scalar",
        "numpy_str",
        "numpy_bytes",
        "tensor",
    ]
)


TEXT = MARKERS | st.text(st.characters(exclude_categories=[]), max_size=8)


KEYS = st.recursive(TEXT | st.integers(), lambda keys: st.lists(keys, max_size=3).map(tuple), max_leaves=4)


DTYPES = hnp.array_dtypes(max_size=3) | hnp.scalar_dtypes() | hnp.byte_string_dtypes() | hnp.unicode_string_dtypes()


ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))


VIEWS = st.sampled_from([lambda array: array, lambda array: array.T, lambda array: array[..., ::-1] if array.ndim else array])


TENSOR_TYPES = [th.bfloat16, th.float8_e4m3fn, th.float16, th.float32, th.float64, th.complex64, th.bool, th.uint8, th.int64]


TENSORS = st.builds(
    lambda numbers, dtype, scalar: th.tensor(numbers[0] if scalar and numbers else numbers).to(dtype),
    st.lists(st.integers(-3, 3), max_size=4),
    st.sampled_from(TENSOR_TYPES),
    st.booleans(),
)


LEAVES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, TENSORS),
    st.builds(lambda array, view: view(array), ARRAYS, VIEWS),
    hnp.arrays(hnp.scalar_dtypes(), ()).map(lambda array: array[()]),
    st.builds(np.str_, TEXT),
    st.builds(np.bytes_, st.binary(max_size=4)),
)


TREES = st.recursive(
    LEAVES,
    lambda trees: st.one_of(
        st.lists(trees, max_size=4),
        st.lists(trees, max_size=4).map(tuple),
        st.dictionaries(TEXT, trees, max_size=4),
        st.dictionaries(KEYS, trees, max_size=4),
        st.dictionaries(KEYS, trees, max_size=4).map(OrderedDict),
        st.builds(
            lambda items, room: deque(items, None if room > 3 else room), st.lists(trees, max_size=4), st.integers(0, 9)
        ),
    ),
    max_leaves=12,
)
