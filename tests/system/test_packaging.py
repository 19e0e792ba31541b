"""What is shipped beside the code: the example configuration, the units, the image, the wheel."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

from agent.config.loading import load
from coordinator import settings as coordinator
from tests.needs import Need, lack

ROOT: Final = Path(__file__).parents[2]
PACKAGING: Final = ROOT / "packaging"
EXAMPLE: Final = PACKAGING / "agent.example.toml"
UNIT: Final = PACKAGING / "systemd" / "sled-agent.service"
COORDINATOR_UNIT: Final = PACKAGING / "systemd" / "depot-coordinator.service"
UNITS: Final = (UNIT, COORDINATOR_UNIT)
COORDINATOR_EXAMPLE: Final = PACKAGING / "coordinator.example.toml"
MAX_EXPOSURE: Final = 2.0


def needs(tool: str) -> pytest.MarkDecorator:
    missing = shutil.which(tool) is None
    return pytest.mark.skipif(missing, reason=f"{tool} is not installed (Debian: systemd)")


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


class TestSystemd:
    @needs("systemd-analyze")
    @pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
    def test_each_unit_is_hardened(self, unit: Path) -> None:
        done = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
        assert exposure, done.stdout + done.stderr
        assert float(exposure[1]) <= MAX_EXPOSURE

    @needs("systemd-analyze")
    @pytest.mark.parametrize("shipped", UNITS, ids=lambda unit: unit.stem)
    def test_each_unit_and_its_drop_in_are_clean(self, shipped: Path, tmp_path: Path) -> None:
        # The installed path does not exist here; an executable that does stands in for it.
        shutil.copytree(shipped.parent, tmp_path, dirs_exist_ok=True)
        unit = tmp_path / shipped.name
        unit.write_text(re.sub(r"/opt/sled-depot/bin/[\w-]+", "/bin/true", unit.read_text()))
        done = run("systemd-analyze", "verify", "--man=no", unit)
        # Other units of this machine may have faults of their own.
        ours = [line for line in done.stderr.splitlines() if shipped.stem in line]
        assert not ours

    def test_the_coordinator_is_shut_in_as_the_agent_is(self) -> None:
        agent, coordinator = (_hardening(unit) for unit in UNITS)
        # The agent's status reads the machine's memory and load.
        assert coordinator - agent == {"ProcSubset=pid"}
        # And it reads artifacts.
        assert agent - coordinator == {"SystemCallFilter=cachestat"}

    def test_a_dead_dataset_does_not_stop_the_unit(self) -> None:
        text = UNIT.read_text()
        settings = re.sub(r"^#.*$", "", text, flags=re.M)
        assert "RequiresMountsFor" not in settings
        assert "Requires=" not in settings
        assert "BindsTo=" not in settings
        for path in self.example_paths():
            mount = f"{path.removeprefix('/').replace('/', '-')}.mount"
            assert re.search(rf"^Wants=.*\b{mount}\b", settings, re.M)
            assert re.search(rf"^After=.*\b{mount}\b", settings, re.M)
            assert re.search(rf"^ReadWritePaths=.*-{path}\b", settings, re.M)

    @pytest.mark.parametrize(
        ("unit", "drain_timeout_s"),
        [
            (UNIT, load(EXAMPLE, {}).drain_timeout_s),
            (COORDINATOR_UNIT, coordinator.load(COORDINATOR_EXAMPLE, {}).drain_timeout_s),
        ],
        ids=lambda value: value.stem if isinstance(value, Path) else "",
    )
    def test_each_unit_gives_a_drain_the_time_it_takes(
        self, unit: Path, drain_timeout_s: float
    ) -> None:
        stop = re.search(r"^TimeoutStopSec=(\d+)s$", unit.read_text(), re.M)
        assert stop
        assert int(stop[1]) > drain_timeout_s + 45

    def test_what_the_coordinator_keeps_is_in_its_state_directory(self) -> None:
        name = re.search(r"^StateDirectory=(\S+)$", COORDINATOR_UNIT.read_text(), re.M)
        assert name
        made = coordinator.load(COORDINATOR_EXAMPLE, {})
        assert made.staging.path.parent == Path("/var/lib") / name[1]
        assert made.database_url.startswith(f"sqlite+aiosqlite:////var/lib/{name[1]}/")

    @needs("systemd-sysusers")
    @pytest.mark.parametrize(
        ("unit", "conf"),
        [(UNIT, "sled-depot.conf"), (COORDINATOR_UNIT, "depot-coordinator.conf")],
        ids=["sled-agent", "depot-coordinator"],
    )
    def test_the_user_of_each_unit_is_created(self, unit: Path, conf: str, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        done = run("systemd-sysusers", f"--root={tmp_path}", PACKAGING / "sysusers.d" / conf)
        if done.returncode != 0 and os.geteuid() != 0:
            lack(Need.ROOT, "systemd-sysusers needs root")
        assert done.returncode == 0, done.stderr
        user = re.search(r"^User=(\S+)$", unit.read_text(), re.M)
        assert user
        assert (tmp_path / "etc" / "passwd").read_text().startswith(f"{user[1]}:")

    @needs("systemd-tmpfiles")
    def test_the_coordinators_password_is_for_nobody_to_read(self, tmp_path: Path) -> None:
        if os.geteuid() != 0:
            lack(Need.ROOT, "another owner needs root")
        directory = tmp_path / "etc" / "sled-depot"
        directory.mkdir(parents=True)
        (directory / "coordinator.env").touch(mode=0o644)
        confs = sorted((PACKAGING / "tmpfiles.d").glob("*.conf"))

        done = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", *confs)

        assert (done.returncode, done.stderr) == (0, "")
        assert (directory / "coordinator.env").stat().st_mode & 0o777 == 0o600
        assert directory.stat().st_mode & 0o777 == 0o755

    @needs("systemd-tmpfiles")
    def test_mount_points_are_made_once_and_a_mounted_dataset_keeps_its_owner(
        self, tmp_path: Path
    ) -> None:
        if os.geteuid() != 0:
            lack(Need.ROOT, "another owner needs root")
        mounted = tmp_path / "m2" / "a"
        mounted.mkdir(parents=True, mode=0o700)
        os.chown(mounted, 4711, 4711)
        (tmp_path / "etc").mkdir()

        conf = PACKAGING / "tmpfiles.d" / "sled-depot.conf"
        done = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", conf)

        assert done.returncode == 0, done.stderr
        assert (mounted.stat().st_uid, mounted.stat().st_mode & 0o777) == (4711, 0o700)
        made = (tmp_path / "m2" / "b").stat()
        assert (made.st_uid, made.st_mode & 0o777) == (0, 0o755)

    @staticmethod
    def example_paths() -> list[str]:
        return [str(path) for path in load(EXAMPLE, {}).dataset_paths]


def _hardening(unit: Path) -> set[str]:
    """The lines that take something away from a service: the last of its section."""
    lines = unit.read_text().partition("ProtectSystem=")[2].partition("[Install]")[0].splitlines()
    return {line for line in lines[1:] if line and not line.startswith("#")}


@dataclass(frozen=True)
class Image:
    """A container file and the program that is in it."""

    path: Path
    program: str
    lock: str

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def joined(self) -> str:
        """Its instructions, with their continuation lines joined."""
        return re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", self.text, flags=re.M))

    def instructions(self, name: str) -> list[str]:
        return re.findall(rf"^{name} (.*)$", self.joined, re.M)


IMAGES: Final = (
    Image(PACKAGING / "Containerfile", "sled-agent", "requirements.lock"),
    Image(
        PACKAGING / "Containerfile.coordinator",
        "depot-coordinator",
        "requirements.coordinator.lock",
    ),
)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.program)
class TestContainerfile:
    def test_the_base_images_are_named_with_a_version(self, image: Image) -> None:
        for base in image.instructions("FROM"):
            assert re.match(r"docker\.io/library/python:3\.\d+-slim-\w+( AS build)?$", base)

    def test_nothing_runs_as_root(self, image: Image) -> None:
        [user] = image.instructions("USER")
        assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
        final = image.joined.rpartition("FROM ")[2]
        assert final.index("USER ") < final.index("ENTRYPOINT ")
        assert "RUN" not in final[final.index("USER ") :]

    def test_dependencies_are_installed_with_hashes_and_the_wheel_without_an_index(
        self, image: Image
    ) -> None:
        installs = re.findall(r"pip install ([^&\n]*)", image.joined)
        dependencies, wheel = installs
        assert "--require-hashes" in dependencies
        assert f"/{image.lock}" in dependencies
        assert "--no-index" in wheel
        assert "--no-deps" in wheel

    def test_what_is_copied_from_the_tree_is_there(self, image: Image) -> None:
        for copy in image.instructions("COPY"):
            *sources, _ = copy.split()
            for source in sources:
                if not source.startswith(("--from", "/", "dist/")):
                    assert (ROOT / source).is_file()

    def test_it_has_a_health_check_and_exec_forms(self, image: Image) -> None:
        [check] = image.instructions("HEALTHCHECK")
        assert "/health/live" in json.loads(check[check.index("[") :])[2]
        [entry], [command] = image.instructions("ENTRYPOINT"), image.instructions("CMD")
        assert json.loads(entry) == [image.program]
        assert json.loads(command)[0] == "run"

    def test_a_read_only_root_is_documented_and_nothing_outside_volumes_is_configured(
        self, image: Image
    ) -> None:
        assert "--read-only" in image.text
        for path in written(image):
            assert f":{path}" in image.text
            assert re.search(rf"RUN install .*{path}\b", image.joined)

    def test_its_environment_is_configuration(self, image: Image) -> None:
        variables = dict(re.findall(r"((?:SLED_A|DEPOT_C)\w+__\w+)=(\S+)", image.joined))
        assert variables
        if image.program == "sled-agent":
            load(EXAMPLE, variables)
        else:
            coordinator.load(COORDINATOR_EXAMPLE, variables)


def written(image: Image) -> list[Path]:
    """Where the program writes by its example configuration."""
    if image.program == "sled-agent":
        example = load(EXAMPLE, {})
        return [path for path in (*example.dataset_paths, example.state_dir) if path]
    return [coordinator.load(COORDINATOR_EXAMPLE, {}).staging.path.parent]


def test_what_a_coordinator_needs_is_locked_as_it_was_tested() -> None:
    tested, shipped, agents = (
        set(re.findall(r"^[\w.-]+==\S+", path.read_text(), re.M))
        for path in (
            ROOT / "requirements.lock",
            PACKAGING / "requirements.coordinator.lock",
            PACKAGING / "requirements.lock",
        )
    )
    assert agents < shipped < tested


@pytest.mark.long
@pytest.mark.timeout(600)
def test_wheel_and_sdist_install_into_a_clean_environment_and_start(tmp_path: Path) -> None:
    # Without further options the wheel is built from the sdist, so one start proves both.
    built = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel], [sdist] = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    assert sdist.name.removesuffix(".tar.gz") == wheel.name.partition("-py3")[0]
    assert {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()} == {
        "agent",
        "coordinator",
        "depot",
        wheel.name.partition("-py3")[0] + ".dist-info",
    }

    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    pip: list[str | Path] = [
        home / "bin" / "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    lock = PACKAGING / "requirements.lock"
    steps: tuple[list[str | Path], ...] = (
        ["--require-hashes", "-r", lock],
        ["--no-index", "--no-deps", wheel],
    )
    for arguments in steps:
        installed = run(*pip, *arguments, cwd=tmp_path)
        if "NewConnectionError" in installed.stderr:
            pytest.skip(f"no package source can be reached: {installed.stderr[-300:]}")
        assert installed.returncode == 0, installed.stderr
    checked = run(home / "bin" / "pip", "check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout

    (tmp_path / "m2").mkdir()
    (tmp_path / "agent.toml").write_text(
        '[agent]\nlisten = "127.0.0.1:0"\n[depot]\nlisten = "127.0.0.1:0"\n'
        '[[datasets]]\npath = "m2"\n'
    )
    sled_agent = home / "bin" / "sled-agent"
    initialised = run(sled_agent, "init", "--config", "agent.toml", cwd=tmp_path)
    assert initialised.returncode == 0, initialised.stderr
    assert starts_and_stops([str(sled_agent), "run", "--config", "agent.toml"], tmp_path) == 0

    # A node has not got what only a coordinator needs, and is told so.
    coordinator = run(home / "bin" / "depot-coordinator", "run", "--config", "agent.toml")
    assert coordinator.returncode == 2
    assert "sled-depot[coordinator]" in coordinator.stderr


def starts_and_stops(command: list[str], home: Path) -> int:
    """Start an agent, wait for its ready line, end it, and return its exit status."""
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        try:
            ready, _, _ = select.select([agent.stdout], [], [], 60)
            assert ready
            assert agent.stdout.readline().startswith("ready agent=http://127.0.0.1:")
            agent.send_signal(signal.SIGTERM)
            return agent.wait(60)
        finally:
            agent.kill()
