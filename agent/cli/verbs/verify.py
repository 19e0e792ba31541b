"""`depot verify`: whether files of this machine are what they should be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from agent.cli import options
from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import plural
from agent.cli.hashing import LocalFile, hash_files
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.printable import printable
from agent.cli.servers import agent

_HASH_NAME: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a file was compared with, and whether it is that. `expected` is None for the sled."""

    file: LocalFile
    against: str
    expected: str | None
    ok: bool

    def document(self) -> dict[str, object]:
        """The verdict for --json."""
        return {
            "file": str(self.file.path),
            "sha256": str(self.file.sha256),
            "size_bytes": self.file.size_bytes,
            "against": self.against,
            "expected": self.expected,
            "ok": self.ok,
        }

    def line(self) -> Text:
        """`OK` or what is wrong, the hash, the file; in the manner of `sha256sum -c`."""
        mark = Text("OK   ") if self.ok else Text("WRONG", style="red")
        line = Text.assemble(mark, f"  {self.file.sha256}  {printable(str(self.file.path))}")
        if not self.ok:
            line.append(f"\n       {self.reason()}")
        return line

    def reason(self) -> str:
        """What is wrong with the file."""
        if self.expected is None:
            return "the sled holds no artifact with these bytes"
        return f"expected {self.expected}, by {self.against}"


@click.command()
@click.option("--sha256", type=options.sha256, metavar="SHA256", help="What FILE should hash to.")
@options.files
@options.shared
def verify(common: Common, files: tuple[Path, ...], sha256: str | None) -> None:
    """Check that files are what they should be.

    A file is compared with --sha256, or with its name if that is a hash. Any other file has to be
    an artifact that the sled holds; only for those is the sled asked.
    """
    with reporting(common) as output:
        if sha256 is not None and len(files) != 1:
            raise usage(f"--sha256 names one hash, so it takes one FILE, found {len(files)}")
        hashed = hash_files(files, output)
        verdicts = asyncio.run(_judge(common, hashed, sha256))
        _report(output, verdicts)


async def _judge(common: Common, files: Sequence[LocalFile], sha256: str | None) -> list[Verdict]:
    judged = [judge_alone(file, sha256) for file in files]
    if all(judged):
        return [verdict for verdict in judged if verdict is not None]
    async with agent(common) as client:
        held = (await client.list_artifacts()).list
    return [
        verdict or Verdict(file, "the sled", None, str(file.sha256) in held)
        for verdict, file in zip(judged, files, strict=True)
    ]


def judge_alone(file: LocalFile, sha256: str | None) -> Verdict | None:
    """Compare a file with what is known here; None when only the sled can tell."""
    if sha256 is not None:
        return Verdict(file, "--sha256", sha256, str(file.sha256) == sha256)
    if _HASH_NAME.fullmatch(file.path.name):
        expected = file.path.name.lower()
        return Verdict(file, "its name", expected, str(file.sha256) == expected)
    return None


def _report(output: Output, verdicts: Sequence[Verdict]) -> None:
    wrong = [verdict for verdict in verdicts if not verdict.ok]
    document = {"files": [verdict.document() for verdict in verdicts], "ok": not wrong}
    output.document(document, [verdict.line() for verdict in verdicts])
    if wrong:
        first = wrong[0]
        raise Failure(
            f"{len(wrong)} of {plural(len(verdicts), 'file')} wrong, first {first.file.path}: "
            f"{first.reason()}",
            ExitCode.WRONG_BYTES,
            code="HashMismatch",
            hint="",
        )
