"""Messages that devices publish, and the controller's acknowledgement.

Every message names its device, boot and sequence: delivery is at least once, `(device, boot_id,
seq)` makes it exactly once in effect. JSON with flat field names, so that Telegraf, Grafana and
Node-RED read it without code. Times are `*_ms`: milliseconds since 1970-01-01 UTC by the
device's clock; `uptime_ms` is monotonic within a boot, and `clock_synced` says whether the
wall clock can be believed.

>>> decode(Channel.ACKED, b'{"device":"gw-1","boot_id":"b","ranges":[[1,40]]}').ranges
[(1, 40)]
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from shoal.errors import InvalidInputError
from shoal.ids import NAME_PATTERN
from shoal.protocol import MAX_MESSAGE_BYTES, SCHEMA, STATISTICS_SCHEMA
from shoal.protocol.columns import Columns, FieldStatistics, from_columns, to_columns
from shoal.protocol.topics import Channel

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Text = Annotated[str, Meta(max_length=2000)]
ShortText = Annotated[str, Meta(max_length=120)]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53)]

LATENCY_EDGES_US: tuple[float, ...] = tuple(round(10 * 2 ** (i / 2), 1) for i in range(40))
"""Upper edges of the latency histogram, 10 µs to 7.4 s, two bins an octave; one more bin above.

Fixed for the whole fleet, so that histograms add. A quantile read from it errs by at most the
bin's width, a factor of 1.41.
"""


class Header(Struct, kw_only=True, omit_defaults=False):
    """What every message from a device carries."""

    device: Name
    site: Name
    boot_id: Annotated[str, Meta(min_length=1, max_length=40)]
    seq: Count
    """Order of first sending within the boot, from 1; 0 only in the last will."""
    ts_ms: Milliseconds
    uptime_ms: Milliseconds = 0
    clock_synced: bool = True
    schema: int = SCHEMA


class ModelState(Struct, kw_only=True):
    """What one model's slots hold."""

    model: Name
    active_version: ShortText | None = None
    active_sequence: Count | None = None
    active_manifest: ShortText | None = None
    """SHA-256 of the manifest that runs; the controller compares it with what it assigned."""
    active_variant: ShortText | None = None
    last_good_version: ShortText | None = None
    candidate_version: ShortText | None = None
    candidate_state: ShortText | None = None
    runtime: ShortText | None = None
    runtime_version: ShortText | None = None
    kernels: ShortText | None = None


class State(Header, kw_only=True):
    """Retained. What the device is and runs now; with `online` false it is the last will."""

    online: bool
    status: ShortText = "ok"
    """ok, degraded, failing or updating, as the device judges itself."""
    reason: Text = ""
    """Why it is not ok, in words."""
    agent_version: ShortText = ""
    profile: ShortText = ""
    desired_sequence: Count = 0
    """Highest desired-state sequence accepted."""
    models: list[ModelState] = []
    facts: dict[str, str | int | float | bool] = {}
    """Introspected hardware and runtime facts, with the keys of a hardware profile."""


class Health(Header, kw_only=True):
    """Host, process, link and outbox. Sizes in bytes, ratios 0 to 1, temperature in °C."""

    cpu_ratio: float = 0.0
    load_1m: float = 0.0
    memory_total_bytes: Count = 0
    memory_available_bytes: Count = 0
    disk_free_bytes: Count = 0
    temperature_c: float | None = None
    agent_pss_bytes: Count = 0
    workers_pss_bytes: Count = 0
    loop_lag_p99_ms: float = 0.0
    link_connects: Count = 0
    """Connections to the broker since the boot of the agent."""
    outbox_rows: Count = 0
    outbox_bytes: Count = 0
    outbox_dropped: dict[str, Count] = {}
    """Rows lost to the caps, by class, since the outbox was created."""


class Window(Header, kw_only=True):
    """What one model did in one reporting window. `in_count == ok + Σ dropped + Σ failed`."""

    model: Name
    version: ShortText
    release_sequence: Count
    manifest: ShortText
    slot: ShortText = "active"
    """active or probation."""
    runtime: ShortText = ""
    runtime_version: ShortText = ""
    kernels: ShortText = ""
    start_ms: Milliseconds
    end_ms: Milliseconds
    in_count: Count
    ok: Count
    dropped: dict[str, Count] = {}
    failed: dict[str, Count] = {}
    latency_p50_us: float = 0.0
    latency_p95_us: float = 0.0
    latency_p99_us: float = 0.0
    latency_max_us: float = 0.0
    latency_counts: list[Count] = []
    """Counts in the bins of `LATENCY_EDGES_US`, trailing zeros left out."""
    worker_restarts: Count = 0
    worker_pss_bytes: Count = 0
    labels: dict[str, Count] = {}
    """How often each label was given, e.g. {"normal": 290, "anomaly": 10}."""


class Statistics(Header, kw_only=True):
    """Feature and output distributions of one model in one window."""

    schema: int = STATISTICS_SCHEMA
    model: Name
    version: ShortText
    release_sequence: Count
    manifest: ShortText = ""
    """Not sent where `baseline` is: with `release_sequence` that says which release it is."""
    slot: ShortText = "active"
    runtime: ShortText = ""
    """What computed the answers, as probed in the worker; with version and kernels."""
    runtime_version: ShortText = ""
    kernels: ShortText = ""
    baseline: ShortText = ""
    """SHA-256 of the baseline whose bins were counted."""
    start_ms: Milliseconds
    end_ms: Milliseconds
    rows: Count
    lost: Count = 0
    """Rows answered but not counted, because a worker died before it reported them."""
    features: list[FieldStatistics] = []
    outputs: list[FieldStatistics] = []


class WireStatistics(Header, kw_only=True, omit_defaults=True):
    """`Statistics` as published: without what has its default, fields as columns.

    Agents before schema 2 wrote one object a field; that is read as well.
    """

    model: Name
    version: ShortText
    release_sequence: Count
    manifest: ShortText = ""
    """Written where no baseline is: that and `release_sequence` say which release it is."""
    slot: ShortText = "active"
    runtime: ShortText = ""
    runtime_version: ShortText = ""
    kernels: ShortText = ""
    baseline: ShortText = ""
    start_ms: Milliseconds
    end_ms: Milliseconds
    rows: Count
    lost: Count = 0
    features: Columns | list[FieldStatistics] = msgspec.field(default_factory=Columns)
    outputs: Columns | list[FieldStatistics] = msgspec.field(default_factory=Columns)


class Predictions(Header, kw_only=True):
    """Opt-in: single answers, in micro-batches. `values[i][j]` is output `names[j]` of row i."""

    model: Name
    version: ShortText
    release_sequence: Count
    names: list[ShortText]
    sample_ms: list[Milliseconds]
    values: list[list[float | None]]
    labels: list[ShortText] = []


class Event(Header, kw_only=True):
    """Something happened once. `code` is stable, `sentence` is for people."""

    kind: ShortText
    """execution, worker, slot, pipeline, link, desired or agent."""
    code: ShortText
    severity: ShortText = "info"
    """info, warning or error."""
    sentence: Text = ""
    model: Name | None = None
    version: ShortText | None = None
    rollout: ShortText | None = None
    attempt: Count | None = None
    data: dict[str, str | int | float | bool | None] = {}


class Capture(Struct, kw_only=True):
    """One captured sample: the rows of a window as the sensors gave them, and the answer."""

    capture: ShortText
    """Its id on the device."""
    sample_ms: Milliseconds
    reason: ShortText
    """low-margin, out-of-range, disagreement, drift or one-in."""
    rows: list[list[float | None]]
    """Row by row, in the order of the contract's features; null where missing or redacted."""
    outputs: list[float | None]
    label: ShortText = ""


class Captures(Header, kw_only=True):
    """Captured samples of one release, sent because a command asked for them."""

    model: Name
    version: ShortText
    release_sequence: Count
    manifest: ShortText
    features: list[ShortText]
    names: list[ShortText]
    """Of the outputs."""
    redacted: list[ShortText] = []
    """Features that the package's capture policy leaves out."""
    samples: list[Capture]


class Reply(Header, kw_only=True):
    """The answer to a command, in parts; `text` of all of them together is the document."""

    command: Name
    ok: bool
    code: ShortText = ""
    sentence: Text = ""
    part: Annotated[int, Meta(ge=1, le=64)] = 1
    parts: Annotated[int, Meta(ge=1, le=64)] = 1
    text: Annotated[str, Meta(max_length=65536)] = ""


class Acked(Struct, kw_only=True):
    """Retained, down. What the controller has committed of one boot.

    `ranges` are inclusive, ascending and coalesced; only rows inside may leave the outbox.
    """

    device: Name
    boot_id: str
    ranges: list[tuple[Count, Count]]
    schema: int = SCHEMA


UP_TYPES: dict[Channel, type[Header]] = {
    Channel.STATE: State,
    Channel.HEALTH: Health,
    Channel.WINDOW: Window,
    Channel.STATISTICS: Statistics,
    Channel.PREDICTIONS: Predictions,
    Channel.CAPTURES: Captures,
    Channel.EVENTS: Event,
    Channel.REPLIES: Reply,
}
MESSAGE_TYPES: dict[Channel, type[Header] | type[Acked]] = {**UP_TYPES, Channel.ACKED: Acked}

UpMessage = State | Health | Window | Statistics | Predictions | Captures | Event | Reply

_encoder = msgspec.json.Encoder()
_decoders: dict[Channel, msgspec.json.Decoder[Any]] = {
    channel: msgspec.json.Decoder(kind) for channel, kind in MESSAGE_TYPES.items()
} | {Channel.STATISTICS: msgspec.json.Decoder(WireStatistics)}
_schemas = {Channel.STATISTICS: STATISTICS_SCHEMA}
_in_both = tuple(
    name for name in Statistics.__struct_fields__ if name not in ("schema", "features", "outputs")
)


class InvalidMessageError(InvalidInputError):
    """A payload that is not a message of its channel."""

    code = "invalid-message"


def encode(message: Struct) -> bytes:
    """Encode any message as JSON, or raise `InvalidMessageError` when it is too large."""
    payload = _encoder.encode(_to_wire(message) if isinstance(message, Statistics) else message)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise InvalidMessageError(
            f"{type(message).__name__}: {len(payload)} bytes, at most {MAX_MESSAGE_BYTES} allowed",
            code="message-too-large",
        )
    return payload


def decode(channel: Channel, payload: bytes) -> Any:
    """Decode and validate a payload of `channel`; raise `InvalidMessageError`.

    The caller narrows the type: it is `MESSAGE_TYPES[channel]`.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise InvalidMessageError(
            f"{channel.value}: {len(payload)} bytes, at most {MAX_MESSAGE_BYTES} allowed",
            code="message-too-large",
        )
    try:
        message = _decoders[channel].decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessageError(f"{channel.value}: {error}") from error
    newest = _schemas.get(channel, SCHEMA)
    if message.schema > newest:
        raise InvalidMessageError(
            f"{channel.value}: schema {message.schema}, this side reads up to {newest}",
            code="schema-too-new",
        )
    return _from_wire(message) if isinstance(message, WireStatistics) else message


def _to_wire(message: Statistics) -> WireStatistics:
    wire = WireStatistics(
        **{name: getattr(message, name) for name in _in_both},
        schema=STATISTICS_SCHEMA,
        features=to_columns(message.features, message.rows),
        outputs=to_columns(message.outputs, message.rows),
    )
    if message.baseline:
        wire.manifest = ""
    return wire


def _from_wire(wire: WireStatistics) -> Statistics:
    return Statistics(
        **{name: getattr(wire, name) for name in _in_both},
        features=_fields("features", wire.features, wire.rows),
        outputs=_fields("outputs", wire.outputs, wire.rows),
    )


def _fields(family: str, said: Columns | list[FieldStatistics], rows: int) -> list[FieldStatistics]:
    if isinstance(said, list):
        return said
    try:
        return from_columns(said, rows)
    except InvalidInputError as error:
        raise InvalidMessageError(f"statistics: {family}.{error.sentence}") from error


class _Identity(Struct):
    device: Name
    boot_id: Annotated[str, Meta(min_length=1, max_length=40)]
    seq: Count


_identity = msgspec.json.Decoder(_Identity)


def identify(payload: bytes) -> tuple[str, str, int] | None:
    """Return (device, boot_id, seq) of a message that may be otherwise invalid, or None.

    Ingest acknowledges such a message as rejected, or its device would send it for ever.
    """
    try:
        found = _identity.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.device, found.boot_id, found.seq


__all__ = [
    "LATENCY_EDGES_US",
    "MESSAGE_TYPES",
    "UP_TYPES",
    "Acked",
    "Capture",
    "Captures",
    "Event",
    "FieldStatistics",
    "Header",
    "Health",
    "InvalidMessageError",
    "ModelState",
    "Predictions",
    "Reply",
    "State",
    "Statistics",
    "UpMessage",
    "Window",
    "decode",
    "encode",
    "identify",
]
