"""A network of nodes behind slow links on one machine: namespaces, a bridge, token buckets.

    hub (bridge, where the benchmark asks from) --- veth --- node 0
                                                --- veth --- node 1 ...

Each node is a network namespace of its own; both ends of its link let through no more than the
rate (`tc tbf`), so that is what it can send and what it can receive. Nothing outside the
namespaces is touched, and they go with the block.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from tests.benchmarks.programs import missing

PROGRAMS: Final = ("ip", "tc")
_NAMESPACES: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_HERE: Final = Path("/proc/thread-self/ns/net")
# Enough for a few large packets; what does not fit waits for at most so long, then is dropped.
_SHAPE: Final = ("burst", "128kb", "latency", "50ms")
_MAX_NODES: Final = 200


class Unavailable(Exception):
    """This machine gives no such network; says why."""


class Network:
    """Made with `network`."""

    def __init__(self, name: str, nodes: int) -> None:
        self._name = name
        self.nodes = nodes

    @classmethod
    @contextmanager
    def of(cls, nodes: int, mbit_per_s: int) -> Iterator[Self]:
        """A network of so many nodes for a block.

        Raises:
            Unavailable: it takes root, and programs and a kernel that can.
        """
        if os.geteuid() != 0:
            raise Unavailable("network namespaces take root")
        if lacking := missing(*PROGRAMS):
            raise Unavailable(f"not found on this machine: {', '.join(lacking)}")
        assert nodes <= _MAX_NODES
        with ExitStack() as stack:
            made = cls(f"sled-bench-{os.getpid()}", nodes)
            made._make(stack, mbit_per_s)
            yield made

    def address(self, node: int) -> str:
        return f"10.0.0.{node + 1}"

    @contextmanager
    def inside(self, node: int | None = None) -> Iterator[None]:
        """Put this thread, and what it starts, onto a node; without one, beside all of them."""
        here = os.open(_HERE, os.O_RDONLY)
        try:
            _enter(_NAMESPACES / self._space(node))
            try:
                yield
            finally:
                _set_namespace(here)
        finally:
            os.close(here)

    def _space(self, node: int | None) -> str:
        return f"{self._name}-{'hub' if node is None else node}"

    def _make(self, stack: ExitStack, mbit_per_s: int) -> None:
        for space in map(self._space, (None, *range(self.nodes))):
            _run("ip", "netns", "add", space)
            stack.callback(_delete, space)
        hub = self._space(None)
        _run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", hub, "address", "add", f"10.0.0.{_MAX_NODES + 1}/24", "dev", "bridge")
        _run("ip", "-n", hub, "link", "set", "bridge", "up")
        for node in range(self.nodes):
            self._connect(node, hub, mbit_per_s)

    def _connect(self, node: int, hub: str, mbit_per_s: int) -> None:
        space, port = self._space(node), f"node{node}"
        peer = ("peer", "name", "eth0", "netns", space)
        _run("ip", "-n", hub, "link", "add", port, "type", "veth", *peer)
        _run("ip", "-n", hub, "link", "set", port, "master", "bridge", "up")
        _run("ip", "-n", space, "address", "add", f"{self.address(node)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", space, "link", "set", device, "up")
        for where, device in ((hub, port), (space, "eth0")):
            shape = ("root", "tbf", "rate", f"{mbit_per_s}mbit", *_SHAPE)
            _run("tc", "-n", where, "qdisc", "add", "dev", device, *shape)


def _delete(space: str) -> None:
    with suppress(Unavailable):
        _run("ip", "netns", "delete", space)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")


def _enter(namespace: Path) -> None:
    fd = os.open(namespace, os.O_RDONLY)
    try:
        _set_namespace(fd)
    finally:
        os.close(fd)


def _set_namespace(fd: int) -> None:
    # `os.setns` is of Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
