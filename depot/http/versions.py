"""The `api-version` request header: optional, `X.Y.Z`, and within the range a server supports."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Final

from depot.errors import ApiVersion

ANY: Final = sys.maxsize
_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiInfo:
    """One API: its name, its own version, and the versions of clients it serves.

    Attributes:
        title: for the OpenAPI document.
        description: for the OpenAPI document.
        version: of the document.
        oldest: first supported `api-version`, inclusive.
        newest: last supported `api-version`, inclusive; `ANY` stands for every number.
    """

    title: str
    description: str
    version: str
    oldest: Version
    newest: Version

    def check(self, header: str | None) -> None:
        """Raise ApiVersion when `header` is there and not a supported version."""
        if header is None:
            return
        match = _VERSION.fullmatch(header.strip())
        if match is None:
            raise ApiVersion(f"api-version: expected X.Y.Z, found {header[:40]!r}")
        major, minor, patch = (int(part) for part in match.groups())
        if not self.oldest <= (major, minor, patch) <= self.newest:
            raise ApiVersion(f"api-version: expected {self.supported}, found {header.strip()}")

    @property
    def supported(self) -> str:
        """The range, for people."""
        return f"{_text(self.oldest)} .. {_text(self.newest)}"


def _text(version: Version) -> str:
    numbers = [str(number) for number in version if number != ANY]
    return ".".join(numbers if len(numbers) == len(version) else [*numbers, "x"])
