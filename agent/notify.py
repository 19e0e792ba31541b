"""Telling the service manager how the agent is: the `sd_notify` protocol of systemd.

One datagram of `KEY=value` lines to the socket named by `NOTIFY_SOCKET`. Done by hand: what PyPI
has for these twenty lines is either untouched for years and knows no watchdog (sdnotify) or binds
libsystemd (cysystemd), and nothing of it is typed. The protocol is a promise of systemd's.

Rules: without the variable everything here does nothing; a manager that does not listen never
blocks, slows or ends the agent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

# Three chances in each watchdog period: one late wake-up must not restart the agent.
_BEATS: Final = 3
_MAX_STATUS_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where to report, and how often the manager wants to hear of us (None: never)."""

    address: str | None = None
    watchdog_s: float | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; nonsense counts as unset."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        period_us = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        watched = ours and period_us.isascii() and period_us.isdigit() and int(period_us) > 0
        return cls(address, int(period_us) / 1e6 if watched else None)

    def ready(self, status: str) -> None:
        """Both servers listen."""
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(_status(status))

    def stopping(self) -> None:
        """The agent drains and will end."""
        self._send("STOPPING=1", _status("draining"))

    async def keep_alive(self, status: Callable[[], str], *, interval_s: float = 10.0) -> None:
        """Report that the event loop turns, and the status, until cancelled."""
        if self.watchdog_s is not None:
            interval_s = min(interval_s, self.watchdog_s / _BEATS)
        while True:
            self._send("WATCHDOG=1", _status(status()))
            await asyncio.sleep(interval_s)

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        # A leading @ stands for the NUL byte of Linux's abstract socket names.
        name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto("\n".join(lines).encode(errors="replace"), name)


def _status(text: str) -> str:
    """One line, whatever a path or an error message brings along."""
    return "STATUS=" + " ".join(text.split())[:_MAX_STATUS_CHARACTERS]
