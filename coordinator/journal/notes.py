"""Signed notes (c2sp.org/signed-note), with Ed25519: a text, and under it who signed it.

    a text of one line or more
                                            (an empty line)
    — name base64(key id || signature)      (for each signature)

A *verifier key* is what others need to verify a note: `name+key id+base64(0x01 || public key)`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

MAX_NOTE_BYTES: Final = 64 * 1024
MAX_SIGNATURES: Final = 100
_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_PUBLIC_BYTES: Final = 32
_DASH: Final = "— "
_NAME: Final = re.compile(r"[^\s+]+")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


class BadNote(ValueError):
    """It is no signed note, or not signed by the key that it should be."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key, and the name under which it signs."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        """Raises BadNote when it cannot be one."""
        if not _NAME.fullmatch(self.name) or len(self.public) != _PUBLIC_BYTES:
            raise BadNote(f"{self.name!r} with {len(self.public)} bytes is no key")

    @property
    def id(self) -> bytes:
        """Four bytes that tell keys of one name apart."""
        named = self.name.encode() + b"\n" + _ED25519 + self.public
        return hashlib.sha256(named).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        told = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{told}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read one; raises BadNote when it is none, or of another kind."""
        # The base64 may have a plus in it as well.
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise BadNote(f"expected name+id+key, found {text[:100]!r}")
        name, its_id, told = parts
        content = decoded(told)
        if content[:1] != _ED25519:
            raise BadNote(f"the key of {name!r} is none of Ed25519")
        key = cls(name, content[1:])
        if key.id.hex() != its_id:
            raise BadNote(f"the key of {name!r} has the id {key.id.hex()}, not {its_id!r}")
        return key


class SignerKey:
    """A private key, and the name under which it signs."""

    def __init__(self, name: str, private: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(private)
        self.verifier: Final = VerifierKey(name, self._private.public_key().public_bytes_raw())

    @classmethod
    def new(cls, name: str) -> SignerKey:
        """Make one that nobody else has."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def secret(self) -> bytes:
        """The private key: 32 bytes, for a file that nobody else reads."""
        return self._private.private_bytes_raw()

    def sign(self, text: str) -> str:
        """Make a signed note of a text.

        Raises:
            BadNote: the text cannot be one of a note.
        """
        _require_text(text)
        signed = self.verifier.id + self._private.sign(text.encode())
        return f"{text}\n{_DASH}{self.verifier.name} {base64.b64encode(signed).decode()}\n"


def verify(note: str, key: VerifierKey) -> str:
    """The text of a note that a key signed; what others signed as well is not looked at.

    Raises:
        BadNote: it is no note, or the key did not sign it.
    """
    text, lines = parted(note)
    signed = [line for line in lines if line[:2] == (key.name, key.id)]
    if not signed:
        raise BadNote(f"the note is not signed by {key.name!r} with the key {key.id.hex()}")
    public = Ed25519PublicKey.from_public_bytes(key.public)
    for _, _, signature in signed:
        try:
            public.verify(signature, text.encode())
        except InvalidSignature:
            raise BadNote(f"the signature of {key.name!r} is not one of this text") from None
    return text


def parted(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text of a note, and each signature of it: name, key id and what follows; unverified.

    Raises:
        BadNote: it is no note.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise BadNote("the note is too long")
    text, blank, signatures = note.rpartition("\n\n")
    text += "\n"
    _require_text(text)
    if not blank or not signatures.endswith("\n"):
        raise BadNote("the note has no signatures")
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise BadNote("the note has too many signatures")
    return text, [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, blank, told = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not blank or not _NAME.fullmatch(name):
        raise BadNote(f"expected a signature, found {line[:100]!r}")
    content = decoded(told)
    if len(content) <= _KEY_ID_BYTES:
        raise BadNote(f"the signature of {name!r} is too short")
    return name, content[:_KEY_ID_BYTES], content[_KEY_ID_BYTES:]


def _require_text(text: str) -> None:
    if not text.endswith("\n") or text == "\n" or _CONTROL.search(text):
        raise BadNote("the text of a note is lines, without control characters")


def decoded(text: str) -> bytes:
    """Read base64 that is written in the one right way; raises BadNote when it is not."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    # Other texts may decode to the same bytes: two notes would be one for some and not for others.
    if not content or base64.b64encode(content).decode() != text:
        raise BadNote(f"expected base64, found {text[:100]!r}")
    return content
