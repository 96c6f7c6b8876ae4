"""The pages of rollouts: all of them, one with its waves and gates, and the buttons."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, case, func, select

from controller.api.common import Name, OfServices, Reading
from controller.people.person import Person
from controller.rollouts import service
from controller.rollouts.service import get_rollout, list_rollouts
from controller.rollouts.states import BAD, ExecutionState
from controller.rollouts.store import newest_attempts
from controller.schema import executions
from controller.services import Services
from controller.web.forms import read_form
from controller.web.refusals import PageRoute
from controller.web.rendering import Acting, page, redirect

router = APIRouter(prefix="/rollouts", route_class=PageRoute, include_in_schema=False)

ROLLOUTS_SHOWN = 50
ROWS_SHOWN = 100
TROUBLED = (*BAD, ExecutionState.TIMED_OUT)


@router.get("")
def show_rollouts(request: Request, connection: Reading) -> Response:
    """All rollouts, newest first."""
    context = {"rollouts": list_rollouts(connection, ROLLOUTS_SHOWN)}
    return page(request, "rollouts.html", context, api="/rollouts")


@router.get("/{rollout}")
def show_rollout(
    request: Request,
    rollout: str,
    connection: Reading,
    state: Name = None,
    cursor: Name = None,
) -> Response:
    """One rollout; `state` filters its devices."""
    rows = list_devices(connection, rollout, [state] if state else None, cursor)
    context = {
        "rollout": get_rollout(connection, rollout),
        "by_state": count_states(connection, rollout),
        "failed": list_devices(connection, rollout, list(TROUBLED), None)[:ROWS_SHOWN],
        "rows": rows[:ROWS_SHOWN],
        "following": rows[ROWS_SHOWN - 1]["device"] if len(rows) > ROWS_SHOWN else None,
        "state": state,
        "cursor": cursor,
    }
    return page(request, "rollout.html", context, api=f"/rollouts/{rollout}")


@router.post("/{rollout}/approve")
async def approve(request: Request, rollout: str, services: OfServices, person: Acting) -> Response:
    """Agree to what waits for approval."""
    return await _decide(request, rollout, "approve", services, person)


@router.post("/{rollout}/reject")
async def reject(request: Request, rollout: str, services: OfServices, person: Acting) -> Response:
    """Refuse what waits for approval, with a reason."""
    return await _decide(request, rollout, "reject", services, person)


async def _decide(
    request: Request, rollout: str, verb: str, services: Services, person: Person
) -> Response:
    fields = await read_form(request)
    reason = fields.get("reason", "")[:400]
    await asyncio.to_thread(service.decide_approval, services, rollout, verb, person, reason)
    services.rollouts_changed.ring()
    return redirect(request, f"/rollouts/{rollout}")


@router.post("/{rollout}/{verb}")
async def command(
    request: Request,
    rollout: str,
    verb: str,
    services: OfServices,
    person: Acting,
) -> Response:
    """Start, pause, resume, promote, abort, rollback or retry, as the API does."""
    await read_form(request)
    await asyncio.to_thread(service.command, services, rollout, verb, person.name)
    services.rollouts_changed.ring()
    services.desired_changed.ring()
    return redirect(request, f"/rollouts/{rollout}")


def count_states(connection: Connection, rollout: str) -> dict[str, int]:
    """How many devices are in each state, in the order in which states follow each other."""
    newest, same = newest_attempts(rollout)
    order = case(
        {state: place for place, state in enumerate(ExecutionState)}, value=executions.c.state
    )
    query = (
        select(executions.c.state, func.count().label("devices"))
        .join(newest, same)
        .group_by(executions.c.state)
        .order_by(order)
    )
    return {row.state: row.devices for row in connection.execute(query)}


def list_devices(
    connection: Connection, rollout: str, states: list[str] | None, after: str | None
) -> list[dict[str, Any]]:
    """A page of the devices' newest attempts by name, and one row more where there is more."""
    newest, same = newest_attempts(rollout)
    query = select(executions).join(newest, same).order_by(executions.c.device)
    if states is not None:
        query = query.where(executions.c.state.in_(states))
    if after:
        query = query.where(executions.c.device > after)
    return [dict(row) for row in connection.execute(query.limit(ROWS_SHOWN + 1)).mappings()]
