"""A scripted node for tests of the `depot` command: both servers, real HTTP, in a thread.

The command runs its own event loop in the test's thread, so the node needs another. A test scripts
it through plain attributes and reads what it was asked from `requests`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from depot.artifact import ArtifactHash
from depot.errors import ArtifactInUse, ConfigGeneration, DepotError, NoConfig, NotFound

START_TIMEOUT_S: Final = 30
TIME: Final = "2026-11-21T02:40:11Z"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeNode:
    """One sled: `agent_url` and `depot_url` are two servers in front of the same attributes.

    Attributes:
        config: generation and hashes, or None.
        held: what the sled has.
        damaged: of what is not held, what has damaged copies, two of each.
        script: answers to give instead, by `METHOD /path`, first in first out: (status, document).
        before: called with each request, in the node's thread, before it is answered.
        breaks_off: requests, by `METHOD /path`, on which the connection ends without an answer.
        cut_after: the depot breaks off after so many bytes, once.
        stall_after: the depot falls silent after so many bytes, once.
        garbage: the depot sends these bytes whatever was asked.
        deaf: the agent reads nothing of a body.
        copies: what GET /copies answers, one list per call; the last one stays.
        datasets: what GET /datasets answers; of a put, those that are healthy count.
        max_copies: running copies beyond these are refused with 429.
        events: pages for GET /events, one per call; then the server goes away.
    """

    def __init__(self) -> None:
        self.config: tuple[int, list[str]] | None = None
        self.held: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self.pins: dict[str, list[str]] = {}
        self.script: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self.breaks_off: set[str] = set()
        self.before: Callable[[str], None] = lambda _: None
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        self.garbage: bytes | None = None
        self.deaf = False
        self.copies: list[list[dict[str, Any]]] = []
        self.max_copies = 8
        self.started: list[tuple[str, list[str]]] = []
        self.events: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}
        self.datasets: list[dict[str, Any]] = []
        self.requests: Counter[str] = Counter()
        self.ranges: list[str | None] = []
        self.agent_url = self.depot_url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def hold(self, content: bytes) -> str:
        """Put `content` on the sled, outside of any request; its hash."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.held[sha256] = content
        return sha256

    def refuse(self, request: str, status: int, code: str, message: str = "no") -> None:
        """Answer the next `METHOD /path` with an error."""
        document = {"request_id": "r-1", "error_code": code, "message": message}
        self.script.setdefault(request, []).append((status, document))

    @property
    def options(self) -> list[str]:
        """The options that point the command here."""
        return ["--agent", self.agent_url, "--depot", self.depot_url]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_TIMEOUT_S), "the fake node did not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        runners = self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        for runner in runners:
            self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _start(self) -> list[web.AppRunner]:
        agent, depot = web.Application(client_max_size=64 << 20), web.Application()
        agent.add_routes(
            [
                self._route("GET", "/artifacts-config", self._get_config),
                self._route("PUT", "/artifacts-config", self._put_config),
                self._route("GET", "/artifacts", self._list),
                self._route("GET", "/artifacts/{sha256}", self._describe),
                web.put(
                    "/artifacts/{sha256}", self._scripted(self._put), expect_handler=self._expect
                ),
                self._route("POST", "/artifacts/{sha256}/copy-from-depot", self._copy),
                self._route("GET", "/copies", self._copies),
                self._route("GET", "/pins", self._pins),
                self._route("PUT", "/pins/{name}", self._put_pin),
                self._route("DELETE", "/pins/{name}", self._delete_pin),
                self._route("GET", "/events", self._events),
                self._route("GET", "/status", self._status),
                self._route("GET", "/datasets", self._get_datasets),
                self._route("*", "/{path:.*}", self._unknown),  # what only a script answers
            ]
        )
        depot.add_routes([self._route("GET", "/artifact/sha256/{sha256}", self._get)])
        self.agent_url, agent_runner = await _listen(agent)
        self.depot_url, depot_runner = await _listen(depot)
        return [agent_runner, depot_runner]

    def _route(self, method: str, path: str, handler: Handler) -> web.RouteDef:
        return web.route(method, path, self._scripted(handler))

    def _scripted(self, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            name = f"{request.method} {request.path}"
            self.requests[name] += 1
            self.before(name)
            if name in self.breaks_off and request.transport is not None:
                request.transport.abort()
            if self.script.get(name):
                status, document = self.script[name].pop(0)
                return web.json_response(document, status=status)
            return await handler(request)

        return answer

    async def _expect(self, request: web.Request) -> None:
        """100 Continue only for a body that is wanted."""
        wanted = request.match_info["sha256"] not in self.held
        if wanted and not self.script.get(f"{request.method} {request.path}"):
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _get_config(self, _: web.Request) -> web.StreamResponse:
        if self.config is None:
            return _refusal(404, NoConfig())
        generation, artifacts = self.config
        return web.json_response({"generation": generation, "artifacts": sorted(artifacts)})

    async def _put_config(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.config and body["generation"] < self.config[0]:
            document = {"request_id": "r-1", "error_code": ConfigGeneration.code, "message": "old"}
            return web.json_response(document, status=409)
        pinned = {each for pin in self.pins.values() for each in pin}
        wanted = set(self.config[1]) if self.config else set()
        if dropped := (wanted & pinned).difference(body["artifacts"]):
            return _refusal(
                400, ArtifactInUse([ArtifactHash.parse(each) for each in sorted(dropped)])
            )
        self.config = (body["generation"], body["artifacts"])
        return web.Response(status=204)

    async def _list(self, _: web.Request) -> web.StreamResponse:
        if self.config is None:
            return _refusal(400, NoConfig())
        held = {sha256: 2 for sha256 in self.config[1] if sha256 in self.held}
        return web.json_response({"generation": self.config[0], "list": held})

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        copy = {
            "dataset": "/m2/a",
            "present": sha256 in self.held,
            "verified_at": TIME if sha256 in self.held else None,
            "size_bytes": len(self.held[sha256]) if sha256 in self.held else None,
            "path": f"/m2/a/{sha256}" if sha256 in self.held else None,
            "damaged": sha256 in self.damaged,
        }
        return web.json_response({"sha256": sha256, "copies": [copy]})

    async def _put(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        if self.deaf:
            await asyncio.Event().wait()  # Until the client goes away.
        if sha256 not in self.held:
            self.held[sha256] = await request.read()
        healthy = sum(dataset["state"] == "healthy" for dataset in self.datasets) or 2
        return web.json_response({"datasets": healthy, "successful_writes": healthy})

    async def _copy(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        if len(self.started) >= self.max_copies:
            document = {"request_id": "r-1", "error_code": "TooManyCopies", "message": "full"}
            return web.json_response(document, status=429, headers={"Retry-After": "1"})
        body = await request.json()
        self.started.append((sha256, [body["depot_base_url"], *body.get("depot_base_urls", [])]))
        return web.json_response({"copy_id": f"copy-{sha256[:8]}"}, status=202)

    async def _copies(self, _: web.Request) -> web.StreamResponse:
        found = self.copies[0] if self.copies else []
        if len(self.copies) > 1:
            self.copies.pop(0)
        return web.json_response({"copies": found})

    async def _pins(self, _: web.Request) -> web.StreamResponse:
        pins = {name: {"artifacts": held} for name, held in self.pins.items()}
        return web.json_response({"pins": pins})

    async def _put_pin(self, request: web.Request) -> web.StreamResponse:
        self.pins[request.match_info["name"]] = (await request.json())["artifacts"]
        return web.Response(status=204)

    async def _delete_pin(self, request: web.Request) -> web.StreamResponse:
        if self.pins.pop(request.match_info["name"], None) is None:
            document = {"request_id": "r-1", "error_code": "NotFound", "message": "no such pin"}
            return web.json_response(document, status=404)
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if not self.events:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(self.events.pop(0))

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.status)

    async def _get_datasets(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"datasets": self.datasets})

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        return _refusal(404, NotFound(f"no such path: {request.path}"))

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """A depot that knows single ranges, which is all a client asks for."""
        sha256 = request.match_info["sha256"]
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if sha256 not in self.held:
            document = {"request_id": "r-1", "error_code": "NotFound", "message": "not here"}
            details = {"details": {"damaged": 2}} if sha256 in self.damaged else {}
            return web.json_response({**document, **details}, status=404)
        content = self.held[sha256] if self.garbage is None else self.garbage
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(content) - start
        response.headers["ETag"] = f'"sha256:{sha256}"'
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        await response.prepare(request)
        if self.cut_after is not None:
            await response.write(content[start : start + self.cut_after])
            self.cut_after = None
            assert request.transport is not None
            request.transport.close()
            return response
        if self.stall_after is not None:
            await response.write(content[start : start + self.stall_after])
            self.stall_after = None
            await asyncio.Event().wait()  # Until the client goes away.
        await response.write(content[start:])
        return response


def copy_document(
    sha256: str, state: str, done: int, total: int | None, **more: Any
) -> dict[str, Any]:
    """One entry of GET /copies."""
    return {
        "copy_id": f"copy-{sha256[:8]}",
        "sha256": sha256,
        "generation": 1,
        "sources": ["http://127.0.0.1:9"],
        "state": state,
        "bytes_done": done,
        "bytes_total": total,
        "started_at": TIME,
        "finished_at": None if state == "running" else TIME,
        "error": None,
        "datasets": 2 if state == "succeeded" else None,
        "successful_writes": 2 if state == "succeeded" else None,
        **more,
    }


def dataset_document(path: str, **changed: object) -> dict[str, Any]:
    """One dataset of GET /status and GET /datasets, healthy unless it is `changed`."""
    whole = {
        "path": path,
        "dataset_id": "d",
        "device": "8:1",
        "mounted": True,
        "state": "healthy",
        "full": False,
        "last_error": None,
        "quota_bytes": 20 << 30,
        "used_bytes": 3 << 20,
        "reserved_bytes": 0,
        "available_bytes": 17 << 30,
        "artifacts": 15,
    }
    return {**whole, **changed}


def status_document(*datasets: dict[str, Any], **changed: object) -> dict[str, Any]:
    """GET /status of a sled that is well, unless it is `changed`."""
    whole: dict[str, Any] = {
        "sled_id": "sled-1",
        "version": "0.1.0",
        "uptime_s": 7300.0,
        "ledger": "clear",
        "ledger_epoch": 1,
        "generation": 5,
        "generation_certain": True,
        "config_digest": "1" * 64,
        "datasets": list(datasets),
        "under_replicated": {"count": 0, "artifacts": []},
        "puts_running": 0,
        "copies": {"running": 0, "succeeded": 0, "failed": 0, "superseded": 0},
        "events": {
            "epoch": "e",
            "oldest": 1,
            "latest": 1,
            "persistent": True,
            "dropped": 0,
            "last_error": None,
        },
        "duties": [],
        "node": None,
        "warnings": [],
    }
    return {**whole, **changed}


def _refusal(status: int, error: DepotError) -> web.Response:
    document = {"request_id": "r-1", "error_code": error.code, "message": str(error)}
    return web.Response(status=status, text=json.dumps(document), content_type="application/json")


async def _listen(app: web.Application) -> tuple[str, web.AppRunner]:
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}", runner
