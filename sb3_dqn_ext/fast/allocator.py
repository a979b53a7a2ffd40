"""The allocator of the C library."""

import ctypes
import os
import platform
from functools import cache

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # numbers of glibc's malloc.h
MAX_KEPT = 2**28
"""The bytes of freed memory at the end of the heap that are kept."""
MIN_SEPARATE = 2**25
"""The bytes from which on an array is outside of the heap, and returned at once; a larger limit is an error in older glibc."""
VARIABLES = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
"""The environment variables with which a user sets such limits."""


@cache
def keep_freed_memory() -> None:
    """
    Let the allocator keep freed memory for later arrays, instead of returning it to the operating system.

    Each update allocates its large intermediate results. Pages that were returned are zeroed when they are used again, which
    takes up to a fifth of the time with NatureCNN, and half of it in compiled updates of 200 quantiles. Without glibc, or
    with limits that the user has set, nothing is changed.
    """
    if platform.libc_ver()[0] == "glibc" and VARIABLES.isdisjoint(os.environ):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MIN_SEPARATE)
        libc.mallopt(M_TRIM_THRESHOLD, MAX_KEPT)
