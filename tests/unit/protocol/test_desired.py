"""Desired state: a device obeys only what names it, is newer and has not expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from shoal.errors import UntrustedError
from shoal.protocol import SCHEMA
from shoal.protocol.desired import (
    MAX_SEQUENCE_STEP,
    Assignment,
    DesiredState,
    check_desired,
    decode_desired,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ASSIGNMENT = Assignment(
    model="weather",
    version="2.0.0",
    release_sequence=2,
    manifest_sha256="a" * 64,
    manifest_length=900,
)


def _desired(**changes: object) -> DesiredState:
    fields: dict[str, object] = {
        "device": "gw-1",
        "sequence": 5,
        "issued": NOW,
        "expires": NOW + timedelta(days=7),
        "models": [ASSIGNMENT],
    }
    return DesiredState(**{**fields, **changes})  # type: ignore[arg-type] # a test's shorthand


@pytest.mark.parametrize("floor", [0, 4, 5])
def test_newer_or_equal_sequence_passes(floor: int) -> None:
    check_desired(_desired(), device="gw-1", floor=floor, now=NOW)


@pytest.mark.parametrize(
    ("desired", "code"),
    [
        (_desired(device="gw-2"), "wrong-device"),
        (_desired(sequence=4), "old-sequence"),
        (_desired(sequence=5 + MAX_SEQUENCE_STEP + 1), "sequence-jump"),
        (_desired(expires=NOW), "expired"),
        (_desired(schema=SCHEMA + 1), "schema-too-new"),
    ],
)
def test_each_refusal_has_its_code(desired: DesiredState, code: str) -> None:
    with pytest.raises(UntrustedError) as caught:
        check_desired(desired, device="gw-1", floor=5, now=NOW)
    assert caught.value.code == code


def test_survives_the_wire() -> None:
    assert decode_desired(msgspec.json.encode(_desired())) == _desired()


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"device":1}', b"\xff", b"[" * 90_000])
def test_malformed_is_untrusted(payload: bytes) -> None:
    with pytest.raises(UntrustedError) as caught:
        decode_desired(payload)
    assert caught.value.code == "desired-malformed"
