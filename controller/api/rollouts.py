"""Routes of rollouts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from controller.api.common import Actor, Asking, Document, Name, OfServices, Reading, items
from controller.api.json_body import JsonRoute
from controller.database import reading
from controller.people.person import Person
from controller.registry.aliases import resolve_specification
from controller.rollouts import drawing, looks, opting, service
from controller.rollouts.values import parse_specification
from controller.saved_selectors import moment
from controller.services import Services

router = APIRouter(prefix="/rollouts", tags=["rollouts"], route_class=JsonRoute)

Why = Annotated[str, Query(max_length=400)]
Specified = Annotated[dict[str, Any], Body()]


@router.get("")
def list_rollouts(connection: Reading) -> Document:
    """List rollouts, newest first."""
    return items(service.list_rollouts(connection))


@router.post("/preview")
def preview_rollout(
    specification: Specified, services: OfServices, connection: Reading
) -> Document:
    """What a rollout would do now, without doing it."""
    resolved = resolve_specification(connection, specification)
    return drawing.preview(connection, parse_specification(resolved), moment(services))


@router.post("", status_code=201)
def create_rollout(specification: Specified, services: OfServices, actor: Actor) -> Document:
    """Create a rollout, and start it unless `start` is false.

    `model` may be MODEL@ALIAS without a version: what it points at now is kept.
    """
    with reading(services.engine) as connection:
        resolved = resolve_specification(connection, specification)
    document = service.create(services, parse_specification(resolved), actor)
    services.rollouts_changed.ring()
    return document


@router.post("/recall/{model}")
def recall_model(model: str, services: OfServices, actor: Actor) -> Document:
    """Take a model's newest release back from the whole fleet, at full rate; cancel what waits."""
    document = service.recall(services, model, actor)
    services.rollouts_changed.ring()
    services.desired_changed.ring()
    return document


@router.get("/opt-outs")
def list_opt_outs(connection: Reading) -> Document:
    """Devices and sites that take no part in rollouts."""
    return items(opting.list_opt_outs(connection))


@router.put("/opt-outs/{scope}/{subject}")
def opt_out(
    scope: str, subject: str, services: OfServices, actor: Actor, reason: Why = ""
) -> Document:
    """Leave a device or a site out of rollouts; what it waits for is cancelled."""
    return opting.opt_out(services, scope, subject, reason, actor)


@router.delete("/opt-outs/{scope}/{subject}")
def opt_in(scope: str, subject: str, services: OfServices, actor: Actor) -> Document:
    """Take it in again."""
    return opting.opt_in(services, scope, subject, actor)


@router.get("/{rollout}")
def read_rollout(rollout: str, connection: Reading) -> Document:
    """One rollout with its waves and gates."""
    return service.get_rollout(connection, rollout)


@router.get("/{rollout}/executions")
def list_executions(rollout: str, connection: Reading, device: Name = None) -> Document:
    """How each device of a rollout does: its newest attempt; of one device every attempt."""
    if device is not None:
        return items(service.list_attempts(connection, rollout, device))
    return items(service.list_executions(connection, rollout))


@router.get("/{rollout}/looks")
def list_looks(rollout: str, connection: Reading) -> Document:
    """What each look at a wave saw: value, margin, sample size and verdict of every test."""
    service.get_rollout(connection, rollout)
    return items(looks.list_looks(connection, rollout))


@router.post("/{rollout}/approve")
def approve_rollout(
    rollout: str, services: OfServices, person: Asking, reason: Why = ""
) -> Document:
    """Agree to what waits for approval: the start, or the next wave.

    Another person does than who created or started the rollout.
    """
    return _decide(services, rollout, "approve", person, reason)


@router.post("/{rollout}/reject")
def reject_rollout(rollout: str, services: OfServices, person: Asking, reason: Why) -> Document:
    """Refuse what waits for approval, and say why: a start ends, before a wave it pauses."""
    return _decide(services, rollout, "reject", person, reason)


def _decide(services: Services, rollout: str, verb: str, person: Person, reason: str) -> Document:
    document = service.decide_approval(services, rollout, verb, person, reason)
    services.rollouts_changed.ring()
    return document


@router.post("/{rollout}/{verb}")
def command_rollout(
    rollout: str,
    verb: str,
    services: OfServices,
    actor: Actor,
    expect: Annotated[int | None, Query(ge=1, le=2**31)] = None,
) -> Document:
    """Start, pause, resume, promote, abort, rollback or retry.

    `expect`, with start: so many devices must match; a draft is planned anew for them.
    """
    document = service.command(services, rollout, verb, actor, expect)
    services.rollouts_changed.ring()
    services.desired_changed.ring()
    return document
