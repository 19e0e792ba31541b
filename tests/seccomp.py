"""A filter of system calls on this process and all that it starts, as containers and units have."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

OPENAT2: Final = 437
CACHESTAT: Final = 451
NONE: Final = 999
"""The number of no call."""
# prctl(2): the filter needs the first, or root.
_NO_NEW_PRIVILEGES: Final = 38
_SET_SECCOMP: Final = 22
_FILTER: Final = 2
# seccomp(2): what a filter returns. Its language is classic BPF.
_RETURN_ERROR: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
_LOAD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_RULE: Final = struct.Struct("=HBBI")


def refuse(number: int, error: int) -> None:
    """Have one system call fail from now on, and with it this process for good.

    Raises:
        OSError: the kernel takes no filter.
    """
    rules = [
        (_LOAD, 0, 0, 0),  # the number of the call
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _RETURN_ERROR | error),
        (_RETURN, 0, 0, _ALLOW),
    ]
    filters = ctypes.create_string_buffer(b"".join(_RULE.pack(*rule) for rule in rules))
    program = struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(filters))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
