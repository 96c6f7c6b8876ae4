"""Envelopes: only what the right key signed, as what it was signed, opens."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidInputError, UntrustedError
from shoal.protocol.envelope import (
    DESIRED_TYPE,
    MAX_ENVELOPE_BYTES,
    RELEASE_TYPE,
    Envelope,
    Signature,
    decode_envelope,
    encode_envelope,
    pae,
)
from shoal.signing import FileSigner, KeyVerifier, seal

ALICE, BOB, MALLORY = FileSigner.generate(), FileSigner.generate(), FileSigner.generate()


def test_pae_matches_the_published_example() -> None:
    # DSSE protocol, "Test Vectors".
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.binary(max_size=400))
def test_sealed_payload_opens_after_the_wire(payload: bytes) -> None:
    data = encode_envelope(seal(payload, DESIRED_TYPE, ALICE))
    opened = KeyVerifier([ALICE.public_key]).open(decode_envelope(data), DESIRED_TYPE)
    assert opened == payload


def test_json_has_the_field_names_of_dsse() -> None:
    fields = msgspec.json.decode(encode_envelope(seal(b"x", RELEASE_TYPE, ALICE)))
    assert set(fields) == {"payload", "payloadType", "signatures"}
    assert set(fields["signatures"][0]) == {"keyid", "sig"}


def _code(verifier: KeyVerifier, envelope: Envelope, kind: str = DESIRED_TYPE) -> str:
    with pytest.raises(UntrustedError) as caught:
        verifier.open(envelope, kind)
    return caught.value.code


def test_each_attack_has_its_code() -> None:
    trusted = KeyVerifier([ALICE.public_key])
    good = seal(b"payload", DESIRED_TYPE, ALICE)
    changed = Envelope(b"Payload", good.payload_type, good.signatures)
    retyped = Envelope(good.payload, RELEASE_TYPE, good.signatures)
    borrowed = Envelope(
        good.payload,
        DESIRED_TYPE,
        [
            Signature(
                good.signatures[0].keyid,
                seal(b"payload", DESIRED_TYPE, MALLORY).signatures[0].sig,
            )
        ],
    )
    assert _code(trusted, seal(b"payload", DESIRED_TYPE, MALLORY)) == "unknown-key"
    assert _code(trusted, changed) == "bad-signature"
    assert _code(trusted, retyped) == "wrong-payload-type"
    assert _code(trusted, retyped, RELEASE_TYPE) == "bad-signature"
    assert _code(trusted, borrowed) == "bad-signature"
    assert _code(trusted, Envelope(b"payload", DESIRED_TYPE, [])) == "unknown-key"
    assert _code(KeyVerifier([]), good) == "unknown-key"


def test_threshold_counts_keys_not_signatures() -> None:
    two = KeyVerifier([ALICE.public_key, BOB.public_key], threshold=2)
    assert _code(two, seal(b"p", DESIRED_TYPE, ALICE, ALICE)) == "bad-signature"
    assert two.open(seal(b"p", DESIRED_TYPE, ALICE, BOB), DESIRED_TYPE) == b"p"


@given(st.binary(max_size=200))
def test_malformed_envelopes_are_untrusted_not_fatal(data: bytes) -> None:
    with pytest.raises(UntrustedError):
        decode_envelope(data)


def test_oversized_envelope_is_refused() -> None:
    with pytest.raises(UntrustedError) as caught:
        decode_envelope(b" " * (MAX_ENVELOPE_BYTES + 1))
    assert caught.value.code == "envelope-too-large"


def test_key_file_is_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "director.key"
    made = FileSigner.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert FileSigner.load_or_create(path).public_key == made.public_key


def test_broken_key_file_is_refused_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "director.key"
    path.write_text("not a key")
    with pytest.raises(InvalidInputError, match=r"director\.key"):
        FileSigner.load_or_create(path)
    assert path.read_text() == "not a key"
