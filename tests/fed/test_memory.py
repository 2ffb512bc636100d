"""Memory that is freed comes back without being asked of the system again."""

import ctypes
import os
import subprocess
import sys

import pytest

from fed import memory

GLIBC = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
ALLOCATE = """
import ctypes
import torch
from fed.memory import keep_freed_memory

sbrk = ctypes.CDLL(None).sbrk  # where the heap ends; mapped blocks are not on it
sbrk.restype, sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
kept = keep_freed_memory()
before = sbrk(0)
block = torch.ones(2**26)
with_block = sbrk(0)
del block
print(kept, with_block - before > 2**27, sbrk(0) == with_block)
"""


@pytest.fixture
def free_to_choose(monkeypatch):
    """Remove what the environment says of memory."""
    for name in [*os.environ]:
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES")):
            monkeypatch.delenv(name)


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
@pytest.mark.usefixtures("free_to_choose")
def test_large_tensors_lie_on_the_heap_which_stays_when_they_go():
    command = [sys.executable, "-c", ALLOCATE]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "True"]


def test_who_says_how_to_allocate_is_obeyed(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not memory.keep_freed_memory()


@pytest.mark.usefixtures("free_to_choose")
def test_a_block_that_is_too_large_for_a_c_library_is_asked_for_smaller(monkeypatch):
    asked = []

    class Library:
        gnu_get_libc_version = None

        def mallopt(self, option, value):
            asked.append((option, value))
            return option == memory.M_TRIM_THRESHOLD or value <= limit

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Library())
    limit = 2**25
    assert memory.keep_freed_memory()
    assert asked == [(-3, 2**30), (-3, 2**25), (-1, -1)]
    limit = 0
    assert not memory.keep_freed_memory()
    assert asked[3:] == [(-3, 2**30), (-3, 2**25)]


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
