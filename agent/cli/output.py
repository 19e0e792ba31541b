"""Where a command writes: results on stdout, everything else on stderr.

Rules kept here:

- With --json, stdout gets one JSON document (or one per line, for a stream) and nothing else, also
  when the command fails: the document then has an `error` beside whatever was done before.
- Colour and wrapping only on a terminal; NO_COLOR is respected. Elsewhere lines are as long as
  they are, so that `grep` and `cut` see whole ones.
- A reader of stdout that goes away (`depot ls | head -1`) ends the command without a word; a stdout
  that takes no more (a full disk) is a failure like any other.
- A file of the user's that cannot be looked at, read or written is a failure with its name,
  wherever a verb comes upon it: `reporting` is the one place that turns an OSError into one.
- Text from elsewhere is escaped before it is written (`printable`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Protocol, TextIO

import click
from rich.console import Console
from rich.text import Text

from agent.cli.failures import ExitCode, Failure, local, local_errors
from agent.cli.formats import wrapped
from agent.cli.printable import printable

Document = Mapping[str, object]


class Manner(Protocol):
    """How a command reports."""

    @property
    def program(self) -> str:
        """What its messages begin with."""

    @property
    def json(self) -> bool:
        """Whether results are documents."""

    @property
    def quiet(self) -> bool:
        """Whether only results, warnings and errors are told."""


class _Stream(Console):
    """A console that leaves a closed pipe to `reporting` instead of exiting with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Output:
    """What one command writes."""

    def __init__(
        self, common: Manner, *, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.program = common.program
        self.json = common.json
        self.quiet = common.quiet
        self.out = _stream(stdout or sys.stdout)
        self.err = _stream(stderr or sys.stderr)
        self._result: Document = {}
        self._streaming = False

    @property
    def width(self) -> int | None:
        """Columns of the terminal behind stdout; None when it is not one."""
        return _width(self.out)

    def document(self, value: Document, lines: Iterable[str | Text]) -> None:
        """Give the result of the command, once: as these lines now, or as JSON when it ends."""
        if self.json:
            self._result = value
            return
        # In one piece: a long listing, line by line, would take seconds.
        texts = [_text(line) for line in lines]
        if texts:
            with self._to_stdout():
                self._line(self.out, Text("\n").join(texts))

    def content(self, value: bytes) -> None:
        """Give the result as the bytes that it is: JSON already, so with --json too."""
        self._streaming = True
        with self._to_stdout():
            if self.out.is_terminal or not isinstance(self.out.file, TextIOWrapper):
                for line in value.decode(errors="backslashreplace").splitlines():
                    self._line(self.out, line)
            else:
                self.out.file.flush()
                self.out.file.buffer.write(value)

    def record(self, value: Document, line: str | Text) -> None:
        """Write one record of a stream, at once."""
        if self.json:
            self._streaming = True
            self._write(value)
        else:
            with self._to_stdout():
                self._line(self.out, line)
        self._flush()

    def finish(self) -> None:
        """End a command that went well."""
        if self.json and not self._streaming:
            self._write(self._result)
        self._flush()

    def note(self, text: str) -> None:
        """Tell what is going on, on stderr; --quiet leaves it out."""
        if not self.quiet:
            self._line(self.err, wrapped(_text(text), _width(self.err)))

    def warning(self, text: str) -> None:
        """Tell on stderr what is to be seen to although the command goes well; --quiet or not."""
        message = Text.assemble((f"{self.program}: warning: ", "bold yellow"), printable(text))
        self._line(self.err, wrapped(message, _width(self.err)))

    def failure(self, failure: Failure) -> None:
        """End a command that failed: on stderr, and with --json beside the result on stdout."""
        if self.json:
            # When this cannot be written either, what led here is still what is told.
            with suppress(Failure):
                self._write({**self._result, "error": failure.document()})
                self._flush()
        message = Text.assemble((f"{self.program}: ", "bold red"), printable(failure.message))
        self._line(self.err, wrapped(message, _width(self.err)))
        if failure.hint:
            self._line(self.err, wrapped(Text(f"  {failure.hint}"), _width(self.err)))
        if failure.request_id:
            self._line(self.err, f"  request id {failure.request_id}")

    def _write(self, value: Document) -> None:
        if self._streaming:
            text = json.dumps(value, separators=(",", ":"))
        else:
            text = json.dumps(value, indent=2)
        with self._to_stdout():
            self.out.file.write(f"{text}\n")

    def _flush(self) -> None:
        with self._to_stdout():
            self.out.file.flush()

    @contextmanager
    def _to_stdout(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            _drop_stdout()
            error.filename = "stdout"
            raise local(error) from error

    def _line(self, console: Console, line: str | Text) -> None:
        console.print(_text(line), soft_wrap=True)


@contextmanager
def reporting(common: Manner) -> Iterator[Output]:
    """Run the body of a verb: its result is written when it ends, and its failure if it fails.

    Raises:
        click.exceptions.Exit: it failed, or the reader of stdout went away.
    """
    output = Output(common)
    try:
        with _failures_shown(output):
            yield output
            output.finish()
    except BrokenPipeError as error:
        _drop_stdout()
        raise click.exceptions.Exit(ExitCode.PIPE_CLOSED) from error


@contextmanager
def _failures_shown(output: Output) -> Iterator[None]:
    try:
        with local_errors():
            yield
    except Failure as failure:
        output.failure(failure)
        raise click.exceptions.Exit(failure.exit_code) from failure


def _drop_stdout() -> None:
    """Send the rest nowhere: what is still buffered would raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _width(console: Console) -> int | None:
    return console.width if console.is_terminal else None


def _text(line: str | Text) -> Text:
    return line if isinstance(line, Text) else Text(printable(line))


def _stream(file: TextIO) -> Console:
    # A name with bytes that are no text must not end the command with an encoding error.
    if isinstance(file, TextIOWrapper):
        file.reconfigure(errors="backslashreplace")
    return _Stream(file=file, force_terminal=file.isatty(), highlight=False, markup=False)
