"""What every test gets.

A blocking call on the event loop fails the test that makes it, and state is checksummed: a row that
is changed in place fails whoever reads it next.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings
from structlog.testing import capture_logs

from depot.state.checked import VARIABLE
from tests.http.servers import forget_ended

# Also for the agents that tests start. `DEPOT_CHECKSUM_STATE=0` turns it off.
os.environ.setdefault(VARIABLE, "1")
# Tests start hundreds of processes: where Python was told to keep no bytecode, each would compile
# everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell that runs the tests in the background has Ctrl-C ignored, by every command of theirs too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are cores: most of the time, a test waits for a disk or a process."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return 2 * cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that take minutes, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say also of tests that passed what they did: seeds, and how often what happened."""
    for report in terminalreporter.stats.get("passed", []):
        for value in (value for name, value in report.user_properties if name == "said"):
            terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {value}")


# How long an example takes says what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def blocking_calls_fail() -> Iterator[BlockBuster]:
    with blockbuster_ctx() as blockbuster:
        yield blockbuster


@pytest.fixture(autouse=True, scope="module")
def servers_are_forgotten() -> Iterator[None]:
    yield
    forget_ended()


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log of the test, as a list of entries instead of lines on the terminal."""
    with capture_logs() as entries:
        yield entries
    for entry in entries:
        if isinstance(error := entry.get("exc_info"), BaseException):
            traceback.print_exception(error)  # pytest shows it beside a failure
