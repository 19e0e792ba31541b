"""The repo depot API: read-only, for peers, installers and operators."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from depot.http.arriving_responder import ArrivingResponder
from depot.http.browsers import OwnNames
from depot.http.compressing import Compressor
from depot.http.fast_path import FAST_PATH, PATH, FastPath
from depot.http.hot_artifacts import HotArtifacts
from depot.http.limits import HttpLimits
from depot.http.openapi import OCTETS, SHA256_IN_PATH, Endpoint, Parameter
from depot.http.plain_requests import PlainRequests
from depot.http.pump import Pump
from depot.http.replies import alive
from depot.http.requests import artifact_hash
from depot.http.responder import ArtifactReader, ArtifactResponder
from depot.http.service import ACTIVITY, make_app
from depot.http.versions import ANY, ApiInfo
from depot.streams.budget import Budget
from depot.writing.arriving import Arrivals

DEPOT_API: Final = ApiInfo(
    title="Repo Depot API",
    description="Fetch artifacts by their SHA-256.",
    version="1.0.0",
    oldest=(1, 0, 0),
    newest=(1, ANY, ANY),
)
_HEADER: Final = {"type": "string"}


def _headers(*described: tuple[str, str]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            name=name, where="header", schema=_HEADER, required=False, description=description
        )
        for name, description in described
    )


_RANGES: Final = _headers(
    ("Range", "One byte range; several, or a malformed one, are ignored."),
    ("If-Range", "Use Range only if this is the artifact's entity tag."),
)
_CONDITIONS: Final = _headers(
    ("If-None-Match", "Entity tags that the client has."),
    ("If-Match", "Entity tags that the client wants."),
    ("Accept-Encoding", "Whoever names zstd may get it; a range is never encoded."),
)
_OTHER_RESPONSES: Final = {
    206: "The range that was asked for.",
    304: "The client has the artifact already.",
}


def depot_endpoints(
    responder: ArtifactResponder, arriving: ArrivingResponder | None = None
) -> tuple[Endpoint, ...]:
    """The table of the API."""

    async def fetch(request: web.Request) -> web.StreamResponse:
        artifact = artifact_hash(request)
        if arriving is not None:
            answer = await arriving.answer(request, artifact)
            if answer is not None:
                return answer
        return await responder.respond(request, artifact)

    return (
        Endpoint(
            method="GET",
            path=f"{PATH}{{sha256}}",
            operation_id="artifact_get_by_sha256",
            handler=fetch,
            summary="Fetch an artifact from the depot.",
            description=(
                "`Depot-Arriving: 1`: the depot is still receiving it. The block that the answer "
                "ends in is sent once the whole hash is right; an answer that ends before "
                "Content-Length can be resumed from any depot. `Depot-Arriving-Depth`: through "
                "how many such depots the bytes have come."
            ),
            parameters=(SHA256_IN_PATH, *_RANGES, *_CONDITIONS),
            response=OCTETS,
            other_responses=_OTHER_RESPONSES,
        ),
        Endpoint(
            method="HEAD",
            path=f"{PATH}{{sha256}}",
            operation_id="artifact_head_by_sha256",
            handler=fetch,
            summary="Ask for an artifact's size without its bytes.",
            parameters=(SHA256_IN_PATH, *_CONDITIONS),
        ),
        Endpoint(
            method="GET",
            path="/health/live",
            operation_id="health_live",
            handler=alive,
            summary="Whether the server answers at all.",
        ),
    )


def depot_app(
    store: ArtifactReader,
    *,
    limits: HttpLimits | None = None,
    pump: Pump | None = None,
    compressor: Compressor | None = None,
    budget: Budget | None = None,
    arrivals: Arrivals | None = None,
    hot: HotArtifacts | None = None,
    own: OwnNames | None = None,
) -> web.Application:
    """Make the app that serves the artifacts of `store`; it closes `pump` and `compressor`.

    Without a compressor, clients that ask for zstd get the bytes themselves; with `arrivals`, they
    get what is still being received. All answers together keep within `budget`. What is in `hot` is
    answered on the fast path; without it there is none. As for `own`, see `make_app`.
    """
    limits, pump, budget = limits or HttpLimits(), pump or Pump(), budget or Budget()
    own = own or OwnNames.of(None)
    responder = ArtifactResponder(store, pump, limits.pace, compressor, budget, hot)
    arriving = (
        None if arrivals is None else ArrivingResponder(arrivals, store, pump, limits, budget)
    )
    app = make_app(depot_endpoints(responder, arriving), api=DEPOT_API, limits=limits, own=own)
    if hot is not None:
        encoded_from_bytes = None if compressor is None else compressor.min_size_bytes
        plain = PlainRequests(DEPOT_API.check, encoded_from_bytes, own)
        headers = responder.headers_of_whole
        fast_path = FastPath(hot, store.holdings(), plain, app[ACTIVITY], headers, budget)
        app[FAST_PATH] = fast_path

    async def close_threads(_: web.Application) -> None:
        if hot is not None:
            await app[FAST_PATH].close()
        pump.close()
        if compressor is not None:
            compressor.close()

    app.on_cleanup.append(close_threads)
    return app
