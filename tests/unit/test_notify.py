from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and what it puts into NOTIFY_SOCKET."""
    name = str(tmp_path / "s") if request.param == "path" else f"@sled-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0") if name.startswith("@") else name)
        listener.settimeout(10)
        yield listener, name


def test_readiness_and_status_are_one_message(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager
    Notifier.from_environment({"NOTIFY_SOCKET": name}).ready("two\nlines")
    assert listener.recv(4096) == b"READY=1\nSTATUS=two lines"


def test_stopping_is_announced(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager
    Notifier.from_environment({"NOTIFY_SOCKET": name}).stopping()
    assert listener.recv(4096) == b"STOPPING=1\nSTATUS=draining"


async def test_the_watchdog_is_fed_with_a_fresh_status_until_cancelled(
    manager: tuple[socket.socket, str],
) -> None:
    listener, name = manager
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    words = iter(["one", "two", "three"])
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000"})

    beating = loop.create_task(notifier.keep_alive(lambda: next(words)))
    heard = [await asyncio.wait_for(loop.sock_recv(listener, 4096), 10) for _ in range(3)]
    beating.cancel()

    assert heard == [b"WATCHDOG=1\nSTATUS=" + word for word in (b"one", b"two", b"three")]


def test_the_watchdog_period_is_read_in_microseconds() -> None:
    environ = {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "30000000"}
    assert Notifier.from_environment(environ).watchdog_s == 30.0
    mine = {**environ, "WATCHDOG_PID": str(os.getpid())}
    assert Notifier.from_environment(mine).watchdog_s == 30.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(environ: dict[str, str]) -> None:
    assert Notifier.from_environment(environ).watchdog_s is None


@pytest.mark.parametrize("name", ["", "relative", "/nowhere/socket", "@nobody-listens"])
def test_a_manager_that_does_not_listen_is_no_error(name: str) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": name}).ready("fine")


def test_a_manager_that_does_not_read_blocks_nothing(manager: tuple[socket.socket, str]) -> None:
    _, name = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
    for _ in range(5000):
        notifier.status("x" * 1000)
