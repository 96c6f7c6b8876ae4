"""Routes of models and releases, and of the repository that devices fetch from."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse

from controller import releases
from controller.api.common import Actor, Document, OfServices, Reading, items
from controller.drift.performance import release_performance
from shoal.errors import InvalidInputError

router = APIRouter(tags=["releases"])
repository = APIRouter(prefix="/repository", tags=["repository"])


@router.get("/models")
def list_models(connection: Reading) -> Document:
    """List every model name with its releases."""
    return items(releases.list_models(connection))


@router.get("/models/{model}")
def read_model(model: str, connection: Reading) -> Document:
    """One model and its releases."""
    return releases.get_model(connection, model)


@router.get("/models/{model}/releases/{version}")
def read_release(model: str, version: str, connection: Reading) -> Document:
    """One release with its manifest."""
    return releases.get_release(connection, model, version)


@router.get("/models/{model}/releases/{version}/performance")
def read_performance(
    model: str, version: str, services: OfServices, connection: Reading
) -> Document:
    """How often the release is right on its devices, estimated from their scores."""
    return release_performance(connection, services.artifacts, model, version)


@router.post("/releases", status_code=201)
async def publish(request: Request, services: OfServices, actor: Actor) -> Document:
    """Publish a package (the body): signature, manifest and files are verified first."""
    handle, name = await asyncio.to_thread(_temporary, services.settings.data_dir)
    path = Path(name)
    try:
        most = services.settings.max_package_bytes
        with os.fdopen(handle, "wb") as file:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise InvalidInputError(
                        f"package: more than {most} bytes, the limit of this controller",
                        code="too-large",
                    )
                await asyncio.to_thread(file.write, chunk)
        return await asyncio.to_thread(releases.publish, services, path, actor)
    finally:
        await asyncio.to_thread(path.unlink, missing_ok=True)


def _temporary(folder: Path) -> tuple[int, str]:
    return tempfile.mkstemp(".shoal", "upload-", folder)


@repository.get("/files/{digest}")
def fetch_file(digest: str, services: OfServices) -> FileResponse:
    """A file by its hash. Open to all; ranges are served, so that downloads resume."""
    path = services.artifacts.path(digest)
    headers = {"cache-control": "public, max-age=31536000, immutable", "etag": f'"{digest}"'}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)
