"""What stays in the process that touches a device, and what stands for it in the other one.

A `Dataset` or a running verification cannot cross: it holds descriptors of the device. When a
result has one in it, a `Remote` arrives in its place, which carries its facts; given back as an
argument, it becomes the object again. A `Remote` of a worker process that has ended leads nowhere.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast

from depot.errors import DatasetUnusable


class Resident(Protocol):
    """An object that never leaves its process."""

    def close(self) -> None:
        """Give up what it holds."""


class _Registry:
    """The residents of this process that another one knows of, by number."""

    def __init__(self) -> None:
        self.epoch = ""
        self.agent_pid: int | None = None
        self._numbers = itertools.count(1)
        self._by_number: dict[int, object] = {}
        self._lock = threading.Lock()

    def keep(self, resident: object) -> int:
        with self._lock:
            for number, known in self._by_number.items():
                if known is resident:
                    return number
            number = next(self._numbers)
            self._by_number[number] = resident
            return number

    def find(self, epoch: str, number: int) -> object:
        with self._lock:
            if epoch == self.epoch and (found := self._by_number.get(number)) is not None:
                return found
        raise DatasetUnusable("what this belonged to ended with its worker process")

    def forget(self, resident: object) -> None:
        with self._lock:
            numbers = [n for n, known in self._by_number.items() if known is resident]
            for number in numbers:
                del self._by_number[number]

    def __len__(self) -> int:
        return len(self._by_number)


_here: Final = _Registry()


def begin_epoch(epoch: str, agent: int) -> None:
    """Name this process, once, before anything of it is known elsewhere, and whose it is."""
    _here.epoch = epoch
    _here.agent_pid = agent


def agent_pid() -> int | None:
    """The process that this one is a worker of; None: of nobody."""
    return _here.agent_pid


def count_residents() -> int:
    """How many objects of this process another one can still name."""
    return len(_here)


def stay(
    resident: Resident, facts: Mapping[str, object]
) -> tuple[Callable[..., Remote], tuple[object, ...]]:
    """What the `__reduce__` of a resident returns."""
    kind = type(resident).__name__
    return Remote, (_here.epoch, _here.keep(resident), kind, dict(facts))


def forget(resident: Resident) -> None:
    """Let nobody elsewhere name a resident any more."""
    _here.forget(resident)


def let_go(resident: Resident) -> None:
    """Close a resident, which nobody elsewhere can name any more."""
    forget(resident)
    resident.close()


class Remote:
    """Stands for a resident of a worker process; has its facts as attributes."""

    def __init__(self, epoch: str, number: int, kind: str, facts: Mapping[str, object]) -> None:
        self._name = (epoch, number)
        self._kind = kind
        self._facts = facts

    def __getattr__(self, name: str) -> object:
        try:
            return self._facts[name]
        except KeyError:
            raise AttributeError(f"{self._kind}.{name} is in the worker process") from None

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return _resident, self._name


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Stands for a descriptor of a worker process: not a number, so that nobody can mix them up."""

    epoch: str
    number: int

    def __reduce__(self) -> tuple[Callable[..., int], tuple[object, ...]]:
        return _descriptor, (self.epoch, self.number)


class _FileHere:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Callable[..., RemoteFile], tuple[object, ...]]:
        return RemoteFile, (_here.epoch, self._fd)


def file_here(fd: int) -> RemoteFile:
    """Name a descriptor of this process for the one that gets it as a result."""
    return cast("RemoteFile", _FileHere(fd))


def _resident(epoch: str, number: int) -> object:
    return _here.find(epoch, number)


def _descriptor(epoch: str, number: int) -> int:
    if epoch != _here.epoch:
        raise DatasetUnusable("this file was opened by a worker process that has ended")
    return number
