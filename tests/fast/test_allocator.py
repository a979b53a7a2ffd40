"""Freed memory is kept for the next call. The page faults of a new process are counted by the operating system."""

import os
import platform
import subprocess
import sys

import pytest

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.fast import allocator

SCRIPT = """
import ctypes, resource, runpy, sys

runpy.run_path(sys.argv[1])["keep_freed_memory"]()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE = 25 * 2**20

def use_and_free():
    blocks = [libc.malloc(SIZE) for _ in range(3)]
    for block in blocks:
        libc.memset(block, 1, SIZE)
    for block in blocks:
        libc.free(block)

for _ in range(3):
    use_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(**variables: str) -> int:
    """Return the page faults of four calls, each of which uses 75 MB and frees them."""
    inherited = {name: value for name, value in os.environ.items() if name not in allocator.VARIABLES}
    command = [sys.executable, "-c", SCRIPT, allocator.__file__]
    return int(subprocess.run(command, env=inherited | variables, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it needs glibc")
def test_freed_memory_is_used_again_unless_the_user_has_set_limits() -> None:
    assert page_faults() < 20  # a call has 18,750 pages of 4 KiB, or 38 of 2 MiB
    assert page_faults(MALLOC_TRIM_THRESHOLD_="1000000") > 100


def test_it_is_kept_from_the_first_training_on() -> None:
    allocator.keep_freed_memory.cache_clear()
    model = DQNExt("MlpPolicy", "CartPole-v1")
    assert allocator.keep_freed_memory.cache_info().misses == 0
    model.learn(1)
    assert allocator.keep_freed_memory.cache_info().misses == 1
