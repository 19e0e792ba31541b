"""A guided tour on a throw-away fleet: `make demo`.

Three agents on loopback ports in a temporary directory. A release is put on the first and copied to
the other two with the `depot` command, each command line printed as a user would type it. Then
every copy on every dataset is checked with `sha256sum`, which knows nothing of this project.

Ends with 0 and a line of figures, or with 1 and the end of the agents' logs. Nothing outside the
temporary directory is written; `--keep` leaves the agents running there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
RELEASE: Final = REPOSITORY.parent / "shared" / "data" / "release-v1-sample.zip"
# A member that is a target: its hash, and a name that can only be a plain file's.
TARGET: Final = re.compile(
    r"repo/targets/(?P<sha256>[0-9a-f]{64})\.(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,200})"
)
BIN: Final = Path(sys.executable).parent
NAMES: Final = ("alpha", "beta", "gamma")
MODULE_COUNT: Final = 15
# A zip may say one size and unpack to another.
MAX_MEMBER_BYTES: Final = 1 << 30
TIMEOUT_S: Final = 60
SHORT: Final = 12
LOG_LINES: Final = 20


class DemoFailed(Exception):
    """Something did not go as it should; the message says what."""


@dataclass(slots=True)
class Node:
    """One agent and its directory."""

    name: str
    home: Path
    process: subprocess.Popen[bytes] | None = None
    agent_url: str = ""
    depot_url: str = ""

    @property
    def datasets(self) -> tuple[Path, Path]:
        """The two dataset directories."""
        return self.home / "m2-a", self.home / "m2-b"

    @property
    def log(self) -> Path:
        """Where the agent's stderr goes."""
        return self.home / "agent.log"


def main() -> int:
    """Run the tour; the exit status says whether all of it went well."""
    keep = _arguments().keep
    # The agents have sessions of their own, so a tour that is told to end has to end them too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started_s = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="sled-demo-"))
    nodes = [Node(name, home / name) for name in NAMES]
    kept = False
    try:
        files = _tour(nodes, home)
        if not keep:
            _stop_all(nodes)
        _tell_success(files, time.monotonic() - started_s)
        kept = keep
    except (DemoFailed, OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        _tell_failure(nodes, error)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    finally:
        if kept:
            _tell_kept(nodes, home)
        else:
            _kill_all(nodes)
            shutil.rmtree(home, ignore_errors=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.py", description="A tour on a throw-away fleet.")
    parser.add_argument("--keep", action="store_true", help="leave the agents running")
    return parser.parse_args()


def _tour(nodes: Sequence[Node], work: Path) -> list[Path]:
    """Do everything; returns the files that were distributed."""
    release = work / "release"
    _heading("A release to distribute")
    files = _release(release)
    hashes = _sha256sum(files)
    print(f"{len(files)} files, {_size(files):,} bytes")

    _heading("Three sleds, two datasets each")
    for node in nodes:
        _start(node)
        print(f"{node.name:<6} agent {node.agent_url}  depot {node.depot_url}", flush=True)

    first, *others = nodes
    _heading(f"Put the release on {first.name}, as its first config")
    _depot(work, "--agent", first.agent_url, "put", "--add", f"{release.name}/*")
    _depot(work, "--agent", first.agent_url, "config", "get", "--json", into="config.json")
    for node in others:
        _heading(f"Give {node.name} the same config, and have it fetch from {first.name}")
        agent = ("--agent", node.agent_url)
        _depot(work, *agent, "config", "set", "config.json")
        short = [sha256[:SHORT] for sha256 in hashes]
        _depot(work, *agent, "copy", "--from", first.depot_url, *short)

    _heading("Check every copy on every dataset with sha256sum")
    _check(nodes, hashes, _size(files))
    return files


# ---- the release


def _release(directory: Path) -> list[Path]:
    """Write the files to distribute into `directory`: those of the sample, else Python's own."""
    directory.mkdir(parents=True)
    files = _from_zip(RELEASE, directory) if RELEASE.is_file() else _from_python(directory)
    if not files:
        raise DemoFailed("there is nothing to distribute")
    return sorted(files)


def _from_zip(archive: Path, directory: Path) -> list[Path]:
    """Read the targets of a release; where a member lands is decided here, not by its name."""
    print(f"the targets of {archive.name}")
    with zipfile.ZipFile(archive) as release:
        members = [item for item in release.infolist() if TARGET.fullmatch(item.filename)]
        return [_unpack(release, member, directory) for member in members]


def _unpack(release: zipfile.ZipFile, member: zipfile.ZipInfo, directory: Path) -> Path:
    match = TARGET.fullmatch(member.filename)
    assert match is not None
    path = directory / match["name"]
    digest, left_bytes = hashlib.sha256(), MAX_MEMBER_BYTES
    with release.open(member) as source, path.open("xb") as target:
        while block := source.read(min(1 << 20, left_bytes + 1)):
            left_bytes -= len(block)
            if left_bytes < 0:
                raise DemoFailed(f"{member.filename} is larger than {MAX_MEMBER_BYTES} bytes")
            digest.update(block)
            target.write(block)
    if digest.hexdigest() != match["sha256"]:
        raise DemoFailed(f"{member.filename} hashes to {digest.hexdigest()}")
    return path


def _from_python(directory: Path) -> list[Path]:
    """Copy the largest modules of the standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    modules = sorted(library.glob("*.py"), key=lambda path: path.stat().st_size)[-MODULE_COUNT:]
    print(f"the {MODULE_COUNT} largest modules of {library}")
    return [Path(shutil.copyfile(module, directory / module.name)) for module in modules]


def _size(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _sha256sum(files: Sequence[Path]) -> list[str]:
    done = subprocess.run(
        ["sha256sum", "--", *files], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    return [line[:64] for line in done.stdout.splitlines()]


# ---- the agents


def _start(node: Node) -> None:
    """Prepare a sled's directory, start its agent and wait until it is ready."""
    for dataset in node.datasets:
        dataset.mkdir(parents=True)
    config, ready = node.home / "agent.toml", node.home / "ready.json"
    config.write_text(_config(node))
    _run(["sled-agent", "init", "--config", str(config)], stdout=subprocess.DEVNULL)
    with node.log.open("wb") as log:
        node.process = subprocess.Popen(
            [BIN / "sled-agent", "run", "--config", config, "--ready-file", ready],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            # Ctrl-C is for the tour, which then ends its agents.
            start_new_session=True,
        )
    _await_line(node)
    if not ready.exists():
        raise DemoFailed(f"the agent of {node.name} did not become ready")
    addresses = json.loads(ready.read_text())
    node.agent_url, node.depot_url = addresses["agent_url"], addresses["depot_url"]


def _config(node: Node) -> str:
    datasets = "".join(f"[[datasets]]\npath = {json.dumps(str(path))}\n" for path in node.datasets)
    return (
        f"state_dir = {json.dumps(str(node.home / 'state'))}\n"
        '[agent]\nlisten = "127.0.0.1:0"\n[depot]\nlisten = "127.0.0.1:0"\n'
        f'{datasets}[storage]\nquota = "1GiB"\n'
    )


def _await_line(node: Node) -> None:
    """Wait for the ready line, or for the end of an agent that failed."""
    assert node.process is not None
    assert node.process.stdout is not None
    if not select.select([node.process.stdout], [], [], TIMEOUT_S)[0]:
        raise DemoFailed(f"the agent of {node.name} was not ready within {TIMEOUT_S} s")
    node.process.stdout.readline()


def _stop_all(nodes: Sequence[Node]) -> None:
    """Stop the agents as an operator would; each has to end well."""
    for node in nodes:
        if node.process is not None:
            node.process.terminate()
    for node in nodes:
        if node.process is not None and (status := node.process.wait(TIMEOUT_S)) != 0:
            raise DemoFailed(f"the agent of {node.name} ended with {status} after SIGTERM")


def _kill_all(nodes: Sequence[Node]) -> None:
    for node in nodes:
        if node.process is not None and node.process.poll() is None:
            node.process.kill()
            node.process.wait()


# ---- what a user types


def _depot(directory: Path, *arguments: str, into: str | None = None) -> None:
    """Run `depot` in `directory` and show the command line; its output is the user's to see."""
    redirected = f" > {into}" if into else ""
    print(f"$ depot {' '.join(map(_typed, arguments))}{redirected}", flush=True)
    expanded = [name for argument in arguments for name in _expanded(directory, argument)]
    with contextlib.ExitStack() as stack:
        stdout = stack.enter_context((directory / into).open("wb")) if into else None
        _run(["depot", *expanded], directory, stdout)


def _typed(argument: str) -> str:
    return argument if "*" in argument else shlex.quote(argument)


def _expanded(directory: Path, argument: str) -> list[str]:
    """What a shell makes of a pattern."""
    if "*" not in argument:
        return [argument]
    return sorted(str(path.relative_to(directory)) for path in directory.glob(argument))


def _run(
    command: list[str], directory: Path | None = None, stdout: BinaryIO | int | None = None
) -> None:
    program, *arguments = command
    done = subprocess.run([BIN / program, *arguments], cwd=directory, stdout=stdout, check=False)
    if done.returncode != 0:
        raise DemoFailed(f"`{program} {arguments[0]} …` ended with {done.returncode}")


# ---- the check


def _check(nodes: Sequence[Node], hashes: Sequence[str], size_bytes: int) -> None:
    print(f"{'SLED':<8}{'DATASET':<10}{'FILES':>5}{'BYTES':>12}  SHA256SUM")
    for node in nodes:
        for dataset in node.datasets:
            held = [dataset / sha256 for sha256 in hashes]
            verdict = _sha256sum_check(dataset, hashes)
            found_bytes = _size([path for path in held if path.exists()])
            row = f"{node.name:<8}{dataset.name:<10}{len(held):>5}{found_bytes:>12,}"
            print(f"{row}  {verdict}", flush=True)
            if verdict != "OK" or found_bytes != size_bytes:
                raise DemoFailed(f"{node.name}: {dataset.name} does not hold the release")


def _sha256sum_check(dataset: Path, hashes: Sequence[str]) -> str:
    """Let sha256sum judge the files; `OK`, or what it complains about."""
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "-"],
        input="".join(f"{sha256}  {sha256}\n" for sha256 in hashes),
        cwd=dataset,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    return "OK" if done.returncode == 0 else " ".join((done.stdout + done.stderr).split())


# ---- what the tour says


def _heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _tell_success(files: Sequence[Path], elapsed_s: float) -> None:
    copies = len(NAMES) * 2 * len(files)
    print(
        f"\nOK: {len(files)} files, {_size(files):,} bytes on {len(NAMES)} sleds, "
        f"{copies} copies verified, {elapsed_s:.1f} seconds"
    )


def _tell_kept(nodes: Sequence[Node], home: Path) -> None:
    print(f"\nThe agents go on running; everything is in {home}. Try:")
    for node in nodes:
        print(f"  depot --agent {node.agent_url} --depot {node.depot_url} status")
    pids = " ".join(str(node.process.pid) for node in nodes if node.process)
    print(f"and at the end:\n  kill {pids}; rm -r {home}")


def _tell_failure(nodes: Sequence[Node], error: Exception) -> None:
    sys.stdout.flush()
    for node in nodes:
        if node.log.exists():
            lines = node.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            print(f"\n-- the end of {node.name}'s log", *lines, sep="\n", file=sys.stderr)
    print(f"\ndemo: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
