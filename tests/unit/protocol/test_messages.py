"""Messages: round trips, tolerance, refusals, and the wire samples of released schemas."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.protocol import MAX_MESSAGE_BYTES, SCHEMA, STATISTICS_SCHEMA
from shoal.protocol.messages import (
    LATENCY_EDGES_US,
    MESSAGE_TYPES,
    Event,
    InvalidMessageError,
    State,
    Statistics,
    decode,
    encode,
    identify,
)
from shoal.protocol.topics import Channel

GOLDEN = Path(__file__).parent / "golden"

HEADER: dict[str, Any] = {
    "device": "gw-1",
    "site": "jfk",
    "boot_id": "b1",
    "seq": 7,
    "ts_ms": 1_700_000_000_000,
}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda p: p.stem)
def test_decodes_every_released_wire_sample(path: Path) -> None:
    channel = Channel(path.stem.split(".")[0])
    payload = path.read_bytes()
    message = decode(channel, payload)
    if isinstance(message, Statistics):
        message.manifest = ""  # its baseline and release_sequence say as much
    assert decode(channel, encode(message)) == message
    known = {*type(message).__struct_fields__}
    assert {*msgspec.json.decode(payload)} <= known


def test_there_is_a_wire_sample_of_every_message_of_this_schema() -> None:
    found = {path.name for path in GOLDEN.glob(f"*.v{SCHEMA}.json")}
    assert found == {f"{channel.value}.v{SCHEMA}.json" for channel in MESSAGE_TYPES}
    assert (GOLDEN / f"statistics.v{STATISTICS_SCHEMA}.json").exists()


def test_both_forms_of_statistics_say_the_same() -> None:
    old, new = (
        decode(Channel.STATISTICS, (GOLDEN / f"statistics.v{schema}.json").read_bytes())
        for schema in (1, STATISTICS_SCHEMA)
    )
    assert (old.features, old.outputs) == (new.features, new.outputs)


@given(st.binary(max_size=300), st.sampled_from(sorted(MESSAGE_TYPES, key=lambda c: c.value)))
def test_garbage_is_refused_with_one_error(payload: bytes, channel: Channel) -> None:
    with pytest.raises(InvalidMessageError):
        decode(channel, payload)
    assert identify(payload) is None


@given(
    st.text(max_size=2000),
    st.dictionaries(st.text(max_size=20), st.none() | st.integers(-(2**53), 2**53) | st.text()),
)
def test_events_survive_the_wire(sentence: str, data: dict[str, Any]) -> None:
    event = Event(**HEADER, kind="agent", code="x", sentence=sentence, data=data)
    assert decode(Channel.EVENTS, encode(event)) == event


def test_unknown_fields_are_tolerated() -> None:
    payload = msgspec.json.encode({**HEADER, "online": True, "from_the_future": [1, 2]})
    assert decode(Channel.STATE, payload) == State(**HEADER, online=True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"device": "GW/1"}, "invalid-message"),
        ({"seq": -1}, "invalid-message"),
        ({"seq": 1.5}, "invalid-message"),
        ({"ts_ms": "now"}, "invalid-message"),
        ({"boot_id": ""}, "invalid-message"),
        ({"online": None}, "invalid-message"),
        ({"schema": SCHEMA + 1}, "schema-too-new"),
    ],
)
def test_invalid_messages_are_refused_with_a_code(change: dict[str, Any], code: str) -> None:
    payload = msgspec.json.encode({**HEADER, "online": True, **change})
    with pytest.raises(InvalidMessageError) as caught:
        decode(Channel.STATE, payload)
    assert caught.value.code == code


def test_too_large_messages_are_refused_on_both_sides() -> None:
    with pytest.raises(InvalidMessageError, match=str(MAX_MESSAGE_BYTES)) as caught:
        decode(Channel.STATE, b" " * (MAX_MESSAGE_BYTES + 1))
    assert caught.value.code == "message-too-large"
    event = Event(**HEADER, kind="agent", code="x", data={"k": "x" * MAX_MESSAGE_BYTES})
    with pytest.raises(InvalidMessageError, match="Event"):
        encode(event)


def test_deep_nesting_is_refused_not_fatal() -> None:
    with pytest.raises(InvalidMessageError):
        decode(Channel.STATE, b"[" * 100_000)


def test_an_invalid_message_can_still_be_identified() -> None:
    payload = msgspec.json.encode({**HEADER, "online": "certainly"})
    with pytest.raises(InvalidMessageError):
        decode(Channel.STATE, payload)
    assert identify(payload) == ("gw-1", "b1", 7)


def test_latency_edges_rise_by_half_octaves() -> None:
    ratios = [b / a for a, b in itertools.pairwise(LATENCY_EDGES_US)]
    assert min(ratios) > 1.40
    assert max(ratios) < 1.43
    assert LATENCY_EDGES_US[-1] > 5_000_000
