"""Routes of the registry: aliases and their moves, sign-off, cards, lineage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from controller.api.common import Asking, Document, OfServices, Reading, items
from controller.api.json_body import JsonRoute
from controller.api.registry_models import (
    Aliases,
    Card,
    Change,
    Changes,
    DecisionRequest,
    Graph,
    MoveRequest,
)
from controller.people.person import Person
from controller.registry import aliases, lineage, signoff
from controller.registry.aliases import NOT_ASKED, Move
from controller.registry.card import card_of
from controller.releases import get_release
from controller.services import Services
from shoal.errors import InvalidInputError

router = APIRouter(tags=["registry"], route_class=JsonRoute)

Why = Annotated[str, Query(max_length=400)]
State = Literal["waiting", "made", "rejected", "withdrawn"]
ChangeId = Annotated[int, Path(ge=1, le=2**53)]
Name = Annotated[str | None, Query(max_length=120)]
PageLimit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/aliases", operation_id="listAliases", response_model=Aliases)
def list_aliases(connection: Reading, model: Name = None) -> Document:
    """Where every alias points; of one model with `model`."""
    return items(aliases.list_aliases(connection, model))


@router.put("/models/{model}/aliases/{alias}", operation_id="moveAlias", response_model=Change)
def move_alias(
    model: str, alias: str, wanted: MoveRequest, services: OfServices, person: Asking
) -> Document:
    """Point an alias at a release. The change is `waiting` where others must agree first."""
    given = "expect" in wanted.model_fields_set
    expect = wanted.expect if given else NOT_ASKED
    return aliases.move(services, Move(model, alias, wanted.version, wanted.reason, expect), person)


@router.delete("/models/{model}/aliases/{alias}", operation_id="removeAlias", response_model=Change)
def remove_alias(
    model: str, alias: str, services: OfServices, person: Asking, reason: Why = ""
) -> Document:
    """Take an alias away, as a change like any other."""
    return aliases.move(services, Move(model, alias, None, reason), person)


@router.get("/alias-changes", operation_id="listAliasChanges", response_model=Changes)
def list_alias_changes(
    connection: Reading,
    model: Name = None,
    alias: Name = None,
    state: State | None = None,
    limit: PageLimit = 100,
    cursor: Annotated[str | None, Query(max_length=40)] = None,
) -> Document:
    """Every move of every alias, the newest first: who, when, from, to, why, who agreed."""
    found = aliases.list_changes(
        connection, model=model, alias=alias, state=state, before=_before(cursor), limit=limit + 1
    )
    more = len(found) > limit
    return items(found[:limit], str(found[limit - 1]["id"]) if more else None)


@router.get("/alias-changes/{change}", operation_id="readAliasChange", response_model=Change)
def read_alias_change(change: ChangeId, connection: Reading) -> Document:
    """One move of an alias."""
    return aliases.get_change(connection, change)


@router.post(
    "/alias-changes/{change}/approve", operation_id="approveAliasChange", response_model=Change
)
def approve_alias_change(
    change: ChangeId, services: OfServices, person: Asking, wanted: DecisionRequest | None = None
) -> Document:
    """Agree to a move; another person does than who asked for it."""
    return _decide(services, change, signoff.APPROVE, person, wanted)


@router.post(
    "/alias-changes/{change}/reject", operation_id="rejectAliasChange", response_model=Change
)
def reject_alias_change(
    change: ChangeId, services: OfServices, person: Asking, wanted: DecisionRequest | None = None
) -> Document:
    """Refuse a move, and say why."""
    return _decide(services, change, signoff.REJECT, person, wanted)


@router.post(
    "/alias-changes/{change}/withdraw", operation_id="withdrawAliasChange", response_model=Change
)
def withdraw_alias_change(
    change: ChangeId, services: OfServices, person: Asking, wanted: DecisionRequest | None = None
) -> Document:
    """Take a request back."""
    return _decide(services, change, signoff.WITHDRAW, person, wanted)


def _decide(
    services: Services, change: int, verb: str, person: Person, wanted: DecisionRequest | None
) -> Document:
    return signoff.decide(services, change, verb, person, wanted.reason if wanted else "")


@router.get("/models/{model}/releases/{version}/card", operation_id="readCard", response_model=Card)
def read_card(model: str, version: str, connection: Reading) -> Document:
    """The model card of a release (or of what an alias points at): Markdown, and safe HTML."""
    found = get_release(connection, model, aliases.resolve(connection, model, version))
    return {"model": model, "version": found["version"]} | card_of(found["manifest"])


@router.get("/models/{model}/lineage", operation_id="readLineage", response_model=Graph)
def read_lineage(model: str, connection: Reading) -> Any:
    """What the model's releases were made from: other releases and data sets."""
    return lineage.lineage_of(connection, model)


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdecimal() or len(cursor) > 16:
        raise InvalidInputError(f"cursor {cursor!r}: expected one that a page gave")
    return int(cursor)
