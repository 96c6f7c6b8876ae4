"""What the routes of the registry take and give, for the OpenAPI document and its readers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Reason = Annotated[str, Field(max_length=400)]
Version = Annotated[str, Field(min_length=1, max_length=40)]


class Alias(BaseModel):
    """A name, and the release it points at."""

    model: str
    alias: str
    release_sequence: int
    version: str
    set_ms: int
    set_by: str
    change: int


class Aliases(BaseModel):
    """Every alias asked for."""

    items: list[Alias]
    next_cursor: str | None = None


class Decision(BaseModel):
    """What another person said of a change."""

    person: str
    approved: bool
    reason: str
    at_ms: int


class Change(BaseModel):
    """One move of an alias: who, when, from, to, why, and who agreed."""

    id: int
    model: str
    alias: str
    state: Literal["waiting", "made", "rejected", "withdrawn"]
    from_sequence: int | None
    from_version: str | None
    to_sequence: int | None
    to_version: str | None
    reason: str
    approvals: int
    asked_ms: int
    asked_by: str
    decided_ms: int | None
    decisions: list[Decision]


class Changes(BaseModel):
    """Moves, the newest first."""

    items: list[Change]
    next_cursor: str | None = None


class MoveRequest(BaseModel):
    """Where an alias shall point."""

    model_config = ConfigDict(extra="forbid")

    version: Version
    reason: Reason = ""
    expect: Version | None = None
    """The version it is seen to point at; refused where it is another by now."""


class DecisionRequest(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = ""


class Card(BaseModel):
    """A model card, as it was written and as it is safe to show."""

    model: str
    version: str
    markdown: str
    html: str


class Node(BaseModel):
    """A release or a data set."""

    id: str
    kind: Literal["release", "dataset"]
    known: bool
    """Whether it is published here."""
    commit: str = ""
    source: str = ""
    name: str = ""


class Edge(BaseModel):
    """From what something was made from, to what was made."""

    model_config = ConfigDict(populate_by_name=True)

    from_: Annotated[str, Field(alias="from")]
    to: str
    kind: Literal["parent", "dataset"]


class Graph(BaseModel):
    """The lineage of a model."""

    nodes: list[Node]
    edges: list[Edge]
