"""Those who ask: curl, wrk, shell pipelines, and a sender of bodies, the same for every server."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.benchmarks.measure import Sample
from tests.benchmarks.programs import path_of

PATIENCE_S: Final = 120.0
# -q: nobody's .curlrc takes part.
_CURL: Final = ("curl", "-q", "--noproxy", "*", "--silent", "--show-error", "--fail")
# Its own, 2 s, would turn a busy machine into a failure.
WRK_TIMEOUT: Final = "30s"
_WRK_SAYS: Final = re.compile(r"(\d+) requests in ([\d.]+)s,")
_WRK_COMPLAINS: Final = re.compile(r"Socket errors:.*|Non-2xx.*")


def fetch(url: str, size_bytes: int, connections: int) -> float:
    """Fetch `url` whole over each of several connections at once: the seconds of the slowest.

    One curl for each connection, its bytes thrown away; curl's own time, without its start-up.
    """
    curls = [_curl(url, Path(os.devnull)) for _ in range(connections)]
    return max(_curl_seconds(curl, size_bytes) for curl in curls)


def curl_to_file(url: str, target: Path, size_bytes: int) -> float:
    """`curl -o target url`, from its start to its end; what it wrote may still be in memory."""
    began_s = time.perf_counter()
    _curl_seconds(_curl(url, target), size_bytes)
    return time.perf_counter() - began_s


def curl_tee(url: str, files: Sequence[Path], sha256: str) -> float:
    """`curl url | tee files | sha256sum; sync`: what a careful script does, and its time."""
    fetching = shlex.join([*_CURL, url])
    pipe = f"{fetching} | {shlex.join(['tee', *map(str, files)])} | sha256sum; sync"
    began_s = time.perf_counter()
    done = subprocess.run(["sh", "-c", pipe], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began_s
    if done.stdout.split()[0] != sha256:
        raise RuntimeError(f"{pipe}: expected {sha256}, found {done.stdout}{done.stderr}")
    return seconds


def sync_filesystem(file: Path) -> float:
    """`sync -f file`, and its time."""
    began_s = time.perf_counter()
    subprocess.run(["sync", "-f", str(file)], check=True)
    return time.perf_counter() - began_s


def wrk(url: str, connections: int, load_s: int) -> Sample:
    """Ask for the same thing over and over, on one thread: requests answered.

    Raises:
        RuntimeError: not all of them, or not all with success.
    """
    load = ["-t1", f"-c{connections}", f"-d{load_s}s", "--timeout", WRK_TIMEOUT]
    command = [path_of("wrk"), *load, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = _WRK_SAYS.search(said)
    if found is None or _WRK_COMPLAINS.search(said):
        raise RuntimeError(f"{shlex.join(command)}: {said}")
    return Sample(int(found[1]), float(found[2]))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, and when: seconds from the first byte sent to the last received."""

    seconds: float
    content: bytes
    location: str


def send(method: str, url: str, body: Path | None, status: int) -> Answer:
    """Send a request, with sendfile in one call: the sender takes next to nothing of the machine.

    Raises:
        RuntimeError: the answer has another status.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE_S)
    connection.connect()
    began_s = time.perf_counter()
    connection.putrequest(method, f"{parts.path}?{parts.query}" if parts.query else parts.path)
    connection.putheader("Content-Length", str(body.stat().st_size if body else 0))
    connection.endheaders()
    if body is not None:
        with body.open("rb") as file:
            connection.sock.sendfile(file)
    response = connection.getresponse()
    content = response.read()
    seconds = time.perf_counter() - began_s
    connection.close()
    if response.status != status:
        raise RuntimeError(
            f"{method} {url}: expected {status}, found {response.status}: {content!r}"
        )
    return Answer(seconds, content, response.headers.get("Location", ""))


def _curl(url: str, target: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*_CURL, "-w", "%{size_download} %{time_total}", "-o", str(target), url],
        stdout=subprocess.PIPE,
        text=True,
    )


def _curl_seconds(curl: subprocess.Popen[str], size_bytes: int) -> float:
    said, _ = curl.communicate()
    if curl.returncode:
        raise RuntimeError(f"{curl.args!r} ended with {curl.returncode}")
    found_bytes, seconds = said.split()
    if int(found_bytes) != size_bytes:
        raise RuntimeError(f"{curl.args!r}: expected {size_bytes} bytes, found {found_bytes}")
    return float(seconds)
