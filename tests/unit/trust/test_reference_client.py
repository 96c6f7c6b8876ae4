"""python-tuf's own client follows what we publish, through every kind of rotation."""

from __future__ import annotations

import pytest
from local_fleet.tuf_repository import TufRepository
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from shoal.package import sha256
from shoal.protocol.targets import DIRECTOR_PATH, release_path
from shoal.trust.roles import MAX_BYTES, ROLES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP

MANIFEST = b'{"a manifest": 1}'


class FolderFetcher(FetcherInterface):
    """Reads the repository's folder as a web server would serve it."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []

    def _fetch(self, url):
        self.asked.append(url)
        path = self.folder / url
        if not path.is_file():
            raise DownloadHTTPError(f"{url}: none", 404)
        yield path.read_bytes()


@pytest.fixture
def repository(tmp_path):
    made = TufRepository(tmp_path / "repository")
    made.release("pump", "1.0", 1, MANIFEST)
    return made


@pytest.fixture
def client(repository, tmp_path):
    """`client()`: a device's updater, over one cache and the first root."""
    first = repository.root
    cache = tmp_path / "cache"
    cache.mkdir()

    def make():
        return Updater(
            str(cache),
            "metadata/",
            fetcher=FolderFetcher(repository.folder),
            bootstrap=first,
            config=UpdaterConfig(
                root_max_length=MAX_BYTES[ROOT],
                timestamp_max_length=MAX_BYTES[TIMESTAMP],
                snapshot_max_length=MAX_BYTES[SNAPSHOT],
                targets_max_length=MAX_BYTES[TARGETS],
            ),
        )

    return make


def _find(client, path):
    updater = client()
    updater.refresh()
    return updater.get_targetinfo(path)


def test_a_release_is_found_with_length_hash_and_what_it_is(client):
    found = _find(client, release_path("pump", 1))
    assert (found.length, found.hashes) == (len(MANIFEST), {"sha256": sha256(MANIFEST)})
    assert found.custom == {"model": "pump", "version": "1.0", "release_sequence": 1}


def test_the_director_s_keys_are_found(client, repository):
    found = _find(client, DIRECTOR_PATH)
    data = (repository.folder / "files" / found.hashes["sha256"]).read_bytes()
    found.verify_length_and_hashes(data)


def test_a_release_that_nobody_published_is_not_found(client):
    assert _find(client, release_path("pump", 2)) is None


@pytest.mark.parametrize("role", ROLES)
def test_a_device_follows_the_rotation_of_any_role(client, repository, role):
    _find(client, release_path("pump", 1))
    repository.rotate(role)
    repository.release("pump", "2.0", 2, MANIFEST + b"2")
    assert _find(client, release_path("pump", 1)).length == len(MANIFEST)
    assert _find(client, release_path("pump", 2)).length == len(MANIFEST) + 1


def test_a_device_that_was_away_follows_many_rotations(client, repository):
    for _ in range(3):
        for role in ROLES:
            repository.rotate(role)
    assert _find(client, release_path("pump", 1)).length == len(MANIFEST)


def test_a_revoked_key_s_signature_is_worth_nothing(client, repository):
    _find(client, DIRECTOR_PATH)
    old = repository.rotate(TIMESTAMP)
    repository.signers[TIMESTAMP] = old
    repository.resign(repository.now)
    with pytest.raises(RepositoryError):
        _find(client, DIRECTOR_PATH)


def test_nothing_new_costs_a_missing_root_and_a_timestamp(client):
    _find(client, DIRECTOR_PATH)
    updater = client()
    updater.refresh()
    asked = updater._fetcher.asked
    assert asked == ["metadata/2.root.json", "metadata/timestamp.json"]
