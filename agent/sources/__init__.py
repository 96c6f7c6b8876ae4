"""Where rows come from: CSV and NDJSON replay, standard input, tensor files, the host itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.ports import Source
from agent.sources.host import HostSource
from agent.sources.inject import parse_faults
from agent.sources.replay import ReplaySource, csv_rows, ndjson_rows, stdin_rows
from agent.sources.tensor_file import TensorFileSource
from shoal.errors import InvalidInputError

COMMON = {"kind", "inject"}


def open_source(kind: str, options: dict[str, Any]) -> Source:
    """Make a source from its TOML table; raise `InvalidInputError` naming the key at fault."""
    if kind not in _KINDS:
        raise InvalidInputError(f"source.kind {kind!r}: expected one of {', '.join(_KINDS)}")
    make, allowed = _KINDS[kind]
    unknown = set(options) - allowed - COMMON
    if unknown:
        raise InvalidInputError(f"source ({kind}): unknown keys {', '.join(sorted(unknown))}")
    if "path" in allowed and "path" not in options:
        raise InvalidInputError(f"source ({kind}): key path is missing")
    return make(options)


def _replay(rows: Callable[..., Any]) -> Callable[[dict[str, Any]], Source]:
    return lambda options: ReplaySource(
        rows(options),
        rate_hz=float(options.get("rate_hz", 0.0)),
        loop=bool(options.get("loop", False)),
        columns=dict(options.get("columns", {})),
        time_column=options.get("time_column"),
        faults=parse_faults(options.get("inject", [])),
    )


_FILE = {"path", "rate_hz", "loop", "columns", "time_column"}
_KINDS: dict[str, tuple[Callable[[dict[str, Any]], Source], set[str]]] = {
    "csv": (_replay(csv_rows), _FILE | {"delimiter"}),
    "ndjson": (_replay(ndjson_rows), _FILE),
    "stdin": (_replay(stdin_rows), {"columns", "time_column"}),
    "tensor-file": (
        lambda options: TensorFileSource(
            options["path"], float(options.get("rate_hz", 0.0)), bool(options.get("loop", False))
        ),
        {"path", "rate_hz", "loop"},
    ),
    "host": (lambda options: HostSource(float(options.get("rate_hz", 1.0))), {"rate_hz"}),
}

__all__ = ["open_source"]
