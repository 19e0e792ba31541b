"""How far something that moves bytes has come: a bar on a terminal, plain lines elsewhere.

Rules kept here:

- Progress goes to stderr only, so that a result on stdout can be piped at the same time.
- A `Meter` is told what was done and knows nothing of screens; a `Display` shows its readings.
- Plain lines come at most every `LINE_INTERVAL_S`, for logs, and always one at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from agent.cli.formats import middle, size, span
from agent.cli.output import Output
from agent.cli.printable import printable

LINE_INTERVAL_S: Final = 5.0
LABEL_WIDTH: Final = 22
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a meter stands at. `total_bytes` is None until it is known."""

    title: str
    label: str = ""
    done_bytes: int = 0
    total_bytes: int | None = None
    elapsed_s: float = 0.0


class Display(Protocol):
    """Shows readings of one meter, from the first to the last."""

    def open(self, reading: Reading) -> None:
        """Begin."""

    def show(self, reading: Reading) -> None:
        """Show progress; called often."""

    def close(self, reading: Reading, *, finished: bool) -> None:
        """End; `finished` is false when an error or Ctrl-C ended it."""


class Meter:
    """Counts the bytes of one step of a command; use as a context manager.

    `title` is what is being done ("sending"), the label what to ("3/15 host.tar.gz").
    """

    def __init__(
        self,
        display: Display,
        title: str,
        total_bytes: int | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._display = display
        self._clock = clock
        self._started = clock()
        self._reading = Reading(title=title, total_bytes=total_bytes)

    @property
    def done_bytes(self) -> int:
        """How far it is."""
        return self._reading.done_bytes

    def label(self, text: str) -> None:
        """Name what is worked on now."""
        self._move(replace(self._reading, label=text))

    def set(self, done_bytes: int, total_bytes: int | None) -> None:
        """So much is done of so much; None while nobody knows."""
        self._move(replace(self._reading, done_bytes=done_bytes, total_bytes=total_bytes))

    def advance(self, count_bytes: int) -> None:
        """So many bytes more are done."""
        self.at(self._reading.done_bytes + count_bytes)

    def at(self, done_bytes: int) -> None:
        """So many bytes are done in all."""
        self._move(replace(self._reading, done_bytes=done_bytes))

    def _move(self, reading: Reading) -> None:
        self._reading = replace(reading, elapsed_s=self._clock() - self._started)
        self._display.show(self._reading)

    def __enter__(self) -> Self:
        self._started = self._clock()
        self._display.open(self._reading)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What comes after the last byte, such as the answer, is part of the step's time.
        whole = replace(self._reading, elapsed_s=self._clock() - self._started)
        self._display.close(whole, finished=kind is None)


class Silence:
    """Shows nothing: --quiet."""

    def open(self, reading: Reading) -> None:
        """Nothing."""

    def show(self, reading: Reading) -> None:
        """Nothing."""

    def close(self, reading: Reading, *, finished: bool) -> None:
        """Nothing."""


class Lines:
    """One plain line now and then, and one at the end."""

    def __init__(
        self, write: Callable[[str], None], *, interval_s: float = LINE_INTERVAL_S
    ) -> None:
        self._write = write
        self._interval_s = interval_s
        self._last: Reading | None = None

    def open(self, reading: Reading) -> None:
        """Nothing: most steps end before anybody wonders."""
        self._last = reading

    def show(self, reading: Reading) -> None:
        """Write a line, unless the last one is recent."""
        last = self._last
        if last is None or (last.total_bytes is None and reading.total_bytes is not None):
            # What an earlier transfer left is there before this one begins.
            self._last = replace(reading, elapsed_s=last.elapsed_s if last else 0.0)
        elif reading.elapsed_s - last.elapsed_s >= self._interval_s:
            self._last = reading
            self._write(under_way(reading, last))

    def close(self, reading: Reading, *, finished: bool) -> None:
        """Write the last line, unless it failed before it began: the error says it all."""
        if finished or reading.done_bytes:
            self._write(at_end(reading, finished=finished))


class _Rate(ProgressColumn):
    """Bytes per second, in the units of everything else; rich's own are decimal."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{size(int(speed))}/s", style="progress.data.speed")


class Bar:
    """A rich progress bar, which leaves one line behind when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            _Rate(),
            TimeRemainingColumn(compact=True),
            console=console,
            expand=True,
            transient=True,
        )
        self._task: TaskID | None = None

    def open(self, reading: Reading) -> None:
        """Draw the bar."""
        self._task = self._progress.add_task(_described(reading), total=reading.total_bytes)
        self._progress.start()

    def show(self, reading: Reading) -> None:
        """Move the bar."""
        assert self._task is not None
        self._progress.update(
            self._task,
            completed=reading.done_bytes,
            total=reading.total_bytes,
            description=_described(reading),
        )

    def close(self, reading: Reading, *, finished: bool) -> None:
        """Replace the bar by a line that says how it went."""
        self._progress.stop()
        if finished or reading.done_bytes:
            self._console.print(at_end(reading, finished=finished), soft_wrap=True)


def display(output: Output) -> Display:
    """Choose how to show progress: nothing, a bar, or lines."""
    if output.quiet:
        return Silence()
    if output.err.is_terminal:
        return Bar(output.err)
    return Lines(output.note)


def under_way(reading: Reading, before: Reading | None = None) -> str:
    """`sending 3/15 host.tar.gz: 45% of 1.0 GiB`, and how fast it went since `before`."""
    name = f"{reading.title} {reading.label}".rstrip()
    if not reading.total_bytes:
        return f"{name}: {size(reading.done_bytes)}"
    percent = min(100, 100 * reading.done_bytes // reading.total_bytes)
    speed = _speed(reading, before) if before else ""
    return f"{name}: {percent}% of {size(reading.total_bytes)}{speed}"


def _speed(reading: Reading, before: Reading) -> str:
    moved_bytes = reading.done_bytes - before.done_bytes
    passed_s = reading.elapsed_s - before.elapsed_s
    if moved_bytes < 0 or passed_s <= 0:  # it was begun anew
        return ""
    rate = f", {size(int(moved_bytes / passed_s))}/s"
    left_bytes = (reading.total_bytes or 0) - reading.done_bytes
    if not moved_bytes or left_bytes <= 0:
        return rate
    return f"{rate}, {span(left_bytes * passed_s / moved_bytes)} left"


def at_end(reading: Reading, *, finished: bool) -> str:
    """`sending: 1.0 GiB in 8.1 s, 126.4 MiB/s`, or where it stopped."""
    if not finished:
        return f"{under_way(reading)}, stopped"
    return (
        f"{reading.title}: {size(reading.done_bytes)} in {reading.elapsed_s:.1f} s{_rate(reading)}"
    )


def _rate(reading: Reading) -> str:
    # Of an instant, or of nothing, a rate says nothing.
    if reading.elapsed_s < 0.1 or not reading.done_bytes:
        return ""
    return f", {size(int(reading.done_bytes / reading.elapsed_s))}/s"


def _described(reading: Reading) -> str:
    return printable(f"{reading.title} {middle(reading.label, LABEL_WIDTH)}".rstrip())
