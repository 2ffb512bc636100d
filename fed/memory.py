"""How a process that trains on a CPU asks for memory."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory():
    """Keep the memory of tensors that are freed, for those that follow.

    By default glibc gives large blocks back to the system at once, which hands them out
    again page by page, filled with zeros; networks whose tensors take megabytes spend a
    quarter of a training step on that. A process then stays at the peak of its memory,
    which is no higher. Nothing is done without glibc, nor where environment variables
    (``MALLOC_...``, ``GLIBC_TUNABLES``) say how memory is to be had.

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
    never_trimmed = mallopt(M_TRIM_THRESHOLD, -1)
    return bool(never_trimmed and mallopt(M_MMAP_THRESHOLD, 2**30))
