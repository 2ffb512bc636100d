"""How a process that trains on a CPU asks for memory."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE = (2**30, 2**25)
"""Bytes of a block that still come from the heap; the second is what manuals allow."""


def keep_freed_memory():
    """Keep the memory of tensors that are freed, for those that follow.

    By default glibc gives large blocks back to the system at once, which hands them out
    again page by page, filled with zeros; `python -m benchmarks.networks`, with
    ``--keep-memory`` and without, tells what that takes of a training step. The process
    then keeps what it once had, and where sizes vary it can come to have more. Nothing
    is done without glibc, nor where environment variables (``MALLOC_...``,
    ``GLIBC_TUNABLES``) say how memory is to be had.

    Returns
    -------
    bool
        Whether anything was done.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt, _ = library.mallopt, library.gnu_get_libc_version
    except (AttributeError, OSError, TypeError):
        return False
    # First what can be refused: without it, the second would do harm.
    accepted = any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGE)
    return bool(accepted and mallopt(M_TRIM_THRESHOLD, -1))
