from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from agent.cli.options import Common
from agent.cli.output import Output
from agent.cli.progress import Bar, Lines, Meter, Reading, Silence, at_end, display, under_way


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written() -> list[str]:
    return []


@pytest.fixture
def meter(clock: Clock, written: list[str]) -> Meter:
    return Meter(Lines(written.append, interval_s=5), "sending", 1000, clock=clock)


def test_a_short_step_is_one_plain_line(meter: Meter, clock: Clock, written: list[str]) -> None:
    with meter:
        for _ in range(10):
            meter.advance(100)
            clock.now_s += 0.1
        meter.at(1000)
    assert written == ["sending: 1000 B in 1.0 s, 1000 B/s"]


def test_the_time_at_the_end_is_that_of_the_whole_step(
    meter: Meter, clock: Clock, written: list[str]
) -> None:
    with meter:
        clock.now_s += 1
        meter.at(1000)
        clock.now_s += 9  # the server verifies what it got
    assert written == ["sending: 1000 B in 10.0 s, 100 B/s"]


def test_a_long_step_writes_a_line_now_and_then(
    meter: Meter, clock: Clock, written: list[str]
) -> None:
    with meter:
        meter.label("1/2 host.tar.gz")
        for _ in range(10):
            clock.now_s += 1
            meter.advance(100)
    assert written == [
        "sending 1/2 host.tar.gz: 50% of 1000 B, 100 B/s, 5 seconds left",
        "sending 1/2 host.tar.gz: 100% of 1000 B, 100 B/s",
        "sending: 1000 B in 10.0 s, 100 B/s",
    ]


def test_the_rate_of_a_line_is_of_the_time_since_the_one_before(
    meter: Meter, clock: Clock, written: list[str]
) -> None:
    with meter:
        for done_bytes in (500, 500, 510):
            clock.now_s += 5
            meter.at(done_bytes)
    assert written[:3] == [
        "sending: 50% of 1000 B, 100 B/s, 5 seconds left",
        "sending: 50% of 1000 B, 0 B/s",
        "sending: 51% of 1000 B, 2 B/s, 4 minutes left",
    ]


def test_what_was_there_before_does_not_count_for_the_rate(
    clock: Clock, written: list[str]
) -> None:
    with Meter(Lines(written.append, interval_s=5), "fetching", clock=clock) as meter:
        meter.label("artifact")
        meter.set(500, 1000)
        clock.now_s += 5
        meter.set(600, 1000)
    assert written[0] == "fetching artifact: 60% of 1000 B, 20 B/s, 20 seconds left"


def test_a_step_that_fails_says_where_it_stopped(meter: Meter, written: list[str]) -> None:
    def fail() -> None:
        with meter:
            meter.advance(250)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert written == ["sending: 25% of 1000 B, stopped"]


def test_a_total_that_is_not_known_yet_is_left_out() -> None:
    assert under_way(Reading(title="fetching", done_bytes=2048)) == "fetching: 2.0 KiB"
    assert under_way(Reading(title="fetching", total_bytes=0)) == "fetching: 0 B"


def test_the_rate_of_an_instant_is_not_told() -> None:
    reading = Reading(title="sending", done_bytes=10, total_bytes=10, elapsed_s=0.01)
    assert at_end(reading, finished=True) == "sending: 10 B in 0.0 s"


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("quiet", "stream", "kind"),
    [(True, Screen, Silence), (False, Screen, Bar), (False, io.StringIO, Lines)],
)
def test_the_display_suits_the_stream(
    quiet: bool, stream: Callable[[], io.StringIO], kind: type[object]
) -> None:
    assert isinstance(display(Output(Common(quiet=quiet), stderr=stream())), kind)


def test_plain_lines_have_no_control_characters() -> None:
    stream = io.StringIO()
    with Meter(display(Output(Common(), stderr=stream)), "sending", 10) as meter:
        meter.advance(10)
    assert stream.getvalue().isascii()
    assert "\x1b" not in stream.getvalue()
