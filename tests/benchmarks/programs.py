"""The programs beside which the agent is measured, found on this machine or reported as missing."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import Sample

STOP_TIMEOUT_S: Final = 10.0
# nginx as Debian ships it, but one worker, no log, and nothing outside the benchmark's directory.
NGINX_CONF: Final = """\
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  default_type application/octet-stream;
  client_body_temp_path temp-body;
  proxy_temp_path temp-proxy;
  fastcgi_temp_path temp-fastcgi;
  uwsgi_temp_path temp-uwsgi;
  scgi_temp_path temp-scgi;
  server {{
    listen 127.0.0.1:{port};
    root "{root}";
  }}
}}
"""


def find(program: str) -> str | None:
    """The program's path; Debian keeps servers where a user's PATH may not lead."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def missing(*names: str) -> list[str]:
    """Those of some programs that are not there."""
    return [name for name in names if find(name) is None]


def version_of(program: str, option: str = "--version") -> str:
    """The first line of what it says about itself; empty when it is not there."""
    if (path := find(program)) is None:
        return ""
    done = subprocess.run([path, option], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).partition("\n")[0].strip()


@contextmanager
def nginx(home: Path, root: Path) -> Iterator[tuple[str, int]]:
    """nginx serving the directory `root`: its address and process id.

    The listening socket is made here and inherited, as in an nginx upgrade: no port can be lost
    between finding and binding it, and it takes connections from the first moment.
    """
    program = find("nginx")
    assert program is not None
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0), backlog=511) as listener:
        port = listener.getsockname()[1]
        config = home / "nginx.conf"
        config.write_text(NGINX_CONF.format(user=_user(), port=port, root=root))
        with (home / "nginx.log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-e", "stderr", "-p", str(home), "-c", str(config)],
                env={**os.environ, "NGINX": f"{listener.fileno()};"},
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def _user() -> str:
    # Its workers give up root, and could then not read what the agent wrote.
    if os.getuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getgid()).gr_name};"


def fetch(url: str, size_bytes: int, connections: int) -> float:
    """Fetch `url` whole over each of several connections at once: the seconds of the slowest.

    One curl for each connection, its bytes thrown away; curl's own time, without its start-up.
    """
    curls = [_curl(url, Path(os.devnull)) for _ in range(connections)]
    return max(_curl_seconds(curl, size_bytes) for curl in curls)


def curl_to_file(url: str, target: Path, size_bytes: int) -> Sample:
    """`curl -o target url`, from its start to its end; what it wrote may still be in memory."""
    began_s = time.perf_counter()
    _curl_seconds(_curl(url, target), size_bytes)
    return Sample(size_bytes, time.perf_counter() - began_s)


def sha256sum(path: Path) -> str:
    """What `sha256sum` says of a file."""
    done = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def _curl(url: str, target: Path) -> subprocess.Popen[str]:
    # -q: nobody's .curlrc takes part.
    options = ["-q", "--noproxy", "*", "--silent", "--show-error", "--fail"]
    return subprocess.Popen(
        ["curl", *options, "-w", "%{size_download} %{time_total}", "-o", str(target), url],
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
