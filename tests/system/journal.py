"""What threads that mistreat a fleet share: when to stop, what was done, what was seen broken."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests.system.tally import Tally


@dataclass
class Journal:
    """Written by many threads.

    Attributes:
        stop: set when it is time to end, or something is broken.
        diary: what was done when, for a failure's message.
        broken: rules that were seen to be broken.
    """

    tally: Tally
    stop: threading.Event = field(default_factory=threading.Event)
    diary: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)

    def note(self, what: str) -> None:
        self.diary.append(f"{time.monotonic() - self.began_s:7.2f} {what}")

    def violate(self, rule: str) -> None:
        self.note(f"BROKEN {rule}")
        self.broken.append(rule)
        self.stop.set()
