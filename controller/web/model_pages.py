"""The pages of models: every model with its releases, and one release with who runs it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, desc, func, select

from controller.api.common import Reading
from controller.errors import NotFoundError
from controller.releases import get_release, list_models
from controller.schema import device_models, releases, rollouts
from controller.web.refusals import PageRoute
from controller.web.rendering import page

router = APIRouter(
    prefix="/models",
    route_class=PageRoute,
    include_in_schema=False,
)

DEVICES_SHOWN = 60


@router.get("")
def show_models(request: Request, connection: Reading) -> Response:
    """All models."""
    return page(request, "models.html", {"models": list_models(connection)}, api="/models")


@router.get("/{model}")
def show_model(request: Request, model: str, connection: Reading) -> Response:
    """One model's releases."""
    found = [one for one in list_models(connection) if one["model"] == model]
    if not found:
        raise NotFoundError(f"model {model[:80]!r}: no release is published")
    return page(request, "models.html", {"models": found}, api=f"/models/{model}")


@router.get("/{model}/{version}")
def show_release(request: Request, model: str, version: str, connection: Reading) -> Response:
    """One release: manifest, contract, signatures, lineage, card, and who runs it."""
    release = get_release(connection, model, version)
    before = previous_release(connection, model, release["sequence"])
    running, count = who_runs(connection, model, version)
    context = {
        "release": release,
        "manifest": release["manifest"],
        "before": before,
        "metrics": compare_metrics(release["metrics"], before["metrics"] if before else {}),
        "running": running,
        "running_count": count,
        "rollouts": rollouts_of(connection, model, release["sequence"]),
    }
    return page(request, "release.html", context, api=f"/models/{model}/releases/{version}")


def previous_release(connection: Connection, model: str, sequence: int) -> dict[str, Any] | None:
    """The release before this one."""
    c = releases.c
    query = select(c.version).where(c.model == model, c.sequence < sequence)
    version = connection.scalar(query.order_by(desc(c.sequence)).limit(1))
    return None if version is None else get_release(connection, model, version)


def compare_metrics(
    here: dict[str, float], before: dict[str, float]
) -> list[tuple[str, float | None, float | None]]:
    """Name, value here and value in the release before. Pure."""
    names = [*here, *(name for name in before if name not in here)]
    return [(name, here.get(name), before.get(name)) for name in names]


def who_runs(connection: Connection, model: str, version: str) -> tuple[list[str], int]:
    """The first devices that run a release, and how many there are."""
    c = device_models.c
    here = (c.model == model) & (c.active_version == version)
    names = select(c.device).where(here).order_by(c.device).limit(DEVICES_SHOWN)
    count = connection.scalar(select(func.count()).select_from(device_models).where(here)) or 0
    return list(connection.scalars(names)), count


def rollouts_of(connection: Connection, model: str, sequence: int) -> list[dict[str, Any]]:
    """Rollouts that carried this release."""
    c = rollouts.c
    query = select(c.rollout, c.state, c.reason, c.created_ms, c.created_by).where(
        c.model == model, c.release_sequence == sequence
    )
    rows = connection.execute(query.order_by(desc(c.created_ms)).limit(20))
    return [dict(row) for row in rows.mappings()]
