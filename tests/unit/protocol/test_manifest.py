"""Manifests: deterministic, checked across their parts, every mistake named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidInputError
from shoal.protocol.manifest import (
    MAX_MANIFEST_BYTES,
    decode_manifest,
    encode_manifest,
    find_problems,
)

PLAIN: dict[str, Any] = {
    "model": "weather",
    "version": "1.0.0",
    "sequence": 1,
    "created": "2026-11-24T12:00:00Z",
    "files": [
        {"name": "model.tflite", "sha256": "a" * 64, "length": 10},
        {"name": "baseline.json", "sha256": "b" * 64, "length": 20},
    ],
    "variants": [{"name": "float32", "file": "model.tflite"}],
    "baseline": "baseline.json",
    "contract": {
        "features": [{"name": "temp", "unit": "°F"}, {"name": "humid", "unit": "%"}],
        "outputs": [{"name": "score"}],
        "preprocess": [{"op": "scale", "mean": [1, 2], "std": [1, 2]}],
        "postprocess": [
            {"op": "reconstruction_error"},
            {"op": "threshold", "above": 0.5},
        ],
    },
}


def _changed(path: str, value: Any) -> bytes:
    plain = msgspec.json.decode(msgspec.json.encode(PLAIN))
    place = plain
    *parents, last = path.split(".")
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[int(last) if last.isdigit() else last] = value
    return msgspec.json.encode(plain)


def test_same_manifest_same_bytes() -> None:
    first = encode_manifest(decode_manifest(msgspec.json.encode(PLAIN)))
    shuffled = msgspec.json.encode(dict(reversed(PLAIN.items())))
    assert encode_manifest(decode_manifest(shuffled)) == first
    assert encode_manifest(decode_manifest(first)) == first


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("variants.0.file", "other.tflite", "variants.float32.file: other.tflite"),
        ("baseline", "none.json", "baseline: none.json is not in files"),
        ("files.1.name", "model.tflite", "a name stands twice"),
        ("files.0.name", "../model.tflite", r"files\[0\].name"),
        ("files.0.sha256", "A" * 64, r"files\[0\].sha256"),
        ("contract.preprocess.0.mean", [1], "1 means and 2 deviations for 2 features"),
        ("contract.preprocess.0.std", [1, 0], "must be above 0"),
        ("contract.preprocess.0.op", "exec", "exec"),
        ("contract.postprocess.1.field", "nope", "no output 'nope'"),
        ("contract.features", [], "features"),
        ("contract.window_rows", 0, "window_rows"),
        ("model", "Weather Model", "model"),
        ("version", "1.0 beta/../", "version"),
        ("sequence", 0, "sequence"),
        ("schema", 99, "schema: 99"),
    ],
)
def test_every_mistake_is_named(path: str, value: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        decode_manifest(_changed(path, value))
    assert caught.value.code == "invalid-manifest"


def test_all_mistakes_are_reported_together() -> None:
    broken = msgspec.json.decode(_changed("variants.0.file", "x.tflite"))
    broken["baseline"] = "y.json"
    with pytest.raises(InvalidInputError, match=r"x\.tflite.*y\.json"):
        decode_manifest(msgspec.json.encode(broken))


def test_too_large_is_refused_unread() -> None:
    with pytest.raises(InvalidInputError, match=str(MAX_MANIFEST_BYTES)):
        decode_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


@given(st.binary(max_size=200))
def test_garbage_is_one_error(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode_manifest(data)


def test_a_good_manifest_has_no_problems() -> None:
    manifest = decode_manifest(msgspec.json.encode(PLAIN))
    assert find_problems(manifest) == []
    assert manifest.file("model.tflite").length == 10
