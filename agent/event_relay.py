"""Where the store's events go: to all who are to hear of them, and what of them is logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import structlog

# The configuration, a disk, or bytes on one: of a coordinator's staging depot, too.
WORRYING: Final = frozenset(
    {"config_refused", "copy_gone", "dataset_lost", "duty_failed", "lost", "quarantined"}
)
# So many that each line would cost more than what it tells; the event log has them.
_ROUTINE: Final = frozenset({"put"})
# Copies write their own log lines, with more in them than their events have.
_LOGGED_ELSEWHERE: Final = frozenset({"copied", "copy_failed", "duty_failed"})
_log = structlog.get_logger("agent")
_stdlib_log = logging.getLogger("agent")


class EventRelay:
    """Passes events on; keeps those that come before there is anyone to pass them to.

    The store is open before the event log is, and has things to tell by then.
    """

    def __init__(self) -> None:
        self._early: list[tuple[str, Mapping[str, object]]] = []
        self._sinks: tuple[Callable[[str, Mapping[str, object]], None], ...] = ()

    def __call__(self, kind: str, fields: Mapping[str, object]) -> None:
        """Pass one event on; on the event loop."""
        if not self._sinks:
            self._early.append((kind, fields))
        for sink in self._sinks:
            sink(kind, fields)

    def connect(self, *sinks: Callable[[str, Mapping[str, object]], None]) -> None:
        """Pass on what has come, and from now on everything at once."""
        self._sinks = sinks
        early, self._early = self._early, []
        for kind, fields in early:
            self(kind, fields)


def log_event(kind: str, fields: Mapping[str, object]) -> None:
    """Log an event of an agent, unless who told of it does."""
    if kind not in _LOGGED_ELSEWHERE:
        if kind in WORRYING:
            _log.warning("event", kind=kind, **fields)
        elif kind in _ROUTINE:
            if _stdlib_log.isEnabledFor(logging.DEBUG):  # asked first: that takes a tenth of it
                _log.debug("event", kind=kind, **fields)
        else:
            _log.info("event", kind=kind, **fields)
