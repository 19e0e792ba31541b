"""How a command ends badly: the exit codes, and what to do next for each refusal.

Rules kept here:

- Every way to fail is a `Failure`: a message, an exit code, and a hint where one helps. It is the
  only exception a verb raises on purpose, and `output.reporting` the only place that shows it.
- Exit codes are documented (`EXIT_CODES`) and never reused: 1 always means that bytes are wrong,
  so that a script can tell a damaged file from a server that was down.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final


class ExitCode(IntEnum):
    """The exit status of `depot`."""

    OK = 0
    WRONG_BYTES = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    LOCAL = 5
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141


EXIT_CODES: Final[Mapping[ExitCode, str]] = MappingProxyType(
    {
        ExitCode.OK: "fine",
        ExitCode.WRONG_BYTES: "the bytes are wrong",
        ExitCode.USAGE: "usage, or a file that is not there or not ours to touch",
        ExitCode.REFUSED: "refused by the server",
        ExitCode.UNREACHABLE: "unreachable",
        ExitCode.LOCAL: "a local file could not be read or written: a full or failing disk",
        ExitCode.INTERNAL: "a fault of this program",
        ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
        ExitCode.PIPE_CLOSED: "the reader of stdout went away",
    }
)

# What a person can do about each `error_code`, from the table of refusals in the contract.
HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ARTIFACT_GENERATION": "the config moved on; leave --generation out to use the current one",
        "ArtifactInUse": "`depot pin ls` says who holds them, `depot pin rm NAME` lets them go",
        "ApiVersion": "this client and the server are too far apart; use versions that match",
        "BadSource": "copy.allowed_sources in the agent's configuration names the networks it may"
        " fetch from",
        "BodyTimeout": "the way to the server is too slow; look at the network, then try again",
        "CONFIG_GENERATION": "`depot config get` shows the current config; use a higher generation",
        "CrossSite": "ask without the headers of a browser: no web page may do this",
        "DatasetRefused": "`sled-agent datasets list` shows every dataset, and why one is out",
        "DepotCopy": "check that the source runs and holds the artifact: `depot --agent URL ls`",
        "HashMismatch": "the file changed while it was read, or was damaged on the way; try again",
        "Internal": "the server's log has the traceback, under the request id",
        "Io": "`depot status` and the agent's log say which dataset failed and how",
        "KeptInQuarantine": "`sled-agent quarantine ls` shows what is set aside, and where",
        "LedgerUnknown": "`depot status` says what the ledger is: `behind` and `conflicted` are"
        " mended by a higher generation, `depot config set --generation N SHA256...`; for `unknown`"
        " bring the dataset back, and only if it is gone for good: stop the agent and run"
        " `sled-agent init --force`",
        "LengthMismatch": "the file changed while it was read; try again",
        "NoConfig": "give the sled a config: `depot config set`, or `depot put --add FILE`",
        "NoDataset": "`depot status` says which dataset is missing and why",
        "NotFound": "`depot ls`, `depot pin ls` and `depot copies` show what is there",
        "NotInConfig": "add it to the config: `depot config set`, or `depot put --add FILE`",
        "NotReady": "`depot status` says what is wrong",
        "QuotaExceeded": "`depot status` shows how full each dataset is; drop artifacts from the"
        " config, or raise storage.quota",
        "ShuttingDown": "the server is stopping; try again when it is back",
        "TooFewCopies": "`depot status` says which dataset is out; what was written stays",
        "TooLarge": "storage.max_artifact_size and storage.quota set what can fit",
        "TooManyBodies": "large requests are being worked on; try again in a moment",
        "TooManyConnections": "try again in a moment",
        "TooManyCopies": "copy.max_concurrent are running already; try again in a moment",
        "TooManyPuts": "storage.max_concurrent_puts are running already; try again in a moment",
        "UnknownHost": "ask it at its address, or name it in allowed_hosts in its configuration",
    }
)

# A file that is not there, is not ours, or is no file: a mistake in the command line.
_MISTAKEN: Final = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_MISTAKEN_NUMBERS: Final = frozenset({errno.ENAMETOOLONG, errno.ELOOP})

# Refusals that say the bytes are wrong, whoever found out.
WRONG_BYTES_CODES: Final = frozenset({"HashMismatch", "LengthMismatch"})


class Failure(Exception):
    """A command could not do what was asked."""

    def __init__(
        self,
        message: str,
        exit_code: ExitCode,
        *,
        code: str | None = None,
        hint: str | None = None,
        request_id: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code or exit_code.name.title().replace("_", "")
        self.hint = hint if hint is not None else HINTS.get(self.code)
        self.request_id = request_id
        self.details = dict(details or {})

    def extended(self, more: str) -> Failure:
        """The same failure, told in more words."""
        return Failure(
            f"{self.message}; {more}",
            self.exit_code,
            code=self.code,
            hint=self.hint,
            request_id=self.request_id,
            details=self.details,
        )

    def document(self) -> dict[str, object]:
        """The failure as the `error` object of --json."""
        optional = {"hint": self.hint, "request_id": self.request_id, "details": self.details}
        return {
            "exit_code": int(self.exit_code),
            "code": self.code,
            "message": self.message,
            **{key: value for key, value in optional.items() if value},
        }


def refused(
    code: str,
    message: str,
    *,
    request_id: str | None = None,
    details: Mapping[str, object] | None = None,
    hint: str | None = None,
) -> Failure:
    """What a server refused, by its `error_code`; `hint` instead of the one for that code."""
    wrong = code in WRONG_BYTES_CODES
    exit_code = ExitCode.WRONG_BYTES if wrong else ExitCode.REFUSED
    return Failure(message, exit_code, code=code, hint=hint, request_id=request_id, details=details)


def unreachable(what: str, reason: str) -> Failure:
    """A server that did not answer. `what` is the option that names it: agent or depot."""
    return Failure(
        f"the {what} is unreachable: {reason}",
        ExitCode.UNREACHABLE,
        hint=f"check that it runs there; --{what} URL or DEPOT_{what.upper()}_URL names another",
    )


def local(error: OSError) -> Failure:
    """A file on this machine that could not be read or written.

    One that is not there, or not ours, is a mistake in the command line; a full or failing disk
    is not.
    """
    named = f"{error.filename}: " if error.filename else ""
    mistaken = isinstance(error, _MISTAKEN) or error.errno in _MISTAKEN_NUMBERS
    exit_code = ExitCode.USAGE if mistaken else ExitCode.LOCAL
    return Failure(f"{named}{error.strerror or error}", exit_code, hint="")


@contextmanager
def naming(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Name the file in an error of a read or a write, which the kernel reports without it.

    Args:
        path: the file that somebody asked for.
        instead_of: one that is written in its place, and that nobody knows.
    """
    try:
        yield
    except OSError as error:
        # One without a number says all in words already.
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        elif instead_of is not None and str(error.filename) == str(instead_of):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def local_errors() -> Iterator[None]:
    """Turn what goes wrong with a file of this machine into a Failure; a closed pipe is none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise local(error) from error


def usage(message: str, hint: str = "") -> Failure:
    """A command line that cannot be meant, found after click has parsed it."""
    return Failure(message, ExitCode.USAGE, hint=hint)
