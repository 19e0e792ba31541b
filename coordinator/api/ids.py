"""Ids in the paths of requests: said once, for the API's description and for what checks them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiohttp import web

from depot.errors import InvalidRequest
from depot.http.openapi import Parameter


@dataclass(frozen=True, slots=True)
class IdInPath:
    """A segment of a path that is an id.

    Attributes:
        name: of the segment.
        pattern: a regular expression from ^ to $; of ASCII characters.
        expected: the same in words.
    """

    name: str
    pattern: str
    expected: str

    @property
    def parameter(self) -> Parameter:
        """What the API's description says of it."""
        schema = {"type": "string", "pattern": self.pattern}
        return Parameter(name=self.name, where="path", schema=schema)

    def of(self, request: web.Request) -> str:
        """Read it; raises InvalidRequest when it cannot be one."""
        id_ = request.match_info[self.name]
        if not re.fullmatch(self.pattern[1:-1], id_, re.ASCII):
            raise InvalidRequest(f"{self.name}: expected {self.expected}, found {id_[:140]!r}")
        return id_
