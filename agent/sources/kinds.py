"""Every kind of source by name: what keys it knows and how it is made.

Built-in kinds are loaded when a configuration names them, so that a device pays for no other.
Others come from packages that declare an entry point of the group `shoal.sources`, whose object
is a `SourceKind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.options import Key, find_problems, with_defaults
from agent.ports import Source
from agent.sources.tally import Tally
from shoal.errors import InvalidInputError

if TYPE_CHECKING:
    from agent.local_http import LocalHttp

GROUP = "shoal.sources"
_BUILT_IN = {
    "csv": "agent.sources.replay:CSV",
    "ndjson": "agent.sources.replay:NDJSON",
    "stdin": "agent.sources.lines:STDIN",
    "tcp": "agent.sources.lines:TCP",
    "unix": "agent.sources.lines:UNIX",
    "mqtt": "agent.sources.mqtt:MQTT",
    "modbus": "agent.sources.modbus:MODBUS",
    "model": "agent.sources.answers:MODEL",
    "http": "agent.sources.http_rows:HTTP",
    "tensor-file": "agent.sources.tensor_file:TENSOR_FILE",
    "host": "agent.sources.host:HOST",
}

FLOW_KEYS = {
    "overload": Key("text", "", choices=("", "newest", "oldest", "wait")),
    "buffer_rows": Key("integer", 1024, 64, 1_000_000),
    "units": Key("table", {}),
    "max_age_seconds": Key("number", 0.0, 0, 1e9),
    "max_future_seconds": Key("number", 0.0, 0, 1e9),
}
"""Keys of every source, read by the pipeline: what its units are, how old a row may be, and what
to do when the model is slower."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may use of the agent around it."""

    model: str = ""
    state_dir: Path = Path()
    tally: Tally = field(default_factory=Tally)
    http: LocalHttp | None = None


@dataclass(frozen=True, slots=True)
class SourceKind:
    """One kind: its keys, how it is made of a checked table, and rules between keys."""

    keys: Mapping[str, Key]
    make: Callable[[dict[str, Any], SourceContext], Source]
    problems: Callable[[str, dict[str, Any]], list[str]] = lambda at, table: []


def find_source_problems(at: str, table: Mapping[str, Any]) -> list[str]:
    """Every mistake of a source's table; the configuration reports them together."""
    name = table.get("kind")
    if not isinstance(name, str):
        return [f"{at}.kind: is missing"]
    try:
        kind = load_kind(name)
    except InvalidInputError as error:
        return [f"{at}.kind: {error.sentence}"]
    options = {key: value for key, value in table.items() if key != "kind"}
    found = find_problems(at, options, {**kind.keys, **FLOW_KEYS})
    if found:
        return found
    try:
        return kind.problems(at, with_defaults(options, kind.keys))
    except InvalidInputError as error:
        return [f"{at}: {error.sentence}"]


def open_source(
    name: str, options: Mapping[str, Any], context: SourceContext | None = None
) -> Source:
    """Make a source from its TOML table; raise one `InvalidInputError` with all mistakes."""
    if found := find_source_problems("source", {"kind": name, **options}):
        raise InvalidInputError("; ".join(found))
    kind = load_kind(name)
    return kind.make(with_defaults(options, kind.keys), context or SourceContext())


def load_kind(name: str) -> SourceKind:
    """The kind of that name, built in or from an entry point."""
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        try:
            kind = getattr(import_module(module), attribute)
        except ImportError as error:
            raise InvalidInputError(f"{name!r}: install shoal[agent-{name}]: {error}") from error
        assert isinstance(kind, SourceKind)
        return kind
    others = entry_points(group=GROUP)
    if name not in others.names:
        known = ", ".join([*_BUILT_IN, *sorted(others.names)])
        raise InvalidInputError(f"expected one of {known}, got {name!r}")
    try:
        kind = others[name].load()
    except Exception as error:  # other people's code may raise anything
        raise InvalidInputError(f"{name!r}: cannot be loaded: {error!r}") from error
    if not isinstance(kind, SourceKind):
        raise InvalidInputError(f"{name!r}: expected a SourceKind, got {type(kind).__name__}")
    return kind
