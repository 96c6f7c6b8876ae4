"""Server-sent events: turning a stream of lines into events. Pure; the client feeds it.

>>> list(parse_events(["event: device", "data: {\\"device\\": \\"gw-1\\"}", ""]))
[StreamEvent(kind='device', data={'device': 'gw-1'}, id='')]
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_DATA_CHARACTERS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something changed; `data` names it, the API has the rest."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    id: str = ""


def parse_events(lines: Iterable[str]) -> Iterator[StreamEvent]:
    """Yield each event of `lines`; comments and events whose data is no object are passed over."""
    kind, identifier, data, size = "message", "", list[str](), 0
    for line in lines:
        if not line:
            if data and (document := _object("\n".join(data))) is not None:
                yield StreamEvent(kind, document, identifier)
            kind, data, size = "message", [], 0
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            identifier = value
        elif name == "data" and (size := size + len(value)) <= MAX_DATA_CHARACTERS:
            data.append(value)


def _object(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
