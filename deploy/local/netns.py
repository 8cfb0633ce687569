"""Network namespaces: being in one for a moment."""

import ctypes
import os
from contextlib import contextmanager
from typing import Iterator, Optional

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns: " + os.strerror(ctypes.get_errno()))


@contextmanager
def inside(path: Optional[str]) -> Iterator[None]:
    """This thread, and no other, is in the namespace at `path` meanwhile: sockets that it makes stay there. None: where it is."""
    if path is None:
        yield
        return
    here, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(path, os.O_RDONLY)
    try:
        _enter(there)
        try:
            yield
        finally:
            _enter(here)
    finally:
        os.close(here)
        os.close(there)
