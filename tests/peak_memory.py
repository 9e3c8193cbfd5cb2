"""How much larger a test makes this process at most (Linux)."""

import ctypes
import gc
import re
from pathlib import Path


def _status(key: str) -> int:
    """Of this process, in KiB."""
    return int(re.search(rf'{key}:\s+(\d+)', Path('/proc/self/status').read_text())[1])


def memory_now() -> int:
    """What this process holds, KiB; its peak starts anew, as other tests may have had a higher one.

    Freed memory that the heap still holds goes back first: what is allocated into it would not be seen.
    """
    gc.collect()
    gc.freeze()  # what is left is no garbage: the next call need not look through all of it again
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'malloc_trim'):  # glibc's
        libc.malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def peak_since(start: int) -> int:
    """KiB by which this process was larger at most."""
    return _status('VmHWM') - start
