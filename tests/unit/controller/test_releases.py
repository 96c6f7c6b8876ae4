"""Publishing: only what a trusted release key signed, whole, rising, and once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select, update

from controller import schema
from controller.database import reading, writing
from controller.errors import ConflictError
from controller.releases import publish
from controller.services import RELEASE_KEYS
from controller.setup import trust_release_key
from shoal.errors import InvalidInputError, ShoalError, UntrustedError
from shoal.signing import FileSigner


@pytest.fixture
def push(services, package_file):
    def run(package):
        return publish(services, package_file(package), "ann")

    return run


@pytest.fixture
def published(services):
    def count():
        with reading(services.engine) as connection:
            return connection.scalar(select(func.count()).select_from(schema.releases))

    return count


def test_a_signed_package_is_published_with_its_files(services, push, make_pump):
    package = make_pump()
    document = push(package)
    assert (document["version"], document["sequence"]) == ("1.0", 1)
    assert services.artifacts.path(package.manifest_sha256).read_bytes() == package.manifest_bytes
    for entry in package.manifest.files:
        assert services.artifacts.path(entry.sha256).read_bytes() == b"model"


def test_the_same_package_again_changes_nothing(push, make_pump, published):
    package = make_pump()
    assert push(package) == push(package)
    assert published() == 1


@pytest.mark.parametrize("signers", [(), (FileSigner.generate(),)])
def test_a_package_without_a_trusted_signature_is_refused(push, make_pump, published, signers):
    with pytest.raises(UntrustedError):
        push(make_pump(signers=signers))
    assert published() == 0


def test_a_signature_over_another_manifest_is_refused(push, make_pump, published):
    other = make_pump("2.0", 2)
    with pytest.raises(ShoalError):
        push(replace(make_pump(), envelope=other.envelope))
    assert published() == 0


def test_as_many_keys_must_sign_as_the_threshold_says(services, push, make_pump, signer):
    second, stranger = FileSigner.generate(), FileSigner.generate()
    trust_release_key(services.settings, second.public_key)
    services.settings = replace(services.settings, release_threshold=2)
    for signers in [(signer,), (signer, signer), (signer, stranger)]:
        with pytest.raises(UntrustedError):
            push(make_pump(signers=signers))
    push(make_pump(signers=(signer, second)))


def test_a_version_is_taken_once(push, make_pump):
    push(make_pump("1.0", 1))
    with pytest.raises(ConflictError, match="give it another version") as error:
        push(make_pump("1.0", 2, data=b"other"))
    assert error.value.code == "version-taken"


@pytest.mark.parametrize("sequence", [1, 4, 5])
def test_the_sequence_must_rise(push, make_pump, sequence):
    push(make_pump("1.0", 5))
    with pytest.raises(ConflictError, match="expected more than 5") as error:
        push(make_pump("0.9", sequence))
    assert error.value.code == "sequence-not-rising"


def test_nothing_is_published_before_a_release_key_is_trusted(services, push, make_pump):
    with writing(services.engine) as connection:
        here = schema.settings.c.key == RELEASE_KEYS
        connection.execute(update(schema.settings).where(here).values(value=[]))
    with pytest.raises(UntrustedError, match="trust-release-key"):
        push(make_pump())


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 33])
def test_what_is_no_key_is_not_trusted(services, key):
    with pytest.raises(InvalidInputError, match="release key"):
        trust_release_key(services.settings, key)


# By HTTP


@pytest.fixture
def upload(api, operator, package_file):
    def send(body):
        return api.post("/api/v1/releases", content=body, headers=operator)

    return send


def _left_behind(services):
    return list(services.settings.data_dir.glob("upload-*"))


def test_an_upload_is_published_and_leaves_no_file_behind(
    services, upload, make_pump, package_file
):
    answer = upload(package_file(make_pump()).read_bytes())
    assert (answer.status_code, answer.json()["version"]) == (201, "1.0")
    assert _left_behind(services) == []


@pytest.mark.parametrize("part", [0, 1, 100, -1, -30])
def test_a_truncated_upload_is_refused_and_leaves_nothing(
    services, upload, make_pump, package_file, published, part
):
    answer = upload(package_file(make_pump()).read_bytes()[:part])
    assert (answer.status_code, answer.json()["code"]) == (422, "not-a-package")
    assert str(services.settings.data_dir) not in answer.text
    assert (published(), _left_behind(services)) == (0, [])


def test_an_upload_beyond_the_limit_is_refused(services, upload):
    services.settings = replace(services.settings, max_package_bytes=1000)
    answer = upload(b"x" * 1001)
    assert (answer.status_code, answer.json()["code"]) == (422, "too-large")
    assert _left_behind(services) == []


def test_a_flipped_bit_anywhere_is_refused(upload, make_pump, package_file):
    good = package_file(make_pump()).read_bytes()
    for at in range(0, len(good), 97):
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        answer = upload(bad)
        assert answer.status_code in (201, 422), answer.text
        if answer.status_code == 201:  # a bit that the archive does not use: nothing else changed
            assert answer.json()["signed_by"]


def test_devices_fetch_files_with_ranges_and_nothing_else(api, upload, make_pump, package_file):
    package = make_pump()
    upload(package_file(package).read_bytes())
    digest = package.manifest.files[0].sha256
    part = api.get(f"/repository/files/{digest}", headers={"range": "bytes=2-"})
    assert (part.status_code, part.content) == (206, b"del")
    for path in ("files/" + "0" * 64, "releases/pump/1"):
        assert api.get(f"/repository/{path}").status_code == 404
    for path in ("files/..%2fkeys%2fdirector.key", "files/x"):
        assert api.get(f"/repository/{path}").status_code in (404, 422)
