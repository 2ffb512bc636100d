"""Memory that is freed comes back without being asked of the system again."""

import ctypes
import os
import subprocess
import sys

import pytest

from fed import memory

ALLOCATE = """
import resource, sys
import torch
from fed.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
for _ in range(8):
    torch.ones(2**24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(monkeypatch, word):
    """Pages that a process asks the system for, to fill 64 MB eight times."""
    for name in [*os.environ]:
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES")):
            monkeypatch.delenv(name)
    command = [sys.executable, "-c", ALLOCATE, word]
    printed = subprocess.run(command, check=True, capture_output=True, text=True)
    kept, count = printed.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc"
)
def test_tensors_take_the_place_of_those_before(monkeypatch):
    kept, few = faults(monkeypatch, "keep")
    _, many = faults(monkeypatch, "release")
    assert kept
    if many < 8 * 2**26 // 4096:
        pytest.skip("the system hands out huge pages")
    assert many - few > 5 * 2**26 // 4096


def test_who_says_how_to_allocate_is_obeyed(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not memory.keep_freed_memory()


def test_a_block_that_is_too_large_for_a_c_library_is_asked_for_smaller(monkeypatch):
    asked = []

    class Library:
        gnu_get_libc_version = None

        def mallopt(self, option, value):
            asked.append((option, value))
            return option == memory.M_TRIM_THRESHOLD or value <= limit

    for name in [*os.environ]:
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES")):
            monkeypatch.delenv(name)
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
