"""The servers beside which the agent is measured, as Debian ships them, each with one purpose.

All of them listen on loopback, write no log of requests, keep what they store below the directory
they are given, and end with their block.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.benchmarks.programs import path_of

STOP_TIMEOUT_S: Final = 10.0
START_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.02
# One worker, and no limits that a benchmark would run into. Uploads are staged on the same
# filesystem, so that WebDAV gives them their name by a rename.
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
  keepalive_requests 1000000000;
  default_type application/octet-stream;
  client_max_body_size 0;
  client_body_temp_path temp-body;
  proxy_temp_path temp-proxy;
  fastcgi_temp_path temp-fastcgi;
  uwsgi_temp_path temp-uwsgi;
  scgi_temp_path temp-scgi;
  server {{
    listen 127.0.0.1:{port};
    root "{root}";
    {server}
  }}
}}
"""
DAV: Final = "dav_methods PUT;"
REGISTRY_CONF: Final = """\
version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: "{root}" }} }}
http: {{ addr: "127.0.0.1:0", relativeurls: true }}
"""
CADDYFILE: Final = """\
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  root * "{root}"
  file_server
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running one: its base URL and its main process."""

    url: str
    pid: int


@contextmanager
def nginx(home: Path, root: Path, server: str = "") -> Iterator[Server]:
    """nginx serving the directory `root`; `server` is more of its configuration.

    The listening socket is made here and inherited, as in an nginx upgrade: no port can be lost
    between finding and binding it, and it takes connections from the first moment.
    """
    home.mkdir()
    root.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0), backlog=511) as listener:
        port = listener.getsockname()[1]
        config = home / "nginx.conf"
        text = NGINX_CONF.format(user=_user(), port=port, root=root, server=server)
        config.write_text(text)
        command = [path_of("nginx"), "-e", "stderr", "-p", str(home), "-c", str(config)]
        inherited = {"NGINX": f"{listener.fileno()};"}
        process = _start(command, home, inherited, [listener.fileno()])
    with _ending(process):
        yield Server(f"http://127.0.0.1:{port}", process.pid)


@contextmanager
def registry(home: Path) -> Iterator[Server]:
    """docker-registry with its filesystem storage below `home`."""
    home.mkdir()
    config = home / "config.yml"
    config.write_text(REGISTRY_CONF.format(root=home / "storage"))
    process = _start([path_of("docker-registry"), "serve", str(config)], home)
    with _ending(process):
        yield Server(_listening(process, home), process.pid)


@contextmanager
def rclone(home: Path) -> Iterator[Server]:
    """`rclone serve webdav` of `home`/files."""
    files = home / "files"
    files.mkdir(parents=True)
    command = [path_of("rclone"), "serve", "webdav", str(files), "--addr", "127.0.0.1:0"]
    process = _start([*command, "--config", str(home / "rclone.conf")], home)
    with _ending(process):
        yield Server(_listening(process, home), process.pid)


@contextmanager
def caddy(home: Path, root: Path) -> Iterator[Server]:
    """Caddy serving the directory `root`."""
    home.mkdir()
    # It takes port 0 for "none given"; nobody else is given this one within moments.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = home / "Caddyfile"
    config.write_text(CADDYFILE.format(port=port, root=root))
    command = [path_of("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    at_home = {"XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    process = _start(command, home, at_home)
    with _ending(process):
        yield Server(_listening(process, home), process.pid)


@contextmanager
def naive(home: Path) -> Iterator[Server]:
    """`tests.benchmarks.naive` on the directories a and b in `home`."""
    with _on_two("naive", home) as server:
        yield server


@contextmanager
def bare_put(home: Path) -> Iterator[Server]:
    """`tests.benchmarks.bare_put` on the directories a and b in `home`."""
    with _on_two("bare_put", home) as server:
        yield server


@contextmanager
def _on_two(module: str, home: Path) -> Iterator[Server]:
    directories = [home / "a", home / "b"]
    for directory in directories:
        directory.mkdir(parents=True)
    with _ours(module, home, *map(str, directories)) as server:
        yield server


@contextmanager
def bare(home: Path, file: Path, how: str) -> Iterator[Server]:
    """`tests.benchmarks.bare` of a file."""
    home.mkdir()
    with _ours("bare", home, str(file), how) as server:
        yield server


@contextmanager
def _ours(module: str, home: Path, *arguments: str) -> Iterator[Server]:
    process = _start(
        [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
        home,
        {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with _ending(process):
        yield Server(_listening(process, home), process.pid)


def _start(
    command: Sequence[str],
    home: Path,
    environment: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    with _log(home).open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=home,
            env={**os.environ, **(environment or {})},
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listening(process: subprocess.Popen[bytes], home: Path) -> str:
    """The address that a server chose, once it takes connections there."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        for each in psutil.Process(process.pid).net_connections("tcp4"):
            if each.status == psutil.CONN_LISTEN:
                return f"http://127.0.0.1:{each.laddr.port}"
        time.sleep(POLL_S)
    said = _log(home).read_text(errors="replace")
    raise RuntimeError(f"{process.args!r} does not listen: {said[-2000:]}")


def _log(home: Path) -> Path:
    return home / "server.log"


def _user() -> str:
    # nginx's workers give up root, and could then not read what the agent wrote.
    if os.getuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getgid()).gr_name};"
