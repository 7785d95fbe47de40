"""Large freed blocks of memory stay with the process for a while, because getting them anew costs more than the arithmetic.

The activations of a convolutional network are tens of megabytes each. glibc asks the system for such a block anew each time
(above 32 MiB always), and the system zeroes it page by page when it is first touched: half of the time of EfficientNet-Lite0 at 192
px, batch 64. Torch has no allocator of its own on the CPU. Elsewhere than under glibc nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # <malloc.h>
_LARGE = 2**31 - 1  # bytes; the most that mallopt takes
_USUAL_MAPS = 65536
_USUAL = 32 << 20  # bytes; where glibc's own threshold comes to rest in a process that frees large blocks


@contextlib.contextmanager
def large_blocks_kept() -> Iterator[None]:
    """Within it, freed memory serves the next allocation; after it, what is not in use goes back to the system.

    It holds for the whole process and changes no value.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_MAX, 0)  # not the threshold, which older versions refuse to raise above 32 MiB
    library.mallopt(_TRIM_THRESHOLD, _LARGE)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _USUAL_MAPS)
        library.mallopt(_MMAP_THRESHOLD, _USUAL)
        library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
