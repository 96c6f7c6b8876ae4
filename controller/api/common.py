"""What the routes share: services, who asks, paging."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from sqlalchemy import Connection

from controller.auth import actor_of, person_of
from controller.database import reading
from controller.people.person import Person
from controller.services import Services

Document = dict[str, Any]


def get_services(request: Request) -> Services:
    """The services that `build_app` was given."""
    services: Services = request.app.state.services
    return services


def get_connection(request: Request) -> Iterator[Connection]:
    """A reading transaction for the length of a request."""
    with reading(get_services(request).engine) as connection:
        yield connection


OfServices = Annotated[Services, Depends(get_services)]
Reading = Annotated[Connection, Depends(get_connection)]
Actor = Annotated[str, Depends(actor_of)]
Asking = Annotated[Person, Depends(person_of)]
Limit = Annotated[int, Query(ge=1, le=1000)]
SinceMs = Annotated[int | None, Query(ge=0, le=2**53)]
RowId = Annotated[int | None, Query(ge=0, le=2**53)]
Name = Annotated[str | None, Query(max_length=120)]
SelectorText = Annotated[str | None, Query(max_length=400)]


def items(found: list[Document], next_cursor: str | None = None) -> Document:
    """A list as the API gives it."""
    return {"items": found, "next_cursor": next_cursor}
