"""SHA-256 whose state can be taken after any 64 bytes, and taken up again later.

Python's own hashes keep their state to themselves, so this is libcrypto's `SHA256_*` through
ctypes: the same code at the same speed, and calls that leave other threads running. Where that
library is missing, or does not do what it is expected to, `available` says so, and nothing here is
used.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
from contextlib import suppress
from functools import cache
from typing import Final

CHUNK_BYTES: Final = 64
"""The state can be taken at multiples of this."""

_WORDS: Final = struct.Struct(">8I")
_LIBRARIES: Final = ("libcrypto.so.3", "libcrypto.so.1.1")


class _Context(ctypes.Structure):
    # `SHA256_CTX` of <openssl/sha.h>, the same in every version that has it.
    _fields_ = (
        ("words", ctypes.c_uint32 * 8),
        ("bits_low", ctypes.c_uint32),
        ("bits_high", ctypes.c_uint32),
        ("pending", ctypes.c_uint32 * 16),
        ("pending_bytes", ctypes.c_uint),
        ("digest_bytes", ctypes.c_uint),
    )


class ResumableSha256:
    """One running hash; begins anew, or where another one was after `hashed_bytes`.

    Raises:
        RuntimeError: it is not `available`.
    """

    def __init__(self, state: bytes | None = None, hashed_bytes: int = 0) -> None:
        library = _library()
        if library is None:
            raise RuntimeError("no libcrypto with SHA256_Update")
        self._library = library
        self._context = _Context()
        library.SHA256_Init(ctypes.byref(self._context))
        if state is not None:
            self._context.words[:] = _WORDS.unpack(state)
            bits = hashed_bytes * 8
            self._context.bits_low, self._context.bits_high = bits & 0xFFFFFFFF, bits >> 32

    def update(self, content: memoryview) -> None:
        """Hash more; without a copy when `content` is writable memory."""
        if not content:
            return
        size_bytes = len(content)
        shared = ctypes.c_char * size_bytes
        buffer = (
            shared.from_buffer_copy(content) if content.readonly else shared.from_buffer(content)
        )
        self._library.SHA256_Update(ctypes.byref(self._context), buffer, size_bytes)

    def state(self) -> bytes:
        """What it takes to go on from here; only after a multiple of `CHUNK_BYTES`."""
        assert not self._context.pending_bytes, "in the middle of a chunk"
        return _WORDS.pack(*self._context.words)

    def digest(self) -> bytes:
        """SHA-256 of everything so far."""
        ended = _Context.from_buffer_copy(self._context)
        result = ctypes.create_string_buffer(_WORDS.size)
        self._library.SHA256_Final(result, ctypes.byref(ended))
        return result.raw


def available() -> bool:
    """Tell whether this machine's libcrypto can be used, and was seen to be right."""
    return _library() is not None


@cache
def _library() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        with suppress(OSError, AttributeError):
            library = _declared(ctypes.CDLL(name))
            if _is_right(library):
                return library
    return None


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.SHA256_Init.argtypes = [ctypes.c_void_p]
    library.SHA256_Update.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    library.SHA256_Final.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library


def _is_right(library: ctypes.CDLL) -> bool:
    """Compare with Python's own hash, in one go and taken up again after each chunk."""
    content = bytes(range(256)) + b"the rest"
    context, split = _Context(), len(content) // CHUNK_BYTES * CHUNK_BYTES
    library.SHA256_Init(ctypes.byref(context))
    for start in range(0, split, CHUNK_BYTES):
        part = content[start : start + CHUNK_BYTES]
        library.SHA256_Update(ctypes.byref(context), part, len(part))
        words, bits = list(context.words), (start + CHUNK_BYTES) * 8
        if context.pending_bytes or (context.bits_low, context.bits_high) != (bits, 0):
            return False
        context = _Context()
        library.SHA256_Init(ctypes.byref(context))
        context.words[:], context.bits_low = words, bits
    library.SHA256_Update(ctypes.byref(context), content[split:], len(content) - split)
    result = ctypes.create_string_buffer(_WORDS.size)
    library.SHA256_Final(result, ctypes.byref(context))
    return result.raw == hashlib.sha256(content).digest()
