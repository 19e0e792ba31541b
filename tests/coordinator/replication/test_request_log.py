from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from coordinator.replication.request_log import COPY, PUT, STAGING, Request, RequestLog
from coordinator.values import MAX_HISTORY, RequestRecord, Sled
from depot.artifact import ArtifactHash, Generation

X = ArtifactHash.of(b"x")
SLED = Sled(id="sled-a", agent_url="http://a", depot_url="http://b")
REQUEST = Request(SLED, PUT, Generation(7), X, STAGING)


def test_each_request_is_counted_kept_and_logged(logged: list[MutableMapping[str, Any]]) -> None:
    log = RequestLog(lambda: 12.5)
    log.ended(REQUEST)
    log.ended(REQUEST, "no room")
    log.ended(Request(SLED, COPY, Generation(7), X, "sled-b"), "busy", put_off=True)
    log.deferred(2)

    assert log.run == {"put_ok": 1, "put_error": 1, "deferred": 3}
    records, counts = log.take()
    assert counts == log.run
    assert records[1] == RequestRecord(
        12.5, "sled-a", "put", Generation(7), X, "staging", "no room"
    )
    assert [(entry["log_level"], entry["operation"], entry["error"]) for entry in logged] == [
        ("info", "put", None),
        ("info", "put", "no room"),
        ("info", "copy", "busy"),
    ]


def test_what_could_not_be_written_down_is_handed_over_again() -> None:
    log = RequestLog()
    log.ended(REQUEST)
    taken = log.take()
    log.ended(REQUEST, "no room")
    log.put_back(*taken)
    records, counts = log.take()

    assert [record.error for record in records] == [None, "no room"]
    assert counts == {"put_ok": 1, "put_error": 1}
    assert log.take() == ((), {})


def test_no_more_is_kept_for_the_ring_than_it_holds_and_all_of_it_is_counted() -> None:
    log = RequestLog()
    for _ in range(MAX_HISTORY + 10):
        log.ended(REQUEST)
    log.put_back(*log.take())
    records, counts = log.take()

    assert (len(records), counts) == (MAX_HISTORY, {"put_ok": MAX_HISTORY + 10})


def test_a_run_counts_from_zero() -> None:
    log = RequestLog()
    log.ended(REQUEST)
    log.begin_run()
    assert log.run == {}
    assert log.take()[1] == {"put_ok": 1}
