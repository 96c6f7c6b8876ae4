"""Archives from nobody we know: each is refused with its own code, and nothing else ever."""

from __future__ import annotations

import dataclasses
import struct
import zipfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import InvalidInputError, ShoalError, UntrustedError
from shoal.package import (
    MAX_PACKAGE_BYTES,
    check_statement,
    read_package,
    sha256,
    verify_package,
    write_package,
)
from shoal.protocol.envelope import DESIRED_TYPE, MAX_ENVELOPE_BYTES, RELEASE_TYPE, encode_envelope
from shoal.protocol.manifest import MAX_MANIFEST_BYTES, Release, encode_manifest
from shoal.signing import FileSigner, KeyVerifier, seal

MODEL = "files/model.tflite"


def _code(path):
    with pytest.raises(ShoalError) as caught:
        read_package(path)
    assert caught.value.sentence
    return caught.value.code


@pytest.mark.parametrize("name", ["manifest.json", "release.dsse.json", MODEL])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_member_is_refused(members, tmp_path, name, method):
    path = tmp_path / "a.shoal"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data, method if member == name else zipfile.ZIP_STORED)
    assert _code(path) == "compressed"


@pytest.mark.parametrize("name", ["manifest.json", MODEL, "files/other"])
def test_a_name_that_stands_twice_is_refused(members, tmp_path, name):
    path = tmp_path / "a.shoal"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        if name not in members:
            archive.writestr(name, b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, b"two")
    assert _code(path) == "duplicate-name"


@pytest.mark.parametrize(
    "name", ["files/extra", "extra", "files/../model.tflite", "/etc/passwd", "files/", MODEL + "/"]
)
def test_a_file_that_the_manifest_does_not_name_is_refused(members, write_archive, name):
    assert _code(write_archive({**members, name: b"surprise"})) == "undeclared-file"


@pytest.mark.parametrize("name", ["manifest.json", "release.dsse.json", MODEL])
def test_a_missing_member_is_refused(members, write_archive, name):
    del members[name]
    assert _code(write_archive(members)) == "missing-file"


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"\xff" + data[1:]])
def test_other_bytes_than_declared_are_refused(members, write_archive, change):
    members[MODEL] = change(members[MODEL])
    assert _code(write_archive(members)) == "digest-mismatch"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (MODEL, 1025),
        ("manifest.json", MAX_MANIFEST_BYTES + 1),
        ("release.dsse.json", MAX_ENVELOPE_BYTES + 1),
    ],
)
def test_a_member_over_its_limit_is_refused(members, write_archive, name, size):
    members[name] = b" " * size
    assert _code(write_archive(members)) == "too-large"


def test_a_package_over_the_limit_is_not_opened(tmp_path):
    path = tmp_path / "a.shoal"
    with path.open("wb") as file:
        file.truncate(MAX_PACKAGE_BYTES + 1)  # a hole: takes no space
    assert _code(path) == "too-large"


def test_every_truncation_is_refused(package, tmp_path):
    path = tmp_path / "a.shoal"
    write_package(package, path)
    whole = path.read_bytes()
    lengths = {*range(64), *range(0, len(whole), 13), *range(len(whole) - 120, len(whole))}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        assert _code(path) == "not-a-package", length


def test_an_encrypted_member_is_refused(package, tmp_path):
    path = tmp_path / "a.shoal"
    write_package(package, path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1  # general purpose flag of the first central entry
    path.write_bytes(data)
    assert _code(path) == "not-a-package"


def test_a_central_directory_that_lies_about_an_offset_is_refused(package, tmp_path):
    path = tmp_path / "a.shoal"
    write_package(package, path)
    whole = path.read_bytes()
    at = whole.index(b"PK\x01\x02")
    for offset in (1, len(whole) - 10, len(whole) + 1, 2**31, 2**32 - 2):
        data = bytearray(whole)
        struct.pack_into("<I", data, at + 42, offset)
        path.write_bytes(data)
        assert _code(path) == "not-a-package", offset


def test_a_name_that_is_not_utf8_is_refused(members, write_archive):
    path = write_archive({"NAME": b"", **members})
    data = bytearray(path.read_bytes().replace(b"NAME", b"\xff\xfe\xfd\xfc"))
    data[data.index(b"PK\x01\x02") + 9] |= 0x08  # "this name is UTF-8"
    path.write_bytes(data)
    assert _code(path) == "not-a-package"


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1])
def test_an_offset_beyond_any_file_is_refused(members, tmp_path, offset):
    path = tmp_path / "a.shoal"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.extra = struct.pack("<HHQ", 1, 8, offset)  # zip64: one 8-byte offset
            archive.writestr(info, data)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 42, 0xFFFFFFFF)
    path.write_bytes(data)
    assert _code(path) in {"not-a-package", "unreadable"}


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_what_cannot_be_opened_is_unreadable(tmp_path, make):
    path = tmp_path / "a.shoal"
    make(path)
    assert _code(path) == "unreadable"


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "invalid-manifest"), (b"{}", "invalid-manifest"), (b"\xff", "invalid-manifest")],
)
def test_a_manifest_that_is_none_is_refused(members, write_archive, data, code):
    members["manifest.json"] = data
    assert _code(write_archive(members)) == code


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 60_000])
def test_a_statement_that_is_none_is_refused(members, write_archive, data):
    members["release.dsse.json"] = data
    assert _code(write_archive(members)) == "envelope-malformed"


@pytest.fixture(scope="module")
def whole(package, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.shoal"
    write_package(package, path)
    return path.read_bytes()


@settings(deadline=None)  # each example works on a file
@given(data=st.data())
def test_damaged_bytes_never_raise_anything_else(whole, package, tmp_path_factory, data):
    """Half of the damage goes into the last part, the zip's own tables."""
    damaged = bytearray(whole)
    tables = whole.index(b"PK\x01\x02")
    places = st.integers(0, len(whole) - 1) | st.integers(tables, len(whole) - 1)
    for at, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)
    ):
        damaged[at] = value
    _read_or_refuse(damaged, package, tmp_path_factory)


@pytest.mark.parametrize("value", [0x00, 0x7F, 0x80, 0xFF])
def test_no_single_damaged_byte_of_the_tables_raises_anything_else(
    whole, package, tmp_path_factory, value
):
    for at in range(whole.index(b"PK\x01\x02"), len(whole)):
        damaged = bytearray(whole)
        damaged[at] = value
        _read_or_refuse(damaged, package, tmp_path_factory)


def _read_or_refuse(data, package, tmp_path_factory):
    """Refused by code, or (where the bytes damaged say nothing) exactly the package."""
    path = tmp_path_factory.getbasetemp() / "damaged.shoal"
    path.write_bytes(data)
    try:
        found = read_package(path)
    except ShoalError:
        return
    assert (found.manifest_bytes, found.files) == (package.manifest_bytes, package.files)


def test_unknown_and_missing_keys_are_refused(package):
    stranger = KeyVerifier([FileSigner.generate().public_key])
    for verifier in (stranger, KeyVerifier([])):
        with pytest.raises(UntrustedError) as caught:
            verify_package(package, verifier)
        assert caught.value.code == "unknown-key"


def test_an_unsigned_statement_is_refused(package, signer):
    bare = msgspec.structs.replace(package.envelope, signatures=[])
    with pytest.raises(UntrustedError) as caught:
        verify_package(
            dataclasses.replace(package, envelope=bare), KeyVerifier([signer.public_key])
        )
    assert caught.value.code == "unknown-key"


@pytest.mark.parametrize("sig", [b"", b"\x00" * 64, b"\x00" * 63, b"\xff" * 1000])
def test_a_wrong_signature_under_a_known_key_is_refused(package, signer, sig):
    (one,) = package.envelope.signatures
    forged = msgspec.structs.replace(
        package.envelope, signatures=[msgspec.structs.replace(one, sig=sig)]
    )
    with pytest.raises(UntrustedError) as caught:
        verify_package(
            dataclasses.replace(package, envelope=forged), KeyVerifier([signer.public_key])
        )
    assert caught.value.code == "bad-signature"


def test_a_statement_of_another_kind_is_refused(package, signer):
    other = seal(package.envelope.payload, DESIRED_TYPE, signer)
    with pytest.raises(UntrustedError) as caught:
        verify_package(
            dataclasses.replace(package, envelope=other), KeyVerifier([signer.public_key])
        )
    assert caught.value.code == "wrong-payload-type"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "other"),
        ("version", "9.9.9"),
        ("sequence", 13),
        ("manifest_sha256", "0" * 64),
        ("manifest_length", 7),
    ],
)
def test_a_statement_about_another_manifest_is_refused(package, signer, key, value):
    statement = msgspec.json.decode(package.envelope.payload, type=Release)
    payload = msgspec.json.encode(msgspec.structs.replace(statement, **{key: value}))
    signed = dataclasses.replace(package, envelope=seal(payload, RELEASE_TYPE, signer))
    with pytest.raises(InvalidInputError, match=f"{key} signed as") as caught:
        verify_package(signed, KeyVerifier([signer.public_key]))
    assert caught.value.code == "statement-mismatch"


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"model": "\xff"}', b"[" * 100_000])
def test_a_signed_payload_that_is_no_statement_is_refused(package, payload):
    with pytest.raises(InvalidInputError) as caught:
        check_statement(payload, package.manifest, package.manifest_bytes)
    assert caught.value.code == "bad-statement"


def test_a_manifest_swapped_under_a_good_signature_is_refused(
    package, signer, members, write_archive
):
    other = encode_manifest(msgspec.structs.replace(package.manifest, version="6.6.6"))
    assert sha256(other) != package.manifest_sha256
    members["manifest.json"] = other
    members["release.dsse.json"] = encode_envelope(package.envelope)
    found = read_package(write_archive(members))
    with pytest.raises(InvalidInputError) as caught:
        verify_package(found, KeyVerifier([signer.public_key]))
    assert caught.value.code == "statement-mismatch"
