"""How a writer of an ingest ends, when it is given up just as it is done."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from depot.dataset.dataset import Dataset
from depot.device.host import thread_host
from depot.initialise import init_datasets
from depot.streams.blocks import Ring
from depot.writing.lanes import LocalWriter, RemoteWriter, Target
from tests import ondisk

T = TypeVar("T")


class DoneHost:
    """Instead of a worker process: whatever is written there is whole at once."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def submit_in(self, _lane: object, _function: object, *args: Any) -> Future[str]:
        _, _, name, _ = args
        self._dataset.stage(name)
        return done(name)

    def submit(self, function: Any, *args: Any) -> Future[None]:
        return done(function(*args))


def done(result: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(result)
    return future


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Dataset]:
    path = tmp_path / "a"
    path.mkdir()
    init_datasets([path])
    dataset = Dataset.attach(path, require_mountpoint=False, sled_id=None)
    yield dataset
    dataset.close()


@pytest.fixture(params=["here", "elsewhere"])
def writer(request: pytest.FixtureRequest, dataset: Dataset) -> LocalWriter | RemoteWriter:
    ring = Ring([])
    if request.param == "here":
        target = Target(dataset, thread_host("unused", lambda _: None))
        return LocalWriter(target, ring, lambda _: None, direct=False)
    host: Any = DoneHost(dataset)
    return RemoteWriter(Target(dataset, host), ring, lambda _: None, 1.0, direct=False)


def test_q3_a_writer_given_up_after_its_last_step_has_its_file_all_the_same(
    writer: LocalWriter | RemoteWriter, dataset: Dataset
) -> None:
    writer.end()
    writer.run()
    writer.abandon()
    assert writer.error is None
    assert [file.name for file in ondisk.staged_files(dataset.path)] == [Path(writer.name).name]


def test_q3_a_writer_given_up_before_its_last_step_leaves_no_file(
    writer: LocalWriter | RemoteWriter, dataset: Dataset
) -> None:
    writer.abandon()
    writer.run()
    assert writer.error is not None
    assert writer.name == ""
    assert ondisk.staged_files(dataset.path) == []
