"""Writing and reading packages: what goes in comes out, and the bytes are always the same."""

from __future__ import annotations

import dataclasses
import zipfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import InvalidInputError, UntrustedError
from shoal.package import (
    Package,
    file_entries,
    make_package,
    read_package,
    sha256,
    verify_package,
    write_package,
)
from shoal.signing import FileSigner, KeyVerifier


def test_what_is_written_is_read_again(package, tmp_path):
    path = tmp_path / "a.shoal"
    write_package(package, path)
    assert read_package(path) == package


def test_the_signed_statement_names_the_manifest(package, signer, manifest):
    release = verify_package(package, KeyVerifier([signer.public_key]))
    assert (release.model, release.version, release.sequence) == ("pump", "1.2.0", 12)
    assert release.manifest_sha256 == package.manifest_sha256 == sha256(package.manifest_bytes)
    assert release.manifest_length == len(package.manifest_bytes)


def test_same_content_gives_the_same_bytes(package, signer, manifest, tmp_path):
    again = make_package(manifest, dict(reversed(package.files.items())), signer)
    (tmp_path / "elsewhere").mkdir()
    paths = [tmp_path / "a.shoal", tmp_path / "elsewhere" / "b.shoal"]
    for path, one in zip(paths, (package, again), strict=True):
        write_package(one, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_archive_has_a_fixed_layout_without_times(package, tmp_path):
    path = tmp_path / "a.shoal"
    write_package(package, path)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos] == [
        "manifest.json",
        "release.dsse.json",
        "files/card.md",
        "files/model.tflite",
    ]
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}


def test_writing_replaces_an_older_package_and_leaves_nothing_beside_it(package, tmp_path):
    path = tmp_path / "a.shoal"
    path.write_bytes(b"older")
    write_package(package, path)
    assert read_package(path) == package
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing_beside_it(package, tmp_path):
    path = tmp_path / "a.shoal"
    (path / "in-the-way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"a\.shoal"):
        write_package(package, path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"model.tflite": b"other bytes", "card.md": b"A model for tests.\n"},
        {"model.tflite": bytes(range(256)) * 4},
    ],
)
def test_a_manifest_of_other_files_is_not_signed(manifest, signer, files):
    with pytest.raises(InvalidInputError, match="does not describe the files given"):
        make_package(manifest, files, signer)


def test_a_manifest_that_contradicts_itself_is_not_signed(manifest, signer, package):
    broken = msgspec.structs.replace(manifest, baseline="baseline.json")
    with pytest.raises(InvalidInputError, match=r"baseline\.json is not in files"):
        make_package(broken, package.files, signer)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@settings(deadline=None)  # each example works on a file
@given(files=st.dictionaries(names, st.binary(max_size=100), min_size=1, max_size=5))
def test_any_files_survive(tmp_path_factory, manifest, signer, files):
    variant = msgspec.structs.replace(manifest.variants[0], file=min(files))
    chosen = msgspec.structs.replace(manifest, files=file_entries(files), variants=[variant])
    package = make_package(chosen, files, signer)
    path = tmp_path_factory.getbasetemp() / "any.shoal"
    write_package(package, path)
    assert read_package(path) == package


def test_two_signers_satisfy_a_threshold_of_two_and_one_does_not(manifest, package, signer):
    second = FileSigner.generate()
    both = KeyVerifier([signer.public_key, second.public_key], threshold=2)
    signed: Package = make_package(manifest, package.files, signer, second)
    assert verify_package(signed, both).sequence == 12
    twice = dataclasses.replace(
        package,
        envelope=msgspec.structs.replace(
            package.envelope, signatures=package.envelope.signatures * 2
        ),
    )
    for one in (package, twice):
        with pytest.raises(UntrustedError, match="1 valid signatures, 2 needed"):
            verify_package(one, both)
