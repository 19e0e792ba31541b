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
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Final

import pytest

from agent.config.keys import KEYS, Key
from agent.config.loading import load
from agent.config.settings import DEFAULT_SOURCES
from agent.config.toml_lines import key_lines
from agent.config.units import Address, parse_duration, parse_size

ROOT: Final = Path(__file__).parents[2]
PACKAGING: Final = ROOT / "packaging"
EXAMPLE: Final = PACKAGING / "agent.example.toml"
UNIT: Final = PACKAGING / "systemd" / "sled-agent.service"
MAX_EXPOSURE: Final = 2.0
# Keys whose default is none, or is found when the agent starts.
WITHOUT_DEFAULT: Final = {
    "sled_id",
    "state_dir",
    "datasets",
    "agent.advertise_url",
    "depot.advertise_url",
}


def needs(tool: str) -> pytest.MarkDecorator:
    missing = shutil.which(tool) is None
    return pytest.mark.skipif(missing, reason=f"{tool} is not installed (Debian: systemd)")


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


class TestExampleConfiguration:
    # A key without a default stands in a comment; here all of them are read.
    TEXT: Final = re.sub(r'^# (\w+ = ")', r"\1", EXAMPLE.read_text(), flags=re.M)

    def test_it_is_a_valid_configuration(self) -> None:
        load(EXAMPLE, {})

    def test_it_has_every_key_and_no_other(self) -> None:
        names = {
            ".".join(part for part in place if isinstance(part, str))
            for place in key_lines(self.TEXT)
        }
        tables = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
        known = {key.name for key in KEYS if key.name != "datasets"} | {"datasets.path"}
        assert names - tables == known

    @pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
    def test_each_key_is_explained_with_its_default_and_unit(self, key: Key) -> None:
        comment = self.comment_above(key)
        assert re.search(r"Default: |No default\.", comment), comment
        if "_bytes_per_s" in key.name:
            assert "Bytes per second" in comment
        elif key.name.endswith("_s"):
            assert "Seconds" in comment
        elif key.annotation is int and isinstance(self.value(key), str):
            assert "Size" in comment
        elif key.name.endswith("_level"):
            assert "Level" in comment
        elif key.annotation is int:
            assert "Count" in comment
        elif key.annotation is float:
            assert "Duration" in comment

    @pytest.mark.parametrize(
        "key", [key for key in KEYS if key.name not in WITHOUT_DEFAULT], ids=lambda key: key.name
    )
    def test_the_value_that_stands_there_is_the_default(self, key: Key) -> None:
        default = load(EXAMPLE, {})
        value: object = self.value(key)
        assert self.parsed(key, value) == key.default, default
        if isinstance(value, str | int) and not isinstance(value, bool):
            assert f"Default: {json.dumps(value)}" in self.comment_above(key).replace("\n", " ")

    def value(self, key: Key) -> object:
        value: object = tomllib.loads(self.TEXT)
        for part in key.place:
            assert isinstance(value, dict)
            value = value[part]
        return value

    def comment_above(self, key: Key) -> str:
        lines = self.TEXT.splitlines()
        index = key_lines(self.TEXT)[key.place] - 2
        comment: list[str] = []
        while index >= 0 and lines[index].startswith("# "):
            comment.insert(0, lines[index].removeprefix("# "))
            index -= 1
        return "\n".join(comment)

    @staticmethod
    def parsed(key: Key, value: object) -> object:
        if key.name == "copy.allowed_sources":
            assert isinstance(value, list)
            return DEFAULT_SOURCES if value == [str(net) for net in DEFAULT_SOURCES] else value
        if key.name.endswith(".listen"):
            host, _, port = str(value).rpartition(":")
            return Address(host, int(port))
        if isinstance(value, list):
            return tuple(value)
        if isinstance(value, str) and key.annotation is int:
            return parse_size(value)
        if isinstance(value, str) and key.annotation is float:
            return parse_duration(value)
        return value


class TestSystemd:
    @needs("systemd-analyze")
    def test_the_unit_is_hardened(self) -> None:
        done = run("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT)
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
        assert exposure, done.stdout + done.stderr
        assert float(exposure[1]) <= MAX_EXPOSURE

    @needs("systemd-analyze")
    def test_the_unit_and_its_drop_in_are_clean(self, tmp_path: Path) -> None:
        # The installed path does not exist here; an executable that does stands in for it.
        shutil.copytree(UNIT.parent, tmp_path, dirs_exist_ok=True)
        unit = tmp_path / UNIT.name
        unit.write_text(unit.read_text().replace("/opt/sled-depot/bin/sled-agent", "/bin/true"))
        done = run("systemd-analyze", "verify", "--man=no", unit)
        # Other units of this machine may have faults of their own.
        ours = [line for line in done.stderr.splitlines() if "sled-agent" in line]
        assert not ours

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

    def test_the_unit_gives_a_drain_the_time_it_takes(self) -> None:
        stop = re.search(r"^TimeoutStopSec=(\d+)s$", UNIT.read_text(), re.M)
        assert stop
        assert int(stop[1]) > load(EXAMPLE, {}).drain_timeout_s + 45

    @needs("systemd-sysusers")
    def test_the_user_of_the_unit_is_created(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        done = run(
            "systemd-sysusers", f"--root={tmp_path}", PACKAGING / "sysusers.d" / "sled-depot.conf"
        )
        if done.returncode != 0 and os.geteuid() != 0:
            pytest.skip("systemd-sysusers needs root")
        assert done.returncode == 0, done.stderr
        user = re.search(r"^User=(\S+)$", UNIT.read_text(), re.M)
        assert user
        assert (tmp_path / "etc" / "passwd").read_text().startswith(f"{user[1]}:")

    @needs("systemd-tmpfiles")
    def test_mount_points_are_made_once_and_a_mounted_dataset_keeps_its_owner(
        self, tmp_path: Path
    ) -> None:
        if os.geteuid() != 0:
            pytest.skip("another owner needs root")
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


class TestContainerfile:
    TEXT: Final = (PACKAGING / "Containerfile").read_text()
    # Instructions with their continuation lines joined.
    INSTRUCTIONS: Final = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.M))

    def instructions(self, name: str) -> list[str]:
        return re.findall(rf"^{name} (.*)$", self.INSTRUCTIONS, re.M)

    def test_the_base_images_are_named_with_a_version(self) -> None:
        for image in self.instructions("FROM"):
            assert re.match(r"docker\.io/library/python:3\.\d+-slim-\w+( AS build)?$", image)

    def test_the_agent_does_not_run_as_root(self) -> None:
        [user] = self.instructions("USER")
        assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
        final = self.INSTRUCTIONS.rpartition("FROM ")[2]
        assert final.index("USER ") < final.index("ENTRYPOINT ")
        assert "RUN" not in final[final.index("USER ") :]

    def test_dependencies_are_installed_with_hashes_and_the_wheel_without_an_index(self) -> None:
        installs = re.findall(r"pip install ([^&\n]*)", self.INSTRUCTIONS)
        dependencies, wheel = installs
        assert "--require-hashes" in dependencies
        assert "requirements.lock" in dependencies
        assert "--no-index" in wheel
        assert "--no-deps" in wheel

    def test_what_is_copied_from_the_tree_is_there(self) -> None:
        for copy in self.instructions("COPY"):
            *sources, _ = copy.split()
            for source in sources:
                if not source.startswith(("--from", "/", "dist/")):
                    assert (ROOT / source).is_file()

    def test_it_has_a_health_check_and_exec_forms(self) -> None:
        [check] = self.instructions("HEALTHCHECK")
        assert "/health/live" in json.loads(check[check.index("[") :])[2]
        [entry], [command] = self.instructions("ENTRYPOINT"), self.instructions("CMD")
        assert json.loads(entry) == ["sled-agent"]
        assert json.loads(command)[0] == "run"

    def test_a_read_only_root_is_documented_and_nothing_outside_volumes_is_configured(self) -> None:
        assert "--read-only" in self.TEXT
        example = load(EXAMPLE, {})
        for path in (*example.dataset_paths, example.state_dir):
            assert f":{path}" in self.TEXT
            assert re.search(rf"RUN install .*{path}\b", self.INSTRUCTIONS)

    def test_its_environment_is_configuration(self) -> None:
        variables = dict(re.findall(r"(SLED_AGENT__\w+)=(\S+)", self.INSTRUCTIONS))
        assert variables
        load(EXAMPLE, variables)


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
