"""Scripts and styles, served from the package under a name that holds their hash.

A plain route and not a mount, so that only what is listed can be asked for.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files

from fastapi import APIRouter, Response

from controller.errors import NotFoundError

router = APIRouter()

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FOLDER = files("controller.web") / "static"
_FOREVER = "public, max-age=31536000, immutable"


@functools.cache
def _load(name: str) -> tuple[bytes, str, str]:
    """Bytes, media type and digest of a file of ours."""
    if name not in _names():
        raise NotFoundError(f"asset {name[:80]!r}: no such file")
    data = (_FOLDER / name).read_bytes()
    return data, _TYPES[name[name.rindex(".") :]], hashlib.sha256(data).hexdigest()[:12]


@functools.cache
def _names() -> frozenset[str]:
    found = [one.name for one in _FOLDER.iterdir() if one.is_file()]
    found += [f"vendor/{one.name}" for one in (_FOLDER / "vendor").iterdir()]
    return frozenset(name for name in found if name.endswith(tuple(_TYPES)))


def url(name: str) -> str:
    """Path of an asset; it changes whenever the file does."""
    return f"/static/{_load(name)[2]}/{name}"


@router.get("/static/{digest}/{name:path}", include_in_schema=False)
def serve(digest: str, name: str) -> Response:
    """One file. An old digest gives the file of today, but not for ever."""
    data, kind, current = _load(name)
    lasting = _FOREVER if digest == current else "no-cache"
    return Response(data, media_type=kind, headers={"cache-control": lasting})
