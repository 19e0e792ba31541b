"""What is found out about a journal that is checked: values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it has to be.

    Attributes:
        index: the first one of the journal that it is about; None: of no entry.
    """

    index: int | None
    what: str

    @property
    def line(self) -> str:
        """All of it, for people."""
        return self.what if self.index is None else f"entry {self.index} {self.what}"


@dataclass(slots=True)
class Checked:
    """What was looked at, and what was found."""

    shards: int = 0
    dropped: int = 0
    entries: int = 0
    checkpoints: int = 0
    witnessed: int = 0
    findings: list[Finding] = field(default_factory=list)
    # What weakens a proof, and was said by who had to.
    remarks: list[Finding] = field(default_factory=list)
    restores: int = 0

    @property
    def first_bad(self) -> int | None:
        """The first index that something was found about."""
        return min((each.index for each in self.findings if each.index is not None), default=None)
