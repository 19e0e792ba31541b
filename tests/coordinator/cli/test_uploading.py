"""What is told when an upload is broken off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.cli.output import Output
from coordinator.cli.options import Common
from coordinator.cli.uploading import Asked, upload_from

SIZE_BYTES = 1000


class Sending:
    """A client that has sent so much and waits for the coordinator."""

    def __init__(self, sent_bytes: int) -> None:
        self._sent_bytes = sent_bytes
        self.waits = asyncio.Event()

    async def upload_release(self, _: Path, *, on_sent: Callable[[int], None], **__: Any) -> None:
        on_sent(self._sent_bytes)
        self.waits.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("sent_bytes", "told"),
    [
        (SIZE_BYTES // 2, "nothing was recorded: the release had not been sent whole"),
        (SIZE_BYTES, "whether the release is recorded is not known"),
    ],
)
def test_ctrl_c_in_an_upload_tells_what_became_of_the_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sent_bytes: int, told: str
) -> None:
    zipped = tmp_path / "release.zip"
    zipped.write_bytes(bytes(SIZE_BYTES))

    async def interrupted() -> None:
        client, asked = Sending(sent_bytes), Asked(allow_expired=False, version=None)
        output = Output(Common())
        upload: Any = upload_from(client, output, zipped, asked, tmp_path)  # type: ignore[arg-type]
        task = asyncio.create_task(upload)
        await client.waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    assert told in " ".join(capsys.readouterr().err.split())
