"""The `sled-agent` command as an operator and a service manager meet it: real processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from agent.process import REPEAT_S
from depot.config.ledger import Attestation, Ledger
from depot.config.state_dir import StateDir
from tests.needs import Need, lack
from tests.system.agents import BIN, RunningAgent

CONTENT = b"0123456789" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningAgent]:
    agent = RunningAgent(tmp_path / "node", env={"SLED_AGENT__LOG__FORMAT": "json"})
    yield agent
    agent.close()


def command(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SLED_AGENT")}
    return subprocess.run(
        [BIN / "sled-agent", *arguments],
        cwd=cwd,
        env={**inherited, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ask(url: str, method: str = "GET", body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if data else {}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


class HalfPut:
    """A PUT that has sent half of its body; the agent has begun to store it."""

    def __init__(self, node: RunningAgent) -> None:
        ask(f"{node.agent_url}/artifacts-config", "PUT", {"generation": 1, "artifacts": [SHA256]})
        address = urlsplit(node.agent_url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=60)
        self.socket.sendall(
            f"PUT /artifacts/{SHA256}?generation=1 HTTP/1.1\r\nHost: x\r\n"
            f"Expect: 100-continue\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
        )
        # 100 Continue says that the put was admitted.
        assert self.socket.recv(4096).startswith(b"HTTP/1.1 100 ")
        self.socket.sendall(CONTENT[:5000])

    def finish(self) -> bytes:
        self.socket.sendall(CONTENT[5000:])
        return self.answer()

    def answer(self) -> bytes:
        with self.socket, self.socket.makefile("rb") as answer:
            return answer.readline()


def wait_for_log(node: RunningAgent, event: str) -> None:
    """Follow the agent's log until it says `event`; the test's own timeout ends a hang."""
    seen = threading.Event()
    while event not in node.log():
        assert node.running, node.log_tail()
        seen.wait(0.02)


class TestRun:
    def test_the_ready_line_and_the_ready_file_say_the_same(self, node: RunningAgent) -> None:
        node.prepare()
        node.spawn()
        assert node.process is not None
        assert node.process.stdout is not None

        line = node.process.stdout.readline().decode()
        ready = json.loads(node.ready_path.read_text())

        assert line == "ready agent={agent_url} depot={depot_url} pid={pid}\n".format(**ready)
        assert ready["pid"] == node.pid
        assert ask(f"{ready['agent_url']}/health/ready")[0] == 200
        assert ask(f"{ready['depot_url']}/health/live")[0] == 200

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_with_0(self, node: RunningAgent, number: signal.Signals) -> None:
        node.start()
        assert node.process is not None
        node.send(number)
        assert node.process.wait(60) == 0
        events = [json.loads(line)["event"] for line in node.log().splitlines()]
        assert "stopping" in events
        assert events[-1] == "stopped"

    def test_a_running_put_finishes_and_new_work_is_refused_while_draining(
        self, node: RunningAgent
    ) -> None:
        node.start()
        put = HalfPut(node)
        node.send(signal.SIGTERM)
        wait_for_log(node, '"stopping"')

        status, refusal = ask(f"{node.agent_url}/artifacts")
        depot_status, depot_refusal = ask(f"{node.depot_url}/artifact/sha256/{SHA256}")
        answer = put.finish()

        assert (status, refusal["error_code"]) == (503, "ShuttingDown")
        assert (depot_status, depot_refusal["error_code"]) == (503, "ShuttingDown")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert node.process is not None
        assert node.process.wait(60) == 0
        assert [(home / SHA256).read_bytes() for home in node.datasets] == [CONTENT, CONTENT]

    def test_what_does_not_finish_in_time_is_cut_and_the_exit_is_0(
        self, node: RunningAgent
    ) -> None:
        node.env["SLED_AGENT__DRAIN_TIMEOUT_S"] = "0.2"
        node.start()
        put = HalfPut(node)
        assert node.stop() == 0
        assert not put.answer().startswith(b"HTTP/1.1 200 ")
        assert not [home for home in node.datasets if (home / SHA256).exists()]

    def test_a_second_signal_ends_it_at_once(self, node: RunningAgent) -> None:
        node.start()
        put = HalfPut(node)
        node.send(signal.SIGTERM)
        wait_for_log(node, '"stopping"')
        time.sleep(2 * REPEAT_S)
        assert node.stop() == 128 + signal.SIGTERM
        put.socket.close()

    def test_a_signal_that_is_sent_to_the_process_and_to_its_group_is_one(
        self, node: RunningAgent
    ) -> None:
        node.start()
        put = HalfPut(node)
        node.send(signal.SIGTERM)
        node.send(signal.SIGTERM)
        wait_for_log(node, '"stopping"')
        assert put.finish().startswith(b"HTTP/1.1 200 ")
        assert node.process is not None
        assert node.process.wait(60) == 0

    def test_a_second_agent_on_the_same_datasets_is_refused_and_the_first_lives(
        self, node: RunningAgent
    ) -> None:
        node.start()
        config = ("run", "--config", str(node.config_path))

        same = command(*config, cwd=node.home)
        elsewhere = {"SLED_AGENT__STATE_DIR": str(node.home / "other-state")}
        other_state = command(*config, cwd=node.home, env=elsewhere)

        for refused in (same, other_state):
            assert refused.returncode == 1
            assert refused.stdout == ""
            assert "another agent" in refused.stderr
            assert str(node.datasets[0]) in refused.stderr
            assert f"pid {node.pid}" in refused.stderr
            assert "Traceback" not in refused.stderr
        assert ask(f"{node.agent_url}/health/ready")[0] == 200

    def test_a_dataset_that_another_process_holds_is_out_and_the_other_serves(
        self, node: RunningAgent
    ) -> None:
        node.start()
        ask(f"{node.agent_url}/artifacts-config", "PUT", {"generation": 1, "artifacts": []})
        node.stop()
        with (node.datasets[0] / ".sled-depot" / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            held.write("4711\n")
            held.flush()
            node.start()
            _, status = ask(f"{node.agent_url}/status")
            ready, _ = ask(f"{node.agent_url}/health/ready")

        assert [dataset["state"] for dataset in status["datasets"]] == ["missing", "healthy"]
        assert "4711" in status["datasets"][0]["last_error"]
        assert ready == 200

    @pytest.mark.parametrize("key", ["agent", "depot"])
    def test_a_port_that_is_taken_is_named(self, node: RunningAgent, key: str) -> None:
        node.prepare()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            failed = command(
                "run",
                "--config",
                str(node.config_path),
                cwd=node.home,
                env={f"SLED_AGENT__{key.upper()}__LISTEN": address},
            )
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert failed.stderr.endswith(
            f"sled-agent: cannot listen on {address} ({key}.listen): Address already in use\n"
        )

    def test_datasets_that_were_never_initialised_are_missing_and_it_lives(
        self, node: RunningAgent
    ) -> None:
        node.prepare()
        for path in node.datasets:
            (path / ".sled-depot" / "marker.json").unlink()
        node.start()

        _, status = ask(f"{node.agent_url}/status")
        refused, refusal = ask(f"{node.agent_url}/artifacts-config")

        assert [dataset["state"] for dataset in status["datasets"]] == ["missing", "missing"]
        assert "sled-agent init" in status["datasets"][0]["last_error"]
        assert (refused, refusal["error_code"]) == (503, "NoDataset")

    def test_what_is_out_from_the_start_is_in_the_log_with_the_reason_before_it_is_ready(
        self, node: RunningAgent
    ) -> None:
        node.prepare()
        (node.datasets[0] / ".sled-depot" / "marker.json").unlink()
        node.start()

        entries = [json.loads(line) for line in node.log_path.read_text().splitlines()]
        (out,) = (entry for entry in entries if entry["event"] == "a dataset is out of use")
        assert (out["dataset"], out["state"]) == (str(node.datasets[0]), "missing")
        assert "'sled-agent init'" in out["reason"]

    def test_a_ready_file_that_cannot_be_written_is_named(self, node: RunningAgent) -> None:
        node.prepare()
        ready = node.home / "nowhere" / "ready.json"
        failed = command(
            "run", "--config", str(node.config_path), "--ready-file", str(ready), cwd=node.home
        )
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert f"{ready.parent}" in failed.stderr

    def test_a_stale_ready_file_is_gone_before_the_start(self, node: RunningAgent) -> None:
        node.prepare()
        node.ready_path.write_text("{}")
        failed = command(
            "run",
            "--config",
            str(node.config_path),
            "--ready-file",
            str(node.ready_path),
            cwd=node.home,
            env={"SLED_AGENT__STATE_DIR": "/dev/null/state"},
        )
        assert failed.returncode == 1
        assert "the state directory /dev/null/state cannot be used" in failed.stderr
        assert not node.ready_path.exists()

    def test_it_may_open_as_many_files_as_the_system_allows(self, node: RunningAgent) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        node.start()
        assert resource.prlimit(node.pid, resource.RLIMIT_NOFILE) == (hard, hard)

    def test_the_service_manager_hears_of_readiness_health_and_stopping(
        self, node: RunningAgent, tmp_path: Path
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "notify"))
            manager.settimeout(60)
            node.env["NOTIFY_SOCKET"] = str(tmp_path / "notify")
            node.env["WATCHDOG_USEC"] = "300000"
            node.start()
            heard = [manager.recv(4096) for _ in range(5)]
            assert node.stop() == 0
            manager.setblocking(False)
            while not heard[-1].startswith(b"STOPPING=1"):
                heard.append(manager.recv(4096))

        status = b"STATUS=2 of 2 datasets healthy; no config"
        assert b"READY=1\n" + status in heard
        assert heard.count(b"WATCHDOG=1\n" + status) >= 3

    def test_a_thread_that_never_ends_does_not_keep_the_process(self) -> None:
        script = (
            "import threading\n"
            "from agent.process import leave_within\n"
            "threading.Thread(target=threading.Event().wait).start()\n"
            "leave_within(0.1, 7)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
        assert done.returncode == 7


class TestInit:
    def test_it_is_idempotent(self, node: RunningAgent) -> None:
        node.prepare()
        config = ("init", "--config", str(node.config_path))
        first, second = command(*config, cwd=node.home), command(*config, cwd=node.home)
        assert first.returncode == second.returncode == 0
        assert first.stdout == second.stdout
        assert first.stdout.count("was already dataset") == 2

    def test_what_systems_put_into_a_mount_is_not_foreign(self, tmp_path: Path) -> None:
        (tmp_path / "m2" / "lost+found").mkdir(parents=True)
        done = self.init(tmp_path)
        assert done.returncode == 0
        assert "is now dataset" in done.stdout

    def test_a_directory_with_other_peoples_files_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "m2").mkdir()
        (tmp_path / "m2" / "thesis.tex").write_text("x")
        done = self.init(tmp_path)
        assert done.returncode == 3
        assert done.stderr.startswith("sled-agent: ")
        assert str(tmp_path / "m2") in done.stderr
        assert [path.name for path in (tmp_path / "m2").iterdir()] == ["thesis.tex"]

    def test_a_directory_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        done = self.init(tmp_path)
        assert done.returncode == 3
        assert str(tmp_path / "m2") in done.stderr

    def test_a_marker_that_the_agent_will_not_be_able_to_read_is_pointed_out(
        self, tmp_path: Path
    ) -> None:
        if os.geteuid() != 0:
            lack(Need.ROOT, "only root makes files in others' directories")
        (tmp_path / "m2").mkdir()
        os.chown(tmp_path / "m2", 65534, 65534)
        done = self.init(tmp_path)
        assert done.returncode == 0
        assert "run init as that user" in done.stderr
        os.chown(tmp_path / "m2", 0, 0)
        assert not self.init(tmp_path).stderr

    def test_a_directory_without_its_disk_is_refused_where_mounts_are_required(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "m2").mkdir()
        done = self.init(tmp_path, {"SLED_AGENT__STORAGE__REQUIRE_MOUNTPOINT": "true"})
        assert done.returncode == 3
        assert "is not a mount of its own" in done.stderr
        assert not list((tmp_path / "m2").iterdir())

    def test_force_lets_a_node_with_a_dataset_away_take_its_first_config(
        self, node: RunningAgent
    ) -> None:
        node.prepare()
        away = node.datasets[1].rename(node.home / "away")
        config = {"generation": 1, "artifacts": []}
        node.start()
        before, refusal = ask(f"{node.agent_url}/artifacts-config", "PUT", config)
        node.stop()

        forced = command("init", "--config", str(node.config_path), "--force", cwd=node.home)
        node.start()
        after, _ = ask(f"{node.agent_url}/artifacts-config", "PUT", config)

        assert (before, refusal["error_code"]) == (503, "LedgerUnknown")
        assert forced.returncode == 0
        assert f"{node.datasets[1]}: passed over: " in forced.stdout
        assert after == 204
        assert away.exists()

    def test_force_says_of_a_node_that_was_reset_that_it_takes_a_first_config(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "m2").mkdir()
        (tmp_path / "agent.toml").write_text('state_dir = "state"\n[[datasets]]\npath = "m2"\n')
        state_dir = StateDir.open(tmp_path / "state")
        state_dir.write_witness(Attestation(Ledger(1, None).rank))
        state_dir.close()
        done = command("init", "--config", "agent.toml", "--force", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "remembers a reset" in done.stderr
        assert "generation" not in done.stderr

    @staticmethod
    def init(home: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        (home / "agent.toml").write_text('[[datasets]]\npath = "m2"\n')
        return command("init", "--config", "agent.toml", cwd=home, env=env)


class TestCheckConfig:
    def test_a_right_one_is_fine_and_said_back(self, tmp_path: Path) -> None:
        (tmp_path / "agent.toml").write_text('[[datasets]]\npath = "/m2/a"\n')
        done = command("check-config", "--config", "agent.toml", cwd=tmp_path)
        assert done.returncode == 0
        assert done.stdout.startswith("agent.toml: fine\n")
        assert "/m2/a, 20GiB each" in done.stdout
        assert "/m2/sled-depot-state" in done.stdout

    @pytest.mark.parametrize("verb", ["check-config", "run", "init"])
    def test_every_mistake_is_named_at_once_with_status_2(self, tmp_path: Path, verb: str) -> None:
        (tmp_path / "agent.toml").write_text(
            '[[datasets]]\npath = "/m2/a"\n[storage]\nquota = "20 gigs"\nmin_copys = 1\n'
        )
        done = command(
            verb, "--config", "agent.toml", cwd=tmp_path, env={"SLED_AGENT__LOG__LEVEL": "loud"}
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.splitlines() == [
            'agent.toml:4: storage.quota: expected a size such as "20GiB", found "20 gigs"',
            "agent.toml:5: storage.min_copys: unknown key; did you mean storage.min_copies?",
            "SLED_AGENT__LOG__LEVEL: log.level: expected 'debug', 'info', 'warning' or 'error', "
            'found "loud"',
        ]


class TestStatus:
    def test_a_healthy_agent_is_0(self, node: RunningAgent) -> None:
        node.start()
        done = command("status", "--agent", node.agent_url, cwd=node.home)
        assert done.returncode == 0
        assert str(node.datasets[0]) in done.stdout

    def test_a_dataset_that_is_missing_comes_first_and_is_1(self, node: RunningAgent) -> None:
        node.prepare()
        node.datasets[1].rename(node.home / "away")
        node.start()
        done = command("status", "--agent", node.agent_url, "--json", cwd=node.home)
        people = command("status", "--agent", node.agent_url, cwd=node.home)
        assert done.returncode == people.returncode == 1
        assert json.loads(done.stdout)["datasets"][1]["state"] == "missing"
        assert f"dataset {node.datasets[1]} is missing" in people.stdout.splitlines()[1]

    def test_the_address_can_come_from_the_configuration(self, node: RunningAgent) -> None:
        node.start()
        listen = urlsplit(node.agent_url).netloc
        done = command(
            "status",
            "--config",
            str(node.config_path),
            cwd=node.home,
            env={"SLED_AGENT__AGENT__LISTEN": listen},
        )
        assert done.returncode == 0

    def test_a_port_that_is_only_known_at_run_time_is_asked_for(self, node: RunningAgent) -> None:
        node.prepare()
        done = command("status", "--config", str(node.config_path), cwd=node.home)
        assert done.returncode == 2
        assert "--agent URL" in done.stderr

    def test_nobody_there_is_4(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        done = command("status", "--agent", f"127.0.0.1:{port}", "--json", cwd=tmp_path)
        assert done.returncode == 4
        assert json.loads(done.stdout)["error"]["exit_code"] == 4
        assert done.stderr.startswith("sled-agent: ")


def test_the_help_documents_the_exit_statuses(tmp_path: Path) -> None:
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for status in ("0  fine", "2  usage", "3  refused", "4  no agent answers", "5  the answer"):
        assert status in done.stdout
    _, _, verbs = done.stdout.partition("Commands:")
    assert "..." not in verbs  # Each in one line, whole.
