"""The TUF repository of a real controller: killed while it publishes, followed over HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

SCRIPTS = str(Path(__file__).resolve().parents[3] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

from local_fleet import processes  # noqa: E402 - lives in scripts/
from local_fleet.controller import COMMAND  # noqa: E402
from local_fleet.fleet import LocalFleet  # noqa: E402
from tuf.ngclient import Updater, UpdaterConfig  # noqa: E402

from controller.app import build_services  # noqa: E402
from controller.config import load_settings  # noqa: E402
from controller.database import reading  # noqa: E402
from controller.people.person import Person  # noqa: E402
from controller.people.roles import ADMIN  # noqa: E402
from controller.releases import list_models  # noqa: E402
from controller.releases import publish as upload  # noqa: E402
from controller.repository import online, store  # noqa: E402
from controller.repository.publish import publish, read_base  # noqa: E402
from controller.setup import initialise, trust_release_key  # noqa: E402
from shoal.client import ApiError  # noqa: E402
from shoal.package import file_entries, make_package, write_package  # noqa: E402
from shoal.protocol.manifest import (  # noqa: E402
    Contract,
    Feature,
    Manifest,
    OutputField,
    Variant,
)
from shoal.protocol.targets import DirectorKeys, release_path  # noqa: E402
from shoal.signing import FileSigner  # noqa: E402
from shoal.trust import ceremony  # noqa: E402
from shoal.trust.check import check_whole  # noqa: E402
from shoal.trust.desk import Desk, target_of_package  # noqa: E402
from shoal.trust.metadata import RoleKeys, encode  # noqa: E402
from shoal.trust.proposal import encode_proposal  # noqa: E402
from shoal.trust.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP  # noqa: E402

# Publishes a proposal, and dies by SIGKILL where the last argument says.
DYING = """
import os, sys
from pathlib import Path
from controller.app import build_services
from controller.config import load_settings
from controller.people.person import Person
from controller.repository import publish as module, store
from shoal.trust.proposal import decode_proposal

def die(*_, **__):
    os.kill(os.getpid(), 9)

config, proposal, where = sys.argv[1:]
put, record = store.put, module.audit.record

def put_or_die(connection, role, metadata, now_ms):
    put(connection, role, metadata, now_ms)
    if role.startswith(where):
        die()

def record_and_die(*arguments):
    record(*arguments)
    die()

store.put = put_or_die
if where == "audit":
    module.audit.record = record_and_die
services = build_services(load_settings(Path(config)))
module.publish(services, decode_proposal(Path(proposal).read_bytes()), Person("ann", "admin"))
die()
"""


def _package(signer, version="1.0", sequence=1, model="pump"):
    files = {"model.tflite": b"model"}
    manifest = Manifest(
        model=model,
        version=version,
        sequence=sequence,
        created="2026-01-01T00:00:00+00:00",
        files=file_entries(files),
        variants=[Variant(name="only", file="model.tflite")],
        contract=Contract(features=[Feature(name="t")], outputs=[OutputField(name="y")]),
    )
    return make_package(manifest, files, signer)


@pytest.mark.parametrize("where", ["bin", "snapshot", "timestamp", "audit", "after the commit"])
def test_a_controller_killed_while_it_publishes_leaves_a_whole_repository(tmp_path, where):
    path = tmp_path / "controller.toml"
    path.write_text('data_dir = "data"\n')
    author = FileSigner.generate()
    settings = load_settings(path)
    initialise(settings)
    trust_release_key(settings, author.public_key)
    services = build_services(settings)
    root, targets = FileSigner.generate(), FileSigner.generate()
    ring, now = services.keyring, datetime.now(UTC)
    first = ceremony.propose_first(
        {
            ROOT: RoleKeys((root.public_key,)),
            TARGETS: RoleKeys((targets.public_key,)),
            SNAPSHOT: RoleKeys(tuple(ring.public_keys(SNAPSHOT))),
            TIMESTAMP: RoleKeys(tuple(ring.public_keys(TIMESTAMP))),
        },
        DirectorKeys(keys=ring.public_keys("director")),
        now,
        2,
    )
    for signer in (root, targets):
        ceremony.sign_proposal(None, first, signer)
    publish(services, first, Person("ann", ADMIN))
    package = _package(author)
    write_package(package, tmp_path / "pump.shoal")
    upload(services, tmp_path / "pump.shoal", "ann")
    with reading(services.engine) as connection:
        contents = read_base(services, connection, None).contents()
    proposal = ceremony.propose_releases(contents, [target_of_package(package)], now)
    ceremony.sign_proposal(contents, proposal, targets)
    (tmp_path / "proposal").write_bytes(encode_proposal(proposal))

    arguments = [sys.executable, "-c", DYING, path, tmp_path / "proposal", where]
    died = subprocess.run(arguments, check=False, timeout=100, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()

    published = _expect_whole(services)
    assert published == (where == "after the commit")
    if not published:  # the same proposal still holds
        publish(services, proposal, Person("ann", ADMIN))
        assert _expect_whole(services)
    services.engine.dispose()


def _expect_whole(services):
    """Everything verifies from the root down and agrees; whether the release is published."""
    with reading(services.engine) as connection:
        contents = store.contents(connection)
        check_whole(contents)
        snapshot, stamp = store.snapshot(connection), store.timestamp(connection)
        versions = store.versions(connection)
        (release,) = list_models(connection)[0]["releases"]
    for role, one in ((SNAPSHOT, snapshot), (TIMESTAMP, stamp)):
        contents.root.signed.verify_delegate(role, one.signed_bytes, one.signatures)
    assert online.listed(snapshot) == versions
    assert stamp.signed.snapshot_meta.version == snapshot.signed.version
    stamp.signed.snapshot_meta.verify_length_and_hashes(encode(snapshot))
    listed = {path for one in contents.bins.values() for path in one.signed.targets}
    assert (release["state"] == "released") == bool(listed)
    return bool(listed)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A controller with its first root."""
    with LocalFleet(tmp_path_factory.mktemp("repository"), broker="nats") as running:
        running.start_controller()
        yield running


@pytest.fixture
def find(fleet, tmp_path):
    """`find(path)`: what python-tuf's own client finds, over HTTP, from the first root on."""
    first = encode(_roots(fleet)[0])
    (tmp_path / "cache").mkdir()

    def run(path):
        updater = Updater(
            str(tmp_path / "cache"),
            f"{fleet.url}/repository/metadata/",
            bootstrap=first,
            config=UpdaterConfig(root_max_length=65536, timestamp_max_length=16384),
        )
        updater.refresh()
        return updater.get_targetinfo(path)

    return run


def _roots(fleet):
    desk = Desk(fleet.client)
    desk.fetch_published([])
    return desk.base.roots


def _push(fleet, tmp_path, model, sequence=1):
    package = _package(fleet.signer, f"{sequence}.0", sequence, model)
    path = tmp_path / f"{model}-{sequence}.shoal"
    write_package(package, path)
    return package, path


def _rotate(fleet, role, new, *signers):
    desk = Desk(fleet.client)
    contents = desk.fetch_published()
    keys = {role: RoleKeys((new,))}
    proposal = ceremony.propose_keys(contents, datetime.now(UTC), keys)
    for one in signers:
        ceremony.sign_proposal(contents, proposal, one)
    desk.send(proposal)


def test_the_reference_client_follows_releases_and_rotations_over_http(fleet, find, tmp_path):
    root, targets = fleet.signing.key(ROOT), fleet.signing.key(TARGETS)
    package, path = _push(fleet, tmp_path, "pump")
    assert find(release_path("pump", 1)) is None
    fleet.release(path)
    assert find(release_path("pump", 1)).hashes["sha256"] == package.manifest_sha256
    for role in (TIMESTAMP, SNAPSHOT):
        processes.run([*COMMAND, "new-key", "--config", fleet.controller.config, role], timeout=60)
        _rotate(fleet, role, Desk(fleet.client).online_keys()[role][-1], root)
        assert find(release_path("pump", 1)) is not None
    second_root, second_targets = FileSigner.generate(), FileSigner.generate()
    _rotate(fleet, TARGETS, second_targets.public_key, root, second_targets)
    _rotate(fleet, ROOT, second_root.public_key, root, second_root)
    assert find(release_path("pump", 1)) is not None
    _, path = _push(fleet, tmp_path, "pump", 2)
    fleet.client.push_release(path)
    with pytest.raises(ApiError, match="is pending signature"):
        fleet.client.create_rollout({"model": "pump", "version": "2.0"})
    revoked = Desk(fleet.client)
    proposal = revoked.propose_releases([target_of_package(_package(fleet.signer, "2.0", 2))])
    for one in proposal.bins.values():
        ceremony.sign(one, targets)
    with pytest.raises(ApiError) as error:
        fleet.client.publish_trust(encode_proposal(proposal))
    assert error.value.code == "under-signed"
    assert find(release_path("pump", 2)) is None
    for one in proposal.bins.values():
        ceremony.sign(one, second_targets)
    fleet.client.publish_trust(encode_proposal(proposal))
    assert find(release_path("pump", 2)).custom["release_sequence"] == 2
    _rotate(fleet, ROOT, root.public_key, root, second_root)
    _rotate(fleet, TARGETS, targets.public_key, root, targets)


def test_a_controller_that_is_killed_and_started_again_goes_on_where_it_was(fleet, find, tmp_path):
    _, path = _push(fleet, tmp_path, "fan")
    fleet.release(path)
    assert find(release_path("fan", 1)) is not None
    fleet.children.pop("controller").kill()
    fleet.start_controller()
    assert find(release_path("fan", 1)) is not None
    _, path = _push(fleet, tmp_path, "fan", 2)
    fleet.release(path)
    assert find(release_path("fan", 2)) is not None


def test_a_director_s_key_is_replaced_first_beside_the_old_one(fleet):
    targets = fleet.signing.key(TARGETS)
    config = fleet.controller.config
    processes.run([*COMMAND, "new-key", "--config", config, "director"], timeout=60)
    held = Desk(fleet.client).online_keys()["director"]
    for keys in (held, held[-1:]):
        desk = Desk(fleet.client)
        contents = desk.fetch_published()
        named = DirectorKeys(keys=keys)
        proposal = ceremony.propose_keys(contents, datetime.now(UTC), director=named)
        ceremony.sign_proposal(contents, proposal, targets)
        desk.send(proposal)
        desk.fetch_published()
        assert desk.director().keys == keys
