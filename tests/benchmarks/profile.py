"""Where the processor time of a measurement went: `perf` samples every core while it runs.

A sample counts when it falls into a block that was measured (`processes.cpu_of`): for the server
that the block is about, for whoever else used a core (its client above all), or for nobody. What a
server was doing is the system call that it was in, else the library whose code it ran.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.benchmarks import processes
from tests.benchmarks.programs import path_of
from tests.benchmarks.rig import Rig

PROGRAM: Final = "perf"
SAMPLES_PER_S: Final = 997
HEADINGS: Final = ("work", "server", "its share", "others", "idle", "what the server was doing")
LEAST_SHARE: Final = 0.02
"""What is less is not told."""

_SAMPLE: Final = re.compile(r"^.*?\s(\d+)/\d+\s+(\d+\.\d+):")
_FRAME: Final = re.compile(r"^\s+[0-9a-f]+ (.*?) \((.*)\)$")
# What begins a system call is often inlined into what does its work.
_CALL: Final = re.compile(r"^(?:__x64_sys_|ksys_|vfs_|do_(?=p?(?:read|write)v$|epoll_wait$))(\w+)")
_KINDS: Final = {
    "send": {"sendto", "sendmsg", "sendfile64", "splice", "tee", "vmsplice", "writev"},
    "receive": {"recvfrom", "recvmsg"},
    "read": {"pread64", "preadv", "preadv2", "read", "readv"},
    "write": {"pwrite64", "pwritev", "pwritev2", "write"},
    "sync": {"fsync", "fdatasync", "syncfs", "sync_file_range"},
    "wait and wake": {"futex", "epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6"},
    "open and close": {"open", "openat", "openat2", "close", "newfstat", "newfstatat", "statx"},
}
_KIND_OF: Final = {call: kind for kind, calls in _KINDS.items() for call in calls}
_KERNEL: Final = "[kernel.kallsyms]"
_IDLE: Final = 0


@dataclass(frozen=True, slots=True)
class Stack:
    """One sample.

    Attributes:
        pid: the process that had the core; 0: nobody, as far as that is sampled at all.
        at_s: when, on the monotonic clock.
        frames: functions and the files that they are in, innermost first.
    """

    pid: int
    at_s: float
    frames: tuple[tuple[str, str], ...] = ()

    @property
    def doing(self) -> str:
        """What the process was doing, in a word or two."""
        calls = [found[1] for function, _ in self.frames if (found := _CALL.match(function))]
        if calls:
            return _KIND_OF.get(calls[-1], "other system calls")
        if any("page_fault" in function for function, _ in self.frames):
            return "page faults"
        function, file = self.frames[0] if self.frames else ("", "")
        if file == _KERNEL or not file:
            return "rest of the kernel"
        if "libcrypto" in file or "sha256" in function:
            return "SHA-256"
        return "interpreter" if "python" in file else "libraries"


@dataclass(slots=True)
class Profile:
    """What was sampled while one server was measured.

    Attributes:
        work: the measurement.
        server: whose blocks they were.
        core_s: how long these were, times the cores of the machine.
        doing: how many samples of the server by what it was doing.
        others: how many samples of other processes, and of the kernel's own threads.
    """

    work: str
    server: str
    core_s: float
    doing: Counter[str] = field(default_factory=Counter)
    others: int = 0

    def add(self, stack: Stack, pids: frozenset[int]) -> None:
        """Count a sample from a block of this server, which has the processes `pids`."""
        if stack.pid in pids:
            self.doing[stack.doing] += 1
        elif stack.pid != _IDLE:
            self.others += 1

    def cells(self) -> tuple[str, ...]:
        """The line of the table."""
        own = self.doing.total()
        # A core that sleeps is hardly sampled, so what nobody had is what is left of the time.
        every = max(own + self.others, round(self.core_s * SAMPLES_PER_S), 1)
        idle = every - own - self.others
        shares = (f"{100 * part / every:.0f} %" for part in (own, self.others, idle))
        told = [
            f"{what} {100 * count / own:.0f} %"
            for what, count in self.doing.most_common()
            if count >= LEAST_SHARE * own
        ]
        return self.work, self.server, *shares, ", ".join(told)


@contextmanager
def sampled(rig: Rig, work: str) -> Iterator[list[Profile]]:
    """Sample what is measured in the block; the list is filled at its end.

    Raises:
        CalledProcessError: `perf` cannot read what it wrote.
    """
    found: list[Profile] = []
    path = rig.directory / "samples"
    command = [path_of(PROGRAM), "record", "-a", "-g", "-q", "-F", str(SAMPLES_PER_S)]
    # A clock, and not a counter of cycles: that counts faster where a core does more.
    command += ["-e", "cpu-clock"]
    command += ["-k", "CLOCK_MONOTONIC", "-o", str(path)]
    processes.measured.clear()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as perf:
        try:
            yield found
        finally:
            perf.send_signal(signal.SIGINT)
    cores = os.cpu_count() or 1
    found += profiles(work, _stacks_in(path), processes.measured, rig.memory.names(), cores)
    path.unlink()


def profiles(
    work: str,
    stacks: Iterable[Stack],
    blocks: Sequence[processes.Block],
    names: dict[int, str],
    cores: int,
) -> list[Profile]:
    """Give each sample to the block that it falls into; one profile for each server's name."""
    found: dict[str, Profile] = {}
    of_block: list[Profile] = []
    for block in blocks:
        name = names.get(block.pids[0], "?").partition(" ")[0]
        of_block.append(found.setdefault(name, Profile(work, name, 0.0)))
        of_block[-1].core_s += cores * (block.ended_s - block.began_s)
    for stack in stacks:
        for block, profile in zip(blocks, of_block, strict=True):
            if block.began_s <= stack.at_s <= block.ended_s:
                profile.add(stack, frozenset(block.pids))
    return list(found.values())


def parse(lines: Iterable[str]) -> Iterator[Stack]:
    """Read what `perf script` prints."""
    head: tuple[int, float] | None = None
    frames: list[tuple[str, str]] = []
    for line in lines:
        if sample := _SAMPLE.match(line):
            head, frames = (int(sample[1]), float(sample[2])), []
        elif frame := _FRAME.match(line):
            frames.append((frame[1], frame[2]))
        elif head is not None:
            yield Stack(*head, tuple(frames))
            head = None
    if head is not None:
        yield Stack(*head, tuple(frames))


def _stacks_in(path: Path) -> Iterator[Stack]:
    command = [path_of(PROGRAM), "script", "-i", str(path), "-F", "comm,pid,tid,time,ip,sym,dso"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as reading:
        assert reading.stdout is not None
        yield from parse(reading.stdout)
    if reading.returncode:
        raise subprocess.CalledProcessError(reading.returncode, command)
