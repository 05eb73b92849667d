"""Linux's prctl(2), which Python does not provide."""

from __future__ import annotations

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int = 0) -> None:
    """Call prctl(2).

    Raises:
        OSError: the kernel refuses.
    """
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def set_name(name: str) -> None:
    """Set the name that ps(1) and top(1) show for this process, 15 bytes at most."""
    _libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))
