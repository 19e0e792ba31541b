"""The examples of docs/python-api.md run as they stand."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from depot import ArtifactHash, ArtifactStore
from depot.http.depot_api import depot_app
from tests.http.servers import serve

DOCUMENT = Path(__file__).parents[2] / "docs" / "python-api.md"


def examples() -> list[dict[str, Any]]:
    """The namespace that each Python block leaves behind."""
    spaces = []
    for source in re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.S | re.M):
        space: dict[str, Any] = {}
        exec(compile(source, str(DOCUMENT), "exec"), space)
        spaces.append(space)
    return spaces


def test_the_documented_examples_store_and_fetch_a_file(tmp_path: Path, capsys: Any) -> None:
    storing, fetching = examples()
    content = b"bytes of an artifact" * 100_000
    file = tmp_path / "file"
    file.write_bytes(content)
    artifact = ArtifactHash.of(content)

    storing["main"](tmp_path, file)
    assert f"{artifact}: 2 of 2 datasets" in capsys.readouterr().out

    asyncio.run(_fetch(fetching["fetch"], tmp_path, artifact))
    assert (tmp_path / "copy").read_bytes() == content


async def _fetch(fetch: Any, directory: Path, artifact: ArtifactHash) -> None:
    datasets = [directory / "m2-a", directory / "m2-b"]
    async with (
        await ArtifactStore.open(datasets, state_dir=directory / "state") as store,
        serve(depot_app(store)) as service,
    ):
        await fetch(service.url, str(artifact), directory / "copy")
