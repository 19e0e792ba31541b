"""Endpoints for datasets: what each one is, and letting go of, taking back and replacing one."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from agent.api.verbs import Store
from agent.status import dataset_body
from agent.wire.datasets import (
    DatasetBody,
    DatasetPathBody,
    DatasetReleaseBody,
    DatasetReplaceBody,
    DatasetsBody,
)
from depot.http.openapi import Endpoint
from depot.http.replies import json_reply
from depot.http.requests import read_json


class DatasetApi:
    """Handlers for `/datasets`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The part of the table that is served here."""
        return (
            Endpoint(
                method="GET",
                path="/datasets",
                operation_id="dataset_list",
                handler=self.list,
                summary="List every dataset of this sled, in the order of its configuration.",
                response=DatasetsBody,
            ),
            Endpoint(
                method="POST",
                path="/datasets/release",
                operation_id="dataset_release",
                handler=self.release,
                summary="Let go of a dataset, so that it can be unmounted; idempotent.",
                request=DatasetReleaseBody,
                response=DatasetBody,
            ),
            Endpoint(
                method="POST",
                path="/datasets/attach",
                operation_id="dataset_attach",
                handler=self.attach,
                summary="Take a released or retired dataset back into use; idempotent.",
                request=DatasetPathBody,
                response=DatasetBody,
            ),
            Endpoint(
                method="POST",
                path="/datasets/replace",
                operation_id="dataset_replace",
                handler=self.replace,
                summary="Adopt an empty disk in place of the dataset that was there.",
                request=DatasetReplaceBody,
                response=DatasetBody,
            ),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /datasets."""
        datasets = map(dataset_body, self._store.status().datasets)
        return json_reply(DatasetsBody(datasets=tuple(datasets)))

    async def release(self, request: web.Request) -> web.Response:
        """POST /datasets/release."""
        body = await read_json(request, DatasetReleaseBody)
        await self._store.release_dataset(Path(body.path), last=body.last)
        return self._one(body.path)

    async def attach(self, request: web.Request) -> web.Response:
        """POST /datasets/attach."""
        body = await read_json(request, DatasetPathBody)
        await self._store.attach_dataset(Path(body.path))
        return self._one(body.path)

    async def replace(self, request: web.Request) -> web.Response:
        """POST /datasets/replace."""
        body = await read_json(request, DatasetReplaceBody)
        await self._store.replace_dataset(Path(body.path), plain_directory=body.plain_directory)
        return self._one(body.path)

    def _one(self, path: str) -> web.Response:
        datasets = self._store.status().datasets
        return json_reply(dataset_body(next(d for d in datasets if Path(d.path) == Path(path))))
