"""SIGTERM while requests run (S3): no new work, the running ones end well, and the exit is 0.

That a put alone finishes, is cut at the drain timeout, and that a second signal ends at once, is in
`test_sled_agent_cli`. Here several requests run on both servers.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from agent.process import REPEAT_S
from tests import ondisk
from tests.system.agents import RunningAgent
from tests.system.asking import TIMEOUT_S, Answer, ask, put, put_config, read_answer

MIB: Final = 1 << 20
HELD: Final = b"served" * (16 * MIB // 6)
SENT: Final = b"put while draining" * 500
HELD_NAME, SENT_NAME = ondisk.sha256(HELD), ondisk.sha256(SENT)
GET_PATH: Final = f"/artifact/sha256/{HELD_NAME}"
DRAIN_TIMEOUT_S: Final = 2


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningAgent]:
    agent = RunningAgent(tmp_path / "node", env={"SLED_AGENT__LOG__FORMAT": "json"})
    yield agent
    agent.close()


class SlowPut:
    """A put that was admitted and has sent half of its body."""

    def __init__(self, node: RunningAgent) -> None:
        self.connection = _connect(node.agent_url)
        self.connection.putrequest("PUT", f"/artifacts/{SENT_NAME}?generation=1")
        self.connection.putheader("Content-Length", str(len(SENT)))
        self.connection.putheader("Expect", "100-continue")
        self.connection.endheaders()
        assert self.connection.sock.recv(12, socket.MSG_PEEK).startswith(b"HTTP/1.1 100")
        self.connection.send(SENT[: len(SENT) // 2])

    def finish(self) -> Answer:
        with closing(self):
            self.connection.send(SENT[len(SENT) // 2 :])
            return read_answer(self.connection)

    def close(self) -> None:
        self.connection.close()


class SlowGet:
    """A get whose head was read and whose body is not, so that the server cannot finish it."""

    def __init__(self, node: RunningAgent) -> None:
        self.connection = _connect(node.depot_url)
        self.connection.request("GET", GET_PATH)
        self.response = self.connection.getresponse()

    def finish(self) -> bytes:
        with closing(self):
            return self.response.read()

    def close(self) -> None:
        self.response.close()
        self.connection.close()


def _connect(url: str) -> http.client.HTTPConnection:
    """Connect with a small window, so that what is not read stays with the server."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.sock.settimeout(TIMEOUT_S)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    connection.sock.connect((address.hostname, address.port))
    return connection


def _start(node: RunningAgent) -> None:
    node.start()
    assert put_config(node, 1, HELD_NAME, SENT_NAME).status == 204
    assert put(node, HELD_NAME, 1, HELD).status == 200


def _begin_drain(node: RunningAgent) -> None:
    """Send SIGTERM and return when the agent has taken notice."""
    node.send(signal.SIGTERM)
    seen = threading.Event()
    while '"stopping"' not in node.log():
        assert node.running, node.log_tail()
        seen.wait(0.02)


def _assert_shutting_down(answer: Answer) -> None:
    assert (answer.status, answer.error_code) == (503, "ShuttingDown")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["x-request-id"] == answer.body["request_id"]


def _assert_new_work_is_refused(node: RunningAgent) -> None:
    _assert_shutting_down(ask(node.agent_url, "/status"))
    _assert_shutting_down(put(node, HELD_NAME, 1, HELD))
    _assert_shutting_down(put_config(node, 2))
    _assert_shutting_down(ask(node.depot_url, GET_PATH))


def _exit_status(node: RunningAgent) -> int:
    assert node.process is not None
    return node.process.wait(TIMEOUT_S)


def test_both_servers_refuse_new_work_until_the_last_request_of_either_has_ended(
    node: RunningAgent,
) -> None:
    _start(node)
    slow_put, slow_get = SlowPut(node), SlowGet(node)
    _begin_drain(node)

    _assert_new_work_is_refused(node)
    answer = slow_put.finish()
    _assert_new_work_is_refused(node)  # the get still runs, on the other server
    served = slow_get.finish()

    assert (answer.status, answer.body) == (200, {"datasets": 2, "successful_writes": 2})
    assert served == HELD
    assert _exit_status(node) == 0
    assert json.loads(node.log().splitlines()[-1])["event"] == "stopped"
    for dataset in node.datasets:
        assert set(ondisk.artifact_files(dataset)) == {HELD_NAME, SENT_NAME}
        assert ondisk.wrong_bytes(dataset) == []


def test_a_reader_that_never_finishes_is_cut_short_and_the_exit_is_0(node: RunningAgent) -> None:
    node.env["SLED_AGENT__DRAIN_TIMEOUT_S"] = str(DRAIN_TIMEOUT_S)
    _start(node)
    slow_get = SlowGet(node)
    begun_s = time.monotonic()
    _begin_drain(node)

    assert _exit_status(node) == 0
    # Neither sooner nor never; how long closing takes beyond it has no bound in the contract.
    assert time.monotonic() - begun_s >= DRAIN_TIMEOUT_S
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        slow_get.finish()


def test_a_connection_without_a_request_does_not_delay_the_exit(node: RunningAgent) -> None:
    node.env["SLED_AGENT__DRAIN_TIMEOUT_S"] = "3600"
    _start(node)
    idle, half = _connect(node.agent_url), _connect(node.depot_url)
    half.sock.sendall(b"GET /artifact/sha256/")
    assert node.stop() == 0
    idle.close()
    half.close()


def test_a_second_signal_ends_a_drain_at_once_and_nothing_acknowledged_is_lost(
    node: RunningAgent,
) -> None:
    node.env["SLED_AGENT__DRAIN_TIMEOUT_S"] = "3600"
    _start(node)
    slow_put, slow_get = SlowPut(node), SlowGet(node)
    _begin_drain(node)
    time.sleep(2 * REPEAT_S)

    assert node.stop() == 128 + signal.SIGTERM
    slow_put.close()
    slow_get.close()
    node.start()

    assert ask(node.agent_url, "/artifacts").body == {"generation": 1, "list": {HELD_NAME: 2}}
    for dataset in node.datasets:
        assert set(ondisk.artifact_files(dataset)) == {HELD_NAME}
        assert ondisk.wrong_bytes(dataset) == []
        assert ondisk.staged_files(dataset) == []
